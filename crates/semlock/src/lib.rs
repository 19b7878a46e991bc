//! Locks, semaphores and more that processes share.
//!
//! There are two families of objects. They have only errors and deadlines in common:
//!
//! * [`Mutex`], [`ReentrantMutex`], [`Semaphore`], [`Condvar`], [`Event`], [`Barrier`] and
//!   [`Channel`] live in memory that processes share. They have no names and leave nothing behind.
//!   If a holder dies, exactly one waiter gets what the holder held, and is told of the death
//!   ([`Acquired::OwnerDied`]). Each object is one cache line; a robust semaphore has one more for
//!   every eight permits, and a channel has memory of its own. [`Shared`] says how other processes
//!   get an object. [`raw`] has objects without guards, for language bindings. These types are for
//!   Unix; Windows has `RobustMutex`.
//! * [`SemLock`] is the object behind Python's `multiprocessing.Lock`. It has the semantics of
//!   CPython's `Modules/_multiprocessing/semaphore.c`, and needs no Python. It uses the operating
//!   system's semaphores (`sem_open` and `sem_init` on POSIX). So it can share a semaphore with any
//!   other program that opens it by its name.
//!
//! What both families promise:
//!
//! * A deadline is a moment of the monotonic clock, if the system can wait for one. Then setting
//!   the wall clock makes no wait longer or shorter. If a signal arrives in the middle of a wait, a
//!   caller that asks for that is told of it, and the wait goes on to the *same* deadline.
//! * All types are `Send` and `Sync`, except [`ReentrantMutexGuard`], which belongs to one thread.
//!
//! What they do not promise: the permits of a `SemLock`, and those of a [`Semaphore::new`], have no
//! holder. If a process dies with such a permit, the permit is lost.
//!
//! ```
//! use semlock::{Acquired, Deadline, Mutex};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), semlock::Error> {
//! let mutex = Mutex::new()?;
//! let Acquired::Clean(guard) = mutex.lock() else { panic!("nobody died") };
//! assert_eq!(mutex.holder(), Some(std::process::id()));
//! assert!(mutex.lock_until(Deadline::after(Duration::from_millis(5))).is_none());
//! drop(guard);
//! assert!(mutex.try_lock().is_some());
//! # Ok(())
//! # }
//! ```
//!
//! ```
//! use semlock::{Deadline, Kind, Name, Naming, SemLock};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), semlock::Error> {
//! let name = Name::new(&format!("/semlock-doc-{}", std::process::id()))?;
//! let lock = SemLock::create(Kind::Semaphore, 1, 1, &name, Naming::Keep)?;
//!
//! // Another process would do this: the name is all that it needs.
//! let same = SemLock::rebuild(Kind::Semaphore, 1, &name)?;
//! semlock::unlink(&name)?;
//!
//! lock.acquire()?;
//! assert!(!same.acquire_until(Deadline::after(Duration::from_millis(5)))?);
//! lock.release()?;
//! assert!(same.try_acquire()?);
//! # same.release()
//! # }
//! ```

// The models use only a part of what the backend uses.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(all(unix, not(loom)))]
mod address;
mod atomic;
#[cfg(not(loom))]
mod backend;
mod balance;
#[cfg(all(unix, not(loom)))]
mod barrier;
#[cfg(all(unix, not(loom)))]
mod channel;
#[cfg(all(unix, not(loom)))]
mod condvar;
mod deadline;
mod error;
#[cfg(all(unix, not(loom)))]
mod event;
#[cfg(any(unix, loom))]
mod mutation;
#[cfg(all(unix, not(loom)))]
mod mutex;
mod name;
#[cfg(not(loom))]
mod os;
#[cfg(all(unix, not(loom)))]
pub mod raw;
#[cfg(all(unix, not(loom)))]
mod semaphore;
#[cfg(not(loom))]
mod semlock;
#[cfg(any(unix, loom))]
mod sleep;
#[cfg(any(unix, loom))]
mod word;

#[cfg(all(unix, not(loom)))]
pub use address::Address;
#[cfg(all(windows, not(loom)))]
pub use backend::RobustMutex;
#[cfg(all(unix, not(loom)))]
pub use backend::unlink;
#[cfg(not(loom))]
pub use backend::{HAS_TIMED_WAIT, HAS_VALUE, SEM_VALUE_MAX};
#[cfg(all(unix, not(loom)))]
pub use barrier::Barrier;
#[cfg(all(unix, not(loom)))]
pub use channel::Channel;
#[cfg(all(unix, not(loom)))]
pub use condvar::Condvar;
pub use deadline::{Deadline, Wait};
pub use error::{Error, Refused};
#[cfg(all(unix, not(loom)))]
pub use event::Event;
#[cfg(all(unix, not(loom)))]
pub use mutex::{Acquired, Mutex, MutexGuard, ReentrantMutex, ReentrantMutexGuard};
pub use name::{Name, Naming};
#[cfg(all(unix, not(loom)))]
pub use raw::Shared;
#[cfg(all(unix, not(loom)))]
pub use semaphore::{Permit, Semaphore};
#[cfg(not(loom))]
pub use semlock::{Kind, SemLock};

/// Runs the examples of this page as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct RustPage;

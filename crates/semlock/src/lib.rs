//! Locks and semaphores between processes.
//!
//! There are two kinds, which share errors, deadlines and nothing else:
//!
//! * [`Mutex`], [`ReentrantMutex`], [`Semaphore`], [`Condvar`], [`Event`] and [`Barrier`] live in
//!   memory that processes share. They have no names and leave nothing behind. A holder that dies is
//!   found, and what it held goes to exactly one of those who wait, who is told so
//!   ([`Acquired::OwnerDied`]). Each is one cache line, a robust semaphore one more for every eight
//!   permits. [`Shared`] tells how other processes get them; [`raw`] has them without guards, for
//!   bindings. (Unix; Windows has `RobustMutex`.)
//! * [`SemLock`] is the object behind Python's `multiprocessing.Lock`, with the semantics of CPython's
//!   `Modules/_multiprocessing/semaphore.c` and no Python in it. It stands on what the operating
//!   system offers (`sem_open` and `sem_init` on POSIX), so a semaphore can be shared by name with any
//!   other program that opens it.
//!
//! What both promise:
//!
//! * A deadline is a moment of the monotonic clock wherever the system can wait for one: setting
//!   the wall clock neither stretches nor cuts a wait. A signal in the middle of a wait is
//!   reported to those who want to know, and the wait goes on to the *same* deadline.
//! * Everything that two threads can reach is atomic: all types are `Send` and `Sync`.
//!
//! What `SemLock` does not promise: a process that dies while it holds one takes the permit with
//! it, as with every plain semaphore.
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

// The models call less than the backend does.
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

/// The examples of the pages are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/rust.md")]
struct RustPage;

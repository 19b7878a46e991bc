//! Cross-process semaphores and locks.
//!
//! [`SemLock`] is the object behind Python's `multiprocessing.Lock`, `RLock`, `Semaphore` and
//! `BoundedSemaphore`, with the semantics of CPython's `Modules/_multiprocessing/semaphore.c` and
//! no Python in it. It stands on what the operating system offers (`sem_open` and `sem_init` on
//! POSIX), so a semaphore can be shared by name with any other program that opens it.
//!
//! What it promises:
//!
//! * A handle is owned: it is closed once, when its last user goes, and one that this process
//!   never made is an error instead of undefined behaviour.
//! * A deadline is a moment of the monotonic clock wherever the system can wait for one: setting
//!   the wall clock neither stretches nor cuts a wait. A signal in the middle of a wait is
//!   reported, and the wait goes on to the *same* deadline.
//! * Everything that two threads can reach is atomic: a `SemLock` is `Send` and `Sync`.
//!
//! What it does not promise: a process that dies while it holds a `SemLock` takes the permit with
//! it, as with every plain semaphore.
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

mod atomic;
mod backend;
mod count;
mod deadline;
mod error;
mod name;
mod os;
mod semlock;

pub use backend::{SEM_VALUE_MAX, unlink};
pub use deadline::{Deadline, Wait};
pub use error::Error;
pub use name::{Name, Naming};
pub use semlock::{Kind, SemLock};

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

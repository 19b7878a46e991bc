//! Locks in shared memory: joins the algorithms of `word` with the operating system's `os`.
//!
//! A file uses the files below it, and never a file above it:
//!
//! ```text
//!  channel, condvar, event
//!                   objects; a channel's own locks are `Lock`s
//!  barrier          an object; its own lock is a `Lock`
//!  waiter           how a thread waits for a lock
//!  lock             objects: mutexes and semaphores
//!  object           what all objects have in common
//!  end              what a process that ends well leaves held
//!  registry         the segments of a process, and the slots that it gives to its objects
//!  reuse            slots that children of the process may still have
//!  segment          the memory that objects live in
//!  heirs            locks that a forked child may go on to hold
//!  wait_schedule    when a waiter sleeps and when it checks
//!  spin             how an acquirer tries for a while before it sleeps
//!  liveness         whether a holder is dead, and when to check it
//!  layout           what each word of a segment is
//! ```

pub(crate) mod barrier;
pub(crate) mod channel;
pub(crate) mod condvar;
pub(crate) mod counting;
pub(crate) mod end;
pub(crate) mod event;
mod heirs;
pub mod layout;
mod liveness;
pub(crate) mod lock;
pub(crate) mod object;
mod registry;
mod reuse;
pub(crate) mod segment;
mod spin;
mod wait_schedule;
pub(crate) mod waiter;

//! Locks in shared memory: joins the algorithms of `word` with the operating system's `os`.

pub(crate) mod barrier;
pub(crate) mod condvar;
pub(crate) mod end;
pub(crate) mod event;
mod heirs;
pub mod layout;
pub(crate) mod lock;
mod object;
mod patrol;
mod reuse;
pub(crate) mod segment;
mod spin;
pub(crate) mod waiter;

//! What is to be done at a fork.

use crate::Error;
use crate::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::os::thread;

/// Has `before` called before every fork through `fork(3)`, and the others after it: the first in the
/// parent, the second in the child. `pthread_atfork(3)`.
///
/// Raw `clone(2)`, `vfork(2)` and `_Fork(3)` call none of them.
pub(crate) fn on_fork(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) -> Result<(), Error> {
    register(Some(before), Some(in_parent), in_child)
}

/// The same for what only a child has to do.
pub(super) fn on_fork_in_child(in_child: unsafe extern "C" fn()) -> Result<(), Error> {
    register(None, None, in_child)
}

fn register(
    before: Option<unsafe extern "C" fn()>,
    in_parent: Option<unsafe extern "C" fn()>,
    in_child: unsafe extern "C" fn(),
) -> Result<(), Error> {
    // SAFETY: functions that live as long as the process (a library that is unloaded takes its handlers with it: glibc
    // and FreeBSD's library see to that, musl unloads none, and CPython none of its extensions), and do not unwind.
    match unsafe { libc::pthread_atfork(before, in_parent, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Error::Os { call: "pthread_atfork", errno }),
    }
}

/// Handlers that a process registers once; a child has its parent's.
///
/// Not a `Once`: a child that was forked in the midst of it would wait for ever. So two threads that come at the same time,
/// or such a child, may register twice, and handlers are called twice then: see [`Forking`].
#[derive(Debug)]
pub(crate) struct Registered(AtomicBool);

impl Registered {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn once(&self, register: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        if !self.0.load(Ordering::Acquire) {
            register()?;
            self.0.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// The thread that is in a fork, between the first of its handlers and the last; 0: none.
#[derive(Debug)]
pub(crate) struct Forking(AtomicUsize);

impl Forking {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Before a fork: whether this thread is in none yet. Nobody else writes its number there.
    pub(crate) fn is_new(&self) -> bool {
        self.0.load(Ordering::Relaxed) != thread::current()
    }

    /// Before a fork, by who keeps others from forking.
    pub(crate) fn begin(&self) {
        self.0.store(thread::current(), Ordering::Relaxed);
    }

    /// After it, in the parent and in the child: whether it was not ended yet.
    pub(crate) fn end(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) != 0
    }
}

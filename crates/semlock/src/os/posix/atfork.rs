//! Handlers that run at a fork: `pthread_atfork(3)`.
//!
//! Raw `clone(2)`, `vfork(2)` and `_Fork(3)` run none of them.

use crate::Error;
use crate::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::os::thread;

/// Calls `before` before every `fork(3)`, and after it `in_parent` and `in_child`.
pub(crate) fn on_fork(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) -> Result<(), Error> {
    register(Some(before), Some(in_parent), in_child)
}

/// Calls `in_child` after every `fork(3)`.
pub(super) fn on_fork_in_child(in_child: unsafe extern "C" fn()) -> Result<(), Error> {
    register(None, None, in_child)
}

fn register(
    before: Option<unsafe extern "C" fn()>,
    in_parent: Option<unsafe extern "C" fn()>,
    in_child: unsafe extern "C" fn(),
) -> Result<(), Error> {
    // SAFETY: the functions live as long as the process, and do not unwind. (A library that is
    // unloaded takes its handlers with it: glibc and FreeBSD's library see to that. musl unloads no
    // library, and CPython no extension.)
    match unsafe { libc::pthread_atfork(before, in_parent, Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Error::Os { call: "pthread_atfork", errno }),
    }
}

/// Whether a process has registered some handlers. A child has its parent's.
///
/// Not a `Once`: a child that is forked while another thread registers would wait forever. So two
/// threads that register at the same time, or such a child, may register handlers twice. Then they
/// run twice at each fork: see [`Forking`].
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

/// The thread that is forking, from its first handler to its last; 0: none.
#[derive(Debug)]
pub(crate) struct Forking(AtomicUsize);

impl Forking {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Before a fork: whether this is the first call of the handler. Only this thread writes its
    /// own number there.
    pub(crate) fn is_new(&self) -> bool {
        self.0.load(Ordering::Relaxed) != thread::current()
    }

    /// Before a fork. The caller keeps other threads from forking.
    pub(crate) fn begin(&self) {
        self.0.store(thread::current(), Ordering::Relaxed);
    }

    /// After a fork, in the parent and in the child: whether this is the first call of the handler.
    pub(crate) fn end(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) != 0
    }
}

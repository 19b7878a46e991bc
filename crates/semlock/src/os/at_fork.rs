//! What is to be done at a fork.

use crate::Error;

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

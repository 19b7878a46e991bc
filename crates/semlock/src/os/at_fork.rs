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
    // SAFETY: three functions that live as long as the process (a library that is unloaded takes its
    // handlers with it, glibc sees to that), and do not unwind.
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Error::Os { call: "pthread_atfork", errno }),
    }
}

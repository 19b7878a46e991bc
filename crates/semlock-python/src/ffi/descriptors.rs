//! Descriptors by the numbers that other code gives.

use std::os::fd::{BorrowedFd, RawFd};

/// The descriptor of a number; `None` for a negative one. It is its owner's, who keeps it open as long
/// as the result is used. If nothing is open under the number, calls with it fail.
pub(crate) fn descriptor<'fd>(number: RawFd) -> Option<BorrowedFd<'fd>> {
    // SAFETY: it is not -1, and nobody closes it here.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

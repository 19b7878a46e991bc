//! Memory where there are neither memfds nor a kernel that wipes: what there is of it, beside how it is allocated.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;

use crate::atomic::AtomicU64;
use crate::os::mapping::{Way, unlinked_file, unlinked_shared_memory};

/// In the order in which they are tried.
pub(crate) const WAYS: &[(&str, Way)] =
    &[("shm_open", unlinked_shared_memory), ("a file in the temporary directory", unlinked_file)];

/// When a file was made: nobody tells.
pub(crate) fn born(_: BorrowedFd<'_>) -> u64 {
    0
}

/// The kernel wipes nothing.
pub(crate) fn wipe_on_fork(_: NonNull<AtomicU64>, _: usize) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// What is mapped cannot be opened by where it is.
pub(crate) fn reopen(_: NonNull<AtomicU64>, _: usize) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

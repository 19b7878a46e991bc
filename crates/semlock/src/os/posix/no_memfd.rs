//! Memory where the system has no memfds and wipes nothing at a fork: all but how it is allocated.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;

use crate::atomic::AtomicU64;
use crate::os::mapping::{Way, unlinked_file, unlinked_shared_memory};

/// In this order.
pub(crate) const WAYS: &[(&str, Way)] =
    &[("shm_open", unlinked_shared_memory), ("a file in the temporary directory", unlinked_file)];

/// When a file was made: unknown.
pub(crate) fn born(_: BorrowedFd<'_>) -> u64 {
    0
}

/// The kernel wipes nothing.
pub(crate) fn wipe_on_fork(_: NonNull<AtomicU64>, _: usize) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// A mapping cannot be opened by its address.
pub(crate) fn reopen(_: NonNull<AtomicU64>, _: usize) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

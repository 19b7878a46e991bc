//! Memory, where `fallocate(2)` or `posix_fallocate(3)` allocates a file.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use super::mapping::check_file_size;

/// Gives a new file this length, and allocates it. `EINVAL` on a file system that cannot allocate
/// beforehand (ZFS).
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    check_file_size(bytes)?;
    ftruncate(file, bytes)?;
    fallocate(file, FallocateFlags::empty(), 0, bytes)
}

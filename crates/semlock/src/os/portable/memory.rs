//! Memory, where there is POSIX and nothing else.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

pub(crate) use super::unassisted_memory::{WAYS, born, reopen, wipe_on_fork};
use crate::os::mapping::check_file_size;

/// Has all of a new shared memory object be there.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    allocate_file(object, bytes)
}

/// Has all of a new file be there.
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    check_file_size(bytes)?;
    ftruncate(file, bytes)?;
    fallocate(file, FallocateFlags::empty(), 0, bytes)
}

//! Memory: `shm_open(2)`, and files.
//!
//! A shared memory object is given its length once, and the system rounds that up to whole pages. Its memory is
//! the system's own, which swaps it out: there is no file system that could be full, and nothing to allocate.
//!
//! All such objects have the same device and inode, 0: a number that was closed behind our back and is another object of
//! semlock's by now cannot be told from what it was. What is sent under it is compared with its segment's id all the same.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use crate::os::mapping::check_file_size;
pub(crate) use crate::os::posix::no_memfd::{WAYS, born, reopen, wipe_on_fork};

/// Has all of a new shared memory object be there.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    ftruncate(object, bytes)
}

/// Has all of a new file be there: `F_PREALLOCATE`, which counts from its end; and then that length.
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    check_file_size(bytes)?;
    fallocate(file, FallocateFlags::empty(), 0, bytes)
}

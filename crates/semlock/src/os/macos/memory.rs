//! Memory: `shm_open(2)`, and files.
//!
//! A shared memory object gets its length once, and the system rounds that up to whole pages. It is
//! ordinary memory that is swapped: no file system can be full, and there is nothing to allocate.
//!
//! All such objects have device 0 and inode 0. So if other code closed a descriptor, and its number
//! is reused for another object of semlock's, the two look the same. What is sent under that number
//! is still compared with the id of its segment.

use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use crate::os::mapping::check_file_size;
pub(crate) use crate::os::posix::no_memfd::{WAYS, born, reopen, wipe_on_fork};

/// Gives a new shared memory object this length.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    ftruncate(object, bytes)
}

/// Gives a new file this length, and allocates it: `F_PREALLOCATE`, and then `ftruncate(2)`.
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    check_file_size(bytes)?;
    fallocate(file, FallocateFlags::empty(), 0, bytes)
}

//! Memory: `shm_open(2)`, and files.
//!
//! A shared memory object is given its length once, and the system rounds that up to whole pages. Its memory is
//! the system's own, which swaps it out: there is no file system that could be full, and nothing to allocate.
//!
//! All such objects have the same device and inode, 0: a number that was closed behind our back and is another object of
//! semlock's by now cannot be told from what it was. What is sent under it is compared with its segment's id all the same.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use crate::atomic::AtomicU64;
use crate::os::mapping::{Way, unlinked_file, unlinked_shared_memory};

/// In the order in which they are tried.
pub(crate) const WAYS: &[(&str, Way)] =
    &[("shm_open", unlinked_shared_memory), ("a file in the temporary directory", unlinked_file)];

/// Has all of a new shared memory object be there.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    ftruncate(object, bytes)
}

/// Has all of a new file be there: `F_PREALLOCATE`, which counts from its end; and then that length.
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    fallocate(file, FallocateFlags::empty(), 0, bytes)
}

/// The kernel wipes nothing.
pub(crate) fn wipe_on_fork(_: NonNull<AtomicU64>, _: usize) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// `getentropy(2)`.
pub(crate) fn random(bytes: &mut [u8; 16]) -> Result<(), Errno> {
    // SAFETY: room for so many bytes; it gives 256 at most.
    match unsafe { libc::getentropy(bytes.as_mut_ptr().cast(), bytes.len()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

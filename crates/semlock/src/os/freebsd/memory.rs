//! Memory: memfds (since 13.0), shared memory objects, files; and `minherit(2)`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::Errno;

use crate::atomic::AtomicU64;
use crate::os::mapping::{Way, unlinked_file, unlinked_shared_memory};
pub(crate) use crate::os::posix::fallocate::allocate_file;

/// In this order.
pub(crate) const WAYS: &[(&str, Way)] = &[
    ("memfd_create", memfd),
    ("shm_open", unlinked_shared_memory),
    ("a file in the temporary directory", unlinked_file),
];

fn memfd(bytes: u64) -> Result<OwnedFd, Errno> {
    let descriptor = memfd_create(c"semlock", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    allocate_object(descriptor.as_fd(), bytes)?;
    // From now on nobody can shrink it under a mapping.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&descriptor, seals)?;
    Ok(descriptor)
}

/// Allocates a new shared memory object. Where the kernel cannot do that beforehand, an object is
/// ordinary memory that is swapped, and no file system can be full.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    ftruncate(object, bytes)?;
    match fallocate(object, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// When a file was made: this does not ask.
pub(crate) fn born(_: BorrowedFd<'_>) -> u64 {
    0
}

/// `INHERIT_ZERO`, since FreeBSD 12.0.
pub(crate) fn wipe_on_fork(start: NonNull<AtomicU64>, bytes: usize) -> Result<(), Errno> {
    // SAFETY: the caller's own mapping, whole. It holds only numbers.
    match unsafe { libc::minherit(start.as_ptr().cast(), bytes, libc::INHERIT_ZERO) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// A mapping cannot be opened by its address.
pub(crate) fn reopen(_: NonNull<AtomicU64>, _: usize) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

//! Memory, where it is unknown whether a system call allocates it beforehand.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pwrite};

use crate::os::mapping::check_file_size;
pub(crate) use crate::os::posix::no_memfd::{WAYS, born, reopen, wipe_on_fork};

/// Allocates a new shared memory object, which is a file on these systems.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    allocate_file(object, bytes)
}

/// Allocates a new file by writing zeros.
pub(crate) fn allocate_file(file: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    check_file_size(bytes)?;
    let zeros = [0; 4096];
    let mut written = 0;
    while written < bytes {
        let left = usize::try_from(bytes - written).map_or(zeros.len(), |it| it.min(zeros.len()));
        match pwrite(file, &zeros[..left], written) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(count) => written += count as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

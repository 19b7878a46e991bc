//! Memory, where it is not known whether anything allocates it beforehand.

use std::os::fd::BorrowedFd;

use rustix::io::{Errno, pwrite};

use crate::os::mapping::check_file_size;
pub(crate) use crate::os::posix::no_memfd::{WAYS, born, reopen, wipe_on_fork};

/// Has all of a new shared memory object be there, which is a file on these systems.
pub(crate) fn allocate_object(object: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    allocate_file(object, bytes)
}

/// Has all of a new file be there, by writing it.
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

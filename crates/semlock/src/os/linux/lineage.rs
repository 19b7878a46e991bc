//! Marks that forked children inherit, until they end or execute: open file description locks (`fcntl(2)`, `F_OFD_SETLK`) that
//! a mapping keeps.
//!
//! Such a lock belongs to an *open* of a file, and goes when nothing refers to that open any more: no descriptor, and no
//! mapping. The descriptor is closed at once, so that only the mapping is left. A fork copies it. The end of a process
//! unmaps it, whatever ended it, and so does `exec`. And nothing else does: not `os.closerange`, as daemons do.
//!
//! The byte that is locked need not be there: its position is any number below 2^63, and means what those who
//! share the file want it to mean.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, open};

use crate::os::mapping::Memory;

/// That this process, and each that is forked from it or from such a child, may be found by some numbers.
#[derive(Debug)]
pub(crate) struct Lineage(Memory);

impl Lineage {
    /// Has them be found by these numbers, among all who have the file; `None` where the system has no means for it, or
    /// this process no descriptor to spare.
    pub(crate) fn begin(file: BorrowedFd<'_>, numbers: &[u64]) -> Option<Self> {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        // A duplicate would be the same open. This one is this lineage's alone.
        let own = open(name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        for &number in numbers {
            let mut lock = lock_of(libc::F_RDLCK, number)?;
            // SAFETY: an open descriptor, and a place for the structure that this command reads.
            let done = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
            if done != 0 {
                return None;
            }
        }
        Memory::shared(own.as_fd(), 1).ok().map(Self)
    }

    /// In a child: leaves it to the child for its whole life, and to those that it forks.
    pub(crate) fn leave_to_child(self) {
        std::mem::forget(self.0);
    }
}

/// Whether a process is left that has begun a lineage of this number, or was forked as one of it; also where the system does
/// not tell.
pub(crate) fn may_be_left(file: BorrowedFd<'_>, number: u64) -> bool {
    let Some(mut lock) = lock_of(libc::F_WRLCK, number) else { return true };
    // SAFETY: an open descriptor, and a place for the structure that this command reads and writes.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    done != 0 || c_int::from(lock.l_type) != libc::F_UNLCK
}

#[allow(clippy::cast_possible_truncation)] // both are small
fn lock_of(kind: c_int, number: u64) -> Option<libc::flock> {
    // SAFETY: a structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = number.try_into().ok()?;
    lock.l_len = 1;
    Some(lock)
}

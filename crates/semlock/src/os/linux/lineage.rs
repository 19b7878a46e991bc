//! Lineages: whether one of a process and the children that it forks is left. A member leaves its
//! lineage when it ends or executes another program.
//!
//! A lineage is an open file description lock (`fcntl(2)`, `F_OFD_SETLK`) that a mapping keeps.
//! Such a lock belongs to an *open* of a file. It ends when neither a descriptor nor a mapping
//! refers to that open any more. The descriptor is closed at once, so that only the mapping is
//! left. A fork copies the mapping. The end of a process unmaps it, whatever ended the process, and
//! so does `exec`. Nothing else does: not `os.closerange`, which daemons call.
//!
//! The locked byte need not exist. Its position is any number below 2^63, and means what the
//! processes that share the file agree on.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::os::mapping::Memory;

/// The lineage of this process, of each child that it forks, and of their children.
#[derive(Debug)]
pub(crate) struct Lineage(Memory);

impl Lineage {
    /// Begins a lineage. All processes that have the file can find it by each of these numbers.
    /// `None` where the system has no such locks, or this process has no descriptor left.
    pub(crate) fn begin(file: BorrowedFd<'_>, numbers: &[u64]) -> Option<Self> {
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        // A duplicate would be the same open. Only this lineage has this one.
        let own = open(name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        for &number in numbers {
            let mut lock = lock_of(libc::F_RDLCK, number, number)?;
            // SAFETY: an open descriptor, and the structure that this command reads.
            let done = unsafe { libc::fcntl(own.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
            if done != 0 {
                return None;
            }
        }
        Memory::shared(own.as_fd(), 1).ok().map(Self)
    }

    /// In a child: keeps the child, and the children that it forks, in the lineage for their whole
    /// lives.
    pub(crate) fn leave_to_child(self) {
        std::mem::forget(self.0);
    }
}

/// Whether a process of the lineage of this number may be left: true where the system does not
/// tell.
pub(crate) fn may_be_left(file: BorrowedFd<'_>, number: u64) -> bool {
    find_left(file, number, number) != Ok(None)
}

/// The number, in this range, of a lineage of which a process is left. (It may be outside, where
/// other code has locked more of the file.)
///
/// # Errors
/// Where the system does not tell.
pub(crate) fn find_left(file: BorrowedFd<'_>, from: u64, to: u64) -> Result<Option<u64>, Errno> {
    let mut lock = lock_of(libc::F_WRLCK, from, to).ok_or(Errno::OVERFLOW)?;
    // SAFETY: an open descriptor, and the structure that this command reads and writes.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if done != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    if c_int::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    u64::try_from(lock.l_start).map(Some).map_err(|_| Errno::IO)
}

#[allow(clippy::cast_possible_truncation)] // both are small
fn lock_of(kind: c_int, from: u64, to: u64) -> Option<libc::flock> {
    // SAFETY: a structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = from.try_into().ok()?;
    lock.l_len = (to - from + 1).try_into().ok()?;
    Some(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::mapping::Shared;

    #[test]
    fn a_lineage_is_found_as_long_as_one_of_it_lives() {
        let shared = Shared::create(1024).unwrap();
        let file = shared.descriptor().unwrap();
        let find = |from, to| find_left(file, from, to).unwrap();
        let lineages = [3, 5].map(|number| Lineage::begin(file, &[number]).unwrap());
        assert_eq!(
            (find(0, 2), find(0, 4), find(4, 9), find(6, 9)),
            (None, Some(3), Some(5), None)
        );
        let (mut wakes, waits) = std::io::pipe().unwrap();
        // SAFETY: the child reads, and exits without unwinding or running destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // What a daemon does.
            for number in (3..256).filter(|&number| number != wakes.as_raw_fd()) {
                // SAFETY: the child's own, which it does not use any more.
                unsafe { libc::close(number) };
            }
            let _ = std::io::Read::read(&mut wakes, &mut [0]);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(0) };
        }
        drop(lineages);
        assert_eq!((find(0, 4), find(4, 9)), (Some(3), Some(5)));
        drop(waits);
        let pid = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
        // Children that other tests fork belong to the lineages too, until they end.
        let began = std::time::Instant::now();
        while find(0, 9).is_some() {
            assert!(began.elapsed().as_secs() < 60, "a process of a lineage is still left");
            std::thread::yield_now();
        }
    }
}

//! Processes, as `kill(2)` and `proc_pidinfo` (`<libproc.h>`, `<sys/proc_info.h>`) tell of them.
//!
//! There are no namespaces, and `kill` says `ESRCH` of no process that there is: neither of another user's, nor of one
//! that has ended and that nobody has waited for. But of another user's process nobody else is told more: one that got a
//! dead holder's number before anybody looked keeps the lock taken as long as it lives.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

pub(crate) use crate::os::posix::pids::is_dead;
use crate::os::process::{Identity, Namespaces, ProcessState, START_BITS};

pub(crate) fn read_identity() -> Identity {
    let pid = getpid();
    let start = match query(pid) {
        ProcessState::Alive { start } => start,
        _ => 0,
    };
    Identity {
        pid: pid.as_raw_pid().cast_unsigned(),
        start,
        namespaces: Namespaces { pid: 1, time: 1 },
    }
}

pub(crate) fn query(pid: Pid) -> ProcessState {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return ProcessState::NoSuchProcess;
    }
    match information(pid) {
        // A filter (a sandbox) forbids asking, or it ended just now.
        None => ProcessState::Unknown,
        Some(process) if process.pbi_status == libc::SZOMB => ProcessState::Zombie,
        Some(process) => ProcessState::Alive { start: start_of(&process) },
    }
}

/// `PROC_PIDTBSDINFO`.
fn information(pid: Pid) -> Option<libc::proc_bsdinfo> {
    /// Has it find processes that have ended, too.
    const ALSO_ZOMBIES: u64 = 1;

    let mut process = MaybeUninit::<libc::proc_bsdinfo>::uninit();
    let size = c_int::try_from(size_of::<libc::proc_bsdinfo>()).ok()?;
    // SAFETY: room for what it is asked for, as much as it is told.
    let filled = unsafe {
        libc::proc_pidinfo(
            pid.as_raw_pid(),
            libc::PROC_PIDTBSDINFO,
            ALSO_ZOMBIES,
            process.as_mut_ptr().cast(),
            size,
        )
    };
    // SAFETY: it has filled all of it.
    (filled == size).then(|| unsafe { process.assume_init() })
}

/// When it began, in milliseconds of the wall clock at that moment, which stays as it was noted then. As many bits as
/// there are turn over in 34 years; and within a millisecond the kernel does not give out all other numbers.
fn start_of(process: &libc::proc_bsdinfo) -> u64 {
    let seconds = process.pbi_start_tvsec.wrapping_mul(1_000);
    let milliseconds = seconds.wrapping_add(process.pbi_start_tvusec / 1_000);
    milliseconds & ((1 << START_BITS) - 1)
}

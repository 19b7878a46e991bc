//! Processes, as `kill(2)` and `proc_pidinfo` (`<libproc.h>`, `<sys/proc_info.h>`) tell about them.
//!
//! There are no namespaces. `kill` returns `ESRCH` for no process that exists: neither for another
//! user's, nor for a zombie. But only its own user learns more about a process. If another user's
//! process gets the pid of a dead holder before a waiter checks the holder, the lock stays taken as
//! long as that process lives.

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
        // A filter (a sandbox) forbids the call, or the process ended just now.
        None => ProcessState::Unknown,
        Some(process) if process.pbi_status == libc::SZOMB => ProcessState::Zombie,
        Some(process) => ProcessState::Alive { start: start_of(&process) },
    }
}

/// `PROC_PIDTBSDINFO`.
fn information(pid: Pid) -> Option<libc::proc_bsdinfo> {
    /// It finds zombies too.
    const ALSO_ZOMBIES: u64 = 1;

    let mut process = MaybeUninit::<libc::proc_bsdinfo>::uninit();
    let size = c_int::try_from(size_of::<libc::proc_bsdinfo>()).ok()?;
    // SAFETY: room for that structure, of that size.
    let filled = unsafe {
        libc::proc_pidinfo(
            pid.as_raw_pid(),
            libc::PROC_PIDTBSDINFO,
            ALSO_ZOMBIES,
            process.as_mut_ptr().cast(),
            size,
        )
    };
    // SAFETY: it filled the whole.
    (filled == size).then(|| unsafe { process.assume_init() })
}

/// When it began, in milliseconds of the wall clock at that moment, which do not change later. So
/// many bits turn over in 34 years. Within one millisecond the kernel does not give out all other
/// pids.
fn start_of(process: &libc::proc_bsdinfo) -> u64 {
    let seconds = process.pbi_start_tvsec.wrapping_mul(1_000);
    let milliseconds = seconds.wrapping_add(process.pbi_start_tvusec / 1_000);
    milliseconds & ((1 << START_BITS) - 1)
}

//! Processes, as `sysctl(3)` tells about them: `KERN_PROC_PID`.
//!
//! A pid means the same everywhere. But a process in a jail sees none outside of it, and other
//! rules can hide the processes of other users: then "no such process" proves nothing.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{from_mut, null};

use rustix::process::{Pid, getpid};

pub(crate) use crate::os::posix::pids::is_dead;
use crate::os::process::{Identity, Namespaces, ProcessState, START_BITS};

pub(crate) fn read_identity() -> Identity {
    let pid = getpid();
    let me = information(pid).ok();
    Identity {
        pid: pid.as_raw_pid().cast_unsigned(),
        start: me.as_ref().map_or(0, start_of),
        namespaces: Namespaces { pid: 1, time: 1 },
    }
}

pub(crate) fn query(pid: Pid) -> ProcessState {
    match information(pid) {
        Err(libc::ESRCH) if all_can_be_seen() => ProcessState::NoSuchProcess,
        Err(_) => ProcessState::Unknown,
        Ok(process) if process.ki_stat == libc::SZOMB => ProcessState::Zombie,
        Ok(process) => ProcessState::Alive { start: start_of(&process) },
    }
}

fn information(pid: Pid) -> Result<libc::kinfo_proc, c_int> {
    let name = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid.as_raw_pid()];
    // SAFETY: under this name there is such a structure, of integers, pointers and arrays of them,
    // for which all bits are valid.
    let process: libc::kinfo_proc = unsafe { read(&name) }?;
    let size = usize::try_from(process.ki_structsize);
    // Another kernel than this was built for may return another structure.
    if size == Ok(size_of::<libc::kinfo_proc>()) && process.ki_pid == pid.as_raw_pid() {
        Ok(process)
    } else {
        Err(libc::EINVAL)
    }
}

/// When it began, in milliseconds since boot; 0 where that is unknown.
///
/// The kernel keeps that time, but returns a moment of the wall clock: it adds the time of the
/// boot, which changes when somebody sets the clock. So this subtracts the time of the boot, if
/// that is the same before and after.
fn start_of(process: &libc::kinfo_proc) -> u64 {
    let Some(boot) = booted() else { return 0 };
    // Read once more, between two reads of the time of the boot.
    let pid = Pid::from_raw(process.ki_pid);
    let again = pid.and_then(|pid| information(pid).ok());
    let Some(again) = again.filter(|_| booted() == Some(boot)) else { return 0 };
    let began = microseconds(again.ki_start);
    let milliseconds = began.wrapping_sub(boot).div_euclid(1_000);
    milliseconds.cast_unsigned() & ((1 << START_BITS) - 1)
}

fn microseconds(time: libc::timeval) -> i64 {
    time.tv_sec.wrapping_mul(1_000_000).wrapping_add(time.tv_usec)
}

/// `KERN_BOOTTIME`.
fn booted() -> Option<i64> {
    // SAFETY: under this name there is such a structure, of two integers.
    unsafe { read::<libc::timeval>(&[libc::CTL_KERN, libc::KERN_BOOTTIME]) }.ok().map(microseconds)
}

/// Whether nothing hides processes from others: see `jail(8)`, `security(7)`,
/// `mac_seeotheruids(4)`, `mac_biba(4)`, `mac_mls(4)`.
///
/// This asks each time, because a running process can be put into a jail.
fn all_can_be_seen() -> bool {
    let is = |name: &CStr, wanted: c_int| {
        let mut value: c_int = 0;
        let mut size = size_of::<c_int>();
        // SAFETY: a C string, and room for an integer, which is what there is under these names.
        let result = unsafe {
            libc::sysctlbyname(
                name.as_ptr(),
                from_mut(&mut value).cast::<c_void>(),
                &raw mut size,
                null(),
                0,
            )
        };
        match result {
            0 => value == wanted,
            // A policy that does not exist hides nothing.
            _ => io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT),
        }
    };
    is(c"security.jail.jailed", 0)
        && is(c"security.bsd.see_other_uids", 1)
        && is(c"security.bsd.see_other_gids", 1)
        && is(c"security.bsd.see_jail_proc", 1)
        && is(c"security.mac.seeotheruids.enabled", 0)
        && is(c"security.mac.biba.enabled", 0)
        && is(c"security.mac.mls.enabled", 0)
}

/// Reads what `sysctl(3)` has under a name.
///
/// # Safety
/// It is a `T`, for which all bits are valid.
unsafe fn read<T>(name: &[c_int]) -> Result<T, c_int> {
    let mut told = MaybeUninit::<T>::zeroed();
    let mut size = size_of::<T>();
    let names = c_uint::try_from(name.len()).unwrap_or(0);
    // SAFETY: so many numbers, and room for so many bytes.
    let result = unsafe {
        libc::sysctl(
            name.as_ptr(),
            names,
            told.as_mut_ptr().cast::<c_void>(),
            &raw mut size,
            null(),
            0,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or_default());
    }
    if size != size_of::<T>() {
        // There is no such process; or it returned something else.
        return Err(if size == 0 { libc::ESRCH } else { libc::EINVAL });
    }
    // SAFETY: it filled the whole; and as for this function.
    Ok(unsafe { told.assume_init() })
}

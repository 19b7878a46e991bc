//! Processes, as `sysctl(3)` tells of them: `KERN_PROC_PID`.
//!
//! A number means the same everywhere, but who is in a jail sees nobody outside of it, and other rules can hide processes of
//! other users: then "no such process" proves nothing.

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
    // SAFETY: what this name tells is this, of integers, pointers and arrays of them, for which all bits will do.
    let process: libc::kinfo_proc = unsafe { read(&name) }?;
    let size = usize::try_from(process.ki_structsize);
    // Another kernel than this was built for may tell another thing.
    if size == Ok(size_of::<libc::kinfo_proc>()) && process.ki_pid == pid.as_raw_pid() {
        Ok(process)
    } else {
        Err(libc::EINVAL)
    }
}

/// When it began, in milliseconds since boot; 0 where it cannot be told.
///
/// The kernel keeps that, but tells a moment of the wall clock, adding when it booted by that clock: which is another
/// when the clock was set. So this is taken off again, if it is the same before and after.
fn start_of(process: &libc::kinfo_proc) -> u64 {
    let Some(boot) = booted() else { return 0 };
    // Asked for once more, between two looks at the clock.
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
    // SAFETY: what this name tells is this, of two integers.
    unsafe { read::<libc::timeval>(&[libc::CTL_KERN, libc::KERN_BOOTTIME]) }.ok().map(microseconds)
}

/// Whether nothing hides processes from others: see `jail(8)`, `security(7)`, `mac_seeotheruids(4)`, `mac_biba(4)`, `mac_mls(4)`.
///
/// Asked each time: a process can be put into a jail as it runs.
fn all_can_be_seen() -> bool {
    let is = |name: &CStr, wanted: c_int| {
        let mut value: c_int = 0;
        let mut size = size_of::<c_int>();
        // SAFETY: a C string, and room for an integer, which is what these names tell.
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
            // A policy that is not there hides nothing.
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

/// What `sysctl(3)` tells under a name.
///
/// # Safety
/// It is a `T`, for which all bits will do.
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
        // It knows of no such process, or tells something else.
        return Err(if size == 0 { libc::ESRCH } else { libc::EINVAL });
    }
    // SAFETY: filled whole; and the caller's promise.
    Ok(unsafe { told.assume_init() })
}

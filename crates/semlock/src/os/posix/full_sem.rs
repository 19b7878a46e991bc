//! POSIX semaphores where the C library has all of `sem_overview(7)`.

use std::ffi::{c_int, c_uint};
use std::mem::transmute_copy;

use libc::{clockid_t, sem_t, timespec};
use rustix::io::Errno;

use super::sem_open::check;
use super::symbol::symbol;

pub(crate) const VALUE_MAX: i32 = i32::MAX;
pub(crate) const HAS_UNNAMED: bool = true;
pub(crate) const HAS_VALUE: bool = true;
pub(crate) const HAS_TIMED_WAIT: bool = true;
/// Each `sem_open` of a semaphore returns the same address, and the C library counts them.
pub(crate) const EACH_OPEN_HAS_ITS_HANDLE: bool = false;

/// `sem_init(3)`, for all who have the memory mapped.
///
/// # Safety
/// Room for a semaphore, which nobody uses yet.
pub(crate) unsafe fn init(sem: *mut sem_t, value: c_uint) -> Result<(), Errno> {
    // SAFETY: as for this function.
    check(unsafe { libc::sem_init(sem, 1, value) })
}

/// `sem_getvalue(3)`; negative where a system counts waiters below zero.
///
/// # Safety
/// An open semaphore.
#[inline]
pub(crate) unsafe fn value(sem: *mut sem_t) -> Result<c_int, Errno> {
    let mut value = 0;
    // SAFETY: as for this function; and a place for an int.
    check(unsafe { libc::sem_getvalue(sem, &raw mut value) }).map(|()| value)
}

/// Does nothing: a semaphore is a mapping, which `exec` unmaps.
///
/// # Safety
/// Any.
pub(crate) unsafe fn close_on_exec(_: *mut sem_t) {}

/// The C library's `sem_timedwait`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedWait(unsafe extern "C" fn(*mut sem_t, *const timespec) -> c_int);

impl TimedWait {
    /// It is not looked up: a program that is linked statically would not find it.
    #[allow(clippy::unnecessary_wraps)] // other systems have none
    pub(crate) fn find() -> Option<Self> {
        Some(Self(libc::sem_timedwait))
    }

    /// Waits until a moment of the wall clock.
    ///
    /// # Safety
    /// An open semaphore.
    pub(crate) unsafe fn wait(self, sem: *mut sem_t, until: &timespec) -> c_int {
        // SAFETY: as for this function; and a valid timespec.
        unsafe { (self.0)(sem, until) }
    }
}

/// The C library's `sem_clockwait`: glibc has it since 2.30, musl does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockWait(unsafe extern "C" fn(*mut sem_t, clockid_t, *const timespec) -> c_int);

impl ClockWait {
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: wherever this function exists, it has this signature.
        symbol(c"sem_clockwait").map(|address| Self(unsafe { transmute_copy(&address) }))
    }

    /// Waits until a moment of the monotonic clock.
    ///
    /// # Safety
    /// An open semaphore.
    pub(crate) unsafe fn wait(self, sem: *mut sem_t, until: &timespec) -> c_int {
        // SAFETY: as for this function; the number of a clock, and a valid timespec.
        unsafe { (self.0)(sem, libc::CLOCK_MONOTONIC, until) }
    }
}

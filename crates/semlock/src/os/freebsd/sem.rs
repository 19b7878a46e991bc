//! POSIX semaphores: all of `sem_overview(3)`, with a `sem_clockwait` of another name and
//! signature.

use std::ffi::c_int;
use std::mem::transmute_copy;
use std::ptr::null_mut;

use libc::{clockid_t, sem_t, timespec};

pub(crate) use crate::os::posix::full_sem::{
    EACH_OPEN_HAS_ITS_HANDLE, HAS_TIMED_WAIT, HAS_UNNAMED, HAS_VALUE, TimedWait, VALUE_MAX,
    close_on_exec, init, value,
};
use crate::os::posix::symbol::symbol;

type Function =
    unsafe extern "C" fn(*mut sem_t, clockid_t, c_int, *const timespec, *mut timespec) -> c_int;

/// The C library's `sem_clockwait_np`, since FreeBSD 11.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockWait(Function);

impl ClockWait {
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: wherever this function exists, it has this signature.
        symbol(c"sem_clockwait_np").map(|address| Self(unsafe { transmute_copy(&address) }))
    }

    /// Waits until a moment of the monotonic clock.
    ///
    /// # Safety
    /// An open semaphore.
    pub(crate) unsafe fn wait(self, sem: *mut sem_t, until: &timespec) -> c_int {
        let (clock, absolute) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
        // SAFETY: as for this function; the number of a clock, a moment of it, and a null pointer
        // for what would be left of a length of time.
        unsafe { (self.0)(sem, clock, absolute, until, null_mut()) }
    }
}

//! POSIX semaphores: only named ones. macOS declares `sem_init` and `sem_getvalue`, but they fail
//! with `ENOSYS`.
//!
//! What `sem_open` returns is no address, but the number of a descriptor, cast to a pointer.

use std::ffi::c_int;
use std::mem::transmute_copy;

use libc::{sem_t, timespec};

pub(crate) use crate::os::posix::basic_sem::{
    ClockWait, HAS_TIMED_WAIT, HAS_UNNAMED, HAS_VALUE, init, value,
};
use crate::os::posix::symbol::symbol;

pub(crate) const VALUE_MAX: i32 = 32_767;

/// Each `sem_open` opens another descriptor. If a number comes a second time, other code closed
/// the first descriptor meanwhile.
pub(crate) const EACH_OPEN_HAS_ITS_HANDLE: bool = true;

/// Closes a semaphore when this process executes another program, which has no use for it.
///
/// # Safety
/// An open semaphore.
pub(crate) unsafe fn close_on_exec(sem: *mut sem_t) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // it is a descriptor
    let descriptor = sem.addr() as c_int;
    // SAFETY: a descriptor that is open, as for this function.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// The C library's `sem_timedwait`: macOS has none yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedWait(unsafe extern "C" fn(*mut sem_t, *const timespec) -> c_int);

impl TimedWait {
    pub(crate) fn find() -> Option<Self> {
        // SAFETY: wherever this function exists, it has this signature.
        symbol(c"sem_timedwait").map(|address| Self(unsafe { transmute_copy(&address) }))
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

//! POSIX semaphores where there are only named ones, without values and without waits that end at a
//! moment.

use std::ffi::{c_int, c_uint};

use libc::{sem_t, timespec};
use rustix::io::Errno;

pub(crate) const VALUE_MAX: i32 = i32::MAX;
pub(crate) const HAS_UNNAMED: bool = false;
pub(crate) const HAS_VALUE: bool = false;
pub(crate) const HAS_TIMED_WAIT: bool = false;
pub(crate) const EACH_OPEN_HAS_ITS_HANDLE: bool = false;

/// There are no unnamed semaphores.
///
/// # Safety
/// Any.
pub(crate) unsafe fn init(_: *mut sem_t, _: c_uint) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// The system does not tell a semaphore's value.
///
/// # Safety
/// Any.
#[inline]
pub(crate) unsafe fn value(_: *mut sem_t) -> Result<c_int, Errno> {
    Err(Errno::NOSYS)
}

/// Does nothing: a semaphore is a mapping, which `exec` unmaps.
///
/// # Safety
/// Any.
pub(crate) unsafe fn close_on_exec(_: *mut sem_t) {}

/// There is no `sem_timedwait`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TimedWait {}

impl TimedWait {
    pub(crate) fn find() -> Option<Self> {
        None
    }

    /// # Safety
    /// Any.
    pub(crate) unsafe fn wait(self, _: *mut sem_t, _: &timespec) -> c_int {
        match self {}
    }
}

/// There is no `sem_clockwait`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClockWait {}

impl ClockWait {
    pub(crate) fn find() -> Option<Self> {
        None
    }

    /// # Safety
    /// Any.
    pub(crate) unsafe fn wait(self, _: *mut sem_t, _: &timespec) -> c_int {
        match self {}
    }
}

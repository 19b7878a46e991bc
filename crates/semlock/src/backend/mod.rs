//! The backends, which all locks are built on: the one choice of platform.

#[cfg(unix)]
mod kernel_posix;
#[cfg(windows)]
mod kernel_windows;
#[cfg(unix)]
pub(crate) mod shared;

#[cfg(unix)]
pub(crate) use kernel_posix::Semaphore;
#[cfg(unix)]
pub use kernel_posix::{HAS_TIMED_WAIT, HAS_VALUE, SEM_VALUE_MAX, unlink};
#[cfg(windows)]
pub(crate) use kernel_windows::Semaphore;
#[cfg(windows)]
pub use kernel_windows::{HAS_TIMED_WAIT, HAS_VALUE, RobustMutex, SEM_VALUE_MAX};

//! macOS.

#[allow(unsafe_code)]
pub(crate) mod clock;
#[allow(unsafe_code)]
pub(crate) mod futex;
pub(crate) mod memory;
#[allow(unsafe_code)]
pub(crate) mod process;
#[allow(unsafe_code)]
pub(crate) mod sem;

pub(crate) use super::posix::{no_lineage as lineage, unknown_cpu as cpu};

/// Whether the calling thread is the one that the process began with, or the one that forked it.
#[allow(unsafe_code)]
pub(crate) fn is_first_thread() -> bool {
    // SAFETY: it cannot fail.
    (unsafe { libc::pthread_main_np() }) != 0
}

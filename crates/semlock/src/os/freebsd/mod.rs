//! FreeBSD.

#[allow(unsafe_code)]
pub(crate) mod futex;
#[allow(unsafe_code)]
pub(crate) mod memory;
#[allow(unsafe_code)]
pub(crate) mod process;
#[allow(unsafe_code)]
pub(crate) mod sem;

pub(crate) use super::posix::{coarse_clock as clock, no_lineage as lineage, unknown_cpu as cpu};

/// Whether the calling thread is the one that the process began with, or the one that forked it: it
/// may be. `pthread_main_np` does not know the one that forked.
pub(crate) fn is_first_thread() -> bool {
    true
}

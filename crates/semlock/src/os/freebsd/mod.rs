//! FreeBSD.

#[path = "../by_number.rs"]
mod by_number;
#[path = "../linux/clock.rs"]
pub(crate) mod clock;
#[path = "../portable/cpu.rs"]
pub(crate) mod cpu;
#[allow(unsafe_code)]
pub(crate) mod futex;
#[path = "../no_lineage.rs"]
pub(crate) mod lineage;
#[allow(unsafe_code)]
pub(crate) mod memory;
#[allow(unsafe_code)]
pub(crate) mod process;

/// Whether the calling thread may be the one that the process began with, or that forked it: `pthread_main_np` does not know the latter.
pub(crate) fn is_first_thread() -> bool {
    true
}

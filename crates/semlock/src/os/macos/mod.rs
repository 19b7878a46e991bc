//! macOS.

#[path = "../by_number.rs"]
mod by_number;
#[allow(unsafe_code)]
pub(crate) mod clock;
#[path = "../portable/cpu.rs"]
pub(crate) mod cpu;
#[allow(unsafe_code)]
pub(crate) mod futex;
#[path = "../no_lineage.rs"]
pub(crate) mod lineage;
pub(crate) mod memory;
#[path = "../napping.rs"]
mod napping;
#[allow(unsafe_code)]
pub(crate) mod process;
#[path = "../unassisted_memory.rs"]
mod unassisted_memory;

/// Whether the calling thread is the one that the process began with, or that forked it.
#[allow(unsafe_code)]
pub(crate) fn is_first_thread() -> bool {
    // SAFETY: it cannot fail.
    (unsafe { libc::pthread_main_np() }) != 0
}

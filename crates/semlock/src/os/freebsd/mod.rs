//! FreeBSD.

#[path = "../by_number.rs"]
mod by_number;
#[path = "../linux/clock.rs"]
pub(crate) mod clock;
#[path = "../portable/cpu.rs"]
pub(crate) mod cpu;
#[allow(unsafe_code)]
pub(crate) mod futex;
#[allow(unsafe_code)]
pub(crate) mod memory;
#[allow(unsafe_code)]
pub(crate) mod process;

/// Whether the calling thread is the one that the process began with, or that forked it.
#[allow(unsafe_code)]
pub(crate) fn is_first_thread() -> bool {
    // SAFETY: it cannot fail.
    (unsafe { libc::pthread_main_np() }) != 0
}

//! Linux, doing with what macOS has: to test there what has to do.

#[path = "../by_number.rs"]
mod by_number;
pub(crate) mod clock;
pub(crate) mod cpu;
#[path = "../napping.rs"]
pub(crate) mod futex;
#[path = "../no_lineage.rs"]
pub(crate) mod lineage;
pub(crate) mod memory;
#[path = "../proc.rs"]
mod proc;
pub(crate) mod process;
#[path = "../unassisted_memory.rs"]
mod unassisted_memory;

/// Whether the calling thread is the one that the process began with, or that forked it.
pub(crate) fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

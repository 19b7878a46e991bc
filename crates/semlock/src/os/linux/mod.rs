//! Linux; best from 5.3 on. What a kernel or a filter has not, is done without.

pub(crate) mod clock;
#[allow(unsafe_code)]
pub(crate) mod cpu;
pub(crate) mod futex;
#[allow(unsafe_code)]
pub(crate) mod lineage;
#[allow(unsafe_code)]
pub(crate) mod memory;
#[path = "../proc.rs"]
mod proc;
pub(crate) mod process;

/// Whether the calling thread is the one that the process began with, or that forked it.
pub(crate) fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

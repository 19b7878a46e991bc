//! Linux, best from 5.3 on. It does without what an older kernel lacks or a filter forbids.

#[allow(unsafe_code)]
pub(crate) mod cpu;
pub(crate) mod futex;
#[allow(unsafe_code)]
pub(crate) mod lineage;
#[allow(unsafe_code)]
pub(crate) mod memory;
pub(crate) mod process;

pub(crate) use super::posix::{coarse_clock as clock, full_sem as sem};

/// Whether the calling thread is the one that the process began with, or the one that forked it.
pub(crate) fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

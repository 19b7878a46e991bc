//! Linux with what macOS has, to test the code that such systems use.

pub(crate) use super::posix::{
    basic_sem as sem, clock, no_lineage as lineage, polling_futex as futex, unknown_cpu as cpu,
};

/// Memory: `shm_open(3)`, whose objects are files of a tmpfs, and files.
pub(crate) mod memory {
    pub(crate) use crate::os::posix::fallocate::{allocate_file, allocate_file as allocate_object};
    pub(crate) use crate::os::posix::no_memfd::{WAYS, born, reopen, wipe_on_fork};
}

/// Processes, as `kill(2)` and `/proc` tell about them.
pub(crate) mod process {
    pub(crate) use crate::os::posix::pids::is_dead;
    pub(crate) use crate::os::posix::proc::{query, read_identity};
}

/// Whether the calling thread is the one that the process began with, or the one that forked it.
pub(crate) fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

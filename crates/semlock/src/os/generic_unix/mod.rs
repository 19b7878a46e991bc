//! Any other Unix: only what POSIX has. No process is checked, because it is unknown what such a
//! system hides from whom.

pub(crate) mod memory;
pub(crate) mod process;

pub(crate) use super::posix::{
    clock, full_sem as sem, no_lineage as lineage, polling_futex as futex, unknown_cpu as cpu,
};

/// Whether the calling thread is the one that the process began with: it may be. A wait that gives
/// its caller a turn too often loses nothing else.
pub(crate) fn is_first_thread() -> bool {
    true
}

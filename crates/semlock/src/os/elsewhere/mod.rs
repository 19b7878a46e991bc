//! Any other Unix: what POSIX has, and nobody is judged, because nobody knows here what the system hides from whom.

#[path = "../by_number.rs"]
mod by_number;
#[path = "../portable/clock.rs"]
pub(crate) mod clock;
#[path = "../portable/cpu.rs"]
pub(crate) mod cpu;
#[path = "../napping.rs"]
pub(crate) mod futex;
#[path = "../no_lineage.rs"]
pub(crate) mod lineage;
pub(crate) mod memory;
pub(crate) mod process;
#[path = "../unassisted_memory.rs"]
mod unassisted_memory;

/// Whether the calling thread is the one that the process began with: it may be, for a wait that gives its caller
/// a turn too often loses nothing else.
pub(crate) fn is_first_thread() -> bool {
    true
}

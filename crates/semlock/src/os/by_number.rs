//! Asking for a process by its number: where there are no descriptors of processes.

use rustix::process::Pid;

use crate::os::process::is_dead_by_number;

/// Whether it is certain that a process is dead: see [`crate::os::process::is_dead`]. It is always identified, and never asked in vain.
pub(crate) fn is_dead(process: Pid, start: u64, _identifies: bool, _in_vain: &mut bool) -> bool {
    is_dead_by_number(process, start)
}

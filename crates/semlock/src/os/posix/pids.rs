//! Asking about a process by its pid, which another process may have later: where the system has no
//! descriptors of processes.

use rustix::process::Pid;

use crate::mutation::rule;
use crate::os::process::ProcessState;
use crate::os::system::process::query;

/// Whether it is certain that a process is dead: see [`crate::os::process::is_dead`]. It is always
/// identified, and no descriptor is needed.
pub(crate) fn is_dead(process: Pid, start: u64, _identifies: bool, _in_vain: &mut bool) -> bool {
    is_dead_by_pid(process, start)
}

/// Whether the process that had this number and start time is dead for certain, as far as its number tells.
pub(crate) fn is_dead_by_pid(pid: Pid, start: u64) -> bool {
    match query(pid) {
        ProcessState::NoSuchProcess => rule("judge/no-such-process-without-pidfd"),
        // Either it is the one that was meant, or its number was another's later on.
        ProcessState::Zombie => rule("judge/zombie-without-pidfd"),
        ProcessState::Alive { start: now } => {
            rule("judge/start-time-without-pidfd") && start != 0 && now != 0 && now != start
        }
        ProcessState::Unknown => false,
    }
}

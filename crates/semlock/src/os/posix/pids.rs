//! Checking a process by its pid, where the system has no descriptors of processes.

use rustix::process::Pid;

use crate::mutation::rule;
use crate::os::process::ProcessState;
use crate::os::system::process::query;

/// Whether a process is certainly dead: see [`crate::os::process::is_dead`]. This always identifies
/// the process, and needs no descriptor.
pub(crate) fn is_dead(
    process: Pid,
    start: u64,
    _identifies: bool,
    _no_descriptor: &mut bool,
) -> bool {
    is_dead_by_pid(process, start)
}

/// Whether the process that had this pid and start time is certainly dead.
pub(crate) fn is_dead_by_pid(pid: Pid, start: u64) -> bool {
    match query(pid) {
        ProcessState::NoSuchProcess => rule("check/no-such-process-without-pidfd"),
        // It is the process that the caller means; or another, which had the pid after it.
        ProcessState::Zombie => rule("check/zombie-without-pidfd"),
        ProcessState::Alive { start: now } => {
            rule("check/start-time-without-pidfd") && start != 0 && now != 0 && now != start
        }
        ProcessState::Unknown => false,
    }
}

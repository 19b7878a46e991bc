//! Asking for a process by its number, each time: where there are no descriptors of processes.

use rustix::process::Pid;

use crate::os::process::is_dead_by_number;

/// How a process is asked for: nothing is kept for the next time.
#[derive(Debug, Default)]
pub(crate) struct Asked {}

#[expect(clippy::unused_self, reason = "systems that have descriptors of processes keep one here")]
impl Asked {
    pub(crate) fn is_dead(&mut self, pid: Pid, start: u64) -> bool {
        is_dead_by_number(pid, start)
    }

    /// Whether the last answer was given without a look, for want of a descriptor: none is needed.
    pub(crate) fn lacks_descriptor(&self) -> bool {
        false
    }
}

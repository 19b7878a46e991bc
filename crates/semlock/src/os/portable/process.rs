//! Processes, as `kill(2)` and `/proc` tell of them.

use rustix::process::Pid;

pub(crate) use super::proc::{find_out, tell};
use crate::os::process::is_dead_by_number;

/// How a process is asked for: by its number, each time.
#[derive(Debug, Default)]
pub(crate) struct Asked;

impl Asked {
    pub(crate) fn is_dead(&mut self, pid: Pid, start: u64) -> bool {
        is_dead_by_number(pid, start)
    }
}

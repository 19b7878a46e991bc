//! Processes that nobody judges.

use rustix::process::{Pid, getpid};

use crate::os::process::{Identity, Namespaces, Told, is_dead_by_number};

pub(crate) fn find_out() -> Identity {
    // Without a namespace everybody is a stranger to everybody.
    Identity {
        pid: getpid().as_raw_pid().cast_unsigned(),
        start: 0,
        namespaces: Namespaces { pid: 0, time: 0 },
    }
}

pub(crate) fn tell(_: Pid) -> Told {
    Told::Unknown
}

/// How a process is asked for: not at all.
#[derive(Debug, Default)]
pub(crate) struct Asked;

impl Asked {
    pub(crate) fn is_dead(&mut self, pid: Pid, start: u64) -> bool {
        is_dead_by_number(pid, start)
    }
}

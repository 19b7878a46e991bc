//! Processes that nobody judges.

use rustix::process::{Pid, getpid};

pub(crate) use crate::os::posix::pids::is_dead;
use crate::os::process::{Identity, Namespaces, Told};

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

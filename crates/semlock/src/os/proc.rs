//! What `/proc` tells of processes, on Linux.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::mutation::rule;
use crate::os::process::{Identity, Namespaces, Told, identity};

pub(crate) fn find_out() -> Identity {
    let inode = |file| fs::metadata(file).map_or(0, |file| file.ino());
    Identity {
        pid: getpid().as_raw_pid().cast_unsigned(),
        // Clock ticks since boot.
        start: Stat::read("/proc/self/stat").map_or(0, |stat| stat.start),
        // A kernel without time namespaces has no file for them, so that all processes have the same 0 there.
        namespaces: Namespaces {
            pid: inode("/proc/self/ns/pid"),
            time: inode("/proc/self/ns/time"),
        },
    }
}

/// What `kill(2)` and, where it is of this namespace, `/proc` tell of a number.
pub(crate) fn tell(pid: Pid) -> Told {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Told::Nobody;
    }
    if !is_of_my_namespace(identity().pid) {
        return Told::Unknown;
    }
    match Stat::of(pid.as_raw_pid().cast_unsigned()) {
        None => Told::Unknown,
        // Z is also a process whose main thread has ended, while others run.
        Some(stat)
            if matches!(stat.state, b'Z' | b'X')
                && (stat.threads <= 1 || !rule("judge/other-threads-without-pidfd")) =>
        {
            Told::Ended
        }
        Some(stat) => Told::Lives { start: stat.start },
    }
}

/// Whether `/proc` numbers processes as this process does.
pub(crate) fn is_of_my_namespace(me: u32) -> bool {
    let shown = fs::read_link("/proc/self");
    !rule("judge/proc-of-my-namespace")
        || shown.is_ok_and(|link| link.to_str().and_then(|pid| pid.parse().ok()) == Some(me))
}

/// What `proc_pid_stat(5)` says that matters here.
#[derive(Debug)]
pub(crate) struct Stat {
    state: u8,
    threads: u64,
    /// Field 22, clock ticks since boot.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::read(&format!("/proc/{pid}/stat"))
    }

    fn read(file: &str) -> Option<Self> {
        // Field 22 ends before this, whatever numbers and name stand before it; and one read(2) gives all of it.
        let mut text = [0; 640];
        let length = File::open(file).ok()?.read(&mut text).ok()?;
        Self::parse(&text[..length])
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // A program's name stands in parentheses, and may hold anything, parentheses too.
        let after_name = text.iter().rposition(|&byte| byte == b')')? + 2;
        // The first of these is field 3.
        let mut fields = text.get(after_name..)?.split(|&byte| byte == b' ');
        let state = *fields.next()?.first()?;
        let threads = number(fields.nth(20 - 3 - 1)?)?;
        let start = number(fields.nth(22 - 20 - 1)?)?;
        Some(Self { state, threads, start })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let after =
            "S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 98765 4096 1 18446744073709551615";
        for name in ["(sh)", "(a) R 9 (b)", "(18 ) )"] {
            let stat = Stat::parse(format!("7 {name} {after}\n").as_bytes()).unwrap();
            assert_eq!((stat.state, stat.threads, stat.start), (b'S', 3, 98_765));
        }
        for cut in [
            &b""[..],
            b"7 (sh",
            b"7 (sh)",
            b"7 (sh) S 1",
            b"7 (sh) S x x x x x x x x x x x x x x x x x x x x x",
        ] {
            assert!(Stat::parse(cut).is_none());
        }
    }
}

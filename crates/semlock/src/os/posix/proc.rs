//! What `/proc` tells about processes, on Linux. Waiters read it again and again, so reading it
//! allocates nothing.

use std::ffi::CStr;
use std::fmt::{self, Write};
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{CWD, Mode, OFlags, open, readlinkat_raw};
use rustix::io::{Errno, read};
use rustix::process::{Pid, getpid, test_kill_process};

use crate::mutation::rule;
use crate::os::process::{Identity, Namespaces, ProcessState, identity};

pub(crate) fn read_identity() -> Identity {
    let inode = |file| fs::metadata(file).map_or(0, |file| file.ino());
    Identity {
        pid: getpid().as_raw_pid().cast_unsigned(),
        // Clock ticks since boot.
        start: Stat::read(format_args!("/proc/self/stat")).map_or(0, |stat| stat.start),
        // A kernel without time namespaces has no file for them: all processes have 0.
        namespaces: Namespaces {
            pid: inode("/proc/self/ns/pid"),
            time: inode("/proc/self/ns/time"),
        },
    }
}

/// What `kill(2)` says about a pid, and `/proc` if it is of this pid namespace.
pub(crate) fn query(pid: Pid) -> ProcessState {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return ProcessState::NoSuchProcess;
    }
    if !is_of_my_namespace(identity().pid) {
        return ProcessState::Unknown;
    }
    match Stat::of(pid.as_raw_pid().cast_unsigned()) {
        None => ProcessState::Unknown,
        // A process whose main thread has ended is Z too, while other threads run.
        Some(stat)
            if matches!(stat.state, b'Z' | b'X')
                && (stat.threads <= 1 || !rule("check/other-threads-without-pidfd")) =>
        {
            ProcessState::Zombie
        }
        Some(stat) => ProcessState::Alive { start: stat.start },
    }
}

/// Whether `/proc` is of the pid namespace of this process, which has this pid.
pub(crate) fn is_of_my_namespace(me: u32) -> bool {
    let mut text = [0; 24];
    let shown = readlinkat_raw(CWD, c"/proc/self", &mut text);
    !rule("check/proc-of-my-namespace")
        || shown.is_ok_and(|length| number(&text[..length]) == Some(me.into()))
}

/// The beginning of a small file, whose name has 63 bytes at most.
pub(in crate::os) fn read_file<'a>(
    name: fmt::Arguments<'_>,
    into: &'a mut [u8],
) -> Option<&'a [u8]> {
    struct Name([u8; 64], usize);
    impl Write for Name {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let end = self.1 + part.len();
            self.0.get_mut(self.1..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
            self.1 = end;
            Ok(())
        }
    }
    let mut path = Name([0; 64], 0);
    path.write_fmt(name).ok()?;
    let path = CStr::from_bytes_until_nul(&path.0).ok()?;
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let length = read(&file, &mut *into).ok()?;
    Some(&into[..length])
}

/// The fields of `proc_pid_stat(5)` that matter here.
#[derive(Debug)]
pub(crate) struct Stat {
    state: u8,
    threads: u64,
    /// Field 22, in clock ticks since boot.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::read(format_args!("/proc/{pid}/stat"))
    }

    fn read(file: fmt::Arguments<'_>) -> Option<Self> {
        // Field 22 ends within these bytes, however long the fields before it are. One read(2)
        // returns them all.
        let mut text = [0; 640];
        Self::parse(read_file(file, &mut text)?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // A program's name is in parentheses, and may hold anything, even parentheses. It has 63
        // bytes at most, after a pid of at most seven digits.
        let beginning = &text[..text.len().min(80)];
        let after_name = beginning.iter().rposition(|&byte| byte == b')')? + 2;
        // The first one is field 3.
        let mut fields = text.get(after_name..)?.split(|&byte| byte == b' ');
        let state = *fields.next()?.first()?;
        let threads = number(fields.nth(20 - 3 - 1)?)?;
        let start = number(fields.nth(22 - 20 - 1)?)?;
        Some(Self { state, threads, start })
    }
}

pub(in crate::os) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
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

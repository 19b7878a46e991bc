//! Who this process is, and whether another is dead.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, test_kill_process};

use super::known::Known;
use super::mapping::Memory;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// What names a process, and where its name means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Clock ticks since boot (`proc_pid_stat(5)`, field 22); 0 where there is no `/proc`.
    pub(crate) start: u64,
    pub(crate) namespaces: Namespaces,
}

/// The inodes of `/proc/self/ns/pid` and `/proc/self/ns/time`; 0 where they cannot be read. (A kernel
/// without time namespaces has no file for them, so that all processes have the same 0 there.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pub(crate) pid: u64,
    pub(crate) time: u64,
}

/// The calling process, found out once for each: a child that was forked by whatever means finds this
/// page wiped.
pub(crate) fn identity() -> Identity {
    static PAGE: Known<Option<Memory>> = Known::new();
    let page = PAGE.get(|| Memory::private_wiped_on_fork(5).ok());
    let Some(page) = page else { return find_out() };
    let [pid, start, pid_namespace, time_namespace] = [1, 2, 3, 4].map(|at| &page.words()[at]);
    let known: &AtomicU64 = &page.words()[0];
    if known.load(Ordering::Acquire) == 0 {
        // Several threads may do this at once: all write the same.
        let found = find_out();
        pid.store(found.pid.into(), Ordering::Relaxed);
        start.store(found.start, Ordering::Relaxed);
        pid_namespace.store(found.namespaces.pid, Ordering::Relaxed);
        time_namespace.store(found.namespaces.time, Ordering::Relaxed);
        known.store(1, Ordering::Release);
    }
    Identity {
        pid: u32::try_from(pid.load(Ordering::Relaxed)).unwrap_or(0),
        start: start.load(Ordering::Relaxed),
        namespaces: Namespaces {
            pid: pid_namespace.load(Ordering::Relaxed),
            time: time_namespace.load(Ordering::Relaxed),
        },
    }
}

fn find_out() -> Identity {
    let inode = |file| fs::metadata(file).map_or(0, |file| file.ino());
    Identity {
        pid: getpid().as_raw_pid().cast_unsigned(),
        start: Stat::read("/proc/self/stat").map_or(0, |stat| stat.start),
        namespaces: Namespaces {
            pid: inode("/proc/self/ns/pid"),
            time: inode("/proc/self/ns/time"),
        },
    }
}

/// What `proc_pid_stat(5)` says that matters here.
struct Stat {
    state: u8,
    threads: u64,
    start: u64,
}

impl Stat {
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

/// A process that may be dead: asked again and again, it is opened once.
#[derive(Debug)]
pub(crate) struct Suspect {
    pid: u32,
    start: u64,
    descriptor: Option<OwnedFd>,
    /// The descriptor is of the process that was meant, and not of one that got its number.
    verified: bool,
    /// There was none to be had, in this process or at all.
    lacks_descriptor: bool,
}

impl Suspect {
    /// The process of this number and start time, in the namespaces of the caller; a start of 0
    /// is not known.
    pub(crate) fn new(pid: u32, start: u64) -> Self {
        Self { pid, start, descriptor: None, verified: false, lacks_descriptor: false }
    }

    pub(crate) fn is(&self, pid: u32, start: u64) -> bool {
        (self.pid, self.start) == (pid, start)
    }

    /// Whether the last answer was given without a look, for want of a descriptor.
    pub(crate) fn lacks_descriptor(&self) -> bool {
        self.lacks_descriptor
    }

    /// Whether it is certain that it is dead. Who cannot be asked for, lives.
    pub(crate) fn is_dead(&mut self) -> bool {
        let me = identity();
        if self.pid == me.pid {
            // It is dead if its number is mine by now.
            return rule("judge/my-own-number")
                && self.start != 0
                && me.start != 0
                && self.start != me.start;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        if self.descriptor.is_none() {
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(descriptor) => {
                    self.descriptor = Some(descriptor);
                    self.lacks_descriptor = false;
                }
                Err(Errno::SRCH) => return rule("judge/no-such-process"),
                // The number is a thread's now. Where it is a process's, this is no answer.
                Err(Errno::INVAL | Errno::NOENT)
                    if can_open_processes() || !rule("judge/a-refusal-is-no-answer") =>
                {
                    return rule("judge/a-threads-number");
                }
                Err(errno) => {
                    self.lacks_descriptor = matches!(errno, Errno::MFILE | Errno::NFILE);
                    return self.is_dead_by_signal_and_proc(pid);
                }
            }
        }
        let Some(descriptor) = &self.descriptor else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(descriptor, PollFlags::IN)];
        // It becomes readable when the last thread has ended; whether anybody waits for the process
        // does not matter.
        if poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
            && polled[0].revents().contains(PollFlags::IN)
        {
            return rule("judge/readable-pidfd");
        }
        let unknown = self.start == 0 && rule("judge/an-unknown-start-proves-nothing");
        if self.verified || unknown || !proc_is_of_my_namespace(me.pid) {
            return false;
        }
        // `/proc` may show a stranger under this number: it has to agree with the descriptor.
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()));
        let agrees = !rule("judge/proc-agrees-with-pidfd")
            || info.is_ok_and(|info| {
                info.lines().any(|line| {
                    line.strip_prefix("Pid:").is_some_and(|pid| pid.trim().parse() == Ok(self.pid))
                })
            });
        match Stat::read(&format!("/proc/{}/stat", self.pid)) {
            Some(stat) if agrees => {
                self.verified = stat.start == self.start;
                rule("judge/start-time") && !self.verified
            }
            // hidepid, or no such file: unknown.
            _ => !rule("judge/what-proc-hides-lives"),
        }
    }

    /// Where the kernel or a filter has no pidfd.
    fn is_dead_by_signal_and_proc(&self, pid: Pid) -> bool {
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return rule("judge/no-such-process-without-pidfd");
        }
        if self.start == 0 || !proc_is_of_my_namespace(identity().pid) {
            return false;
        }
        Stat::read(&format!("/proc/{}/stat", self.pid)).is_some_and(|stat| {
            // Z is also a process whose main thread has ended, while others run.
            (rule("judge/start-time-without-pidfd") && stat.start != self.start)
                || (rule("judge/zombie-without-pidfd")
                    && matches!(stat.state, b'Z' | b'X')
                    && (stat.threads <= 1 || !rule("judge/other-threads-without-pidfd")))
        })
    }
}

/// Whether `pidfd_open(2)` works at all: old kernels do not have it, and old filters refuse it.
fn can_open_processes() -> bool {
    static CAN: Known<bool> = Known::new();
    *CAN.get(|| pidfd_open(getpid(), PidfdFlags::empty()).is_ok())
}

/// Whether `/proc` numbers processes as this process does.
fn proc_is_of_my_namespace(me: u32) -> bool {
    let shown = fs::read_link("/proc/self");
    !rule("judge/proc-of-my-namespace")
        || shown.is_ok_and(|link| link.to_str().and_then(|pid| pid.parse().ok()) == Some(me))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

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

    #[test]
    fn a_process_that_ended_is_dead_before_and_after_somebody_waits_for_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let stat = Stat::read(&format!("/proc/{}/stat", child.id())).unwrap();
        let mut kept = Suspect::new(child.id(), stat.start);
        assert!(!kept.is_dead());
        assert!(kept.verified);
        child.kill().unwrap();
        // Only its death makes the descriptor readable; then it is a zombie.
        let descriptor = kept.descriptor.as_ref().unwrap();
        poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None).unwrap();
        assert!(kept.is_dead());
        assert!(Suspect::new(child.id(), stat.start).is_dead());
        let pid = Pid::from_child(&child);
        assert!(Suspect::new(child.id(), stat.start).is_dead_by_signal_and_proc(pid));
        child.wait().unwrap();
        assert!(Suspect::new(child.id(), stat.start).is_dead());
        assert!(Suspect::new(child.id(), stat.start).is_dead_by_signal_and_proc(pid));
    }

    #[test]
    fn a_number_that_another_process_has_now_is_a_dead_ones() {
        let me = identity();
        assert!(!Suspect::new(me.pid, me.start).is_dead());
        assert!(Suspect::new(me.pid, me.start + 1).is_dead());
        // Of the parent, for which the descriptor is asked.
        let parent = std::os::unix::process::parent_id();
        let start = Stat::read(&format!("/proc/{parent}/stat")).unwrap().start;
        assert!(!Suspect::new(parent, start).is_dead());
        assert!(Suspect::new(parent, start - 1).is_dead());
        assert!(!Suspect::new(parent, 0).is_dead());
        let pid = Pid::from_raw(parent.cast_signed()).unwrap();
        assert!(!Suspect::new(parent, start).is_dead_by_signal_and_proc(pid));
        assert!(Suspect::new(parent, start - 1).is_dead_by_signal_and_proc(pid));
    }

    #[test]
    fn a_number_that_a_thread_has_now_is_a_dead_ones() {
        let thread = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let id = rustix::thread::gettid().as_raw_pid().cast_unsigned();
                    assert_ne!(id, identity().pid);
                    Suspect::new(id, 1).is_dead()
                })
                .join()
                .unwrap()
        });
        assert!(thread);
    }
}

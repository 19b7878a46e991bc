//! Processes: `pidfd_open(2)`, and `/proc`.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::proc::{Stat, is_of_my_namespace};
pub(crate) use super::proc::{find_out, tell};
use crate::mutation::rule;
use crate::os::known::Known;
use crate::os::process::{identity, is_dead_by_number};

/// How a process is asked for: by a descriptor of it, which is opened once.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    descriptor: Option<OwnedFd>,
    /// The descriptor is of the process that was meant, and not of one that got its number.
    verified: bool,
    /// There was none to be had, in this process or at all.
    lacks_descriptor: bool,
}

impl Asked {
    pub(crate) fn is_dead(&mut self, process: Pid, start: u64) -> bool {
        if self.descriptor.is_none() {
            match pidfd_open(process, PidfdFlags::empty()) {
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
                // The kernel or a filter has none, or this process no room for it.
                Err(errno) => {
                    self.lacks_descriptor = matches!(errno, Errno::MFILE | Errno::NFILE);
                    return is_dead_by_number(process, start);
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
        let unknown = start == 0 && rule("judge/an-unknown-start-proves-nothing");
        if self.verified || unknown || !is_of_my_namespace(identity().pid) {
            return false;
        }
        let pid = process.as_raw_pid().cast_unsigned();
        // `/proc` may show a stranger under this number: it has to agree with the descriptor.
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()));
        let agrees = !rule("judge/proc-agrees-with-pidfd")
            || info.is_ok_and(|info| {
                info.lines().any(|line| {
                    line.strip_prefix("Pid:").is_some_and(|shown| shown.trim().parse() == Ok(pid))
                })
            });
        match Stat::of(pid) {
            Some(shown) if agrees => {
                self.verified = shown.start == start;
                rule("judge/start-time") && !self.verified
            }
            // hidepid, or no such file: unknown.
            _ => !rule("judge/what-proc-hides-lives"),
        }
    }

    /// Whether the last answer was given without a look, for want of a descriptor.
    pub(crate) fn lacks_descriptor(&self) -> bool {
        self.lacks_descriptor
    }
}

/// Whether `pidfd_open(2)` works at all: old kernels do not have it, and old filters refuse it.
fn can_open_processes() -> bool {
    static CAN: Known<bool> = Known::new();
    *CAN.get(|| pidfd_open(getpid(), PidfdFlags::empty()).is_ok())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::os::process::Suspect;

    #[test]
    fn a_death_is_seen_by_the_descriptor_that_was_opened_before_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let (pid, start) = (Pid::from_child(&child), Stat::of(child.id()).unwrap().start);
        let mut asked = Asked::default();
        assert!(!asked.is_dead(pid, start));
        assert!(asked.verified);
        child.kill().unwrap();
        // Only its death makes the descriptor readable; then it is a zombie.
        let descriptor = asked.descriptor.as_ref().unwrap();
        poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None).unwrap();
        assert!(asked.is_dead(pid, start));
        child.wait().unwrap();
        // The number may be anybody's by now; the descriptor is not.
        assert!(asked.is_dead(pid, start));
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

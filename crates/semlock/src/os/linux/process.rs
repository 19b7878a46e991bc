//! Processes: `pidfd_open(2)`, and `/proc`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::mutation::rule;
use crate::os::posix::pids::is_dead_by_pid;
use crate::os::posix::proc::{Stat, is_of_my_namespace, number, read_file};
pub(crate) use crate::os::posix::proc::{query, read_identity};
use crate::os::process::{ProcessState, identity};

/// Whether a process is certainly dead: see [`crate::os::process::is_dead`].
///
/// It does not keep the pidfd for the next call. By then other code may have closed it
/// (`os.closerange`, which daemons call) and reused its number: its state would be taken for an
/// answer, and it would be closed in the end.
pub(crate) fn is_dead(
    process: Pid,
    start: u64,
    identifies: bool,
    no_descriptor: &mut bool,
) -> bool {
    match pidfd_open(process, PidfdFlags::empty()) {
        Ok(descriptor) => is_dead_by(descriptor.as_fd(), process, start, identifies),
        Err(Errno::SRCH) => rule("check/no-such-process"),
        // The pid is a thread's now. If `pidfd_open` refuses every process, this proves nothing.
        Err(Errno::INVAL | Errno::NOENT)
            if can_open_processes() || !rule("check/a-refusal-is-no-answer") =>
        {
            rule("check/a-threads-pid")
        }
        // The kernel has no pidfds, a filter forbids them, or this process has no descriptor left.
        Err(errno) => {
            *no_descriptor |= matches!(errno, Errno::MFILE | Errno::NFILE);
            is_dead_by_pid(process, start)
        }
    }
}

fn is_dead_by(descriptor: BorrowedFd<'_>, process: Pid, start: u64, identifies: bool) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    // A pidfd becomes readable when the last thread has ended, whether or not the parent has
    // waited.
    if poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
        && polled[0].revents().contains(PollFlags::IN)
    {
        // Even at this moment its number may be reused, and most other descriptors are readable.
        let lives = || matches!(query(process), ProcessState::Alive { start: now } if now == start);
        let is_contradicted =
            start != 0 && rule("check/proc-overrules-a-readable-pidfd") && lives();
        return rule("check/readable-pidfd") && !is_contradicted;
    }
    let unknown = start == 0 && rule("check/an-unknown-start-proves-nothing");
    if !identifies || unknown || !is_of_my_namespace(identity().pid) {
        return false;
    }
    let pid = process.as_raw_pid().cast_unsigned();
    // `/proc` may be of another pid namespace, and show another process: it must agree with the
    // pidfd.
    let agrees =
        !rule("check/proc-agrees-with-pidfd") || pid_of(descriptor.as_raw_fd()) == Some(pid.into());
    match Stat::of(pid) {
        Some(shown) if agrees => rule("check/start-time") && shown.start != start,
        // `hidepid`, or no such file: unknown.
        _ => !rule("check/a-process-that-proc-hides-lives"),
    }
}

/// The `Pid` of a pidfd of this process, as `/proc` shows it.
fn pid_of(descriptor: RawFd) -> Option<u64> {
    let mut text = [0; 512];
    let text = read_file(format_args!("/proc/self/fdinfo/{descriptor}"), &mut text)?;
    let pid = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?;
    number(pid.trim_ascii())
}

/// Whether `pidfd_open(2)` works at all. Old kernels lack it, and a filter, which can come at any
/// time, may forbid it.
fn can_open_processes() -> bool {
    pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::os::process::is_dead;

    #[test]
    fn a_pidfd_whose_number_was_reused_proves_nothing() {
        let parent = std::os::unix::process::parent_id();
        let start = Stat::of(parent).unwrap().start;
        let (readable, pid) =
            (File::open("/dev/null").unwrap(), Pid::from_raw(parent.cast_signed()).unwrap());
        assert!(!is_dead_by(readable.as_fd(), pid, start, true));
    }

    #[test]
    fn a_process_whose_pid_a_thread_has_is_dead() {
        let thread = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let id = rustix::thread::gettid().as_raw_pid().cast_unsigned();
                    assert_ne!(id, identity().pid);
                    is_dead(id, 1, true, &mut false)
                })
                .join()
                .unwrap()
        });
        assert!(thread);
    }
}

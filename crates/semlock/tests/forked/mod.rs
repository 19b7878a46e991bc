//! Children by fork, for tests that kill them.
//!
//! A program that forks so must have one thread when it does (or the child does only what is tested
//! to work there): such tests have a `main` of their own (`harness = false`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

/// A child of this process. Killed and waited for when it is dropped.
#[derive(Debug)]
pub struct Forked {
    pid: Pid,
    ended: bool,
}

impl Forked {
    /// Forks one that runs this and ends: with status 0, or 101 where it panics.
    pub fn run(life: impl FnOnce()) -> Self {
        // SAFETY: the process has one thread, so that the child finds everything whole; or that it
        // does is what is tested.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self { pid: child, ended: false },
            ForkResult::Child => {
                // However this process ends, its children end with it.
                set_pdeathsig(Signal::SIGKILL).expect("prctl");
                let status = match catch_unwind(AssertUnwindSafe(life)) {
                    Ok(()) => 0,
                    Err(_) => 101,
                };
                // SAFETY: ends the process; what its parent wants to do at its end is the parent's.
                unsafe { nix::libc::_exit(status) }
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn signal(&self, signal: Signal) {
        if !self.ended {
            kill(self.pid, signal).expect("kill");
        }
    }

    /// Waits for its end, or for what a tracer is told.
    pub fn wait(&mut self) -> WaitStatus {
        self.wait_with(WaitPidFlag::empty())
    }

    /// What has happened to it; [`WaitStatus::StillAlive`] if nothing.
    pub fn poll(&mut self) -> WaitStatus {
        self.wait_with(WaitPidFlag::WNOHANG)
    }

    /// Waits for its end, and leaves it a zombie; tells how it ended.
    pub fn wait_for_death(&self) -> WaitStatus {
        loop {
            match waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(Errno::EINTR) => {}
                status => return status.expect("waitid"),
            }
        }
    }

    /// The same, but not for long.
    pub fn wait_for_death_until(&self, time: Duration) {
        let pid = rustix::process::Pid::from_raw(self.pid.as_raw()).expect("a process");
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        let time = time.try_into().expect("short");
        // Readable when it has ended; whatever else ends this, the caller checks.
        let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&time));
    }

    fn wait_with(&mut self, flags: WaitPidFlag) -> WaitStatus {
        loop {
            match waitpid(self.pid, Some(flags | WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {}
                status => {
                    let status = status.expect("waitpid");
                    self.ended |=
                        matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                    return status;
                }
            }
        }
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        while !self.ended {
            self.wait();
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
    }
}

//! The peers: the other processes of a scenario, and those that check afterwards whether everything
//! works.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::forked::Forked;
use crate::tracer::is_asleep;

/// A process that does one thing, beside the tracee.
#[derive(Debug)]
pub struct Peer {
    /// Not if it is another process's child.
    forked: Option<Forked>,
    /// Then it ends with this one.
    _parent: Option<Forked>,
    pid: Pid,
    ended: OwnedFd,
    ours: Ours,
}

/// What is said to one, and what it says.
#[derive(Debug)]
pub struct Ours {
    to: PipeWriter,
    from: PipeReader,
}

/// A peer's own end of what it says and hears.
#[derive(Debug)]
pub struct Line {
    to: PipeWriter,
    from: PipeReader,
}

impl Ours {
    /// What it says next.
    pub fn hear(&self) -> u32 {
        let mut word = [0; 4];
        (&self.from).read_exact(&mut word).expect("it says something");
        u32::from_ne_bytes(word)
    }

    /// Whether it has said something.
    pub fn has_spoken(&self) -> bool {
        is_ready(&self.from)
    }

    /// Lets it hear that it can go on.
    pub fn go(&self) {
        (&self.to).write_all(&[0]).expect("it listens");
    }
}

impl Line {
    /// For one that is yet to be forked, and for those who stay.
    pub fn new() -> (Ours, Self) {
        let (its_from, to) = pipe().expect("pipe");
        let (from, its_to) = pipe().expect("pipe");
        (Ours { to, from }, Self { to: its_to, from: its_from })
    }

    pub fn say(&self, word: u32) {
        (&self.to).write_all(&word.to_ne_bytes()).expect("the tracer listens");
    }

    pub fn hear(&self) {
        let mut byte = [0];
        (&self.from).read_exact(&mut byte).expect("the tracer speaks");
    }
}

impl Peer {
    pub fn start(life: impl FnOnce(&Line)) -> Self {
        let (ours, its_end) = Line::new();
        let forked = Forked::run(|| life(&its_end));
        let pid = forked.pid();
        Self { forked: Some(forked), ..Self::of(pid, ours) }
    }

    /// One that another process has forked.
    pub fn of(pid: Pid, ours: Ours) -> Self {
        let number = rustix::process::Pid::from_raw(pid.as_raw()).expect("a process");
        let ended = pidfd_open(number, PidfdFlags::empty()).expect("pidfd_open");
        Self { forked: None, _parent: None, pid, ended, ours }
    }

    pub fn ends_with(self, parent: Forked) -> Self {
        Self { _parent: Some(parent), ..self }
    }

    /// What it says next.
    pub fn expect(&mut self) -> u32 {
        let mut ready =
            [PollFd::new(&self.ours.from, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
        while poll(&mut ready, None) == Err(Errno::INTR) {}
        assert!(ready[0].revents().contains(PollFlags::IN), "{:?}", self.wait());
        self.ours.hear()
    }

    /// Lets it hear that it can go on.
    pub fn go(&mut self) {
        self.ours.go();
    }

    /// The only thing that it says before it ends, and well.
    pub fn last_word(mut self) -> u32 {
        let word = self.expect();
        self.join();
        word
    }

    /// Waits until it sleeps for what it wants.
    pub fn until_asleep(&mut self) {
        assert!(self.falls_asleep(), "it was to sleep: {:?}", self.wait());
    }

    /// Waits until it sleeps for what it wants, or has ended.
    pub fn settle(&mut self) {
        self.falls_asleep();
    }

    /// The same, for one that was started just now.
    pub fn settled(mut self) -> Self {
        self.settle();
        self
    }

    /// Waits until it sleeps (true) or has ended.
    #[allow(clippy::disallowed_methods)] // the kernel tells nobody when a process falls asleep
    fn falls_asleep(&self) -> bool {
        while !is_asleep(self.pid()) {
            if is_ready(&self.ended) {
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        true
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn number(&self) -> u32 {
        self.pid().as_raw().cast_unsigned()
    }

    pub fn kill(&mut self) {
        if let Some(forked) = &mut self.forked {
            forked.kill();
        } else {
            kill(self.pid, Signal::SIGKILL).expect("kill");
            self.wait();
        }
    }

    /// Waits until it has ended, and well: what another process has forked says so by its last
    /// word.
    pub fn join(mut self) {
        let how = self.wait();
        assert!(how.is_none_or(|how| how == WaitStatus::Exited(self.pid, 0)), "{how:?}");
    }

    /// Waits until it has ended. Returns how, if it is this process's child.
    fn wait(&mut self) -> Option<WaitStatus> {
        let Some(forked) = &mut self.forked else {
            let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
            while poll(&mut ended, None) == Err(Errno::INTR) {}
            return None;
        };
        Some(forked.wait())
    }
}

/// Whether there is something to be read, or it has ended.
fn is_ready(descriptor: &impl AsFd) -> bool {
    let mut ready = [PollFd::new(descriptor, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Lets a fresh process do something, and waits for it.
pub fn fresh(act: impl FnOnce()) {
    Peer::start(|_line| act()).join();
}

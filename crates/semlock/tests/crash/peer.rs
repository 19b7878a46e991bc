//! The others of a scene, and those who see afterwards whether everything works.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::forked::Forked;
use crate::stage::is_asleep;

/// A process that does one thing, beside the one that is killed.
#[derive(Debug)]
pub struct Peer {
    forked: Forked,
    ended: OwnedFd,
    to: PipeWriter,
    from: PipeReader,
}

/// A peer's own end of what it says and hears.
#[derive(Debug)]
pub struct Line {
    to: PipeWriter,
    from: PipeReader,
}

impl Line {
    pub fn say(&self, word: u32) {
        (&self.to).write_all(&word.to_ne_bytes()).expect("the stage listens");
    }

    pub fn hear(&self) {
        let mut byte = [0];
        (&self.from).read_exact(&mut byte).expect("the stage speaks");
    }
}

impl Peer {
    pub fn start(life: impl FnOnce(&Line)) -> Self {
        let (its_from, to) = pipe().expect("pipe");
        let (from, its_to) = pipe().expect("pipe");
        let its_end = Line { to: its_to, from: its_from };
        let forked = Forked::run(|| life(&its_end));
        let pid = rustix::process::Pid::from_raw(forked.pid().as_raw()).expect("a process");
        let ended = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        Self { forked, ended, to, from }
    }

    /// What it says next.
    pub fn expect(&mut self) -> u32 {
        let mut ready =
            [PollFd::new(&self.from, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
        while poll(&mut ready, None) == Err(Errno::INTR) {}
        assert!(ready[0].revents().contains(PollFlags::IN), "{:?}", self.forked.wait());
        let mut word = [0; 4];
        (&self.from).read_exact(&mut word).expect("it says something");
        u32::from_ne_bytes(word)
    }

    /// Lets it hear that it can go on.
    pub fn go(&mut self) {
        (&self.to).write_all(&[0]).expect("it listens");
    }

    /// The only thing that it says before it ends, and well.
    pub fn last_word(mut self) -> u32 {
        let word = self.expect();
        self.join();
        word
    }

    /// Waits until it sleeps for what it wants.
    pub fn until_asleep(&mut self) {
        assert!(self.falls_asleep(), "it was to sleep: {:?}", self.forked.wait());
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
            let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
            if poll(&mut ended, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        true
    }

    pub fn pid(&self) -> Pid {
        self.forked.pid()
    }

    pub fn number(&self) -> u32 {
        self.pid().as_raw().cast_unsigned()
    }

    pub fn kill(&mut self) {
        self.forked.kill();
    }

    /// Waits until it has ended, and well.
    pub fn join(mut self) {
        let pid = self.pid();
        assert_eq!(self.forked.wait(), WaitStatus::Exited(pid, 0));
    }
}

/// Has something done by a fresh process, and waits for it.
pub fn fresh(act: impl FnOnce()) {
    Peer::start(|_line| act()).join();
}

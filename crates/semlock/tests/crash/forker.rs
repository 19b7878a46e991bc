//! A thread that forks, while another of its process is in the middle of a call.

use std::thread;

use nix::unistd::{Pid, gettid};

use crate::forked::Forked;
use crate::peer::{Line, Ours, Peer};
use crate::tracer::is_thread_asleep;

/// What is told to it, and to the child that it forks.
#[derive(Debug)]
pub struct Forker {
    thread: Ours,
    child: Ours,
}

/// The process's own end.
#[derive(Debug)]
pub struct ItsEnd {
    thread: Line,
    child: Line,
}

impl Forker {
    pub fn new() -> (Self, ItsEnd) {
        let ((thread, its_thread), (child, its_child)) = (Line::new(), Line::new());
        (Self { thread, child }, ItsEnd { thread: its_thread, child: its_child })
    }

    /// Waits until the thread is there. Returns its number.
    pub fn is_ready(&self) -> Pid {
        Pid::from_raw(self.thread.hear().cast_signed())
    }

    /// Lets it fork; while it sleeps, does what lets it `go_on`.
    pub fn fork(self, (pid, tid): (Pid, Pid), mut go_on: impl FnMut()) -> Peer {
        self.thread.go();
        while !self.thread.has_spoken() {
            if is_thread_asleep(pid, tid) {
                go_on();
            } else {
                thread::yield_now();
            }
        }
        Peer::of(Pid::from_raw(self.thread.hear().cast_signed()), self.child)
    }
}

impl ItsEnd {
    /// Starts the thread, which says its number and waits until it is told to fork.
    pub fn stand_by(self, life: impl FnOnce(&Line) + Send) {
        let forks = move || {
            self.thread.say(gettid().as_raw().cast_unsigned());
            self.thread.hear();
            let child = Forked::run(|| life(&self.child));
            self.thread.say(child.pid().as_raw().cast_unsigned());
            // The child ends with this thread.
            loop {
                thread::park();
            }
        };
        // SAFETY: the process that calls this never leaves the function that has what `life`
        // borrows: it ends there.
        let thread = unsafe { thread::Builder::new().spawn_unchecked(forks) };
        thread.expect("a thread");
    }
}

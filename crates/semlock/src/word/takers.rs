//! Which message each receiver of a channel took last.
//!
//! ```text
//!  node:   process   as in the waiters' table (see `waiters`)
//!          state     0, or the number of a message plus 1
//! ```
//!
//! A receiver *notes* the number of a message in its node, and takes the message right after that,
//! both under the receivers' lock. So of a receiver that died, the note says which message it had:
//! it has taken that one, or it was about to, and the message is still the next one.
//!
//! These two are told apart under the receivers' lock: a process that recovers it from a dead holder
//! looks at the next record. If a message begins there, nobody has taken it, and whoever has noted
//! its number is dead: the note is *forgotten*, before anybody else notes the number.
//!
//! # Memory ordering
//! The lock orders the notes. A process that asks for a dead receiver's note sees it, since it sees
//! all that the dead one did. Nodes are claimed and freed as in `waiters`.

use super::permit::Process;
use super::waiters::Waiters;
use crate::atomic::Ordering;
use crate::mutation::rule;

/// The table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Takers<'a>(pub(crate) Waiters<'a>);

impl Takers<'_> {
    /// A node for the calling process; `None` if all are taken.
    pub(crate) fn enter(self, me: Process) -> Option<usize> {
        self.0.claim(me)
    }

    /// Whether a node is this process's.
    pub(crate) fn is_of(self, index: usize, me: Process) -> bool {
        self.process(index) == me
    }

    /// Notes the message that the caller is about to take.
    pub(crate) fn note(self, index: usize, number: u64) {
        self.0.state(index).store(number + 1, Ordering::Relaxed);
    }

    /// Forgets who has noted a message that nobody has taken. Under the receivers' lock.
    pub(crate) fn forget(self, number: u64) {
        for index in 0..self.0.used() {
            let state = self.0.state(index);
            if state.load(Ordering::Relaxed) == number + 1
                && rule("takers/a-message-that-is-still-there-was-not-taken")
            {
                state.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Frees the nodes of dead processes, and returns the messages that they took last, each with
    /// the one that took it.
    pub(crate) fn leave_dead(
        self,
        mut is_dead: impl FnMut(Process) -> bool,
        mut taken: impl FnMut(Process, u64),
    ) {
        for index in 0..self.0.used() {
            let process = self.process(index);
            if process.word() == 0 || !is_dead(process) {
                continue;
            }
            let note = self.0.state(index).swap(0, Ordering::Relaxed);
            self.0.free(index);
            if let Some(number) = note.checked_sub(1) {
                taken(process, number);
            }
        }
    }

    fn process(self, index: usize) -> Process {
        Process::from_word(self.0.process(index).load(Ordering::Acquire))
    }
}

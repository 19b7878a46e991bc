//! What each process has to do with a channel's messages: how many it has put and not sent, how
//! many it has taken and not done, and which one it took last.
//!
//! ```text
//!  node:   process   as in the waiters' table (see `waiters`)
//!          state     63     62             24 23          0
//!                   ┌──────┬─────────────────┬─────────────┐
//!                   │ role │ count           │ note        │
//!                   └──────┴─────────────────┴─────────────┘
//!  role    PUTTER (1)  count: messages that it has put and not sent
//!          taker (0)   count: messages that it has taken and not done
//!  note    0, or the number of a message plus 1
//! ```
//!
//! A count changes together with something else: a putter's with the tail, when a message is sent,
//! and a taker's with the head, when one is taken. A process can be killed between the two. So it
//! writes a *note* first, which says of which message:
//!
//! ```text
//!  putter, under the lock of claims           taker, under the receivers' lock
//!  1  notes the number                        1  adds 1 to its count, and notes the number
//!  2  commits the message                     2  takes the message
//!  3  takes 1 from its count, drops the note
//! ```
//!
//! A process that recovers one of these locks from a dead holder compares the notes with the tail,
//! or with the head, and completes the first or undoes the second. After that, all counts are
//! right. A taker's note stays: it says which message a process took last that has died since.
//!
//! # Memory ordering
//! These locks order the notes. A taker's count alone is changed under two locks, so each change is
//! one atomic step. Nodes are claimed and freed as in `waiters`. What the living ask of a dead
//! process's node they see: a dead process has done all that it did before others can know that.

use super::permit::Process;
use super::waiters::Waiters;
use crate::atomic::Ordering;
use crate::mutation::rule;

const PUTTER: u64 = 1 << 63;
const ONE: u64 = 1 << 24;
const COUNT: u64 = PUTTER - ONE;
const NOTE: u64 = ONE - 1;

/// What a node counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Taker,
    Putter,
}

impl Role {
    fn bit(self) -> u64 {
        match self {
            Self::Taker => 0,
            Self::Putter => PUTTER,
        }
    }
}

/// What a node says of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) process: Process,
    pub(crate) count: u64,
    /// The number of the message that a taker took last.
    pub(crate) last: Option<u64>,
}

/// The table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tallies<'a>(pub(crate) Waiters<'a>);

impl Tallies<'_> {
    /// A node for the calling process; `None` if all are taken.
    pub(crate) fn enter(self, me: Process, role: Role) -> Option<usize> {
        let index = self.0.claim(me)?;
        self.0.state(index).store(role.bit(), Ordering::Relaxed);
        Some(index)
    }

    /// Whether no node is free.
    pub(crate) fn is_full(self) -> bool {
        (0..self.0.len()).all(|index| self.process(index).word() != 0)
    }

    /// Whether a node is this process's, in this role.
    pub(crate) fn is_of(self, index: usize, me: Process, role: Role) -> bool {
        index < self.0.len() && self.process(index) == me && self.is(index, role)
    }

    /// How many messages all processes have put and not sent, as far as they have nodes.
    pub(crate) fn all_unsent(self) -> u64 {
        self.sum(Role::Putter)
    }

    /// How many messages all processes have taken and not done, as far as they have nodes.
    pub(crate) fn all_taken(self) -> u64 {
        self.sum(Role::Taker)
    }

    fn sum(self, role: Role) -> u64 {
        let used = (0..self.0.used()).filter(|&index| self.is(index, role));
        used.map(|index| self.count(index)).fold(0, u64::wrapping_add)
    }

    // ---- A putter's, under the lock of claims ----

    /// The caller has put one more.
    pub(crate) fn put(self, index: usize) {
        self.change(index, |seen| seen.wrapping_add(ONE));
    }

    /// The caller does not send one that it has put.
    pub(crate) fn give_back(self, index: usize) {
        self.change(index, |seen| seen.wrapping_sub(ONE));
    }

    /// The caller is about to commit this message, which it has put.
    pub(crate) fn begin_to_send(self, index: usize, number: u64) {
        self.change(index, |seen| seen & !NOTE | (number + 1));
    }

    /// The caller could not commit it.
    pub(crate) fn give_up_sending(self, index: usize) {
        self.change(index, |seen| seen & !NOTE);
    }

    /// The caller has committed it.
    pub(crate) fn end_to_send(self, index: usize) {
        self.change(index, |seen| (seen & !NOTE).wrapping_sub(ONE));
    }

    fn change(self, index: usize, change: impl FnOnce(u64) -> u64) {
        let state = self.0.state(index);
        let seen = state.load(Ordering::Relaxed);
        state.store(change(seen), Ordering::Relaxed);
    }

    /// The last holder of the lock of claims died: completes what it began. `next` is the number of
    /// the next message that is sent.
    pub(crate) fn complete_sending(self, next: u64) {
        for index in (0..self.0.used()).filter(|&index| self.is(index, Role::Putter)) {
            let state = self.0.state(index);
            let seen = state.load(Ordering::Relaxed);
            match seen & NOTE {
                0 => {}
                note if note == next + 1 => state.store(seen & !NOTE, Ordering::Relaxed),
                _ if rule("tallies/a-message-that-was-sent-is-not-put-any-more") => {
                    self.end_to_send(index);
                }
                _ => state.store(seen & !NOTE, Ordering::Relaxed),
            }
        }
    }

    // ---- A taker's, under the receivers' lock ----

    /// The caller is about to take this message.
    pub(crate) fn take(self, index: usize, number: u64) {
        let add = |seen: u64| Some((seen & COUNT).wrapping_add(ONE) & COUNT | (number + 1));
        self.update(index, add);
    }

    /// The last holder of the receivers' lock died. This message has been taken by nobody: undoes
    /// what the dead process has noted of it.
    pub(crate) fn undo_taking(self, number: u64) {
        let undo = |seen: u64| {
            let is_noted = seen & (PUTTER | NOTE) == number + 1;
            is_noted.then(|| (seen & COUNT).wrapping_sub(ONE) & COUNT)
        };
        if rule("tallies/a-message-that-is-still-there-was-not-taken") {
            (0..self.0.used()).for_each(|index| _ = self.update(index, undo));
        }
    }

    /// The caller has done a message that it took. False if it has none.
    pub(crate) fn done(self, index: usize) -> bool {
        self.update(index, |seen| (seen & COUNT != 0).then(|| seen - ONE))
    }

    // ---- The dead ----

    /// The nodes of the dead in a role. Freed, they are used again.
    pub(crate) fn dead(
        self,
        role: Role,
        mut is_dead: impl FnMut(Process) -> bool,
    ) -> Vec<(usize, Process)> {
        let used = (0..self.0.used()).filter(|&index| self.is(index, role));
        let used = used.map(|index| (index, self.process(index)));
        used.filter(|&(_, process)| process.word() != 0 && is_dead(process)).collect()
    }

    /// Frees a node that was found to be a dead process's, and returns what it said. `None` if
    /// another process has freed it since. Under the lock under which its count changes.
    pub(crate) fn free(self, index: usize, process: Process) -> Option<Tally> {
        if self.process(index) != process {
            return None;
        }
        let state = self.0.state(index).swap(0, Ordering::Relaxed);
        self.0.free(index);
        let last = (state & NOTE).checked_sub(1);
        Some(Tally { process, count: (state & COUNT) / ONE, last })
    }

    fn is(self, index: usize, role: Role) -> bool {
        self.0.state(index).load(Ordering::Relaxed) & PUTTER == role.bit()
    }

    /// The count of a node, if it is this process's; else 0.
    pub(crate) fn count_of(self, index: usize, process: Process) -> u64 {
        if self.process(index) == process { self.count(index) } else { 0 }
    }

    pub(crate) fn count(self, index: usize) -> u64 {
        (self.0.state(index).load(Ordering::Acquire) & COUNT) / ONE
    }

    /// Whether the state was changed.
    fn update(self, index: usize, change: impl Fn(u64) -> Option<u64>) -> bool {
        let state = self.0.state(index);
        let mut seen = state.load(Ordering::Relaxed);
        while let Some(new) = change(seen) {
            match state.compare_exchange(seen, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    fn process(self, index: usize) -> Process {
        Process::from_word(self.0.process(index).load(Ordering::Acquire))
    }
}

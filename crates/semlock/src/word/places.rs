//! Places: who waits for a lock, in the order in which they came.
//!
//! ```text
//!  node:  who, state     as in the waiters' table, in a table of its own (see `waiters`)
//!  what:  WAITING        it sleeps, or is about to
//!         WOKEN          it was told to try, and has not come to it yet
//!         GRANTED        the same, and a permit was reserved for it
//!
//!                 releaser
//!  0 ──enter──► WAITING ──► WOKEN | GRANTED ──leave──► 0
//!                  ▲   waiter     │    │
//!                  └──────────────┴────┘
//! ```
//!
//! A waiter takes one ticket, and keeps it until it leaves, however often it wakes to check whether everything is well, and however often
//! it was woken and another was faster. A releaser wakes the lowest ticket of those that are WAITING. So whoever comes later
//! cannot be woken earlier. The kernel's own queue would not do: a sleeper that wakes to check lies down again at its end.
//!
//! Each node has its own futex: the low half of its state.
//!
//! One that is woken, but runs late (stopped, killed, on a busy machine), does not keep others waiting: the next release
//! wakes the next. And a releaser that finds nobody asleep at a node (its waiter is awake, or dead) wakes the next one besides.
//! So the death of a waiter loses a wake-up only if it was already on its way; and no sleep is endless.
//!
//! A table that is full has no place for a waiter. That one sleeps at the gate, and tries to get a place when it wakes.
//!
//! # Why not otherwise
//! - *The kernel's queue, and a mark of who starves*, as Go's mutex has it, whose sleepers never wake by themselves. Ours do; so
//!   the mark would go to whoever happens to look next, and not to the first to come: see
//!   `without_places_one_who_came_later_can_be_first`.
//! - *Tickets alone, and the kernel's bitset for a table* (all sleep on one word, each under the bit `ticket % 32`). A releaser
//!   cannot tell a waiter that is awake to check from one that has gone, and skips its ticket. Other systems have no such call.
//! - *Handing the permit over to the first*, without a reservation that runs out: one that is stopped would hold it.
//!
//! # Memory ordering
//! A waiter is WAITING before it announces itself at the gate, and tries after that: see there. A releaser that sees the announcement
//! sees the wait: the announcement is a Release too, and all that changes the gate are exchanges, which keep it.
//! A waiter is told after the permit was freed (Release); it sees that (Acquire) before it waits again, so that its next try
//! finds the permit, or somebody who was faster. The other changes order nothing: a node is freed after its state was
//! cleared (Release), and claimed (Acquire) before it is used.

use std::time::Duration;

use super::permit::Process;
use super::waiters::{TICKET_SHIFT, WHAT, Waiters, slot_of, state_of};
use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const WAITING: u64 = 1;
const WOKEN: u64 = 2;
const GRANTED: u64 = 3;

/// Those who wait for one lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// The segment's table.
    pub(crate) table: Waiters<'a>,
    /// The lock's slot, less than 2^16.
    pub(crate) slot: u64,
    /// The next ticket.
    pub(crate) tickets: &'a AtomicU64,
}

/// A waiter's own place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    index: usize,
    /// Its state while it waits.
    waiting: u64,
}

impl Place {
    pub(crate) fn ticket(&self) -> u64 {
        self.waiting >> TICKET_SHIFT
    }
}

/// One of those who wait, as somebody else saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct First {
    index: usize,
    state: u64,
}

impl First {
    pub(crate) fn ticket(self) -> u64 {
        self.state >> TICKET_SHIFT
    }
}

/// What a waiter was told, and has made no use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    None,
    /// To try.
    Woken,
    /// To take what was reserved for it.
    Granted,
}

impl Places<'_> {
    /// Takes a place behind all others; `None` if the table is full.
    pub(crate) fn enter(&self, me: Process) -> Option<Place> {
        let index = self.table.claim(me)?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let waiting = state_of(ticket, self.slot, WAITING);
        // The announcement at the gate, which follows, is what tells others.
        self.table.state(index).store(waiting, Ordering::Relaxed);
        Some(Place { index, waiting })
    }

    /// Waits on, in the same place, after a try that came to nothing; to be announced at the gate before the next try.
    pub(crate) fn wait_again(&self, place: &Place) {
        let state = self.table.state(place.index);
        // Nobody else changes the state of one who was woken.
        if state.load(Ordering::Acquire) != place.waiting {
            state.store(place.waiting, Ordering::Relaxed);
        }
    }

    /// Sleeps once, unless it was woken since it began to wait, or to wait again.
    pub(crate) fn sleep(&self, futex: &impl Futex, place: &Place, time: Option<Duration>) -> Slept {
        futex.wait(self.table.state(place.index), low(place.waiting), time)
    }

    /// Gives the place up.
    pub(crate) fn leave(&self, place: &Place) -> Wakeup {
        let state = self.table.state(place.index).swap(0, Ordering::Relaxed);
        self.table.free(place.index);
        match state & WHAT {
            WOKEN => Wakeup::Woken,
            GRANTED => Wakeup::Granted,
            _ => Wakeup::None,
        }
    }

    /// How many have a place.
    pub(crate) fn count(&self) -> usize {
        [WAITING, WOKEN, GRANTED].into_iter().map(|what| self.all(what).count()).sum()
    }

    /// The first of those for whom nothing is reserved. It may have been woken already, for a permit that another took or to check.
    pub(crate) fn first(&self) -> Option<First> {
        self.all(WAITING).chain(self.all(WOKEN)).min_by_key(|first| first.ticket())
    }

    /// Wakes the first, so that it tries; `other` is the caller, if it has a place. False if nobody is there who could be woken, or
    /// nobody sleeps.
    pub(crate) fn wake_first(&self, futex: &impl Futex, other: Option<&Place>) -> bool {
        let others = |first: &First| other.is_none_or(|other| other.index != first.index);
        // Nobody is told twice: who is awake waits again as soon as another was faster.
        let mut from = 0;
        while let Some(first) = self
            .all(WAITING)
            .filter(others)
            .filter(|first| first.ticket() >= from)
            .min_by_key(|first| first.ticket())
        {
            if !self.tell(first, WOKEN) {
                continue;
            }
            // It may be awake, and try now; or be dead.
            if futex.wake_one(self.table.state(first.index)) != Woke::Nobody
                || !rule("places/a-releaser-that-finds-nobody-asleep-wakes-the-next")
            {
                return true;
            }
            from = first.ticket() + 1;
        }
        false
    }

    /// Tells a waiter that a permit was reserved for it, and wakes it; false if it is not as it was seen, or dead.
    pub(crate) fn grant(
        &self,
        futex: &impl Futex,
        first: First,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let who = self.who(first.index);
        self.tell(first, GRANTED)
            && (futex.wake_one(self.table.state(first.index)) != Woke::Nobody
                || !is_dead(who)
                || !self.bury(first.index, who, me))
    }

    fn tell(&self, first: First, what: u64) -> bool {
        self.table
            .state(first.index)
            .compare_exchange(
                first.state,
                first.state & !WHAT | what,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Frees the nodes of this lock's waiters that were woken and are dead; tells whether there were any. What they were told was
    /// for somebody else, then.
    pub(crate) fn reclaim_woken(
        &self,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let mut buried = false;
        for First { index, .. } in self.all(WOKEN).chain(self.all(GRANTED)) {
            let who = self.who(index);
            buried |= is_other(who, me) && is_dead(who) && self.bury(index, who, me);
        }
        buried
    }

    /// Frees the nodes of the dead in the whole table.
    pub(crate) fn reclaim(&self, me: Process, is_dead: &mut impl FnMut(Process) -> bool) {
        // All of it: one who was killed as it claimed a node has not said that the node is used.
        for index in 0..self.table.len() {
            let who = self.who(index);
            if is_other(who, me) && is_dead(who) {
                self.bury(index, who, me);
            }
        }
    }

    fn bury(&self, index: usize, dead: Process, me: Process) -> bool {
        let is_ours = self.table.take_over(index, dead, me).is_some();
        if is_ours {
            self.table.state(index).store(0, Ordering::Relaxed);
            self.table.free(index);
        }
        is_ours
    }

    fn who(&self, index: usize) -> Process {
        Process::from_word(self.table.who(index).load(Ordering::Relaxed))
    }

    /// The nodes of this lock whose state is `what`.
    fn all(&self, what: u64) -> impl Iterator<Item = First> + '_ {
        (0..self.table.used()).filter_map(move |index| {
            let state = self.table.state(index).load(Ordering::Relaxed);
            (state & WHAT == what && slot_of(state) == self.slot).then_some(First { index, state })
        })
    }
}

fn is_other(who: Process, me: Process) -> bool {
    who.word() != 0 && who != me
}

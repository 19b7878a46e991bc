//! Places: the waiters of a lock, in the order in which they came.
//!
//! ```text
//!  node:    process, state   as in the waiters' table, but in a table of its own (see `waiters`)
//!  status:  WAITING          the waiter sleeps, or is about to
//!           WOKEN            a releaser has woken the waiter, which has not tried since
//!           GRANTED          the same, and a permit is reserved for the waiter
//!
//!                 releaser
//!  0 ──enter──► WAITING ──► WOKEN | GRANTED ──leave──► 0
//!                  ▲   waiter     │    │
//!                  └──────────────┴────┘
//! ```
//!
//! A waiter takes one ticket and keeps it until it leaves. It keeps the ticket when it wakes to
//! check for deaths, and when it was woken and another acquirer was faster. A releaser wakes the
//! lowest ticket of the waiters that are WAITING. So a waiter that comes later is not woken
//! earlier. The kernel's own queue does not keep that order: a sleeper that wakes to check goes to
//! the queue's end when it sleeps again.
//!
//! Each node has its own futex: the low half of its state.
//!
//! A woken waiter that runs late (it is stopped, killed, or on a busy machine) does not delay the
//! others: the next release wakes the next waiter. A releaser that finds nobody asleep at a node
//! (its waiter is awake, or dead) wakes the next waiter as well. So the death of a waiter loses a
//! wake-up only if that was on its way to it already. And no sleep is endless.
//!
//! A full table has no place for a waiter. That waiter sleeps on the eventcount, and tries to get a
//! place each time it wakes.
//!
//! # Why not otherwise
//! - *The kernel's queue, and a flag that a waiter is starving*, as Go's mutex has them. Go's
//!   sleepers never wake by themselves, and ours do. So the flag would serve the waiter that
//!   happens to check next, and not the first to come: see
//!   `without_places_a_later_waiter_can_be_first`.
//! - *Tickets and the kernel's bitset, without a table*: all sleep on one word, each under the bit
//!   `ticket % 32`. A releaser cannot tell a waiter that is awake to check from one that has left.
//!   So it would skip the ticket of the former. Other systems have no such call.
//! - *Handing the permit to the first waiter*, without a reservation that expires. A waiter that is
//!   stopped would hold the permit.
//!
//! # Memory ordering
//! A waiter sets WAITING before it prepares to wait on the eventcount, and tries after that: see
//! `eventcount`. A releaser that sees that step sees WAITING too: preparing is also a Release, and
//! all changes of the eventcount are exchanges, which keep what was released.
//!
//! A releaser sets WOKEN or GRANTED after it has freed the permit (Release). The waiter loads or
//! exchanges that (Acquire) when it waits again. So its next try finds the permit, or an acquirer
//! was faster.
//!
//! The other changes of a state are Relaxed. The node's process orders them: it is set to 0 after
//! the state was cleared (Release), and claimed (Acquire) before the state is used.

use std::time::Duration;

use super::permit::Process;
use super::waiters::{STATUS, TICKET_SHIFT, Waiters, slot_of, state_of};
use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const WAITING: u64 = 1;
const WOKEN: u64 = 2;
const GRANTED: u64 = 3;

/// The waiters of one lock.
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

/// A waiter's place, as another process saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenPlace {
    index: usize,
    state: u64,
}

impl SeenPlace {
    pub(crate) fn ticket(self) -> u64 {
        self.state >> TICKET_SHIFT
    }
}

/// The wake-up that a waiter got and has not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    None,
    /// It was woken to try.
    Woken,
    /// A permit was reserved for it.
    Granted,
}

impl Places<'_> {
    /// Takes a place behind all others. `None` if the table is full.
    pub(crate) fn enter(&self, me: Process) -> Option<Place> {
        let index = self.table.claim(me)?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let waiting = state_of(ticket, self.slot, WAITING);
        // Relaxed: the `prepare_wait` that follows is a Release, and publishes it.
        self.table.state(index).store(waiting, Ordering::Relaxed);
        Some(Place { index, waiting })
    }

    /// Waits again in the same place, after a try that failed. The caller prepares to wait on the
    /// eventcount before its next try.
    pub(crate) fn wait_again(&self, place: &Place) {
        let state = self.table.state(place.index);
        // A releaser may be changing WOKEN to GRANTED. Overwriting that loses nothing if the waiter
        // sees what the releaser did before: its next try finds the permit that is reserved for it.
        // So this is a swap, which acquires, and no store. (If nobody has changed the state, there
        // is nothing to see.)
        if state.load(Ordering::Relaxed) != place.waiting {
            // No test needs more than Relaxed here: the model has a fence where the waiter prepares
            // to wait, right after this, and that acquires too.
            state.swap(place.waiting, Ordering::Acquire);
        }
    }

    /// Sleeps once, unless the waiter was woken since it entered, or since it waited again.
    pub(crate) fn sleep(&self, futex: &impl Futex, place: &Place, time: Option<Duration>) -> Slept {
        futex.wait(self.table.state(place.index), low(place.waiting), time)
    }

    /// Leaves the place. Returns the wake-up that the waiter has not used.
    pub(crate) fn leave(&self, place: &Place) -> Wakeup {
        let state = self.table.state(place.index).swap(0, Ordering::Relaxed);
        self.table.free(place.index);
        match state & STATUS {
            WOKEN => Wakeup::Woken,
            GRANTED => Wakeup::Granted,
            _ => Wakeup::None,
        }
    }

    /// How many waiters have a place.
    pub(crate) fn count(&self) -> usize {
        [WAITING, WOKEN, GRANTED].into_iter().map(|status| self.all(status).count()).sum()
    }

    /// The first of the waiters that no permit is reserved for. It may be WOKEN already, for a
    /// permit that another acquirer took, or so that it checks for deaths.
    pub(crate) fn first(&self) -> Option<SeenPlace> {
        self.all(WAITING).chain(self.all(WOKEN)).min_by_key(|first| first.ticket())
    }

    /// Wakes the first waiter, so that it tries, but never `own`, the caller's place. False if no
    /// waiter is left that could be woken, or none of them sleeps.
    pub(crate) fn wake_first(&self, futex: &impl Futex, own: Option<&Place>) -> bool {
        let is_other = |first: &SeenPlace| own.is_none_or(|own| own.index != first.index);
        // No waiter is woken twice. One that is awake waits again as soon as another acquirer was
        // faster, and keeps its ticket, which is less than `from`.
        let mut from = 0;
        while let Some(first) = self
            .all(WAITING)
            .filter(is_other)
            .filter(|first| first.ticket() >= from)
            .min_by_key(|first| first.ticket())
        {
            if !self.set(first, WOKEN) {
                continue;
            }
            // If nobody slept here, the waiter is awake and tries now, or it is dead.
            if futex.wake_one(self.table.state(first.index)) != Woke::Nobody
                || !rule("places/a-releaser-that-finds-nobody-asleep-wakes-the-next")
            {
                return true;
            }
            from = first.ticket() + 1;
        }
        false
    }

    /// Tells a waiter that a permit is reserved for it, and wakes it. False if its place is not as
    /// it was seen, or the waiter is dead.
    pub(crate) fn grant(
        &self,
        futex: &impl Futex,
        first: SeenPlace,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let waiter = self.process(first.index);
        self.set(first, GRANTED)
            && (futex.wake_one(self.table.state(first.index)) != Woke::Nobody
                || !is_dead(waiter)
                || !self.free_dead(first.index, waiter, me))
    }

    /// Sets a place's status. False if the place is not as it was seen.
    fn set(&self, first: SeenPlace, status: u64) -> bool {
        self.table
            .state(first.index)
            .compare_exchange(
                first.state,
                first.state & !STATUS | status,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Frees the nodes of this lock's waiters that were woken and are dead. True if there were any:
    /// then their wake-ups are for other waiters.
    pub(crate) fn reclaim_woken(
        &self,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let mut freed = false;
        for SeenPlace { index, .. } in self.all(WOKEN).chain(self.all(GRANTED)) {
            let waiter = self.process(index);
            freed |= is_another(waiter, me) && is_dead(waiter) && self.free_dead(index, waiter, me);
        }
        freed
    }

    /// Frees the nodes of dead processes in the whole table.
    pub(crate) fn reclaim(&self, me: Process, is_dead: &mut impl FnMut(Process) -> bool) {
        // All nodes, because a process that was killed while it claimed one has not counted it as
        // used.
        for index in 0..self.table.len() {
            let waiter = self.process(index);
            if is_another(waiter, me) && is_dead(waiter) {
                self.free_dead(index, waiter, me);
            }
        }
    }

    /// Frees the node of a dead process. False if another process was faster.
    fn free_dead(&self, index: usize, dead: Process, me: Process) -> bool {
        let is_mine = self.table.take_over(index, dead, me).is_some();
        if is_mine {
            self.table.state(index).store(0, Ordering::Relaxed);
            self.table.free(index);
        }
        is_mine
    }

    fn process(&self, index: usize) -> Process {
        Process::from_word(self.table.process(index).load(Ordering::Relaxed))
    }

    /// The nodes of this lock whose status is `status`.
    fn all(&self, status: u64) -> impl Iterator<Item = SeenPlace> + '_ {
        (0..self.table.used()).filter_map(move |index| {
            let state = self.table.state(index).load(Ordering::Relaxed);
            (state & STATUS == status && slot_of(state) == self.slot)
                .then_some(SeenPlace { index, state })
        })
    }
}

fn is_another(waiter: Process, me: Process) -> bool {
    waiter.word() != 0 && waiter != me
}

//! Those who wait to be notified: the table that a segment's conditions and barriers live by.
//!
//! ```text
//!  node:  who    0: the node is free                     else: the process that waits (see `permit`)
//!         state  63                 19 18          3 2    0
//!               ┌─────────────────────┬─────────────┬──────┐   low half: the futex
//!               │ ticket (45 bits)    │ slot        │ what │
//!               └─────────────────────┴─────────────┴──────┘
//!  what:  IDLE (all 0)  WAITING, NOTIFIED (a condition's)  MEMBER, THROUGH, BROKEN (a barrier's)
//!  slot:  whose waiter it is
//!
//!  who:    0 ──claim──► P ──free──► 0          P dead: ──take over──► Q
//!  state:  0 ──enter──► WAITING ──► NOTIFIED ──leave──► 0
//!                  └───► MEMBER ───► THROUGH | BROKEN ──┘
//! ```
//!
//! Each arrow is one compare-exchange where several may draw it (by who owns the node alone, a swap or a store), so that neither a
//! death nor a lock that a stranger released can tear the table. Tickets of a slot count up and are
//! used once: a compare-exchange that names a ticket meets the wait that it means, or fails.
//!
//! A notified node stays notified until its waiter has taken its lock again and leaves. If it dies
//! before that, another *takes over* the node, which is then a notification without a waiter, passes it
//! on to the oldest who waits, and frees the node; in that order, so that a death in the middle can
//! only wake one more, and never lose a notification.
//!
//! # Memory ordering
//! The lock of a condition orders most of this. What happens without it (a timeout, a watcher that
//! passes on) are single changes of one word.
//!
//! - `who` is freed after `state` was cleared (Release), and claimed (Acquire) before it is used: a claimed
//!   node is IDLE. Who reads a later `who` (Acquire) and then `state` sees no wait of before that.
//! - `state` is WAITING after `who` was claimed (Release); all who look through the table load it
//!   (Acquire), and so see whose it is, and settle the wait with a Release: who finds itself notified,
//!   or leaves so (Acquire), sees what was written before.
//! - Taking over needs none: one who is dead has done all that it did before others can know that.
//! - Entering counts the tickets after `state` is WAITING (Release): who knows of the ticket (Acquire)
//!   knows of the wait, and of all that lies before it, how far the table is used among that.

use std::collections::BTreeSet;
use std::time::Duration;

use super::permit::Process;
use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// Words of one node.
pub const NODE_WORDS: usize = 2;
/// The word of a node that names its process.
pub const WHO: usize = 0;
/// The word of a node that tells its state.
pub const STATE: usize = 1;

/// The bits of a state that tell what the waiter is at.
pub const WHAT: u64 = 0b111;
const WAITING: u64 = 1;
const NOTIFIED: u64 = 2;
const THROUGH: u64 = 3;
/// Its barrier was broken or reset.
pub const BROKEN: u64 = 4;
/// It waits at a barrier.
pub const MEMBER: u64 = 5;
/// Where the slot's number stands in a state.
pub const SLOT_SHIFT: u32 = 3;
/// How many bits the slot's number has.
pub const SLOT_BITS: u32 = 16;
pub(super) const TICKET_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS;

/// The table of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiters<'a> {
    /// `NODE_WORDS` for each node.
    pub(crate) nodes: &'a [AtomicU64],
    /// No node from this one on was ever used.
    pub(crate) used: &'a AtomicU64,
}

/// What belongs to one condition or barrier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue<'a> {
    pub(crate) waiters: Waiters<'a>,
    /// Its slot's number, less than 2^16.
    pub(crate) slot: u64,
    /// The next ticket.
    pub(crate) tickets: &'a AtomicU64,
    pub(crate) waits: Waits,
}

/// What those of a queue wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Being notified. A dead one's node can be cleared.
    ForNotify,
    /// The other members of a barrier, which a dead one breaks: until it has, its node stays.
    ForMembers,
}

impl Waits {
    fn what(self) -> u64 {
        match self {
            Self::ForNotify => WAITING,
            Self::ForMembers => MEMBER,
        }
    }
}

/// A node that the caller owns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    index: usize,
    /// Its state while it waits.
    waiting: u64,
}

/// How a wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waiting,
    /// The condition was notified, or the barrier lets its members through.
    Passed,
    Broken,
}

impl Progress {
    fn of(state: u64) -> Self {
        match state & WHAT {
            NOTIFIED | THROUGH => Self::Passed,
            BROKEN => Self::Broken,
            _ => Self::Waiting,
        }
    }
}

impl<'a> Waiters<'a> {
    pub(super) fn who(&self, index: usize) -> &'a AtomicU64 {
        &self.nodes[index * NODE_WORDS + WHO]
    }

    pub(super) fn state(&self, index: usize) -> &'a AtomicU64 {
        &self.nodes[index * NODE_WORDS + STATE]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len() / NODE_WORDS
    }

    pub(super) fn used(&self) -> usize {
        let all = self.len();
        // Shared memory: whatever stands there must not lead out of the table.
        usize::try_from(self.used.load(Ordering::Relaxed)).map_or(all, |used| used.min(all))
    }

    /// The slots of the barriers that somebody is in, dead or alive.
    pub(crate) fn barriers(&self) -> BTreeSet<u64> {
        let states = (0..self.used()).map(|index| self.state(index).load(Ordering::Acquire));
        states.filter(|state| state & WHAT == MEMBER).map(slot_of).collect()
    }

    /// The slots that somebody waits for, or waited for as it died.
    pub(crate) fn slots(&self) -> BTreeSet<u64> {
        let states = (0..self.used()).map(|index| self.state(index).load(Ordering::Acquire));
        states.filter(|state| state & WHAT != 0).map(slot_of).collect()
    }

    pub(super) fn claim(&self, me: Process) -> Option<usize> {
        let index = (0..self.len()).find(|&index| {
            let who = self.who(index);
            who.load(Ordering::Relaxed) == 0
                && who.compare_exchange(0, me.word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        self.used.fetch_max(index as u64 + 1, Ordering::Relaxed);
        Some(index)
    }

    pub(super) fn free(&self, index: usize) {
        self.who(index).store(0, Ordering::Release);
    }

    /// Takes over the node of a dead process; `None` if another did.
    pub(super) fn take_over(&self, index: usize, dead: Process, me: Process) -> Option<()> {
        self.who(index)
            .compare_exchange(dead.word(), me.word(), Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| ())
    }
}

impl Queue<'_> {
    /// Enters the table; `None` if it is full.
    pub(crate) fn enter(&self, me: Process) -> Option<Node> {
        let index = self.waiters.claim(me)?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let waiting = state_of(ticket, self.slot, self.waits.what());
        self.waiters.state(index).store(waiting, Ordering::Release);
        // Who has read a number of tickets before it looked through the table, and finds it the
        // same later, knows that nobody has entered since: not even while it looked.
        if rule("waiters/a-visible-wait-counts-the-tickets-again") {
            self.tickets.fetch_add(1, Ordering::Release);
        }
        Some(Node { index, waiting })
    }

    pub(crate) fn progress(&self, node: &Node) -> Progress {
        Progress::of(self.waiters.state(node.index).load(Ordering::Acquire))
    }

    /// Sleeps once, unless the wait is over.
    pub(crate) fn sleep(&self, futex: &impl Futex, node: &Node, time: Option<Duration>) -> Slept {
        futex.wait(self.waiters.state(node.index), low(node.waiting), time)
    }

    /// Leaves the table; tells how the wait stood at that moment.
    pub(crate) fn leave(&self, node: &Node) -> Progress {
        let state = self.waiters.state(node.index).swap(0, Ordering::Acquire);
        self.waiters.free(node.index);
        Progress::of(state)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.all(self.waits.what()).count()
    }

    /// Notifies the oldest of those who entered with tickets before that one, at most so many; returns
    /// how many it notified.
    ///
    /// Of one that may not have been asleep it asks whether it is dead, and then notifies the next instead.
    pub(crate) fn notify(
        &self,
        futex: &impl Futex,
        most: usize,
        before: u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> usize {
        let ticket = |&(_, state): &(usize, u64)| state >> TICKET_SHIFT;
        let mut notified = 0;
        while notified < most {
            let waiting = self.all(WAITING).filter(|node| ticket(node) < before);
            let mut oldest: Vec<_> = if most - notified == 1 {
                waiting.min_by_key(ticket).into_iter().collect()
            } else {
                waiting.collect()
            };
            if oldest.is_empty() {
                break;
            }
            oldest.sort_unstable_by_key(ticket);
            for (index, state) in oldest.into_iter().take(most - notified) {
                if self.notify_node(futex, index, state, me, is_dead) {
                    notified += 1;
                }
            }
        }
        notified
    }

    /// Notifies this one; false if it does not wait any more, or will not notice.
    fn notify_node(
        &self,
        futex: &impl Futex,
        index: usize,
        waiting: u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let who = Process::from_word(self.waiters.who(index).load(Ordering::Relaxed));
        if !self.settle(index, waiting, NOTIFIED) {
            return false;
        }
        if futex.wake_one(self.waiters.state(index)) == Woke::One
            || !is_dead(who)
            || !rule("waiters/a-dead-waiter-is-not-notified")
        {
            return true;
        }
        // It may have left, and have died in another wait, in the same node. What it was notified of then is not this one's;
        // and now that it is dead, nobody but who takes the node over clears that.
        let state = self.waiters.state(index).load(Ordering::Relaxed);
        if state != waiting & !WHAT | NOTIFIED
            && rule("waiters/a-node-that-is-in-another-wait-stays")
        {
            return true;
        }
        // The dead one's notification goes to another, and then its node is cleared. Where somebody
        // has taken the node over already, that one does it.
        if self.waiters.take_over(index, who, me).is_none() {
            return true;
        }
        self.waiters.state(index).store(0, Ordering::Relaxed);
        self.waiters.free(index);
        false
    }

    /// Ends all waits, without waking anybody: those of a barrier sleep elsewhere.
    pub(crate) fn settle_all(&self, through: bool) {
        let what = if through { THROUGH } else { BROKEN };
        for (index, state) in self.all(self.waits.what()) {
            self.settle(index, state, what);
        }
    }

    fn settle(&self, index: usize, waiting: u64, what: u64) -> bool {
        self.waiters
            .state(index)
            .compare_exchange(waiting, waiting & !WHAT | what, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Passes on what the dead were notified of, and clears their nodes. `before` tells of a condition's slot
    /// the number of tickets when its last `notify` began: those who entered later were not there,
    /// and get nothing.
    pub(crate) fn pass_on(
        &self,
        futex: &impl Futex,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        for (index, _) in self.all(NOTIFIED) {
            self.clear_if_dead(futex, index, before, me, is_dead);
        }
    }

    fn clear_if_dead(
        &self,
        futex: &impl Futex,
        index: usize,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        let who = Process::from_word(self.waiters.who(index).load(Ordering::Relaxed));
        if who.word() == 0 || who == me || !is_dead(who) {
            return;
        }
        // Its barrier has to find it, and to break first. Nothing else becomes a member here, for it is dead.
        let state = self.waiters.state(index).load(Ordering::Relaxed);
        if state & WHAT == MEMBER && rule("waiters/a-dead-member-stays-until-its-barrier-breaks") {
            return;
        }
        if self.waiters.take_over(index, who, me).is_some() {
            self.clear(futex, index, before, me, is_dead);
        }
    }

    /// Clears a node that the caller has, after what it was notified of was passed on: in that order,
    /// so that a death in the middle can only wake one more.
    ///
    /// What was seen of the node before the caller had it may have been another wait's, and until
    /// it is cleared it may be notified: so this looks, and changes nothing else than it saw.
    fn clear(
        &self,
        futex: &impl Futex,
        index: usize,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        let state = self.waiters.state(index);
        let mut seen = state.load(Ordering::Acquire);
        loop {
            if seen & WHAT == NOTIFIED {
                // Perhaps of another condition, of whose waiters nobody may be left to do it.
                let its = Queue { slot: slot_of(seen), ..*self };
                let its = if rule("waiters/a-notification-is-passed-on-in-its-own-condition") {
                    its
                } else {
                    *self
                };
                // Read after the notification was seen, that is the number of this one or a later one.
                let before = before(its.slot);
                if rule("waiters/a-dead-waiters-notification-is-passed-on") {
                    its.notify(futex, 1, before, me, is_dead);
                }
            }
            // No test needs more than Relaxed here: one who is killed between passing on and clearing
            // must have passed on, and models kill between steps in the order in which they stand here.
            match state.compare_exchange(seen, 0, Ordering::Release, Ordering::Acquire) {
                Ok(_) => break,
                Err(_) if !rule("waiters/a-notification-during-the-clearing-is-seen") => {
                    state.store(0, Ordering::Relaxed);
                    break;
                }
                Err(other) => seen = other,
            }
        }
        self.waiters.free(index);
    }

    /// Leaves the table, for one whose wait does not count: what it was notified of goes to another.
    pub(crate) fn abandon(
        &self,
        futex: &impl Futex,
        node: &Node,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        self.clear(futex, node.index, before, me, is_dead);
    }

    /// Whether a waiter has died.
    pub(crate) fn has_dead_waiter(&self, is_dead: &mut impl FnMut(Process) -> bool) -> bool {
        self.all(self.waits.what()).any(|(index, state)| {
            let who = Process::from_word(self.waiters.who(index).load(Ordering::Acquire));
            // If that is the same still, the node has not become another's meanwhile.
            let is_its = self.waiters.state(index).load(Ordering::Relaxed) == state
                || !rule("waiters/a-nodes-state-is-read-again-after-its-process");
            is_its && who.word() != 0 && is_dead(who)
        })
    }

    /// Wakes the oldest of the others that wait, without notifying it: it may have to watch from now on.
    pub(crate) fn wake_another(&self, futex: &impl Futex, me: &Node) {
        // Who watched was the oldest itself, mostly, and has not left yet.
        let others = self.all(WAITING).filter(|&(index, _)| {
            index != me.index || !rule("waiters/a-leaving-watcher-does-not-wake-itself")
        });
        let oldest = others.min_by_key(|&(_, state)| state >> TICKET_SHIFT);
        if let Some((index, _)) = oldest {
            futex.wake_one(self.waiters.state(index));
        }
    }

    /// Clears the nodes of the dead in the whole table, but for members of barriers that are not broken.
    pub(crate) fn reclaim(
        &self,
        futex: &impl Futex,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        // All of it: one who was killed as it claimed a node has not said that the node is used.
        for index in 0..self.waiters.len() {
            self.clear_if_dead(futex, index, before, me, is_dead);
        }
    }

    fn is_of_slot(&self, state: u64) -> bool {
        slot_of(state) == self.slot
    }

    /// The nodes of this slot whose state is `what`.
    fn all(&self, what: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..self.waiters.used()).filter_map(move |index| {
            let state = self.waiters.state(index).load(Ordering::Acquire);
            (state & WHAT == what && self.is_of_slot(state)).then_some((index, state))
        })
    }
}

pub(super) const fn state_of(ticket: u64, slot: u64, what: u64) -> u64 {
    ticket << TICKET_SHIFT | slot << SLOT_SHIFT | what
}

/// Whose waiter it is.
pub(super) const fn slot_of(state: u64) -> u64 {
    state >> SLOT_SHIFT & ((1 << SLOT_BITS) - 1)
}

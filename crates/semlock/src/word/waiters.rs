//! The waiters of a segment's conditions and barriers: one table for all of them.
//!
//! ```text
//!  node:    process  0: the node is free               else: the process that waits (see `permit`)
//!           state    63                 19 18          3 2      0
//!                   ┌─────────────────────┬─────────────┬────────┐   low half: the futex
//!                   │ ticket (45 bits)    │ slot        │ status │
//!                   └─────────────────────┴─────────────┴────────┘
//!  status:  IDLE (the whole state is 0)
//!           WAITING, ASLEEP, NOTIFIED   of a condition's waiter; ASLEEP: it may sleep
//!           MEMBER, THROUGH, BROKEN     of a barrier's member
//!  slot:    the condition or barrier that it waits for
//!
//!  process: 0 ──claim──► P ──free──► 0          P is dead: ──take over──► Q
//!  state:   0 ──enter──► WAITING ─────────────► NOTIFIED ──leave──► 0
//!                   │       └───sleep──► ASLEEP ────┘                │
//!                   └───► MEMBER ──────► THROUGH | BROKEN ───leave───┘
//! ```
//!
//! A transition that several processes may make is one compare-exchange. A transition that only the
//! node's owner may make is a swap or a store. So the table stays whole when a process dies, and
//! also when a process releases a lock that another one holds. The tickets of a slot count up, and
//! each is used once. So a compare-exchange that names a ticket changes the wait that it means, or
//! fails.
//!
//! A waiter may look at its node for a while before it sleeps. Who notifies it then needs no system
//! call: the status is in the word that the notification changes, so either the notifier sees
//! ASLEEP, or the waiter does not become ASLEEP.
//!
//! A notified node stays NOTIFIED until its waiter has taken its lock again and leaves. If the
//! waiter dies before that, another process *takes over* the node, which is then a notification
//! without a waiter. It passes the notification on to the oldest waiter, and then frees the node.
//! In this order a death in the middle can wake one waiter too many, but never loses a
//! notification.
//!
//! # Memory ordering
//! The lock of a condition orders most of this. What happens without it (a timeout, a watcher that
//! passes a notification on) is a single change of one word.
//!
//! - A node's process is set to 0 after its state was cleared (Release), and claimed (Acquire)
//!   before the state is used. So a claimed node is IDLE. A process that loads a later owner
//!   (Acquire) and then the state does not see a wait from before that owner.
//! - A state becomes WAITING after the process was claimed (Release). A process that searches the
//!   table loads the state (Acquire), and so sees whose it is. It ends the wait with a Release. A
//!   waiter that finds itself notified, also as it leaves (Acquire), sees what was written before.
//! - A state becomes ASLEEP (Relaxed) by an exchange from WAITING. So who loads it sees what was
//!   before WAITING, as if it had loaded that.
//! - Taking over needs no ordering: a dead process has done all that it did before others can know
//!   that it is dead.
//! - Entering counts the tickets again after the state is WAITING (Release). A process that knows
//!   of the ticket (Acquire) knows of the wait, and of all that was before it, such as how much of
//!   the table is used.

use std::collections::BTreeSet;
use std::time::Duration;

use super::permit::Process;
use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// Words of one node.
pub const NODE_WORDS: usize = 2;
/// The word of a node that names its process.
pub const PROCESS: usize = 0;
/// The word of a node that tells its state.
pub const STATE: usize = 1;

/// The bits of a state that tell how the wait stands.
pub const STATUS: u64 = 0b111;
const WAITING: u64 = 1;
const NOTIFIED: u64 = 2;
/// It waits for a condition, and may sleep.
const ASLEEP: u64 = 6;
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
    /// The number of nodes that were ever used: they are the first ones.
    pub(crate) used: &'a AtomicU64,
}

/// The waiters of one condition or barrier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue<'a> {
    pub(crate) waiters: Waiters<'a>,
    /// Its slot's number, less than 2^16.
    pub(crate) slot: u64,
    /// The next ticket.
    pub(crate) tickets: &'a AtomicU64,
    pub(crate) waits: Waits,
}

/// What the waiters of a queue wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// A notification. The node of a dead waiter can be cleared.
    ForNotify,
    /// The other members of a barrier. A dead member breaks the barrier, and its node stays until
    /// then.
    ForMembers,
}

impl Waits {
    /// The status of one that enters.
    fn status(self) -> u64 {
        match self {
            Self::ForNotify => WAITING,
            Self::ForMembers => MEMBER,
        }
    }

    /// Whether one with this status waits.
    fn is_status(self, status: u64) -> bool {
        match self {
            Self::ForNotify => matches!(status, WAITING | ASLEEP),
            Self::ForMembers => status == MEMBER,
        }
    }
}

/// A node that the caller owns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    index: usize,
    /// Its state while it waits, until it may sleep.
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
        match state & STATUS {
            NOTIFIED | THROUGH => Self::Passed,
            BROKEN => Self::Broken,
            _ => Self::Waiting,
        }
    }
}

impl<'a> Waiters<'a> {
    pub(super) fn process(&self, index: usize) -> &'a AtomicU64 {
        &self.nodes[index * NODE_WORDS + PROCESS]
    }

    pub(super) fn state(&self, index: usize) -> &'a AtomicU64 {
        &self.nodes[index * NODE_WORDS + STATE]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len() / NODE_WORDS
    }

    pub(super) fn used(&self) -> usize {
        let all = self.len();
        // Any process can write this word. Its value must not lead out of the table.
        usize::try_from(self.used.load(Ordering::Relaxed)).map_or(all, |used| used.min(all))
    }

    /// The slots of the barriers that have members, dead or alive.
    pub(crate) fn barriers(&self) -> BTreeSet<u64> {
        let states = (0..self.used()).map(|index| self.state(index).load(Ordering::Acquire));
        states.filter(|state| state & STATUS == MEMBER).map(slot_of).collect()
    }

    /// The slots that processes wait for, or waited for when they died.
    pub(crate) fn slots(&self) -> BTreeSet<u64> {
        let states = (0..self.used()).map(|index| self.state(index).load(Ordering::Acquire));
        states.filter(|state| state & STATUS != 0).map(slot_of).collect()
    }

    /// Makes a free node the caller's. `None` if no node is free.
    pub(super) fn claim(&self, me: Process) -> Option<usize> {
        let index = (0..self.len()).find(|&index| {
            let process = self.process(index);
            process.load(Ordering::Relaxed) == 0
                && process
                    .compare_exchange(0, me.word(), Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
        })?;
        self.used.fetch_max(index as u64 + 1, Ordering::Relaxed);
        Some(index)
    }

    pub(super) fn free(&self, index: usize) {
        self.process(index).store(0, Ordering::Release);
    }

    /// Takes over the node of a dead process. `None` if another process was faster.
    pub(super) fn take_over(&self, index: usize, dead: Process, me: Process) -> Option<()> {
        self.process(index)
            .compare_exchange(dead.word(), me.word(), Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| ())
    }
}

impl Queue<'_> {
    /// Enters the table. `None` if it is full.
    pub(crate) fn enter(&self, me: Process) -> Option<Node> {
        let index = self.waiters.claim(me)?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let waiting = state_of(ticket, self.slot, self.waits.status());
        self.waiters.state(index).store(waiting, Ordering::Release);
        // A process may load the number of tickets, search the table, and load the number again. If
        // it is the same, nobody has entered since, not even during the search.
        if rule("waiters/a-visible-wait-counts-the-tickets-again") {
            self.tickets.fetch_add(1, Ordering::Release);
        }
        Some(Node { index, waiting })
    }

    pub(crate) fn progress(&self, node: &Node) -> Progress {
        Progress::of(self.waiters.state(node.index).load(Ordering::Acquire))
    }

    /// Sleeps once, unless the wait for a condition is over.
    pub(crate) fn sleep(&self, futex: &impl Futex, node: &Node, time: Option<Duration>) -> Slept {
        let state = self.waiters.state(node.index);
        let asleep = node.waiting & !STATUS | ASLEEP;
        let changed =
            state.compare_exchange(node.waiting, asleep, Ordering::Relaxed, Ordering::Relaxed);
        if changed.is_err_and(|seen| seen != asleep) {
            return Slept::Woken;
        }
        futex.wait(state, low(asleep), time)
    }

    /// Leaves the table. Returns how the wait stood at that moment.
    pub(crate) fn leave(&self, node: &Node) -> Progress {
        let state = self.waiters.state(node.index).swap(0, Ordering::Acquire);
        self.waiters.free(node.index);
        Progress::of(state)
    }

    /// How many waiters wait.
    pub(crate) fn waiting(&self) -> usize {
        self.all_waiting().count()
    }

    /// Notifies the oldest waiters that have tickets less than `before`, at most `most` of them.
    /// Returns how many it notified.
    ///
    /// If a notified waiter was not asleep, this asks whether it is dead. If it is, this
    /// notifies the next one instead.
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
            let waiting = self.all_waiting().filter(|node| ticket(node) < before);
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

    /// Notifies one waiter. False if it does not wait any more, or is dead.
    fn notify_node(
        &self,
        futex: &impl Futex,
        index: usize,
        waiting: u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> bool {
        let waiter = Process::from_word(self.waiters.process(index).load(Ordering::Relaxed));
        if !self.end_wait(index, waiting, NOTIFIED) {
            return false;
        }
        let sleeps = waiting & STATUS == ASLEEP;
        if sleeps && futex.wake_one(self.waiters.state(index)) == Woke::One
            || !is_dead(waiter)
            || !rule("waiters/a-dead-waiter-is-not-notified")
        {
            return true;
        }
        // The waiter may have left, and have died in another wait in the same node. A notification
        // of that wait is not this one's. From now on only a process that takes the node over can
        // clear it, because its owner is dead.
        let state = self.waiters.state(index).load(Ordering::Relaxed);
        if state != waiting & !STATUS | NOTIFIED
            && rule("waiters/a-node-that-is-in-another-wait-stays")
        {
            return true;
        }
        // The dead waiter's notification goes to the next one, and its node is cleared. If another
        // process has taken the node over already, that process does both.
        if self.waiters.take_over(index, waiter, me).is_none() {
            return true;
        }
        self.waiters.state(index).store(0, Ordering::Relaxed);
        self.waiters.free(index);
        false
    }

    /// Ends all waits, and wakes nobody: the members of a barrier sleep on its phase.
    pub(crate) fn end_all(&self, through: bool) {
        let status = if through { THROUGH } else { BROKEN };
        for (index, state) in self.all_waiting() {
            self.end_wait(index, state, status);
        }
    }

    /// Ends one wait. False if it has ended already.
    fn end_wait(&self, index: usize, waiting: u64, status: u64) -> bool {
        self.waiters
            .state(index)
            .compare_exchange(
                waiting,
                waiting & !STATUS | status,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// Passes on the notifications of dead waiters, and clears their nodes. `before` returns, for a
    /// condition's slot, the number of tickets when its last `notify` began. Waiters that entered
    /// later were not there, and get nothing.
    pub(crate) fn pass_on(
        &self,
        futex: &impl Futex,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        for (index, _) in self.all(|status| status == NOTIFIED) {
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
        let waiter = Process::from_word(self.waiters.process(index).load(Ordering::Relaxed));
        if waiter.word() == 0 || waiter == me || !is_dead(waiter) {
            return;
        }
        // A dead member stays until its barrier has found it and is broken. The node cannot become
        // a member's from now on, because its owner is dead.
        let state = self.waiters.state(index).load(Ordering::Relaxed);
        if state & STATUS == MEMBER && rule("waiters/a-dead-member-stays-until-its-barrier-breaks")
        {
            return;
        }
        if self.waiters.take_over(index, waiter, me).is_some() {
            self.clear(futex, index, before, me, is_dead);
        }
    }

    /// Clears a node that the caller owns. First it passes the node's notification on, if it has
    /// one. In this order a death in the middle can only wake one waiter too many.
    ///
    /// What the caller saw of the node before it owned it may be of another wait. And until the
    /// node is cleared, it may be notified. So this loads the state itself, and changes only what
    /// it loaded.
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
            if seen & STATUS == NOTIFIED {
                // It may be the notification of another condition. That one may have no waiter left
                // to pass it on.
                let slot = if rule("waiters/a-notification-is-passed-on-in-its-own-condition") {
                    slot_of(seen)
                } else {
                    self.slot
                };
                let its = Queue { slot, waits: Waits::ForNotify, ..*self };
                // This is loaded after the notification was seen. So it is the number of tickets at
                // its `notify` or a later one.
                let before = before(its.slot);
                if rule("waiters/a-dead-waiters-notification-is-passed-on") {
                    its.notify(futex, 1, before, me, is_dead);
                }
            }
            // No test needs more than Relaxed here: a process that is killed before this exchange
            // must have passed the notification on, and models kill between steps in program order.
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

    /// Leaves the table, for a waiter whose wait does not count: its notification goes to another
    /// waiter.
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

    /// Whether a waiter is dead.
    pub(crate) fn has_dead_waiter(&self, is_dead: &mut impl FnMut(Process) -> bool) -> bool {
        self.all_waiting().any(|(index, state)| {
            let waiter = Process::from_word(self.waiters.process(index).load(Ordering::Acquire));
            // If the state is still the same, the process that was loaded is the one of this wait.
            let is_same = self.waiters.state(index).load(Ordering::Relaxed) == state
                || !rule("waiters/a-nodes-state-is-read-again-after-its-process");
            is_same && waiter.word() != 0 && is_dead(waiter)
        })
    }

    /// Wakes the oldest waiter but the caller, without notifying it: it may have to watch from now
    /// on.
    pub(crate) fn wake_another(&self, futex: &impl Futex, me: &Node) {
        // The caller, which has watched, usually is the oldest, and has not left yet.
        let others = self.all_waiting().filter(|&(index, _)| {
            index != me.index || !rule("waiters/a-leaving-watcher-does-not-wake-itself")
        });
        let oldest = others.min_by_key(|&(_, state)| state >> TICKET_SHIFT);
        if let Some((index, _)) = oldest {
            futex.wake_one(self.waiters.state(index));
        }
    }

    /// Clears the nodes of dead processes in the whole table, except the members of barriers that
    /// are not broken.
    pub(crate) fn reclaim(
        &self,
        futex: &impl Futex,
        before: &impl Fn(u64) -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) {
        // All nodes, because a process that was killed while it claimed one has not counted it as
        // used.
        for index in 0..self.waiters.len() {
            self.clear_if_dead(futex, index, before, me, is_dead);
        }
    }

    fn is_of_slot(&self, state: u64) -> bool {
        slot_of(state) == self.slot
    }

    /// The nodes of this slot that wait.
    fn all_waiting(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.all(|status| self.waits.is_status(status))
    }

    /// The nodes of this slot with a status that `is_it` is true for.
    fn all<'s>(
        &'s self,
        is_it: impl Fn(u64) -> bool + 's,
    ) -> impl Iterator<Item = (usize, u64)> + 's {
        (0..self.waiters.used()).filter_map(move |index| {
            let state = self.waiters.state(index).load(Ordering::Acquire);
            (is_it(state & STATUS) && self.is_of_slot(state)).then_some((index, state))
        })
    }
}

pub(super) const fn state_of(ticket: u64, slot: u64, status: u64) -> u64 {
    ticket << TICKET_SHIFT | slot << SLOT_SHIFT | status
}

/// The slot of the condition or barrier that it waits for.
pub(super) const fn slot_of(state: u64) -> u64 {
    state >> SLOT_SHIFT & ((1 << SLOT_BITS) - 1)
}

//! Channels whose messages are counted: what bounded queues, and queues of tasks, stand on.
//!
//! A message is *put* before it is sent. Mostly that is one step: `try_put` sends it at once. Where
//! it cannot, because the ring is full or another process is sending, the caller claims a place for
//! it and sends it later. So a queue has as many messages as are in the channel, and as many more
//! as were put and not sent. The second number is kept by process (`word::tallies`): the places of
//! a process that has died are freed.
//!
//! * The lock of *claims* orders what changes that sum: a claim, and the sending of a message that
//!   was put. It is held for moments, and never while its holder waits. To receive needs no lock
//!   but the receivers': the head's move frees the place.
//! * Who waits for a place holds the *putters'* lock, so places are got by turns. Whoever tries
//!   without waiting may pass, but not for long: the first in the line says when it is *starving*,
//!   and from then on all who can wait get in line.
//!
//! A queue of tasks also counts, by process, the messages that were taken and are not *done*.

use std::time::Duration;

use super::channel::{Channel, Tried, acquire, is_acquired, unlock};
use super::layout::channel::backlog::{
    DONE_BY_OTHERS, FREED, LIMIT, LOST, STARVING, UNSENT, WITHOUT_NODE,
};
use super::layout::channel::{BACKLOG, CLAIMS, MODE, PUTTERS, mode};
use super::layout::{Kind, SLOT_WORDS, Tag};
use super::liveness::LivenessCache;
use super::lock::Lock;
use super::object::{Kernel, Object, Shared};
use super::spin::{MESSAGES, try_for_a_while};
use super::waiter::{STARVES_AFTER, Waiter};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::clock;
use crate::word::channel::{Kind as RecordKind, Record, Written};
use crate::word::eventcount::EventCount;
use crate::word::permit::Process;
use crate::word::tallies::Role;
use crate::{Deadline, Error, Wait};

/// While it waits for a place, the first in the line looks for dead processes so often, in
/// nanoseconds.
const LOOKS_FOR_THE_DEAD: u64 = 500_000_000;

/// What a process has of a channel that counts.
#[derive(Debug)]
pub(super) struct Counting {
    claims: Lock,
    putters: Lock,
    /// The process that the following words are of: a forked child begins anew.
    process: AtomicU64,
    /// How many messages this process has put through this object and not sent.
    unsent: AtomicU64,
    /// Its node as a putter, plus 1; 0: none.
    putter: AtomicU64,
}

impl Counting {
    pub(super) fn of(object: &Object) -> Result<Self, Error> {
        let tag = Tag { kind: Kind::Mutex, robust: true, limit: 1 };
        let lock = |slot| {
            let object = object.part(slot).ok_or(Error::BadAddress("there is no such slot"));
            object.map(|object| Lock { object, tag })
        };
        let [process, unsent, putter] = [0, 0, 0].map(AtomicU64::new);
        Ok(Self { claims: lock(CLAIMS)?, putters: lock(PUTTERS)?, process, unsent, putter })
    }

    /// How many messages this process has put through this object and not sent.
    #[inline]
    fn unsent(&self, me: Process) -> u64 {
        if self.process.load(Ordering::Relaxed) == me.word() {
            self.unsent.load(Ordering::Relaxed)
        } else {
            0
        }
    }
}

/// The words of a channel's backlog.
#[derive(Clone, Copy)]
struct Backlog<'a>(&'a [AtomicU64]);

impl<'a> Backlog<'a> {
    fn word(self, number: usize) -> &'a AtomicU64 {
        &self.0[number]
    }

    fn get(self, number: usize) -> u64 {
        self.word(number).load(Ordering::SeqCst)
    }

    /// Under the lock of claims. To take away, add the negative number.
    fn add(self, number: usize, more: u64) {
        self.word(number).store(self.get(number).wrapping_add(more), Ordering::SeqCst);
    }

    /// Whether the first in the line has waited for too long. Then the next place is for it.
    fn is_starving(self) -> bool {
        self.get(STARVING) != 0 && rule("counting/the-starving-come-first")
    }

    fn freed(self) -> EventCount<'a> {
        EventCount(self.word(FREED))
    }
}

impl Channel {
    /// Makes one that counts its messages: at most `limit` are put and not taken, if there is a
    /// limit. `tasks`: it also counts those that were taken and are not done.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn new_counting(capacity: usize, limit: Option<u64>, tasks: bool) -> Result<Self, Error> {
        let mode = mode::COUNTS | if tasks { mode::TASKS } else { 0 };
        let backlog = |words: &[AtomicU64]| {
            words[LIMIT].store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        Self::make(capacity, mode, backlog)
    }

    fn backlog(&self) -> Backlog<'_> {
        Backlog(&self.object().words_after(BACKLOG * SLOT_WORDS)[(BACKLOG - 1) * SLOT_WORDS..])
    }

    /// Runs something under the lock of claims, when all counts are right.
    fn claims<T>(&self, counting: &Counting, run: impl FnOnce(Backlog<'_>) -> T) -> T {
        let acquired = counting.claims.acquire_until(Deadline::NEVER);
        self.claims_as(counting, acquired, run)
    }

    /// The same, unless another process has the lock: for callers that must not wait.
    fn try_claims<T>(&self, counting: &Counting, run: impl FnOnce(Backlog<'_>) -> T) -> Option<T> {
        let acquired = counting.claims.try_acquire();
        is_acquired(acquired).then(|| self.claims_as(counting, acquired, run))
    }

    fn claims_as<T>(
        &self,
        counting: &Counting,
        acquired: Wait,
        run: impl FnOnce(Backlog<'_>) -> T,
    ) -> T {
        let backlog = self.backlog();
        if matches!(acquired, Wait::OwnerDied(_)) && rule("counting/counts-are-made-right") {
            self.tallies().complete_sending(self.view().next_to_send());
            let unsent = self.tallies().all_unsent().wrapping_add(backlog.get(WITHOUT_NODE));
            backlog.word(UNSENT).store(unsent, Ordering::SeqCst);
        }
        let result = run(backlog);
        unlock(&counting.claims);
        result
    }

    // ---- Putting ----

    /// How many messages were put and not taken.
    #[must_use]
    pub fn put_and_not_taken(&self) -> u64 {
        let Some(counting) = self.counting() else { return self.count() as u64 };
        self.claims(counting, |backlog| self.used(backlog))
    }

    /// The same, without those that dead processes have put and not sent.
    #[must_use]
    pub fn put_by_the_living_and_not_taken(&self) -> u64 {
        let Some(counting) = self.counting() else { return self.count() as u64 };
        if self.backlog().get(UNSENT) > counting.unsent(self.object().me()) {
            self.free_places_of_the_dead(counting);
        }
        self.put_and_not_taken()
    }

    /// The same; `None` if this has to wait for another process or thread, or to find out whether
    /// others live.
    #[must_use]
    pub fn try_put_by_the_living_and_not_taken(&self) -> Option<u64> {
        let Some(counting) = self.counting() else { return Some(self.count() as u64) };
        if self.backlog().get(UNSENT) > counting.unsent(self.object().me()) {
            return None;
        }
        self.try_claims(counting, |backlog| self.used(backlog))
    }

    fn used(&self, backlog: Backlog<'_>) -> u64 {
        // The unsent ones first: one that is sent meanwhile is counted twice, and not overlooked.
        backlog.get(UNSENT).saturating_add(self.count() as u64)
    }

    fn is_full(&self, backlog: Backlog<'_>) -> bool {
        self.used(backlog) >= backlog.get(LIMIT)
    }

    /// Puts a message and sends it, if there is a place for it, no message of this process has to
    /// be sent before it, and it needs no waiting.
    ///
    /// # Errors
    /// As for [`try_send`](Self::try_send).
    #[inline]
    pub fn try_put(&self, message: &[&[u8]]) -> Result<Tried, Error> {
        let Some(counting) = self.counting() else { return self.try_send(message) };
        if counting.unsent(self.object().me()) > 0 {
            return Ok(Tried::NotNow);
        }
        let backlog = self.backlog();
        if backlog.get(LIMIT) == u64::MAX {
            return self.try_send(message);
        }
        if self.is_full(backlog) || backlog.is_starving() {
            return Ok(Tried::NotNow);
        }
        self.try_send_with(message, |written| {
            let commit = |backlog: Backlog<'_>| {
                if self.is_full(backlog) && rule("counting/no-more-than-the-limit") {
                    return Ok(Tried::NotNow);
                }
                self.commit(written).map(|()| Tried::Done)
            };
            self.try_claims(counting, commit).unwrap_or(Ok(Tried::NotNow))
        })
    }

    /// Begins to claim a place for a message, until a deadline. Whoever has one sends a message, or
    /// gives the place back.
    pub fn claiming(&self, deadline: Deadline) -> Claiming<'_> {
        let process = self.object().me();
        Claiming { channel: self, deadline, process, waiter: None, holds: false, began: 0 }
    }

    fn try_claim(&self, counting: &Counting) -> bool {
        let me = self.object().me();
        if !self.has_node(&counting.putter, me, Role::Putter) && self.tallies().is_full() {
            self.free_places_of_the_dead(counting);
        }
        self.claims(counting, |backlog| {
            if self.is_full(backlog) {
                return false;
            }
            self.begin_process(counting);
            match self.putter(counting) {
                Some(node) => self.tallies().put(node),
                None => backlog.add(WITHOUT_NODE, 1),
            }
            backlog.add(UNSENT, 1);
            counting.unsent.fetch_add(1, Ordering::Relaxed);
            true
        })
    }

    fn begin_process(&self, counting: &Counting) {
        let me = self.object().me();
        if counting.process.load(Ordering::Relaxed) != me.word() {
            counting.unsent.store(0, Ordering::Relaxed);
            counting.putter.store(0, Ordering::Relaxed);
            counting.process.store(me.word(), Ordering::Relaxed);
        }
    }

    /// This process's node as a putter.
    fn putter(&self, counting: &Counting) -> Option<usize> {
        let me = self.object().me();
        self.node_of(&counting.putter, me, Role::Putter)
    }

    /// A node of this process, whose number `known` remembers.
    pub(super) fn node_of(&self, known: &AtomicU64, me: Process, role: Role) -> Option<usize> {
        let node = self.known_node(known, me, role).or_else(|| self.tallies().enter(me, role))?;
        known.store(node as u64 + 1, Ordering::Relaxed);
        Some(node)
    }

    fn known_node(&self, known: &AtomicU64, me: Process, role: Role) -> Option<usize> {
        let node = usize::try_from(known.load(Ordering::Relaxed)).unwrap_or_default();
        node.checked_sub(1).filter(|&node| self.tallies().is_of(node, me, role))
    }

    fn has_node(&self, known: &AtomicU64, me: Process, role: Role) -> bool {
        self.known_node(known, me, role).is_some()
    }

    /// Sends a message for which the caller has a place, if no other one of this process has to be
    /// sent before it, and it needs no waiting.
    ///
    /// # Errors
    /// As for [`try_send`](Self::try_send).
    pub fn try_send_claimed(&self, message: &[&[u8]]) -> Result<Tried, Error> {
        let me = self.object().me();
        if self.counting().is_some_and(|counting| counting.unsent(me) > 1) {
            return Ok(Tried::NotNow);
        }
        self.try_send(message)
    }

    /// Gives back a place whose message is not sent. False if this process has none.
    pub fn give_back(&self) -> bool {
        let Some(counting) = self.counting_unsent() else { return false };
        self.claims(counting, |backlog| {
            match self.putter_with_messages(counting) {
                Some(node) => self.tallies().give_back(node),
                None => backlog.add(WITHOUT_NODE, u64::MAX),
            }
            backlog.add(UNSENT, u64::MAX);
            counting.unsent.fetch_sub(1, Ordering::Relaxed);
        });
        self.backlog().freed().wake_one(&Kernel, || false);
        true
    }

    fn putter_with_messages(&self, counting: &Counting) -> Option<usize> {
        self.putter(counting).filter(|&node| self.tallies().count(node) > 0)
    }

    /// Commits a record. If a message ends with it that this process has put, that is not unsent
    /// any more.
    #[inline]
    pub(super) fn commit_counted(&self, kind: RecordKind, written: Written) -> Result<(), Error> {
        match self.counting_unsent() {
            Some(counting) if kind.ends_a_message() => {
                self.claims(counting, |backlog| self.commit_put(counting, backlog, written))
            }
            _ => self.commit(written),
        }
    }

    /// The same for a whole message, unless that needs a wait.
    #[inline]
    pub(super) fn try_commit_counted(&self, written: Written) -> Result<Tried, Error> {
        let Some(counting) = self.counting_unsent() else {
            return self.commit(written).map(|()| Tried::Done);
        };
        let commit = |backlog: Backlog<'_>| {
            self.commit_put(counting, backlog, written).map(|()| Tried::Done)
        };
        self.try_claims(counting, commit).unwrap_or(Ok(Tried::NotNow))
    }

    /// If this process has put messages and not sent them.
    #[inline]
    fn counting_unsent(&self) -> Option<&Counting> {
        self.counting().filter(|counting| counting.unsent(self.object().me()) > 0)
    }

    fn commit_put(
        &self,
        counting: &Counting,
        backlog: Backlog<'_>,
        written: Written,
    ) -> Result<(), Error> {
        let tallies = self.tallies();
        let node = self.putter_with_messages(counting);
        if let Some(node) = node {
            tallies.begin_to_send(node, self.view().next_to_send());
        }
        if let Err(error) = self.commit(written) {
            if let Some(node) = node {
                tallies.give_up_sending(node);
            }
            return Err(error);
        }
        match node {
            Some(node) => tallies.end_to_send(node),
            None => backlog.add(WITHOUT_NODE, u64::MAX),
        }
        backlog.add(UNSENT, u64::MAX);
        counting.unsent.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Frees the places of processes that have died. Returns whether there were any.
    fn free_places_of_the_dead(&self, counting: &Counting) -> bool {
        // Without the lock: to ask for many processes can take long.
        let mut liveness = LivenessCache::new(self.object().me());
        let dead = self.tallies().dead(Role::Putter, liveness.each_once());
        if dead.is_empty() || !rule("counting/the-dead-keep-no-places") {
            return false;
        }
        self.claims(counting, |backlog| {
            for (node, process) in dead {
                // A process that is killed here leaves one counted twice, rather than none.
                let count = self.tallies().count_of(node, process);
                backlog.add(LOST, count);
                if let Some(tally) = self.tallies().free(node, process) {
                    backlog.add(UNSENT, tally.count.wrapping_neg());
                }
            }
        });
        self.backlog().freed().wake_one(&Kernel, || false);
        true
    }

    // ---- Receiving ----

    /// Under the receivers' lock, after a record was taken: a place may be free.
    #[inline]
    pub(super) fn wake_putter(&self, record: &Record) {
        if self.counting().is_some() && record.kind.ends_a_message() {
            self.backlog().freed().wake_one(&Kernel, || false);
        }
    }

    /// Under the receivers' lock, right before a process takes its first message: if all nodes are
    /// taken, frees those of the dead.
    pub(super) fn make_room_for_a_taker(&self, known: &AtomicU64) {
        let Some(counting) = self.counting() else { return };
        let me = self.object().me();
        if self.has_node(known, me, Role::Taker) || !self.tallies().is_full() {
            return;
        }
        self.free_places_of_the_dead(counting);
        let mut liveness = LivenessCache::new(me);
        let dead = self.tallies().dead(Role::Taker, liveness.each_once());
        self.claims(counting, |backlog| {
            for (node, process) in dead {
                self.lose_tasks(backlog, node, process);
            }
        });
    }

    /// Under the receivers' lock, right before a message is taken whose taker has no node.
    pub(super) fn take_without_node(&self) {
        if self.object().word(MODE).load(Ordering::Acquire) & mode::TASKS != 0 {
            // As if another process had to do it.
            self.backlog().word(DONE_BY_OTHERS).fetch_sub(1, Ordering::SeqCst);
        }
    }

    // ---- Tasks ----

    /// How many messages were put and are not done: not sent, not taken, or taken.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        let Some(counting) = self.counting() else { return 0 };
        self.claims(counting, |backlog| self.unfinished_in(backlog))
    }

    /// The same; `None` if another process or thread has the lock of claims at this moment.
    #[must_use]
    pub fn try_unfinished(&self) -> Option<u64> {
        let Some(counting) = self.counting() else { return Some(0) };
        self.try_claims(counting, |backlog| self.unfinished_in(backlog))
    }

    fn unfinished_in(&self, backlog: Backlog<'_>) -> u64 {
        // In the order that a message goes. So one that goes on meanwhile is not overlooked.
        let all = self.used(backlog).wrapping_add(self.tallies().all_taken());
        let left = all.wrapping_sub(backlog.get(DONE_BY_OTHERS));
        // What processes have taken that are counted twice for a moment, or written by others.
        if left > u64::MAX / 2 { 0 } else { left }
    }

    /// A message is done. False if none is unfinished.
    pub fn done(&self) -> bool {
        let Some(counting) = self.counting() else { return false };
        self.claims(counting, |backlog| self.done_in(backlog))
    }

    /// The same; `None` if another process or thread has the lock of claims at this moment.
    #[must_use]
    pub fn try_done(&self) -> Option<bool> {
        let Some(counting) = self.counting() else { return Some(false) };
        self.try_claims(counting, |backlog| self.done_in(backlog))
    }

    fn done_in(&self, backlog: Backlog<'_>) -> bool {
        if self.unfinished_in(backlog) == 0 {
            return false;
        }
        let me = self.object().me();
        let node = usize::try_from(self.taker_node()).unwrap_or_default().checked_sub(1);
        let is_mine = node.is_some_and(|node| {
            self.tallies().is_of(node, me, Role::Taker) && self.tallies().done(node)
        });
        if !is_mine {
            // Receivers without a node change it under another lock.
            backlog.word(DONE_BY_OTHERS).fetch_add(1, Ordering::SeqCst);
        }
        true
    }

    /// How many messages were lost so far, as far as [`find_lost`](Self::find_lost) has found them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.backlog().get(LOST)
    }

    /// Searches for processes that have died and had messages that they had put and not sent, or
    /// taken and not done. These are lost, and not unfinished any more. Returns how many were lost
    /// so far.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`].
    pub fn find_lost(&self) -> Result<u64, Error> {
        let Some(counting) = self.counting() else { return Ok(0) };
        self.free_places_of_the_dead(counting);
        let mut liveness = LivenessCache::new(self.object().me());
        let dead = self.tallies().dead(Role::Taker, liveness.each_once());
        if !dead.is_empty() {
            // Under that lock it is known which messages they have taken.
            self.with_receivers_lock(|| {
                self.claims(counting, |backlog| {
                    for &(node, process) in &dead {
                        self.lose_tasks(backlog, node, process);
                    }
                });
            })?;
        }
        Ok(self.lost())
    }

    fn lose_tasks(&self, backlog: Backlog<'_>, node: usize, process: Process) {
        let count = self.tallies().count_of(node, process);
        let by_others = backlog.get(DONE_BY_OTHERS).cast_signed().max(0).cast_unsigned();
        let by_others = count.min(by_others);
        backlog.add(LOST, count - by_others);
        if self.tallies().free(node, process).is_some() {
            backlog.word(DONE_BY_OTHERS).fetch_sub(by_others, Ordering::SeqCst);
        }
    }
}

/// A claim of a place for one message. To drop it ends the wait.
#[derive(Debug)]
#[must_use = "it waits only as long as it is there"]
pub struct Claiming<'a> {
    channel: &'a Channel,
    deadline: Deadline,
    /// The process that claims. A child that a signal's handler forks meanwhile begins anew.
    process: Process,
    waiter: Option<Waiter<'a>>,
    /// Whether it is the first in the line: it holds the putters' lock.
    holds: bool,
    /// When it began to wait, in nanoseconds of the clock; 0: not yet.
    began: u64,
}

impl Claiming<'_> {
    /// Waits for a place until the deadline or a signal. [`Wait::Acquired`]: the caller has one.
    /// After [`Wait::Interrupted`], the caller does what it has to do when a signal arrives, and
    /// calls again.
    ///
    /// # Errors
    /// As for the lock of its channel.
    pub fn wait(&mut self) -> Result<Wait, Error> {
        let channel = self.channel;
        let Some(counting) = channel.counting() else { return Ok(Wait::Acquired) };
        let me = channel.object().me();
        if self.process != me {
            (self.process, self.waiter, self.holds, self.began) = (me, None, false, 0);
        }
        let backlog = channel.backlog();
        if self.began == 0 {
            let tries_only = self.deadline.remaining() == Some(Duration::ZERO);
            let mut barge = || {
                let may = (tries_only || !backlog.is_starving()) && !channel.is_full(backlog);
                (may && channel.try_claim(counting)).then_some(())
            };
            let spins = !tries_only && !backlog.is_starving();
            let last_cpu = Some(channel.takers_cpu());
            if barge().is_some()
                || spins && try_for_a_while(&MESSAGES, last_cpu, &mut barge).is_some()
                || tries_only
                    && channel.free_places_of_the_dead(counting)
                    && channel.try_claim(counting)
            {
                return Ok(Wait::Acquired);
            }
            if tries_only {
                return Ok(Wait::TimedOut);
            }
            self.began = clock::now();
        }
        // A signal's handler that interrupts the first in the line waits beside it.
        if !self.holds && !counting.putters.is_mine() {
            let end = acquire(channel, &counting.putters, &mut self.waiter, self.deadline)?;
            if !is_acquired(end) {
                return Ok(end);
            }
            self.holds = true;
        }
        let (mut has_place, mut looked) = (false, self.began);
        let end = channel.sleep(backlog.freed(), self.deadline, || {
            has_place = has_place || channel.try_claim(counting);
            if !has_place {
                let now = clock::now();
                if now.saturating_sub(looked) >= LOOKS_FOR_THE_DEAD {
                    looked = now;
                    let freed = channel.free_places_of_the_dead(counting);
                    has_place = freed && channel.try_claim(counting);
                }
                let waited = u128::from(now.saturating_sub(self.began));
                if waited >= STARVES_AFTER.as_nanos() {
                    backlog.word(STARVING).store(1, Ordering::SeqCst);
                }
            }
            Ok(has_place)
        })?;
        let end = if has_place { Wait::Acquired } else { end };
        if end == Wait::Acquired {
            self.end();
        }
        Ok(end)
    }

    fn end(&mut self) {
        self.waiter = None;
        if std::mem::take(&mut self.holds) {
            let backlog = self.channel.backlog();
            backlog.word(STARVING).store(0, Ordering::SeqCst);
            if let Some(counting) = self.channel.counting() {
                unlock(&counting.putters);
            }
            // It may have been woken for a place that it has not claimed.
            backlog.freed().wake_one(&Kernel, || false);
        }
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        if self.process == self.channel.object().me() {
            self.end();
        }
    }
}

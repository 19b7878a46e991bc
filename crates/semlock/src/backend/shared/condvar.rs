//! Conditions.
//!
//! A condition has no lock of its own. Where a method says "with the lock held", its caller holds
//! one: the lock of a `multiprocessing.Condition`, or the mutex whose guard is passed to
//! `Condvar::wait`.

use std::os::fd::BorrowedFd;

use super::barrier::reclaim_nodes;
use super::layout::condvar::{EMPTY_AT, LAST_CHECK, LAST_CPU, NOTIFIED_AT, TICKETS, WATCH};
use super::layout::{Kind, Tag};
use super::liveness::{LivenessCache, is_due_between_signals};
use super::object::{Kernel, Object, Shared};
use super::spin::{CONDITIONS, LastCpu, try_before_a_sleep};
use super::wait_schedule::{Duty, WaitSchedule};
use crate::atomic::Ordering;
use crate::mutation::rule;
use crate::word::Slept;
use crate::word::permit::Process;
use crate::word::waiters::{Node, Progress, Queue, Waits};
use crate::{Address, Deadline, Error, Wait};

/// In nanoseconds. A check takes several microseconds. So a waiter that was seen alive so long ago
/// is notified without one.
const SEEN: u64 = 1_000_000;

/// Waiters sleep on it until they are notified, the oldest first.
#[derive(Debug)]
pub struct Condvar {
    object: Object,
}

/// One wait, from before the lock is released until after it is acquired again.
///
/// The caller has to pass it to [`leave`](Condvar::leave) or [`abandon`](Condvar::abandon).
#[derive(Debug)]
#[must_use]
pub struct Waiting {
    node: Node,
    /// The process that waits. A child that it forks during the wait does not wait.
    process: Process,
}

impl Shared for Condvar {
    fn object(&self) -> &Object {
        &self.object
    }
}

impl Condvar {
    /// Makes a condition.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        let tag = Tag { kind: Kind::Condvar, robust: false, limit: 0 };
        Ok(Self { object: Object::new(tag)? })
    }

    /// Opens a condition that this process or another one has: see
    /// [`Lock::open`](super::lock::Lock::open).
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for a descriptor or an address that is not semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let (object, _) = Object::open(&address, descriptor, &[Kind::Condvar])?;
        Ok(Self { object })
    }

    fn queue(&self) -> Queue<'_> {
        self.object.queue(TICKETS, Waits::ForNotify)
    }

    fn last_cpu(&self) -> LastCpu<'_> {
        LastCpu(self.object.word(LAST_CPU))
    }

    /// Begins a wait. Call it with the lock held, and release the lock after it.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`]. Nothing has changed then, and the caller still holds the lock.
    pub fn enter(&self) -> Result<Waiting, Error> {
        let me = self.object.me();
        if let Some(node) = self.queue().enter(me) {
            return Ok(Waiting { node, process: me });
        }
        let mut liveness = LivenessCache::new(me);
        let is_dead = &mut |process| liveness.is_dead(process);
        if rule("condition/reclaims-nodes-of-the-dead") {
            reclaim_nodes(&self.object, &self.queue(), me, is_dead);
        }
        let node = self.queue().enter(me).ok_or(Error::TooManyWaiters)?;
        Ok(Waiting { node, process: me })
    }

    /// Spins before the first [`sleep`](Self::sleep) of a wait, if that may pay. Call it without
    /// the lock. [`Wait::Acquired`]: it was notified. [`Wait::Interrupted`]: a signal may have
    /// arrived. `None`: go on with `sleep`.
    pub fn spin(&self, waiting: &Waiting, deadline: Deadline) -> Option<Wait> {
        if !self.is_mine(waiting) {
            return None;
        }
        let is_over = || self.queue().progress(&waiting.node) != Progress::Waiting;
        try_before_a_sleep(
            &CONDITIONS,
            self.last_cpu().of_another(waiting.process),
            deadline,
            is_over,
        )
    }

    /// Sleeps until it is notified ([`Wait::Acquired`]), until a deadline, or until a signal. Call
    /// it without the lock.
    ///
    /// A child that a signal's handler forks during the wait gets [`Wait::TimedOut`] at once: the
    /// wait is its parent's.
    pub fn sleep(&self, waiting: &Waiting, deadline: Deadline) -> Wait {
        if !self.is_mine(waiting) {
            return Wait::TimedOut;
        }
        let queue = self.queue();
        let me = self.object.me();
        let mut schedule = WaitSchedule::new(Some(self.object.word(WATCH)), deadline, me);
        let result = loop {
            if queue.progress(&waiting.node) != Progress::Waiting {
                break Wait::Acquired;
            }
            let Some(time) = schedule.sleep_for() else { break Wait::TimedOut };
            if queue.sleep(&Kernel, &waiting.node, Some(time)) == Slept::Interrupted {
                if is_due_between_signals(self.object.word(LAST_CHECK), me) {
                    self.pass_on(schedule.liveness());
                }
                break Wait::Interrupted;
            }
            if schedule.duty() == Duty::Check && rule("condition/the-watcher-passes-on") {
                self.pass_on(schedule.liveness());
                if schedule.rests() {
                    queue.wake_another(&Kernel, &waiting.node);
                }
            }
            if schedule.gives_a_turn() {
                break Wait::Interrupted;
            }
        };
        if schedule.end() {
            // Another waiter has to watch from now on.
            queue.wake_another(&Kernel, &waiting.node);
        }
        result
    }

    /// Passes the notifications of dead waiters on to living ones.
    fn pass_on(&self, liveness: &mut LivenessCache) {
        let is_dead = &mut |process| liveness.is_dead(process);
        let notified_at = self.object.segment().notified_at();
        self.queue().pass_on(&Kernel, &notified_at, self.object.me(), is_dead);
    }

    /// Ends a wait, with the lock held again. Returns whether the waiter was notified, even if that
    /// came as the deadline passed.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // it ends here
    pub fn leave(&self, waiting: Waiting) -> bool {
        self.is_mine(&waiting) && self.queue().leave(&waiting.node) == Progress::Passed
    }

    /// Ends a wait whose caller gives up, with the lock held again. If it was notified, the
    /// notification goes to another waiter.
    #[allow(clippy::needless_pass_by_value)] // it ends here
    pub fn abandon(&self, waiting: Waiting) {
        if !self.is_mine(&waiting) {
            return;
        }
        let me = self.object.me();
        let mut liveness = LivenessCache::new(me);
        let is_dead = &mut |process| liveness.is_dead(process);
        let notified_at = self.object.segment().notified_at();
        self.queue().abandon(&Kernel, &waiting.node, &notified_at, me, is_dead);
    }

    /// Notifies `most` waiters at most, the oldest first, and returns how many. Call it with the
    /// lock held.
    #[inline]
    pub fn notify(&self, most: u32) -> u32 {
        let tickets = self.tickets();
        if tickets == self.object.word(EMPTY_AT).load(Ordering::Acquire) {
            return 0;
        }
        self.notify_before(tickets, most)
    }

    #[cold]
    fn notify_before(&self, tickets: u64, most: u32) -> u32 {
        let queue = self.queue();
        if rule("condition/later-waiters-get-nothing") {
            self.object.word(NOTIFIED_AT).store(tickets, Ordering::Release);
        }
        let me = self.object.me();
        self.last_cpu().take_as(me);
        let mut liveness = LivenessCache::new(me);
        // If it died since it was seen alive, a watcher passes its notification on.
        let is_dead = &mut |process| liveness.is_dead_or_not_seen(process, SEEN);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let notified = queue.notify(&Kernel, most, tickets, me, is_dead);
        if queue.waiting() == 0 || !rule("condition/empty-only-without-waiters") {
            self.object.word(EMPTY_AT).store(tickets, Ordering::Release);
        }
        u32::try_from(notified).unwrap_or(u32::MAX)
    }

    fn is_mine(&self, waiting: &Waiting) -> bool {
        waiting.process == self.object.me() || !rule("fork/a-child-does-not-wait-for-its-parent")
    }

    fn tickets(&self) -> u64 {
        self.object.word(TICKETS).load(Ordering::Acquire)
    }

    /// How many waiters are not notified yet.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.queue().waiting()).unwrap_or(u32::MAX)
    }
}

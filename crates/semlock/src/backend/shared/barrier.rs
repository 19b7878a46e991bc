//! Barriers.

use std::os::fd::BorrowedFd;

use super::layout::barrier::{LAST_CHECK, PHASE, TICKETS, WATCH};
use super::layout::{Kind, Tag};
use super::liveness::{LivenessCache, is_due_between_signals};
use super::lock::Lock;
use super::object::{Kernel, Object, Shared};
use super::spin::{BARRIERS, try_before_a_sleep};
use super::wait_schedule::{Duty, WaitSchedule};
use crate::mutation::rule;
use crate::os::cpu;
use crate::word::barrier::{Phase, Phases};
use crate::word::permit::Process;
use crate::word::waiters::{Node, Progress, Queue, Waits};
use crate::word::{Futex, Slept};
use crate::{Address, Deadline, Error, Wait};

/// In nanoseconds. A check takes several microseconds. So the last member does not check one that
/// it saw alive so long ago. It takes longer than that until anybody can know that a process has
/// ended.
const SEEN: u64 = 20_000;

/// Processes wait at it until all of them have come.
///
/// A member that dies inside breaks it for the others. So does a member that gives up.
#[derive(Debug)]
pub struct Barrier {
    /// Its own lock. A phase changes only under this lock, which is never held for long.
    lock: Lock,
}

/// A thread that has come to the barrier. If it is dropped before it got through, it leaves again.
/// If the last member does that, the barrier is broken.
#[derive(Debug)]
#[must_use]
pub struct Member<'a> {
    barrier: &'a Barrier,
    node: Node,
    /// The process that has come. A child that it forks meanwhile has not come.
    process: Process,
    index: u32,
    runs_action: bool,
}

impl Member<'_> {
    /// How many members had come before it.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.barrier.leave(self);
    }
}

/// How an attempt to enter a barrier ended.
#[derive(Debug)]
#[must_use]
pub enum Entered<'a> {
    /// All have come. This member runs the action, and then calls [`Barrier::finish`].
    Last(Member<'a>),
    /// Others have still to come. This member calls [`Barrier::sleep`].
    Waits(Member<'a>),
    /// The barrier is broken.
    Broken,
    /// The action of the previous round was still running at the deadline.
    TimedOut,
    /// A signal arrived, or may have arrived, while that action ran: enter again.
    Interrupted,
}

/// How a wait at a barrier ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Passed {
    /// All have come.
    Through,
    /// The barrier was broken or reset, or a member has died.
    Broken,
    /// Not all came before the deadline. That has broken the barrier.
    TimedOut,
    /// A signal arrived, or may have arrived: sleep again.
    Interrupted,
}

impl Shared for Barrier {
    fn object(&self) -> &Object {
        &self.lock.object
    }
}

impl Barrier {
    /// Makes a barrier for so many parties.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new(parties: u32) -> Result<Self, Error> {
        if parties == 0 {
            return Err(Error::OutOfRange("parties must be > 0"));
        }
        let tag = Tag { kind: Kind::Barrier, robust: true, limit: parties };
        Ok(Self { lock: Lock { object: Object::new(tag)?, tag } })
    }

    /// Opens a barrier that this process or another one has: see [`Lock::open`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for a descriptor or an address that is not semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let (object, tag) = Object::open(&address, descriptor, &[Kind::Barrier])?;
        Ok(Self { lock: Lock { object, tag } })
    }

    /// The barrier in a slot; `None` if another object is there.
    fn over(object: Object) -> Option<Self> {
        let tag = object.tag().filter(|tag| tag.kind == Kind::Barrier)?;
        Some(Self { lock: Lock { object, tag } })
    }

    /// How many members have to come.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.lock.tag.limit
    }

    /// How many members have come and wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.queue().waiting()).unwrap_or(u32::MAX)
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.phases().see().phase == Phase::Broken
    }

    /// Makes it usable again. Members that wait get [`Passed::Broken`].
    pub fn reset(&self) {
        self.locked(|| {
            self.queue().end_all(false);
            self.phases().change(&Kernel, Phase::Filling);
        });
    }

    /// Breaks it. Members that wait get [`Passed::Broken`], and a process that comes before the
    /// next reset gets [`Entered::Broken`].
    pub fn abort(&self) {
        self.locked(|| self.break_it());
    }

    /// Comes to the barrier.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`].
    pub fn enter(&self, deadline: Deadline) -> Result<Entered<'_>, Error> {
        let mut schedule = self.schedule(deadline);
        let result = loop {
            let seen = self.phases().see();
            if let Some(entered) = self.locked(|| self.enter_locked(schedule.liveness())) {
                break entered;
            }
            // The action of the previous round still runs.
            let Some(time) = schedule.sleep_for() else { break Ok(Entered::TimedOut) };
            if self.phases().sleep(&Kernel, seen, Some(time)) == Slept::Interrupted {
                self.check_members_between_signals(&mut schedule);
                break Ok(Entered::Interrupted);
            }
            self.check_members(&mut schedule);
            if schedule.gives_a_turn() {
                break Ok(Entered::Interrupted);
            }
        };
        self.end(&mut schedule);
        result
    }

    fn enter_locked(&self, liveness: &mut LivenessCache) -> Option<Result<Entered<'_>, Error>> {
        match self.phases().see().phase {
            Phase::Broken => return Some(Ok(Entered::Broken)),
            Phase::Action => return None,
            Phase::Filling => {}
        }
        let (queue, me) = (self.queue(), self.lock.object.me());
        let is_dead = &mut |process| liveness.is_dead(process);
        let mut node = queue.enter(me);
        if node.is_none() {
            // The nodes of dead members are not reclaimed here: dead members break the barrier.
            if queue.has_dead_waiter(is_dead) {
                self.break_it();
                return Some(Ok(Entered::Broken));
            }
            reclaim_nodes(&self.lock.object, &queue, me, is_dead);
            node = queue.enter(me);
        }
        let Some(node) = node else { return Some(Err(Error::TooManyWaiters)) };
        let come = self.waiting();
        let is_last = come >= self.parties();
        // All have come, but not all of them live.
        if is_last
            && rule("barrier/the-last-checks-the-others")
            && queue.has_dead_waiter(&mut |process| liveness.is_dead_or_not_seen(process, SEEN))
        {
            self.break_it();
            queue.leave(&node);
            return Some(Ok(Entered::Broken));
        }
        let index = come.saturating_sub(1);
        let member = Member { barrier: self, node, process: me, index, runs_action: is_last };
        if !is_last {
            return Some(Ok(Entered::Waits(member)));
        }
        self.phases().begin_action();
        Some(Ok(Entered::Last(member)))
    }

    /// Spins before the first [`sleep`](Self::sleep) of a wait, if that may pay. True: a signal may
    /// have arrived.
    pub fn spin(&self, member: &Member<'_>, deadline: Deadline) -> bool {
        // Those that have still to come need processors to run on.
        let missing = self.parties().saturating_sub(member.index + 1) as usize;
        if !self.is_mine(member) || missing >= cpu::count() {
            return false;
        }
        let is_over = || self.queue().progress(&member.node) != Progress::Waiting;
        try_before_a_sleep(&BARRIERS, None, deadline, is_over) == Some(Wait::Interrupted)
    }

    /// Waits until all have come, until a deadline, or until a signal.
    ///
    /// A child that a signal's handler forks meanwhile gets [`Passed::Broken`] at once: its parent
    /// is the member.
    pub fn sleep(&self, member: &Member<'_>, deadline: Deadline) -> Passed {
        if !self.is_mine(member) {
            return Passed::Broken;
        }
        let mut schedule = self.schedule(deadline);
        let result = loop {
            let seen = self.phases().see();
            match self.queue().progress(&member.node) {
                Progress::Passed => break Passed::Through,
                Progress::Broken => break Passed::Broken,
                Progress::Waiting => {}
            }
            let Some(time) = schedule.sleep_for() else {
                if let Some(passed) = self.locked(|| self.time_out(member)) {
                    break passed;
                }
                // All have come. Only the action has still to end.
                self.end(&mut schedule);
                schedule = self.schedule(Deadline::NEVER);
                continue;
            };
            if self.phases().sleep(&Kernel, seen, Some(time)) == Slept::Interrupted {
                self.check_members_between_signals(&mut schedule);
                break Passed::Interrupted;
            }
            self.check_members(&mut schedule);
            if schedule.gives_a_turn() {
                break Passed::Interrupted;
            }
        };
        self.end(&mut schedule);
        result
    }

    fn time_out(&self, member: &Member<'_>) -> Option<Passed> {
        match self.queue().progress(&member.node) {
            Progress::Passed => Some(Passed::Through),
            Progress::Broken => Some(Passed::Broken),
            Progress::Waiting if self.phases().see().phase == Phase::Action => None,
            Progress::Waiting => {
                self.break_it();
                Some(Passed::TimedOut)
            }
        }
    }

    /// Ends the action: lets all members through, or breaks the barrier if the action failed. In a
    /// child that was forked in the action this does nothing: its parent does it.
    pub fn finish(&self, mut member: Member<'_>, succeeded: bool) -> Passed {
        if !self.is_mine(&member) {
            return Passed::Broken;
        }
        let passed = self.locked(|| {
            // The barrier may have been broken or reset meanwhile.
            let is_on = self.queue().progress(&member.node) == Progress::Waiting;
            match (is_on, succeeded) {
                (true, true) => {
                    self.queue().end_all(true);
                    self.phases().change(&Kernel, Phase::Filling);
                    Passed::Through
                }
                (true, false) => {
                    self.break_it();
                    Passed::Broken
                }
                (false, _) => Passed::Broken,
            }
        });
        member.runs_action = false;
        passed
    }

    fn leave(&self, member: &Member<'_>) {
        if !self.is_mine(member) {
            return;
        }
        let leave = || {
            // Not if the barrier has been broken or reset meanwhile.
            if member.runs_action
                && rule("barrier/leaving-the-action-breaks-it")
                && self.queue().progress(&member.node) == Progress::Waiting
            {
                self.break_it();
            }
            self.queue().leave(&member.node);
        };
        // Once its wait is over, no other process needs its node: no lock is needed.
        if self.queue().progress(&member.node) == Progress::Waiting {
            self.locked(leave);
        } else {
            self.queue().leave(&member.node);
        }
    }

    fn is_mine(&self, member: &Member<'_>) -> bool {
        member.process == self.lock.object.me() || !rule("fork/a-child-is-no-member-for-its-parent")
    }

    fn break_it(&self) {
        self.queue().end_all(false);
        self.phases().change(&Kernel, Phase::Broken);
    }

    /// Runs `act` under the barrier's own lock. If the previous holder died, its work is half done.
    fn locked<T>(&self, act: impl FnOnce() -> T) -> T {
        let acquired = self.lock.acquire_until(Deadline::NEVER);
        if matches!(acquired, Wait::OwnerDied(_)) && rule("barrier/what-is-half-done-breaks-it") {
            self.break_it();
        }
        let result = act();
        // This cannot fail: the lock is held. And an error would concern no caller.
        let _ = self.lock.release();
        result
    }

    /// Checks the members, if this member is the watcher and its check is due.
    fn check_members(&self, schedule: &mut WaitSchedule<'_>) {
        if schedule.duty() == Duty::Check {
            self.check_now(schedule.liveness());
            if schedule.rests() {
                self.wake_another();
            }
        }
    }

    fn check_members_between_signals(&self, schedule: &mut WaitSchedule<'_>) {
        let object = &self.lock.object;
        if is_due_between_signals(object.word(LAST_CHECK), object.me()) {
            self.check_now(schedule.liveness());
        }
    }

    /// Breaks the barrier if a member has died, or if the holder of the barrier's lock has died in
    /// the middle of a change. That holder may have changed its own node already.
    fn check_now(&self, liveness: &mut LivenessCache) {
        let is_dead = &mut |process| liveness.is_dead(process);
        let half_done =
            rule("barrier/its-own-lock-is-watched") && self.lock.is_held_by_dead(is_dead);
        let member_died =
            rule("barrier/members-are-watched") && self.queue().has_dead_waiter(is_dead);
        if half_done || member_died {
            self.locked(|| {
                // The barrier may have been broken and reset meanwhile.
                if self.queue().has_dead_waiter(is_dead) {
                    self.break_it();
                }
            });
        }
    }

    fn end(&self, schedule: &mut WaitSchedule<'_>) {
        if schedule.end() {
            self.wake_another();
        }
    }

    /// Another member has to watch from now on.
    fn wake_another(&self) {
        Kernel.wake_one(self.lock.object.word(PHASE));
    }

    fn schedule(&self, deadline: Deadline) -> WaitSchedule<'_> {
        WaitSchedule::new(Some(self.lock.object.word(WATCH)), deadline, self.lock.object.me())
    }

    fn queue(&self) -> Queue<'_> {
        self.lock.object.queue(TICKETS, Waits::ForMembers)
    }

    fn phases(&self) -> Phases<'_> {
        Phases(self.lock.object.word(PHASE))
    }
}

/// Frees the nodes of dead processes in the segment of an object, for a waiter that finds no free
/// node.
pub(super) fn reclaim_nodes(
    object: &Object,
    queue: &Queue<'_>,
    me: Process,
    is_dead: &mut impl FnMut(Process) -> bool,
) {
    break_barriers_of_the_dead(object, is_dead);
    queue.reclaim(&Kernel, &object.segment().notified_at(), me, is_dead);
}

/// Breaks the barriers of a segment that have a dead member: such a barrier may have no living
/// member left that does this. The nodes of its members can be reclaimed only after that. A barrier
/// whose lock is held stays as it is. To wait for that lock could deadlock, because its holder may
/// search for nodes too, and want the lock of our barrier.
fn break_barriers_of_the_dead(object: &Object, is_dead: &mut impl FnMut(Process) -> bool) {
    for slot in object.segment().waiters().barriers() {
        let Some(barrier) = object.neighbour(slot).and_then(Barrier::over) else { continue };
        if !rule("barrier/the-dead-are-no-members-for-ever")
            || !barrier.queue().has_dead_waiter(is_dead)
        {
            continue;
        }
        let acquired = barrier.lock.try_acquire();
        if acquired == Wait::TimedOut {
            continue;
        }
        // The barrier may have been broken and reset meanwhile.
        if matches!(acquired, Wait::OwnerDied(_)) || barrier.queue().has_dead_waiter(is_dead) {
            barrier.break_it();
        }
        let _ = barrier.lock.release();
    }
}

//! One wait of one thread for a lock.
//!
//! The waiter keeps its place (see `places`) from its first sleep to the end of the wait. It keeps
//! it also while it checks whether the holder has died, and while its caller handles signals
//! between two calls of [`Waiter::wait`].

use std::time::Duration;

use super::layout::Kind;
use super::layout::lock::{LAST_CHECK, WATCH};
use super::liveness::{LivenessCache, PAUSE, is_due, is_due_between_signals};
use super::lock::Lock;
use super::object::Kernel;
use super::spin::{BARRIER_LOCKS, LOCKS, try_for_a_while};
use super::wait_schedule::{Duty, WaitSchedule};
use crate::mutation::rule;
use crate::os::clock;
use crate::word::Slept;
use crate::word::eventcount::{WaitKey, WaiterFlags};
use crate::word::permit::Process;
use crate::word::places::Place;
use crate::{Deadline, Wait};

/// A waiter that has waited for so long is served in turn; until then, other acquirers may pass it.
/// A permit that is reserved for a sleeper is idle for some ten microseconds until the sleeper
/// wakes. Other acquirers could have had it a hundred times in that time. This time is a thousand
/// times longer, so service in turn costs little even where all wait for too long.
pub(super) const STARVES_AFTER: Duration = Duration::from_millis(50);

/// A wait for a [`Lock`]. Dropping it ends the wait: if the waiter was woken for a permit, the next
/// waiter gets that permit.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct Waiter<'a> {
    lock: &'a Lock,
    deadline: Deadline,
    /// The process that waits. A child that a signal's handler forks during the wait begins a new
    /// wait.
    process: Process,
    place: Option<Place>,
    /// When the wait began, in nanoseconds of the clock; 0 if it has not begun.
    began: u64,
}

impl Lock {
    /// Acquires a permit; [`Wait::TimedOut`] if there was none before the deadline. Signals do not
    /// end the wait.
    pub fn acquire_until(&self, deadline: Deadline) -> Wait {
        let tried = self.try_acquire();
        if tried != Wait::TimedOut {
            return tried;
        }
        let mut waiter = self.waiter(deadline);
        loop {
            match waiter.wait() {
                Wait::Interrupted => {}
                end => return end,
            }
        }
    }

    /// Begins to wait for a permit, until a deadline.
    pub fn waiter(&self, deadline: Deadline) -> Waiter<'_> {
        Waiter::new(self, deadline)
    }
}

impl<'a> Waiter<'a> {
    fn new(lock: &'a Lock, deadline: Deadline) -> Self {
        Self { lock, deadline, process: lock.object.me(), place: None, began: 0 }
    }

    /// Acquires a permit; waits for it until the deadline or a signal.
    ///
    /// After [`Wait::Interrupted`], the caller does what it has to do when a signal arrives, and
    /// calls again. In the process's first thread this returns [`Wait::Interrupted`] about once a
    /// second even without a signal, because a signal that arrives just before the sleep does not
    /// interrupt it.
    pub fn wait(&mut self) -> Wait {
        let lock = self.lock;
        if lock.again_if_mine() {
            return Wait::Acquired;
        }
        let me = lock.object.me();
        if self.process != me {
            // This is a forked child: the place is the parent's.
            (self.process, self.place, self.began) = (me, None, 0);
        }
        if self.began == 0 {
            if let Some(taken) = self.spin() {
                return taken;
            }
            self.began = clock::now().max(1);
        }
        let watch = lock.tag.robust.then(|| lock.object.word(WATCH));
        let mut schedule = WaitSchedule::new(watch, self.deadline, me);
        let mut key = None;
        let end = self.sleep(&mut schedule, &mut key);
        let others = key.is_some_and(|key| lock.eventcount().cancel_wait(key));
        if end != Wait::Interrupted {
            self.leave(end != Wait::TimedOut);
        }
        if schedule.end() && others {
            // Another waiter has to watch from now on: the one that this wakes finds that there is
            // no watcher.
            lock.wake_one(self.place.as_ref());
        }
        end
    }

    fn spin(&self) -> Option<Wait> {
        let lock = self.lock;
        if lock.tag.kind == Kind::Barrier {
            return try_for_a_while(&BARRIER_LOCKS, None, || lock.attempt(None));
        }
        // A thread that holds a mutex and acquires it again uses it as a token: it waits for
        // another thread to release it.
        let is_token = lock.tag.kind == Kind::Mutex && lock.is_my_threads();
        let last_cpu = if is_token { None } else { Some(lock.last_cpu()) };
        try_for_a_while(&LOCKS, last_cpu, || lock.attempt(None))
    }

    fn sleep(&mut self, schedule: &mut WaitSchedule<'_>, key: &mut Option<WaitKey>) -> Wait {
        let lock = self.lock;
        loop {
            self.wait_in_place();
            let has_place = self.place.is_some();
            let flags = WaiterFlags { has_place, is_starving: has_place && self.is_starving() };
            let prepared = lock.eventcount().prepare_wait(flags, *key);
            *key = Some(prepared);
            if let Some(taken) = lock.attempt(self.place.as_ref()) {
                return taken;
            }
            let Some(time) = schedule.sleep_for() else {
                // Check once more, because the holder may have died since the watcher checked.
                let checks = lock.tag.robust && rule("check/once-more-at-the-deadline");
                let found = if checks { self.check_holder_at_the_end(schedule) } else { None };
                return found.unwrap_or(Wait::TimedOut);
            };
            let lacks_place = !has_place && lock.places().is_some();
            let time = if lacks_place { schedule.sleep_without_place(time) } else { time };
            let slept = match self.place.as_ref().zip(lock.places()) {
                Some((place, places)) => places.sleep(&Kernel, place, Some(time)),
                None => lock.eventcount().sleep(&Kernel, prepared, Some(time)),
            };
            if slept == Slept::Interrupted {
                let is_due = lock.tag.robust
                    && is_due_between_signals(lock.object.word(LAST_CHECK), self.process);
                let found = if is_due { lock.check_holder(schedule.liveness()) } else { None };
                return found.unwrap_or(Wait::Interrupted);
            }
            if let Some(taken) = lock.attempt(self.place.as_ref()) {
                return taken;
            }
            if schedule.duty() == Duty::Check {
                if let Some(taken) = lock.check_holder(schedule.liveness()) {
                    return taken;
                }
                self.reclaim_places(schedule);
                if schedule.rests() {
                    lock.wake_one(self.place.as_ref());
                }
            }
            if schedule.gives_a_turn() {
                return Wait::Interrupted;
            }
        }
    }

    /// Takes a place, or waits on in the one that it has.
    fn wait_in_place(&mut self) {
        let Some(places) = self.lock.places() else { return };
        match &self.place {
            Some(place) if rule("places/a-waiter-keeps-its-place") => places.wait_again(place),
            Some(place) => {
                places.leave(place);
                self.place = places.enter(self.process);
            }
            None => {
                self.place = places.enter(self.process);
                let last_check = self.lock.object.word(LAST_CHECK);
                if self.place.is_none()
                    && rule("places/a-full-table-reclaims-dead-places")
                    && is_due(last_check, self.process)
                {
                    let mut liveness = LivenessCache::new(self.process);
                    places.reclaim(self.process, &mut liveness.each_once());
                    self.place = places.enter(self.process);
                }
            }
        }
    }

    /// Frees the places of waiters that died after they were woken, and wakes the next waiter
    /// instead of them.
    fn reclaim_places(&self, schedule: &mut WaitSchedule<'_>) {
        let Some(places) = self.lock.places() else { return };
        if places.reclaim_woken(self.process, &mut schedule.liveness().each_once()) {
            self.lock.wake_one(self.place.as_ref());
        }
    }

    /// Waiters whose waits are short share the 50 ms interval of checks with acquirers that only
    /// try.
    fn check_holder_at_the_end(&self, schedule: &mut WaitSchedule<'_>) -> Option<Wait> {
        let lock = self.lock;
        if schedule.has_lasted(PAUSE) || is_due(lock.object.word(LAST_CHECK), self.process) {
            lock.check_holder(schedule.liveness())
        } else {
            None
        }
    }

    fn is_starving(&self) -> bool {
        u128::from(clock::now().saturating_sub(self.began)) >= STARVES_AFTER.as_nanos()
    }

    fn leave(&mut self, acquired: bool) {
        let lock = self.lock;
        let Some(place) = self.place.take() else { return };
        if self.process != lock.object.me() {
            return;
        }
        lock.turns().leave(&Kernel, lock, &place, acquired, self.is_starving());
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.leave(false);
    }
}

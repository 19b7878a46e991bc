//! What the threads of a process do until it is killed.
//!
//! Each process has three: one that never waits for anybody's good will, and makes the tokens and
//! sets the event that others wait for; one that also consumes tokens; one that also waits for the
//! event and at the barrier.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use semlock::{Acquired, Deadline, Error, MutexGuard, Wait};

use crate::arena::{AUDIT, Arena, DRAIN, Deed, ON, OVER, Phase, THREADS};
use crate::checker::{Member, Taken};
use crate::messages::{self, LARGE, Latest, SMALL};
use crate::objects::{Object, Objects, PARTIES, PERMITS};

/// The life of a process.
pub fn live(arena: Arena, objects: &Objects, life: u32, seed: u64) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    arena.life(life).pid.store(std::process::id(), SeqCst);
    std::panic::set_hook(Box::new(move |panic| {
        arena.note_failure(&format!("in life {life}: {panic}"));
    }));
    thread::scope(|scope| {
        for number in 0..THREADS {
            scope.spawn(move || {
                let chance = Rng::with_seed(seed.wrapping_mul(THREADS as u64) ^ number as u64);
                let me = Member::new(arena, life, number);
                let latest = Latest::default();
                Worker { me, objects, arena, chance, latest }.work(number);
            });
        }
    });
}

struct Worker<'a> {
    me: Member,
    objects: &'a Objects,
    arena: Arena,
    chance: Rng,
    latest: Latest,
}

impl<'a> Worker<'a> {
    fn work(&mut self, number: usize) {
        while !self.arena.is(OVER) {
            self.me.thread().steps.fetch_add(1, SeqCst);
            if number == 0 {
                self.die_if_ordered();
            }
            match (number, self.chance.u8(..4)) {
                (0, 0) => self.produce(),
                (0, 1) => self.set_or_clear(),
                (1, 0..2) => self.consume(),
                (2, 0) => self.wait_for_event(),
                (2, 1) => self.meet(),
                _ => self.take_something(),
            }
            self.arena.count_operation();
        }
    }

    /// Dies at some instruction of what it does with an object: a timer ends the process.
    fn die_if_ordered(&mut self) {
        let life = self.arena.life(self.me.life);
        let Some((object, microseconds)) = life.ordered_to_die() else { return };
        life.doom();
        end_process_after(Duration::from_micros(microseconds));
        loop {
            match object {
                Object::Mutex => self.lock(),
                Object::TriedMutex => self.try_lock(),
                Object::RawMutex => self.hold_raw_mutex(),
                Object::ReentrantMutex => self.lock_again_and_again(),
                Object::RobustSemaphore => self.take_robust_permit(),
                Object::PlainSemaphore => self.take_plain_permit(),
                Object::BoundedSemaphore => self.take_bounded_permit(),
                Object::ConditionMutex => self.produce(),
                Object::Condition => self.consume(),
                Object::Event => self.set_or_clear(),
                Object::Barrier => self.meet(),
                Object::Channel => self.pass_messages(),
            }
        }
    }

    fn take_something(&mut self) {
        match self.chance.u8(..10) {
            0..2 => self.lock(),
            2 => self.try_lock(),
            3 => self.hold_raw_mutex(),
            4 => self.lock_again_and_again(),
            5 => self.take_robust_permit(),
            6 => self.take_plain_permit(),
            7 => self.take_bounded_permit(),
            _ => self.pass_messages(),
        }
    }

    /// Mostly never: who is not woken waits for ever.
    fn deadline(&mut self) -> Deadline {
        if self.chance.u8(..32) == 0 { self.soon() } else { Deadline::NEVER }
    }

    fn soon(&mut self) -> Deadline {
        Deadline::after(Duration::from_micros(self.chance.u64(..5_000)))
    }

    /// Spends time inside.
    fn linger(&mut self) {
        let most = self.arena.most_held.load(SeqCst);
        if most > 0 {
            let time = Duration::from_micros(self.chance.u64(most / 2..=most));
            #[expect(clippy::disallowed_methods, reason = "the others are to wait for that long")]
            thread::sleep(time);
            return;
        }
        match self.chance.u8(..8) {
            0 => thread::yield_now(),
            1..4 => (0..self.chance.u32(..2_000)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }

    fn comes(&self, object: Object) {
        self.me.comes(object);
    }

    /// Notes how something was taken; `None` if it was not.
    fn taken<G>(&self, object: Object, acquired: Option<Acquired<G>>) -> Option<(G, Taken)> {
        match acquired {
            Some(Acquired::Clean(guard)) => Some((guard, Taken::Clean)),
            Some(Acquired::OwnerDied(guard, pid)) => Some((guard, Taken::OwnerDied(pid))),
            None => {
                self.me.is_refused(object);
                None
            }
        }
    }

    fn taken_raw(&self, object: Object, wait: Wait) -> Option<Taken> {
        match wait {
            Wait::Acquired => Some(Taken::Clean),
            Wait::OwnerDied(pid) => Some(Taken::OwnerDied(pid)),
            Wait::TimedOut => {
                self.me.is_refused(object);
                None
            }
            Wait::Interrupted => self.me.fail(object, "interrupted, which it does not tell"),
        }
    }

    // ---- Mutexes ----

    fn lock(&mut self) {
        let object = Object::Mutex;
        let deadline = self.deadline();
        self.comes(object);
        let acquired = self.objects.mutex.lock_until(deadline);
        let Some((guard, taken)) = self.taken(object, acquired) else { return };
        self.me.enter_alone(object, taken);
        self.linger();
        self.me.leave_alone(object);
        drop(guard);
        self.me.is_away(object);
    }

    fn try_lock(&mut self) {
        let object = Object::TriedMutex;
        self.comes(object);
        let acquired = self.objects.tried_mutex.try_lock();
        let Some((guard, taken)) = self.taken(object, acquired) else { return };
        self.me.enter_alone(object, taken);
        self.linger();
        self.me.leave_alone(object);
        drop(guard);
        self.me.is_away(object);
    }

    fn lock_again_and_again(&mut self) {
        let object = Object::ReentrantMutex;
        let deadline = self.deadline();
        self.comes(object);
        let acquired = self.objects.reentrant_mutex.lock_until(deadline);
        let Some((guard, taken)) = self.taken(object, acquired) else { return };
        self.me.enter_alone(object, taken);
        let again: Vec<_> = (0..self.chance.usize(..3))
            .map(|_| match self.objects.reentrant_mutex.try_lock() {
                Some(Acquired::Clean(guard)) => guard,
                _ => self.me.fail(object, "its holder could not take it again"),
            })
            .collect();
        // A process that dies here dies with two permits.
        if self.chance.u8(..4) == 0 {
            self.take_robust_permit();
        } else {
            self.linger();
        }
        if self.objects.reentrant_mutex.holder() != Some(std::process::id()) {
            self.me.fail(object, "it does not know its holder");
        }
        drop(again);
        self.me.leave_alone(object);
        drop(guard);
        self.me.is_away(object);
    }

    /// Writes several words under the mutex, which differ if the writer dies.
    fn hold_raw_mutex(&mut self) {
        let object = Object::RawMutex;
        let lock = &self.objects.raw_mutex;
        let deadline = self.deadline();
        self.comes(object);
        let wait = lock.acquire_until(deadline);
        let Some(taken) = self.taken_raw(object, wait) else { return };
        if let Taken::OwnerDied(pid) = taken {
            if self.chance.u8(..4) == 0 {
                // The next one is told instead.
                self.me.leave_report(object, pid);
                lock.give_back_as_owner_died(pid);
                self.me.is_refused(object);
                return;
            }
        }
        self.me.enter_alone(object, taken);
        let arena = self.arena;
        let words = &arena.written;
        let first = words[0].load(SeqCst);
        if taken == Taken::Clean && words.iter().any(|word| word.load(SeqCst) != first) {
            self.me.fail(object, "what it guards is half-written, and nobody died");
        }
        for word in words {
            word.store(first + 1, SeqCst);
            self.linger();
        }
        self.me.leave_alone(object);
        if lock.release().is_err() {
            self.me.fail(object, "its holder could not give it back");
        }
        self.me.is_away(object);
    }

    // ---- Semaphores ----

    fn take_robust_permit(&mut self) {
        let object = Object::RobustSemaphore;
        let deadline = self.deadline();
        self.comes(object);
        let acquired = self.objects.robust.acquire_until(deadline);
        let Some((permit, taken)) = self.taken(object, acquired) else { return };
        self.me.enter_among(object, PERMITS, taken);
        self.linger();
        self.me.leave_among(object, PERMITS);
        drop(permit);
        self.me.is_away(object);
    }

    /// Comes to a semaphore whose permits the parent counts now and then: then nobody may be there.
    fn comes_unless_audited(&self, object: Object) -> bool {
        self.comes(object);
        if self.arena.is(AUDIT) {
            self.me.is_refused(object);
            self.arena.ring();
            return false;
        }
        true
    }

    fn take_plain_permit(&mut self) {
        let object = Object::PlainSemaphore;
        if !self.comes_unless_audited(object) {
            return;
        }
        let place = self.arena.place(object);
        let one_less = |owed: u64| owed.checked_sub(1);
        if self.chance.bool() {
            // What somebody else took.
            self.me.set_phase(object, Phase::Goes);
            if place.owed.fetch_update(SeqCst, SeqCst, one_less).is_ok() {
                self.give_back_plain();
                self.me.note(object, Deed::GivesBack);
            }
            self.me.set_phase(object, Phase::Comes);
        }
        // Permits may have been lost with those who had them: nobody waits for these for ever.
        let deadline = self.soon();
        let acquired = self.objects.plain.acquire_until(deadline);
        if let Some((permit, taken)) = self.taken(object, acquired) {
            if taken != Taken::Clean {
                self.me.fail(object, "it has no owner that could have died");
            }
            self.me.enter_among(object, PERMITS, taken);
            self.linger();
            self.me.leave_among(object, PERMITS);
            permit.forget();
            if self.chance.u8(..4) == 0 {
                place.owed.fetch_add(1, SeqCst);
                self.me.note(object, Deed::HandsOver);
            } else {
                self.give_back_plain();
            }
            self.me.is_away(object);
        }
        self.ring_if_audited();
    }

    fn give_back_plain(&self) {
        if self.objects.plain.release().is_err() {
            self.me.fail(Object::PlainSemaphore, "a permit could not be given back");
        }
    }

    fn take_bounded_permit(&mut self) {
        let object = Object::BoundedSemaphore;
        if !self.comes_unless_audited(object) {
            return;
        }
        let is_lossless = self.arena.lossless.load(SeqCst) != 0;
        let deadline = if is_lossless { self.deadline() } else { self.soon() };
        let wait = self.objects.bounded.acquire_until(deadline);
        if let Some(taken) = self.taken_raw(object, wait) {
            if taken != Taken::Clean {
                self.me.fail(object, "it has no owner that could have died");
            }
            self.me.enter_among(object, PERMITS, taken);
            self.linger();
            self.me.leave_among(object, PERMITS);
            if self.objects.bounded.release().is_err() {
                self.me.fail(object, "more permits than it began with");
            }
            self.me.is_away(object);
        }
        self.ring_if_audited();
    }

    fn ring_if_audited(&self) {
        if self.arena.is(AUDIT) {
            self.arena.ring();
        }
    }

    // ---- The condition ----

    /// Enters the condition's mutex; whoever died in there has left open what became of the tokens.
    fn enter_condition(&self, taken: Taken) {
        self.me.enter_alone(Object::ConditionMutex, taken);
        if taken != Taken::Clean {
            let condition = &self.arena.condition;
            let open = condition.tokens.swap(0, SeqCst) + condition.asked.swap(0, SeqCst);
            condition.extra_allowed.fetch_add(open, SeqCst);
            condition.forfeited.fetch_add(open, SeqCst);
        }
    }

    fn leave_condition(&self, guard: MutexGuard<'_>) {
        self.me.leave_alone(Object::ConditionMutex);
        drop(guard);
        self.me.is_away(Object::ConditionMutex);
    }

    fn lock_condition(&self) -> MutexGuard<'a> {
        self.comes(Object::ConditionMutex);
        let objects = self.objects;
        let (guard, taken) = match objects.condition_mutex.lock() {
            Acquired::Clean(guard) => (guard, Taken::Clean),
            Acquired::OwnerDied(guard, pid) => (guard, Taken::OwnerDied(pid)),
        };
        self.enter_condition(taken);
        guard
    }

    /// Makes tokens for those who wait, if those of the last time are used up.
    fn produce(&mut self) {
        let guard = self.lock_condition();
        self.linger();
        self.make_tokens(&guard);
        self.leave_condition(guard);
    }

    fn make_tokens(&mut self, guard: &MutexGuard<'_>) {
        let condition = &self.arena.condition;
        if condition.tokens.load(SeqCst) > 0 {
            let batch = condition.batch.load(SeqCst);
            let is_entitled = |ticket: u64| ticket != 0 && ticket <= batch;
            if self.arena.living_threads().any(|other| is_entitled(other.ticket.load(SeqCst))) {
                // They come, or are told by others.
                return;
            }
            // One that is about to die may still come for one.
            let open = condition.tokens.swap(0, SeqCst);
            condition.forfeited.fetch_add(open, SeqCst);
            condition.extra_allowed.fetch_add(open, SeqCst);
        }
        if !self.arena.is(ON) {
            return;
        }
        let waiting = self.objects.condition_waiters.waiting();
        let most = if self.chance.u8(..8) == 0 { u32::MAX } else { self.chance.u32(1..4) };
        let asked = waiting.min(most);
        if asked == 0 {
            return;
        }
        condition.batch.store(condition.sequence.load(SeqCst), SeqCst);
        condition.asked.store(asked.into(), SeqCst);
        let object = Object::Condition;
        let notified = match (most, self.chance.bool()) {
            (u32::MAX, _) => self.objects.condition.notify_all(guard),
            (1, true) => self.objects.condition.notify_one(guard).into(),
            _ => self.objects.condition.notify(guard, most),
        };
        // Nobody has come meanwhile, because they would need the mutex.
        if notified > asked {
            self.me.fail(object, &format!("{notified} were notified, of {asked} at most"));
        }
        if notified < asked && self.objects.condition_waiters.waiting() > 0 {
            self.me
                .fail(object, &format!("{notified} were notified, of {asked}, and some wait on"));
        }
        if notified > 0 {
            condition.notified.begin_together(self.arena, Object::ConditionMutex, notified);
        }
        condition.made.fetch_add(notified.into(), SeqCst);
        condition.tokens.store(notified.into(), SeqCst);
        condition.asked.store(0, SeqCst);
        let deed = if notified > 0 { Deed::Notifies } else { Deed::NotifiesNobody };
        self.me.note(object, deed);
    }

    /// Waits to be notified, and consumes a token.
    fn consume(&mut self) {
        let (object, mutex) = (Object::Condition, Object::ConditionMutex);
        let arena = self.arena;
        let condition = &arena.condition;
        let deadline = self.deadline();
        let guard = self.lock_condition();
        if !self.arena.is(ON) && !self.arena.is(AUDIT) {
            self.leave_condition(guard);
            return;
        }
        self.me.set_phase(object, Phase::Comes);
        let ticket = condition.sequence.fetch_add(1, SeqCst) + 1;
        self.me.thread().ticket.store(ticket, SeqCst);
        self.me.note(object, Deed::Waits);
        self.me.leave_alone(mutex);
        // From now on it may have the mutex still, not have it, or have it again.
        let waited = self.objects.condition.wait_until(guard, deadline);
        let (acquired, notified) = match waited {
            Ok(waited) => waited,
            Err(error) => self.me.fail(object, &error.to_string()),
        };
        if notified && condition.tokens.load(SeqCst) > 0 && ticket <= condition.batch.load(SeqCst) {
            // It has come back for the mutex since all of this batch were notified: the next one
            // comes when their tokens are used up.
            self.me.thread().coming[mutex as usize].begin_as(&condition.notified);
        }
        self.me.set_phase(mutex, Phase::Comes);
        let (guard, taken) = match acquired {
            Acquired::Clean(guard) => (guard, Taken::Clean),
            Acquired::OwnerDied(guard, pid) => (guard, Taken::OwnerDied(pid)),
        };
        self.enter_condition(taken);
        if notified {
            let tokens = condition.tokens.load(SeqCst);
            if tokens > 0 {
                condition.tokens.store(tokens - 1, SeqCst);
                condition.consumed.fetch_add(1, SeqCst);
            } else {
                condition.extra.fetch_add(1, SeqCst);
            }
            self.me.note(object, Deed::IsNotified);
        } else {
            if deadline == Deadline::NEVER {
                self.me.fail(object, "a wait without a deadline ended without a notification");
            }
            self.me.note(object, Deed::IsNotNotified);
        }
        self.me.thread().ticket.store(0, SeqCst);
        self.me.set_phase(object, Phase::Away);
        if notified {
            self.arena.place(object).passes.fetch_add(1, SeqCst);
        }
        self.leave_condition(guard);
    }

    // ---- The event ----

    /// Sets the event, if all got through that waited when it was set the last time.
    fn set_or_clear(&mut self) {
        let (object, event) = (Object::Event, &self.objects.event);
        if self.chance.u8(..4) == 0 {
            event.clear();
            self.me.note(object, Deed::Clears);
            return;
        }
        // The epoch only changes when it is set, and whoever noted another is through by that.
        let now = u64::from(event.epoch()) + 1;
        let has_to_come = |epoch: u64| epoch != 0 && epoch != now;
        if self.arena.living_threads().any(|other| has_to_come(other.epoch.load(SeqCst))) {
            return;
        }
        event.set();
        self.me.note(object, Deed::Sets);
        if self.chance.u8(..4) > 0 {
            event.clear();
            self.me.note(object, Deed::Clears);
        }
    }

    fn wait_for_event(&mut self) {
        let (object, event) = (Object::Event, &self.objects.event);
        let deadline = self.deadline();
        self.comes(object);
        let epoch = event.epoch();
        let was_clear = !event.is_set();
        self.me.thread().epoch.store(u64::from(epoch) + 1, SeqCst);
        let wait = loop {
            match event.wait_since(epoch, deadline) {
                Wait::Interrupted => {}
                wait => break wait,
            }
        };
        match wait {
            Wait::Acquired if was_clear && event.epoch() == epoch => {
                self.me.fail(object, "got through, and it was not set");
            }
            Wait::Acquired => self.me.is_away(object),
            _ if deadline == Deadline::NEVER => {
                self.me.fail(object, "a wait without a deadline ended without a set");
            }
            _ => self.me.is_refused(object),
        }
        self.me.thread().epoch.store(0, SeqCst);
    }

    // ---- The channel ----

    /// Sends a message or receives one. The first thread does not wait for long: so there is always
    /// one who sends, and one who receives.
    fn pass_messages(&mut self) {
        let deadline = if self.me.number == 0 { self.soon() } else { self.deadline() };
        let channel = &self.objects.channel;
        if self.chance.bool() {
            let is_large = self.chance.u8(..16) == 0;
            let words = if is_large { LARGE } else { SMALL + self.chance.usize(..6) };
            messages::send(&self.me, channel, words, deadline);
        } else {
            messages::receive(&self.me, channel, &mut self.latest, deadline);
        }
    }

    // ---- The barrier ----

    /// Goes through the barrier with two others.
    fn meet(&mut self) {
        let (object, barrier) = (Object::Barrier, &self.objects.barrier);
        if self.is_left_to_the_members() || self.arena.is(DRAIN) {
            return;
        }
        let deadline = self.deadline();
        let leaves = self.chance.u8(..16) == 0;
        let generations = &self.arena.barrier;
        let before = generations.actions.load(SeqCst);
        self.comes(object);
        let met = catch_unwind(AssertUnwindSafe(|| {
            barrier.wait_until(deadline, || {
                generations.actions.fetch_add(1, SeqCst);
                if leaves {
                    // Without a word on the screen.
                    resume_unwind(Box::new("leaves"));
                }
            })
        }));
        match met {
            Ok(Ok(number)) => {
                if generations.actions.load(SeqCst) == before {
                    self.me.fail(object, "got through before the action was run");
                }
                let Some(passed) = generations.passed_as.get(number as usize) else {
                    self.me.fail(object, "more got in than it has room for")
                };
                passed.fetch_add(1, SeqCst);
                let is_last = number + 1 == PARTIES;
                self.me.note(object, if is_last { Deed::PassesLast } else { Deed::Passes });
                self.me.is_away(object);
            }
            Ok(Err(Error::BarrierBroken)) => {
                self.me.note(object, Deed::FindsBroken);
                if barrier.is_broken() && !self.arena.is(OVER) {
                    barrier.reset();
                    self.me.note(object, Deed::Resets);
                }
                self.me.is_refused(object);
            }
            Ok(Err(error)) => self.me.fail(object, &error.to_string()),
            Err(_left) => {
                self.me.note(object, Deed::LeavesAction);
                self.me.set_phase(object, Phase::Away);
            }
        }
    }

    /// Whether somebody has died inside, and others are in who have to find out: nobody helps them.
    fn is_left_to_the_members(&self) -> bool {
        let is_there = |other: &&crate::arena::Thread| other.phase(Object::Barrier) != Phase::Away;
        let members = self.objects.barrier_members.waiting() as usize;
        let living = self.arena.living_threads().filter(is_there).count();
        living > 0 && members > living
    }
}

/// Lets the kernel end this process, wherever it is by then: nobody handles SIGALRM.
fn end_process_after(time: Duration) {
    let microseconds = time.subsec_micros().max(1);
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: 0, tv_usec: microseconds.into() },
    };
    // SAFETY: reads a timer that is there, and writes nothing.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut()) };
    assert_eq!(set, 0, "setitimer");
}

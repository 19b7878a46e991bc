//! The parent: which processes it stops and kills, and when; and what it checks itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use semlock::{Acquired, Deadline, Error, Wait};

use crate::arena::{ALIVE, AUDIT, Arena, DEAD, DRAIN, ON, OVER, PROCESSES, Phase, THREADS, now};
use crate::checker::{Member, Taken};
use crate::forked::Forked;
use crate::messages::{self, Latest, SMALL};
use crate::objects::{OBJECTS, Object, Objects, PARTIES, PERMITS};
use crate::{turns, worker};

/// Without any progress for so long, something hangs: ten times the 2 s that are promised after a
/// death, which is room for two processors that 48 threads share with whatever else the machine
/// does.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long operations may take until a stopped process, which may hold what all wait for, goes on.
const LONG_STOP: Duration = Duration::from_millis(20);
const MOST_STOPPED: usize = 4;
/// For so long, in microseconds, things are held at most where all are to wait for long.
const SLOW: u64 = 20_000;
const MOST_ZOMBIES: usize = 4;
/// As often each object has to be got through once nobody is killed any more.
const PASSES_AT_THE_END: u64 = 100;
/// Far fewer than it takes.
const KILLS_FOR_ONE_PASSED_ON_TWICE: u64 = 100;
const KILLS_BETWEEN_AUDITS: u64 = 32;
/// The parent is in the arena too.
const PARENT: u32 = 0;

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    pub kills: u64,
    /// Of them, those that died as they were ordered to.
    pub by_order: u64,
    pub stops: u64,
    pub processes: u64,
    pub deaths_inside: u64,
    pub reports: u64,
    pub half_written: u64,
    pub operations: u64,
}

/// One of the 16.
struct Process {
    forked: Forked,
    life: u32,
    /// The number of the choice at which it goes on.
    stopped_until: Option<u64>,
}

/// Everything that the seed decides of one choice: always as many draws, whatever happens
/// meanwhile.
struct Choice {
    /// After how many operations.
    operations: u64,
    process: usize,
    kills: bool,
    /// How many more are killed at once.
    also: usize,
    /// Rather one that stands so with that object.
    rather: Option<(Object, Phase)>,
    /// It dies by itself, at that object, after so many microseconds.
    order: Option<(Object, u64)>,
    /// For how many choices it is stopped.
    pause: u64,
    /// A zombie that is left is waited for now.
    reaps: bool,
}

impl Choice {
    fn draw(chance: &mut Rng) -> Self {
        let object = Object::ALL[chance.usize(..OBJECTS)];
        let phase = match chance.u8(..4) {
            0 => Phase::Comes,
            1 => Phase::Goes,
            _ => Phase::Inside,
        };
        let (few, many) = (chance.u64(1..60), chance.u64(1..1_000));
        let (early, late) = (chance.u64(1..40), chance.u64(1..2_000));
        let microseconds = if chance.u8(..4) == 0 { late } else { early };
        let there = Object::ALL[chance.usize(..OBJECTS)];
        Self {
            operations: if chance.u8(..4) == 0 { many } else { few },
            process: chance.usize(..PROCESSES),
            kills: chance.u8(..5) == 0,
            also: chance.usize(..16).saturating_sub(12),
            rather: (chance.u8(..4) > 0).then_some((object, phase)),
            order: chance.bool().then_some((there, microseconds)),
            pause: chance.u64(1..8),
            reaps: chance.bool(),
        }
    }
}

pub struct Stress<'a> {
    arena: Arena,
    objects: &'a Objects,
    seed: u64,
    chance: Rng,
    processes: Vec<Process>,
    /// Dead, and nobody has waited for them yet.
    zombies: VecDeque<Forked>,
    choices: u64,
    patience: Patience,
    summary: Summary,
    /// Threads that died inside, or that may have.
    inside: [u64; OBJECTS],
    perhaps: [u64; OBJECTS],
    /// The same since the last audit.
    perhaps_unaudited: [u64; OBJECTS],
    audited_at: u64,
}

type Checked = Result<(), String>;

impl<'a> Stress<'a> {
    pub fn new(arena: Arena, objects: &'a Objects, seed: u64) -> Self {
        let me = arena.life(PARENT);
        me.pid.store(std::process::id(), SeqCst);
        me.state.store(ALIVE, SeqCst);
        Self {
            arena,
            objects,
            seed,
            chance: Rng::with_seed(seed),
            processes: Vec::new(),
            zombies: VecDeque::new(),
            choices: 0,
            patience: Patience::new(),
            summary: Summary::default(),
            inside: [0; OBJECTS],
            perhaps: [0; OBJECTS],
            perhaps_unaudited: [0; OBJECTS],
            audited_at: 0,
        }
    }

    /// Lives that there are at most with so many kills: the parent's, the first, one for each kill.
    pub fn lives(kills: u64) -> usize {
        1 + PROCESSES + usize::try_from(kills).expect("a number of processes") + PROCESSES
    }

    /// Stops and kills all the time, until so many are dead.
    pub fn run(&mut self, kills: u64) -> Result<Summary, String> {
        self.begin();
        while self.summary.kills < kills {
            let choice = Choice::draw(&mut self.chance);
            self.wait_for_operations(choice.operations)?;
            self.choices += 1;
            self.let_go_on(|until, now| until <= now);
            if choice.reaps {
                self.zombies.pop_front();
            }
            let process = self.find(&choice);
            if choice.kills {
                if let Some((object, microseconds)) = choice.order {
                    self.order_to_die(process, object, microseconds);
                }
                self.kill(process, 1 + choice.also)?;
            } else {
                self.stop(process, choice.pause);
            }
            let semaphores = [Object::PlainSemaphore, Object::BoundedSemaphore];
            if self.summary.kills >= self.audited_at + KILLS_BETWEEN_AUDITS
                || semaphores.iter().any(|&object| self.patience.is_tried_by(object))
            {
                self.audit_while_others_wait()?;
            }
        }
        self.finish()
    }

    /// Makes all hold things for long, so that all wait for long, and kills so many meanwhile, one
    /// at a time.
    pub fn run_slowly(&mut self, time: Duration, kills: u64) -> Result<Summary, String> {
        self.arena.most_held.store(SLOW, SeqCst);
        self.arena.lossless.store((kills == 0).into(), SeqCst);
        let parts = u32::try_from(kills).expect("few") + 1;
        self.begin();
        for part in 0..parts {
            if part > 0 {
                let choice = Choice::draw(&mut self.chance);
                self.kill(self.find(&choice), 1)?;
            }
            let mut passed = Elapsed::new();
            while passed.more() < time / parts {
                self.arena.wait_for_bell(self.arena.bell(), LONG_STOP);
                self.check()?;
            }
        }
        // The rest is the same, and is to be over soon.
        self.arena.most_held.store(0, SeqCst);
        self.finish()
    }

    fn begin(&mut self) {
        for process in 0..PROCESSES {
            let born = self.fork(process);
            self.processes.push(born);
        }
    }

    fn finish(&mut self) -> Result<Summary, String> {
        self.end()?;
        self.check_when_all_have_gone()?;
        self.summary.operations = self.arena.operations.load(SeqCst);
        for &object in Object::ALL {
            let place = self.arena.place(object);
            self.summary.reports += place.reports.load(SeqCst);
            self.summary.half_written += place.half_written.load(SeqCst);
        }
        Ok(std::mem::take(&mut self.summary))
    }

    // ---- Processes ----

    fn fork(&mut self, process: usize) -> Process {
        self.summary.processes += 1;
        let life = u32::try_from(self.summary.processes).expect("few");
        let (arena, objects) = (self.arena, self.objects);
        let seed = self.seed ^ u64::from(life) << 32;
        arena.life(life).state.store(ALIVE, SeqCst);
        arena.set_current(process, life);
        let forked = Forked::run(|| worker::live(arena, objects, life, seed));
        Process { forked, life, stopped_until: None }
    }

    /// The one that the choice means, as things are.
    fn find(&self, choice: &Choice) -> usize {
        let from = |first: usize| (first..PROCESSES).chain(0..first);
        let stands_so = |&process: &usize| {
            choice.rather.is_some_and(|(object, phase)| {
                let life = self.arena.life(self.processes[process].life);
                life.threads.iter().any(|thread| thread.phase(object) == phase)
            })
        };
        from(choice.process).find(stands_so).unwrap_or(choice.process)
    }

    fn stop(&mut self, process: usize, pause: u64) {
        let stopped = self.processes.iter().filter(|one| one.stopped_until.is_some()).count();
        let one = &mut self.processes[process];
        if one.stopped_until.is_none() && stopped < MOST_STOPPED {
            self.arena.note_stopped(stopped + 1);
            one.forked.signal(Signal::SIGSTOP);
            one.stopped_until = Some(self.choices + pause);
            self.summary.stops += 1;
        }
    }

    /// Lets those go on whose time it is; false if there was none.
    fn let_go_on(&mut self, is_time: impl Fn(u64, u64) -> bool) -> bool {
        let mut any = false;
        for one in &mut self.processes {
            if one.stopped_until.is_some_and(|until| is_time(until, self.choices)) {
                one.forked.signal(Signal::SIGCONT);
                one.stopped_until = None;
                any = true;
            }
        }
        self.note_stopped();
        any
    }

    fn note_stopped(&self) {
        let stopped = self.processes.iter().filter(|one| one.stopped_until.is_some()).count();
        self.arena.note_stopped(stopped);
    }

    /// Makes it die in the middle of something. It may wait, and not hear of that for long.
    fn order_to_die(&mut self, process: usize, object: Object, microseconds: u64) {
        let one = &mut self.processes[process];
        if one.stopped_until.take().is_some() {
            one.forked.signal(Signal::SIGCONT);
        }
        self.arena.life(one.life).order_to_die(object, microseconds);
        one.forked.wait_for_death_until(LONG_STOP);
        self.note_stopped();
    }

    /// Kills so many at once, and forks others in their place.
    fn kill(&mut self, first: usize, many: usize) -> Checked {
        let group: Vec<_> = (0..many).map(|next| (first + next) % PROCESSES).collect();
        for &process in &group {
            let one = &self.processes[process];
            self.arena.life(one.life).doom();
            one.forked.signal(Signal::SIGKILL);
        }
        for &process in &group {
            let one = &self.processes[process];
            let how = one.forked.wait_for_death();
            // By the parent's hand or, as it was ordered to, by its own.
            if !matches!(how, WaitStatus::Signaled(_, Signal::SIGKILL | Signal::SIGALRM, _)) {
                return Err(format!("life {} ended before it was killed: {how:?}", one.life));
            }
            self.summary.by_order +=
                u64::from(matches!(how, WaitStatus::Signaled(_, Signal::SIGALRM, _)));
            self.arena.life(one.life).state.store(DEAD, SeqCst);
        }
        for process in group {
            self.summary.kills += 1;
            self.account_for(self.processes[process].life)?;
            let born = self.fork(process);
            let dead = std::mem::replace(&mut self.processes[process], born);
            // A zombie is as dead as one that somebody has waited for.
            self.zombies.push_back(dead.forked);
            if self.zombies.len() > MOST_ZOMBIES {
                self.zombies.pop_front();
            }
        }
        self.note_stopped();
        Ok(())
    }

    /// Counts what a dead one has held, and gives back for it what is nobody's business else.
    fn account_for(&mut self, life: u32) -> Checked {
        let threads = &self.arena.life(life).threads;
        let mut was_inside = false;
        for &object in Object::ALL {
            let count = |phases: &[Phase]| {
                let stands_so =
                    threads.iter().filter(|thread| phases.contains(&thread.phase(object)));
                stands_so.count() as u64
            };
            let inside = count(&[Phase::Inside]);
            let perhaps = count(&[Phase::Comes, Phase::Goes]);
            was_inside |= inside > 0;
            self.inside[object as usize] += inside;
            self.perhaps[object as usize] += perhaps;
            self.perhaps_unaudited[object as usize] += perhaps;
            for _ in 0..inside {
                let given = match object {
                    Object::PlainSemaphore => self.objects.plain.release(),
                    Object::BoundedSemaphore => self.objects.bounded.release(),
                    _ => Ok(()),
                };
                given.map_err(|error| format!("{object:?}: a dead one's permit: {error}"))?;
            }
        }
        self.summary.deaths_inside += u64::from(was_inside);
        Ok(())
    }

    // ---- Waiting, with patience ----

    fn wait_for_operations(&mut self, more: u64) -> Checked {
        let alarm = self.arena.operations.load(SeqCst) + more;
        while !self.arena.wait_for_operations(alarm, LONG_STOP) {
            self.let_go_on(|_, _| true);
            self.check()?;
        }
        self.check()
    }

    /// Fails if anything has failed, or hangs.
    fn check(&mut self) -> Checked {
        if let Some(failure) = self.arena.failure() {
            return Err(failure);
        }
        for one in &mut self.processes {
            match one.forked.poll() {
                WaitStatus::StillAlive => {}
                status => return Err(format!("life {} ended by itself: {status:?}", one.life)),
            }
        }
        if let Some(late) = turns::check(self.arena) {
            return Err(late);
        }
        let stopped = |process: usize| self.processes[process].stopped_until.is_some();
        self.patience.check(self.arena, stopped)
    }

    /// Waits for something that the others bring about.
    fn wait_until(&mut self, mut is_so: impl FnMut(&Self) -> bool) -> Checked {
        self.let_go_on(|_, _| true);
        loop {
            let bell = self.arena.bell();
            if is_so(self) {
                return Ok(());
            }
            self.arena.wait_for_bell(bell, LONG_STOP);
            self.check()?;
        }
    }

    // ---- The plain semaphores ----

    fn audit_while_others_wait(&mut self) -> Checked {
        self.arena.run.store(AUDIT, SeqCst);
        self.wait_until(|stress| {
            stress.arena.living_threads().all(|thread| {
                thread.phase(Object::PlainSemaphore) == Phase::Away
                    && thread.phase(Object::BoundedSemaphore) == Phase::Away
            })
        })?;
        self.audit()?;
        self.arena.run.store(ON, SeqCst);
        Ok(())
    }

    /// Of the permits of those who died on their way in or out some are lost, and no others; after
    /// this, none are.
    fn audit(&mut self) -> Checked {
        self.audited_at = self.summary.kills;
        let objects = self.objects;
        for object in [Object::PlainSemaphore, Object::BoundedSemaphore] {
            let owed = self.arena.place(object).owed.load(SeqCst);
            let free = match object {
                Object::PlainSemaphore => objects.plain.available(),
                _ => objects.bounded.value(),
            };
            let there = u64::from(free) + owed;
            let perhaps = std::mem::take(&mut self.perhaps_unaudited[object as usize]);
            let (least, most) = (u64::from(PERMITS).saturating_sub(perhaps), u64::from(PERMITS));
            if !(least..=most).contains(&there) {
                return Err(format!(
                    "{object:?}: {there} permits ({owed} of them owed), and not {least} to {most}"
                ));
            }
            for _ in there..most {
                let given = match object {
                    Object::PlainSemaphore => objects.plain.release(),
                    _ => objects.bounded.release(),
                };
                given.map_err(|error| format!("{object:?}: a lost permit: {error}"))?;
            }
        }
        if objects.bounded.release() != Err(Error::ReleasedTooManyTimes) {
            return Err("BoundedSemaphore: one more than its bound".to_owned());
        }
        Ok(())
    }

    // ---- The end ----

    /// Sees that everything still works, lets the tokens be used up, and all processes end.
    fn end(&mut self) -> Checked {
        self.audit_while_others_wait()?;
        let passes = |stress: &Self, object| stress.arena.place(object).passes.load(SeqCst);
        let before: Vec<_> = Object::ALL.iter().map(|&object| passes(self, object)).collect();
        self.wait_until(|stress| {
            let mut all = Object::ALL.iter().zip(&before);
            all.all(|(&object, &before)| passes(stress, object) >= before + PASSES_AT_THE_END)
        })?;
        self.arena.run.store(DRAIN, SeqCst);
        self.wait_until(|stress| stress.arena.condition.tokens.load(SeqCst) == 0)?;
        self.arena.run.store(OVER, SeqCst);
        self.let_go_on(|_, _| true);
        let mut waited = Elapsed::new();
        while !self.processes.is_empty() {
            self.release_the_waiters()?;
            self.arena.wait_for_bell(self.arena.bell(), LONG_STOP);
            if let Some(failure) = self.arena.failure() {
                return Err(failure);
            }
            for number in (0..self.processes.len()).rev() {
                match self.processes[number].forked.poll() {
                    WaitStatus::StillAlive => {}
                    WaitStatus::Exited(_, 0) => {
                        self.processes.swap_remove(number);
                        waited = Elapsed::new();
                    }
                    status => return Err(format!("a process ended with {status:?}")),
                }
            }
            if waited.more() > PATIENCE {
                return Err(format!("{} processes do not end", self.processes.len()));
            }
        }
        self.zombies.clear();
        Ok(())
    }

    fn release_the_waiters(&self) -> Checked {
        self.objects.event.set();
        self.objects.barrier.abort();
        self.release_at_the_channel();
        let object = Object::ConditionMutex;
        let acquired = self.objects.condition_mutex.lock_until(Deadline::after(PATIENCE));
        let (guard, taken) = taken(acquired).ok_or("ConditionMutex: hangs at the end")?;
        let me = self.member();
        me.set_phase(object, Phase::Comes);
        me.enter_alone(object, taken);
        let notified = self.objects.condition.notify_all(&guard);
        self.arena.condition.extra_allowed.fetch_add(notified.into(), SeqCst);
        me.leave_alone(object);
        drop(guard);
        me.is_away(object);
        Ok(())
    }

    /// Makes room for those who wait for some, and sends to those who wait for a message.
    fn release_at_the_channel(&self) {
        let (me, channel) = (self.member(), &self.objects.channel);
        let now = || Deadline::after(Duration::from_millis(1));
        while messages::receive(&me, channel, &mut Latest::default(), now()) {}
        while messages::send(&me, channel, SMALL, now()) {}
    }

    fn check_channel(&self) -> Checked {
        let (me, channel) = (self.member(), &self.objects.channel);
        let soon = || Deadline::after(Duration::from_millis(500));
        while messages::receive(&me, channel, &mut Latest::default(), soon()) {}
        let (lost, deaths) = (messages::lost(self.arena), messages::died_in_a_call(self.arena));
        if lost > deaths {
            return Err(format!("Channel: {lost} messages are lost, and {deaths} died there"));
        }
        if channel.count() > 0 || !channel.is_empty() {
            return Err("Channel: it is not empty when all was received".to_owned());
        }
        Ok(())
    }

    fn member(&self) -> Member {
        Member::new(self.arena, PARENT, 0)
    }

    /// All objects have to be as they were made.
    fn check_when_all_have_gone(&mut self) -> Checked {
        self.check_mutexes()?;
        self.check_robust_permits()?;
        self.audit()?;
        self.check_condition()?;
        self.check_barrier()?;
        self.check_channel()?;
        self.check_counters()?;
        // The parent may have failed itself, as it came in somewhere.
        self.arena.failure().map_or(Ok(()), Err)
    }

    fn check_mutexes(&self) -> Checked {
        let Objects { mutex, tried_mutex, condition_mutex, reentrant_mutex, raw_mutex, .. } =
            self.objects;
        let me = self.member();
        let soon = || Deadline::after(PATIENCE);
        let enter = |object, taken: Option<Taken>, holder: Option<u32>| {
            let taken = taken.ok_or_else(|| format!("{object:?}: is held, and nobody is there"))?;
            if holder != Some(std::process::id()) {
                return Err(format!("{object:?}: {holder:?} holds it, and not the parent"));
            }
            me.set_phase(object, Phase::Comes);
            me.enter_alone(object, taken);
            me.leave_alone(object);
            me.is_away(object);
            Ok(())
        };
        let pairs = [
            (Object::Mutex, mutex),
            (Object::TriedMutex, tried_mutex),
            (Object::ConditionMutex, condition_mutex),
        ];
        for (object, mutex) in pairs {
            let (guard, taken) = taken(mutex.lock_until(soon())).unzip();
            enter(object, taken, mutex.holder())?;
            drop(guard);
        }
        let (guard, taken) = taken(reentrant_mutex.lock_until(soon())).unzip();
        enter(Object::ReentrantMutex, taken, reentrant_mutex.holder())?;
        drop(guard);
        let taken = match raw_mutex.acquire_until(soon()) {
            Wait::Acquired => Some(Taken::Clean),
            Wait::OwnerDied(pid) => Some(Taken::OwnerDied(pid)),
            _ => None,
        };
        enter(Object::RawMutex, taken, raw_mutex.holder())?;
        raw_mutex.release().map_err(|error| error.to_string())?;
        match pairs.iter().find(|(_, mutex)| mutex.holder().is_some()) {
            Some((object, _)) => Err(format!("{object:?}: is held after it was given back")),
            None => Ok(()),
        }
    }

    fn check_robust_permits(&self) -> Checked {
        let object = Object::RobustSemaphore;
        let robust = &self.objects.robust;
        let me = self.member();
        let mut permits = Vec::new();
        for number in 0..PERMITS {
            let acquired = robust.acquire_until(Deadline::after(PATIENCE));
            let (permit, taken) =
                taken(acquired).ok_or_else(|| format!("{object:?}: has {number} permits left"))?;
            me.set_phase(object, Phase::Comes);
            me.enter_among(object, PERMITS, taken);
            permits.push(permit);
        }
        if robust.try_acquire().is_some() {
            return Err(format!("{object:?}: has more permits than it was made with"));
        }
        for permit in permits {
            me.leave_among(object, PERMITS);
            drop(permit);
            me.is_away(object);
        }
        if robust.available() != PERMITS {
            return Err(format!("{object:?}: {} are free at the end", robust.available()));
        }
        Ok(())
    }

    fn check_condition(&self) -> Checked {
        let Objects { condition, condition_mutex, condition_waiters, .. } = self.objects;
        let guard = condition_mutex.lock().into_guard();
        let (notified, waiting) = (condition.notify_all(&guard), condition_waiters.waiting());
        drop(guard);
        let known = &self.arena.condition;
        let [made, consumed, forfeited, extra, allowed, tokens] = [
            &known.made,
            &known.consumed,
            &known.forfeited,
            &known.extra,
            &known.extra_allowed,
            &known.tokens,
        ]
        .map(|word| word.load(SeqCst));
        // A process may die while it passes a notification on, between giving it to another waiter
        // and clearing the dead waiter's node. Then the notification is passed on once more. That
        // cannot be seen, and is rare.
        let passed_on_twice = 1 + self.summary.kills / KILLS_FOR_ONE_PASSED_ON_TWICE;
        let deaths_inside = self.deaths_at(Object::ConditionMutex);
        if notified > 0 || waiting > 0 {
            return Err(format!(
                "Condition: {notified} notified, {waiting} wait, and nobody lives"
            ));
        }
        if extra > allowed + passed_on_twice {
            return Err(format!(
                "Condition: notified {extra} times for nothing, \
                 and not {allowed} + {passed_on_twice} at most"
            ));
        }
        if tokens > 0 || consumed > made || made > consumed + forfeited + deaths_inside {
            return Err(format!(
                "Condition: {made} tokens made, {consumed} consumed, {forfeited} forfeited, \
                 {tokens} left"
            ));
        }
        Ok(())
    }

    fn check_barrier(&self) -> Checked {
        let actions = self.arena.barrier.actions.load(SeqCst);
        let passed_as = self.arena.barrier.passed_as.each_ref().map(|count| count.load(SeqCst));
        let deaths = self.deaths_at(Object::Barrier);
        let most = passed_as.into_iter().max().unwrap_or(0);
        if most > actions || passed_as.iter().any(|passed| passed + deaths < most) {
            return Err(format!(
                "Barrier: {actions} actions let through {passed_as:?}, with {deaths} deaths"
            ));
        }
        let barrier = &self.objects.barrier;
        barrier.reset();
        let soon = Deadline::after(PATIENCE);
        let through = std::thread::scope(|scope| {
            let members =
                [(); PARTIES as usize].map(|()| scope.spawn(|| barrier.wait_until(soon, || {})));
            members.map(|member| member.join().expect("it does not panic"))
        });
        let mut numbers: Vec<_> = through.iter().flatten().copied().collect();
        numbers.sort_unstable();
        if numbers != (0..PARTIES).collect::<Vec<_>>() {
            return Err(format!("Barrier: at the end it lets through {through:?}"));
        }
        Ok(())
    }

    fn deaths_at(&self, object: Object) -> u64 {
        self.inside[object as usize] + self.perhaps[object as usize]
    }

    /// Each thread that came in went out again, or died inside. Each death inside was reported,
    /// unless the thread that was told of it died too before it could note that.
    fn check_counters(&self) -> Checked {
        for &object in Object::ALL {
            let place = self.arena.place(object);
            let [entries, exits, reports] =
                [&place.entries, &place.exits, &place.reports].map(|word| word.load(SeqCst));
            let (inside, perhaps) = (self.inside[object as usize], self.perhaps[object as usize]);
            let left = entries.checked_sub(exits);
            if !left.is_some_and(|left| (inside..=inside + perhaps).contains(&left)) {
                return Err(format!(
                    "{object:?}: {entries} entries, {exits} exits, \
                     {inside} died inside and {perhaps} perhaps"
                ));
            }
            let plain = [Object::PlainSemaphore, Object::BoundedSemaphore].contains(&object);
            if reports > inside + perhaps || (!plain && inside > reports + perhaps) {
                return Err(format!(
                    "{object:?}: {reports} reports, and {inside} died inside and {perhaps} perhaps"
                ));
            }
        }
        Ok(())
    }

    /// The processes that there are, for who wants to see what they did.
    pub fn living(&self) -> impl Iterator<Item = (u32, bool)> + '_ {
        self.processes.iter().map(|one| (one.life, one.stopped_until.is_some()))
    }

    pub fn so_far(&self) -> &Summary {
        &self.summary
    }
}

fn taken<G>(acquired: Option<Acquired<G>>) -> Option<(G, Taken)> {
    acquired.map(|acquired| match acquired {
        Acquired::Clean(guard) => (guard, Taken::Clean),
        Acquired::OwnerDied(guard, pid) => (guard, Taken::OwnerDied(pid)),
    })
}

/// Time, of which none passes while the whole machine stands still.
struct Elapsed {
    last: u64,
    time: Duration,
}

impl Elapsed {
    fn new() -> Self {
        Self { last: now(), time: Duration::ZERO }
    }

    fn step(&mut self) -> Duration {
        let now = now();
        let step = Duration::from_nanos(now - self.last).min(Duration::from_secs(1));
        self.last = now;
        step
    }

    fn more(&mut self) -> Duration {
        let step = self.step();
        self.time += step;
        self.time
    }
}

/// How long nothing has happened: to a thread, and on an object.
struct Patience {
    clock: Elapsed,
    threads: [[(u32, u64, Duration); THREADS]; PROCESSES],
    objects: [(u64, Duration); OBJECTS],
}

impl Patience {
    fn new() -> Self {
        Self {
            clock: Elapsed::new(),
            threads: [[(0, 0, Duration::ZERO); THREADS]; PROCESSES],
            objects: [(0, Duration::ZERO); OBJECTS],
        }
    }

    /// Of a plain semaphore all permits may be lost.
    fn is_tried_by(&self, object: Object) -> bool {
        self.objects[object as usize].1 > PATIENCE / 4
    }

    fn check(&mut self, arena: Arena, is_stopped: impl Fn(usize) -> bool) -> Checked {
        let step = self.clock.step();
        for (process, threads) in self.threads.iter_mut().enumerate() {
            let life = arena.current(process);
            for (number, known) in threads.iter_mut().enumerate() {
                let steps = arena.life(life).threads[number].steps.load(SeqCst);
                if (known.0, known.1) != (life, steps) || is_stopped(process) {
                    *known = (life, steps, Duration::ZERO);
                } else {
                    known.2 += step;
                }
                if known.2 > PATIENCE {
                    let thread = &arena.life(life).threads[number];
                    let at: Vec<_> = Object::ALL
                        .iter()
                        .filter(|&&object| thread.phase(object) != Phase::Away)
                        .collect();
                    return Err(format!("thread {number} of life {life} hangs, at {at:?}"));
                }
            }
        }
        for (&object, known) in Object::ALL.iter().zip(&mut self.objects) {
            let passes = arena.place(object).passes.load(SeqCst);
            if known.0 == passes {
                known.1 += step;
            } else {
                *known = (passes, Duration::ZERO);
            }
            if known.1 > PATIENCE && arena.is(ON) {
                return Err(format!("{object:?}: nobody gets on"));
            }
        }
        Ok(())
    }
}

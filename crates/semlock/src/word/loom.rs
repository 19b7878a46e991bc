//! Models of the algorithms. loom tries the orders in which their steps can happen, and the values
//! that a load can see. A model is named after what it proves.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p semlock --release --lib` runs them.
//!
//! A sleeper does not wake by itself here, unless a model gives a time. So a lost wake-up is a
//! deadlock, which loom reports. `killed_after` kills a process before one of its atomic
//! operations, and then `Life` says that the process is dead. All that is neither an atomic
//! operation nor a sleep happens at once.
//!
//! `cargo xtask mutants models` weakens each memory ordering of the algorithms, and breaks each
//! rule. It says which model notices.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::loom::cell::UnsafeCell;
use ::loom::model::Builder;
use ::loom::thread::{self, JoinHandle, Thread};

use super::barrier::{Phase, Phases};
use super::blocks::Blocks;
use super::channel::{Bell, Channel, Corrupt, Kind, Message, Record, Written};
use super::counter::Counter;
use super::event::Event;
use super::eventcount::{EventCount, WAKE_ALL_EVERY, WaitKey, WaiterFlags};
use super::permit::{Permit, Process, State, Taken};
use super::places::{Place, Places};
use super::reservation::{Acquirer, Reservation};
use super::tallies::{Role, Tallies};
use super::turns::{Freed, Permits, Turns};
use super::waiters::{NODE_WORDS, Node, Progress, Queue, Waiters, Waits};
use super::watch::{LastCheck, Watch};
use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering, killed_after};
use crate::balance::Balance;

const A: Process = Process::new(1, 1, false);
const B: Process = Process::new(2, 2, false);
const C: Process = Process::new(3, 3, false);
const D: Process = Process::new(4, 4, false);

/// An acquirer without a place, before any reservation has expired.
const NOBODY: Acquirer = Acquirer { ticket: None, clock: || 0 };
/// An acquirer without a place, after all reservations have expired.
const LATE: Acquirer = Acquirer { ticket: None, clock: || 1_000_000_000 };

const NO_PLACE: WaiterFlags = WaiterFlags { has_place: false, is_starving: false };

/// The time of a sleep that may end by itself at any moment.
const SOME_TIME: Option<Duration> = Some(Duration::from_millis(1));

/// Tries all orders.
fn model(run: impl Fn() + Send + Sync + 'static) {
    explore(None, run);
}

/// Tries all orders with at most this many preemptions in all. For models that would take many
/// seconds or minutes otherwise. (Nearly all known errors need one or two preemptions.)
fn model_with(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    explore(Some(preemptions), run);
}

/// Runs a model on each kind of futex, or once if it uses none. On the kinds that differ from
/// Linux's it tries at most `OTHERS` preemptions, and more when mutants are tried, because then
/// there is time.
fn explore(preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    const OTHERS: usize = if cfg!(semlock_mutation) { 2 } else { 1 };

    let mut builder = Builder::new();
    builder.max_branches = 10_000;
    let run = Arc::new(run);
    for kind in [FutexKind::Reporting, FutexKind::Silent, FutexKind::Polling] {
        builder.preemption_bound = match kind {
            FutexKind::Reporting => preemptions,
            FutexKind::Silent | FutexKind::Polling => {
                Some(preemptions.unwrap_or(OTHERS).min(OTHERS))
            }
        };
        FUTEX_KIND.set(kind);
        USES_FUTEX.set(false);
        let run = Arc::clone(&run);
        builder.check(move || run());
        if !USES_FUTEX.get() {
            break;
        }
    }
}

/// Starts a thread that shares something.
fn with<S: 'static, T: 'static>(
    shared: &Arc<S>,
    run: impl FnOnce(&S) -> T + 'static,
) -> JoinHandle<T> {
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared))
}

fn join<T, const N: usize>(threads: [JoinHandle<T>; N]) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn word(value: u64) -> AtomicU64 {
    AtomicU64::new(value)
}

/// Data that one thread may touch at a time, each after the one before. loom checks that.
#[derive(Default)]
struct Protected(UnsafeCell<()>);

impl Protected {
    fn write(&self) {
        self.0.with_mut(|_| ());
    }

    fn read(&self) {
        self.0.with(|_| ());
    }
}

/// Whether a process is alive.
struct Life(Process, AtomicU64);

impl Life {
    fn of(process: Process) -> Self {
        Self(process, word(0))
    }

    /// Runs this many steps of the process. It is dead then, unless that was all of them. Returns
    /// the result, if it has one.
    fn killed_after<T>(&self, steps: usize, life: impl FnOnce() -> T) -> Option<T> {
        let lived = killed_after(steps, life);
        if lived.is_none() {
            self.end();
        }
        lived
    }

    fn end(&self) {
        self.1.store(1, Ordering::Release);
    }

    /// A thread that sees that a process is dead also sees all that the process did.
    fn is_over(&self, process: Process) -> bool {
        process == self.0 && self.1.load(Ordering::Acquire) == 1
    }
}

/// The kernel's queue of sleepers, or what another system has in its place. It orders nothing but
/// the sleeps, and which sleeper is woken.
struct Sleepers {
    kind: FutexKind,
    queue: Mutex<(usize, Vec<Sleeper>)>,
}

/// The futexes that systems have.
#[derive(Clone, Copy)]
enum FutexKind {
    /// It tells whether it has woken a sleeper.
    Reporting,
    /// It does not tell.
    Silent,
    /// All sleepers poll the word. The model lets them poll when a wake-up comes: until then they
    /// may sleep, and after it none sleeps on.
    Polling,
}

std::thread_local! {
    /// Not loom's: all threads of a model are one thread of the operating system.
    static FUTEX_KIND: Cell<FutexKind> = const { Cell::new(FutexKind::Reporting) };
    /// Whether the model uses a futex.
    static USES_FUTEX: Cell<bool> = const { Cell::new(false) };
}

impl Default for Sleepers {
    fn default() -> Self {
        USES_FUTEX.set(true);
        Self { kind: FUTEX_KIND.get(), queue: Mutex::default() }
    }
}

struct Sleeper {
    word: *const AtomicU64,
    number: usize,
    /// `None` for a sleeper that does not sleep for long.
    thread: Option<Thread>,
}

impl Sleepers {
    fn add(&self, word: &AtomicU64, thread: Option<Thread>) -> usize {
        let mut sleepers = self.queue.lock().unwrap();
        sleepers.0 += 1;
        let number = sleepers.0;
        sleepers.1.push(Sleeper { word, number, thread });
        number
    }

    fn sleeps(&self, number: usize) -> bool {
        self.queue.lock().unwrap().1.iter().any(|sleeper| sleeper.number == number)
    }

    /// Ends a sleep. True if nobody has woken the sleeper.
    fn remove(&self, number: usize) -> bool {
        let slept = self.sleeps(number);
        self.queue.lock().unwrap().1.retain(|sleeper| sleeper.number != number);
        slept
    }
}

/// The latest value of a word. An exchange that fails loads it, and orders nothing.
fn latest(word: &AtomicU64) -> u64 {
    let never = u64::MAX;
    word.compare_exchange(never, never, Ordering::Relaxed, Ordering::Relaxed).unwrap_or_else(|v| v)
}

impl Futex for Sleepers {
    /// Comparing and going to sleep is one step, because loom switches threads only before a step.
    /// A process that is killed in a sleep with a time stays in the queue, and one wake-up goes to
    /// it. The kernel may do that too.
    fn wait(&self, word: &AtomicU64, expected: u32, time: Option<Duration>) -> Slept {
        if low(latest(word)) != expected {
            return Slept::Woken;
        }
        if time.is_some() {
            let number = self.add(word, None);
            latest(word);
            return if self.remove(number) { Slept::TimedOut } else { Slept::Woken };
        }
        let number = self.add(word, Some(thread::current()));
        while self.sleeps(number) {
            thread::park();
        }
        Slept::Woken
    }

    fn wake_one(&self, word: &AtomicU64) -> Woke {
        match self.kind {
            FutexKind::Reporting if self.wake(word, 1) == 0 => Woke::Nobody,
            FutexKind::Reporting => Woke::One,
            FutexKind::Silent => {
                self.wake(word, 1);
                Woke::Unknown
            }
            FutexKind::Polling => {
                self.wake(word, usize::MAX);
                Woke::Nobody
            }
        }
    }

    fn wake_all(&self, word: &AtomicU64) {
        self.wake(word, usize::MAX);
    }
}

impl Sleepers {
    /// Wakes at most this many sleepers. Returns how many it woke.
    fn wake(&self, word: &AtomicU64, most: usize) -> usize {
        latest(word);
        let mut sleepers = self.queue.lock().unwrap();
        let mut woken = 0;
        sleepers.1.retain(|sleeper| {
            let wakes = woken < most && std::ptr::eq(sleeper.word, word);
            if wakes {
                woken += 1;
                if let Some(thread) = &sleeper.thread {
                    thread.unpark();
                }
            }
            !wakes
        });
        woken
    }
}

// ---- Permits ----

struct Lock {
    permit: AtomicU64,
    eventcount: AtomicU64,
    futex: Sleepers,
    protected: Protected,
}

impl Lock {
    fn held_by(holder: Option<Process>) -> Arc<Self> {
        Arc::new(Self {
            permit: word(holder.map_or(0, Process::word)),
            eventcount: word(0),
            futex: Sleepers::default(),
            protected: Protected::default(),
        })
    }

    fn permit(&self) -> Permit<'_> {
        Permit(&self.permit)
    }

    fn eventcount(&self) -> EventCount<'_> {
        EventCount(&self.eventcount)
    }

    fn acquire(&self, me: Process) {
        wait_on(self.eventcount(), &self.futex, || self.permit().try_take(me, NOBODY));
        self.protected.write();
    }

    fn release(&self, me: Process) {
        self.protected.write();
        assert!(self.permit().free_if_held_by(me));
        self.eventcount().wake_one(&self.futex, || false);
    }

    /// Whether the permit is free, and `WAITERS` is clear.
    fn is_as_new(&self) -> bool {
        self.permit().state() == State::Free && latest(&self.eventcount) >> 32 & 1 == 0
    }
}

/// An eventcount before a wake-up that is for all, on a futex that does not tell whether it has
/// woken a sleeper.
fn before_a_wake_up_for_all(eventcount: u64) -> u64 {
    eventcount | u64::from(WAKE_ALL_EVERY - 1)
}

/// Waits as a lock does.
fn wait_on<T>(
    eventcount: EventCount<'_>,
    futex: &Sleepers,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let mut key: Option<WaitKey> = None;
    loop {
        let now = eventcount.prepare_wait(NO_PLACE, key);
        key = Some(now);
        if let Some(taken) = attempt() {
            eventcount.cancel_wait(now);
            return taken;
        }
        eventcount.sleep(futex, now, None);
    }
}

/// Waits once, for a short time.
fn try_on<T>(
    eventcount: EventCount<'_>,
    futex: &Sleepers,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let first = eventcount.prepare_wait(NO_PLACE, None);
    let mut taken = attempt();
    let mut last = first;
    if taken.is_none() {
        eventcount.sleep(futex, first, SOME_TIME);
        last = eventcount.prepare_wait(NO_PLACE, Some(first));
        taken = attempt();
    }
    eventcount.cancel_wait(last);
    taken
}

#[test]
fn a_permit_is_never_held_by_two_processes() {
    model_with(3, || {
        let lock = Lock::held_by(None);
        let take = |lock: &Lock, me| {
            if lock.permit().try_take(me, NOBODY).is_some() {
                lock.protected.write();
                assert!(lock.permit().free_if_held_by(me));
            }
        };
        let threads =
            [with(&lock, move |lock| take(lock, A)), with(&lock, move |lock| take(lock, B))];
        take(&lock, C);
        join(threads);
        assert_eq!(lock.permit().state(), State::Free);
    });
}

#[test]
fn a_permit_is_freed_once_by_its_holder_or_by_another() {
    model(|| {
        let lock = Lock::held_by(Some(A));
        let holder = with(&lock, |lock| lock.permit().free_if_held_by(A));
        let other = lock.permit().free(None);
        assert!(holder.join().unwrap() != other);
        assert_eq!(lock.permit().state(), State::Free);
    });
}

#[test]
fn a_killed_holder_is_replaced_by_one_process_that_sees_what_it_wrote() {
    for steps in 0..4 {
        model_with(2, move || {
            let shared = Arc::new((Lock::held_by(None), Life::of(A)));
            let holder = with(&shared, move |(lock, life)| {
                life.killed_after(steps, || {
                    if lock.permit().try_take(A, NOBODY).is_some() {
                        lock.protected.write();
                        lock.permit().free_if_held_by(A);
                    }
                })
            });
            let check = |(lock, life): &(Arc<Lock>, Life), me| {
                let won = match lock.permit().state() {
                    State::Held(holder) => {
                        life.is_over(holder) && lock.permit().recover(holder, me)
                    }
                    _ => lock.permit().try_take(me, NOBODY).is_some(),
                };
                if won {
                    lock.protected.write();
                }
                won
            };
            let other = with(&shared, move |shared| check(shared, B));
            let won = check(&shared, C);
            let others = other.join().unwrap();
            let lived = holder.join().unwrap().is_some();
            assert!(!(won && others));
            if !won && !others {
                // A was alive when both checked. If it is dead, a process that comes later gets the
                // permit.
                assert!(check(&shared, D) || lived);
            }
        });
    }
}

#[test]
fn a_permit_that_is_freed_as_owner_died_tells_one_acquirer() {
    model(|| {
        let lock = Lock::held_by(Some(B));
        let take = |lock: &Lock, me| {
            let taken = lock.permit().try_take(me, NOBODY);
            if taken.is_some() {
                lock.protected.write();
                lock.permit().free_if_held_by(me);
            }
            matches!(taken, Some(Taken::OwnerDied(dead)) if dead.pid() == A.pid())
        };
        let threads =
            [with(&lock, move |lock| take(lock, C)), with(&lock, move |lock| take(lock, D))];
        lock.protected.write();
        assert!(lock.permit().free_as_owner_died(B, A));
        let told = join(threads);
        let last = take(&lock, A);
        assert_eq!(told.into_iter().chain([last]).filter(|&told| told).count(), 1);
    });
}

#[test]
fn a_fork_during_a_release_leaves_the_permit_free() {
    model(|| {
        let lock = Lock::held_by(Some(A));
        let fork = with(&lock, |lock| lock.permit().mark_inherited(A));
        assert!(lock.permit().free_if_held_by(A) || lock.permit().free(None));
        fork.join().unwrap();
        assert_eq!(lock.permit().state(), State::Free);
    });
}

/// Any process may free a permit. It is held until one has.
#[test]
fn a_fork_does_not_keep_another_process_from_freeing_the_permit() {
    model(|| {
        let lock = Lock::held_by(Some(A));
        let fork = with(&lock, |lock| lock.permit().mark_inherited(A));
        assert!(lock.permit().free(None));
        fork.join().unwrap();
        assert_eq!(lock.permit().state(), State::Free);
    });
}

#[test]
fn a_fork_while_a_permit_is_freed_as_owner_died_leaves_the_permit_free() {
    model(|| {
        let lock = Lock::held_by(Some(A));
        let fork = with(&lock, |lock| lock.permit().mark_inherited(A));
        assert!(lock.permit().free_as_owner_died(A, B));
        fork.join().unwrap();
        assert!(matches!(lock.permit().state(), State::OwnerDied(dead) if dead.pid() == B.pid()));
    });
}

// ---- Eventcounts ----

#[test]
fn a_waiter_never_sleeps_beside_a_free_permit() {
    model(|| {
        let lock = Lock::held_by(Some(A));
        let waiter = with(&lock, |lock| lock.acquire(B));
        lock.release(A);
        waiter.join().unwrap();
    });
}

/// Of two waiters, the one that gets the permit wakes the other.
#[test]
fn a_cleared_waiters_bit_hides_no_sleeper() {
    for eventcount in [0, before_a_wake_up_for_all(0)] {
        model_with(3, move || a_cleared_waiters_bit_hides_no_sleeper_from(eventcount));
    }
}

fn a_cleared_waiters_bit_hides_no_sleeper_from(eventcount: u64) {
    let lock = Lock::held_by(Some(A));
    lock.eventcount.store(eventcount, Ordering::Relaxed);
    let waiters = [B, C].map(|me| {
        with(&lock, move |lock| {
            lock.acquire(me);
            lock.release(me);
        })
    });
    lock.release(A);
    join(waiters);
    assert_eq!(lock.permit().state(), State::Free);
}

#[test]
fn a_waiter_that_cancels_its_wait_takes_nothing_from_the_others() {
    model_with(3, || {
        let lock = Lock::held_by(Some(A));
        let patient = with(&lock, |lock| lock.acquire(B));
        let hasty = with(&lock, |lock| {
            if try_on(lock.eventcount(), &lock.futex, || lock.permit().try_take(C, NOBODY))
                .is_some()
            {
                lock.protected.write();
                lock.release(C);
            }
        });
        lock.release(A);
        patient.join().unwrap();
        hasty.join().unwrap();
    });
}

#[test]
fn the_only_waiter_clears_the_waiters_bit_as_it_cancels_its_wait() {
    let lock = || Lock::held_by(Some(A));
    model(move || {
        let lock = lock();
        assert!(
            try_on(lock.eventcount(), &lock.futex, || lock.permit().try_take(B, NOBODY)).is_none()
        );
        lock.release(A);
        assert!(lock.is_as_new());
    });
}

#[test]
fn a_killed_waiter_costs_one_wake_up_and_hides_no_sleeper() {
    for steps in 0..10 {
        model_with(2, move || {
            let shared = Arc::new((Lock::held_by(Some(A)), Life::of(C)));
            let patient = with(&shared, |(lock, _)| lock.acquire(B));
            let killed = with(&shared, move |(lock, life)| {
                let attempt = || lock.permit().try_take(C, NOBODY);
                life.killed_after(steps, || try_on(lock.eventcount(), &lock.futex, attempt))
            });
            let (lock, life) = &*shared;
            lock.release(A);
            let taken = killed.join().unwrap().flatten().is_some();
            // A wake-up that is lost with a killed waiter comes late, when the sleep of another one
            // ends. This stands for that.
            lock.eventcount().wake_one(&lock.futex, || false);
            if taken || lock.permit().state() == State::Held(C) {
                assert!(taken || life.is_over(C));
                lock.permit().free(None);
                lock.eventcount().wake_one(&lock.futex, || false);
            }
            patient.join().unwrap();
            // On a futex that does not tell whether it has woken a sleeper, up to 64 releases pass
            // until the bit is clear. This is the last of them.
            lock.eventcount
                .store(before_a_wake_up_for_all(latest(&lock.eventcount)), Ordering::Relaxed);
            for _ in 0..2 {
                lock.permit().free(None);
                lock.eventcount().wake_one(&lock.futex, || false);
            }
            assert!(lock.is_as_new());
        });
    }
}

#[test]
fn a_killed_holder_is_found_by_a_waiter_that_checks() {
    for steps in 0..12 {
        model_with(2, move || {
            let shared = Arc::new((Lock::held_by(None), Life::of(A)));
            let killed = with(&shared, move |(lock, life)| {
                life.killed_after(steps, || {
                    lock.acquire(A);
                    lock.release(A);
                })
            });
            let (lock, life) = &*shared;
            let attempt = || match lock.permit().state() {
                State::Held(holder) if life.is_over(holder) => {
                    lock.permit().recover(holder, B).then_some(())
                }
                _ => lock.permit().try_take(B, NOBODY).map(|_| ()),
            };
            let taken = try_on(lock.eventcount(), &lock.futex, attempt);
            if taken.is_some() {
                lock.protected.write();
                lock.release(B);
            }
            killed.join().unwrap();
            assert!(taken.is_some() || attempt().is_some());
        });
    }
}

// ---- Counters ----

fn free(value: &AtomicU64, most: u64) -> bool {
    Counter(value).free(most, None, || 0).is_some()
}

struct Semaphore {
    value: AtomicU64,
    eventcount: AtomicU64,
    futex: Sleepers,
    protected: Protected,
}

impl Semaphore {
    fn new(value: u64) -> Arc<Self> {
        Arc::new(Self {
            value: word(value),
            eventcount: word(0),
            futex: Sleepers::default(),
            protected: Protected::default(),
        })
    }

    fn acquire(&self) {
        let attempt = || Counter(&self.value).try_take(NOBODY).then_some(());
        wait_on(EventCount(&self.eventcount), &self.futex, attempt);
    }

    fn release(&self) {
        assert!(free(&self.value, 2));
        EventCount(&self.eventcount).wake_one(&self.futex, || false);
    }
}

#[test]
fn a_counter_hands_out_no_more_than_it_has_and_takes_back_no_more_than_it_may() {
    model_with(3, || {
        let counter = Semaphore::new(1);
        let take = |permits: &Semaphore| u64::from(Counter(&permits.value).try_take(NOBODY));
        let free = |permits: &Semaphore| u64::from(free(&permits.value, 2));
        let threads = [with(&counter, take), with(&counter, move |it| take(it) + 10 * free(it))];
        let freed = free(&counter) + free(&counter);
        let [taken, both] = join(threads)[..] else { unreachable!() };
        let (taken, freed) = (taken + both % 10, freed + both / 10);
        assert_eq!(Counter(&counter.value).value(|| 0) + taken, 1 + freed);
        assert!(Counter(&counter.value).value(|| 0) <= 2);
    });
}

/// The holder frees the permit and takes it again, perhaps after another thread had it, while the
/// balance is read. At no moment is it more than 1 or less than 0.
#[test]
fn a_balance_that_is_read_was_the_balance_at_one_moment() {
    model_with(4, || {
        let shared = Arc::new((word(0), [word(0), word(0), word(0)]));
        let add = |words: &[AtomicU64; 3], delta, me| {
            Balance::of(words.each_ref()).add(delta, me);
        };
        for delta in [1, -1, 1] {
            add(&shared.1, delta, 1);
        }
        let holder = with(&shared, move |(permit, words)| {
            add(words, -1, 1);
            assert!(free(permit, 1));
            if Counter(permit).try_take(NOBODY) {
                add(words, 1, 1);
            }
        });
        let other = with(&shared, move |(permit, words)| {
            if Counter(permit).try_take(NOBODY) {
                add(words, 1, 2);
                add(words, -1, 2);
                assert!(free(permit, 1));
            }
        });
        let balance = Balance::of(shared.1.each_ref()).get();
        assert!((0..=1).contains(&balance), "{balance}");
        join([holder, other]);
    });
}

#[test]
fn an_acquirer_sees_what_the_releaser_wrote() {
    model(|| {
        let counter = Semaphore::new(0);
        let releaser = with(&counter, |permits| {
            permits.protected.write();
            assert!(free(&permits.value, 1));
        });
        if Counter(&counter.value).try_take(NOBODY) {
            counter.protected.write();
        }
        releaser.join().unwrap();
    });
}

/// An acquirer may load the first value, and take a permit when the value is the same again.
#[test]
fn a_counter_with_one_permit_protects_as_a_mutex_does() {
    model(|| {
        let counter = Semaphore::new(1);
        let take = |permits: &Semaphore| {
            if Counter(&permits.value).try_take(NOBODY) {
                permits.protected.write();
                assert!(free(&permits.value, 1));
            }
        };
        let other = with(&counter, take);
        take(&counter);
        other.join().unwrap();
    });
}

#[test]
fn an_acquirer_of_both_permits_sees_what_both_releasers_wrote() {
    model(|| {
        let shared = Arc::new((word(0), Protected::default(), Protected::default()));
        let first = with(&shared, |(value, first, _)| {
            first.write();
            assert!(free(value, 2));
        });
        let second = with(&shared, |(value, _, second)| {
            second.write();
            assert!(free(value, 2));
        });
        let (value, a, b) = &*shared;
        if Counter(value).try_take(NOBODY) && Counter(value).try_take(NOBODY) {
            a.write();
            b.write();
        }
        first.join().unwrap();
        second.join().unwrap();
    });
}

#[test]
fn two_releases_wake_two_sleepers_of_a_semaphore() {
    model_with(2, || {
        let permits = Semaphore::new(0);
        let waiters = [with(&permits, Semaphore::acquire), with(&permits, Semaphore::acquire)];
        permits.release();
        permits.release();
        join(waiters);
    });
}

#[test]
fn two_releases_at_once_wake_two_sleepers_of_a_semaphore() {
    model_with(2, || {
        let permits = Semaphore::new(0);
        let waiters = [with(&permits, Semaphore::acquire), with(&permits, Semaphore::acquire)];
        let other = with(&permits, Semaphore::release);
        permits.release();
        join(waiters);
        other.join().unwrap();
    });
}

/// The waiters search a robust semaphore's permits one by one, from different ends.
#[test]
fn a_waiter_never_sleeps_beside_one_of_several_free_permits() {
    model_with(2, || {
        let shared = Arc::new(([word(A.word()), word(A.word())], word(0), Sleepers::default()));
        let take = |words: &[AtomicU64; 2], from: usize, me| {
            [from, 1 - from]
                .into_iter()
                .find(|&at| Permit(&words[at]).try_take(me, NOBODY).is_some())
        };
        let waiters = [(0, B), (1, C)].map(|(from, me)| {
            with(&shared, move |(words, eventcount, futex)| {
                let at = wait_on(EventCount(eventcount), futex, || take(words, from, me));
                assert!(Permit(&words[at]).free_if_held_by(me));
                EventCount(eventcount).wake_one(futex, || false);
            })
        });
        let (words, eventcount, futex) = &*shared;
        // A frees one permit, tries to take one again, and frees the other.
        assert!(Permit(&words[0]).free_if_held_by(A));
        EventCount(eventcount).wake_one(futex, || false);
        let at = take(words, 0, A);
        assert!(Permit(&words[1]).free_if_held_by(A));
        EventCount(eventcount).wake_one(futex, || false);
        if at.is_some() {
            words.iter().find(|&word| Permit(word).free_if_held_by(A));
            EventCount(eventcount).wake_one(futex, || false);
        }
        join(waiters);
    });
}

// ---- Many permits ----

/// A robust semaphore of two permits, each in a block of its own. A holds both, and a hint may say
/// otherwise.
struct TwoPermits {
    permits: [AtomicU64; 2],
    hint: [AtomicU64; 1],
    eventcount: AtomicU64,
    futex: Sleepers,
}

impl TwoPermits {
    fn held(hint: u64) -> Self {
        Self {
            permits: [word(A.word()), word(A.word())],
            hint: [word(hint)],
            eventcount: word(0),
            futex: Sleepers::default(),
        }
    }

    fn blocks(&self) -> Blocks<'_> {
        Blocks { permits: &self.permits, hints: &self.hint }
    }

    fn take(&self, from: usize, me: Process) -> Option<usize> {
        self.blocks().find(from, |permit| permit.try_take(me, NOBODY)).map(|(index, _)| index)
    }

    fn free(&self, index: usize, me: Process) {
        assert!(Permit(&self.permits[index]).free_if_held_by(me));
        self.blocks().set_hint(index);
        EventCount(&self.eventcount).wake_one(&self.futex, || false);
    }

    fn is_held(&self, index: usize) -> bool {
        matches!(Permit(&self.permits[index]).state(), State::Held(_))
    }
}

#[test]
fn a_waiter_that_uses_hints_never_sleeps_beside_a_free_permit() {
    for hint in [0b00, 0b01, 0b11] {
        model_with(2, move || {
            let two = Arc::new(TwoPermits::held(hint));
            let waiters = [(0, B), (1, C)].map(|(from, me)| {
                with(&two, move |two| {
                    let at =
                        wait_on(EventCount(&two.eventcount), &two.futex, || two.take(from, me));
                    two.free(at, me);
                })
            });
            two.free(1, A);
            join(waiters);
        });
    }
}

/// After a release is over, a search finds the permit until it is taken, whatever acquirers do that
/// search in vain meanwhile.
#[test]
fn a_released_permit_is_found_while_others_find_none() {
    for hint in [0b00, 0b11] {
        model_with(2, move || {
            let two = Arc::new(TwoPermits::held(hint));
            let searcher = with(&two, |two| two.take(0, B).is_some());
            two.free(0, A);
            two.free(1, A);
            // The other acquirer takes one permit at most.
            assert!(two.take(0, A).is_some());
            let left = two.take(0, A).is_some();
            let took = searcher.join().unwrap();
            assert!(left || took || two.take(0, A).is_some());
        });
    }
}

#[test]
fn a_reserved_permit_is_found_by_its_waiter() {
    model_with(2, || {
        let two = Arc::new(TwoPermits::held(0b11));
        let others = with(&two, |two| two.take(0, B));
        let reserved = Reservation::new(7, 0);
        assert!(Permit(&two.permits[0]).reserve_if_held_by(A, Some(reserved)));
        two.blocks().set_hint(0);
        assert_eq!(two.take(0, C), None);
        let first = Acquirer { ticket: Some(7), ..NOBODY };
        let found = two.blocks().find(0, |permit| permit.try_take(C, first));
        assert_eq!(found, Some((0, Taken::Clean)));
        assert_eq!(others.join().unwrap(), None);
    });
}

/// A releaser is killed at any step while an acquirer searches. The full search finds the permit
/// that it freed, if nobody has taken it.
#[test]
fn a_permit_whose_releaser_was_killed_is_found_by_the_full_search() {
    for steps in 0..6 {
        model_with(2, move || {
            let two = Arc::new(TwoPermits::held(0b11));
            let searcher = with(&two, |two| two.take(0, B).is_some());
            killed_after(steps, || two.free(0, A));
            let took = searcher.join().unwrap();
            for index in [0, 1] {
                if !two.is_held(index) {
                    two.blocks().set_lost_hint(index);
                }
            }
            let is_free = !two.is_held(0);
            assert_eq!(two.take(0, C).is_some(), is_free);
            assert!(!(took && is_free));
        });
    }
}

// ---- Turns ----

/// A lock whose waiters have places. It has one permit, or a counter.
struct LockWithPlaces {
    permit: AtomicU64,
    counts: bool,
    eventcount: AtomicU64,
    nodes: Vec<AtomicU64>,
    used: AtomicU64,
    tickets: AtomicU64,
    futex: Sleepers,
    protected: Protected,
}

/// A waiter that has a place and has prepared to wait.
struct WaiterInPlace {
    place: Place,
    key: WaitKey,
    is_starving: bool,
}

impl LockWithPlaces {
    fn held() -> Self {
        Self {
            permit: word(A.word()),
            counts: false,
            eventcount: word(0),
            nodes: (0..2 * NODE_WORDS).map(|_| word(0)).collect(),
            used: word(0),
            tickets: word(0),
            futex: Sleepers::default(),
            protected: Protected::default(),
        }
    }

    fn counting() -> Self {
        Self { permit: word(0), counts: true, ..Self::held() }
    }

    fn places(&self) -> Places<'_> {
        let table = Waiters { nodes: &self.nodes, used: &self.used };
        Places { table, slot: 1, tickets: &self.tickets }
    }

    fn turns(&self) -> Turns<'_> {
        Turns { eventcount: EventCount(&self.eventcount), places: Some(self.places()) }
    }

    fn try_take(&self, me: Process, acquirer: Acquirer) -> bool {
        if self.counts {
            Counter(&self.permit).try_take(acquirer)
        } else {
            Permit(&self.permit).try_take(me, acquirer).is_some()
        }
    }

    fn attempt(&self, me: Process, waiter: &WaiterInPlace) -> bool {
        self.try_take(me, Acquirer { ticket: Some(waiter.place.ticket()), ..NOBODY })
    }

    fn enter(&self, me: Process, is_starving: bool) -> WaiterInPlace {
        let place = self.places().enter(me).unwrap();
        let flags = WaiterFlags { has_place: true, is_starving };
        WaiterInPlace {
            place,
            key: EventCount(&self.eventcount).prepare_wait(flags, None),
            is_starving,
        }
    }

    fn wait_again(&self, waiter: &mut WaiterInPlace) {
        self.places().wait_again(&waiter.place);
        let flags = WaiterFlags { has_place: true, is_starving: waiter.is_starving };
        waiter.key = EventCount(&self.eventcount).prepare_wait(flags, Some(waiter.key));
    }

    /// Waits as a lock does, after it has prepared to wait.
    fn wait(&self, me: Process, mut waiter: WaiterInPlace) {
        loop {
            if self.attempt(me, &waiter) {
                break;
            }
            self.places().sleep(&self.futex, &waiter.place, None);
            if self.attempt(me, &waiter) {
                break;
            }
            self.wait_again(&mut waiter);
        }
        self.end(&waiter, true);
    }

    /// Waits once, for a short time.
    fn wait_shortly(&self, me: Process, mut waiter: WaiterInPlace) -> bool {
        let mut got = self.attempt(me, &waiter);
        if !got {
            self.places().sleep(&self.futex, &waiter.place, SOME_TIME);
            self.wait_again(&mut waiter);
            got = self.attempt(me, &waiter);
        }
        self.end(&waiter, got);
        got
    }

    fn end(&self, waiter: &WaiterInPlace, acquired: bool) {
        EventCount(&self.eventcount).cancel_wait(waiter.key);
        self.turns().leave(&self.futex, self, &waiter.place, acquired, waiter.is_starving);
    }

    fn release(&self, me: Process) {
        self.release_beside(me, &mut |_| false);
    }

    /// Releases as a lock does.
    fn release_beside(&self, me: Process, is_dead: &mut impl FnMut(Process) -> bool) {
        if EventCount(&self.eventcount).is_in_turn() {
            let freed = self.turns().release(&self.futex, self, NOBODY.clock, me, is_dead);
            freed.expect("there is something to free");
        } else {
            self.free(None).expect("there is something to free");
            self.turns().wake_one(&self.futex, None);
        }
    }

    /// Takes a permit if one is left, reserved or not. True if one was.
    fn is_left(&self) -> bool {
        self.try_take(D, LATE)
    }
}

impl Permits for LockWithPlaces {
    type Refused = &'static str;

    fn free(&self, next: Option<Reservation>) -> Result<Freed, &'static str> {
        if self.counts {
            return Counter(&self.permit).free(2, next, NOBODY.clock).ok_or("too many");
        }
        let freed = if next.is_some() { Freed::ForOne } else { Freed::ForAll };
        if Permit(&self.permit).free(next) { Ok(freed) } else { Err("it is free") }
    }

    fn replace_reservation(&self, reserved: Reservation, next: Option<Reservation>) -> bool {
        if self.counts {
            Counter(&self.permit).replace_reservation(reserved, next)
        } else {
            Permit(&self.permit).replace_reservation(reserved, next)
        }
    }

    fn cancel_reservation(&self, ticket: u64) -> bool {
        if self.counts {
            Counter(&self.permit).cancel_reservation(ticket)
        } else {
            Permit(&self.permit).cancel_reservation(ticket)
        }
    }
}

#[test]
fn a_waiter_in_its_place_never_sleeps_beside_a_free_permit() {
    for is_starving in [false, true] {
        model_with(1, move || {
            let lock = Arc::new(LockWithPlaces::held());
            let waiter = |me| {
                with(&lock, move |lock: &LockWithPlaces| {
                    let waiter = lock.enter(me, is_starving);
                    lock.wait(me, waiter);
                    lock.protected.write();
                    lock.release(me);
                })
            };
            let waiters = [waiter(B), waiter(C)];
            lock.protected.write();
            lock.release(A);
            join(waiters);
            assert!(lock.is_left());
        });
    }
}

#[test]
fn a_waiter_that_gives_up_passes_its_wake_up_on() {
    for is_starving in [false, true] {
        model_with(1, move || {
            let lock = Arc::new(LockWithPlaces::held());
            let (first, second) = (lock.enter(B, is_starving), lock.enter(C, is_starving));
            let first = with(&lock, move |lock| {
                if lock.wait_shortly(B, first) {
                    lock.protected.write();
                    lock.release(B);
                }
            });
            let second = with(&lock, move |lock| {
                lock.wait(C, second);
                lock.protected.write();
            });
            lock.protected.write();
            lock.release(A);
            join([first, second]);
        });
    }
}

/// It is killed before it sleeps, so nobody sleeps at its place.
#[test]
fn a_release_that_finds_a_killed_waiter_first_wakes_the_next() {
    model_with(2, || {
        let lock = Arc::new(LockWithPlaces::held());
        if matches!(lock.futex.kind, FutexKind::Silent) {
            // There nobody can tell, and the next one sleeps on, until its sleep ends.
            return;
        }
        let _killed = lock.enter(B, false);
        let waiter = lock.enter(C, false);
        let waiter = with(&lock, move |lock| {
            lock.wait(C, waiter);
            lock.protected.write();
        });
        lock.protected.write();
        lock.release(A);
        waiter.join().unwrap();
    });
}

/// After the holder has released the permit, no acquirer gets it before the starving waiter.
#[test]
fn a_waiter_that_waits_again_as_a_permit_is_reserved_for_it_takes_it() {
    model_with(3, || {
        let lock = Arc::new(LockWithPlaces::held());
        let mut waiter = lock.enter(B, true);
        // It was woken in vain.
        lock.places().wake_first(&lock.futex, None);
        let waiter = with(&lock, move |lock| {
            lock.wait_again(&mut waiter);
            lock.wait(B, waiter);
        });
        lock.release(A);
        waiter.join().unwrap();
    });
}

#[test]
fn an_acquirer_that_comes_by_does_not_overtake_a_starving_waiter() {
    model_with(3, || {
        let shared = Arc::new((LockWithPlaces::held(), word(0)));
        let first = shared.0.enter(B, true);
        let waiter = with(&shared, move |(lock, was_in)| {
            lock.wait(B, first);
            lock.protected.write();
            was_in.store(1, Ordering::Relaxed);
            lock.release(B);
        });
        let (lock, was_in) = &*shared;
        lock.protected.write();
        lock.release(A);
        for _ in 0..2 {
            if lock.try_take(A, NOBODY) {
                lock.protected.write();
                assert_eq!(was_in.load(Ordering::Relaxed), 1);
                lock.release(A);
            }
        }
        waiter.join().unwrap();
        assert!(lock.is_left());
    });
}

/// Another acquirer is faster twice. The first waiter is woken in vain each time, and still is the
/// first.
#[test]
fn a_waiter_that_was_woken_and_got_nothing_stays_before_later_waiters() {
    model_with(1, || {
        let lock = Arc::new(LockWithPlaces::held());
        let mut first = lock.enter(B, false);
        let second = lock.enter(C, false);
        for _ in 0..2 {
            lock.release(A);
            assert!(lock.try_take(A, NOBODY));
            lock.wait_again(&mut first);
        }
        assert_eq!(lock.places().first().map(|first| first.ticket()), Some(first.place.ticket()));
        let waiters = [(B, first), (C, second)].map(|(me, waiter)| {
            with(&lock, move |lock| {
                lock.wait(me, waiter);
                lock.protected.write();
                lock.release(me);
            })
        });
        lock.protected.write();
        lock.release(A);
        join(waiters);
        assert!(lock.is_left());
    });
}

/// Why there are places. If waiters sleep on the eventcount and wake to check, a waiter that came
/// first may be behind a later one.
#[test]
#[should_panic(expected = "the second was first")]
fn without_places_a_later_waiter_can_be_first() {
    model_with(2, || {
        let lock = Lock::held_by(Some(A));
        let first = lock.eventcount().prepare_wait(NO_PLACE, None);
        let second = with(&lock, move |lock| {
            let key = lock.eventcount().prepare_wait(NO_PLACE, None);
            lock.eventcount().sleep(&lock.futex, key, SOME_TIME);
            lock.permit().try_take(C, NOBODY).is_some()
        });
        // It wakes to check, and sleeps again.
        lock.eventcount().sleep(&lock.futex, first, SOME_TIME);
        lock.release(A);
        let was_first = lock.permit().try_take(B, NOBODY).is_some();
        assert!(!second.join().unwrap() || was_first, "the second was first");
    });
}

#[test]
fn a_counter_in_turn_loses_no_permit() {
    model_with(1, || {
        let lock = Arc::new(LockWithPlaces::counting());
        let (first, second) = (lock.enter(B, true), lock.enter(C, true));
        let first = with(&lock, move |lock| lock.wait_shortly(B, first));
        lock.release(A);
        lock.release(A);
        let got = [lock.wait_shortly(C, second), first.join().unwrap()];
        let got = got.into_iter().filter(|&got| got).count();
        let left = [(); 3].into_iter().filter(|()| lock.is_left()).count();
        assert_eq!(got + left, 2);
    });
}

#[test]
fn two_releases_of_a_counter_in_turn_wake_two_waiters() {
    model_with(1, || {
        let lock = Arc::new(LockWithPlaces::counting());
        let (first, second) = (lock.enter(B, true), lock.enter(C, true));
        let first = with(&lock, move |lock| lock.wait(B, first));
        let second = with(&lock, move |lock| lock.wait(C, second));
        lock.release(A);
        lock.release(A);
        join([first, second]);
    });
}

#[test]
fn a_releaser_that_is_killed_in_turn_leaves_its_permit_to_later_acquirers() {
    for steps in 0..12 {
        model_with(2, move || {
            let shared = Arc::new((LockWithPlaces::held(), Life::of(A)));
            let mut first = shared.0.enter(B, true);
            let releaser = with(&shared, move |(lock, life)| {
                life.killed_after(steps, || lock.release(A));
            });
            let (lock, life) = &*shared;
            let mut got = lock.attempt(B, &first);
            releaser.join().unwrap();
            if !got {
                lock.wait_again(&mut first);
                got = lock.attempt(B, &first) || lock.is_left();
            }
            // Otherwise the releaser was killed before it freed the permit.
            let holder = Permit(&lock.permit).state();
            assert!(got || matches!(holder, State::Held(dead) if life.is_over(dead)));
        });
    }
}

#[test]
fn a_waiter_that_is_killed_keeps_no_permit_and_no_place_for_long() {
    for steps in 0..14 {
        model_with(2, move || {
            let shared = Arc::new((LockWithPlaces::held(), Life::of(B)));
            let first = shared.0.enter(B, true);
            let mut second = shared.0.enter(C, true);
            let waiter = with(&shared, move |(lock, life)| {
                life.killed_after(steps, || {
                    if lock.wait_shortly(B, first) {
                        lock.release(B);
                    }
                })
                .is_some()
            });
            let (lock, life) = &*shared;
            lock.release_beside(A, &mut |process| life.is_over(process));
            let lived = waiter.join().unwrap();
            let held = matches!(Permit(&lock.permit).state(), State::Held(_));
            assert!(!(lived && held));
            // If B was killed with the permit, a liveness check finds that. Otherwise the permit is
            // left.
            assert!(held || lock.attempt(C, &second) || lock.is_left());
            lock.places().reclaim(C, &mut |process| process == B && !lived);
            lock.wait_again(&mut second);
            assert_eq!(lock.places().first().map(|it| it.ticket()), Some(second.place.ticket()));
            lock.places().leave(&second.place);
            // Both places can be used again.
            assert!(lock.places().enter(C).is_some() && lock.places().enter(C).is_some());
        });
    }
}

#[test]
fn a_waiter_that_leaves_after_it_was_woken_wakes_the_next() {
    for is_starving in [false, true] {
        model_with(2, move || {
            let lock = Arc::new(LockWithPlaces::held());
            let [first, second] = [B, C].map(|me| lock.enter(me, is_starving));
            let second = with(&lock, move |lock| lock.wait(C, second));
            // The first waiter sleeps, and the release wakes it.
            lock.futex.add(&lock.nodes[1], None);
            lock.release(A);
            lock.end(&first, false);
            second.join().unwrap();
        });
    }
}

#[test]
fn the_wake_up_of_a_dead_waiter_goes_to_the_next_when_its_place_is_reclaimed() {
    model_with(2, || {
        let lock = Arc::new(LockWithPlaces::held());
        let [_dead, second] = [B, C].map(|me| lock.enter(me, false));
        // The first waiter dies in its sleep, when the release has woken it.
        lock.futex.add(&lock.nodes[1], None);
        lock.release(A);
        let reclaimer = with(&lock, |lock| {
            if lock.places().reclaim_woken(D, &mut |process| process == B) {
                lock.turns().wake_one(&lock.futex, None);
            }
        });
        lock.wait(C, second);
        reclaimer.join().unwrap();
    });
}

// ---- Events ----

#[derive(Default)]
struct Signal {
    futex: Sleepers,
    written: Protected,
}

fn wait_for(event: Event<'_>, futex: &Sleepers, epoch: u32) {
    while !event.passed(epoch) {
        event.sleep(futex, epoch, None);
    }
}

#[test]
fn a_set_wakes_all_waiters_and_they_see_what_was_written_before() {
    model_with(3, || {
        let shared = Arc::new((word(0), Signal::default()));
        let waiters = [(); 2].map(|()| {
            with(&shared, |(event, signal)| {
                let event = Event(event);
                wait_for(event, &signal.futex, event.epoch());
                signal.written.read();
            })
        });
        let (event, signal) = &*shared;
        signal.written.write();
        Event(event).set(&signal.futex);
        join(waiters);
    });
}

#[test]
fn a_set_before_a_clear_wakes_the_waiter() {
    model(|| {
        let shared = Arc::new((word(0), Signal::default()));
        let epoch = Event(&shared.0).epoch();
        let waiter = with(&shared, move |(event, signal)| {
            wait_for(Event(event), &signal.futex, epoch);
            signal.written.read();
        });
        let (event, signal) = &*shared;
        signal.written.write();
        Event(event).set(&signal.futex);
        Event(event).clear();
        assert!(!Event(event).is_set());
        waiter.join().unwrap();
    });
}

#[test]
fn two_sets_at_once_wake_the_waiter_beside_one_that_gives_up() {
    model_with(2, || {
        let shared = Arc::new((word(0), Signal::default()));
        let patient = with(&shared, |(event, signal)| {
            let event = Event(event);
            wait_for(event, &signal.futex, event.epoch());
        });
        let hasty = with(&shared, |(event, signal)| {
            let event = Event(event);
            event.sleep(&signal.futex, event.epoch(), SOME_TIME);
        });
        let other = with(&shared, |(event, signal)| Event(event).set(&signal.futex));
        let (event, signal) = &*shared;
        Event(event).set(&signal.futex);
        for thread in [patient, hasty, other] {
            thread.join().unwrap();
        }
        assert!(Event(event).is_set());
    });
}

/// A worker clears the event and then checks what there is to do.
#[test]
fn a_set_of_a_set_event_is_not_lost_to_a_clear() {
    model(|| {
        let shared = Arc::new((word(0), Signal::default(), word(0)));
        let (event, signal, work) = &*shared;
        Event(event).set(&signal.futex);
        let maker = with(&shared, |(event, signal, work)| {
            work.store(1, Ordering::Relaxed);
            Event(event).set(&signal.futex);
        });
        Event(event).clear();
        let seen = work.load(Ordering::Relaxed) == 1;
        maker.join().unwrap();
        assert!(seen || Event(event).is_set());
    });
}

/// The clear is a worker's, which then checks what there is to do. It must see the work, whether it
/// has cleared the event itself or another thread has.
#[test]
fn a_clear_that_comes_second_sees_what_was_written_before_the_set() {
    model(|| {
        let shared = Arc::new((word(0), Signal::default(), word(0)));
        let (event, signal, work) = &*shared;
        Event(event).set(&signal.futex);
        let epoch = Event(event).epoch();
        let maker = with(&shared, |(event, signal, work)| {
            work.store(1, Ordering::Relaxed);
            Event(event).set(&signal.futex);
            Event(event).clear();
        });
        Event(event).clear();
        let seen = work.load(Ordering::Relaxed) == 1;
        maker.join().unwrap();
        // If the epoch has changed, the maker has set the event after the worker cleared it.
        assert!(seen || Event(event).epoch() != epoch);
    });
}

// ---- Waiters ----

const CONDITION: u64 = 5;
const BARRIER: u64 = 9;

struct Table {
    nodes: Vec<AtomicU64>,
    used: AtomicU64,
    tickets: [AtomicU64; 2],
    notified_at: AtomicU64,
    empty_at: AtomicU64,
    phase: AtomicU64,
    futex: Sleepers,
    protected: Protected,
    life: Life,
}

impl Table {
    /// A table of this many nodes. D is the process that may die.
    fn new(nodes: usize) -> Arc<Self> {
        Arc::new(Self {
            nodes: (0..nodes * NODE_WORDS).map(|_| word(0)).collect(),
            used: word(0),
            tickets: [word(0), word(0)],
            notified_at: word(0),
            empty_at: word(0),
            phase: word(0),
            futex: Sleepers::default(),
            protected: Protected::default(),
            life: Life::of(D),
        })
    }

    fn waiters(&self) -> Waiters<'_> {
        Waiters { nodes: &self.nodes, used: &self.used }
    }

    fn condition(&self) -> Queue<'_> {
        Queue {
            waiters: self.waiters(),
            slot: CONDITION,
            tickets: &self.tickets[0],
            waits: Waits::ForNotify,
        }
    }

    fn barrier(&self) -> Queue<'_> {
        Queue {
            waiters: self.waiters(),
            slot: BARRIER,
            tickets: &self.tickets[1],
            waits: Waits::ForMembers,
        }
    }

    fn enter(&self, me: Process) -> Node {
        self.condition().enter(me).unwrap()
    }

    /// Notifies as a condition does, with its shortcut for an empty table.
    fn notify(&self, most: usize, me: Process) -> usize {
        let tickets = self.tickets[0].load(Ordering::Acquire);
        if tickets == self.empty_at.load(Ordering::Acquire) {
            return 0;
        }
        self.notified_at.store(tickets, Ordering::Release);
        let is_dead = &mut |process| self.life.is_over(process);
        let notified = self.condition().notify(&self.futex, most, tickets, me, is_dead);
        if self.condition().waiting() == 0 {
            self.empty_at.store(tickets, Ordering::Release);
        }
        notified
    }

    /// The number of tickets at the last `notify` of the only condition.
    fn before(&self) -> impl Fn(u64) -> u64 + '_ {
        |slot| {
            assert_eq!(slot, self.condition().slot);
            self.notified_at.load(Ordering::Relaxed)
        }
    }

    fn pass_on(&self, me: Process) {
        let is_dead = &mut |process| self.life.is_over(process);
        self.condition().pass_on(&self.futex, &self.before(), me, is_dead);
    }

    fn reclaim(&self, me: Process) {
        let is_dead = &mut |process| self.life.is_over(process);
        self.condition().reclaim(&self.futex, &self.before(), me, is_dead);
    }

    fn has_passed(&self, node: &Node) -> bool {
        self.condition().progress(node) == Progress::Passed
    }

    /// Sleeps until the node is notified.
    fn sleep(&self, node: &Node) {
        while self.condition().progress(node) == Progress::Waiting {
            self.condition().sleep(&self.futex, node, None);
        }
    }

    fn leave(&self, node: &Node) -> bool {
        self.condition().leave(node) == Progress::Passed
    }

    fn node(&self, index: usize) -> [u64; 2] {
        [latest(&self.nodes[2 * index]), latest(&self.nodes[2 * index + 1])]
    }

    /// Does in the end what a watcher does, and a process that finds the table full.
    fn tidy(&self) {
        self.tidy_with(&mut |process| self.life.is_over(process));
    }

    fn tidy_with(&self, is_dead: &mut impl FnMut(Process) -> bool) {
        self.condition().pass_on(&self.futex, &self.before(), C, is_dead);
        self.condition().reclaim(&self.futex, &self.before(), C, is_dead);
    }
}

#[test]
fn a_node_belongs_to_one_process() {
    model(|| {
        let table = Table::new(2);
        let enter = |me| {
            move |table: &Table| {
                let node = table.enter(me);
                assert_eq!(table.condition().progress(&node), Progress::Waiting);
                assert!(!table.leave(&node));
                assert_eq!(table.condition().waiters.used.load(Ordering::Relaxed) & !3, 0);
            }
        };
        let other = with(&table, enter(A));
        enter(B)(&table);
        other.join().unwrap();
        assert_eq!((table.node(0), table.node(1)), ([0; 2], [0; 2]));
    });
}

/// Two processes use one node, one after the other. The leaving of the first must not change the
/// wait of the second.
#[test]
fn a_node_that_is_used_again_is_idle() {
    model(|| {
        let table = Table::new(1);
        let first = table.enter(A);
        let other = with(&table, |table| {
            let node = table.condition().enter(B)?;
            let waits = table.condition().progress(&node) == Progress::Waiting;
            assert!(waits && table.node(0)[0] == B.word() && table.node(0)[1] != 0);
            Some(node)
        });
        table.leave(&first);
        if let Some(node) = other.join().unwrap() {
            assert_eq!(table.condition().waiting(), 1);
            assert!(!table.leave(&node));
        }
        assert_eq!(table.node(0), [0; 2]);
    });
}

#[test]
fn a_notified_waiter_wakes_and_sees_what_was_written_before() {
    model(|| {
        let table = Table::new(1);
        let node = table.enter(A);
        let waiter = with(&table, move |table| {
            table.sleep(&node);
            table.protected.read();
            assert!(table.leave(&node));
        });
        table.protected.write();
        assert_eq!(table.notify(1, B), 1);
        waiter.join().unwrap();
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The waiter learns that it was notified only as it leaves.
#[test]
fn a_waiter_that_is_notified_as_it_times_out_sees_what_was_written_before() {
    model(|| {
        let table = Table::new(1);
        let node = table.enter(A);
        let waiter = with(&table, move |table| {
            table.condition().sleep(&table.futex, &node, SOME_TIME);
            if table.leave(&node) {
                table.protected.read();
            }
        });
        table.protected.write();
        table.notify(1, B);
        waiter.join().unwrap();
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The two happen without the condition's lock, which usually orders them.
#[test]
fn a_waiter_that_enters_before_a_notify_is_notified_though_the_table_was_empty() {
    model_with(3, || {
        let shared = Arc::new((Table::new(1), word(0)));
        let waiter = with(&shared, |(table, entered)| {
            let node = table.enter(A);
            entered.store(1, Ordering::Relaxed);
            table.sleep(&node);
        });
        let (table, entered) = &*shared;
        let entered_before = latest(entered) == 1;
        let notified = table.notify(1, B);
        // Nothing but the number of tickets orders this load after the entering.
        assert!(notified == 1 || !entered_before || entered.load(Ordering::Relaxed) == 1);
        while notified == 0 && table.notify(1, B) == 0 {
            thread::yield_now();
        }
        waiter.join().unwrap();
    });
}

#[test]
fn a_timeout_during_a_notify_loses_no_notification() {
    model(|| {
        let table = Table::new(2);
        let (hasty, patient) = (table.enter(A), table.enter(B));
        let first = with(&table, move |table| {
            table.condition().sleep(&table.futex, &hasty, SOME_TIME);
            table.leave(&hasty)
        });
        assert_eq!(table.notify(1, C), 1);
        assert!(first.join().unwrap() != table.has_passed(&patient));
    });
}

#[test]
fn two_notifies_at_once_notify_two_waiters() {
    model_with(2, || {
        let table = Table::new(2);
        let waiters = [A, B].map(|me| {
            let node = table.enter(me);
            with(&table, move |table| table.sleep(&node))
        });
        let other = with(&table, |table| table.notify(1, C));
        assert_eq!(table.notify(1, D), 1);
        assert_eq!(other.join().unwrap(), 1);
        join(waiters);
    });
}

#[test]
fn a_notify_of_all_wakes_all() {
    model_with(3, || {
        let table = Table::new(2);
        let waiters = [A, B].map(|me| {
            let node = table.enter(me);
            with(&table, move |table| table.sleep(&node))
        });
        assert_eq!(table.notify(usize::MAX, C), 2);
        join(waiters);
        assert_eq!(table.notify(1, C), 0);
    });
}

/// No waiter watches, so the notifier has to check. (A waiter may die just after that.)
#[test]
fn a_notification_does_not_go_to_a_waiter_that_died_before() {
    model(|| {
        let table = Table::new(3);
        let (_oldest, other) = (table.enter(D), table.enter(A));
        table.life.end();
        let latest = with(&table, |table| table.enter(B));
        assert_eq!(table.notify(1, C), 1);
        latest.join().unwrap();
        assert!(table.has_passed(&other));
    });
}

/// The waiter is killed at any step, also asleep, while another one watches.
#[test]
fn a_dead_waiters_notification_reaches_exactly_one_waiter() {
    for steps in 0..6 {
        model_with(2, move || {
            let table = Table::new(2);
            let (doomed, patient) = (table.enter(D), table.enter(A));
            let killed = with(&table, move |table| {
                let leaves = Cell::new(false);
                let left = table.life.killed_after(steps, || {
                    table.condition().sleep(&table.futex, &doomed, SOME_TIME);
                    leaves.set(true);
                    table.leave(&doomed)
                });
                // If the waiter is killed while it leaves, it may have used the notification.
                if left.is_none() && leaves.get() { None } else { Some(left == Some(true)) }
            });
            let watcher = with(&table, |table| table.pass_on(A));
            assert_eq!(table.notify(1, B), 1);
            watcher.join().unwrap();
            let consumed = killed.join().unwrap();
            table.tidy();
            assert!(consumed.is_none_or(|consumed| consumed != table.has_passed(&patient)));
            assert_eq!(table.node(0), [0; 2]);
        });
    }
}

/// The watcher sees a notified node whose waiter is alive. Then it takes the node over from the
/// next waiter that had it.
#[test]
fn a_notification_in_a_node_that_is_used_again_is_not_lost() {
    model_with(2, || {
        let table = Table::new(2);
        let first = table.enter(B);
        assert_eq!(table.notify(1, C), 1);
        let watcher = with(&table, |table| table.pass_on(A));
        assert!(table.leave(&first));
        table.enter(D);
        let patient = table.enter(A);
        table.life.end();
        // The wake-up reaches the dying process, so the notifier does not check it.
        table.futex.add(&table.nodes[1], None);
        assert_eq!(table.notify(1, C), 1);
        watcher.join().unwrap();
        table.tidy();
        assert!(table.has_passed(&patient));
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The notifier is interrupted. Meanwhile the waiter leaves, becomes a member of a barrier in the
/// same node, and dies.
#[test]
fn a_notify_does_not_clear_the_node_of_a_process_that_died_in_another_wait() {
    model_with(2, || {
        let table = Table::new(1);
        let doomed = table.enter(D);
        let notifier = with(&table, |table| table.notify(1, C));
        table.leave(&doomed);
        let _ = table.barrier().enter(D).unwrap();
        table.life.end();
        notifier.join().unwrap();
        let is_dead = &mut |process| table.life.is_over(process);
        assert!(table.barrier().has_dead_waiter(is_dead));
    });
}

/// The watcher knows the number of tickets at the last notify, even if that began after the watcher
/// did.
#[test]
fn a_watcher_that_checks_during_a_notify_passes_on_to_a_waiter_that_was_there() {
    model_with(2, || {
        let table = Table::new(2);
        table.enter(D);
        let patient = table.enter(A);
        let watcher = with(&table, |table| table.pass_on(A));
        table.futex.add(&table.nodes[1], None);
        table.life.end();
        assert_eq!(table.notify(1, C), 1);
        watcher.join().unwrap();
        table.tidy();
        assert!(table.has_passed(&patient));
    });
}

#[test]
fn a_notification_does_not_go_to_a_waiter_that_came_later() {
    model(|| {
        let table = Table::new(2);
        table.enter(D);
        table.futex.add(&table.nodes[1], None);
        assert_eq!(table.notify(1, C), 1);
        table.life.end();
        let late = table.enter(A);
        table.tidy();
        assert!(!table.has_passed(&late));
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The process that passes the notification on is killed at any step. That wakes one waiter too
/// many at most, and loses nothing.
#[test]
fn a_notification_outlives_the_process_that_passes_it_on() {
    for steps in 0..30 {
        model(move || {
            let table = Table::new(3);
            let life = Life::of(B);
            table.enter(D);
            let patient = [table.enter(A), table.enter(A)];
            table.futex.add(&table.nodes[1], None);
            assert_eq!(table.notify(1, C), 1);
            table.life.end();
            life.killed_after(steps, || table.pass_on(B));
            let is_dead = &mut |process| process == D || life.is_over(process);
            table.tidy_with(is_dead);
            let passed = patient.iter().filter(|node| table.has_passed(node)).count();
            assert!(passed == 1 || passed == 2 && life.is_over(B));
            assert_eq!(table.node(0), [0; 2]);
        });
    }
}

/// A waiter abandons its wait, because a signal handler has raised. It is killed at any step, or
/// not at all.
#[test]
fn an_abandoned_notification_reaches_a_waiter_that_was_there() {
    for steps in 0..12 {
        model_with(2, move || {
            let table = Table::new(3);
            let (doomed, patient) = (table.enter(D), table.enter(A));
            let abandons = with(&table, move |table| {
                table.life.killed_after(steps, || {
                    let is_dead = &mut |_| false;
                    let before = &table.before();
                    table.condition().abandon(&table.futex, &doomed, before, D, is_dead);
                });
            });
            // (This returns 0 if D has passed the notification on, and died before it cleared its
            // node.)
            table.notify(1, C);
            let late = table.enter(B);
            abandons.join().unwrap();
            table.tidy();
            assert!(table.has_passed(&patient) && !table.has_passed(&late));
            assert!(table.node(0)[0] != D.word());
        });
    }
}

#[test]
fn a_notification_during_a_reclaim_reaches_exactly_one_waiter() {
    model_with(3, || {
        let table = Table::new(2);
        table.enter(D);
        let patient = table.enter(A);
        table.life.end();
        let other = with(&table, |table| table.reclaim(B));
        assert_eq!(table.notify(1, C), 1);
        other.join().unwrap();
        table.tidy();
        assert!(table.has_passed(&patient));
        assert_eq!(table.condition().waiting(), 0);
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The waiter may also be alive when the reclaim sees its node, and dead when the reclaim checks
/// it.
#[test]
fn a_reclaim_while_a_waiter_dies_takes_no_notification_and_leaves_no_node() {
    for steps in 0..6 {
        model_with(2, move || {
            let table = Table::new(2);
            let doomed = with(&table, move |table| {
                table.life.killed_after(steps, || {
                    let node = table.condition().enter(D)?;
                    table.condition().sleep(&table.futex, &node, SOME_TIME);
                    Some(table.leave(&node))
                })
            });
            let other = with(&table, |table| table.reclaim(B));
            let notified = table.notify(1, C);
            other.join().unwrap();
            let left = doomed.join().unwrap().flatten();
            table.tidy();
            assert!(left != Some(true) || notified == 1);
            assert_eq!((table.node(0), table.condition().waiting()), ([0; 2], 0));
        });
    }
}

/// The process that reclaims is killed at any step, while another one notifies.
#[test]
fn a_notification_outlives_the_process_that_reclaims() {
    for steps in 0..14 {
        model_with(2, move || {
            let shared = Arc::new((Table::new(2), Life::of(B)));
            let (table, life) = &*shared;
            table.enter(D);
            let patient = table.enter(A);
            table.life.end();
            let other = with(&shared, move |(table, life)| {
                life.killed_after(steps, || table.reclaim(B));
            });
            assert_eq!(table.notify(1, C), 1);
            other.join().unwrap();
            let is_dead = &mut |process| process == D || life.is_over(process);
            table.tidy_with(is_dead);
            assert!(table.has_passed(&patient));
            assert_eq!(table.node(0), [0; 2]);
        });
    }
}

#[test]
fn a_full_table_reuses_the_node_of_a_process_that_died_at_any_step() {
    for steps in 0..16 {
        model(move || {
            let table = Table::new(1);
            table.life.killed_after(steps, || {
                let node = table.enter(D);
                table.condition().sleep(&table.futex, &node, SOME_TIME);
                table.leave(&node)
            });
            table.reclaim(A);
            assert!(table.condition().enter(A).is_some());
        });
    }
}

/// The other condition may have no waiter left to do it.
#[test]
fn a_reclaim_passes_on_a_notification_of_another_condition() {
    model_with(2, || {
        let table = Table::new(2);
        table.enter(D);
        let patient = table.enter(A);
        table.futex.add(&table.nodes[1], None);
        table.life.end();
        let other = with(&table, |table| {
            let is_dead = &mut |process| table.life.is_over(process);
            table.barrier().reclaim(&table.futex, &table.before(), B, is_dead);
        });
        assert_eq!(table.notify(1, C), 1);
        other.join().unwrap();
        assert!(table.has_passed(&patient));
        assert_eq!(table.node(0), [0; 2]);
    });
}

/// The watcher is the oldest waiter itself, and has not left yet.
#[test]
fn a_watcher_that_leaves_wakes_another_waiter() {
    model(|| {
        let table = Table::new(2);
        let watcher = table.enter(A);
        table.enter(B);
        let other = table.futex.add(&table.nodes[3], None);
        table.condition().wake_another(&table.futex, &watcher);
        assert!(!table.futex.sleeps(other));
    });
}

/// The notifier is killed at any step.
#[test]
fn a_killed_notifier_notifies_one_waiter_at_most_and_leaves_the_table_whole() {
    for steps in 0..24 {
        model(move || {
            let table = Table::new(3);
            let life = Life::of(B);
            table.enter(D);
            let patient = [table.enter(A), table.enter(A)];
            table.life.end();
            let done = life.killed_after(steps, || table.notify(1, B));
            let is_dead = &mut |process| process == D || life.is_over(process);
            table.tidy_with(is_dead);
            let passed = patient.iter().filter(|node| table.has_passed(node)).count();
            assert!(passed <= 1 && done.is_none_or(|done| done == 1 && passed == 1));
            assert_eq!(table.node(0), [0; 2]);
            for node in &patient {
                table.leave(node);
            }
            assert_eq!((table.node(1), table.node(2)), ([0; 2], [0; 2]));
        });
    }
}

// ---- Barriers ----

impl Table {
    fn phases(&self) -> Phases<'_> {
        Phases(&self.phase)
    }

    fn wait_at_barrier(&self, node: &Node) -> Progress {
        loop {
            let seen = self.phases().see();
            match self.barrier().progress(node) {
                Progress::Waiting => self.phases().sleep(&self.futex, seen, None),
                over => return over,
            };
        }
    }

    fn end_barrier(&self, through: bool, phase: Phase) {
        self.barrier().end_all(through);
        self.phases().change(&self.futex, phase);
    }
}

#[test]
fn a_member_never_sleeps_through_a_change_and_sees_what_was_written_before() {
    model_with(3, || {
        let table = Table::new(2);
        let members = [A, B].map(|me| {
            let node = table.barrier().enter(me).unwrap();
            with(&table, move |table| {
                assert_eq!(table.wait_at_barrier(&node), Progress::Passed);
                table.protected.read();
                table.barrier().leave(&node);
            })
        });
        table.protected.write();
        table.end_barrier(true, Phase::Filling);
        join(members);
        assert_eq!((table.node(0), table.node(1)), ([0; 2], [0; 2]));
    });
}

/// The beginning of the action wakes nobody, and so must not lose that somebody sleeps.
#[test]
fn a_member_that_falls_asleep_as_the_action_begins_wakes_at_its_end() {
    model(|| {
        let table = Table::new(1);
        let node = table.barrier().enter(A).unwrap();
        let member = with(&table, move |table| table.wait_at_barrier(&node));
        table.phases().begin_action();
        table.end_barrier(true, Phase::Filling);
        assert_eq!(member.join().unwrap(), Progress::Passed);
    });
}

/// A member that comes while the action runs waits for the phase alone.
#[test]
fn a_member_that_waits_for_the_action_to_end_sees_that_the_barrier_broke() {
    model(|| {
        let table = Table::new(1);
        table.phases().begin_action();
        let late = with(&table, |table| {
            loop {
                let seen = table.phases().see();
                if seen.phase != Phase::Action {
                    table.protected.read();
                    return seen.phase;
                }
                table.phases().sleep(&table.futex, seen, None);
            }
        });
        table.protected.write();
        table.end_barrier(false, Phase::Broken);
        assert_eq!(late.join().unwrap(), Phase::Broken);
    });
}

#[test]
fn a_member_sees_that_the_barrier_broke_and_the_next_one_that_it_was_reset() {
    model_with(3, || {
        let table = Table::new(2);
        let first = table.barrier().enter(A).unwrap();
        let member = with(&table, move |table| {
            let progress = table.wait_at_barrier(&first);
            table.barrier().leave(&first);
            progress
        });
        table.end_barrier(false, Phase::Broken);
        table.end_barrier(false, Phase::Filling);
        let next = table.barrier().enter(B).unwrap();
        assert_eq!(member.join().unwrap(), Progress::Broken);
        assert_eq!(table.barrier().progress(&next), Progress::Waiting);
        assert_eq!(table.phases().see().phase, Phase::Filling);
    });
}

/// A barrier does this under its own lock. The member is killed at any step, also after it has let
/// itself through.
#[test]
fn a_member_that_is_killed_as_it_lets_the_others_through_leaves_nobody_waiting() {
    for steps in 0..14 {
        model_with(3, move || {
            let shared = Arc::new((Table::new(2), Lock::held_by(None)));
            let (table, lock) = &*shared;
            let _ = table.barrier().enter(D).unwrap();
            let member = table.barrier().enter(A).unwrap();
            let runner = with(&shared, move |(table, lock)| {
                table.life.killed_after(steps, || {
                    lock.acquire(D);
                    table.end_barrier(true, Phase::Filling);
                    lock.release(D);
                });
            });
            let is_dead = &mut |process| table.life.is_over(process);
            let mut check = || {
                let half_done = match lock.permit().state() {
                    State::Held(holder) => is_dead(holder) && lock.permit().recover(holder, A),
                    _ => false,
                };
                if half_done || table.barrier().has_dead_waiter(is_dead) {
                    table.end_barrier(false, Phase::Broken);
                }
            };
            check();
            runner.join().unwrap();
            check();
            assert!(table.barrier().progress(&member) != Progress::Waiting);
        });
    }
}

/// A process that checks for dead members visits barriers that it has never used.
#[test]
fn a_process_that_finds_a_barrier_by_its_member_sees_it_as_it_was_made() {
    model(|| {
        let table = Table::new(1);
        let member = with(&table, |table| {
            table.protected.write();
            table.barrier().enter(D).unwrap();
        });
        if table.waiters().barriers().contains(&BARRIER) {
            table.protected.read();
        }
        member.join().unwrap();
        assert!(table.waiters().barriers().contains(&BARRIER));
    });
}

#[test]
fn a_dead_member_is_found_and_no_other_waiter_is_taken_for_it() {
    model(|| {
        let table = Table::new(1);
        let member = table.barrier().enter(A).unwrap();
        let watcher = with(&table, |table| {
            table.barrier().has_dead_waiter(&mut |process| table.life.is_over(process))
        });
        // A leaves the barrier. A condition's waiter gets its node, and dies.
        table.barrier().leave(&member);
        let _ = table.enter(D);
        table.life.end();
        assert!(!watcher.join().unwrap());
        table.tidy();
        let _ = table.barrier().enter(D);
        assert!(table.barrier().has_dead_waiter(&mut |process| table.life.is_over(process)));
    });
}

#[test]
fn a_member_is_not_taken_for_the_dead_waiter_that_had_its_node_before() {
    model_with(3, || {
        let table = Table::new(1);
        let _ = table.enter(D);
        let watcher = with(&table, |table| {
            table.barrier().has_dead_waiter(&mut |process| table.life.is_over(process))
        });
        table.life.end();
        table.reclaim(C);
        let _ = table.barrier().enter(A).unwrap();
        assert!(!watcher.join().unwrap());
    });
}

/// Its node has become another barrier's since, and a reclaim has checked whether it can be
/// cleared.
#[test]
fn a_member_is_not_taken_for_a_dead_member_of_another_barrier() {
    model_with(3, || {
        let table = Table::new(1);
        let member = table.barrier().enter(A).unwrap();
        let watcher = with(&table, |table| {
            table.barrier().has_dead_waiter(&mut |process| table.life.is_over(process))
        });
        table.barrier().leave(&member);
        let another = Queue { slot: table.barrier().slot + 1, ..table.barrier() };
        assert!(another.enter(D).is_some());
        table.life.end();
        table.reclaim(C);
        assert_eq!(table.node(0)[0], D.word());
        assert!(!watcher.join().unwrap());
    });
}

#[test]
fn a_reclaim_does_not_hide_a_dead_member_from_its_barrier() {
    model(|| {
        let table = Table::new(1);
        let _ = table.barrier().enter(D).unwrap();
        table.life.end();
        let other = with(&table, |table| table.reclaim(C));
        let has_dead = |table: &Table| {
            let is_dead = &mut |process| table.life.is_over(process);
            table.barrier().has_dead_waiter(is_dead)
        };
        // The member is not hidden even for a moment: the last member to come may check just then.
        assert!(has_dead(&table));
        other.join().unwrap();
        assert!(has_dead(&table));
        // When the barrier is broken, its members' nodes can be cleared.
        table.end_barrier(false, Phase::Broken);
        table.reclaim(C);
        assert_eq!(table.node(0), [0; 2]);
    });
}

// ---- Channels ----

/// A channel, mostly with a ring of four words: for two messages of eight bytes.
struct Pipe {
    senders: Arc<Lock>,
    receivers: Arc<Lock>,
    bell_lock: Arc<Lock>,
    tail: AtomicU64,
    head: AtomicU64,
    arrivals: AtomicU64,
    parts: AtomicU64,
    room: AtomicU64,
    ring: Vec<AtomicU64>,
    rung: AtomicU64,
    /// How often the bell was rung since it was silenced last.
    rings: AtomicU64,
    life: Life,
    futex: Sleepers,
}

const WORD: usize = size_of::<u64>();

impl Pipe {
    fn new() -> Self {
        Self::with_ring(4)
    }

    fn with_ring(words: usize) -> Self {
        Self {
            senders: Lock::held_by(None),
            receivers: Lock::held_by(None),
            bell_lock: Lock::held_by(None),
            tail: word(0),
            head: word(0),
            arrivals: word(0),
            parts: word(0),
            room: word(0),
            ring: (0..words).map(|_| word(0)).collect(),
            rung: word(0),
            rings: word(0),
            life: Life::of(D),
            futex: Sleepers::default(),
        }
    }

    /// One in which messages wait: 1, 2, and so on.
    fn with_messages(messages: u64) -> Self {
        let pipe = Self::new();
        (1..=messages).for_each(|message| pipe.put(A, Kind::Whole, &[message]));
        pipe
    }

    fn channel(&self) -> Channel<'_> {
        Channel {
            tail: &self.tail,
            head: &self.head,
            arrivals: EventCount(&self.arrivals),
            parts: EventCount(&self.parts),
            room: EventCount(&self.room),
            ring: &self.ring,
        }
    }

    /// Acquires one of the locks, and finds a dead holder at once. (How a lock's waiter sleeps is
    /// modelled above.) True if the last holder died.
    fn lock(&self, lock: &Lock, me: Process) -> bool {
        loop {
            match lock.permit().state() {
                State::Held(holder) => {
                    if self.life.is_over(holder) && lock.permit().recover(holder, me) {
                        return true;
                    }
                }
                _ => {
                    if lock.permit().try_take(me, NOBODY).is_some() {
                        return false;
                    }
                }
            }
            thread::yield_now();
        }
    }

    fn unlock(lock: &Lock, me: Process) {
        assert!(lock.permit().free_if_held_by(me));
    }

    /// Sends a message whole. Waits for room.
    fn send(&self, me: Process, message: u64) {
        self.lock(&self.senders, me);
        self.put(me, Kind::Whole, &[message]);
        Self::unlock(&self.senders, me);
    }

    /// Writes and commits a record, as soon as there is room for it.
    fn put(&self, me: Process, kind: Kind, words: &[u64]) {
        let channel = self.channel();
        let bytes: Vec<_> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if !channel.has_room(kind, bytes.len()).unwrap() {
            wait_on(channel.room, &self.futex, || {
                channel.has_room_after_a_wait(kind, bytes.len()).unwrap().then_some(())
            });
        }
        // Of a message in parts, the first one says that there is one more byte than it has.
        let pieces: [&[u8]; 2] = [&bytes, if kind == Kind::First { &[0] } else { &[] }];
        let written = channel.write(kind, bytes.len(), &mut Message::new(&pieces));
        channel.commit(&self.futex, &Ringer(self, me), written).unwrap();
    }

    fn take(&self, me: Process, record: &Record) -> u64 {
        let mut bytes = [0; WORD];
        self.channel().copy(record, &mut bytes[..record.bytes]);
        self.channel().take(&self.futex, &Ringer(self, me), record);
        u64::from_ne_bytes(bytes)
    }

    /// Takes a message if one is there. Drops what is left of others.
    fn try_receive(&self, me: Process) -> Option<u64> {
        self.lock(&self.receivers, me);
        let mut message = None;
        while let Some(record) = self.channel().next().unwrap() {
            let taken = self.take(me, &record);
            if record.kind == Kind::Whole {
                message = Some(taken);
                break;
            }
        }
        Self::unlock(&self.receivers, me);
        message
    }

    /// Waits for a message.
    fn receive(&self, me: Process) -> u64 {
        wait_on(self.channel().arrivals, &self.futex, || {
            if self.channel().is_empty() { None } else { self.try_receive(me) }
        })
    }

    fn all(&self, me: Process) -> Vec<u64> {
        std::iter::from_fn(|| self.try_receive(me)).collect()
    }

    /// Whether someone who polls would find that there is something to take.
    fn is_readable(&self) -> bool {
        latest(&self.rings) != 0
    }
}

/// A pipe's bell, as a process uses it.
struct Ringer<'a>(&'a Pipe, Process);

impl Bell for Ringer<'_> {
    type Error = Corrupt;

    fn locked<T>(&self, run: impl FnOnce(bool) -> T) -> T {
        let recovered = self.0.lock(&self.0.bell_lock, self.1);
        let result = run(recovered);
        Pipe::unlock(&self.0.bell_lock, self.1);
        result
    }

    fn is_locked(&self) -> bool {
        self.0.bell_lock.permit().state() != State::Free
    }

    fn rung(&self) -> &AtomicU64 {
        &self.0.rung
    }

    // Both are system calls, and happen at once, whatever orders memory.
    fn ring(&self) -> Result<(), Corrupt> {
        self.0.rings.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn silence(&self) {
        self.0.rings.swap(0, Ordering::SeqCst);
    }
}

#[test]
fn each_message_is_received_whole_by_one_receiver() {
    model_with(2, || {
        let pipe = Arc::new(Pipe::new());
        let sender = with(&pipe, |pipe| [1, 2].map(|message| pipe.send(A, message)));
        let other = with(&pipe, |pipe| pipe.receive(B));
        let mine = pipe.receive(C);
        sender.join().unwrap();
        let others = other.join().unwrap();
        assert!([(1, 2), (2, 1)].contains(&(mine, others)));
        assert!(pipe.channel().is_empty() && pipe.channel().count() == 0);
    });
}

#[test]
fn two_senders_send_both_their_messages() {
    model_with(2, || {
        let pipe = Arc::new(Pipe::new());
        let other = with(&pipe, |pipe| pipe.send(A, 1));
        pipe.send(B, 2);
        other.join().unwrap();
        let mut all = pipe.all(C);
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_receiver_never_sleeps_beside_a_message() {
    model(|| {
        let pipe = Arc::new(Pipe::new());
        let sender = with(&pipe, |pipe| pipe.send(A, 1));
        assert_eq!(pipe.receive(B), 1);
        sender.join().unwrap();
    });
}

#[test]
fn a_sender_never_sleeps_beside_enough_room() {
    model_with(3, || {
        let pipe = Arc::new(Pipe::with_messages(2));
        let sender = with(&pipe, |pipe| pipe.send(A, 3));
        assert_eq!([(); 3].map(|()| pipe.receive(B)), [1, 2, 3]);
        sender.join().unwrap();
    });
}

/// The ring's words are used again: a sender does not write where a receiver still reads.
#[test]
fn a_record_is_not_overwritten_before_it_was_copied() {
    model_with(3, || {
        let pipe = Arc::new(Pipe::with_messages(2));
        let receiver = with(&pipe, |pipe| [pipe.receive(B), pipe.receive(B)]);
        pipe.send(A, 3);
        assert_eq!(receiver.join().unwrap(), [1, 2]);
        assert_eq!(pipe.all(B), [3]);
    });
}

#[test]
fn a_killed_sender_has_sent_its_message_whole_or_not_at_all() {
    for steps in 0..12 {
        model_with(2, move || {
            let pipe = Arc::new(Pipe::new());
            let sender = with(&pipe, move |pipe| pipe.life.killed_after(steps, || pipe.send(D, 1)));
            let first = pipe.try_receive(B);
            let lived = sender.join().unwrap().is_some();
            pipe.send(C, 2);
            let all: Vec<_> = first.into_iter().chain(pipe.all(B)).collect();
            assert!(all == [1, 2] || all == [2] && !lived, "{all:?}");
        });
    }
}

#[test]
fn a_killed_receiver_has_taken_a_message_whole_or_not_at_all() {
    for steps in 0..12 {
        model_with(2, move || {
            let pipe = Arc::new(Pipe::with_messages(2));
            let receiver =
                with(&pipe, move |pipe| pipe.life.killed_after(steps, || pipe.try_receive(D)));
            let mut all = Vec::from_iter(pipe.try_receive(B));
            let his = receiver.join().unwrap();
            pipe.send(C, 3);
            all.extend(pipe.all(B));
            let lost = if his.is_none() { 1 } else { 0 };
            all.extend(his.flatten());
            all.sort_unstable();
            let expected: &[&[u64]] = &[&[1, 2, 3], &[2, 3], &[1, 3]];
            assert!(expected[..=2 * lost].contains(&&*all), "{all:?}");
        });
    }
}

/// A channel that counts: its nodes, and the words of its backlog.
struct Counted {
    pipe: Pipe,
    claims: Arc<Lock>,
    nodes: Vec<AtomicU64>,
    used: AtomicU64,
    unsent: AtomicU64,
    freed: AtomicU64,
    limit: u64,
}

impl Counted {
    /// With so many nodes, and messages that wait: 1, 2, and so on.
    fn with_messages(nodes: usize, messages: u64, limit: u64) -> Self {
        let pipe = Pipe::with_ring(8);
        (1..=messages).for_each(|message| pipe.put(A, Kind::Whole, &[message]));
        Self {
            pipe,
            claims: Lock::held_by(None),
            nodes: (0..nodes * NODE_WORDS).map(|_| word(0)).collect(),
            used: word(0),
            unsent: word(0),
            freed: word(0),
            limit,
        }
    }

    fn tallies(&self) -> Tallies<'_> {
        Tallies(Waiters { nodes: &self.nodes, used: &self.used })
    }

    /// Runs something under the lock of claims, as `counting` does.
    fn claims<T>(&self, me: Process, run: impl FnOnce() -> T) -> T {
        if self.pipe.lock(&self.claims, me) {
            self.tallies().complete_sending(self.pipe.channel().next_to_send());
            self.unsent.store(self.tallies().all_unsent(), Ordering::SeqCst);
        }
        let result = run();
        Pipe::unlock(&self.claims, me);
        result
    }

    fn add(&self, more: u64) {
        let unsent = self.unsent.load(Ordering::SeqCst);
        self.unsent.store(unsent.wrapping_add(more), Ordering::SeqCst);
    }

    fn used(&self) -> u64 {
        self.unsent.load(Ordering::SeqCst) + self.pipe.channel().count() as u64
    }

    fn try_claim(&self, me: Process) -> Option<usize> {
        self.claims(me, || {
            if self.used() >= self.limit {
                return None;
            }
            let node = self.tallies().enter(me, Role::Putter).unwrap();
            self.tallies().put(node);
            self.add(1);
            Some(node)
        })
    }

    /// Sends a message for which a node of the caller's has a place.
    fn send_claimed(&self, me: Process, node: usize, message: u64) {
        self.pipe.lock(&self.pipe.senders, me);
        let written = self.write(message);
        self.claims(me, || {
            let channel = self.pipe.channel();
            self.tallies().begin_to_send(node, channel.next_to_send());
            channel.commit(&self.pipe.futex, &Ringer(&self.pipe, me), written).unwrap();
            self.tallies().end_to_send(node);
            self.add(u64::MAX);
        });
        Pipe::unlock(&self.pipe.senders, me);
    }

    /// Puts a message and sends it, if there is a place.
    fn try_put(&self, me: Process, message: u64) -> bool {
        self.pipe.lock(&self.pipe.senders, me);
        let written = self.write(message);
        let sent = self.claims(me, || {
            let has_place = self.used() < self.limit;
            if has_place {
                let channel = self.pipe.channel();
                channel.commit(&self.pipe.futex, &Ringer(&self.pipe, me), written).unwrap();
            }
            has_place
        });
        Pipe::unlock(&self.pipe.senders, me);
        sent
    }

    fn write(&self, message: u64) -> Written {
        let bytes = message.to_ne_bytes();
        let pieces: [&[u8]; 1] = [&bytes];
        assert!(self.pipe.channel().has_room(Kind::Whole, WORD).unwrap());
        self.pipe.channel().write(Kind::Whole, WORD, &mut Message::new(&pieces))
    }

    /// Frees the places of a process that is dead.
    fn free_places_of(&self, dead: Process, me: Process) {
        for (node, process) in self.tallies().dead(Role::Putter, |process| process == dead) {
            self.claims(me, || {
                if let Some(tally) = self.tallies().free(node, process) {
                    self.add(tally.count.wrapping_neg());
                }
            });
        }
    }

    /// Takes a message, and notes that.
    fn take(&self, me: Process) -> Option<u64> {
        let channel = self.pipe.channel();
        self.receivers(me, || {
            let record = channel.next().unwrap()?;
            let node = self.tallies().enter(me, Role::Taker).unwrap();
            self.tallies().take(node, channel.next_number());
            let message = self.pipe.take(me, &record);
            EventCount(&self.freed).wake_one(&self.pipe.futex, || false);
            Some(message)
        })
    }

    /// Runs something under the receivers' lock, when all notes are right.
    fn receivers<T>(&self, me: Process, run: impl FnOnce() -> T) -> T {
        if self.pipe.lock(&self.pipe.receivers, me) {
            self.tallies().undo_taking(self.pipe.channel().next_number());
        }
        let result = run();
        Pipe::unlock(&self.pipe.receivers, me);
        result
    }
}

#[test]
fn what_a_killed_receiver_had_taken_is_known_and_nothing_else() {
    for steps in 0..12 {
        model_with(2, move || {
            let shared = Arc::new(Counted::with_messages(2, 2, 2));
            let receiver =
                with(&shared, move |queue| queue.pipe.life.killed_after(steps, || queue.take(D)));
            let mine = shared.take(B);
            let lived = receiver.join().unwrap().is_some();
            shared.pipe.life.end();
            let taken = shared.receivers(C, || {
                let dead = shared.tallies().dead(Role::Taker, |process| process == D);
                let tally =
                    dead.first().and_then(|&(node, dead)| shared.tallies().free(node, dead));
                assert!(tally.is_none_or(|tally| tally.process == D));
                tally.filter(|tally| tally.count > 0)
            });
            // What neither has is what D had.
            let left = shared.pipe.all(C);
            let lost = [1, 2].into_iter().find(|it| mine != Some(*it) && !left.contains(it));
            assert_eq!(taken.and_then(|tally| tally.last).map(|number| number + 1), lost);
            assert_eq!(taken.map(|tally| tally.count), lost.map(|_| 1));
            assert!(!lived || lost.is_some());
        });
    }
}

/// Of two that want the last place, one gets it.
#[test]
fn there_are_never_more_messages_than_places() {
    model_with(2, || {
        let queue = Arc::new(Counted::with_messages(2, 1, 2));
        let other = with(&queue, |queue| match queue.try_claim(A) {
            Some(node) => {
                queue.send_claimed(A, node, 2);
                true
            }
            None => false,
        });
        let mine = queue.try_put(B, 3);
        let others = other.join().unwrap();
        assert!(mine != others);
        assert_eq!((queue.used(), queue.pipe.channel().count()), (2, 2));
    });
}

/// A place is free as soon as the message is taken, and whoever waits for it is woken.
#[test]
fn a_putter_never_sleeps_beside_a_free_place() {
    model_with(2, || {
        let queue = Arc::new(Counted::with_messages(3, 1, 1));
        let taker = with(&queue, |queue| queue.take(A));
        let node = wait_on(EventCount(&queue.freed), &queue.pipe.futex, || queue.try_claim(B));
        queue.send_claimed(B, node, 2);
        assert_eq!(taker.join().unwrap(), Some(1));
        assert_eq!((queue.take(B), queue.used()), (Some(2), 0));
    });
}

/// A putter that is killed at whatever step has sent its message, and then keeps no place beside
/// it; or it has not, and then its place is freed.
#[test]
fn a_killed_putter_keeps_no_place_but_its_messages() {
    for steps in 0..20 {
        model_with(1, move || {
            let queue = Arc::new(Counted::with_messages(2, 0, 1));
            let putter = with(&queue, move |queue| {
                queue.pipe.life.killed_after(steps, || {
                    let node = queue.try_claim(D).unwrap();
                    queue.send_claimed(D, node, 1);
                })
            });
            let lived = putter.join().unwrap().is_some();
            queue.pipe.life.end();
            queue.free_places_of(D, B);
            // Whoever comes next makes the counts right.
            let sent = queue.claims(B, || queue.pipe.channel().count());
            assert_eq!(queue.used(), sent as u64);
            assert!(!lived || sent == 1);
            assert_eq!(queue.try_put(B, 2), sent == 0);
            assert_eq!(queue.pipe.all(C), [if sent == 1 { 1 } else { 2 }]);
        });
    }
}

/// What a receiver does in the middle of a message, until that comes whole or is given up.
fn receive_in_parts(pipe: &Pipe, me: Process) -> Option<u64> {
    pipe.lock(&pipe.receivers, me);
    let mut begun = false;
    let message = loop {
        let channel = pipe.channel();
        let Some(record) = channel.next().unwrap() else {
            if begun && pipe.life.is_over(D) {
                pipe.lock(&pipe.senders, me);
                if channel.is_empty() {
                    begun = false;
                }
                Pipe::unlock(&pipe.senders, me);
            } else if !begun {
                break None;
            }
            thread::yield_now();
            continue;
        };
        let taken = pipe.take(me, &record);
        match record.kind {
            Kind::Whole => break Some(taken),
            Kind::Last if begun => break Some(taken),
            Kind::First => begun = true,
            _ => begun = false,
        }
    };
    Pipe::unlock(&pipe.receivers, me);
    message
}

fn send_in_parts(pipe: &Pipe, me: Process) {
    pipe.lock(&pipe.senders, me);
    pipe.put(me, Kind::First, &[7]);
    pipe.put(me, Kind::Last, &[1]);
    Pipe::unlock(&pipe.senders, me);
}

#[test]
fn a_message_in_parts_whose_sender_is_killed_is_lost_alone() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::with_ring(8));
            let sender =
                with(&pipe, move |pipe| pipe.life.killed_after(steps, || send_in_parts(pipe, D)));
            let first = receive_in_parts(&pipe, B);
            let lived = sender.join().unwrap().is_some();
            let next = with(&pipe, |pipe| pipe.send(C, 2));
            let more = receive_in_parts(&pipe, B);
            next.join().unwrap();
            let rest = std::iter::from_fn(|| receive_in_parts(&pipe, B));
            let all: Vec<_> = first.into_iter().chain(more).chain(rest).collect();
            assert!(all == [1, 2] || all == [2] && !lived, "{all:?}");
        });
    }
}

#[test]
fn a_message_in_parts_whose_receiver_is_killed_is_lost_alone() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::with_ring(8));
            let receiver = with(&pipe, move |pipe| {
                pipe.life.killed_after(steps, || receive_in_parts(pipe, D)).is_some()
            });
            pipe.lock(&pipe.senders, A);
            pipe.put(A, Kind::First, &[7]);
            receiver.join().unwrap();
            // Its successor makes room for what follows.
            let next = with(&pipe, |pipe| {
                pipe.put(A, Kind::Last, &[1]);
                Pipe::unlock(&pipe.senders, A);
            });
            next.join().unwrap();
            pipe.try_receive(B);
            pipe.send(C, 2);
            let all: Vec<_> = std::iter::from_fn(|| receive_in_parts(&pipe, B)).collect();
            assert_eq!(all, [2]);
        });
    }
}

/// It sleeps until there is a message, and the sender needs room for the rest of the old one.
#[test]
fn a_receiver_that_waits_for_a_message_drops_what_a_killed_one_has_left() {
    model_with(1, || {
        let pipe = Arc::new(Pipe::with_ring(4));
        pipe.lock(&pipe.senders, A);
        pipe.put(A, Kind::First, &[7]);
        pipe.lock(&pipe.receivers, D);
        let first = pipe.channel().next().unwrap().unwrap();
        pipe.take(D, &first);
        pipe.life.end();
        let sender = with(&pipe, |pipe| {
            for kind in [Kind::More, Kind::More, Kind::Last] {
                pipe.put(A, kind, &[1]);
            }
            Pipe::unlock(&pipe.senders, A);
            pipe.send(A, 2);
        });
        assert_eq!(pipe.receive(B), 2);
        sender.join().unwrap();
    });
}

#[test]
fn the_bell_has_rung_while_there_is_something_to_take() {
    model_with(2, || {
        let pipe = Arc::new(Pipe::new());
        let sender = with(&pipe, |pipe| pipe.send(A, 1));
        let receiver = with(&pipe, |pipe| pipe.try_receive(B));
        pipe.channel().want_bell(&Ringer(&pipe, C)).unwrap();
        sender.join().unwrap();
        receiver.join().unwrap();
        assert_eq!(pipe.is_readable(), !pipe.channel().is_empty());
        pipe.send(A, 2);
        assert!(pipe.is_readable());
        assert!(pipe.all(B).contains(&2));
        assert!(!pipe.is_readable());
    });
}

#[test]
fn the_bell_of_a_killed_sender_has_rung_if_there_is_something_to_take() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::new());
            pipe.channel().want_bell(&Ringer(&pipe, C)).unwrap();
            let sender = with(&pipe, move |pipe| pipe.life.killed_after(steps, || pipe.send(D, 1)));
            let first = pipe.try_receive(B);
            sender.join().unwrap();
            let is_empty = pipe.channel().is_empty();
            assert!(is_empty || pipe.is_readable());
            assert!(first.is_none() || is_empty);
            // Whoever polled and finds nothing sets it right.
            pipe.all(B);
            pipe.channel().set_bell_right(&Ringer(&pipe, B));
            assert!(!pipe.is_readable());
        });
    }
}

#[test]
fn the_bell_of_a_killed_receiver_rings_for_the_next_message() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::with_messages(1));
            pipe.channel().want_bell(&Ringer(&pipe, C)).unwrap();
            let receiver =
                with(&pipe, move |pipe| pipe.life.killed_after(steps, || pipe.try_receive(D)));
            pipe.send(A, 2);
            receiver.join().unwrap();
            assert!(pipe.is_readable());
            pipe.all(B);
            pipe.channel().set_bell_right(&Ringer(&pipe, B));
            assert!(!pipe.is_readable());
        });
    }
}

/// Another waits for a message, and may have waited for longer.
#[test]
fn a_receiver_in_the_middle_of_a_message_is_woken_for_the_next_part() {
    model_with(2, || {
        let pipe = Arc::new(Pipe::with_ring(8));
        pipe.put(A, Kind::First, &[7]);
        let first = pipe.channel().next().unwrap().unwrap();
        pipe.lock(&pipe.receivers, B);
        pipe.take(B, &first);
        let other = with(&pipe, |pipe| {
            wait_on(pipe.channel().arrivals, &pipe.futex, || {
                (pipe.tail.load(Ordering::SeqCst) >> 40 == 2).then_some(())
            });
        });
        let sender = with(&pipe, |pipe| {
            pipe.put(A, Kind::Last, &[1]);
            pipe.lock(&pipe.receivers, A);
            Pipe::unlock(&pipe.receivers, A);
            pipe.put(A, Kind::Whole, &[2]);
        });
        let last = wait_on(pipe.channel().parts, &pipe.futex, || pipe.channel().next().unwrap());
        assert_eq!(pipe.take(B, &last), 1);
        Pipe::unlock(&pipe.receivers, B);
        sender.join().unwrap();
        other.join().unwrap();
    });
}

/// Others may receive what was there, and what comes meanwhile is there as well.
#[test]
fn a_channel_that_always_has_a_message_is_never_found_empty() {
    model(|| {
        let pipe = Arc::new(Pipe::with_messages(1));
        let other = with(&pipe, |pipe| {
            pipe.put(A, Kind::Whole, &[2]);
            let channel = pipe.channel();
            let record = channel.next().unwrap().unwrap();
            pipe.take(B, &record);
        });
        assert!(!pipe.channel().is_empty());
        other.join().unwrap();
    });
}

#[test]
fn the_bell_rings_for_whoever_asks_after_one_that_was_killed_as_it_asked() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::with_messages(1));
            let first = with(&pipe, move |pipe| {
                let asks = || pipe.channel().want_bell(&Ringer(pipe, D));
                pipe.life.killed_after(steps, asks).is_some()
            });
            pipe.channel().want_bell(&Ringer(&pipe, C)).unwrap();
            assert!(pipe.is_readable());
            first.join().unwrap();
            pipe.all(B);
            pipe.channel().set_bell_right(&Ringer(&pipe, B));
            assert!(!pipe.is_readable());
        });
    }
}

/// A sender dies, and the next one to have the bell's lock is one that asks for the bell.
#[test]
fn a_process_that_wants_the_bell_after_a_killed_sender_leaves_it_right() {
    for steps in 0..24 {
        model_with(1, move || {
            let pipe = Arc::new(Pipe::new());
            pipe.tail.store(1 << 63, Ordering::SeqCst);
            let asks = with(&pipe, |pipe| pipe.channel().want_bell(&Ringer(pipe, C)).unwrap());
            pipe.life.killed_after(steps, || pipe.send(D, 1));
            asks.join().unwrap();
            pipe.all(B);
            pipe.channel().set_bell_right(&Ringer(&pipe, B));
            assert!(!pipe.is_readable());
        });
    }
}

// ---- Watchers ----

#[test]
fn of_two_waiters_that_begin_at_once_one_watches() {
    model(|| {
        let shared = Arc::new(word(0));
        let begin = |watch: &AtomicU64| Watch(watch).begin(7);
        let other = with(&shared, begin);
        let mine = begin(&shared);
        assert!(mine.is_some() != other.join().unwrap().is_some());
    });
}

#[test]
fn a_silent_watcher_goes_on_or_is_replaced() {
    model(|| {
        let watch = Arc::new(word(0));
        let first = Watch(&watch).begin(1_000).unwrap();
        let other = with(&watch, |watch| Watch(watch).begin(900_000_000));
        let goes_on = Watch(&watch).go_on(first, 900_000_000);
        let replaced = other.join().unwrap();
        assert!(goes_on.is_some() != replaced.is_some());
        // A watcher that was replaced ends nothing.
        Watch(&watch).end(first);
        assert!(latest(&watch) != 0);
        Watch(&watch).end(goes_on.or(replaced).unwrap());
        assert_eq!(latest(&watch), 0);
    });
}

/// The watcher is killed before or after its first heartbeat, or between two.
#[test]
fn a_killed_watcher_is_replaced_by_one_waiter() {
    for steps in 0..4 {
        model(move || {
            let shared = Arc::new((word(0), Life::of(A)));
            let (watch, life) = &*shared;
            life.killed_after(steps, || {
                let first = Watch(watch).begin(1_000).unwrap();
                Watch(watch).go_on(first, 2_000)
            });
            let begin = |(watch, _): &(AtomicU64, Life)| Watch(watch).begin(900_000_000);
            let other = with(&shared, begin);
            let mine = begin(&shared);
            assert!(mine.is_some() != other.join().unwrap().is_some());
        });
    }
}

#[test]
fn of_two_acquirers_that_try_at_once_one_checks() {
    model(|| {
        let shared = Arc::new(word(0));
        let is_due =
            |last_check: &AtomicU64| LastCheck(last_check).is_due(7, Duration::from_millis(50));
        let other = with(&shared, is_due);
        let mine = is_due(&shared);
        assert!(mine != other.join().unwrap());
    });
}

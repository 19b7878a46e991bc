//! Semaphores: no permit too many, and only plain ones lose what a dead process had.

use semlock::Wait;
use semlock::raw::{Lock, LockKind, Options};

use super::mutex::{sleeper, take, used_before};
use super::{Named, Told, in_an_hour, soon, told_by};
use crate::peer::{Peer, fresh};
use crate::tracer::{Dead, Tracer};

pub const SCENARIOS: &[Named] = &[
    ("semaphore/acquire", plain_acquire),
    ("semaphore/acquire-contended", plain_contended),
    ("semaphore/timeout-that-expires", plain_timeout),
    ("semaphore/release", plain_release),
    ("semaphore/release-one-waits", plain_release_one_waits),
    ("robust-semaphore/acquire", robust_acquire),
    ("robust-semaphore/acquire-contended", robust_contended),
    ("robust-semaphore/timeout-that-expires", robust_timeout),
    ("robust-semaphore/release", robust_release),
    ("robust-semaphore/release-one-waits", robust_release_one_waits),
    ("robust-semaphore/recovery", robust_recovery),
    ("robust-semaphore/given-back-as-owner-died", robust_given_back),
    ("robust-semaphore/acquire-one-of-many", robust_acquire_one_of_many),
    ("robust-semaphore/acquire-where-none-of-many-is-free", robust_none_of_many),
    ("robust-semaphore/release-one-of-many", robust_release_one_of_many),
    ("robust-semaphore/release-one-of-many-one-waits", robust_release_one_of_many_one_waits),
];

pub fn plain(value: u32) -> Lock {
    let options = Options { kind: LockKind::Semaphore, value, maxvalue: 1000, robust: false };
    Lock::new(options).expect("memory")
}

pub fn robust(permits: u32) -> Lock {
    let options =
        Options { kind: LockKind::Semaphore, value: permits, maxvalue: permits, robust: true };
    Lock::new(options).expect("memory")
}

/// Takes all that are free, gives them back, and returns how many that were.
pub fn count(lock: &Lock) -> u32 {
    let counter = Peer::start(|line| {
        let mut taken = 0;
        while lock.try_acquire() == Wait::Acquired {
            taken += 1;
        }
        for _ in 0..taken {
            lock.release().expect("it is held");
        }
        line.say(taken);
    });
    let taken = counter.last_word();
    assert_eq!(lock.value(), taken);
    taken
}

/// What the dead one has taken: nothing, or this; if it returned, this.
pub fn assert_taken(dead: &Dead, taken: u32, if_returned: u32) {
    let may_be = if dead.returned { if_returned..=if_returned } else { 0..=1 };
    assert!(may_be.contains(&taken), "it has taken {taken}");
}

fn plain_acquire(tracer: &Tracer) {
    let lock = plain(2);
    let prepare = || {
        used_before();
        || take(&lock)
    };
    let dead = tracer.kill(prepare, || {});
    assert_taken(&dead, 2 - count(&lock), 1);
}

/// The sleeper gets on, with a permit that is there or, if there is none, with one more. Returns
/// how many were given.
fn let_get_on(tracer: &Tracer, lock: &Lock, sleeper: Peer) -> u32 {
    tracer.expects("a sleeper beside a free permit to take it");
    let given = u32::from(lock.value() == 0);
    if given == 1 {
        fresh(|| lock.release().expect("there is room"));
    }
    sleeper.last_word();
    given
}

fn plain_contended(tracer: &Tracer) {
    let lock = plain(0);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(in_an_hour()), Wait::Acquired)
    };
    contended(tracer, &lock, prepare);
}

/// No permit is left of a plain one, and another sleeps for one already.
pub fn contended<C: FnOnce()>(tracer: &Tracer, lock: &Lock, prepare: impl FnOnce() -> C) {
    let sleeper = sleeper(lock);
    // The sleeper gives its permit back, so that both get on with one.
    let dead = tracer.kill(prepare, || fresh(|| lock.release().expect("there is room")));
    let given = u32::from(dead.helped) + let_get_on(tracer, lock, sleeper);
    let taken = given - count(lock);
    assert!(taken == 0 || dead.helped, "it took what was not there");
    assert_taken(&dead, taken, 1);
}

fn plain_timeout(tracer: &Tracer) {
    let lock = plain(0);
    let sleeper = sleeper(&lock);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(soon()), Wait::TimedOut)
    };
    let _dead = tracer.kill(prepare, || {});
    let given = let_get_on(tracer, &lock, sleeper);
    assert_eq!((given, count(&lock)), (1, 1));
}

fn plain_release(tracer: &Tracer) {
    let lock = plain(1);
    let prepare = || {
        take(&lock);
        || lock.release().expect("there is room")
    };
    let dead = tracer.kill(prepare, || {});
    assert_taken(&dead, 1 - count(&lock), 0);
}

fn plain_release_one_waits(tracer: &Tracer) {
    let lock = plain(1);
    let mut waiting = None;
    let prepare = || {
        take(&lock);
        || lock.release().expect("there is room")
    };
    let dead = tracer.kill_known(prepare, |_| waiting = Some(sleeper(&lock)), || {});
    let given = 1 + let_get_on(tracer, &lock, waiting.expect("it is there"));
    assert_taken(&dead, given - count(&lock), 0);
}

/// All permits of a robust one can be taken, and no more. Returns what those were told who took
/// them, less those who were told nothing.
fn takes_all(tracer: &Tracer, lock: &Lock, permits: u32) -> Vec<Told> {
    tracer.expects("a fresh process to get all permits");
    let mut taker = Peer::start(|line| {
        for _ in 0..permits {
            line.say(take(lock));
        }
        line.hear();
        for _ in 0..permits {
            lock.release().expect("it is held");
        }
    });
    let mut told: Vec<_> = (0..permits).map(|_| taker.expect()).collect();
    told.retain(|&told| told != 0);
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "one permit too many"));
    taker.go();
    taker.join();
    assert_eq!(count(lock), permits);
    told
}

fn assert_told_once(dead: &Dead, told: &[Told], held_if_returned: bool) {
    let once = told == [dead.pid];
    assert!(once || told.is_empty(), "told {told:?} of {}", dead.pid);
    assert!(!dead.returned || once == held_if_returned, "told {told:?}");
}

fn robust_acquire(tracer: &Tracer) {
    let lock = robust(3);
    let prepare = || {
        used_before();
        || take(&lock)
    };
    let dead = tracer.kill(prepare, || {});
    assert_told_once(&dead, &takes_all(tracer, &lock, 3), true);
}

/// One that holds them all until it is let go.
fn holder(lock: &Lock, permits: u32) -> Peer {
    let mut holder = Peer::start(|line| {
        for _ in 0..permits {
            take(lock);
        }
        line.say(0);
        line.hear();
        for _ in 0..permits {
            lock.release().expect("it is held");
        }
    });
    holder.expect();
    holder
}

fn robust_contended(tracer: &Tracer) {
    let lock = robust(2);
    let mut holder = holder(&lock, 2);
    let mut sleeper = sleeper(&lock);
    let prepare = || {
        used_before();
        || assert!(told_by(lock.acquire_until(in_an_hour())).is_some())
    };
    let dead = tracer.kill(prepare, || holder.go());
    if !dead.helped {
        holder.go();
    }
    tracer.expects("the sleeper to get a permit");
    let mut told = vec![sleeper.expect()];
    told.retain(|&told| told != 0);
    sleeper.join();
    holder.join();
    told.extend(takes_all(tracer, &lock, 2));
    assert_told_once(&dead, &told, true);
}

fn robust_timeout(tracer: &Tracer) {
    let lock = robust(2);
    let mut holder = holder(&lock, 2);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(soon()), Wait::TimedOut)
    };
    let _dead = tracer.kill(prepare, || {});
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "one permit too many"));
    holder.go();
    holder.join();
    assert_eq!(takes_all(tracer, &lock, 2), []);
}

fn robust_release(tracer: &Tracer) {
    let lock = robust(2);
    let prepare = || {
        take(&lock);
        || lock.release().expect("it is held")
    };
    let dead = tracer.kill(prepare, || {});
    assert_told_once(&dead, &takes_all(tracer, &lock, 2), false);
}

fn robust_release_one_waits(tracer: &Tracer) {
    let lock = robust(1);
    release_one_waits(tracer, &lock, || takes_all(tracer, &lock, 1));
}

/// One sleeps for the permit that is released. Then `takes_all` takes all that the sleeper has not,
/// and says of whom it was told.
fn release_one_waits(tracer: &Tracer, lock: &Lock, takes_all: impl FnOnce() -> Vec<Told>) {
    let mut waiting = None;
    let prepare = || {
        take(lock);
        || lock.release().expect("it is held")
    };
    let dead = tracer.kill_known(prepare, |_| waiting = Some(sleeper(lock)), || {});
    let mut waiting = waiting.expect("it is there");
    tracer.expects("the sleeper to get the permit");
    let mut told = vec![waiting.expect()];
    told.retain(|&told| told != 0);
    waiting.join();
    told.extend(takes_all());
    assert_told_once(&dead, &told, false);
}

fn robust_recovery(tracer: &Tracer) {
    let lock = robust(2);
    let mut first = holder(&lock, 2);
    let number = first.number();
    let prepare = || {
        used_before();
        || assert_eq!(take(&lock), number)
    };
    let dead = tracer.kill(prepare, || first.kill());
    if !dead.helped {
        first.kill();
    }
    let mut told = takes_all(tracer, &lock, 2);
    told.sort_by_key(|&told| told == dead.pid);
    let (none_recovered, one_recovered) = (vec![number, number], vec![number, dead.pid]);
    assert!(told == one_recovered || !dead.returned && told == none_recovered, "told {told:?}");
}

fn robust_given_back(tracer: &Tracer) {
    let lock = robust(1);
    let mut first = holder(&lock, 1);
    first.kill();
    let number = first.number();
    let prepare = || {
        assert_eq!(take(&lock), number);
        || lock.give_back_as_owner_died(number)
    };
    let dead = tracer.kill(prepare, || {});
    let told = takes_all(tracer, &lock, 1);
    assert!(told == [number] || !dead.returned && told == [dead.pid], "told {told:?}");
}

/// More than one block of them, so that they are found by hints.
const MANY: u32 = 130;

/// All permits but some are held, for as long as the peer lives.
fn all_held_but(lock: &Lock, free: u32) -> Peer {
    holder(lock, MANY - free)
}

/// Those who held nearly all give them back, and all can be taken.
fn takes_all_of_many(tracer: &Tracer, lock: &Lock, mut holder: Peer) -> Vec<Told> {
    holder.go();
    holder.join();
    takes_all(tracer, lock, MANY)
}

fn robust_acquire_one_of_many(tracer: &Tracer) {
    let lock = robust(MANY);
    let holder = all_held_but(&lock, 1);
    let prepare = || {
        used_before();
        || take(&lock)
    };
    let dead = tracer.kill(prepare, || {});
    assert_told_once(&dead, &takes_all_of_many(tracer, &lock, holder), true);
}

fn robust_none_of_many(tracer: &Tracer) {
    let lock = robust(MANY);
    let holder = all_held_but(&lock, 0);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(soon()), Wait::TimedOut)
    };
    let _dead = tracer.kill(prepare, || {});
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "one permit too many"));
    assert_eq!(takes_all_of_many(tracer, &lock, holder), []);
}

fn robust_release_one_of_many(tracer: &Tracer) {
    let lock = robust(MANY);
    let holder = all_held_but(&lock, 1);
    let prepare = || {
        take(&lock);
        // It clears the hints, so that the release has one to set.
        assert_eq!(lock.try_acquire(), Wait::TimedOut);
        || lock.release().expect("it is held")
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("the permit to be found, wherever its holder died");
    fresh(|| {
        take(&lock);
        lock.release().expect("it is held");
    });
    let told = takes_all_of_many(tracer, &lock, holder);
    // The fresh one was told, if anybody was.
    assert_eq!(told, [], "told of {}", dead.pid);
}

fn robust_release_one_of_many_one_waits(tracer: &Tracer) {
    let lock = robust(MANY);
    let holder = all_held_but(&lock, 1);
    release_one_waits(tracer, &lock, || takes_all_of_many(tracer, &lock, holder));
}

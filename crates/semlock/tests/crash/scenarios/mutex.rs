//! Mutexes: if the holder dies, exactly one next holder is told.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use semlock::raw::{Lock, LockKind, Options};
use semlock::{Deadline, Wait};

use super::{Named, Told, in_an_hour, soon, told_by};
use crate::forked::Forked;
use crate::peer::{Peer, fresh};
use crate::tracer::{Dead, Tracer};

pub const SCENARIOS: &[Named] = &[
    ("acquire/uncontended", acquire_uncontended),
    ("acquire/first-of-its-process", acquire_first),
    ("acquire/contended", acquire_contended),
    ("acquire/timeout-that-expires", acquire_timeout_expires),
    ("acquire/timeout-that-does-not", acquire_timeout_does_not),
    ("acquire/tried-in-vain", acquire_tried),
    ("release/nobody-waits", release_nobody_waits),
    ("release/two-wait", release_two_wait),
    ("recovery/by-trying", recovery_by_trying),
    ("recovery/by-watching", recovery_by_watching),
    ("recovery/by-watching-for-others", recovery_for_others),
    ("recovery/after-the-watcher-left", recovery_after_the_watcher_left),
    ("recovery/of-one-that-recovered", recovery_of_one_that_recovered),
    ("recovery/given-back-as-owner-died", given_back),
    ("reentrant/acquire", reentrant_acquire),
    ("reentrant/again", reentrant_again),
    ("reentrant/release", reentrant_release),
    ("fork/while-holding", fork_while_holding),
];

pub fn mutex_of(kind: LockKind) -> Lock {
    Lock::new(Options { kind, value: 1, maxvalue: 1, robust: true }).expect("memory")
}

pub fn mutex() -> Lock {
    mutex_of(LockKind::Mutex)
}

pub fn take(lock: &Lock) -> Told {
    told_by(lock.acquire_until(Deadline::NEVER)).expect("a wait without a deadline")
}

/// As a process does that has used semlock before, and has waited: it knows how many processors it
/// has, and more.
pub fn used_before() {
    let other = mutex();
    take(&other);
    assert_eq!(other.acquire_until(Deadline::after(Duration::ZERO)), Wait::TimedOut);
    other.release().expect("it is held");
}

/// One that holds it until it is let go.
pub fn holder(lock: &Lock) -> Peer {
    let mut holder = holder_that_says(lock);
    holder.expect();
    holder
}

/// One that sleeps until it gets it, says what it was told, and gives it back.
pub fn sleeper(lock: &Lock) -> Peer {
    let mut sleeper = taker(lock);
    sleeper.until_asleep();
    sleeper
}

/// One that says what it was told as soon as it gets it, which may be at once, and gives it back.
pub fn taker(lock: &Lock) -> Peer {
    Peer::start(|line| {
        line.say(take(lock));
        lock.release().expect("it is held");
    })
}

/// Sees that one can take it and nobody else meanwhile, and that it is free after that. Returns
/// what that one was told.
pub fn works(tracer: &Tracer, lock: &Lock) -> Told {
    tracer.expects("a fresh process to get the lock");
    let mut first = holder_that_says(lock);
    let told = first.expect();
    fresh(|| {
        assert_eq!(lock.holder(), Some(first.number()));
        assert_eq!(lock.try_acquire(), Wait::TimedOut, "two hold it");
    });
    first.go();
    first.join();
    fresh(|| {
        assert_eq!((lock.value(), lock.holder()), (1, None), "nobody holds it");
        assert_eq!(lock.try_acquire(), Wait::Acquired, "nobody died since");
        lock.release().expect("it is held");
    });
    told
}

fn holder_that_says(lock: &Lock) -> Peer {
    Peer::start(|line| {
        line.say(take(lock));
        line.hear();
        lock.release().expect("it is held");
    })
}

/// Of those who took it one after the other, the first after the dead one was told of it, if it
/// died as the holder: which it surely did (`true`), surely did not (`false`), or perhaps.
pub fn assert_told(dead: &Dead, all: &[Told], was_holder: Option<bool>) {
    let (of_it, others): (Vec<Told>, Vec<Told>) =
        all.iter().copied().filter(|&told| told != 0).partition(|&told| told == dead.pid);
    assert!(others.is_empty(), "told that {others:?} died, which did not");
    match was_holder {
        Some(was) => assert_eq!(of_it.len(), usize::from(was), "so often told of its death"),
        None => assert!(of_it.len() <= 1, "told of one death several times"),
    }
}

/// Whether it died as the holder, where nobody has taken the lock since; if its call was over, it
/// did so as is expected.
pub fn died_as_holder(dead: &Dead, lock: &Lock, expected: bool) -> bool {
    let was = lock.holder() == Some(dead.pid);
    assert!(was == expected || !dead.returned, "its call left it otherwise");
    was
}

/// If its call was over, that is certain; before, both may be.
fn if_returned(dead: &Dead, was_holder: bool) -> Option<bool> {
    dead.returned.then_some(was_holder)
}

fn acquire_uncontended(tracer: &Tracer) {
    let lock = mutex();
    let prepare = || {
        used_before_in(&lock);
        || take(&lock)
    };
    let dead = tracer.kill(prepare, || {});
    let was_holder = died_as_holder(&dead, &lock, true);
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
}

/// The same lock's segment knows this process after that.
fn used_before_in(lock: &Lock) {
    take(lock);
    lock.release().expect("it is held");
}

fn acquire_first(tracer: &Tracer) {
    let lock = mutex();
    let dead = tracer.kill(|| || take(&lock), || {});
    let was_holder = died_as_holder(&dead, &lock, true);
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
}

fn acquire_contended(tracer: &Tracer) {
    let lock = mutex();
    let prepare = || {
        used_before();
        || take(&lock)
    };
    contended(tracer, &lock, holder(&lock), prepare);
}

/// One holds it, and another sleeps for it already.
pub fn contended<C: FnOnce() -> Told>(
    tracer: &Tracer,
    lock: &Lock,
    mut holder: Peer,
    prepare: impl FnOnce() -> C,
) {
    let mut sleeper = sleeper(lock);
    let dead = tracer.kill(prepare, || holder.go());
    if !dead.helped {
        holder.go();
    }
    tracer.expects("the sleeper to get the lock");
    let all = [sleeper.expect(), works(tracer, lock)];
    assert_told(&dead, &all, if_returned(&dead, true));
    tracer.expects("the others to end");
    sleeper.join();
    holder.join();
}

fn acquire_timeout_expires(tracer: &Tracer) {
    let lock = mutex();
    let mut holder = holder(&lock);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(soon()), Wait::TimedOut)
    };
    let dead = tracer.kill(prepare, || {});
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "two hold it"));
    holder.go();
    assert_told(&dead, &[works(tracer, &lock)], Some(false));
    holder.join();
}

fn acquire_timeout_does_not(tracer: &Tracer) {
    let lock = mutex();
    let mut holder = holder(&lock);
    let prepare = || {
        used_before();
        || assert_eq!(lock.acquire_until(in_an_hour()), Wait::Acquired)
    };
    let dead = tracer.kill(prepare, || holder.go());
    let was_holder = died_as_holder(&dead, &lock, true);
    if !dead.helped {
        holder.go();
    }
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
    holder.join();
}

fn acquire_tried(tracer: &Tracer) {
    let lock = mutex();
    let mut holder = holder(&lock);
    let mut sleeper = sleeper(&lock);
    let prepare = || {
        used_before();
        || assert_eq!(lock.try_acquire(), Wait::TimedOut)
    };
    let dead = tracer.kill(prepare, || {});
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "two hold it"));
    holder.go();
    tracer.expects("the sleeper to get the lock");
    assert_told(&dead, &[sleeper.expect(), works(tracer, &lock)], Some(false));
    sleeper.join();
    holder.join();
}

fn release_nobody_waits(tracer: &Tracer) {
    let lock = mutex();
    let prepare = || {
        take(&lock);
        || lock.release().expect("it is held")
    };
    let dead = tracer.kill(prepare, || {});
    let was_holder = died_as_holder(&dead, &lock, false);
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
}

fn release_two_wait(tracer: &Tracer) {
    let lock = mutex();
    let mut sleepers = Vec::new();
    let prepare = || {
        take(&lock);
        || lock.release().expect("it is held")
    };
    let ready = |_| sleepers = vec![sleeper(&lock), sleeper(&lock)];
    let dead = tracer.kill_known(prepare, ready, || {});
    tracer.expects("both sleepers to get the lock");
    let mut all: Vec<_> = sleepers.iter_mut().map(Peer::expect).collect();
    all.push(works(tracer, &lock));
    assert_told(&dead, &all, if_returned(&dead, false));
    sleepers.into_iter().for_each(Peer::join);
}

/// One that has died with the lock.
fn dead_holder(lock: &Lock) -> Peer {
    let mut holder = holder(lock);
    holder.kill();
    holder
}

/// The next who takes it is told of the second one's death if that held it, and of the first one's
/// otherwise.
pub fn tells_of_the_last(tracer: &Tracer, lock: &Lock, dead: &Dead, first: &Peer) {
    let last = lock.holder();
    assert!([first.number(), dead.pid].map(Some).contains(&last), "{last:?} holds it");
    assert!(last == Some(dead.pid) || !dead.returned, "it did not recover it");
    assert_eq!(Some(works(tracer, lock)), last, "told of another death");
}

fn recovery_by_trying(tracer: &Tracer) {
    let lock = mutex();
    let first = dead_holder(&lock);
    let prepare = || {
        used_before();
        || assert_eq!(lock.try_acquire(), Wait::OwnerDied(first.number()))
    };
    let dead = tracer.kill(prepare, || {});
    tells_of_the_last(tracer, &lock, &dead, &first);
}

fn recovery_by_watching(tracer: &Tracer) {
    let lock = mutex();
    let mut first = holder(&lock);
    let number = first.number();
    let prepare = || {
        used_before();
        || assert_eq!(take(&lock), number)
    };
    let dead = tracer.kill(prepare, || first.kill());
    if !dead.helped {
        first.kill();
    }
    tells_of_the_last(tracer, &lock, &dead, &first);
}

fn recovery_for_others(tracer: &Tracer) {
    let lock = mutex();
    let (mut first, mut second) = (holder(&lock), None);
    let prepare = || {
        used_before();
        || take(&lock)
    };
    // It sleeps before the other, so that it is the one who watches.
    let help = || {
        second = Some(sleeper(&lock));
        first.kill();
    };
    let dead = tracer.kill(prepare, help);
    let mut second = second.unwrap_or_else(|| {
        let second = sleeper(&lock);
        first.kill();
        second
    });
    tracer.expects("the sleeper to get the lock");
    let all = [second.expect(), works(tracer, &lock)];
    // The first one's death is told once; or, if it was told to the dead one, that one's.
    let mut of_the_dead = all.into_iter().filter(|&told| told != 0);
    let next = of_the_dead.next().expect("somebody is told");
    assert!([first.number(), dead.pid].contains(&next), "told {next}");
    match of_the_dead.next() {
        // The sleeper came first, and after it the one that died.
        Some(last) => assert_eq!((next, last), (first.number(), dead.pid)),
        None if dead.returned => assert_eq!(next, dead.pid),
        None => {}
    }
    second.join();
}

fn recovery_after_the_watcher_left(tracer: &Tracer) {
    let lock = mutex();
    let (mut first, mut second) = (holder(&lock), None);
    let prepare = || {
        used_before();
        // After it has checked the holder once.
        || {
            let deadline = Deadline::after(Duration::from_millis(200));
            assert_eq!(lock.acquire_until(deadline), Wait::TimedOut);
        }
    };
    // It sleeps before the other, so that it is the one who watches.
    let dead = tracer.kill(prepare, || second = Some(sleeper(&lock)));
    let mut second = second.unwrap_or_else(|| sleeper(&lock));
    first.kill();
    tracer.expects("the sleeper to get the lock");
    let all = [second.expect(), works(tracer, &lock)];
    assert_eq!(all, [first.number(), 0], "told of {} or {}", first.number(), dead.pid);
    second.join();
}

fn recovery_of_one_that_recovered(tracer: &Tracer) {
    let lock = mutex();
    let _first = dead_holder(&lock);
    let second = dead_holder(&lock);
    assert_eq!(lock.holder(), Some(second.number()), "the second recovered it");
    let prepare = || {
        used_before();
        || assert_eq!(lock.try_acquire(), Wait::OwnerDied(second.number()))
    };
    let dead = tracer.kill(prepare, || {});
    let last = lock.holder();
    assert!([second.number(), dead.pid].map(Some).contains(&last), "{last:?} holds it");
    // It may find the dead one at once, and so never sleep.
    let mut sleeper = taker(&lock);
    tracer.expects("the sleeper to get the lock");
    let all = [sleeper.expect(), works(tracer, &lock)];
    let told: Vec<_> = all.into_iter().filter(|&told| told != 0).map(Some).collect();
    assert_eq!(told, [last], "told of another death");
    sleeper.join();
}

fn given_back(tracer: &Tracer) {
    let lock = mutex();
    let first = dead_holder(&lock);
    let number = first.number();
    let prepare = || {
        assert_eq!(take(&lock), number);
        || lock.give_back_as_owner_died(number)
    };
    let dead = tracer.kill(prepare, || {});
    let told = works(tracer, &lock);
    assert!(told == number || !dead.returned && told == dead.pid, "told {told}");
}

fn reentrant_acquire(tracer: &Tracer) {
    let lock = mutex_of(LockKind::ReentrantMutex);
    let dead = tracer.kill(|| || take(&lock), || {});
    let was_holder = died_as_holder(&dead, &lock, true);
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
}

fn reentrant_again(tracer: &Tracer) {
    let lock = mutex_of(LockKind::ReentrantMutex);
    let mut second = None;
    let prepare = || {
        take(&lock);
        || {
            take(&lock);
            lock.release().expect("it is held twice");
        }
    };
    let dead = tracer.kill_known(prepare, |_| second = Some(sleeper(&lock)), || {});
    let mut second = second.expect("it is there");
    tracer.expects("the sleeper to get the lock");
    assert_told(&dead, &[second.expect(), works(tracer, &lock)], Some(true));
    second.join();
}

fn reentrant_release(tracer: &Tracer) {
    let lock = mutex_of(LockKind::ReentrantMutex);
    let mut second = None;
    let prepare = || {
        take(&lock);
        take(&lock);
        || {
            lock.release().expect("it is held twice");
            lock.release().expect("it is held once");
        }
    };
    let dead = tracer.kill_known(prepare, |_| second = Some(sleeper(&lock)), || {});
    let mut second = second.expect("it is there");
    tracer.expects("the sleeper to get the lock");
    assert_told(&dead, &[second.expect(), works(tracer, &lock)], if_returned(&dead, false));
    second.join();
}

/// Its child, if it comes to that, ends at once: it is nobody's heir for long.
fn fork_while_holding(tracer: &Tracer) {
    let lock = mutex();
    let prepare = || {
        used_before();
        take(&lock);
        // It would stop what is stepped.
        SigSet::from(Signal::SIGCHLD).thread_block().expect("sigprocmask");
        || {
            drop(Forked::run(|| {}));
            0
        }
    };
    let dead = tracer.kill(prepare, || {});
    assert_eq!(lock.holder(), Some(dead.pid));
    assert_told(&dead, &[works(tracer, &lock)], Some(true));
}

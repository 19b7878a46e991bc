//! A tracee that spins before it sleeps: the holder is on another processor.

use semlock::raw::Lock;
use semlock::{Deadline, Wait};

use super::mutex::{
    assert_told, contended, died_as_holder, mutex, sleeper, take, tells_of_the_last, used_before,
    works,
};
use super::semaphore::{self, assert_taken, count};
use super::stopped::{Call, all_get_on, give_back, pass_on, plain};
use super::{Named, Told, told_by};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const KILLED: &[Named] = &[
    ("spinning/acquire-in-vain", acquire_in_vain),
    ("spinning/acquire-as-it-is-released", acquire_as_released),
    ("spinning/acquire-as-its-holder-dies", acquire_as_holder_dies),
    ("spinning/semaphore/acquire-in-vain", semaphore_in_vain),
    ("spinning/semaphore/acquire-as-it-is-released", semaphore_as_released),
];

pub const STOPPED: &[Named] = &[
    ("stopped/spinning/acquire-as-it-is-released", |tracer| stopped_as_released(tracer, &mutex())),
    ("stopped/spinning/acquire-behind-another", |tracer| {
        stopped_behind_another(tracer, &mutex());
    }),
    ("stopped/spinning/semaphore/acquire-as-it-is-released", |tracer| {
        stopped_as_released(tracer, &plain());
    }),
];

/// One that holds it until it is let go, on the other processor, and says when it has given it
/// back. Where it gave it back once already: that is what tells of a semaphore where that may
/// happen again.
fn holder_elsewhere(tracer: &Tracer, lock: &Lock) -> Peer {
    let mut holder = Peer::start(|line| {
        tracer.go_elsewhere();
        take(lock);
        give_back(lock);
        take(lock);
        line.say(0);
        line.hear();
        give_back(lock);
        line.say(0);
    });
    holder.expect();
    holder
}

fn let_go(holder: &mut Peer) {
    holder.go();
    holder.expect();
}

/// Prepares a call as one does that has used it before, and has two processors.
fn on_two<C>(tracer: &Tracer, lock: &Lock, prepare: impl FnOnce() -> C) -> impl FnOnce() -> C {
    move || {
        tracer.with_both_processors(used_before);
        if lock.try_acquire() == Wait::Acquired {
            give_back(lock);
        }
        prepare()
    }
}

/// Takes it as `take` does, but for the first try, which may check the holder: it spins at once.
fn spin(lock: &Lock) -> Told {
    let mut waiter = lock.waiter(Deadline::NEVER);
    loop {
        match waiter.wait() {
            Wait::Interrupted => {}
            wait => return told_by(wait).expect("a wait without a deadline"),
        }
    }
}

/// A call that takes it and gives it back.
fn spinning<'a>(lock: &'a Lock) -> impl FnOnce() -> Call<'a> {
    move || {
        Box::new(move || {
            assert_eq!(spin(lock), 0);
            give_back(lock);
            0
        })
    }
}

fn acquire_in_vain(tracer: &Tracer) {
    let lock = mutex();
    let holder = holder_elsewhere(tracer, &lock);
    contended(tracer, &lock, holder, on_two(tracer, &lock, || || spin(&lock)));
}

fn acquire_as_released(tracer: &Tracer) {
    let lock = mutex();
    let mut holder = holder_elsewhere(tracer, &lock);
    tracer.help_the_spinning_thread();
    let dead = tracer.kill(on_two(tracer, &lock, || || spin(&lock)), || let_go(&mut holder));
    let was_holder = died_as_holder(&dead, &lock, true);
    if !dead.helped {
        let_go(&mut holder);
    }
    assert_told(&dead, &[works(tracer, &lock)], Some(was_holder));
    holder.join();
}

fn acquire_as_holder_dies(tracer: &Tracer) {
    let lock = mutex();
    let mut first = holder_elsewhere(tracer, &lock);
    let number = first.number();
    tracer.help_the_spinning_thread();
    let call = || || assert_eq!(spin(&lock), number);
    let dead = tracer.kill(on_two(tracer, &lock, call), || first.kill());
    if !dead.helped {
        first.kill();
    }
    tells_of_the_last(tracer, &lock, &dead, &first);
}

/// One without a permit, the last of which was given on the other processor.
fn taken_elsewhere(tracer: &Tracer) -> Lock {
    let lock = semaphore::plain(1);
    elsewhere(tracer, || {
        take(&lock);
        give_back(&lock);
        take(&lock);
    });
    lock
}

/// Lets a fresh process do it on the other processor.
fn elsewhere(tracer: &Tracer, act: impl FnOnce()) {
    fresh(|| {
        tracer.go_elsewhere();
        act();
    });
}

fn semaphore_in_vain(tracer: &Tracer) {
    let lock = taken_elsewhere(tracer);
    semaphore::contended(tracer, &lock, on_two(tracer, &lock, || || assert_eq!(spin(&lock), 0)));
}

fn semaphore_as_released(tracer: &Tracer) {
    let lock = taken_elsewhere(tracer);
    let give = || elsewhere(tracer, || give_back(&lock));
    tracer.help_the_spinning_thread();
    let dead = tracer.kill(on_two(tracer, &lock, || || spin(&lock)), give);
    if !dead.helped {
        give();
    }
    assert_taken(&dead, 1 - count(&lock), 1);
}

fn stopped_as_released(tracer: &Tracer, lock: &Lock) {
    let ready = || holder_elsewhere(tracer, lock);
    let (_, holder) = tracer.stop(on_two(tracer, lock, spinning(lock)), ready, let_go);
    all_get_on(tracer, lock, [holder]);
}

fn stopped_behind_another(tracer: &Tracer, lock: &Lock) {
    let ready = || [holder_elsewhere(tracer, lock), sleeper(lock)];
    let (_, others) = tracer.stop(on_two(tracer, lock, spinning(lock)), ready, pass_on);
    all_get_on(tracer, lock, others);
}

//! One that is stopped in the middle of its call, while another thread of its process forks: the child is somebody else, whom
//! nothing of its parent's call keeps from anything; and the call ends as if there were no child.

use std::time::Duration;

use semlock::raw::Lock;
use semlock::{Deadline, Event, Wait};

use super::barrier::{self, THROUGH, barrier, fate};
use super::condvar::{Both, get_on};
use super::event::{self, event};
use super::memory::made_by_another;
use super::mutex::{holder, mutex, take, used_before};
use super::semaphore::robust;
use super::stopped::{
    coming, give_back, giving_back, is_free, never, plain, reentrant, setting, taking, waiting,
};
use super::{Named, told};
use crate::peer::fresh;
use crate::stage::Stage;

pub const SCENES: &[Named] = &[
    ("forked/mutex/acquire", |stage| acquire(stage, &mutex())),
    ("forked/mutex/acquire-contended", |stage| acquire_contended(stage, &mutex())),
    ("forked/mutex/release", |stage| release(stage, &mutex())),
    ("forked/mutex/acquire-from-the-child", |stage| acquire_from_the_child(stage, &mutex())),
    ("forked/mutex/leave-it-to-the-child", |stage| leave_it_to_the_child(stage, &mutex())),
    ("forked/reentrant/acquire", |stage| acquire(stage, &reentrant())),
    ("forked/reentrant/acquire-contended", |stage| acquire_contended(stage, &reentrant())),
    ("forked/reentrant/release", |stage| release(stage, &reentrant())),
    ("forked/reentrant/acquire-from-the-child", |stage| {
        acquire_from_the_child(stage, &reentrant());
    }),
    ("forked/reentrant/leave-it-to-the-child", |stage| leave_it_to_the_child(stage, &reentrant())),
    ("forked/semaphore/acquire-contended", |stage| acquire_contended(stage, &plain())),
    ("forked/robust-semaphore/acquire", |stage| acquire(stage, &robust(1))),
    ("forked/robust-semaphore/acquire-contended", |stage| acquire_contended(stage, &robust(1))),
    ("forked/robust-semaphore/release", |stage| release(stage, &robust(1))),
    ("forked/robust-semaphore/acquire-from-the-child", |stage| {
        acquire_from_the_child(stage, &robust(1));
    }),
    ("forked/robust-semaphore/leave-it-to-the-child", |stage| {
        leave_it_to_the_child(stage, &robust(1));
    }),
    ("forked/condvar/wait", wait),
    ("forked/condvar/notify", notify),
    ("forked/event/wait", wait_for_event),
    ("forked/event/set", set),
    ("forked/barrier/first", first),
    ("forked/barrier/last", last),
    ("forked/create/first-of-its-process", |stage| create(stage, || {})),
    ("forked/create/used-segment", |stage| create(stage, || std::mem::forget(mutex()))),
    ("forked/create/used-slot", |stage| create(stage, || drop(mutex()))),
    ("forked/open/unknown-segment", open_unknown),
    ("forked/drop/one-of-many", drop_one),
    ("forked/drop/last-of-its-segment", drop_last),
];

/// A process of its own: what it makes is its own, and works.
fn works_by_itself() {
    let lock = mutex();
    assert_eq!(take(&lock), 0);
    fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "two hold it"));
    assert_eq!(lock.acquire_until(Deadline::after(Duration::ZERO)), Wait::TimedOut);
    give_back(&lock);
    let event = event();
    fresh(|| event.set());
    event.wait();
}

/// What a child does.
fn take_as_well(lock: &Lock) {
    works_by_itself();
    assert_eq!(take(lock), 0);
    give_back(lock);
}

/// Has it forked there, where the child does this and ends. Returns what the call came to, and the child's number.
fn fork<C: FnOnce() -> u32>(
    stage: &Stage,
    prepare: impl FnOnce() -> C,
    help: impl FnOnce(),
    life: impl FnOnce() + Send,
) -> (u32, u32) {
    let (result, child) = stage.fork(prepare, help, |line| {
        life();
        line.say(std::process::id());
    });
    stage.expects("the child to get what is free");
    (result, child.last_word())
}

fn acquire(stage: &Stage, lock: &Lock) {
    fork(stage, taking(lock), || {}, || take_as_well(lock));
    is_free(stage, lock);
}

fn acquire_contended(stage: &Stage, lock: &Lock) {
    let mut holder = holder(lock);
    fork(stage, taking(lock), || holder.go(), || take_as_well(lock));
    holder.join();
    is_free(stage, lock);
}

fn release(stage: &Stage, lock: &Lock) {
    fork(stage, giving_back(lock), || {}, || take_as_well(lock));
    is_free(stage, lock);
}

/// The child ends as the holder: that is told to one who comes after it, be it its parent.
fn acquire_from_the_child(stage: &Stage, lock: &Lock) {
    let prepare = || {
        used_before();
        || {
            let told = take(lock);
            give_back(lock);
            told
        }
    };
    let (told, child) = fork(stage, prepare, || {}, || assert_eq!(take(lock), 0));
    if told == 0 {
        is_told(stage, lock, child);
    } else {
        assert_eq!(told, child);
    }
    is_free(stage, lock);
}

fn is_told(stage: &Stage, lock: &Lock, pid: u32) {
    stage.expects("a fresh process to get it from the dead child");
    fresh(|| {
        assert_eq!(take(lock), pid);
        give_back(lock);
    });
}

/// The child gets it after its parent, and is killed with it.
fn leave_it_to_the_child(stage: &Stage, lock: &Lock) {
    let (_, mut child) = stage.fork(
        giving_back(lock),
        || {},
        |line| {
            line.say(take(lock));
            loop {
                std::thread::park();
            }
        },
    );
    stage.expects("the child to get what is free");
    assert_eq!(child.expect(), 0);
    child.kill();
    is_told(stage, lock, child.number());
    is_free(stage, lock);
}

/// What a child of one that uses a condition does.
fn lock_as_well(both: &Both) {
    works_by_itself();
    drop(both.mutex.lock());
}

fn wait(stage: &Stage) {
    let both = Both::new();
    let prepare = || {
        used_before();
        let guard = both.mutex.lock().into_guard();
        || told(&both.condvar.wait(guard).expect("there is a node"))
    };
    let mut notifier = None;
    let help = || notifier = Some(both.notifier(1));
    let (told, _) = fork(stage, prepare, help, || lock_as_well(&both));
    assert_eq!(told, 0, "nobody has died");
    assert_eq!(get_on(stage, notifier.expect("it came")), 1);
    both.works(stage);
}

fn notify(stage: &Stage) {
    let both = Both::new();
    let sleeper = both.sleeper();
    let prepare = || {
        used_before();
        let (both, guard) = (&both, both.mutex.lock().into_guard());
        move || both.condvar.notify_one(&guard).into()
    };
    let (notified, _) = fork(stage, prepare, || {}, || lock_as_well(&both));
    assert_eq!(notified, 1);
    assert_eq!(get_on(stage, sleeper), 0);
    both.works(stage);
}

/// What a child of one that uses an event does.
fn wait_as_well(event: &Event) {
    works_by_itself();
    event.wait();
}

fn wait_for_event(stage: &Stage) {
    let event = event();
    fork(stage, waiting(&event), || fresh(|| event.set()), || wait_as_well(&event));
    event::works(stage, &event);
}

fn set(stage: &Stage) {
    let event = event();
    let sleeper = event::sleeper(&event);
    fork(stage, setting(&event), || {}, || wait_as_well(&event));
    sleeper.join();
    event::works(stage, &event);
}

/// The child has not come to the barrier.
fn first(stage: &Stage) {
    let barrier = barrier(2);
    let mut second = None;
    let help = || second = Some(barrier::member(&barrier).settled());
    let (first, _) = fork(stage, coming(&barrier, never), help, works_by_itself);
    assert_eq!([first, fate(stage, second.expect("it came"))], [THROUGH; 2]);
    barrier::works(stage, &barrier);
}

fn last(stage: &Stage) {
    let barrier = barrier(2);
    let first = barrier::sleeper(&barrier);
    let (last, _) = fork(stage, coming(&barrier, never), || {}, works_by_itself);
    assert_eq!([fate(stage, first), last], [THROUGH; 2]);
    barrier::works(stage, &barrier);
}

/// What both make at the same time is not the same.
fn create(stage: &Stage, before: fn()) {
    let prepare = || {
        before();
        || {
            is_new(&mutex());
            0
        }
    };
    fork(stage, prepare, || {}, end_with_its_own);
}

/// Nobody holds it, and nobody died with it.
fn is_new(lock: &Lock) {
    assert_eq!(lock.try_acquire(), Wait::Acquired);
    give_back(lock);
}

/// What a child does that ends as the holder of what it has made.
fn end_with_its_own() {
    works_by_itself();
    let own = mutex();
    assert_eq!(take(&own), 0);
    std::mem::forget(own);
}

fn open_unknown(stage: &Stage) {
    let (mut maker, open) = made_by_another();
    let prepare = || {
        || {
            let lock = open();
            assert_eq!(take(&lock), 0);
            give_back(&lock);
            0
        }
    };
    fork(stage, prepare, || {}, || take_as_well(&open()));
    is_free(stage, &open());
    maker.go();
    maker.join();
}

/// What its place is used for next is not the child's.
fn drop_one(stage: &Stage) {
    let prepare = || {
        std::mem::forget(mutex());
        let one = mutex();
        || {
            drop(one);
            is_new(&mutex());
            0
        }
    };
    fork(stage, prepare, || {}, end_with_its_own);
}

fn drop_last(stage: &Stage) {
    let prepare = || {
        let last = mutex();
        || {
            drop(last);
            0
        }
    };
    fork(stage, prepare, || {}, end_with_its_own);
}

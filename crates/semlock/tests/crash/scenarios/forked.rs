//! A tracee that is stopped in the middle of its call, while another thread of it forks. Nothing of
//! its parent's call keeps the child from anything, and the call ends as if there were no child.

use std::time::Duration;

use semlock::raw::Lock;
use semlock::{Deadline, Event, Wait};

use super::barrier::{self, THROUGH, barrier, fate};
use super::channel::{self, LARGE, channel};
use super::condvar::{Both, get_on};
use super::event::{self, event};
use super::memory::made_by_another;
use super::mutex::{holder, mutex, take, used_before};
use super::semaphore::robust;
use super::stopped::{
    coming, give_back, giving_back, is_free, never, plain, receiving, reentrant, sending, setting,
    taking, waiting,
};
use super::{Named, told};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("forked/mutex/acquire", |tracer| acquire(tracer, &mutex())),
    ("forked/mutex/acquire-contended", |tracer| acquire_contended(tracer, &mutex())),
    ("forked/mutex/release", |tracer| release(tracer, &mutex())),
    ("forked/mutex/acquire-from-the-child", |tracer| acquire_from_the_child(tracer, &mutex())),
    ("forked/mutex/leave-it-to-the-child", |tracer| leave_it_to_the_child(tracer, &mutex())),
    ("forked/reentrant/acquire", |tracer| acquire(tracer, &reentrant())),
    ("forked/reentrant/acquire-contended", |tracer| acquire_contended(tracer, &reentrant())),
    ("forked/reentrant/release", |tracer| release(tracer, &reentrant())),
    ("forked/reentrant/acquire-from-the-child", |tracer| {
        acquire_from_the_child(tracer, &reentrant());
    }),
    ("forked/reentrant/leave-it-to-the-child", |tracer| {
        leave_it_to_the_child(tracer, &reentrant());
    }),
    ("forked/semaphore/acquire-contended", |tracer| acquire_contended(tracer, &plain())),
    ("forked/robust-semaphore/acquire", |tracer| acquire(tracer, &robust(1))),
    ("forked/robust-semaphore/acquire-contended", |tracer| acquire_contended(tracer, &robust(1))),
    ("forked/robust-semaphore/release", |tracer| release(tracer, &robust(1))),
    ("forked/robust-semaphore/acquire-from-the-child", |tracer| {
        acquire_from_the_child(tracer, &robust(1));
    }),
    ("forked/robust-semaphore/leave-it-to-the-child", |tracer| {
        leave_it_to_the_child(tracer, &robust(1));
    }),
    ("forked/condvar/wait", wait),
    ("forked/condvar/notify", notify),
    ("forked/event/wait", wait_for_event),
    ("forked/event/set", set),
    ("forked/barrier/first", first),
    ("forked/barrier/last", last),
    ("forked/channel/send", send),
    ("forked/channel/send-in-parts", send_in_parts),
    ("forked/channel/receive", receive),
    ("forked/create/first-of-its-process", |tracer| create(tracer, || {})),
    ("forked/create/used-segment", |tracer| create(tracer, || std::mem::forget(mutex()))),
    ("forked/create/used-slot", |tracer| create(tracer, || drop(mutex()))),
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

/// Forks it there; the child lives its `life` and ends. Returns the call's result, and the child's
/// pid.
fn fork<C: FnOnce() -> u32>(
    tracer: &Tracer,
    prepare: impl FnOnce() -> C,
    help: impl FnOnce(),
    life: impl FnOnce() + Send,
) -> (u32, u32) {
    let (result, child) = tracer.fork(prepare, help, |line| {
        life();
        line.say(std::process::id());
    });
    tracer.expects("the child to get what is free");
    (result, child.last_word())
}

fn acquire(tracer: &Tracer, lock: &Lock) {
    fork(tracer, taking(lock), || {}, || take_as_well(lock));
    is_free(tracer, lock);
}

fn acquire_contended(tracer: &Tracer, lock: &Lock) {
    let mut holder = holder(lock);
    fork(tracer, taking(lock), || holder.go(), || take_as_well(lock));
    holder.join();
    is_free(tracer, lock);
}

fn release(tracer: &Tracer, lock: &Lock) {
    fork(tracer, giving_back(lock), || {}, || take_as_well(lock));
    is_free(tracer, lock);
}

/// The child ends as the holder: that is told to one who comes after it, be it its parent.
fn acquire_from_the_child(tracer: &Tracer, lock: &Lock) {
    let prepare = || {
        used_before();
        || {
            let told = take(lock);
            give_back(lock);
            told
        }
    };
    let (told, child) = fork(tracer, prepare, || {}, || assert_eq!(take(lock), 0));
    if told == 0 {
        is_told(tracer, lock, child);
    } else {
        assert_eq!(told, child);
    }
    is_free(tracer, lock);
}

fn is_told(tracer: &Tracer, lock: &Lock, pid: u32) {
    tracer.expects("a fresh process to get it from the dead child");
    fresh(|| {
        assert_eq!(take(lock), pid);
        give_back(lock);
    });
}

/// The child gets it after its parent, and is killed with it.
fn leave_it_to_the_child(tracer: &Tracer, lock: &Lock) {
    let (_, mut child) = tracer.fork(
        giving_back(lock),
        || {},
        |line| {
            line.say(take(lock));
            loop {
                std::thread::park();
            }
        },
    );
    tracer.expects("the child to get what is free");
    assert_eq!(child.expect(), 0);
    child.kill();
    is_told(tracer, lock, child.number());
    is_free(tracer, lock);
}

/// What a child of one that uses a condition does.
fn lock_as_well(both: &Both) {
    works_by_itself();
    drop(both.mutex.lock());
}

fn wait(tracer: &Tracer) {
    let both = Both::new();
    let prepare = || {
        used_before();
        let guard = both.mutex.lock().into_guard();
        || told(&both.condvar.wait(guard).expect("there is a node"))
    };
    let mut notifier = None;
    let help = || notifier = Some(both.notifier(1));
    let (told, _) = fork(tracer, prepare, help, || lock_as_well(&both));
    assert_eq!(told, 0, "nobody has died");
    assert_eq!(get_on(tracer, notifier.expect("it came")), 1);
    both.works(tracer);
}

fn notify(tracer: &Tracer) {
    let both = Both::new();
    let sleeper = both.sleeper();
    let prepare = || {
        used_before();
        let (both, guard) = (&both, both.mutex.lock().into_guard());
        move || both.condvar.notify_one(&guard).into()
    };
    let (notified, _) = fork(tracer, prepare, || {}, || lock_as_well(&both));
    assert_eq!(notified, 1);
    assert_eq!(get_on(tracer, sleeper), 0);
    both.works(tracer);
}

/// What a child of one that uses an event does.
fn wait_as_well(event: &Event) {
    works_by_itself();
    event.wait();
}

fn wait_for_event(tracer: &Tracer) {
    let event = event();
    fork(tracer, waiting(&event), || fresh(|| event.set()), || wait_as_well(&event));
    event::works(tracer, &event);
}

fn set(tracer: &Tracer) {
    let event = event();
    let sleeper = event::sleeper(&event);
    fork(tracer, setting(&event), || {}, || wait_as_well(&event));
    sleeper.join();
    event::works(tracer, &event);
}

/// The child has not come to the barrier.
fn first(tracer: &Tracer) {
    let barrier = barrier(2);
    let mut second = None;
    let help = || second = Some(barrier::member(&barrier).settled());
    let (first, _) = fork(tracer, coming(&barrier, never), help, works_by_itself);
    assert_eq!([first, fate(tracer, second.expect("it came"))], [THROUGH; 2]);
    barrier::works(tracer, &barrier);
}

fn last(tracer: &Tracer) {
    let barrier = barrier(2);
    let first = barrier::sleeper(&barrier);
    let (last, _) = fork(tracer, coming(&barrier, never), || {}, works_by_itself);
    assert_eq!([fate(tracer, first), last], [THROUGH; 2]);
    barrier::works(tracer, &barrier);
}

/// The child sends a message of its own, and not its parent's again.
fn send(tracer: &Tracer) {
    let channel = channel();
    fork(tracer, sending(&channel, 1), || {}, || channel::send_one(&channel, 2));
    let all = channel::drained(tracer, &channel);
    assert!(all == [1, 2] || all == [2, 1], "{all:?}");
    channel::works(tracer, &channel);
}

fn send_in_parts(tracer: &Tracer) {
    let channel = channel();
    let receivers = [channel::sleeper(&channel), channel::sleeper(&channel)];
    fork(tracer, sending(&channel, LARGE), || {}, || channel::send_one(&channel, 2));
    tracer.expects("those who receive to get on");
    let mut all = receivers.map(Peer::last_word);
    all.sort_unstable();
    assert_eq!(all, [2, LARGE]);
    channel::works(tracer, &channel);
}

/// The child receives another message than its parent.
fn receive(tracer: &Tracer) {
    let channel = channel();
    let send = || fresh(|| channel::send_all(&channel, &[1, 2, 3]));
    let life = || assert!(channel::receive_one(&channel) < 3);
    let (received, _) = fork(tracer, receiving(&channel), send, life);
    assert!(received < 3);
    assert_eq!(channel::drained(tracer, &channel), [3]);
    channel::works(tracer, &channel);
}

/// What both make at the same time is not the same.
fn create(tracer: &Tracer, before: fn()) {
    let prepare = || {
        before();
        || {
            is_new(&mutex());
            0
        }
    };
    fork(tracer, prepare, || {}, end_with_its_own);
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

fn open_unknown(tracer: &Tracer) {
    let (mut maker, open) = made_by_another();
    let prepare = || {
        || {
            let lock = open();
            assert_eq!(take(&lock), 0);
            give_back(&lock);
            0
        }
    };
    fork(tracer, prepare, || {}, || take_as_well(&open()));
    is_free(tracer, &open());
    maker.go();
    maker.join();
}

/// What its place is used for next is not the child's.
fn drop_one(tracer: &Tracer) {
    let prepare = || {
        std::mem::forget(mutex());
        let one = mutex();
        || {
            drop(one);
            is_new(&mutex());
            0
        }
    };
    fork(tracer, prepare, || {}, end_with_its_own);
}

fn drop_last(tracer: &Tracer) {
    let prepare = || {
        let last = mutex();
        || {
            drop(last);
            0
        }
    };
    fork(tracer, prepare, || {}, end_with_its_own);
}

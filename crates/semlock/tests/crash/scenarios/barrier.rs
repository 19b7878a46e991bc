//! Barriers: nobody waits for one that is dead.

use std::cell::RefCell;

use semlock::{Barrier, Deadline, Error, Shared};

use super::{Named, in_an_hour, soon};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("barrier/wait-as-the-first", first),
    ("barrier/wait-as-the-last", last),
    ("barrier/wait-as-the-only-one", only),
    ("barrier/run-the-action", action),
    ("barrier/timeout-that-expires", timeout),
    ("barrier/abort", abort),
    ("barrier/reset", reset),
];

/// What one who came was told: it got through, or the barrier was broken.
pub const THROUGH: u32 = 1;
pub const BROKEN: u32 = 2;

pub fn barrier(parties: u32) -> Barrier {
    Barrier::new(parties).expect("memory")
}

pub fn come(barrier: &Barrier) -> u32 {
    come_until(barrier, Deadline::NEVER)
}

pub fn come_until(barrier: &Barrier, deadline: Deadline) -> u32 {
    match barrier.wait_until(deadline, || {}) {
        Ok(_) => THROUGH,
        Err(Error::BarrierBroken) => BROKEN,
        Err(error) => panic!("{error}"),
    }
}

pub fn member(barrier: &Barrier) -> Peer {
    Peer::start(|line| line.say(come(barrier)))
}

/// One that has come and waits for the others.
pub fn sleeper(barrier: &Barrier) -> Peer {
    let mut sleeper = member(barrier);
    sleeper.until_asleep();
    sleeper
}

pub fn fate(tracer: &Tracer, member: Peer) -> u32 {
    tracer.expects("one that has come to get through, or to be told that the barrier is broken");
    member.last_word()
}

/// Sees that all get through, again and again, after it was made whole.
pub fn works(tracer: &Tracer, barrier: &Barrier) {
    fresh(|| barrier.reset());
    assert!(!barrier.is_broken());
    for _ in 0..2 {
        let members: Vec<_> = (0..parties(barrier)).map(|_| member(barrier)).collect();
        for member in members {
            assert_eq!(fate(tracer, member), THROUGH);
        }
    }
}

fn parties(barrier: &Barrier) -> u32 {
    semlock::raw::Barrier::open(barrier.address(), None).expect("it is here").parties()
}

fn first(tracer: &Tracer) {
    let barrier = barrier(2);
    let prepare = || {
        fresh_enough(&barrier);
        || assert_eq!(come(&barrier), THROUGH)
    };
    let second = RefCell::new(None);
    let dead = tracer.kill(prepare, || *second.borrow_mut() = Some(member(&barrier)));
    if let Some(second) = second.into_inner() {
        // All had come, unless it died just before it found out.
        let fate = fate(tracer, second);
        assert!(fate == THROUGH || !dead.returned);
    } else {
        // It has come or not: these two get through, or both are told.
        let members = [member(&barrier), member(&barrier)];
        let [one, other] = members.map(|member| fate(tracer, member));
        assert_eq!(one, other);
    }
    works(tracer, &barrier);
}

/// As a process is that has asked for the barrier before.
pub fn fresh_enough(barrier: &Barrier) {
    assert!(!barrier.is_broken());
    super::mutex::used_before();
}

fn last(tracer: &Tracer) {
    let barrier = barrier(3);
    let sleepers = [sleeper(&barrier), sleeper(&barrier)];
    let prepare = || {
        fresh_enough(&barrier);
        || assert_eq!(come(&barrier), THROUGH)
    };
    let dead = tracer.kill(prepare, || {});
    if !dead.returned && !barrier.is_broken() {
        // It has come or not; if not, this is the one that they wait for.
        let another = member(&barrier);
        let fates = sleepers.map(|sleeper| fate(tracer, sleeper));
        if fates.contains(&BROKEN) {
            assert_eq!(fate(tracer, another), BROKEN);
        } else {
            // It came too late, or it was the last.
            fresh(|| barrier.abort());
            fate(tracer, another);
        }
    } else {
        let fates = sleepers.map(|sleeper| fate(tracer, sleeper));
        assert!(!dead.returned || fates == [THROUGH; 2]);
    }
    works(tracer, &barrier);
}

fn only(tracer: &Tracer) {
    let barrier = barrier(1);
    let _dead = tracer.kill(|| || assert_eq!(come(&barrier), THROUGH), || {});
    works(tracer, &barrier);
}

fn action(tracer: &Tracer) {
    let barrier = barrier(2);
    let other = sleeper(&barrier);
    let prepare = || {
        fresh_enough(&barrier);
        || {
            let action = || assert_eq!(std::hint::black_box(1), 1);
            barrier.wait_until(in_an_hour(), action).expect("all live")
        }
    };
    let dead = tracer.kill(prepare, || {});
    if !dead.returned && !barrier.is_broken() {
        let another = member(&barrier);
        let fates = [fate(tracer, other), {
            fresh(|| barrier.abort());
            fate(tracer, another)
        }];
        assert!(fates.iter().all(|&fate| fate == THROUGH || fate == BROKEN));
    } else {
        let fate = fate(tracer, other);
        assert!(fate == THROUGH || !dead.returned);
    }
    works(tracer, &barrier);
}

fn timeout(tracer: &Tracer) {
    let barrier = barrier(3);
    let other = sleeper(&barrier);
    let prepare = || {
        fresh_enough(&barrier);
        || assert!(matches!(barrier.wait_until(soon(), || {}), Err(Error::BarrierBroken)))
    };
    let dead = tracer.kill(prepare, || {});
    if dead.returned {
        assert!(barrier.is_broken());
    } else {
        // If it has come, it has broken the barrier by its death.
        let others = [member(&barrier), member(&barrier)];
        let fates = others.map(|other| fate(tracer, other));
        assert_eq!(fates[0], fates[1]);
    }
    let fate = fate(tracer, other);
    assert!(fate == BROKEN || !dead.returned);
    works(tracer, &barrier);
}

fn abort(tracer: &Tracer) {
    let barrier = barrier(2);
    let other = sleeper(&barrier);
    let prepare = || {
        fresh_enough(&barrier);
        || barrier.abort()
    };
    let dead = tracer.kill(prepare, || {});
    assert!(!dead.returned || barrier.is_broken());
    if !dead.returned {
        fresh(|| barrier.abort());
    }
    assert_eq!(fate(tracer, other), BROKEN);
    works(tracer, &barrier);
}

fn reset(tracer: &Tracer) {
    let barrier = barrier(2);
    let other = sleeper(&barrier);
    let prepare = || {
        fresh_enough(&barrier);
        || barrier.reset()
    };
    let dead = tracer.kill(prepare, || {});
    assert!(!dead.returned || !barrier.is_broken());
    if !dead.returned {
        fresh(|| barrier.reset());
    }
    assert_eq!(fate(tracer, other), BROKEN);
    works(tracer, &barrier);
}

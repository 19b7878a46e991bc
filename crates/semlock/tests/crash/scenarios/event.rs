//! Events: who waits gets on as soon as it is set, whoever dies.

use semlock::{Deadline, Event};

use super::mutex::used_before;
use super::{Named, in_an_hour, soon};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("event/set", set),
    ("event/set-again", set_again),
    ("event/clear", clear),
    ("event/wait", wait),
    ("event/timeout-that-expires", timeout),
];

pub fn event() -> Event {
    Event::new().expect("memory")
}

pub fn sleeper(event: &Event) -> Peer {
    let mut sleeper = Peer::start(|_line| assert!(event.wait_until(Deadline::NEVER)));
    sleeper.until_asleep();
    sleeper
}

/// Sees that it can be cleared, waited for and set.
pub fn works(tracer: &Tracer, event: &Event) {
    tracer.expects("a fresh process to see that the event is set");
    fresh(|| event.clear());
    assert!(!event.is_set());
    let sleeper = sleeper(event);
    fresh(|| event.set());
    assert!(event.is_set());
    sleeper.join();
    fresh(|| assert!(event.wait_until(Deadline::NEVER)));
}

fn set(tracer: &Tracer) {
    let event = event();
    let sleepers = [sleeper(&event), sleeper(&event)];
    let prepare = || {
        used_before();
        || event.set()
    };
    let dead = tracer.kill(prepare, || {});
    assert!(!dead.returned || event.is_set());
    tracer.expects("those who wait for a set event to get on");
    if !event.is_set() {
        fresh(|| event.set());
    }
    sleepers.into_iter().for_each(Peer::join);
    works(tracer, &event);
}

fn set_again(tracer: &Tracer) {
    let event = event();
    event.set();
    let _dead = tracer.kill(|| || event.set(), || {});
    assert!(event.is_set());
    works(tracer, &event);
}

fn clear(tracer: &Tracer) {
    let event = event();
    event.set();
    let dead = tracer.kill(|| || event.clear(), || {});
    assert!(!dead.returned || !event.is_set());
    works(tracer, &event);
}

fn wait(tracer: &Tracer) {
    let event = event();
    let other = sleeper(&event);
    let prepare = || {
        used_before();
        || assert!(event.wait_until(in_an_hour()))
    };
    // Cleared at once: who waited gets on all the same.
    let pulse = || {
        fresh(|| {
            event.set();
            event.clear();
        });
    };
    let dead = tracer.kill(prepare, pulse);
    if !dead.helped {
        pulse();
    }
    tracer.expects("the other who waits to get on");
    other.join();
    works(tracer, &event);
}

fn timeout(tracer: &Tracer) {
    let event = event();
    let other = sleeper(&event);
    let prepare = || {
        used_before();
        || assert!(!event.wait_until(soon()))
    };
    let _dead = tracer.kill(prepare, || {});
    assert!(!event.is_set());
    fresh(|| event.set());
    tracer.expects("the other who waits to get on");
    other.join();
    works(tracer, &event);
}

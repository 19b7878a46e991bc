//! Conditions: no notification is lost with the one that gives it, and none with the one that gets
//! it.

use semlock::raw::{self, Lock};
use semlock::{Condvar, Deadline, Mutex, Shared};

use super::mutex::works as mutex_works;
use super::{Named, in_an_hour, soon, told};
use crate::peer::{Peer, fresh};
use crate::tracer::{Dead, Tracer};

pub const SCENARIOS: &[Named] = &[
    ("condvar/wait", wait),
    ("condvar/wait-and-be-notified-first", wait_first),
    ("condvar/timeout-that-expires", timeout),
    ("condvar/notify-one", notify_one),
    ("condvar/notify-one-nobody-waits", notify_nobody),
    ("condvar/notify-all", notify_all),
    ("condvar/notify-one-past-a-dead-waiter", notify_past_the_dead),
];

pub struct Both {
    pub mutex: Mutex,
    pub condvar: Condvar,
}

impl Both {
    pub fn new() -> Self {
        Self { mutex: Mutex::new().expect("memory"), condvar: Condvar::new().expect("memory") }
    }

    fn lock(&self) -> Lock {
        Lock::open(self.mutex.address(), None).expect("it is here")
    }

    fn waiting(&self) -> u32 {
        raw::Condvar::open(self.condvar.address(), None).expect("it is here").waiting()
    }

    /// One that sleeps until it is notified; in its order among the others.
    pub fn sleeper(&self) -> Peer {
        let mut sleeper = Peer::start(|line| {
            let guard = self.mutex.lock().into_guard();
            let acquired = self.condvar.wait(guard).expect("there is a node");
            line.say(told(&acquired));
        });
        sleeper.until_asleep();
        // Not for the mutex, which another may have that leaves just now.
        while self.mutex.holder().is_some() {
            std::thread::yield_now();
        }
        sleeper.until_asleep();
        assert!(self.waiting() > 0, "it sleeps elsewhere");
        sleeper
    }

    /// One that waits until it is notified or the deadline has passed, and says whether it was; it
    /// sleeps, be it for the mutex.
    pub fn waiter(&self, deadline: Deadline) -> Peer {
        Peer::start(|line| line.say(self.wait(deadline))).settled()
    }

    /// 1 if it was notified.
    pub fn wait(&self, deadline: Deadline) -> u32 {
        let guard = self.mutex.lock().into_guard();
        self.condvar.wait_until(guard, deadline).expect("there is a node").1.into()
    }

    /// One that notifies so many, and says how many; it has done that, or sleeps for the mutex.
    pub fn notifier(&self, most: u32) -> Peer {
        Peer::start(|line| {
            let guard = self.mutex.lock().into_guard();
            line.say(self.condvar.notify(&guard, most));
        })
        .settled()
    }

    /// Notifies one, who may not have come yet.
    pub fn notify_as_soon_as_one_waits(&self, tracer: &Tracer) {
        tracer.expects("one to come and wait, to be notified");
        fresh(|| {
            while !self.condvar.notify_one(&self.mutex.lock().into_guard()) {
                std::thread::yield_now();
            }
        });
    }

    /// Has a fresh process notify so many; returns how many it notified.
    pub fn notify(&self, tracer: &Tracer, most: u32) -> u32 {
        tracer.expects("one who notifies to get the mutex");
        self.notifier(most).last_word()
    }

    /// Sees that one who waits is notified, and nobody else was left.
    pub fn works(&self, tracer: &Tracer) {
        tracer.expects("a fresh waiter to be notified");
        let mut sleeper = self.sleeper();
        assert_eq!(self.notify(tracer, 1), 1);
        assert_eq!(sleeper.expect(), 0);
        sleeper.join();
        assert_eq!(self.waiting(), 0);
        assert_eq!(self.notify(tracer, 1), 0);
    }
}

/// It died with the mutex, or not; if it returned, it did.
fn assert_told(dead: &Dead, told: u32) {
    assert!(told == dead.pid || told == 0 && !dead.returned, "told {told}");
}

pub fn get_on(tracer: &Tracer, sleeper: Peer) -> u32 {
    tracer.expects("one who was notified to get on");
    sleeper.last_word()
}

fn wait(tracer: &Tracer) {
    let both = Both::new();
    let older = both.sleeper();
    let prepare = || {
        let guard = both.mutex.lock().into_guard();
        || both.condvar.wait(guard).expect("there is a node")
    };
    let dead = tracer.kill(prepare, || assert_eq!(both.notify(tracer, u32::MAX), 2));
    if !dead.helped {
        // It may be the first to be told that the mutex's owner died.
        assert!((1..=2).contains(&both.notify(tracer, u32::MAX)));
    }
    let told = [get_on(tracer, older), mutex_works(tracer, &both.lock())];
    assert!(told.iter().all(|&told| told == 0 || told == dead.pid), "told {told:?}");
    assert!(!dead.returned || told.contains(&dead.pid), "it died with the mutex");
    both.works(tracer);
}

/// A notification goes to the one that dies; if it has not got on with it, another gets it.
fn wait_first(tracer: &Tracer) {
    let both = Both::new();
    let mut younger = None;
    let prepare = || {
        let guard = both.mutex.lock().into_guard();
        || both.condvar.wait_until(guard, in_an_hour()).expect("there is a node")
    };
    let help = || {
        younger = Some(both.sleeper());
        assert_eq!(both.notify(tracer, 1), 1);
    };
    let dead = tracer.kill(prepare, help);
    let Some(younger) = younger else {
        // It never slept.
        mutex_works(tracer, &both.lock());
        both.works(tracer);
        return;
    };
    let told = mutex_works(tracer, &both.lock());
    assert_told(&dead, told);
    if dead.returned {
        assert_eq!(both.waiting(), 1, "one was notified");
        assert_eq!(both.notify(tracer, 1), 1);
    } else if told != 0 {
        // It had the mutex again, and so has ended its wait or was about to.
        assert!(both.notify(tracer, 1) <= 1);
    }
    // Else it was notified and did not get on, and nobody else will notify this one.
    get_on(tracer, younger);
    both.works(tracer);
}

fn timeout(tracer: &Tracer) {
    let both = Both::new();
    let older = both.sleeper();
    let prepare = || {
        let guard = both.mutex.lock().into_guard();
        || both.condvar.wait_until(guard, soon()).expect("there is a node")
    };
    let dead = tracer.kill(prepare, || {});
    let told = mutex_works(tracer, &both.lock());
    assert_told(&dead, told);
    assert_eq!(both.notify(tracer, 1), 1, "the older one waits");
    assert_eq!(get_on(tracer, older), 0);
    both.works(tracer);
}

fn holding_it<'a>(
    both: &'a Both,
    most: u32,
) -> impl FnOnce() -> Box<dyn FnOnce() -> semlock::MutexGuard<'a> + 'a> {
    move || {
        let guard = both.mutex.lock().into_guard();
        Box::new(move || {
            both.condvar.notify(&guard, most);
            guard
        })
    }
}

fn notify_one(tracer: &Tracer) {
    let both = Both::new();
    let (older, younger) = (both.sleeper(), both.sleeper());
    let dead = tracer.kill(holding_it(&both, 1), || {});
    tracer.expects("the next to get the mutex");
    let mut told = Vec::new();
    if dead.returned {
        told.push(get_on(tracer, older));
        assert_eq!(both.waiting(), 1, "one was notified");
        assert_eq!(both.notify(tracer, u32::MAX), 1);
    } else {
        let others = both.notify(tracer, u32::MAX);
        assert!((1..=2).contains(&others), "{others} were not notified");
        told.push(get_on(tracer, older));
    }
    told.push(get_on(tracer, younger));
    assert!(told.iter().all(|&told| told == 0 || told == dead.pid), "told {told:?}");
    mutex_works(tracer, &both.lock());
    both.works(tracer);
}

fn notify_nobody(tracer: &Tracer) {
    let both = Both::new();
    let dead = tracer.kill(holding_it(&both, 1), || {});
    assert_eq!(mutex_works(tracer, &both.lock()), dead.pid);
    both.works(tracer);
}

fn notify_all(tracer: &Tracer) {
    let both = Both::new();
    let sleepers = [both.sleeper(), both.sleeper(), both.sleeper()];
    let dead = tracer.kill(holding_it(&both, u32::MAX), || {});
    if !dead.returned {
        both.notify(tracer, u32::MAX);
    }
    let told = sleepers.map(|sleeper| get_on(tracer, sleeper));
    assert!(told.iter().all(|&told| told == 0 || told == dead.pid), "told {told:?}");
    mutex_works(tracer, &both.lock());
    both.works(tracer);
}

/// The oldest has died as it waited: the next one is notified in its place.
fn notify_past_the_dead(tracer: &Tracer) {
    let both = Both::new();
    let mut oldest = both.sleeper();
    let younger = both.sleeper();
    oldest.kill();
    let dead = tracer.kill(holding_it(&both, 1), || {});
    if !dead.returned {
        assert!(both.notify(tracer, 1) <= 1);
    }
    let told = get_on(tracer, younger);
    assert!(told == 0 || told == dead.pid, "told {told}");
    mutex_works(tracer, &both.lock());
    both.works(tracer);
}

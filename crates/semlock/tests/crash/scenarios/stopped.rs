//! A tracee that is stopped in the middle of its call, while the others go on. Whatever they do
//! meanwhile, none waits for what is free, and all agree on what has happened.
//!
//! A lost wake-up is only a delay, because no sleep is endless. Without the rule `sleep/is-bounded`
//! it is for ever: so these scenarios are for both.

use std::time::{Duration, Instant};

use semlock::raw::{Channel, Lock, LockKind, Options, Tried};
use semlock::{Barrier, Deadline, Event, Wait};

use super::barrier::{self, BROKEN, THROUGH, barrier, fate};
use super::channel::{self, LARGE, channel, channel_with};
use super::condvar::{Both, get_on};
use super::event::{self, event};
use super::mutex::{holder, mutex, mutex_of, sleeper, take, taker, used_before};
use super::semaphore::robust;
use super::{Named, soon, told};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("stopped/mutex/acquire-as-it-is-released", |tracer| acquire_as_released(tracer, &mutex())),
    ("stopped/mutex/acquire-behind-another", |tracer| acquire_behind_another(tracer, &mutex())),
    ("stopped/mutex/timeout-as-it-is-released", |tracer| timeout_as_released(tracer, &mutex())),
    ("stopped/mutex/release-as-one-comes", |tracer| release_as_one_comes(tracer, &mutex(), 1)),
    ("stopped/mutex/release-as-the-first-comes", |tracer| {
        release_as_one_comes(tracer, &mutex(), 0);
    }),
    ("stopped/mutex/release-as-one-leaves", |tracer| release_as_one_leaves(tracer, &mutex())),
    ("stopped/reentrant/acquire-as-it-is-released", |tracer| {
        acquire_as_released(tracer, &reentrant());
    }),
    ("stopped/reentrant/release-as-one-comes", |tracer| {
        release_as_one_comes(tracer, &reentrant(), 1);
    }),
    ("stopped/semaphore/acquire-as-it-is-released", |tracer| {
        acquire_as_released(tracer, &plain());
    }),
    ("stopped/semaphore/acquire-behind-another", |tracer| {
        acquire_behind_another(tracer, &plain());
    }),
    ("stopped/semaphore/timeout-as-it-is-released", |tracer| {
        timeout_as_released(tracer, &plain());
    }),
    ("stopped/semaphore/release-as-one-comes", |tracer| {
        release_as_one_comes(tracer, &plain(), 1);
    }),
    ("stopped/semaphore/release-as-one-leaves", |tracer| {
        release_as_one_leaves(tracer, &plain());
    }),
    ("stopped/robust-semaphore/acquire-as-it-is-released", |tracer| {
        acquire_as_released(tracer, &robust(1));
    }),
    ("stopped/robust-semaphore/acquire-behind-another", |tracer| {
        acquire_behind_another(tracer, &robust(1));
    }),
    ("stopped/robust-semaphore/timeout-as-it-is-released", |tracer| {
        timeout_as_released(tracer, &robust(1));
    }),
    ("stopped/robust-semaphore/release-as-one-comes", |tracer| {
        release_as_one_comes(tracer, &robust(1), 1);
    }),
    ("stopped/robust-semaphore/release-as-one-leaves", |tracer| {
        release_as_one_leaves(tracer, &robust(1));
    }),
    ("stopped/condvar/wait-as-one-notifies", wait_as_one_notifies),
    ("stopped/condvar/timeout-as-one-notifies", timeout_as_one_notifies),
    ("stopped/condvar/notify-as-one-leaves", notify_as_one_leaves),
    ("stopped/condvar/notify-as-one-comes", notify_as_one_comes),
    ("stopped/event/wait-as-it-is-set", wait_as_set),
    ("stopped/event/set-as-one-comes", set_as_one_comes),
    ("stopped/event/set-as-one-leaves", set_as_one_leaves),
    ("stopped/event/timeout-as-it-is-pulsed", timeout_as_pulsed),
    ("stopped/barrier/first-as-the-last-comes", first_as_the_last_comes),
    ("stopped/barrier/timeout-as-the-last-comes", timeout_as_the_last_comes),
    ("stopped/barrier/last-as-the-first-leaves", last_as_the_first_leaves),
    ("stopped/barrier/last-as-the-next-come", last_as_the_next_come),
    ("stopped/barrier/reset-as-the-last-comes", |tracer| {
        ended_as_the_last_comes(tracer, Barrier::reset);
    }),
    ("stopped/barrier/abort-as-the-last-comes", |tracer| {
        ended_as_the_last_comes(tracer, Barrier::abort);
    }),
    ("stopped/channel/send-as-others-come", send_as_others_come),
    ("stopped/channel/send-as-there-is-room", send_as_there_is_room),
    ("stopped/channel/send-in-parts", send_in_parts),
    ("stopped/channel/receive-as-others-come", receive_as_others_come),
    ("stopped/channel/timeout-as-one-sends", timeout_as_one_sends),
    ("stopped/channel/send-as-one-polls", send_as_one_polls),
    ("stopped/channel/receive-as-one-polls", receive_as_one_polls),
];

/// What the one that is stopped does, and what that came to.
pub type Call<'a> = Box<dyn FnOnce() -> u32 + 'a>;

pub fn reentrant() -> Lock {
    mutex_of(LockKind::ReentrantMutex)
}

/// A semaphore whose permits nobody owns.
pub fn plain() -> Lock {
    let options = Options { kind: LockKind::Semaphore, value: 1, maxvalue: 1, robust: false };
    Lock::new(options).expect("memory")
}

pub fn give_back(lock: &Lock) {
    lock.release().expect("it is held");
}

/// Takes it if it gets it in time, and gives it back.
fn take_until(lock: &Lock, deadline: Deadline) -> u32 {
    match lock.acquire_until(deadline) {
        Wait::Acquired => {
            give_back(lock);
            1
        }
        Wait::TimedOut => 0,
        other => panic!("{other:?}"),
    }
}

/// Sees that it can be taken once, and not twice.
pub fn is_free(tracer: &Tracer, lock: &Lock) {
    tracer.expects("a fresh process to get what is free");
    fresh(|| {
        assert_eq!(lock.try_acquire(), Wait::Acquired);
        fresh(|| assert_eq!(lock.try_acquire(), Wait::TimedOut, "two hold it"));
        give_back(lock);
    });
    assert_eq!(lock.value(), 1);
}

/// They get what they wait for.
pub fn all_get_on(tracer: &Tracer, lock: &Lock, sleepers: impl IntoIterator<Item = Peer>) {
    tracer.expects("those who sleep to get what is free");
    sleepers.into_iter().for_each(Peer::join);
    is_free(tracer, lock);
}

fn acquire_as_released(tracer: &Tracer, lock: &Lock) {
    let ready = || holder(lock);
    let meanwhile = |holder: &mut Peer| {
        holder.go();
        holder.settle();
    };
    let (_, holder) = tracer.stop(taking(lock), ready, meanwhile);
    all_get_on(tracer, lock, [holder]);
}

/// A call that takes it and gives it back.
pub fn taking<'a>(lock: &'a Lock) -> impl FnOnce() -> Call<'a> {
    move || {
        used_before();
        Box::new(move || {
            assert_eq!(take(lock), 0);
            give_back(lock);
            0
        })
    }
}

fn acquire_behind_another(tracer: &Tracer, lock: &Lock) {
    let (_, others) = tracer.stop(taking(lock), || held_and_wanted(lock), pass_on);
    all_get_on(tracer, lock, others);
}

/// One that holds it, and one that sleeps for it.
fn held_and_wanted(lock: &Lock) -> [Peer; 2] {
    [holder(lock), sleeper(lock)]
}

pub fn pass_on(others: &mut [Peer; 2]) {
    others[0].go();
    others.iter_mut().for_each(Peer::settle);
}

fn timeout_as_released(tracer: &Tracer, lock: &Lock) {
    let prepare = || {
        used_before();
        || take_until(lock, soon())
    };
    let (_, others) = tracer.stop(prepare, || held_and_wanted(lock), pass_on);
    all_get_on(tracer, lock, others);
}

/// A call that gives it back.
pub fn giving_back<'a>(lock: &'a Lock) -> impl FnOnce() -> Call<'a> {
    move || {
        take(lock);
        Box::new(move || {
            give_back(lock);
            0
        })
    }
}

/// After those who sleep already.
fn release_as_one_comes(tracer: &Tracer, lock: &Lock, sleepers: usize) {
    let ready = || (0..sleepers).map(|_| sleeper(lock)).collect();
    let meanwhile = |others: &mut Vec<Peer>| others.push(taker(lock).settled());
    let (_, others) = tracer.stop(giving_back(lock), ready, meanwhile);
    all_get_on(tracer, lock, others);
}

fn release_as_one_leaves(tracer: &Tracer, lock: &Lock) {
    let ready = || (Leaver::start(SHORT, |deadline| take_until(lock, deadline)), sleeper(lock));
    let meanwhile = |(leaver, _): &mut (Leaver, Peer)| leaver.leave();
    let (_, (leaver, stayer)) = tracer.stop(giving_back(lock), ready, meanwhile);
    all_get_on(tracer, lock, [leaver.peer, stayer]);
}

/// One that waits only for some time.
struct Leaver {
    peer: Peer,
    until: Instant,
}

/// It has not passed when all stand where they are to be, unless the machine is very busy.
const SHORT: Duration = Duration::from_millis(30);
/// The same, where the one that is stopped is yet to be forked.
const LONGER: Duration = Duration::from_millis(150);

impl Leaver {
    /// It sleeps, if its time has not passed already; and it says what its wait came to.
    fn start(time: Duration, wait: impl FnOnce(Deadline) -> u32) -> Self {
        let until = Instant::now() + time;
        let deadline = Deadline::after(time);
        let peer = Peer::start(|line| line.say(wait(deadline))).settled();
        Self { peer, until }
    }

    /// Waits until its time has passed, and it has left or sleeps for something else.
    fn leave(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "that time is what is waited for")]
        std::thread::sleep(self.until.saturating_duration_since(Instant::now()));
        self.peer.settle();
    }
}

fn wait_as_one_notifies(tracer: &Tracer) {
    let both = Both::new();
    let prepare = || {
        let guard = both.mutex.lock().into_guard();
        || told(&both.condvar.wait(guard).expect("there is a node"))
    };
    let meanwhile = |notifier: &mut Option<Peer>| *notifier = Some(both.notifier(1));
    let (told, notifier) = tracer.stop(prepare, || None, meanwhile);
    assert_eq!(told, 0, "nobody has died");
    assert_eq!(get_on(tracer, notifier.expect("it came")), 1);
    both.works(tracer);
}

fn timeout_as_one_notifies(tracer: &Tracer) {
    let both = Both::new();
    let prepare = || {
        let guard = both.mutex.lock().into_guard();
        || {
            let waited = both.condvar.wait_until(guard, soon());
            u32::from(waited.expect("there is a node").1)
        }
    };
    let meanwhile = |others: &mut Vec<Peer>| {
        others.push(both.waiter(Deadline::NEVER));
        others.push(both.notifier(1));
    };
    let (was_notified, mut others) = tracer.stop(prepare, Vec::new, meanwhile);
    let notified = get_on(tracer, others.pop().expect("it came"));
    assert!(was_notified <= notified, "it was notified by nobody");
    if notified == was_notified {
        both.notify_as_soon_as_one_waits(tracer);
    }
    assert_eq!(get_on(tracer, others.pop().expect("it came")), 1);
    both.works(tracer);
}

fn notify_as_one_leaves(tracer: &Tracer) {
    let both = Both::new();
    let mut leaver = Leaver::start(LONGER, |deadline| both.wait(deadline));
    let stayer = both.sleeper();
    let prepare = || {
        let (both, guard) = (&both, both.mutex.lock().into_guard());
        move || both.condvar.notify_one(&guard).into()
    };
    let (notified, ()) = tracer.stop(prepare, || {}, |()| leaver.leave());
    assert_eq!(notified, 1, "one waits for ever");
    if get_on(tracer, leaver.peer) == 1 {
        assert_eq!(both.notify(tracer, 1), 1);
    }
    assert_eq!(get_on(tracer, stayer), 0);
    both.works(tracer);
}

fn notify_as_one_comes(tracer: &Tracer) {
    let both = Both::new();
    let older = both.sleeper();
    let prepare = || {
        let (both, guard) = (&both, both.mutex.lock().into_guard());
        move || both.condvar.notify_all(&guard)
    };
    let meanwhile = |younger: &mut Option<Peer>| *younger = Some(both.waiter(Deadline::NEVER));
    let (notified, younger) = tracer.stop(prepare, || None, meanwhile);
    assert_eq!(notified, 1, "notified those who came later");
    assert_eq!(get_on(tracer, older), 0);
    both.notify_as_soon_as_one_waits(tracer);
    assert_eq!(get_on(tracer, younger.expect("it came")), 1);
    both.works(tracer);
}

fn wait_as_set(tracer: &Tracer) {
    let event = event();
    tracer.stop(waiting(&event), || {}, |()| fresh(|| event.set()));
    event::works(tracer, &event);
}

/// A call that waits for it.
pub fn waiting<'a>(event: &'a Event) -> impl FnOnce() -> Call<'a> {
    move || {
        used_before();
        Box::new(move || {
            event.wait();
            0
        })
    }
}

/// A call that sets it.
pub fn setting<'a>(event: &'a Event) -> impl FnOnce() -> Call<'a> {
    move || {
        used_before();
        Box::new(move || {
            event.set();
            0
        })
    }
}

fn set_as_one_comes(tracer: &Tracer) {
    let event = event();
    let meanwhile =
        |others: &mut Vec<Peer>| others.push(Peer::start(|_line| event.wait()).settled());
    let (_, others) = tracer.stop(setting(&event), || vec![event::sleeper(&event)], meanwhile);
    tracer.expects("those who wait for a set event to get on");
    others.into_iter().for_each(Peer::join);
    event::works(tracer, &event);
}

fn set_as_one_leaves(tracer: &Tracer) {
    let event = event();
    let ready = || {
        let wait = |deadline| event.wait_until(deadline).into();
        (Leaver::start(SHORT, wait), event::sleeper(&event))
    };
    let meanwhile = |(leaver, _): &mut (Leaver, Peer)| leaver.leave();
    let (_, (leaver, stayer)) = tracer.stop(setting(&event), ready, meanwhile);
    tracer.expects("those who wait for a set event to get on");
    leaver.peer.join();
    stayer.join();
    event::works(tracer, &event);
}

/// A waiter that waits when the event is set gets on, even if the event is cleared at once.
fn timeout_as_pulsed(tracer: &Tracer) {
    let event = event();
    let prepare = || {
        used_before();
        || event.wait_until(soon()).into()
    };
    let meanwhile = |_: &mut Peer| {
        fresh(|| {
            event.set();
            event.clear();
        });
    };
    let (_, other) = tracer.stop(prepare, || event::sleeper(&event), meanwhile);
    tracer.expects("the other who waits to get on");
    other.join();
    event::works(tracer, &event);
}

/// A call that comes, and says what it was told.
pub fn coming<'a>(barrier: &'a Barrier, deadline: fn() -> Deadline) -> impl FnOnce() -> Call<'a> {
    move || {
        barrier::fresh_enough(barrier);
        Box::new(move || barrier::come_until(barrier, deadline()))
    }
}

pub fn never() -> Deadline {
    Deadline::NEVER
}

/// One that has come, and waits or has got through.
fn arrive(barrier: &Barrier, others: &mut Vec<Peer>) {
    others.push(barrier::member(barrier).settled());
}

fn fates(tracer: &Tracer, others: Vec<Peer>) -> Vec<u32> {
    others.into_iter().map(|other| fate(tracer, other)).collect()
}

fn first_as_the_last_comes(tracer: &Tracer) {
    let barrier = barrier(2);
    let (first, others) =
        tracer.stop(coming(&barrier, never), Vec::new, |others| arrive(&barrier, others));
    assert_eq!((first, fates(tracer, others)), (THROUGH, vec![THROUGH]));
    barrier::works(tracer, &barrier);
}

fn timeout_as_the_last_comes(tracer: &Tracer) {
    let barrier = barrier(2);
    let (first, others) =
        tracer.stop(coming(&barrier, soon), Vec::new, |others| arrive(&barrier, others));
    assert_eq!(vec![first], fates(tracer, others), "they do not agree");
    barrier::works(tracer, &barrier);
}

fn last_as_the_first_leaves(tracer: &Tracer) {
    let barrier = barrier(2);
    let ready = || Leaver::start(SHORT, |deadline| barrier::come_until(&barrier, deadline));
    let (last, first) = tracer.stop(coming(&barrier, never), ready, Leaver::leave);
    assert_eq!(last, fate(tracer, first.peer), "they do not agree");
    barrier::works(tracer, &barrier);
}

/// The next two come when one has come already: of these four, whoever is the second one lets the
/// first one go.
fn last_as_the_next_come(tracer: &Tracer) {
    let barrier = barrier(2);
    let ready = || vec![barrier::sleeper(&barrier)];
    let meanwhile = |others: &mut Vec<Peer>| {
        arrive(&barrier, others);
        arrive(&barrier, others);
    };
    let (last, others) = tracer.stop(coming(&barrier, never), ready, meanwhile);
    assert_eq!((last, fates(tracer, others)), (THROUGH, vec![THROUGH; 3]));
    barrier::works(tracer, &barrier);
}

/// The two get through, or the first is told; then the last is told too, or waits for another.
fn ended_as_the_last_comes(tracer: &Tracer, end: fn(&Barrier)) {
    let barrier = barrier(2);
    let prepare = || {
        barrier::fresh_enough(&barrier);
        || {
            end(&barrier);
            0
        }
    };
    let ready = || vec![barrier::sleeper(&barrier)];
    let (_, mut others) = tracer.stop(prepare, ready, |others| arrive(&barrier, others));
    let first = fate(tracer, others.remove(0));
    if first == BROKEN && !barrier.is_broken() {
        arrive(&barrier, &mut others);
        assert_eq!(fates(tracer, others), [THROUGH; 2]);
    } else {
        assert_eq!(fates(tracer, others), [first], "they do not agree");
    }
    barrier::works(tracer, &barrier);
}

/// A call that sends this message.
pub fn sending<'a>(channel: &'a Channel, number: u32) -> impl FnOnce() -> Call<'a> {
    move || {
        used_before();
        Box::new(move || {
            channel::send_one(channel, number);
            0
        })
    }
}

/// A call that receives a message, and says its number.
pub fn receiving<'a>(channel: &'a Channel) -> impl FnOnce() -> Call<'a> {
    move || {
        used_before();
        Box::new(move || channel::receive_one(channel))
    }
}

/// What these say, and the one that was stopped, in the order of the numbers; and nothing is left.
fn all_received(
    tracer: &Tracer,
    channel: &Channel,
    stopped: Option<u32>,
    receivers: impl IntoIterator<Item = Peer>,
) -> Vec<u32> {
    tracer.expects("those who receive to get on");
    let mut all: Vec<_> = receivers.into_iter().map(Peer::last_word).chain(stopped).collect();
    all.sort_unstable();
    channel::works(tracer, channel);
    all
}

fn send_as_others_come(tracer: &Tracer) {
    let channel = channel();
    let ready = || vec![channel::sleeper(&channel)];
    let mut sender = None;
    let meanwhile = |receivers: &mut Vec<Peer>| {
        receivers.push(channel::receiver(&channel).settled());
        sender = Some(channel::sender(&channel, &[2]).settled());
    };
    let (_, receivers) = tracer.stop(sending(&channel, 1), ready, meanwhile);
    assert_eq!(all_received(tracer, &channel, None, receivers), [1, 2]);
    sender.expect("it came").join();
}

fn send_as_there_is_room(tracer: &Tracer) {
    let (channel, messages) = channel::full();
    let receive_all =
        || (1..=messages).for_each(|number| assert_eq!(channel::receive_one(&channel), number));
    let (_, ()) = tracer.stop(sending(&channel, messages + 1), || {}, |()| fresh(receive_all));
    assert_eq!(channel::drained(tracer, &channel), [messages + 1]);
    channel::works(tracer, &channel);
}

fn send_in_parts(tracer: &Tracer) {
    let channel = channel();
    let ready = || [channel::sleeper(&channel), channel::sleeper(&channel)];
    let mut sender = None;
    let meanwhile = |_: &mut [Peer; 2]| sender = Some(channel::sender(&channel, &[2]).settled());
    let (_, receivers) = tracer.stop(sending(&channel, LARGE), ready, meanwhile);
    assert_eq!(all_received(tracer, &channel, None, receivers), [2, LARGE]);
    sender.expect("it came").join();
}

fn receive_as_others_come(tracer: &Tracer) {
    let channel = channel();
    let meanwhile = |receivers: &mut Vec<Peer>| {
        fresh(|| channel::send_one(&channel, 1));
        receivers.push(channel::receiver(&channel).settled());
        fresh(|| channel::send_one(&channel, 2));
    };
    let (stopped, receivers) = tracer.stop(receiving(&channel), Vec::new, meanwhile);
    assert_eq!(all_received(tracer, &channel, Some(stopped), receivers), [1, 2]);
}

fn timeout_as_one_sends(tracer: &Tracer) {
    let channel = channel();
    let prepare = || {
        used_before();
        || channel::receive_until(&channel, soon()).unwrap_or(0)
    };
    let meanwhile = |(): &mut ()| fresh(|| channel::send_one(&channel, 1));
    let (stopped, ()) = tracer.stop(prepare, || {}, meanwhile);
    let left = channel::drained(tracer, &channel);
    assert!(stopped == 1 && left.is_empty() || stopped == 0 && left == [1], "{stopped} {left:?}");
    channel::works(tracer, &channel);
}

/// One that polls and finds nothing. It may wait until the other has ended what it does.
fn poller(channel: &Channel) -> Peer {
    Peer::start(|_line| {
        let mut bytes = Vec::new();
        while channel.try_receive(&mut bytes) == Ok(Tried::Done) {}
    })
}

fn send_as_one_polls(tracer: &Tracer) {
    let channel = channel();
    channel.want_bell().expect("nobody closed it");
    let meanwhile = |other: &mut Option<Peer>| *other = Some(poller(&channel).settled());
    let (_, other) = tracer.stop(sending(&channel, 1), || None, meanwhile);
    tracer.expects("the one that polls to get on");
    other.expect("it came").join();
    assert!([&[1][..], &[]].contains(&&*channel::bell_works(tracer, &channel)));
}

fn receive_as_one_polls(tracer: &Tracer) {
    let channel = channel_with(&[1, 2]);
    channel.want_bell().expect("nobody closed it");
    let meanwhile = |others: &mut Vec<Peer>| {
        others.push(poller(&channel).settled());
        others.push(channel::sender(&channel, &[3]).settled());
    };
    let prepare = || {
        used_before();
        || channel::receive_until(&channel, soon()).unwrap_or(0)
    };
    let (stopped, others) = tracer.stop(prepare, Vec::new, meanwhile);
    tracer.expects("the one that polls and the one that sends to get on");
    others.into_iter().for_each(Peer::join);
    let left = channel::bell_works(tracer, &channel);
    assert!(left.is_sorted() && !left.contains(&stopped), "{stopped} {left:?}");
}

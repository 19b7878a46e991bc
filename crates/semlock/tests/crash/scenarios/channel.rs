//! Channels: a message is there whole or not at all, whoever dies; and only one that comes in parts
//! is lost with a process that died in the middle of it.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use semlock::raw::{Channel, Tried};
use semlock::{Deadline, Wait};

use super::mutex::used_before;
use super::{Named, in_an_hour};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("channel/send/nobody-waits", send),
    ("channel/send/one-waits", send_to_one_who_waits),
    ("channel/send/no-room", send_without_room),
    ("channel/send/in-parts", send_in_parts),
    ("channel/send/tried", try_send),
    ("channel/receive/two-are-there", receive),
    ("channel/receive/none-is-there", receive_what_comes),
    ("channel/receive/in-parts", receive_in_parts),
    ("channel/receive/tried", try_receive),
    ("channel/wait", wait),
    ("channel/taken/one-of-two", taken),
    ("channel/taken/in-parts", taken_in_parts),
    ("channel/bell/send", send_with_bell),
    ("channel/bell/receive-the-last", receive_the_last_with_bell),
    ("channel/bell/receive-the-first", receive_the_first_with_bell),
    ("channel/bell/want", want_bell),
];

/// Bytes of the ring.
const CAPACITY: usize = 512;
/// The number of a message that is larger than the ring: five parts.
pub const LARGE: u32 = 1_000;
/// The number of the message after which a receiver ends.
const END: u32 = 2_000;

pub fn channel() -> Channel {
    Channel::new(CAPACITY).expect("memory")
}

/// A channel in which these messages wait.
pub fn channel_with(messages: &[u32]) -> Channel {
    let channel = channel();
    send_all(&channel, messages);
    channel
}

/// A message that tells its number in all its words.
fn message(number: u32) -> Vec<u8> {
    let words = if number == LARGE { 140 } else { 6 };
    (0..words).flat_map(|word: u32| (number << 8 | word).to_ne_bytes()).collect()
}

/// The number of a message, which is whole.
fn number_of(received: &[u8]) -> u32 {
    let number = received.first_chunk().map_or(0, |&word| u32::from_ne_bytes(word) >> 8);
    assert_eq!(received, message(number), "a message that was torn");
    number
}

pub fn send_one(channel: &Channel, number: u32) {
    let bytes = message(number);
    let pieces = [&*bytes];
    let mut sending = channel.sending(&pieces, in_an_hour());
    loop {
        match sending.wait().expect("nobody writes there") {
            Wait::Interrupted => {}
            end => return assert_eq!(end, Wait::Acquired),
        }
    }
}

pub fn send_all(channel: &Channel, messages: &[u32]) {
    for &number in messages {
        send_one(channel, number);
    }
}

pub fn receive_one(channel: &Channel) -> u32 {
    receive_until(channel, in_an_hour()).expect("nobody waits for an hour")
}

pub fn receive_until(channel: &Channel, deadline: Deadline) -> Option<u32> {
    let mut bytes = Vec::new();
    let end = {
        let mut receiving = channel.receiving(&mut bytes, deadline);
        loop {
            match receiving.wait().expect("nobody writes there") {
                Wait::Interrupted => {}
                end => break end,
            }
        }
    };
    (end == Wait::Acquired).then(|| number_of(&bytes))
}

/// One that receives one message, and says its number.
pub fn receiver(channel: &Channel) -> Peer {
    Peer::start(|line| line.say(receive_one(channel)))
}

/// The same, and it sleeps.
pub fn sleeper(channel: &Channel) -> Peer {
    let mut sleeper = receiver(channel);
    sleeper.until_asleep();
    sleeper
}

/// One that sends these.
pub fn sender<'a>(channel: &'a Channel, messages: &'a [u32]) -> Peer {
    Peer::start(|_line| send_all(channel, messages))
}

/// One that receives all, and says their numbers.
fn receiver_of_all(channel: &Channel) -> Peer {
    Peer::start(|line| {
        loop {
            let number = receive_one(channel);
            line.say(number);
            if number == END {
                break;
            }
        }
    })
}

/// What such a one says.
fn all_of(channel: &Channel, mut receiver: Peer) -> Vec<u32> {
    fresh(|| send_one(channel, END));
    let all = std::iter::from_fn(|| Some(receiver.expect()).filter(|&number| number != END));
    let all = all.collect();
    receiver.join();
    all
}

/// What is there.
pub fn drained(tracer: &Tracer, channel: &Channel) -> Vec<u32> {
    tracer.expects("fresh processes to receive what is there");
    all_of(channel, receiver_of_all(channel))
}

/// Sees that nothing is there, and that messages get through, small and large.
pub fn works(tracer: &Tracer, channel: &Channel) {
    tracer.expects("fresh processes to send and receive");
    let mut receiver = receiver_of_all(channel);
    receiver.until_asleep();
    fresh(|| send_all(channel, &[1, LARGE, 2]));
    assert_eq!(all_of(channel, receiver), [1, LARGE, 2]);
    assert_eq!((channel.count(), channel.is_empty()), (0, true));
}

/// Sees that these messages are there, or all but the first: that one if its call was not over.
fn are_there_but_perhaps_the_first(all: &[u32], expected: &[u32], first_has_to: bool) {
    assert!(all == expected || all == &expected[1..] && !first_has_to, "{all:?}");
}

fn send(tracer: &Tracer) {
    sent(tracer, &channel(), |channel| send_one(channel, 1));
}

fn try_send(tracer: &Tracer) {
    sent(tracer, &channel(), |channel| {
        let bytes = message(1);
        assert_eq!(channel.try_send(&[&bytes]), Ok(Tried::Done));
    });
}

fn sent(tracer: &Tracer, channel: &Channel, send: fn(&Channel)) {
    let prepare = || {
        used_before();
        || send(channel)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("a fresh process to send");
    fresh(|| send_one(channel, 2));
    are_there_but_perhaps_the_first(&drained(tracer, channel), &[1, 2], dead.returned);
    works(tracer, channel);
}

fn send_to_one_who_waits(tracer: &Tracer) {
    let channel = channel();
    let receiver = sleeper(&channel);
    let prepare = || {
        used_before();
        || send_one(&channel, 1)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("a fresh process to send, and one that waits to receive");
    fresh(|| send_one(&channel, 2));
    let mut all = vec![receiver.last_word()];
    all.extend(drained(tracer, &channel));
    are_there_but_perhaps_the_first(&all, &[1, 2], dead.returned);
    works(tracer, &channel);
}

/// A channel that is full, and how many messages it has.
pub fn full() -> (Channel, u32) {
    let channel = channel();
    let mut messages = 0;
    while channel.try_send(&[&message(messages + 1)]) == Ok(Tried::Done) {
        messages += 1;
    }
    (channel, messages)
}

fn send_without_room(tracer: &Tracer) {
    let (channel, messages) = full();
    let prepare = || {
        used_before();
        || send_one(&channel, messages + 1)
    };
    let help =
        || fresh(|| (1..=messages).for_each(|number| assert_eq!(receive_one(&channel), number)));
    let dead = tracer.kill(prepare, help);
    let first = if dead.helped { messages + 1 } else { 1 };
    let mut expected: Vec<_> = (first..=messages + 1).collect();
    tracer.expects("a fresh process to receive");
    let all = drained(tracer, &channel);
    if all != expected {
        expected.pop();
        assert!(all == expected && !dead.returned, "{all:?}");
    }
    works(tracer, &channel);
}

fn send_in_parts(tracer: &Tracer) {
    let channel = channel();
    let mut receiver = receiver_of_all(&channel);
    receiver.until_asleep();
    let prepare = || {
        used_before();
        || send_one(&channel, LARGE)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("the receiver to get what comes after a message that was not sent");
    fresh(|| send_one(&channel, 2));
    are_there_but_perhaps_the_first(&all_of(&channel, receiver), &[LARGE, 2], dead.returned);
    works(tracer, &channel);
}

fn receive(tracer: &Tracer) {
    received(tracer, &channel_with(&[1, 2]), |channel| assert_eq!(receive_one(channel), 1));
}

fn try_receive(tracer: &Tracer) {
    received(tracer, &channel_with(&[1, 2]), |channel| {
        let mut bytes = Vec::new();
        assert_eq!(channel.try_receive(&mut bytes), Ok(Tried::Done));
        assert_eq!(number_of(&bytes), 1);
    });
}

fn received(tracer: &Tracer, channel: &Channel, receive: fn(&Channel)) {
    let prepare = || {
        used_before();
        || receive(channel)
    };
    let dead = tracer.kill(prepare, || {});
    let all = drained(tracer, channel);
    assert!(all == [2] || all == [1, 2] && !dead.returned, "{all:?}");
    works(tracer, channel);
}

fn receive_what_comes(tracer: &Tracer) {
    let channel = channel();
    let other = sleeper(&channel);
    let prepare = || {
        used_before();
        || receive_one(&channel)
    };
    // One for each.
    let send = || fresh(|| send_all(&channel, &[1, 2]));
    let dead = tracer.kill(prepare, send);
    if !dead.helped {
        send();
    }
    tracer.expects("the other that waits to receive");
    let mut all = vec![other.last_word()];
    all.extend(drained(tracer, &channel));
    let lost = all.len() < 2;
    assert!(all == [1, 2] && !dead.returned || lost && dead.helped, "{all:?}");
    works(tracer, &channel);
}

fn receive_in_parts(tracer: &Tracer) {
    let channel = channel();
    let mut sender = sender(&channel, &[LARGE, 2]);
    sender.until_asleep();
    let prepare = || {
        used_before();
        || assert_eq!(receive_one(&channel), LARGE)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("fresh processes to receive, and the sender to get on");
    let receiver = receiver_of_all(&channel);
    sender.join();
    let all = all_of(&channel, receiver);
    assert!(all == [2] || all == [LARGE, 2] && !dead.returned, "{all:?}");
    works(tracer, &channel);
}

/// Who waits takes nothing, be it the one that is woken first.
fn wait(tracer: &Tracer) {
    let channel = channel();
    let prepare = || {
        used_before();
        || while channel.wait_readable(in_an_hour()) == Ok(Wait::Interrupted) {}
    };
    let come_and_send = || {
        let other = receiver(&channel).settled();
        fresh(|| send_all(&channel, &[1, 2]));
        other
    };
    let mut other = None;
    let _dead = tracer.kill(prepare, || other = Some(come_and_send()));
    let other = other.unwrap_or_else(come_and_send);
    tracer.expects("the other that waits to receive");
    assert_eq!(other.last_word(), 1);
    assert_eq!(drained(tracer, &channel), [2]);
    works(tracer, &channel);
}

// ---- Who has taken what ----

/// What the dead are said to have taken: the places of these messages in the order they were sent.
fn taken_by_the_dead(channel: &Channel) -> Vec<u64> {
    let mut numbers = Vec::new();
    channel.taken_by_the_dead(|_pid, number| numbers.push(number)).expect("nobody writes there");
    numbers
}

fn taken(tracer: &Tracer) {
    let channel = channel_with(&[1, 2]);
    channel.note_takers();
    let prepare = || {
        used_before();
        || assert_eq!(receive_one(&channel), 1)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("a fresh process to receive, and not to be taken for the dead one");
    let next = if channel.count() == 2 { 1 } else { 2 };
    let mut other = Peer::start(|line| {
        line.say(receive_one(&channel));
        line.hear();
    });
    assert_eq!(other.expect(), next);
    let expected: &[u64] = if next == 2 { &[0] } else { &[] };
    assert_eq!(taken_by_the_dead(&channel), expected);
    assert!(next == 2 || !dead.returned);
    other.go();
    other.join();
    drained(tracer, &channel);
    works(tracer, &channel);
}

fn taken_in_parts(tracer: &Tracer) {
    let channel = channel();
    channel.note_takers();
    let mut sender = sender(&channel, &[LARGE, 2]);
    sender.until_asleep();
    let prepare = || {
        used_before();
        || assert_eq!(receive_one(&channel), LARGE)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("the pool's process to ask, and the sender to get on");
    let taken = taken_by_the_dead(&channel);
    let receiver = receiver_of_all(&channel);
    sender.join();
    let all = all_of(&channel, receiver);
    let expected: &[u32] = if taken.is_empty() { &[LARGE, 2] } else { &[2] };
    assert_eq!(all, expected);
    assert!(taken == [0] || taken.is_empty() && !dead.returned, "{taken:?}");
    works(tracer, &channel);
}

// ---- The bell ----

fn is_readable(channel: &Channel) -> bool {
    let [reader, _] = channel.bell().expect("nobody closed it");
    let now = Timespec::try_from(Duration::ZERO).expect("short");
    poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&now)) == Ok(1)
}

fn with_bell(messages: &[u32]) -> Channel {
    let channel = channel_with(messages);
    channel.want_bell().expect("nobody closed it");
    channel
}

/// It has rung if something is there; it rings for what comes; and once a process has found
/// nothing, it does not ring. Returns what was there.
pub fn bell_works(tracer: &Tracer, channel: &Channel) -> Vec<u32> {
    assert!(channel.is_empty() || is_readable(channel), "something is there, and nobody sees it");
    tracer.expects("fresh processes to send and receive, and to ring");
    let all = drained(tracer, channel);
    let finds_nothing = || {
        fresh(|| assert_eq!(channel.try_receive(&mut Vec::new()), Ok(Tried::NotNow)));
        assert!(!is_readable(channel), "it rings in vain");
    };
    finds_nothing();
    fresh(|| send_one(channel, 1));
    assert!(is_readable(channel), "something came, and nobody sees it");
    assert_eq!(drained(tracer, channel), [1]);
    finds_nothing();
    all
}

fn send_with_bell(tracer: &Tracer) {
    let channel = with_bell(&[]);
    let prepare = || {
        used_before();
        || send_one(&channel, 1)
    };
    let dead = tracer.kill(prepare, || {});
    let all = bell_works(tracer, &channel);
    assert!(all == [1] || all.is_empty() && !dead.returned, "{all:?}");
}

fn receive_the_last_with_bell(tracer: &Tracer) {
    received_with_bell(tracer, &[1]);
}

fn receive_the_first_with_bell(tracer: &Tracer) {
    received_with_bell(tracer, &[1, 2]);
}

fn received_with_bell(tracer: &Tracer, messages: &[u32]) {
    let channel = with_bell(messages);
    let prepare = || {
        used_before();
        || receive_one(&channel)
    };
    let dead = tracer.kill(prepare, || {});
    let all = bell_works(tracer, &channel);
    assert!(all == messages[1..] || all == messages && !dead.returned, "{all:?}");
}

fn want_bell(tracer: &Tracer) {
    let channel = channel_with(&[1]);
    let prepare = || {
        used_before();
        || channel.want_bell().expect("nobody closed it")
    };
    let _dead = tracer.kill(prepare, || {});
    tracer.expects("a fresh process to get a bell that rings");
    fresh(|| channel.want_bell().expect("nobody closed it"));
    assert_eq!(bell_works(tracer, &channel), [1]);
}

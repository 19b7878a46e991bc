//! Channels that count their messages: whoever dies, all places are there again but those of
//! messages, and every task is unfinished, done or lost.

use std::time::Duration;

use semlock::raw::{Channel, Tried};
use semlock::{Deadline, Wait};

use super::channel::{receive_one, receive_until, send_one};
use super::mutex::used_before;
use super::{Named, in_an_hour};
use crate::peer::{Peer, fresh};
use crate::tracer::Tracer;

pub const SCENARIOS: &[Named] = &[
    ("counting/put", put),
    ("counting/claim-and-send", claim_and_send),
    ("counting/claim-and-give-back", claim_and_give_back),
    ("counting/wait-for-a-place", wait_for_a_place),
    ("counting/take-a-task", take_a_task),
    ("counting/do-a-task", do_a_task),
    ("counting/find-the-lost", find_the_lost),
];

/// Places of each of these channels.
const LIMIT: u64 = 2;

fn channel() -> Channel {
    Channel::new_counting(512, Some(LIMIT), true).expect("memory")
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn claim(channel: &Channel, deadline: Deadline) -> bool {
    let mut claiming = channel.claiming(deadline);
    loop {
        match claiming.wait().expect("nobody writes there") {
            Wait::Interrupted => {}
            end => return end == Wait::Acquired,
        }
    }
}

fn put_one(channel: &Channel, number: u32) {
    assert!(claim(channel, in_an_hour()));
    send_one(channel, number);
}

/// Sees that there are as many places as there have to be: one is free for each message that is
/// not there. Takes all messages.
fn has_its_places(tracer: &Tracer, channel: &Channel) {
    tracer.expects("a fresh process to find all places");
    let mut peer = Peer::start(|line| {
        let there = u32::try_from(channel.count()).expect("few");
        let mut more = 0;
        while claim(channel, now()) {
            send_one(channel, 9);
            more += 1;
        }
        line.say(there + more);
        while receive_until(channel, now()).is_some() {
            assert!(channel.done());
        }
    });
    assert_eq!(u64::from(peer.expect()), LIMIT);
    peer.join();
    assert_eq!((channel.put_and_not_taken(), channel.count()), (0, 0));
}

/// Sees that nothing is left to do, as soon as the dead are found.
fn is_all_done(channel: &Channel) {
    let mut peer = Peer::start(|line| {
        channel.find_lost().expect("nobody writes there");
        line.say(u32::try_from(channel.unfinished()).expect("few"));
    });
    assert_eq!(peer.expect(), 0);
    peer.join();
}

fn lost(channel: &Channel) -> u32 {
    let mut peer = Peer::start(|line| {
        let lost = channel.find_lost().expect("nobody writes there");
        line.say(u32::try_from(lost).expect("few"));
    });
    let lost = peer.expect();
    peer.join();
    lost
}

fn put(tracer: &Tracer) {
    let channel = channel();
    let prepare = || {
        used_before();
        || assert_eq!(channel.try_put(&[b"a message"]), Ok(Tried::Done))
    };
    let dead = tracer.kill(prepare, || {});
    assert!(channel.count() == 1 || !dead.returned);
    let drop_it = || while channel.try_receive(&mut Vec::new()) == Ok(Tried::Done) {};
    fresh(drop_it);
    has_its_places(tracer, &channel);
}

fn claim_and_send(tracer: &Tracer) {
    let channel = channel();
    let prepare = || {
        used_before();
        || put_one(&channel, 1)
    };
    let dead = tracer.kill(prepare, || {});
    assert!(channel.count() == 1 || !dead.returned);
    has_its_places(tracer, &channel);
    assert!(lost(&channel) <= 1 && !(dead.returned && lost(&channel) == 1));
    is_all_done(&channel);
}

fn claim_and_give_back(tracer: &Tracer) {
    let channel = channel();
    let prepare = || {
        used_before();
        || {
            assert!(claim(&channel, in_an_hour()));
            assert!(channel.give_back());
        }
    };
    let _dead = tracer.kill(prepare, || {});
    has_its_places(tracer, &channel);
    is_all_done(&channel);
}

fn wait_for_a_place(tracer: &Tracer) {
    let channel = channel();
    fresh(|| (1..=2).for_each(|number| put_one(&channel, number)));
    let prepare = || {
        used_before();
        || put_one(&channel, 3)
    };
    let take = || fresh(|| assert_eq!(receive_one(&channel), 1));
    let dead = tracer.kill(prepare, take);
    if !dead.helped {
        take();
    }
    tracer.expects("another putter to get the place, or the next one that is free");
    let other = Peer::start(|line| {
        put_one(&channel, 4);
        line.say(0);
    });
    let number = fresh_receives(&channel);
    assert_eq!(number, 2);
    assert_eq!(other.last_word(), 0);
    has_its_places(tracer, &channel);
}

fn fresh_receives(channel: &Channel) -> u32 {
    let mut peer = Peer::start(|line| line.say(receive_one(channel)));
    let number = peer.expect();
    peer.join();
    number
}

fn take_a_task(tracer: &Tracer) {
    let channel = channel();
    fresh(|| (1..=2).for_each(|number| put_one(&channel, number)));
    let prepare = || {
        used_before();
        || assert_eq!(receive_one(&channel), 1)
    };
    let dead = tracer.kill(prepare, || {});
    tracer.expects("a fresh process to find what is lost, and nothing else");
    let found = lost(&channel);
    assert_eq!(found as usize, 2 - channel.count());
    assert!(found == 1 || !dead.returned);
    assert_eq!(channel.unfinished(), 2 - u64::from(found));
    has_its_places(tracer, &channel);
    is_all_done(&channel);
}

fn do_a_task(tracer: &Tracer) {
    let channel = channel();
    fresh(|| (1..=2).for_each(|number| put_one(&channel, number)));
    let prepare = || {
        used_before();
        assert_eq!(receive_one(&channel), 1);
        || assert!(channel.done())
    };
    let dead = tracer.kill(prepare, || {});
    let found = lost(&channel);
    assert!(found == 0 || found == 1 && !dead.returned);
    assert_eq!(channel.unfinished(), 1);
    has_its_places(tracer, &channel);
    is_all_done(&channel);
}

/// A death of the one that looks for the dead costs nothing but that a task may be told twice.
fn find_the_lost(tracer: &Tracer) {
    let channel = channel();
    fresh(|| (1..=2).for_each(|number| put_one(&channel, number)));
    fresh(|| assert_eq!(receive_one(&channel), 1));
    fresh(|| assert!(claim(&channel, in_an_hour())));
    let prepare = || {
        used_before();
        || assert_eq!(channel.find_lost(), Ok(2))
    };
    let _dead = tracer.kill(prepare, || {});
    let found = lost(&channel);
    assert!((2..=3).contains(&found), "{found}");
    assert_eq!(channel.unfinished(), 1);
    has_its_places(tracer, &channel);
    is_all_done(&channel);
}

//! Messages that tell who sent them, and which of its messages each is.
//!
//! ```text
//!  words   0 stamp of the thread: life << 8 | number   1 number of the message
//!          2 and more: what follows from these and from the length
//! ```

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;

use semlock::raw::Channel;
use semlock::{Deadline, Wait};

use crate::arena::{Arena, DEAD, MESSAGES, Thread};
use crate::checker::Member;
use crate::objects::Object;

/// The last number that one receiver has of each sender.
#[derive(Default)]
pub struct Latest(HashMap<u64, u64>);

/// Words of a message.
pub const SMALL: usize = 5;
/// Words of a message that is larger than the ring.
pub const LARGE: usize = 150;

fn filling(stamp: u64, number: u64, words: usize, at: usize) -> u64 {
    let mixed = stamp ^ number.rotate_left(17) ^ (words as u64).rotate_left(40);
    (mixed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Sends the thread's next message; false if it was not sent in time.
pub fn send(me: &Member, channel: &Channel, words: usize, deadline: Deadline) -> bool {
    let (object, thread) = (Object::Channel, me.thread());
    let number = thread.sent.load(SeqCst) + 1;
    if number >= MESSAGES as u64 {
        return false;
    }
    let stamp = u64::from(me.life) << 8 | me.number as u64;
    let mut message = vec![stamp, number];
    message.extend((2..words).map(|at| filling(stamp, number, words, at)));
    let bytes: Vec<_> = message.into_iter().flat_map(u64::to_ne_bytes).collect();
    // In two pieces that do not end with a word.
    let pieces = [&bytes[..11], &bytes[11..]];
    thread.begun.store(number, SeqCst);
    me.comes(object);
    let mut sending = channel.sending(&pieces, deadline);
    loop {
        match sending.wait() {
            Ok(Wait::Interrupted) => {}
            Ok(Wait::TimedOut) => {
                drop(sending);
                me.is_refused(object);
                return false;
            }
            Ok(_) => {
                thread.sent.store(number, SeqCst);
                me.is_away(object);
                return true;
            }
            Err(error) => me.fail(object, &error.to_string()),
        }
    }
}

/// Receives a message and checks it; false if there was none in time.
pub fn receive(me: &Member, channel: &Channel, latest: &mut Latest, deadline: Deadline) -> bool {
    let object = Object::Channel;
    me.comes(object);
    let mut bytes = Vec::new();
    let mut receiving = channel.receiving(&mut bytes, deadline);
    let received = loop {
        match receiving.wait() {
            Ok(Wait::Interrupted) => {}
            Ok(end) => break end == Wait::Acquired,
            Err(error) => me.fail(object, &error.to_string()),
        }
    };
    drop(receiving);
    if received {
        if let Err(what) = note(me.arena, &bytes, latest) {
            me.fail(object, &what);
        }
        me.is_away(object);
    } else {
        me.is_refused(object);
    }
    received
}

fn note(arena: Arena, bytes: &[u8], latest: &mut Latest) -> Result<(), String> {
    let chunks = bytes.chunks_exact(size_of::<u64>());
    let rest = chunks.remainder();
    let word = |chunk: &[u8]| u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
    let words: Vec<_> = chunks.map(word).collect();
    let [stamp, number, ref filled @ ..] = words[..] else { return Err("no message".to_owned()) };
    let is_right = |(at, &word)| word == filling(stamp, number, words.len(), at + 2);
    if !rest.is_empty() || !filled.iter().enumerate().all(is_right) {
        return Err(format!("a message that was torn: {stamp:x} {number}, {} words", words.len()));
    }
    let thread = &arena.life(u32::try_from(stamp >> 8).expect("a stamp")).threads
        [usize::try_from(stamp & 0xff).expect("a stamp")];
    if number == 0 || number > thread.begun.load(SeqCst) {
        return Err(format!("message {number} of {stamp:x}, which it has not sent"));
    }
    let (word, bit) = place(number);
    if thread.received[word].fetch_or(bit, SeqCst) & bit != 0 {
        return Err(format!("message {number} of {stamp:x} was received twice"));
    }
    match latest.0.insert(stamp, number) {
        Some(before) if before > number => {
            Err(format!("message {number} of {stamp:x} came after {before}"))
        }
        _ => Ok(()),
    }
}

fn place(number: u64) -> (usize, u64) {
    (usize::try_from(number / 64).expect("few"), 1 << (number % 64))
}

/// How many were sent for sure and not received.
pub fn lost(arena: Arena) -> u64 {
    let of = |thread: &Thread| {
        let was_received = |number: u64| {
            let (word, bit) = place(number);
            thread.received[word].load(SeqCst) & bit != 0
        };
        (1..=thread.sent.load(SeqCst)).filter(|&number| !was_received(number)).count() as u64
    };
    arena.lives().flat_map(|(_, life)| &life.threads).map(of).sum()
}

/// Threads of the dead that died in a call of the channel.
pub fn died_in_a_call(arena: Arena) -> u64 {
    let dead = arena.lives().filter(|(_, life)| life.state.load(SeqCst) == DEAD);
    let threads = dead.flat_map(|(_, life)| &life.threads);
    let is_there = |thread: &&Thread| thread.phase(Object::Channel) != crate::arena::Phase::Away;
    threads.filter(is_there).count() as u64
}

//! A channel: messages of bytes, which senders write into a ring and receivers take out of it.
//!
//! ```text
//!  tail     63     62        40 39              0
//!          ┌──────┬────────────┬─────────────────┐
//!          │ BELL │ messages   │ position        │
//!          └──────┴────────────┴─────────────────┘
//!  head     the same, without the flag
//!   position   words that were written (tail) or taken (head) since the beginning
//!   messages   messages that were sent (tail) or taken (head)
//!   BELL       the sender has to ring the bell: see below
//!
//!  record   63    60 59                0
//!          ┌────────┬──────────────────┐
//!          │ kind   │ bytes            │ then, of a FIRST: how many bytes the message has; then
//!          └────────┴──────────────────┘ the bytes, up to the next whole word
//!   WHOLE       a message
//!   FIRST, MORE, LAST
//!               the parts of a message that is larger than the ring
//! ```
//!
//! Only the holder of the senders' lock changes the tail, and only the holder of the receivers'
//! lock changes the head. (`BELL` alone is set without a lock.)
//!
//! * A sender writes a record behind the tail, where nobody reads, and then *commits* it: one
//!   exchange moves the tail past it. A sender that is killed before has sent nothing. After it,
//!   the record is there whole.
//! * A receiver copies a record and then *takes* it: one store moves the head past it. A receiver
//!   that is killed before has taken nothing, and the next one finds the record.
//! * A message in parts is there with its LAST. Its sender holds the lock until then. A receiver in
//!   the middle of a message that finds a WHOLE or a FIRST, or that finds nothing and gets the
//!   senders' lock, drops what it has: the sender was killed, or gave up.
//! * A receiver that finds a MORE or a LAST, and has not taken the FIRST before it, follows one
//!   that was killed or gave up in the middle: it drops that record.
//!
//! So a death in the middle of a message costs that message, if it is in parts, and nothing else.
//!
//! A process that waits for a message sleeps on the eventcount `arrivals`; a receiver in the middle
//! of a message on `parts`, because others, who may sleep on `arrivals` longer, can do nothing with
//! a part; and the sender that waits for room on `room`. (Only if nobody sleeps on `parts`, a part
//! wakes one on `arrivals`: if the receiver was killed, another one drops the rest.) A wake-up is
//! lost with a process that is killed between its commit and its waking, so no sleep may be
//! endless.
//!
//! # The bell
//! The bell is a descriptor for those who poll: readable while there is something to take. Until
//! somebody asks for the descriptor, nobody rings it, and it costs nothing. Asking sets `BELL`.
//! From then on, whoever moves the tail or the head does that under the bell's lock:
//!
//! ```text
//!  sender                                 receiver
//!  1  rings, unless RUNG                  1  moves the head
//!  2  sets RUNG                           2  if nothing is left: clears RUNG
//!  3  moves the tail                      3                      silences the bell
//! ```
//!
//! So the bell has rung wherever `RUNG` is set, and `RUNG` is set wherever there is something to
//! take, at whatever step a process is killed. It may have rung in vain: then whoever polled finds
//! nothing to take, and sets it right.
//!
//! A sender that saw no `BELL` does not move the tail once there is one: its exchange fails. A
//! receiver that saw none looks again after it has moved the head.
//!
//! The words may be changed by any process that has them. What they say is checked before anything
//! is believed: a record that cannot be is [`Corrupt`].
//!
//! # Memory ordering
//! A commit is a Release, and the load of the tail an Acquire: a receiver that sees the new tail
//! sees the record. Taking is a Release, and the load of the head an Acquire: a sender that sees
//! room overwrites only what was copied before. Both, and the loads that decide about sleeping, are
//! `SeqCst` too, because committer and sleeper each store to one word and then load another: see
//! `eventcount`. So do a receiver that moves the head, and whoever sets `BELL`. The words of the
//! ring are Relaxed. What a lock's holder wrote itself, or the holder before it, is ordered by the
//! lock.

use super::Futex;
use super::eventcount::EventCount;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const POSITION: u64 = (1 << 40) - 1;
const MESSAGE: u64 = 1 << 40;
const MESSAGES: u64 = BELL - MESSAGE;
const BELL: u64 = 1 << 63;

const KIND_SHIFT: u32 = 60;
const BYTES: u64 = (1 << KIND_SHIFT) - 1;
/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Whole = 1,
    First = 2,
    More = 3,
    Last = 4,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Whole, Self::First, Self::More, Self::Last];

    /// Words before its bytes.
    const fn head(self) -> usize {
        if matches!(self, Self::First) { 2 } else { 1 }
    }

    /// Whether a message begins with it.
    pub(crate) fn begins_a_message(self) -> bool {
        matches!(self, Self::Whole | Self::First)
    }

    /// Whether a message ends with it.
    pub(crate) fn ends_a_message(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

/// What the words of a channel say cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// A descriptor that can be polled, and its lock.
pub(crate) trait Bell {
    /// Why it cannot be rung.
    type Error: From<Corrupt>;

    /// Runs something under its lock, and tells it whether the last holder died.
    fn locked<T>(&self, run: impl FnOnce(bool) -> T) -> T;
    /// Whether somebody holds its lock, dead or alive.
    fn is_locked(&self) -> bool;
    /// The word `RUNG`.
    fn rung(&self) -> &AtomicU64;
    /// Makes the descriptor readable.
    fn ring(&self) -> Result<(), Self::Error>;
    /// Makes the descriptor unreadable.
    fn silence(&self);
}

/// Rings a bell that has not rung, under its lock.
fn ring<B: Bell>(bell: &B) -> Result<(), B::Error> {
    if bell.rung().load(Ordering::Relaxed) == 0 {
        bell.ring()?;
        bell.rung().store(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A view of a channel's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<'a> {
    pub(crate) tail: &'a AtomicU64,
    pub(crate) head: &'a AtomicU64,
    pub(crate) arrivals: EventCount<'a>,
    pub(crate) parts: EventCount<'a>,
    pub(crate) room: EventCount<'a>,
    /// Its length is a power of two.
    pub(crate) ring: &'a [AtomicU64],
}

/// The bytes that a message has yet to send. They may lie in several places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pieces: &'a [&'a [u8]],
    /// How many bytes of the first piece were sent.
    at: usize,
    left: usize,
}

impl<'a> Message<'a> {
    pub(crate) fn new(pieces: &'a [&'a [u8]]) -> Self {
        Self { pieces, at: 0, left: pieces.iter().map(|piece| piece.len()).sum() }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.left
    }

    /// Passes the next `bytes` bytes to `put`, and counts them as sent.
    fn send(&mut self, bytes: usize, mut put: impl FnMut(&[u8])) {
        let mut more = bytes;
        while more > 0 {
            let Some((piece, after)) = self.pieces.split_first() else { return };
            let piece = &piece[self.at..];
            let now = piece.len().min(more);
            put(&piece[..now]);
            more -= now;
            self.at += now;
            if now == piece.len() {
                (self.pieces, self.at) = (after, 0);
            }
        }
        self.left -= bytes;
    }
}

/// A record that was written and is not committed.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Written {
    kind: Kind,
    from: u64,
    to: u64,
}

/// A record that was not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// How many bytes it has.
    pub(crate) bytes: usize,
    /// How many bytes its message has: known with the beginning of a message.
    pub(crate) total: usize,
    /// The position of its first byte.
    start: u64,
    /// The head after it.
    after: u64,
}

/// How many words `bytes` bytes take.
const fn words(bytes: usize) -> usize {
    bytes.div_ceil(WORD)
}

/// Moves a tail or head on, by some words and perhaps by a message.
const fn moved(from: u64, words: usize, messages: u64) -> u64 {
    let position = from.wrapping_add(words as u64) & POSITION;
    let messages = (from & MESSAGES).wrapping_add(messages * MESSAGE) & MESSAGES;
    from & !(POSITION | MESSAGES) | messages | position
}

impl Channel<'_> {
    /// Whether there is nothing to take.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        // The head first: the tail that is loaded after it was there when nothing was left. The
        // other way round, a message that came meanwhile could be missed while the one before it
        // was taken.
        let head = self.head.load(Ordering::SeqCst);
        (self.tail.load(Ordering::SeqCst) ^ head) & POSITION == 0
    }

    /// How many messages are there. One that has begun and not ended is not counted; one of which
    /// only a part was taken is.
    pub(crate) fn count(self) -> usize {
        // The head first: so there are not fewer sent than taken.
        let head = self.head.load(Ordering::SeqCst);
        let sent = (self.tail.load(Ordering::Acquire) & MESSAGES).wrapping_sub(head & MESSAGES);
        (sent & MESSAGES).wrapping_shr(MESSAGE.trailing_zeros()) as usize
    }

    /// Whether whoever sends or receives rings or silences the bell.
    #[inline]
    pub(crate) fn has_bell(self) -> bool {
        self.tail.load(Ordering::SeqCst) & BELL != 0
    }

    /// From now on, the bell is rung.
    pub(crate) fn want_bell<B: Bell>(self, bell: &B) -> Result<(), B::Error> {
        if !self.has_bell() {
            let mut seen = self.tail.load(Ordering::Relaxed);
            while let Err(other) = self.move_tail(seen, seen | BELL) {
                seen = other;
            }
        }
        // Also if another has set `BELL`: it may have been killed before it rang for what was
        // there.
        if self.is_empty() || bell.rung().load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        bell.locked(|recovered| {
            self.silence_if_empty(bell, recovered);
            if self.is_empty() { Ok(()) } else { ring(bell) }
        })
    }

    /// For a process that has found nothing to take: silences a bell that rang in vain.
    #[inline]
    pub(crate) fn set_bell_right(self, bell: &impl Bell) {
        if self.has_bell() && (bell.rung().load(Ordering::Relaxed) != 0 || bell.is_locked()) {
            bell.locked(|recovered| self.silence_if_empty(bell, recovered));
        }
    }

    /// Under the bell's lock. `recovered`: its last holder died, and may have rung without a note.
    fn silence_if_empty(self, bell: &impl Bell, recovered: bool) {
        if self.is_empty() && (recovered || bell.rung().load(Ordering::Relaxed) != 0) {
            if rule("channel/rung-is-cleared-before-the-bell-is-silenced") {
                bell.rung().store(0, Ordering::Relaxed);
                bell.silence();
            } else {
                bell.silence();
                bell.rung().store(0, Ordering::Relaxed);
            }
        }
    }

    /// A part of a message in parts has so many bytes. So a part takes a quarter of the ring, and
    /// both sides move their parts at the same time.
    pub(crate) fn part(self) -> usize {
        (self.ring.len() / 4 - Kind::First.head()) * WORD
    }

    /// Whether a message of so many bytes is sent whole.
    pub(crate) fn fits(self, bytes: usize) -> bool {
        Kind::Whole.head() + words(bytes) <= self.ring.len()
    }

    // ---- For the holder of the senders' lock ----

    /// Whether there is room for a record.
    pub(crate) fn has_room(self, kind: Kind, bytes: usize) -> Result<bool, Corrupt> {
        Ok(kind.head() + words(bytes) <= self.free()?)
    }

    /// Whether a sender that waits for room for a record goes on. It waits for more room than the
    /// record needs: else each message that is taken from a full ring would wake it.
    pub(crate) fn has_room_after_a_wait(self, kind: Kind, bytes: usize) -> Result<bool, Corrupt> {
        let needed = kind.head() + words(bytes);
        Ok(self.free()? >= needed.max(self.ring.len() / 4))
    }

    /// How many words are free.
    fn free(self) -> Result<usize, Corrupt> {
        let head = self.head.load(Ordering::SeqCst);
        let tail = self.tail.load(Ordering::Relaxed);
        self.ring.len().checked_sub(distance(head, tail)).ok_or(Corrupt)
    }

    /// The number of the next message that is sent.
    pub(crate) fn next_to_send(self) -> u64 {
        (self.tail.load(Ordering::Relaxed) & MESSAGES) / MESSAGE
    }

    /// Writes a record behind the tail, with the next `bytes` bytes of a message. There is room for
    /// it.
    pub(crate) fn write(self, kind: Kind, bytes: usize, message: &mut Message<'_>) -> Written {
        let from = self.tail.load(Ordering::Relaxed) & !BELL;
        let mut writer = Writer { ring: self.ring, at: from, word: 0, filled: 0 };
        writer.put_word((kind as u64) << KIND_SHIFT | bytes as u64);
        if kind == Kind::First {
            writer.put_word(message.len() as u64);
        }
        message.send(bytes, |piece| writer.put(piece));
        writer.finish();
        let to = moved(from, kind.head() + words(bytes), kind.ends_a_message().into());
        Written { kind, from, to }
    }

    /// Sends what was written.
    #[inline]
    pub(crate) fn commit<B: Bell>(
        self,
        futex: &impl Futex,
        bell: &B,
        written: Written,
    ) -> Result<(), B::Error> {
        match self.move_tail(written.from, written.to) {
            Ok(_) => {
                self.wake_receiver(futex, written.kind);
                Ok(())
            }
            Err(seen) if seen == written.from | BELL => self.commit_ringing(futex, bell, written),
            Err(_) => Err(Corrupt.into()),
        }
    }

    #[cold]
    fn commit_ringing<B: Bell>(
        self,
        futex: &impl Futex,
        bell: &B,
        written: Written,
    ) -> Result<(), B::Error> {
        let moved = bell.locked(|_| {
            let first = rule("channel/the-bell-rings-before-the-message-is-there");
            if first {
                ring(bell)?;
            }
            let moved = self.move_tail(written.from | BELL, written.to | BELL);
            if !first {
                ring(bell)?;
            }
            moved.map_err(|_| Corrupt.into())
        });
        moved.map(|_| self.wake_receiver(futex, written.kind))
    }

    #[inline]
    fn wake_receiver(self, futex: &impl Futex, kind: Kind) {
        // Where nobody sleeps in the middle of the message, its receiver is awake, or it is gone.
        // Then one that waits for a message has to drop what follows, or the sender gets no room.
        let may_be_gone = || {
            !self.parts.may_have_sleepers()
                && rule("channel/a-part-that-nobody-waits-for-wakes-another-receiver")
        };
        let is_for_anyone = kind.begins_a_message() || may_be_gone();
        let eventcount = if is_for_anyone { self.arrivals } else { self.parts };
        eventcount.wake_one(futex, || false);
    }

    #[inline]
    fn move_tail(self, from: u64, to: u64) -> Result<u64, u64> {
        self.tail.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed)
    }

    // ---- For the holder of the receivers' lock ----

    /// The next record, if there is one.
    pub(crate) fn next(self) -> Result<Option<Record>, Corrupt> {
        let head = self.head.load(Ordering::Relaxed);
        let there = distance(head, self.tail.load(Ordering::SeqCst));
        if there == 0 {
            return Ok(None);
        }
        if there > self.ring.len() {
            return Err(Corrupt);
        }
        let word = self.word_at(head);
        let kind = Kind::ALL.into_iter().find(|&kind| kind as u64 == word >> KIND_SHIFT);
        let kind = kind.ok_or(Corrupt)?;
        let bytes = usize::try_from(word & BYTES).map_err(|_| Corrupt)?;
        let length = kind.head() + words(bytes);
        if length > there {
            return Err(Corrupt);
        }
        let total = if kind == Kind::First {
            let total = usize::try_from(self.word_at(head.wrapping_add(1))).map_err(|_| Corrupt)?;
            if total <= bytes {
                return Err(Corrupt);
            }
            total
        } else {
            bytes
        };
        let start = head.wrapping_add(kind.head() as u64) & POSITION;
        let after = moved(head, length, kind.ends_a_message().into());
        Ok(Some(Record { kind, bytes, total, start, after }))
    }

    /// The number of the next message, or of the one that receivers are in the middle of.
    pub(crate) fn next_number(self) -> u64 {
        (self.head.load(Ordering::Relaxed) & MESSAGES) / MESSAGE
    }

    /// Copies a record's bytes.
    pub(crate) fn copy(self, record: &Record, into: &mut [u8]) {
        debug_assert_eq!(record.bytes, into.len());
        let mut left = &mut into[..record.bytes];
        let mut at = self.index(record.start);
        while !left.is_empty() {
            let run = &self.ring[at..];
            let now = left.len().min(run.len() * WORD);
            let (part, rest) = std::mem::take(&mut left).split_at_mut(now);
            let mut words = run.iter();
            let mut whole = part.chunks_exact_mut(WORD);
            for (bytes, word) in whole.by_ref().zip(words.by_ref()) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            let last = whole.into_remainder();
            if let (false, Some(word)) = (last.is_empty(), words.next()) {
                last.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..last.len()]);
            }
            (left, at) = (rest, 0);
        }
    }

    /// Takes a record, or drops it, and wakes a sender that waits for room.
    #[inline]
    pub(crate) fn take(self, futex: &impl Futex, bell: &impl Bell, record: &Record) {
        if self.has_bell() {
            self.take_ringing(futex, bell, record);
            return;
        }
        self.move_head(futex, record);
        if self.has_bell() && rule("channel/a-receiver-loads-the-bell-bit-again") {
            bell.locked(|recovered| self.silence_if_empty(bell, recovered));
        }
    }

    #[cold]
    fn take_ringing(self, futex: &impl Futex, bell: &impl Bell, record: &Record) {
        bell.locked(|recovered| {
            self.move_head(futex, record);
            self.silence_if_empty(bell, recovered);
        });
    }

    #[inline]
    fn move_head(self, futex: &impl Futex, record: &Record) {
        self.head.store(record.after, Ordering::SeqCst);
        let there = distance(record.after, self.tail.load(Ordering::Relaxed));
        if there <= self.ring.len() / 4 * 3 {
            self.room.wake_one(futex, || false);
        }
    }

    fn index(self, position: u64) -> usize {
        index(self.ring, position)
    }

    fn word_at(self, position: u64) -> u64 {
        self.ring[self.index(position)].load(Ordering::Relaxed)
    }
}

/// How many words lie between head and tail.
const fn distance(head: u64, tail: u64) -> usize {
    (tail.wrapping_sub(head) & POSITION) as usize
}

#[allow(clippy::cast_possible_truncation)] // the remainder is less than the ring's length
fn index(ring: &[AtomicU64], position: u64) -> usize {
    (position & (ring.len() as u64 - 1)) as usize
}

/// Writes bytes into the words of a ring.
struct Writer<'a> {
    ring: &'a [AtomicU64],
    at: u64,
    /// The word that is not full yet, and how many bytes it has.
    word: u64,
    filled: usize,
}

impl Writer<'_> {
    fn put_word(&mut self, word: u64) {
        self.ring[index(self.ring, self.at)].store(word, Ordering::Relaxed);
        self.at += 1;
    }

    fn put(&mut self, mut bytes: &[u8]) {
        if self.filled > 0 {
            let (now, after) = bytes.split_at(bytes.len().min(WORD - self.filled));
            self.begin_word(now);
            bytes = after;
        }
        while bytes.len() >= WORD {
            let run = &self.ring[index(self.ring, self.at)..];
            let (now, after) = bytes.split_at((bytes.len() / WORD).min(run.len()) * WORD);
            for (word, bytes) in run.iter().zip(now.chunks_exact(WORD)) {
                word.store(
                    u64::from_ne_bytes(bytes.try_into().unwrap_or_default()),
                    Ordering::Relaxed,
                );
            }
            self.at += (now.len() / WORD) as u64;
            bytes = after;
        }
        self.begin_word(bytes);
    }

    /// Adds less than a word, or the rest of one.
    fn begin_word(&mut self, bytes: &[u8]) {
        let mut word = self.word.to_ne_bytes();
        word[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        (self.word, self.filled) = (u64::from_ne_bytes(word), self.filled + bytes.len());
        if self.filled == WORD {
            self.put_word(self.word);
            (self.word, self.filled) = (0, 0);
        }
    }

    fn finish(mut self) {
        if self.filled > 0 {
            self.put_word(self.word);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::super::{Slept, Woke};
    use super::*;

    struct NobodySleeps;

    impl Futex for NobodySleeps {
        fn wait(&self, _: &AtomicU64, _: u32, _: Option<Duration>) -> Slept {
            Slept::Woken
        }
        fn wake_one(&self, _: &AtomicU64) -> Woke {
            Woke::Nobody
        }
        fn wake_all(&self, _: &AtomicU64) {}
    }

    struct Silent(AtomicU64);

    impl Bell for Silent {
        type Error = Corrupt;

        fn locked<T>(&self, run: impl FnOnce(bool) -> T) -> T {
            run(false)
        }
        fn is_locked(&self) -> bool {
            false
        }
        fn rung(&self) -> &AtomicU64 {
            &self.0
        }
        fn ring(&self) -> Result<(), Corrupt> {
            Ok(())
        }
        fn silence(&self) {}
    }

    /// The words of a channel at a position, after so many messages.
    struct Words([AtomicU64; 5], Vec<AtomicU64>);

    impl Words {
        fn at(start: u64) -> Self {
            let words = [start, start, 0, 0, 0].map(AtomicU64::new);
            Self(words, (0..64).map(|_| AtomicU64::new(0)).collect())
        }

        fn channel(&self) -> Channel<'_> {
            let Self([tail, head, arrivals, parts, room], ring) = self;
            let [arrivals, parts, room] = [arrivals, parts, room].map(EventCount);
            Channel { tail, head, arrivals, parts, room, ring }
        }
    }

    fn send(channel: Channel<'_>, bell: &Silent, kind: Kind, bytes: &[u8], after: &[u8]) {
        let pieces = [bytes, after];
        let written = channel.write(kind, bytes.len(), &mut Message::new(&pieces));
        channel.commit(&NobodySleeps, bell, written).unwrap();
    }

    fn take(channel: Channel<'_>, bell: &Silent) -> (Kind, usize, Vec<u8>) {
        let record = channel.next().unwrap().unwrap();
        let mut bytes = vec![0; record.bytes];
        channel.copy(&record, &mut bytes);
        channel.take(&NobodySleeps, bell, &record);
        (record.kind, record.total, bytes)
    }

    #[test]
    fn positions_and_counts_of_messages_turn_over() {
        let (last_position, last_message) = (POSITION, MESSAGES);
        let starts = [
            0,
            last_position - 3,
            last_position,
            last_message,
            last_message | (last_position - 1),
            (last_message - MESSAGE) | (last_position - 7),
        ];
        for start in starts.into_iter().flat_map(|start| [start, start | BELL]) {
            let (words, bell) = (Words::at(start & !BELL), Silent(AtomicU64::new(0)));
            let channel = words.channel();
            words.0[0].store(start, Ordering::Relaxed);
            assert!(channel.is_empty() && channel.count() == 0);
            for number in 0..40_u8 {
                let bytes: Vec<_> = (0..number * 3).map(|at| at ^ number).collect();
                send(channel, &bell, Kind::Whole, &bytes, &[]);
                send(channel, &bell, Kind::First, &bytes, &[1, 2]);
                assert_eq!(channel.count(), 1);
                send(channel, &bell, Kind::Last, &[1, 2], &[]);
                assert_eq!(channel.count(), 2);
                let length = bytes.len();
                assert_eq!(take(channel, &bell), (Kind::Whole, length, bytes.clone()));
                assert_eq!(take(channel, &bell), (Kind::First, length + 2, bytes));
                assert_eq!(channel.count(), 1);
                assert_eq!(take(channel, &bell), (Kind::Last, 2, vec![1, 2]));
                assert!(channel.is_empty() && channel.count() == 0);
                assert_eq!(channel.has_bell(), start & BELL != 0);
            }
        }
    }

    #[test]
    fn a_full_ring_is_full_and_not_empty_wherever_it_begins() {
        for start in [0, 1, POSITION, POSITION - 63, MESSAGES | POSITION] {
            let (words, bell) = (Words::at(start), Silent(AtomicU64::new(0)));
            let channel = words.channel();
            assert!(channel.fits(63 * WORD) && !channel.fits(63 * WORD + 1));
            send(channel, &bell, Kind::Whole, &[7; 63 * WORD], &[]);
            assert!(!channel.is_empty());
            assert_eq!(channel.has_room(Kind::Whole, 0), Ok(false));
            assert_eq!(take(channel, &bell).2, [7; 63 * WORD]);
            assert_eq!(channel.has_room(Kind::Whole, 63 * WORD), Ok(true));
        }
    }

    #[test]
    fn no_words_make_a_record_that_lies_outside_of_what_was_sent() {
        let mut random = fastrand::Rng::with_seed(3);
        let extremes = [0, 1, 63, 64, 65, POSITION, MESSAGE, MESSAGES, BELL, u64::MAX];
        let mut word = || match random.u8(..3) {
            0 => extremes[random.usize(..extremes.len())],
            1 => random.u64(..8) << KIND_SHIFT | random.u64(..600),
            _ => random.u64(..),
        };
        for _ in 0..100_000 {
            let words = Words::at(0);
            let channel = words.channel();
            let head = word();
            words.0[1].store(head, Ordering::Relaxed);
            words.0[0].store(head.wrapping_add(word() % 70), Ordering::Relaxed);
            words.1.iter().for_each(|it| it.store(word(), Ordering::Relaxed));
            let _ = (channel.count(), channel.is_empty(), channel.has_room(Kind::First, 8));
            if let Ok(Some(record)) = channel.next() {
                assert!(record.bytes <= 64 * WORD && record.total >= record.bytes);
                channel.copy(&record, &mut vec![0; record.bytes]);
            }
        }
    }
}

//! The algorithms on words that processes share: no operating system, no `unsafe`.
//!
//! Each is a view of one or more 64-bit words. What waits and wakes is passed in (`Futex`), as is
//! everything that asks the operating system whether somebody is dead.

pub(crate) mod barrier;
pub(crate) mod blocks;
pub(crate) mod counter;
pub(crate) mod event;
pub(crate) mod eventcount;
#[cfg(all(loom, test))]
mod loom;
pub(crate) mod permit;
pub(crate) mod places;
pub(crate) mod reservation;
pub(crate) mod turns;
pub(crate) mod waiters;
pub(crate) mod watch;

use std::time::Duration;

use crate::atomic::AtomicU64;

/// What sleeping on a word came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// Woken, or the word had another value: look again.
    Woken,
    /// For as long as was asked.
    TimedOut,
    /// Until a signal came.
    Interrupted,
}

/// What waking one came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    /// One that slept; it may be dying.
    One,
    /// Nobody sleeps on, of those who lay down before the word was changed last.
    Nobody,
    /// Nobody can tell.
    Unknown,
}

/// Sleeping on the low half of a word, and waking those who do: `futex(2)`, what other systems have in its place, or a
/// model of them.
///
/// Where a system has no such thing, sleepers look at the word again and again. What they need of those who
/// wake is that the word has another value from now on: so every wake-up is preceded by a change of the word to a value
/// that no sleeper has seen. (One that only has a sleeper look after something else may come late there.)
pub(crate) trait Futex {
    /// Sleeps if the low half of `word` is `expected`; for ever where no time is given. May end at any moment for nothing.
    fn wait(&self, word: &AtomicU64, expected: u32, time: Option<Duration>) -> Slept;

    /// Wakes one that sleeps on this word.
    fn wake_one(&self, word: &AtomicU64) -> Woke;

    /// Wakes all that sleep on this word.
    fn wake_all(&self, word: &AtomicU64);
}

/// The half of a word that a futex can compare.
#[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

//! The algorithms on words that processes share: no operating system, no `unsafe`.
//!
//! Each is a view of one or more 64-bit words. What waits and wakes is passed in (`Futex`), as is
//! everything that asks the operating system whether somebody is dead.

pub(crate) mod barrier;
pub(crate) mod counter;
pub(crate) mod event;
pub(crate) mod gate;
#[cfg(all(loom, test))]
mod loom;
pub(crate) mod permit;
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

/// Sleeping on the low half of a word, and waking those who do: `futex(2)`, or a model of it.
pub(crate) trait Futex {
    /// Sleeps if the low half of `word` is `expected`; for ever where no time is given.
    fn wait(&self, word: &AtomicU64, expected: u32, time: Option<Duration>) -> Slept;

    /// Wakes at most so many that sleep on this word; returns how many it woke, the dying included.
    fn wake(&self, word: &AtomicU64, most: u32) -> u32;
}

/// The half of a word that a futex can compare.
#[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

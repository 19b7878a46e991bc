//! The algorithms on words that processes share. They know no operating system and need no
//! `unsafe`.
//!
//! Each type is a view of one or more 64-bit words. The caller passes in the `Futex`, which sleeps
//! and wakes, and a function that tells whether a process is dead.

pub(crate) mod barrier;
pub(crate) mod blocks;
pub(crate) mod channel;
pub(crate) mod counter;
pub(crate) mod event;
pub(crate) mod eventcount;
#[cfg(all(loom, test))]
mod loom;
pub(crate) mod permit;
pub(crate) mod places;
pub(crate) mod reservation;
pub(crate) mod tallies;
pub(crate) mod turns;
pub(crate) mod waiters;
pub(crate) mod watch;

use std::time::Duration;

use crate::atomic::AtomicU64;
pub(crate) use crate::sleep::{Slept, Woke};

/// Sleeps on the low half of a word, and wakes the sleepers: `futex(2)`, what another system has in
/// its place, or a model of them.
///
/// On a system that has nothing like it, a sleeper polls the word. It notices a wake-up only by the
/// word's new value. So a change of the word precedes every wake-up, to a value that no sleeper has
/// seen. (A wake-up without such a change only makes a sleeper check something else. It may arrive
/// late there.)
pub(crate) trait Futex {
    /// Sleeps if the low half of `word` is `expected`. Without a time, it sleeps until it is woken.
    /// The sleep may end at any moment without a reason.
    fn wait(&self, word: &AtomicU64, expected: u32, time: Option<Duration>) -> Slept;

    /// Wakes one sleeper of this word.
    fn wake_one(&self, word: &AtomicU64) -> Woke;

    /// Wakes all sleepers of this word.
    fn wake_all(&self, word: &AtomicU64);
}

/// The half of a word that a futex can compare.
#[allow(clippy::cast_possible_truncation)] // the low half is the result
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

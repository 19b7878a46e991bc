//! An event: one word.
//!
//! ```text
//!   63     32 31               2    1       0
//!  ┌─────────┬──────────────────┬───────┬──────┐
//!  │ 0       │ epoch (30 bits)  │ sleep │ flag │   low half: the futex
//!  └─────────┴──────────────────┴───────┴──────┘
//!   flag    it is set           sleep   somebody may sleep until it is
//!   epoch   how often it was set
//! ```
//!
//! Who waits remembers the epoch: it is through when the flag is set, and also when the epoch is another,
//! because then the event was set since, even if it is clear again. Setting takes no lock, so that a
//! signal handler can do it whatever it interrupted, also a `set` of the same event.
//!
//! (2^30 settings during one wait would look like none.)
//!
//! # Memory ordering
//! Setting is a Release and seeing that it was set an Acquire: who gets through sees what was written
//! before the event was set. So is clearing, also where an exchange that fails tells that another has
//! cleared it: who clears and then looks at what there is to do sees all that was told of before.
//! All that decides about sleeping is in one word, so no more is needed.

use std::time::Duration;

use super::{Futex, Slept, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const FLAG: u32 = 1;
const SLEEP: u32 = 2;
const EPOCH: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a>(pub(crate) &'a AtomicU64);

impl Event<'_> {
    #[inline]
    pub(crate) fn is_set(self) -> bool {
        low(self.load()) & FLAG != 0
    }

    #[inline]
    fn load(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// What a wait that begins now has to pass to `passed`.
    pub(crate) fn epoch(self) -> u32 {
        low(self.load()) / EPOCH
    }

    /// Whether the event was set at some moment since that epoch was read.
    pub(crate) fn passed(self, epoch: u32) -> bool {
        let now = low(self.load());
        now & FLAG != 0 || now / EPOCH != epoch && rule("event/a-set-counts-after-a-clear-too")
    }

    #[inline]
    pub(crate) fn set(self, futex: &impl Futex) {
        let mut word = self.load();
        // Where it is set nobody sleeps; but who sets it again has to be seen too: see `Memory
        // ordering`. So that is a change as well.
        let seen = loop {
            let seen = low(word);
            if seen & FLAG != 0 && !rule("event/a-set-of-a-set-event-is-a-change-too") {
                return;
            }
            let set =
                if seen & FLAG == 0 { (seen & !SLEEP).wrapping_add(EPOCH) | FLAG } else { seen };
            match self.change(word, set) {
                Ok(()) => break seen,
                Err(other) => word = other,
            }
        };
        if seen & (FLAG | SLEEP) == SLEEP {
            futex.wake_all(self.0);
        }
    }

    pub(crate) fn clear(self) {
        let mut word = self.load();
        while low(word) & FLAG != 0 {
            match self.change(word, low(word) & !FLAG) {
                Ok(()) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Sleeps once, unless the event was set since that epoch was read.
    pub(crate) fn sleep(self, futex: &impl Futex, epoch: u32, time: Option<Duration>) -> Slept {
        let mut word = self.load();
        let seen = loop {
            let seen = low(word);
            let is_later = seen / EPOCH != epoch && rule("event/no-waiter-sleeps-after-a-set");
            if seen & FLAG != 0 || is_later {
                return Slept::Woken;
            }
            if seen & SLEEP != 0 {
                break seen;
            }
            match self.change(word, seen | SLEEP) {
                Ok(()) => break seen | SLEEP,
                Err(other) => word = other,
            }
        };
        futex.wait(self.0, seen, time)
    }

    /// From a word as it was seen, all of it: else what a wild peer wrote into the upper half would make each change fail
    /// for ever.
    #[inline]
    fn change(self, from: u64, to: u32) -> Result<(), u64> {
        self.0.compare_exchange(from, to.into(), Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

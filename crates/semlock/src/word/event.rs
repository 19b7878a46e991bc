//! An event: one word.
//!
//! ```text
//!   63     32 31               2    1       0
//!  ┌─────────┬──────────────────┬───────┬──────┐
//!  │ 0       │ epoch (30 bits)  │ SLEEP │ FLAG │   low half: the futex
//!  └─────────┴──────────────────┴───────┴──────┘
//!   FLAG    the event is set           SLEEP   a waiter may sleep until it is
//!   epoch   how many times it was set
//! ```
//!
//! A waiter remembers the epoch. Its wait is over when FLAG is set, and also when the epoch is
//! another one: then the event was set since, even if it is clear again. Setting takes no lock. So
//! a signal handler can set an event whatever it has interrupted, even a `set` of the same event.
//!
//! (2^30 settings during one wait would look like none.)
//!
//! # Memory ordering
//! Setting is a Release, and seeing that the event was set is an Acquire. So a waiter whose wait is
//! over sees what was written before the event was set. Clearing is an Acquire too, also if its
//! exchange fails because another thread has cleared the event. So a thread that clears the event
//! and then checks what there is to do sees all that was written before the event was set. All that
//! decides about sleeping is in one word, so it needs no more.

use std::time::Duration;

use super::{Futex, Slept, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const FLAG: u32 = 1;
const SLEEP: u32 = 2;
const EPOCH: u32 = 4;

/// A view of the word.
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

    /// The epoch. A wait that begins now passes it to `passed` and to `sleep`.
    pub(crate) fn epoch(self) -> u32 {
        low(self.load()) / EPOCH
    }

    /// Whether the event was set at some moment since this epoch was loaded.
    pub(crate) fn passed(self, epoch: u32) -> bool {
        let now = low(self.load());
        now & FLAG != 0 || now / EPOCH != epoch && rule("event/a-set-counts-after-a-clear-too")
    }

    /// Sets the event, and wakes all waiters.
    #[inline]
    pub(crate) fn set(self, futex: &impl Futex) {
        let mut word = self.load();
        // If the event is set already, nobody sleeps. But a thread that clears the event must see
        // what this one has written (see "Memory ordering"), so this is a change of the word too.
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

    /// Clears the event.
    pub(crate) fn clear(self) {
        let mut word = self.load();
        while low(word) & FLAG != 0 {
            match self.change(word, low(word) & !FLAG) {
                Ok(()) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Sleeps once, unless the event was set since this epoch was loaded.
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

    /// One compare-exchange, from the whole word as it was seen. If it assumed that the upper half
    /// is 0, a process that writes there by mistake would make each change fail for ever.
    #[inline]
    fn change(self, from: u64, to: u32) -> Result<(), u64> {
        self.0.compare_exchange(from, to.into(), Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }
}

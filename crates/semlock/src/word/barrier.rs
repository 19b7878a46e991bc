//! What a barrier is doing, and the futex that its members sleep on.
//!
//! ```text
//!   63     32 31                  3   2     1     0
//!  ┌─────────┬─────────────────────┬───────┬───────┐
//!  │ 0       │ changes (29 bits)   │ SLEEP │ phase │   low half: the futex
//!  └─────────┴─────────────────────┴───────┴───────┘
//!   SLEEP   a member may sleep until it changes
//!
//!   FILLING ──the last one arrives──► ACTION ──it succeeds──► FILLING, all get through
//!      ▲  └──────────────┐              │ it fails, or its runner dies
//!      │ reset           ▼              ▼
//!      └───────────────  BROKEN ◄───────┘   a member times out or dies, or abort
//! ```
//!
//! A member that sleeps has nothing to do when the action begins. So that change wakes nobody, and
//! keeps SLEEP.
//!
//! The members stand in the waiters' table, one node for each. How many there are is counted there
//! and nowhere else. The phase changes under the barrier's own robust lock. A process that takes
//! this lock from a dead holder breaks the barrier, because a change may be half done.
//!
//! # Memory ordering
//! The lock orders the changes. A sleeper loads this word before it loads its node (Acquire). A
//! change of the nodes is followed by a change of this word (Release). So the sleeper sees the
//! change of the one or the other. SLEEP is in the word that changes: either the change finds it,
//! or the exchange that is to set it fails. That exchange needs no ordering, because a sleeper
//! loads the word again when it wakes; and who loads the word then sees what was before the last
//! change, as if there had been no exchange after it. The same holds for the beginning of the
//! action: no node has changed then.

use std::time::Duration;

use super::{Futex, Slept, low};
use crate::atomic::{AtomicU64, Ordering};

const PHASE: u32 = 0b11;
const SLEEP: u32 = 0b100;
const CHANGE: u32 = 0b1000;

/// What a barrier is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Filling,
    /// The last member runs the action.
    Action,
    Broken,
}

/// The word at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    word: u32,
    pub(crate) phase: Phase,
}

impl Snapshot {
    /// The word after a change, with nobody asleep.
    fn changed(self, to: Phase) -> u32 {
        (self.word & !(PHASE | SLEEP)).wrapping_add(CHANGE) | to as u32
    }
}

/// A view of the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases<'a>(pub(crate) &'a AtomicU64);

impl Phases<'_> {
    /// The phase now.
    pub(crate) fn see(self) -> Snapshot {
        let word = low(self.0.load(Ordering::Acquire));
        let phase = match word & PHASE {
            0 => Phase::Filling,
            1 => Phase::Action,
            _ => Phase::Broken,
        };
        Snapshot { word, phase }
    }

    /// Changes the phase, and wakes all sleepers. The caller holds the barrier's lock.
    pub(crate) fn change(self, futex: &impl Futex, to: Phase) {
        let changed = self.see().changed(to);
        let before = self.0.swap(changed.into(), Ordering::Release);
        if low(before) & SLEEP != 0 {
            futex.wake_all(self.0);
        }
    }

    /// Changes the phase to `Action`, and wakes nobody. The caller holds the barrier's lock.
    pub(crate) fn begin_action(self) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let seen = Snapshot { word: low(word), phase: Phase::Filling };
            let changed = seen.changed(Phase::Action) | seen.word & SLEEP;
            match self.exchange(word, changed) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// Sleeps once, unless the phase was changed since it was `seen`.
    pub(crate) fn sleep(self, futex: &impl Futex, seen: Snapshot, time: Option<Duration>) -> Slept {
        let asleep = seen.word | SLEEP;
        let mut word = self.0.load(Ordering::Relaxed);
        while low(word) != asleep {
            if low(word) != seen.word {
                return Slept::Woken;
            }
            match self.exchange(word, asleep) {
                Ok(_) => break,
                Err(other) => word = other,
            }
        }
        futex.wait(self.0, asleep, time)
    }

    /// From the whole word as it was seen: as in `event`.
    fn exchange(self, from: u64, to: u32) -> Result<u64, u64> {
        self.0.compare_exchange(from, to.into(), Ordering::Relaxed, Ordering::Relaxed)
    }
}

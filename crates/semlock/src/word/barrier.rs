//! What a barrier is doing, and the futex that its members sleep on.
//!
//! ```text
//!   63     32 31                  2 1     0
//!  ┌─────────┬─────────────────────┬───────┐
//!  │ 0       │ changes (30 bits)   │ phase │   low half: the futex
//!  └─────────┴─────────────────────┴───────┘
//!
//!   FILLING ──the last one arrives──► ACTION ──it succeeds──► FILLING, all get through
//!      ▲  └──────────────┐              │ it fails, or its runner dies
//!      │ reset           ▼              ▼
//!      └───────────────  BROKEN ◄───────┘   a member times out or dies, or abort
//! ```
//!
//! The members stand in the waiters' table, one node for each. How many there are is counted there
//! and nowhere else. The phase changes under the barrier's own robust lock. A process that takes
//! this lock from a dead holder breaks the barrier, because a change may be half done.
//!
//! # Memory ordering
//! The lock orders the changes. A sleeper loads this word before it loads its node (Acquire). A
//! change of the nodes is followed by a change of this word (Release). So the sleeper sees the
//! change of the one or the other.

use std::time::Duration;

use super::{Futex, Slept, low};
use crate::atomic::{AtomicU64, Ordering};

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

/// A view of the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases<'a>(pub(crate) &'a AtomicU64);

impl Phases<'_> {
    /// The phase now.
    pub(crate) fn see(self) -> Snapshot {
        let word = low(self.0.load(Ordering::Acquire));
        let phase = match word & 0b11 {
            0 => Phase::Filling,
            1 => Phase::Action,
            _ => Phase::Broken,
        };
        Snapshot { word, phase }
    }

    /// Changes the phase, and wakes all sleepers. The caller holds the barrier's lock.
    pub(crate) fn change(self, futex: &impl Futex, to: Phase) {
        let changed = (self.see().word & !0b11).wrapping_add(0b100) | to as u32;
        self.0.store(changed.into(), Ordering::Release);
        futex.wake_all(self.0);
    }

    /// Sleeps once, unless the phase was changed since it was `seen`.
    pub(crate) fn sleep(self, futex: &impl Futex, seen: Snapshot, time: Option<Duration>) -> Slept {
        futex.wait(self.0, seen.word, time)
    }
}

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
//!      └───────────────  BROKEN ◄───────┘   a member times out or dies, abort
//! ```
//!
//! Who is in stands in the waiters' table, a node for each member; how many are in is counted there, and
//! nowhere else. Phases change under the barrier's own robust lock. Whoever finds that the lock's holder
//! died breaks the barrier, because a change may be half-done.
//!
//! # Memory ordering
//! The lock orders changes. A sleeper reads this word before it looks at its node, and a change of
//! nodes is followed by a change of this word (Release, Acquire): it sees the one or the other.

use std::time::Duration;

use super::{Futex, Slept, low};
use crate::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Filling,
    /// The last member runs the action.
    Action,
    Broken,
}

/// A phase at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    word: u32,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases<'a>(pub(crate) &'a AtomicU64);

impl Phases<'_> {
    pub(crate) fn see(self) -> Snapshot {
        let word = low(self.0.load(Ordering::Acquire));
        let phase = match word & 0b11 {
            0 => Phase::Filling,
            1 => Phase::Action,
            _ => Phase::Broken,
        };
        Snapshot { word, phase }
    }

    /// Goes over to a phase, and wakes all who sleep; only with the barrier's lock.
    pub(crate) fn change(self, futex: &impl Futex, to: Phase) {
        let changed = (self.see().word & !0b11).wrapping_add(0b100) | to as u32;
        self.0.store(changed.into(), Ordering::Release);
        futex.wake_all(self.0);
    }

    /// Sleeps once, unless something has changed since.
    pub(crate) fn sleep(self, futex: &impl Futex, seen: Snapshot, time: Option<Duration>) -> Slept {
        futex.wait(self.0, seen.word, time)
    }
}

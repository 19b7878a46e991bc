//! An eventcount: a waiter sleeps on it until something is free.
//!
//! ```text
//!   63                  35      34         33        32    31                  0
//!  ┌──────────────────────┬──────────┬─────────┬─────────┬─────────────────────┐
//!  │ prepared (29 bits)   │ NO_PLACE │ IN_TURN │ WAITERS │ sequence: the futex │
//!  └──────────────────────┴──────────┴─────────┴─────────┴─────────────────────┘
//!   prepared   how many times waiters have prepared to wait
//!   NO_PLACE   1: a waiter without a place may sleep here
//!   IN_TURN    1: a waiter is starving, and releases are in turn
//!   WAITERS    0: no waiter sleeps, and none is about to      1: a waiter may
//!   sequence   how many wake-ups releasers have sent
//! ```
//!
//! A waiter *prepares to wait*: in one step it sets `WAITERS` and reads the sequence. Then it tries
//! once more to get what it wants, and sleeps. A waiter that has a place sleeps there (see
//! `places`). A waiter without a place sleeps here, as long as the sequence is the one that it
//! read. A releaser frees something and then checks `WAITERS`. Only if the bit is set, the releaser
//! advances the sequence and wakes one waiter.
//!
//! A waiter that has waited for too long is *starving*. While a waiter is starving, releases are
//! *in turn*: see `turns`. A starving waiter sets `IN_TURN` when it prepares to wait. A waiter that
//! gets a permit in turn and is not starving clears the bit: all other waiters came later, so none
//! of them is starving either. A release that finds no waiter to serve clears it too. A releaser
//! that clears `WAITERS` leaves `IN_TURN` set, because a starving waiter that is awake at this
//! moment has not prepared to wait again yet.
//!
//! `WAITERS` does not stay set. A releaser that tries to wake a waiter and finds nobody asleep
//! clears it, unless a waiter has prepared to wait meanwhile. A waiter that cancels its wait and is
//! the only one clears all three flags. So sleepers that were killed cost one system call, once.
//! (Some systems do not tell whether a wake-up has reached anybody. There one wake-up in 64 is for
//! all, and after it no sleeper is left. So killed sleepers cost up to 64 system calls.)
//!
//! A wake-up is lost with a process that is killed between freeing and waking, or after it was
//! woken and before it took the permit. So no sleep on an eventcount may be endless.
//!
//! # Memory ordering
//! The releaser stores to *its* word and then loads the eventcount. The waiter stores to the
//! eventcount and then loads the *releaser's* word. One of the two must see the other's store, or
//! the waiter sleeps beside a free permit. So these four accesses are `SeqCst`. In their single
//! order one of the two stores comes second, and the load that follows it sees the first store.
//! Preparing reads the sequence in the same step that sets `WAITERS`. So a releaser that sees the
//! bit advances the sequence after the waiter read it, and the futex notices the difference.
//!
//! All other changes of the eventcount are Relaxed. Each is an exchange from a value that the
//! caller has seen. So a releaser that loads what such an exchange left has loaded a value from
//! before any later `prepare_wait`, and the argument above covers that case. The kernel orders
//! these changes before it looks for sleepers.

use std::time::Duration;

use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const WAITERS: u64 = 1 << 32;
const IN_TURN: u64 = 1 << 33;
const NO_PLACE: u64 = 1 << 34;
const PREPARED: u64 = 1 << 35;
/// Where the system does not tell whether a wake-up has reached anybody, one wake-up in so many is
/// for all. After it no earlier sleeper is left.
pub(super) const WAKE_ALL_EVERY: u32 = 64;

/// A view of the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventCount<'a>(pub(crate) &'a AtomicU64);

/// What a waiter tells of itself when it prepares to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaiterFlags {
    /// It has a place, and sleeps there.
    pub(crate) has_place: bool,
    /// It has waited for too long.
    pub(crate) is_starving: bool,
}

/// What a waiter gets when it has prepared to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitKey {
    /// The eventcount after that step.
    word: u64,
    /// No other waiter has prepared to wait since `WAITERS` was last clear.
    is_alone: bool,
}

/// The eventcount at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot(u64);

impl EventCount<'_> {
    /// Sets `WAITERS`, because the caller is about to sleep. `before` is the key that the caller
    /// got when it last prepared in the same wait, if it has.
    pub(crate) fn prepare_wait(self, waiter: WaiterFlags, before: Option<WaitKey>) -> WaitKey {
        let mut flags = WAITERS;
        if !waiter.has_place {
            flags |= NO_PLACE;
        }
        if waiter.is_starving && rule("turns/a-starving-waiter-starts-releases-in-turn") {
            flags |= IN_TURN;
        }
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let after = seen.wrapping_add(PREPARED) | flags;
            match self.0.compare_exchange(seen, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    let is_alone = seen & WAITERS == 0
                        || before.is_some_and(|key| key.is_alone && same_prepared(key.word, seen));
                    return WaitKey { word: after, is_alone };
                }
                Err(other) => seen = other,
            }
        }
    }

    /// Whether releases are in turn: each permit is freed for the first waiter.
    #[inline]
    pub(crate) fn is_in_turn(self) -> bool {
        self.0.load(Ordering::Relaxed) & IN_TURN != 0
    }

    /// Whether a waiter sleeps, or is about to, as far as the caller's own last store is before it
    /// in the single order of `SeqCst`.
    #[inline]
    pub(crate) fn may_have_sleepers(self) -> bool {
        self.0.load(Ordering::SeqCst) & WAITERS != 0
    }

    /// The eventcount, for a caller that then finds out whether a waiter is starving.
    pub(crate) fn snapshot(self) -> Snapshot {
        Snapshot(self.0.load(Ordering::SeqCst))
    }

    /// Ends the releases in turn, because no waiter is starving. The caller took `seen` before it
    /// found that out. If the eventcount has changed since, this does nothing: a waiter that has
    /// prepared to wait since may be starving.
    pub(crate) fn end_turns(self, seen: Snapshot) {
        self.clear(seen.0, IN_TURN);
    }

    /// Sleeps, unless a releaser has advanced the sequence since the waiter prepared. Only for a
    /// waiter that has no place.
    pub(crate) fn sleep(self, futex: &impl Futex, key: WaitKey, time: Option<Duration>) -> Slept {
        futex.wait(self.0, low(key.word), time)
    }

    /// Ends the caller's wait, and clears the flags if no other waiter needs them. True if others
    /// may sleep.
    pub(crate) fn cancel_wait(self, key: WaitKey) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let alone = (key.is_alone || !rule("eventcount/an-earlier-waiter-keeps-the-waiters-bit"))
            && (same_prepared(key.word, seen)
                || !rule("eventcount/a-later-waiter-keeps-the-waiters-bit"));
        !(alone && self.clear(seen, WAITERS | IN_TURN | NO_PLACE))
    }

    /// Wakes one waiter, after something was freed. `wake_first` wakes the first waiter that has a
    /// place. If it finds none, this wakes a waiter that sleeps here.
    #[inline]
    pub(crate) fn wake_one(self, futex: &impl Futex, wake_first: impl FnOnce() -> bool) {
        let seen = self.0.load(Ordering::SeqCst);
        if seen & WAITERS != 0 {
            self.wake_one_slow(futex, seen, wake_first);
        }
    }

    #[cold]
    fn wake_one_slow(self, futex: &impl Futex, mut seen: u64, wake_first: impl FnOnce() -> bool) {
        let step = u32::from(rule("eventcount/a-releaser-advances-the-sequence"));
        let moved = loop {
            // Only the low half changes: after 2^32 wake-ups the sequence starts at 0 again.
            let moved = seen & !u64::from(u32::MAX) | u64::from(low(seen).wrapping_add(step));
            match self.0.compare_exchange(seen, moved, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break moved,
                Err(other) if other & WAITERS == 0 => return,
                Err(other) => seen = other,
            }
        };
        if wake_first() {
            return;
        }
        let nobody_sleeps = moved & NO_PLACE == 0
            || match futex.wake_one(self.0) {
                Woke::One => false,
                Woke::Nobody => true,
                Woke::Unknown => {
                    let all = low(moved).is_multiple_of(WAKE_ALL_EVERY);
                    if all {
                        futex.wake_all(self.0);
                    }
                    all
                }
            };
        if nobody_sleeps && rule("eventcount/the-waiters-bit-is-cleared-when-nobody-sleeps") {
            // A waiter that has prepared since may still go to sleep, and needs the bit.
            let nobody_since = rule("eventcount/a-new-waiter-keeps-the-waiters-bit");
            let seen = if nobody_since { moved } else { self.0.load(Ordering::Relaxed) };
            self.clear(seen, WAITERS | NO_PLACE);
        }
    }

    /// Clears these flags. False if the eventcount has changed since it was seen.
    fn clear(self, seen: u64, flags: u64) -> bool {
        self.0.compare_exchange(seen, seen & !flags, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Whether no waiter has prepared to wait between the two, and `WAITERS` is the same.
fn same_prepared(a: u64, b: u64) -> bool {
    const SAME: u64 = !(PREPARED - 1) | WAITERS;
    a & SAME == b & SAME
}

//! Sleeping until something is free.
//!
//! ```text
//!   63                      35     34         33      32   31                  0
//!  ┌──────────────────────────┬──────────┬─────────┬──────┬─────────────────────┐
//!  │ announcements (29 bits)  │ no place │ in turn │ mark │ sequence: the futex │
//!  └──────────────────────────┴──────────┴─────────┴──────┴─────────────────────┘
//!   mark       0: nobody sleeps, and nobody is about to      1: somebody may
//!   in turn    somebody has waited for too long: what is freed is for the first
//!   no place   somebody without a place may sleep here
//! ```
//!
//! A waiter *announces* itself (sets the mark and reads the sequence, in one step), tries once more,
//! and sleeps: in its place (see `places`), or, without one, here while the sequence is what it was. One who frees
//! something looks at the mark, and only if it is set moves the sequence on and wakes one.
//!
//! *In turn* is how it goes while somebody has waited for too long: see `Reservation`. Such a waiter says so as it announces itself; the
//! first to be served in turn that has not waited for so long ends it, because all others came later; and so does a release that finds
//! nobody. Taking the mark away does not end it: those who are awake just now have not announced themselves again yet.
//!
//! The mark clears itself: who wakes and finds nobody asleep takes it away, if nobody has announced
//! itself meanwhile, and so does a waiter that leaves and was the only one. Sleepers that are killed
//! cost one call of the kernel, once. (Or some dozens, where the kernel does not tell whether anybody sleeps:
//! there all are woken now and then, after which nobody does.)
//!
//! What can be lost is a wake-up that was on its way when a process was killed: between freeing and
//! waking, or after it was woken and before it took. So no sleep on a gate may be endless.
//!
//! # Memory ordering
//! The one who frees stores to *its* word and then loads the gate; the waiter stores to the gate and then
//! loads the *other's* word. One of the two must see the other, or the waiter sleeps beside a free
//! permit. So these four accesses are `SeqCst`: whichever store comes second in their one order is
//! followed by a load that sees the first. Preparing reads the sequence in the same step that sets
//! the mark: one who frees and saw that mark moves the sequence on after it was read, and the futex
//! compares them.
//!
//! All other changes of the gate are Relaxed. They are exchanges from a value that was seen, so that one
//! who frees and loads what they left has loaded a value from before any later announcement, which
//! is what the argument above is about; and the kernel orders them before looking for sleepers.

use std::time::Duration;

use super::{Futex, Slept, Woke, low};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const WAITERS: u64 = 1 << 32;
const IN_TURN: u64 = 1 << 33;
const NO_PLACE: u64 = 1 << 34;
const PREPARED: u64 = 1 << 35;
/// Where nobody can tell whether somebody sleeps, one wake-up in so many is for all: then nobody does who came before.
pub(super) const ALL_EACH: u32 = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct EventCount<'a>(pub(crate) &'a AtomicU64);

/// What a waiter says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaiterFlags {
    /// It has a place, where it sleeps.
    pub(crate) has_place: bool,
    /// It has waited for too long.
    pub(crate) is_starving: bool,
}

/// That a waiter has announced itself, and what it saw when it did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitKey {
    word: u64,
    /// Nobody else has announced itself since the mark was last clear.
    is_alone: bool,
}

/// The gate, as it was at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot(u64);

impl EventCount<'_> {
    /// Says that the caller is about to sleep; `before` is what it has announced already, if it has.
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

    /// Whether what is freed is for the first of those who wait.
    #[inline]
    pub(crate) fn is_in_turn(self) -> bool {
        self.0.load(Ordering::Relaxed) & IN_TURN != 0
    }

    /// What stands here, for one who finds out then whether somebody has waited for too long.
    pub(crate) fn snapshot(self) -> Snapshot {
        Snapshot(self.0.load(Ordering::SeqCst))
    }

    /// Lets those who come by be faster again, because nobody waits who has waited for too long. `seen` is from before that was known:
    /// whoever has announced itself since may have.
    pub(crate) fn end_turns(self, seen: Snapshot) {
        self.clear(seen.0, IN_TURN);
    }

    /// Sleeps, unless something was freed since the announcement; for one that has no place.
    pub(crate) fn sleep(self, futex: &impl Futex, key: WaitKey, time: Option<Duration>) -> Slept {
        futex.wait(self.0, low(key.word), time)
    }

    /// Takes an announcement back, if nobody else sleeps. True if others may.
    pub(crate) fn cancel_wait(self, key: WaitKey) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let alone = (key.is_alone || !rule("eventcount/an-earlier-waiter-keeps-the-waiters-bit"))
            && (same_prepared(key.word, seen)
                || !rule("eventcount/a-later-waiter-keeps-the-waiters-bit"));
        !(alone && self.clear(seen, WAITERS | IN_TURN | NO_PLACE))
    }

    /// Wakes one who sleeps, after something was freed: with `wake_first` one who has a place, and where there is none
    /// one who sleeps here.
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
            // Only the low half counts on: the sequence begins again after 2^32.
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
                    let all = low(moved).is_multiple_of(ALL_EACH);
                    if all {
                        futex.wake_all(self.0);
                    }
                    all
                }
            };
        if nobody_sleeps && rule("eventcount/the-waiters-bit-is-cleared-when-nobody-sleeps") {
            // Whoever has announced itself since may lie down yet, and needs it.
            let nobody_since = rule("eventcount/a-new-waiter-keeps-the-waiters-bit");
            let seen = if nobody_since { moved } else { self.0.load(Ordering::Relaxed) };
            self.clear(seen, WAITERS | NO_PLACE);
        }
    }

    /// False if anything has happened since that was seen.
    fn clear(self, seen: u64, flags: u64) -> bool {
        self.0.compare_exchange(seen, seen & !flags, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn same_prepared(a: u64, b: u64) -> bool {
    const SAME: u64 = !(PREPARED - 1) | WAITERS;
    a & SAME == b & SAME
}

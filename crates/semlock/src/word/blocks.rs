//! Many permits in blocks, and hints in which block a free one may be.
//!
//! ```text
//!   permits   64 to a block; the last block may have fewer
//!   hints     a word for 32 blocks; none if there is one block only, which is always searched
//!
//!   63                    32 31                     0
//!  ┌────────────────────────┬────────────────────────┐
//!  │ releases, counted      │ one bit for each block │
//!  └────────────────────────┴────────────────────────┘
//!   1: a permit of the block may be free or reserved
//!   0: all permits of it are held, or a release is not over yet
//!
//!  releaser                         acquirer
//!  1  frees the permit              1  loads the hint
//!  2  sets the bit, and counts      2  searches the block: takes a permit, or sees all held
//!  3  checks whom to wake           3  clears the bit, if no release was counted since 1
//! ```
//!
//! A bit that is set wrongly costs one search of a block. A bit that is cleared wrongly would hide
//! a free permit. That cannot happen: such a permit was freed after the acquirer saw it held, and
//! its releaser counts after it has freed the permit. If the releaser counts before the acquirer
//! clears the bit, the acquirer does not clear it. If the releaser counts after that, it sets the
//! bit again. So after a release is over, the bit is set, unless an acquirer has seen all permits
//! of the block held since. An acquirer changes a hint only to clear a bit.
//!
//! (Without the count, an acquirer could search the block once more after it has cleared the bit.
//! But in between, others would find nothing though a permit is free. A try would fail, and a
//! waiter would sleep, for no reason.)
//!
//! A releaser that is killed between 1 and 2 leaves a free permit without a hint. A process that
//! checks all permits for dead holders sees that permit, and sets the bit. So the permit is lost
//! for as long as one that a dead process holds.
//!
//! The count wraps around after 2^32 releases. An acquirer would have to be stopped for exactly
//! that many.
//!
//! # Memory ordering
//! A waiter finds a free permit only if the hint is set too. So for the eventcount a hint is what
//! the permit itself is (see there). Setting a bit and loading the hint to find a set one are
//! `SeqCst`. The releaser checks the eventcount after 2, and the waiter prepares to wait before 1.
//!
//! An acquirer that has loaded a hint (Acquire) sees the freeing of all permits whose releases the
//! hint counts (Release). It compares that count when it clears the bit. Clearing tells nobody
//! anything. As an exchange it keeps what releasers have released.

use super::permit::{Permit, State};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// Permits in a block. A model has fewer.
pub(crate) const BLOCK: usize = if cfg!(loom) { 1 } else { 64 };
/// Blocks that one word of hints covers.
const GROUP: usize = 32;

const BITS: u64 = (1 << GROUP) - 1;
const RELEASE: u64 = 1 << GROUP;

/// A robust semaphore's permits and hints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    pub(crate) permits: &'a [AtomicU64],
    /// As many as [`Blocks::hints`] says.
    pub(crate) hints: &'a [AtomicU64],
}

/// How a search of a block ended.
enum Search<T> {
    Taken(usize, T),
    AllHeld,
    /// A permit was not held, but it is reserved for another waiter, or another acquirer was
    /// faster.
    InVain,
}

impl<'a> Blocks<'a> {
    /// How many words of hints this many permits need.
    pub(crate) const fn hints(permits: usize) -> usize {
        if permits <= BLOCK { 0 } else { permits.div_ceil(BLOCK * GROUP) }
    }

    /// Makes all permits free, before another process has them.
    pub(crate) fn free_all(self) {
        for permit in self.permits {
            permit.store(0, Ordering::Relaxed);
        }
        for hint in self.hints {
            hint.store(BITS, Ordering::Release);
        }
    }

    /// Searches from the permit `from` on for one that is not held and that `take` takes. Returns
    /// its index and what `take` returned.
    #[inline]
    pub(crate) fn find<T>(
        self,
        from: usize,
        mut take: impl FnMut(Permit<'a>) -> Option<T>,
    ) -> Option<(usize, T)> {
        if self.hints.is_empty() {
            return match self.search(0, from, &mut take) {
                Search::Taken(index, taken) => Some((index, taken)),
                Search::AllHeld | Search::InVain => None,
            };
        }
        self.find_by_hints(from, take)
    }

    fn find_by_hints<T>(
        self,
        from: usize,
        mut take: impl FnMut(Permit<'a>) -> Option<T>,
    ) -> Option<(usize, T)> {
        let (first, first_bit) = (from / BLOCK / GROUP, from / BLOCK % GROUP);
        let count = self.hints.len();
        // The first group comes twice: at first from the first block on, and at last up to it.
        for turn in 0..=count {
            let group = (first + turn) % count;
            let hint = &self.hints[group];
            let from_first = BITS << first_bit;
            let wanted = match turn {
                0 => from_first,
                _ if turn == count => !from_first,
                _ => BITS,
            };
            let mut left = hint.load(Ordering::SeqCst) & BITS & wanted;
            while left != 0 {
                let seen = hint.load(Ordering::Acquire);
                let bit = left & left.wrapping_neg();
                left &= !bit;
                match self.search(group * GROUP + bit.ilog2() as usize, from, &mut take) {
                    Search::Taken(index, taken) => return Some((index, taken)),
                    Search::AllHeld => clear(hint, bit, seen),
                    Search::InVain => {}
                }
            }
        }
        None
    }

    /// Searches one block.
    #[inline]
    fn search<T>(
        self,
        block: usize,
        from: usize,
        take: &mut impl FnMut(Permit<'a>) -> Option<T>,
    ) -> Search<T> {
        let begin = (block * BLOCK).min(self.permits.len());
        let end = (begin + BLOCK).min(self.permits.len());
        // Each process begins at another permit, so that they do not all meet at the first one.
        let middle = begin + (from % BLOCK).min(end - begin);
        let mut all_held = true;
        for index in (middle..end).chain(begin..middle) {
            let permit = Permit(&self.permits[index]);
            if matches!(permit.state(), State::Held(_)) {
                continue;
            }
            if let Some(taken) = take(permit) {
                return Search::Taken(index, taken);
            }
            // A reserved permit is free for another waiter, and soon for all.
            all_held &= !rule("blocks/a-reserved-permit-keeps-its-hint");
        }
        if all_held { Search::AllHeld } else { Search::InVain }
    }

    /// Sets the hint of a permit, and counts the release. To be called after the permit was freed
    /// or reserved, and before a waiter is woken.
    #[inline]
    pub(crate) fn set_hint(self, index: usize) {
        let Some((hint, bit)) = self.hint(index) else { return };
        let mut seen = hint.load(Ordering::Relaxed);
        while let Err(now) = hint.compare_exchange(
            seen,
            (seen | bit).wrapping_add(RELEASE),
            Ordering::SeqCst,
            Ordering::Relaxed,
        ) {
            seen = now;
        }
    }

    /// Sets the hint of a permit that is not held, if it is not set: its releaser was killed before
    /// it could. True if it was not set.
    pub(crate) fn set_lost_hint(self, index: usize) -> bool {
        let is_lost =
            self.hint(index).is_some_and(|(hint, bit)| hint.load(Ordering::Relaxed) & bit == 0)
                && rule("blocks/a-lost-hint-is-set-again");
        if is_lost {
            self.set_hint(index);
        }
        is_lost
    }

    fn hint(self, index: usize) -> Option<(&'a AtomicU64, u64)> {
        let block = index / BLOCK;
        Some((self.hints.get(block / GROUP)?, 1 << (block % GROUP)))
    }
}

/// Clears a bit, unless a release was counted since the hint was `seen`.
fn clear(hint: &AtomicU64, bit: u64, mut seen: u64) {
    let releases = seen & !BITS;
    while seen & !BITS == releases || !rule("blocks/no-hint-is-cleared-after-a-release") {
        match hint.compare_exchange(seen, seen & !bit, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
}

/// The permits that the calling process holds: one bit for each, in memory of its own.
///
/// # Memory ordering
/// The threads of a process find their permits by these bits. Setting a bit is a Release and taking
/// it out an Acquire, so that a thread frees a permit after another thread has taken it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mine<'a>(pub(crate) &'a [AtomicU64]);

const BITS_OF_MINE: usize = u64::BITS as usize;

impl Mine<'_> {
    /// How many words this many permits need.
    pub(crate) const fn words(permits: usize) -> usize {
        permits.div_ceil(BITS_OF_MINE)
    }

    /// Sets the bit of a permit that the process has taken.
    pub(crate) fn add(self, index: usize) {
        let word = &self.0[index / BITS_OF_MINE];
        let mut seen = word.load(Ordering::Relaxed);
        while let Err(now) = word.compare_exchange(
            seen,
            seen | 1 << (index % BITS_OF_MINE),
            Ordering::Release,
            Ordering::Relaxed,
        ) {
            seen = now;
        }
    }

    /// Takes one permit out, near this one if possible. `None` if the process has none.
    pub(crate) fn remove_one(self, near: usize) -> Option<usize> {
        let near = (near / BITS_OF_MINE + 1).min(self.0.len());
        // Downwards, because `find` searches upwards: the last permit taken is the first to be
        // freed.
        let (below, above) = self.0.split_at(near);
        let numbers = (0..near).rev().chain((near..self.0.len()).rev());
        for (number, word) in numbers.zip(below.iter().rev().chain(above.iter().rev())) {
            let mut seen = word.load(Ordering::Relaxed);
            while let Some(bit) = seen.checked_ilog2() {
                let exchanged = word.compare_exchange(
                    seen,
                    seen & !(1 << bit),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                match exchanged {
                    Ok(_) => return Some(number * BITS_OF_MINE + bit as usize),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::permit::{Process, Taken};
    use super::super::reservation::{Acquirer, Reservation};
    use super::*;

    const ME: Process = Process::new(7, 1, false);
    const OTHER: Process = Process::new(8, 1, false);
    const NOBODY: Acquirer = Acquirer { ticket: None, clock: || 0 };

    fn with_blocks(permits: usize, test: impl FnOnce(Blocks<'_>)) {
        let words: Vec<_> =
            (0..permits + Blocks::hints(permits)).map(|_| AtomicU64::new(7)).collect();
        let (permits, hints) = words.split_at(permits);
        let blocks = Blocks { permits, hints };
        blocks.free_all();
        test(blocks);
    }

    fn take(blocks: Blocks<'_>, from: usize) -> Option<usize> {
        let found = blocks.find(from, |permit| permit.try_take(ME, NOBODY));
        found.map(|(index, taken)| {
            assert_eq!(taken, Taken::Clean);
            index
        })
    }

    fn hints(blocks: Blocks<'_>) -> u32 {
        blocks.hints.iter().map(|hint| (hint.load(Ordering::Relaxed) & BITS).count_ones()).sum()
    }

    #[test]
    fn each_permit_is_found_once_wherever_the_search_begins() {
        for permits in [0_usize, 1, 63, 64, 65, 128, 1_000, 2_048, 2_049, 5_000] {
            for from in [0, 1, 64, permits / 2, permits.saturating_sub(1)] {
                with_blocks(permits, |blocks| {
                    let mut found: Vec<_> =
                        std::iter::from_fn(|| take(blocks, from.min(permits))).collect();
                    found.sort_unstable();
                    assert!(found.into_iter().eq(0..permits), "{permits} from {from}");
                    assert_eq!(hints(blocks), 0);
                });
            }
        }
    }

    #[test]
    fn if_all_permits_are_held_only_the_hints_are_searched() {
        with_blocks(100_000, |blocks| {
            while take(blocks, 0).is_some() {}
            let mut tried = 0;
            assert!(
                blocks
                    .find(77, |_| {
                        tried += 1;
                        None::<()>
                    })
                    .is_none()
            );
            assert_eq!((tried, hints(blocks)), (0, 0));
            assert!(Permit(&blocks.permits[99_999]).free_if_held_by(ME));
            blocks.set_hint(99_999);
            assert_eq!(hints(blocks), 1);
            assert_eq!(take(blocks, 0), Some(99_999));
        });
    }

    #[test]
    fn a_permit_that_is_reserved_for_another_keeps_its_hint() {
        with_blocks(200, |blocks| {
            while take(blocks, 0).is_some() {}
            let reserved = Reservation::new(3, 0);
            assert!(Permit(&blocks.permits[150]).reserve_if_held_by(ME, Some(reserved)));
            blocks.set_hint(150);
            assert_eq!(take(blocks, 0), None);
            let first = Acquirer { ticket: Some(3), ..NOBODY };
            let found = blocks.find(0, |permit| permit.try_take(OTHER, first));
            assert_eq!(found, Some((150, Taken::Clean)));
        });
    }

    #[test]
    fn a_lost_hint_is_set_again() {
        with_blocks(200, |blocks| {
            while take(blocks, 0).is_some() {}
            assert!(Permit(&blocks.permits[70]).free_if_held_by(ME));
            assert_eq!(take(blocks, 0), None);
            assert!(blocks.set_lost_hint(70) && !blocks.set_lost_hint(71));
            assert_eq!(take(blocks, 0), Some(70));
        });
    }

    #[test]
    fn the_permits_of_a_process_are_found_near_and_far() {
        let words: Vec<_> = (0..Mine::words(1_000)).map(|_| AtomicU64::new(0)).collect();
        let mine = Mine(&words);
        assert_eq!(mine.remove_one(0), None);
        for index in [0, 63, 64, 130, 999] {
            mine.add(index);
        }
        assert_eq!(mine.remove_one(130), Some(130));
        assert_eq!(mine.remove_one(129), Some(64));
        assert_eq!(mine.remove_one(999), Some(999));
        assert_eq!(mine.remove_one(999), Some(63));
        assert_eq!(mine.remove_one(500), Some(0));
        assert_eq!(mine.remove_one(500), None);
    }
}

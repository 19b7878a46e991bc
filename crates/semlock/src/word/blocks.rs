//! Many permits, in blocks, and where among them a free one may be.
//!
//! ```text
//!   permits   64 each to a block; the last block may have fewer
//!   hints     a word for 32 blocks; none where there is one block only, which is always looked through
//!
//!   63                    32 31                     0
//!  ┌────────────────────────┬────────────────────────┐
//!  │ releases, counted      │ one bit for each block │   1: a permit of it may be free or reserved
//!  └────────────────────────┴────────────────────────┘   0: all are held, or a release is not over yet
//!
//!  releaser                         taker
//!  1  frees the permit              1  reads the hint
//!  2  sets the bit, and counts      2  looks through the block: takes a permit, or sees that all are held
//!  3  looks whom to wake            3  clears the bit, if nobody has counted since 1
//! ```
//!
//! A bit that is set wrongly costs one look through a block. One that is cleared wrongly would hide a free permit; that
//! needs a permit that was freed after the taker saw it held. Its releaser counts after it freed it. Either it counts before the taker clears,
//! and the taker does not; or it counts after that, and sets the bit again. So whoever looks after a release is over finds the bit
//! set, unless somebody has seen all permits of the block held since. A taker changes no hint, but to clear it.
//!
//! (A bit without the count would do with one look more after it was cleared. But in between, others would find nothing
//! though a permit is free: a try would fail, and a waiter sleep, for no reason.)
//!
//! A releaser that is killed between 1 and 2 leaves a free permit without a hint. Who looks through all permits for holders that
//! died sees it, and sets the bit: so it is lost for as long as one that a dead process holds.
//!
//! The count turns over after 2^32 releases; a taker would have to be stopped for exactly so many.
//!
//! # Memory ordering
//! Permits are free for a waiter when the hint says so too. So to the gate a hint is what the permit itself is (see there): setting it
//! and looking for one that is set are `SeqCst`, the releaser looks at the gate after 2, and the waiter announces itself before 1. A
//! taker sees all permits freed whose releases the hint counts that it has read (Acquire, Release): that is what it compares when it
//! clears the bit. Clearing tells nobody anything, and as an exchange keeps what releasers have told.

use super::permit::{Permit, State};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// Permits of a block. A model has fewer.
pub(crate) const BLOCK: usize = if cfg!(loom) { 1 } else { 64 };
/// Blocks that one word has hints of.
const GROUP: usize = 32;

const BITS: u64 = (1 << GROUP) - 1;
const RELEASE: u64 = 1 << GROUP;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks<'a> {
    pub(crate) permits: &'a [AtomicU64],
    /// As many as [`Blocks::hints`] says.
    pub(crate) hints: &'a [AtomicU64],
}

/// What came of a look through a block.
enum Looked<T> {
    Taken(usize, T),
    AllHeld,
    /// Some are free, but not for this taker; or somebody was faster.
    InVain,
}

impl<'a> Blocks<'a> {
    /// How many words of hints so many permits need.
    pub(crate) const fn hints(permits: usize) -> usize {
        if permits <= BLOCK { 0 } else { permits.div_ceil(BLOCK * GROUP) }
    }

    /// Makes them all free, while nobody else has them.
    pub(crate) fn free_all(self) {
        for permit in self.permits {
            permit.store(0, Ordering::Relaxed);
        }
        for hint in self.hints {
            hint.store(BITS, Ordering::Release);
        }
    }

    /// The first permit, from this one on, that is not held and that `take` takes; with what it says to it.
    #[inline]
    pub(crate) fn find<T>(
        self,
        from: usize,
        mut take: impl FnMut(Permit<'a>) -> Option<T>,
    ) -> Option<(usize, T)> {
        if self.hints.is_empty() {
            return match self.look_through(0, from, &mut take) {
                Looked::Taken(index, taken) => Some((index, taken)),
                Looked::AllHeld | Looked::InVain => None,
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
        // The first group comes twice: from the first block on, and at the end up to it.
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
                match self.look_through(group * GROUP + bit.ilog2() as usize, from, &mut take) {
                    Looked::Taken(index, taken) => return Some((index, taken)),
                    Looked::AllHeld => clear(hint, bit, seen),
                    Looked::InVain => {}
                }
            }
        }
        None
    }

    #[inline]
    fn look_through<T>(
        self,
        block: usize,
        from: usize,
        take: &mut impl FnMut(Permit<'a>) -> Option<T>,
    ) -> Looked<T> {
        let begin = (block * BLOCK).min(self.permits.len());
        let end = (begin + BLOCK).min(self.permits.len());
        // Each process begins elsewhere, so that they do not meet at the first one.
        let middle = begin + (from % BLOCK).min(end - begin);
        let mut all_held = true;
        for index in (middle..end).chain(begin..middle) {
            let permit = Permit(&self.permits[index]);
            if matches!(permit.state(), State::Held(_)) {
                continue;
            }
            if let Some(taken) = take(permit) {
                return Looked::Taken(index, taken);
            }
            // What is reserved is free for somebody else, and soon for all.
            all_held &= !rule("blocks/a-reserved-permit-keeps-its-hint");
        }
        if all_held { Looked::AllHeld } else { Looked::InVain }
    }

    /// To be called when a permit was freed or reserved, before anybody is woken.
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

    /// Notes a permit that is not held, if whoever freed it was killed before that; tells whether.
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

/// Clears a bit, unless a release was counted since the hint was seen.
fn clear(hint: &AtomicU64, bit: u64, mut seen: u64) {
    let releases = seen & !BITS;
    while seen & !BITS == releases || !rule("blocks/no-hint-is-cleared-after-a-release") {
        match hint.compare_exchange(seen, seen & !bit, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => seen = now,
        }
    }
}

/// Which permits the calling process holds: one bit for each, in memory of its own.
///
/// # Memory ordering
/// The threads of a process find their permits by it: taking a bit is an Acquire and setting it a Release, so that who
/// frees a permit does so after it was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mine<'a>(pub(crate) &'a [AtomicU64]);

const BITS_OF_MINE: usize = u64::BITS as usize;

impl Mine<'_> {
    /// How many words so many permits need.
    pub(crate) const fn words(permits: usize) -> usize {
        permits.div_ceil(BITS_OF_MINE)
    }

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

    /// Takes one out, near this one if there is; `None` if no thread has added one that is still there.
    pub(crate) fn remove_one(self, near: usize) -> Option<usize> {
        let near = (near / BITS_OF_MINE + 1).min(self.0.len());
        // Downwards, because permits are looked for upwards: the last that was taken is the first to be given back.
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
    fn each_permit_is_found_once_from_wherever_one_begins() {
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
    fn where_all_are_held_only_the_hints_are_looked_at() {
        with_blocks(100_000, |blocks| {
            while take(blocks, 0).is_some() {}
            let mut looked = 0;
            assert!(
                blocks
                    .find(77, |_| {
                        looked += 1;
                        None::<()>
                    })
                    .is_none()
            );
            assert_eq!((looked, hints(blocks)), (0, 0));
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
    fn a_hint_that_was_lost_is_set_again() {
        with_blocks(200, |blocks| {
            while take(blocks, 0).is_some() {}
            assert!(Permit(&blocks.permits[70]).free_if_held_by(ME));
            assert_eq!(take(blocks, 0), None);
            assert!(blocks.set_lost_hint(70) && !blocks.set_lost_hint(71));
            assert_eq!(take(blocks, 0), Some(70));
        });
    }

    #[test]
    fn what_a_process_holds_is_found_near_and_far() {
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

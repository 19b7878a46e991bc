//! A count that is cheap for the thread that was first to use it.
//!
//! Most locks are used by one thread of each process. An atomic read-modify-write a call would be
//! a quarter of an uncontended acquire and release, so the count is kept in two parts, as biased
//! reference counting does it:
//!
//! ```text
//!  first    the thread that was first to count; 0: none yet
//!  firsts   what that thread counted (the low 40 bits), and how many times it did (the high 24):
//!           it alone writes it, by plain load and store
//!  others   what all others counted, by atomic read-modify-write
//! ```
//!
//! Two words are no snapshot: between the two, a permit may pass from the first thread to another and
//! come back. So `get` reads `firsts` on both sides of `others`, and again where the first thread has
//! counted in between. What it returns is what all had counted at the moment when it read `others`,
//! unless the first thread counted a multiple of 2^24 times just then.
//!
//! # Memory ordering
//! `add` is a Release and `get`'s loads are Acquires, so that they keep their order, and who sees
//! something counted sees what the counting thread wrote before. After a thread has counted itself out
//! and let go, every later value of *either* word was written by a holder that had written its name
//! before: a thread that asks whether a mutex is its own, and sees one of them, does not find its own
//! name any more. `first` is Relaxed: a thread only asks
//! whether it finds itself there, which no one else writes. (A thread that got the number of one
//! that ended takes over its part. The C library gave it the number after the other had ended, so
//! the one's writes happen before the other's.)

use crate::atomic::{AtomicU64, Ordering};

/// A view of the three words; negative numbers are two's complement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balance<'a> {
    first: &'a AtomicU64,
    firsts: &'a AtomicU64,
    others: &'a AtomicU64,
}

/// The bits of `firsts` that are a number.
const COUNTED: u64 = (1 << 40) - 1;
/// One more time that the first thread has counted.
const ONCE: u64 = COUNTED + 1;

/// The number in `firsts`.
#[inline]
fn counted(firsts: u64) -> i64 {
    // Its sign bit moves to the top, and comes back as many.
    (firsts << 24).cast_signed() >> 24
}

impl<'a> Balance<'a> {
    #[inline]
    pub(crate) fn of([first, firsts, others]: [&'a AtomicU64; 3]) -> Self {
        Self { first, firsts, others }
    }

    /// Counts for the calling thread, whose number `me` is.
    #[inline]
    pub(crate) fn add(self, delta: i64, me: usize) {
        if self.first.load(Ordering::Relaxed) == me as u64 {
            let before = self.firsts.load(Ordering::Relaxed);
            let times = before.wrapping_add(ONCE) & !COUNTED;
            let counted = before.wrapping_add_signed(delta) & COUNTED;
            self.firsts.store(times | counted, Ordering::Release);
        } else {
            self.add_as_other(delta, me);
        }
    }

    #[cold]
    fn add_as_other(self, delta: i64, me: usize) {
        // The thread that becomes the first counts here once more: nobody counts in `firsts`
        // before `first` has its name.
        let _only_one_wins =
            self.first.compare_exchange(0, me as u64, Ordering::Relaxed, Ordering::Relaxed);
        self.others.fetch_add(delta.cast_unsigned(), Ordering::Release);
    }

    /// What all have counted.
    #[inline]
    pub(crate) fn get(self) -> i64 {
        let mut firsts = self.firsts.load(Ordering::Acquire);
        loop {
            let others = self.others.load(Ordering::Acquire);
            let again = self.firsts.load(Ordering::Acquire);
            if again == firsts {
                return counted(firsts).wrapping_add(others.cast_signed());
            }
            firsts = again;
        }
    }

    /// Zero again, and nobody first: for a forked child, which has one thread.
    pub(crate) fn clear(self) {
        self.first.store(0, Ordering::Relaxed);
        self.firsts.store(0, Ordering::Relaxed);
        self.others.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_when_many_threads_count_at_once() {
        let words: [AtomicU64; 3] = Default::default();
        let count = Balance::of(words.each_ref());
        thread::scope(|scope| {
            for me in 1..=4 {
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        count.add(3, me);
                        count.add(-1, me);
                    }
                });
            }
        });
        assert_eq!(count.get(), 4 * 10_000 * 2);
        count.clear();
        assert_eq!(count.get(), 0);
    }

    #[test]
    fn numbers_below_zero_and_many_times_of_counting_keep_out_of_each_other() {
        let words: [AtomicU64; 3] = Default::default();
        let count = Balance::of(words.each_ref());
        count.add(1, 7);
        for (delta, all) in [(-3, -2), (1 << 33, (1 << 33) - 2), (-(1 << 33), -2), (2, 0)] {
            count.add(delta, 7);
            assert_eq!(count.get(), all);
        }
        words[1].store(!COUNTED, Ordering::Relaxed);
        count.add(-1, 7);
        // The times begin anew.
        assert_eq!(count.get(), 0);
    }
}

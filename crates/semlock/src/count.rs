//! A count that is cheap for the thread that was first to use it.
//!
//! Most locks are used by one thread of each process. An atomic read-modify-write a call would be
//! a quarter of an uncontended acquire and release, so the count is kept in two parts, as biased
//! reference counting does it:
//!
//! ```text
//!  first    the thread that was first to count; 0: none yet
//!  firsts   what that thread counted: it alone writes it, by plain load and store
//!  others   what all others counted, by atomic read-modify-write
//! ```
//!
//! # Memory ordering
//! `add` is a Release and `get` an Acquire, so that who sees something counted sees what the
//! counting thread wrote before. `get` reads two words and is no snapshot; who asks whether a mutex
//! is its own needs none: after a thread has counted itself out and let go, every later value of
//! *either* word was written by a holder that had written its name before, so that a thread which
//! sees one of them does not find its own name any more. `first` is Relaxed: a thread only asks
//! whether it finds itself there, which no one else writes. (A thread that got the number of one
//! that ended takes over its part. The C library gave it the number after the other had ended, so
//! the one's writes happen before the other's.)

use crate::atomic::{AtomicU64, Ordering};

/// A view of the three words; negative numbers are two's complement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count<'a> {
    first: &'a AtomicU64,
    firsts: &'a AtomicU64,
    others: &'a AtomicU64,
}

impl<'a> Count<'a> {
    #[inline]
    pub(crate) fn of([first, firsts, others]: [&'a AtomicU64; 3]) -> Self {
        Self { first, firsts, others }
    }

    /// Counts for the calling thread, whose number `me` is.
    #[inline]
    pub(crate) fn add(self, delta: i64, me: usize) {
        if self.first.load(Ordering::Relaxed) == me as u64 {
            let counted = self.firsts.load(Ordering::Relaxed);
            self.firsts.store(counted.wrapping_add_signed(delta), Ordering::Release);
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

    /// What all have counted. Exact for a thread that excludes all others from counting, or when
    /// nobody counts just now.
    #[inline]
    pub(crate) fn get(self) -> i64 {
        let others = self.others.load(Ordering::Acquire);
        self.firsts.load(Ordering::Acquire).wrapping_add(others).cast_signed()
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
        let count = Count::of(words.each_ref());
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
}

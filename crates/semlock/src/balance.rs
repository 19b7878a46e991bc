//! A balance of acquires and releases that is cheap for the first thread that uses it.
//!
//! In most processes one thread uses a lock. One atomic read-modify-write a call would be a quarter
//! of the cost of an uncontended acquire and release. So the balance has two parts, as in biased
//! reference counting:
//!
//! ```text
//!  first    the first thread that added something; 0: none yet
//!  firsts   the sum of what that thread added (the low 40 bits), and how many times it did (the
//!           high 24): this thread alone writes it, by plain load and store
//!  others   the sum of what all other threads added, by atomic read-modify-write
//! ```
//!
//! Two loads are no snapshot: between them, a permit may pass from the first thread to another and
//! come back. So `get` reads `firsts` before and after `others`, and again where the first thread
//! has added something in between. It returns the balance at the moment when it read `others`,
//! unless the first thread added a multiple of 2^24 times in between.
//!
//! # Memory ordering
//! `add` is a Release and `get`'s loads are Acquires. So the loads keep their order, and a thread
//! that sees an addition sees what the adding thread wrote before it. After a thread has subtracted
//! its permit and released it, every later value of *either* word was written by a holder that had
//! written its name before. So a thread that asks whether a mutex is its own, and sees one of these
//! values, does not find its own name any more.
//!
//! `first` is Relaxed: a thread only asks whether it finds its own number there, and no other
//! thread writes that number. (The C library may give a new thread the number of a thread that
//! ended. The new thread takes over the other's part. The number was free only after the other
//! thread had ended, so the other's writes happen before those of the new one.)

use crate::atomic::{AtomicU64, Ordering};

/// A view of the three words. Negative numbers are in two's complement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balance<'a> {
    first: &'a AtomicU64,
    firsts: &'a AtomicU64,
    others: &'a AtomicU64,
}

/// The bits of `firsts` that hold the first thread's part of the balance.
const COUNTED: u64 = (1 << 40) - 1;
/// One more addition by the first thread.
const ONCE: u64 = COUNTED + 1;

/// The part of the balance in `firsts`.
#[inline]
fn counted(firsts: u64) -> i64 {
    // The shift left moves the sign bit to the top; the shift right extends it.
    (firsts << 24).cast_signed() >> 24
}

impl<'a> Balance<'a> {
    #[inline]
    pub(crate) fn of([first, firsts, others]: [&'a AtomicU64; 3]) -> Self {
        Self { first, firsts, others }
    }

    /// Adds for the calling thread, which has the number `me`.
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
        // The thread that becomes the first adds to `others` this time: no thread adds to `firsts`
        // before `first` has its number.
        let _only_one_wins =
            self.first.compare_exchange(0, me as u64, Ordering::Relaxed, Ordering::Relaxed);
        self.others.fetch_add(delta.cast_unsigned(), Ordering::Release);
    }

    /// The balance of all threads.
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

    /// Makes the balance zero, without a first thread. A forked child calls it; it has one thread.
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
    fn nothing_is_lost_when_many_threads_add_at_once() {
        let words: [AtomicU64; 3] = Default::default();
        let balance = Balance::of(words.each_ref());
        thread::scope(|scope| {
            for me in 1..=4 {
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        balance.add(3, me);
                        balance.add(-1, me);
                    }
                });
            }
        });
        assert_eq!(balance.get(), 4 * 10_000 * 2);
        balance.clear();
        assert_eq!(balance.get(), 0);
    }

    #[test]
    fn a_negative_sum_and_the_number_of_additions_do_not_change_each_other() {
        let words: [AtomicU64; 3] = Default::default();
        let balance = Balance::of(words.each_ref());
        balance.add(1, 7);
        for (delta, all) in [(-3, -2), (1 << 33, (1 << 33) - 2), (-(1 << 33), -2), (2, 0)] {
            balance.add(delta, 7);
            assert_eq!(balance.get(), all);
        }
        words[1].store(!COUNTED, Ordering::Relaxed);
        balance.add(-1, 7);
        // The number of additions begins at 0 again.
        assert_eq!(balance.get(), 0);
    }
}

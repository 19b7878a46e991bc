//! Sleeping on a word while it has a value, and waking the threads that sleep: a futex.

use std::ptr::from_ref;
use std::time::Duration;

use crate::atomic::{AtomicU32, AtomicU64};
use crate::os::system::futex;
pub(crate) use crate::sleep::{Slept, Woke};

/// Which threads can sleep on a word. All callers that use one word pass the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Threads of this process. (A system may key the word by its page: a fork, after which pages
    /// are copied on write, would then make it another word.)
    Process,
    /// Threads of all processes that have the word mapped, at any address.
    Machine,
}

/// The half of a word that a futex compares: the low one.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let halves = from_ref(word).cast::<AtomicU32>();
    // SAFETY: the word is valid for eight bytes, and aligned for more than a u32. Its low half is
    // the first on little-endian machines and the second on others. Only atomic instructions reach
    // both, also in the kernel, which gets this address.
    unsafe { &*halves.add(usize::from(cfg!(target_endian = "big"))) }
}

/// Sleeps while the low half of `word` is `expected`, for `time` at most.
pub(crate) fn wait(word: &AtomicU64, expected: u32, time: Option<Duration>, reach: Reach) -> Slept {
    futex::wait(low_half(word), expected, time, reach)
}

/// Wakes one thread that sleeps on the low half of `word`.
pub(crate) fn wake_one(word: &AtomicU64, reach: Reach) -> Woke {
    futex::wake_one(low_half(word), reach)
}

/// Wakes all threads that sleep on the low half of `word`.
pub(crate) fn wake_all(word: &AtomicU64, reach: Reach) {
    futex::wake_all(low_half(word), reach);
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::atomic::Ordering;

    #[test]
    fn a_wait_ends_at_its_timeout_and_not_before() {
        let word = AtomicU64::new(7);
        for reach in [Reach::Process, Reach::Machine] {
            let (start, time) = (Instant::now(), Duration::from_millis(30));
            let mut waited = Slept::Woken;
            while waited == Slept::Woken {
                waited = wait(&word, 7, time.checked_sub(start.elapsed()), reach);
            }
            assert_eq!(waited, Slept::TimedOut);
            assert!(start.elapsed() >= time);
        }
    }

    #[test]
    fn a_wait_for_another_value_of_the_low_half_does_not_sleep() {
        let word = AtomicU64::new(1 << 32 | 8);
        assert_eq!(wait(&word, 7, None, Reach::Machine), Slept::Woken);
    }

    #[test]
    fn a_change_of_the_word_and_a_wake_up_of_all_end_every_wait() {
        for reach in [Reach::Process, Reach::Machine] {
            let word = AtomicU64::new(0);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while word.load(Ordering::Acquire) == 0 {
                            // Without a timeout: a thread that nobody wakes sleeps forever.
                            wait(&word, 0, None, reach);
                        }
                    });
                }
                word.store(1, Ordering::Release);
                wake_all(&word, reach);
            });
        }
    }
}

//! Sleeping on a word while it has a value, and waking those who do.

use std::ptr::from_ref;
use std::time::Duration;

use crate::atomic::{AtomicU32, AtomicU64};
use crate::os::system::futex;
pub(crate) use crate::sleep::{Slept, Woke};

/// Who can sleep on a word. All who use one word have to say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Threads of this process. (Where memory is copied on write, a fork would have systems take it for another.)
    Process,
    /// All who have mapped what the word lies in, each at an address of its own.
    Machine,
}

/// The half of a word that a futex compares: the low one.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let halves = from_ref(word).cast::<AtomicU32>();
    // SAFETY: the word is valid for eight bytes and aligned for more than a u32's. Its low half is
    // the first on little-endian machines and the second on others. Both are only reached by
    // atomic instructions; the kernel, which gets this address, reads it by one too.
    unsafe { &*halves.add(usize::from(cfg!(target_endian = "big"))) }
}

/// Sleeps while the low half of `word` is `expected`; for ever where no time is given.
pub(crate) fn wait(word: &AtomicU64, expected: u32, time: Option<Duration>, reach: Reach) -> Slept {
    futex::wait(low_half(word), expected, time, reach)
}

/// Wakes one that sleeps on the low half of `word`.
pub(crate) fn wake_one(word: &AtomicU64, reach: Reach) -> Woke {
    futex::wake_one(low_half(word), reach)
}

/// Wakes all that sleep on the low half of `word`.
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
    fn a_sleeper_gets_up_when_its_time_is_over_and_not_before() {
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
    fn nobody_lies_down_beside_another_value_in_the_low_half() {
        let word = AtomicU64::new(1 << 32 | 8);
        assert_eq!(wait(&word, 7, None, Reach::Machine), Slept::Woken);
    }

    #[test]
    fn a_change_of_the_word_and_a_wake_up_get_all_sleepers_up() {
        for reach in [Reach::Process, Reach::Machine] {
            let word = AtomicU64::new(0);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while word.load(Ordering::Acquire) == 0 {
                            // No time: one that is not woken would sleep for ever.
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

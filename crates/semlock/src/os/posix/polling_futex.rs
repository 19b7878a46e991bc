//! A futex where the system has none: the waiter polls the word.
//!
//! A waiter that polls sees by itself that the word has another value, one sleep later. So waking
//! does nothing, and it is unknown whether anybody sleeps ([`Woke::Unknown`]). A waiter that began
//! to sleep before the word's last change wakes up, unless the word comes back to the value that it
//! sleeps on. No word of ours does: sequences, epochs, changes and tickets count up, and only a
//! waiter itself resets the state of its node. (The word of a `ForkMutex` does: it is 2 again when
//! the next waiter has the mutex. A waiter polls it until it finds it otherwise.)
//!
//! A wake-up without a change, which makes a waiter check something else, reaches a waiter late:
//! after `LONGEST` it wakes up for nothing.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, Interrupted};
use super::futex::{Reach, Slept, Woke};
use crate::atomic::{AtomicU32, Ordering};

/// No sleep is longer. 200 checks a second, of some microseconds each, cost about a thousandth of a
/// processor.
const LONGEST_SLEEP: Duration = Duration::from_millis(5);
/// After this time a waiter wakes up for nothing.
const LONGEST: Duration = Duration::from_millis(90);

pub(crate) fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>, _: Reach) -> Slept {
    let start = Instant::now();
    let mut backoff = Backoff::up_to(LONGEST_SLEEP);
    loop {
        // Relaxed: a caller that wakes up loads the word again, with the ordering that it needs.
        if word.load(Ordering::Relaxed) != expected {
            return Slept::Woken;
        }
        let slept = start.elapsed();
        let left = time.map(|time| time.saturating_sub(slept));
        if left == Some(Duration::ZERO) {
            return Slept::TimedOut;
        }
        if slept >= LONGEST {
            return Slept::Woken;
        }
        if backoff.sleep(left) == Err(Interrupted) {
            return Slept::Interrupted;
        }
    }
}

pub(crate) fn wake_one(_: &AtomicU32, _: Reach) -> Woke {
    Woke::Unknown
}

pub(crate) fn wake_all(_: &AtomicU32, _: Reach) {}

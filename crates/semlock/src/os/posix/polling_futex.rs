//! Sleeping on a word where the system cannot: looking at it again and again.
//!
//! Who naps gets up by itself when the word has another value, a nap later: so waking does nothing, and nobody can tell whether
//! somebody sleeps ([`Woke::Unknown`]). Whoever lay down before the word's last change gets up as long as the word
//! does not come back to the value that was slept on, and no word of ours does: sequences, epochs, changes and tickets
//! count up, and a node's state goes on until its own waiter resets it. (A process's mutex, which is 2 again when the next
//! sleeper has it, is looked at until a look finds it otherwise.)
//!
//! A wake-up without any change, which has a sleeper look after something else, reaches it when it has napped for
//! `LONGEST` in all: then it gets up for nothing.

use std::time::{Duration, Instant};

use super::backoff::{Naps, Rested};
use super::futex::{Reach, Waited, Woke};
use crate::atomic::{AtomicU32, Ordering};

/// No nap is longer: 200 looks a second, of some microseconds each, cost about a thousandth of a processor.
const LONGEST_NAP: Duration = Duration::from_millis(5);
/// After so long a sleeper gets up for nothing.
const LONGEST: Duration = Duration::from_millis(90);

pub(crate) fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>, _: Reach) -> Waited {
    let start = Instant::now();
    let mut naps = Naps::up_to(LONGEST_NAP);
    loop {
        // Relaxed: who gets up looks again, at what counts.
        if word.load(Ordering::Relaxed) != expected {
            return Waited::Woken;
        }
        let slept = start.elapsed();
        let left = time.map(|time| time.saturating_sub(slept));
        if left == Some(Duration::ZERO) {
            return Waited::TimedOut;
        }
        if slept >= LONGEST {
            return Waited::Woken;
        }
        if naps.rest(left) == Rested::Interrupted {
            return Waited::Interrupted;
        }
    }
}

pub(crate) fn wake_one(_: &AtomicU32, _: Reach) -> Woke {
    Woke::Unknown
}

pub(crate) fn wake_all(_: &AtomicU32, _: Reach) {}

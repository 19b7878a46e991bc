//! Napping: what remains where the operating system cannot wait for what is waited for.

use std::cmp::min;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::Timespec;

const FIRST: Duration = Duration::from_micros(50);

/// The naps of one wait: each is twice as long as the one before it, so that what comes soon is seen soon,
/// and a long wait costs little.
#[derive(Debug)]
pub(crate) struct Naps {
    next: Duration,
    longest: Duration,
}

/// How a nap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rested {
    Rested,
    /// A signal came.
    Interrupted,
}

impl Naps {
    /// Naps of which none is longer than that, which is less than a second.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: FIRST, longest }
    }

    /// Naps, for so long at most.
    pub(crate) fn rest(&mut self, most: Option<Duration>) -> Rested {
        let nap = self.following(most);
        let nap = Timespec { tv_sec: 0, tv_nsec: nap.subsec_nanos().into() };
        match nanosleep(&nap) {
            NanosleepRelativeResult::Interrupted(_) => Rested::Interrupted,
            // It fails for no time that is below a second.
            NanosleepRelativeResult::Ok | NanosleepRelativeResult::Err(_) => Rested::Rested,
        }
    }

    fn following(&mut self, most: Option<Duration>) -> Duration {
        let nap = most.map_or(self.next, |most| min(most, self.next));
        self.next = min(self.next * 2, self.longest);
        nap
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn naps_begin_with_microseconds_and_double_up_to_the_longest() {
        let mut naps = Naps::up_to(Duration::from_millis(20));
        let microseconds: Vec<_> = (0..11).map(|_| naps.following(None).as_micros()).collect();
        let doubled = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000];
        assert_eq!(microseconds, doubled);
    }

    #[test]
    fn a_nap_is_no_longer_than_what_is_left_and_no_shorter_than_it_says() {
        let longest = Duration::from_millis(20);
        let mut naps = Naps { next: longest, longest };
        let left = Duration::from_millis(3);
        assert_eq!(naps.following(Some(left)), left);
        let start = Instant::now();
        assert_eq!(naps.rest(Some(left)), Rested::Rested);
        assert!(start.elapsed() >= left);
    }
}

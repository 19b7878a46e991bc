//! Polling with backoff: what is left where the system cannot wait for what a caller waits for.

use std::cmp::min;
use std::time::Duration;

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use rustix::time::Timespec;

const SHORTEST: Duration = Duration::from_micros(50);

/// The sleeps of one wait. Each is twice as long as the one before, so that the caller sees soon
/// what happens soon, and a long wait costs little.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

/// A signal ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted;

impl Backoff {
    /// No sleep is longer than `longest`, which is less than a second.
    pub(crate) fn up_to(longest: Duration) -> Self {
        Self { next: SHORTEST, longest }
    }

    /// Sleeps, for `most` at most.
    pub(crate) fn sleep(&mut self, most: Option<Duration>) -> Result<(), Interrupted> {
        let time = self.following(most);
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        match nanosleep(&time) {
            NanosleepRelativeResult::Interrupted(_) => Err(Interrupted),
            // It does not fail for a time that is below a second.
            NanosleepRelativeResult::Ok | NanosleepRelativeResult::Err(_) => Ok(()),
        }
    }

    fn following(&mut self, most: Option<Duration>) -> Duration {
        let time = most.map_or(self.next, |most| min(most, self.next));
        self.next = min(self.next * 2, self.longest);
        time
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn sleeps_begin_with_microseconds_and_double_up_to_the_longest() {
        let mut backoff = Backoff::up_to(Duration::from_millis(20));
        let microseconds: Vec<_> = (0..11).map(|_| backoff.following(None).as_micros()).collect();
        let doubled = [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000];
        assert_eq!(microseconds, doubled);
    }

    #[test]
    fn a_sleep_is_no_longer_than_the_time_that_is_left_and_no_shorter_than_it_says() {
        let longest = Duration::from_millis(20);
        let mut backoff = Backoff { next: longest, longest };
        let left = Duration::from_millis(3);
        assert_eq!(backoff.following(Some(left)), left);
        let start = Instant::now();
        assert_eq!(backoff.sleep(Some(left)), Ok(()));
        assert!(start.elapsed() >= left);
    }
}

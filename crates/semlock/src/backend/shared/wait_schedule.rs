//! How long a waiter sleeps before it checks whether something went wrong, and who checks.
//!
//! No sleep is endless, because a wake-up can be lost with the process that was to give or to pass it on.
//! One waiter of an object is its watcher: it wakes some ten times a second and looks
//! after the holder. The others wake about once a second, and see whether there still is a watcher.

use std::time::Duration;

use super::liveness::LivenessCache;
use crate::Deadline;
use crate::atomic::AtomicU64;
use crate::mutation::rule;
use crate::os::{clock, thread};
use crate::word::permit::Process;
use crate::word::watch::{Heartbeat, Watch};

/// A watcher sleeps for 90 to 98 ms, so that with its looking it comes within 100.
const WATCHER_SLEEP: (u64, u64) = (90_000_000, 8_000_000);
/// The others sleep for 1 to 1.5 s.
const SLEEP: (u64, u64) = (1_000_000_000, 500_000_000);
/// But first only for so long that a watcher which died just now, perhaps together with the holder, can be
/// told by its silence.
const FIRST_SLEEP: (u64, u64) = (220_000_000, 60_000_000);
/// After so long the caller of a wait may have a turn, when the nap is over.
const TURN: Duration = Duration::from_millis(800);

/// One wait of one thread.
pub(crate) struct WaitSchedule<'a> {
    /// Nobody watches what has no holder.
    watch: Option<Watch<'a>>,
    watching: Option<Heartbeat>,
    deadline: Deadline,
    /// When it first slept, when its nap is over, and, from the first nap on, when the deadline comes:
    /// nanoseconds of the clock.
    began: u64,
    until: u64,
    ends: Option<u64>,
    /// It does not watch until then, whether or not another does.
    rests: bool,
    liveness: LivenessCache,
}

/// What a sleeper has to do when it wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    None,
    /// Look whether somebody has died.
    Check,
}

impl<'a> WaitSchedule<'a> {
    pub(crate) fn new(watch: Option<&'a AtomicU64>, deadline: Deadline, me: Process) -> Self {
        let liveness = LivenessCache::new(me);
        // A foreign process would keep those that can check from watching.
        let watches = me.can_be_checked() || !rule("watch/not-by-foreign-processes");
        let watch = watch.filter(|_| watches).map(Watch);
        let (watching, ends) = (None, None);
        Self { watch, watching, deadline, began: 0, until: 0, ends, rests: false, liveness }
    }

    /// How long to sleep now, at most; `None` if the deadline has passed.
    pub(crate) fn sleep_for(&mut self) -> Option<Duration> {
        let (now, left) = self.now_and_left();
        if left == Some(Duration::ZERO) {
            return None;
        }
        if self.began == 0 {
            self.began = now;
        }
        let is_over = now >= self.until;
        if !rule("sleep/is-bounded") {
            return Some(left.unwrap_or(Duration::from_secs(3_600)));
        }
        self.rests &= !is_over;
        let began = match self.watching {
            None if self.rests => false,
            None => {
                self.watching = self.watch.and_then(|watch| watch.begin(now));
                self.watching.is_some()
            }
            Some(watching) if is_over => {
                self.watching = self.watch.and_then(|watch| watch.go_on(watching, now));
                false
            }
            Some(_) => false,
        };
        if is_over || began {
            let (least, more) = match (self.watch, self.watching) {
                (_, Some(_)) => WATCHER_SLEEP,
                (Some(_), None) if self.until == 0 => FIRST_SLEEP,
                _ => SLEEP,
            };
            // So that they do not all wake at the same moment.
            self.until = now + least + jitter(now) % more;
        }
        let time = Duration::from_nanos(self.until - now);
        Some(left.map_or(time, |left| left.min(time)))
    }

    /// What time it is, and what is left until the deadline. Only the first nap reads two clocks, the
    /// deadline's and this one: both tell the same time.
    fn now_and_left(&mut self) -> (u64, Option<Duration>) {
        if self.began == 0 {
            // In this order: the deadline comes no earlier on the second clock.
            let left = self.deadline.remaining();
            let now = clock::now();
            let nanoseconds = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            self.ends = left.map(|left| now.saturating_add(nanoseconds(left)));
            return (now, left);
        }
        let now = clock::now();
        (now, self.ends.map(|ends| Duration::from_nanos(ends.saturating_sub(now))))
    }

    /// After a sleep.
    pub(crate) fn duty(&self) -> Duty {
        let checks = self.watching.is_some() && clock::now() >= self.until;
        if checks && rule("watch/checks") { Duty::Check } else { Duty::None }
    }

    /// Whether it has just stopped watching, because it had no descriptor left to look with: then another has to be
    /// woken, who may have one.
    pub(crate) fn rests(&mut self) -> bool {
        if !self.liveness.looked_in_vain() || !rule("watch/not-by-who-cannot-look") || !self.end() {
            return false;
        }
        let now = clock::now();
        self.until = now + SLEEP.0 + jitter(now) % SLEEP.1;
        self.rests = true;
        true
    }

    /// Whether the caller is to have a turn. A signal that arrives just before the sleep does not
    /// interrupt it, and its handler may be for the caller to run: in the first thread, where Python
    /// runs them all. Thousands of other threads that wait are left in peace.
    pub(crate) fn gives_a_turn(&self) -> bool {
        self.has_lasted(TURN) && thread::is_first() && rule("sleep/gives-a-turn")
    }

    /// Whether it began to sleep so long ago.
    pub(crate) fn has_lasted(&self, time: Duration) -> bool {
        self.began != 0 && u128::from(clock::now().saturating_sub(self.began)) >= time.as_nanos()
    }

    pub(crate) fn liveness(&mut self) -> &mut LivenessCache {
        &mut self.liveness
    }

    /// Ends the wait; true if it was the watcher, so that another has to be.
    pub(crate) fn end(&mut self) -> bool {
        let watching = self.watching.take();
        if let Some((watch, watching)) = self.watch.zip(watching) {
            watch.end(watching);
        }
        watching.is_some() && rule("watch/is-handed-over")
    }
}

fn jitter(now: u64) -> u64 {
    // Every bit of the clock and of the stack's address counts (Fibonacci hashing).
    let here = &raw const now as u64;
    (now ^ here).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::liveness::is_due;
    use super::*;

    #[test]
    fn a_wait_of_several_naps_ends_at_its_deadline_and_not_before() {
        let (start, timeout) = (Instant::now(), Duration::from_millis(5));
        let mut schedule =
            WaitSchedule::new(None, Deadline::after(timeout), Process::new(7, 1, false));
        while let Some(time) = schedule.sleep_for() {
            assert!(time <= timeout);
            std::hint::spin_loop();
        }
        assert!(start.elapsed() >= timeout);
    }

    #[test]
    fn a_foreign_process_leaves_watching_and_checking_to_others() {
        let [watch, last_check] = [AtomicU64::new(0), AtomicU64::new(0)];
        let [foreign, native] = [true, false].map(|is_foreign| Process::new(7, 1, is_foreign));
        let mut first = WaitSchedule::new(Some(&watch), Deadline::NEVER, foreign);
        let mut second = WaitSchedule::new(Some(&watch), Deadline::NEVER, native);
        assert!(first.sleep_for().is_some() && second.sleep_for().is_some());
        assert!(!is_due(&last_check, foreign) && is_due(&last_check, native));
        assert!(!first.end() && second.end());
    }
}

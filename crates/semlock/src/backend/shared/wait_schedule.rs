//! How long a waiter sleeps before it wakes to check, and which waiter checks the holder.
//!
//! No sleep is endless: the process that has to send or pass on a wake-up may die first. One waiter
//! of each object is its watcher. The watcher wakes some ten times a second and checks the holder.
//! The other waiters wake about once a second and check whether there still is a watcher.

use std::time::Duration;

use super::liveness::LivenessCache;
use crate::Deadline;
use crate::atomic::AtomicU64;
use crate::mutation::rule;
use crate::os::{clock, thread};
use crate::word::permit::Process;
use crate::word::watch::{Heartbeat, Watch};

/// A watcher sleeps for 90 to 98 ms. Together with the check, that is less than 100 ms.
const WATCHER_SLEEP: (u64, u64) = (90_000_000, 8_000_000);
/// The others sleep for 1 to 1.5 s.
const SLEEP: (u64, u64) = (1_000_000_000, 500_000_000);
/// The first sleep is shorter, 220 to 280 ms: just long enough that the silence of a watcher that
/// has just died, perhaps together with the holder, can be noticed after it.
const FIRST_SLEEP: (u64, u64) = (220_000_000, 60_000_000);
/// A waiter for which the table of places was full tries again after so long, and then after twice
/// as long, and so on. Others with a place pass it meanwhile, and the table may have been full of
/// places of the dead, which one waiter at a time frees.
const FIRST_TRY_FOR_A_PLACE: Duration = Duration::from_millis(4);
/// When a wait has lasted for so long, its caller gets a turn at the end of the sleep.
const TURN: Duration = Duration::from_millis(800);

/// One wait of one thread.
pub(crate) struct WaitSchedule<'a> {
    /// `None` where there is no holder to watch, or where this process cannot check one.
    watch: Option<Watch<'a>>,
    watching: Option<Heartbeat>,
    deadline: Deadline,
    /// When its first sleep began, when the present sleep ends, and, from the first sleep on, when
    /// the deadline comes: in nanoseconds of the clock.
    began: u64,
    until: u64,
    ends: Option<u64>,
    /// It does not watch before `until`, whether or not another waiter does.
    rests: bool,
    /// How long it sleeps next, if it has no place.
    tries_for_a_place: Duration,
    liveness: LivenessCache,
}

/// What a waiter has to do when it wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    None,
    /// Check whether a process has died.
    Check,
}

impl<'a> WaitSchedule<'a> {
    pub(crate) fn new(watch: Option<&'a AtomicU64>, deadline: Deadline, me: Process) -> Self {
        let liveness = LivenessCache::new(me);
        // A foreign watcher would keep the processes that can check from watching.
        let watches = me.can_be_checked() || !rule("watch/not-by-foreign-processes");
        let watch = watch.filter(|_| watches).map(Watch);
        Self {
            watch,
            watching: None,
            deadline,
            began: 0,
            until: 0,
            ends: None,
            rests: false,
            tries_for_a_place: FIRST_TRY_FOR_A_PLACE,
            liveness,
        }
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
            // With jitter, so that waiters do not all wake at the same moment.
            self.until = now + least + jitter(now) % more;
        }
        let time = Duration::from_nanos(self.until - now);
        Some(left.map_or(time, |left| left.min(time)))
    }

    /// How long a waiter sleeps at most that should have a place and has none, in place of `time`.
    pub(crate) fn sleep_without_place(&mut self, time: Duration) -> Duration {
        if !rule("places/a-waiter-without-a-place-tries-again-soon") {
            return time;
        }
        let now = self.tries_for_a_place;
        self.tries_for_a_place = now.saturating_mul(2);
        time.min(now)
    }

    /// The time, and the time left until the deadline. Only the first sleep reads two clocks, the
    /// deadline's and this one. Both show the same time.
    fn now_and_left(&mut self) -> (u64, Option<Duration>) {
        if self.began == 0 {
            // The deadline's clock first: so the deadline comes no earlier on the second clock.
            let left = self.deadline.remaining();
            let now = clock::now();
            let nanoseconds = |left: Duration| u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            self.ends = left.map(|left| now.saturating_add(nanoseconds(left)));
            return (now, left);
        }
        let now = clock::now();
        (now, self.ends.map(|ends| Duration::from_nanos(ends.saturating_sub(now))))
    }

    /// What to do after a sleep.
    pub(crate) fn duty(&self) -> Duty {
        let checks = self.watching.is_some() && clock::now() >= self.until;
        if checks && rule("watch/checks") { Duty::Check } else { Duty::None }
    }

    /// Whether this waiter has just stopped watching, because it had no descriptor left for the
    /// check. Then the caller has to wake another waiter, whose process may have one.
    pub(crate) fn rests(&mut self) -> bool {
        if !self.liveness.take_no_descriptor()
            || !rule("watch/not-without-a-descriptor")
            || !self.end()
        {
            return false;
        }
        let now = clock::now();
        self.until = now + SLEEP.0 + jitter(now) % SLEEP.1;
        self.rests = true;
        true
    }

    /// Whether the caller gets a turn. A signal that arrives just before the sleep does not
    /// interrupt it, and the caller may have to run the signal's handler. Python runs all handlers
    /// in the first thread, so only that one gets turns: thousands of other waiting threads need
    /// not wake for it.
    pub(crate) fn gives_a_turn(&self) -> bool {
        self.has_lasted(TURN) && thread::is_first() && rule("sleep/gives-a-turn")
    }

    /// Whether the wait has lasted for `time` since its first sleep began.
    pub(crate) fn has_lasted(&self, time: Duration) -> bool {
        self.began != 0 && u128::from(clock::now().saturating_sub(self.began)) >= time.as_nanos()
    }

    pub(crate) fn liveness(&mut self) -> &mut LivenessCache {
        &mut self.liveness
    }

    /// Ends the wait. True if this waiter was the watcher: then another waiter has to watch.
    pub(crate) fn end(&mut self) -> bool {
        let watching = self.watching.take();
        if let Some((watch, watching)) = self.watch.zip(watching) {
            watch.end(watching);
        }
        watching.is_some() && rule("watch/is-handed-over")
    }
}

fn jitter(now: u64) -> u64 {
    // Fibonacci hashing: every bit of the clock and of the stack's address changes the result.
    let here = &raw const now as u64;
    (now ^ here).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::liveness::is_due;
    use super::*;

    #[test]
    fn a_wait_of_several_sleeps_ends_at_its_deadline_and_not_before() {
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
    fn a_waiter_without_a_place_tries_again_soon_and_then_less_often() {
        let mut schedule = WaitSchedule::new(None, Deadline::NEVER, Process::new(7, 1, false));
        let second = Duration::from_secs(1);
        let sleeps: Vec<_> = (0..20).map(|_| schedule.sleep_without_place(second)).collect();
        assert!(sleeps[0] <= Duration::from_millis(5) && sleeps.is_sorted());
        assert_eq!(sleeps[19], second);
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

//! Which waiter checks the holder, and when an acquirer last did.
//!
//! One of the waiters that sleep for an object is the *watcher*: it wakes often, and checks whether
//! the holder is alive. The word is the time of the watcher's last *heartbeat*, in nanoseconds of
//! the monotonic clock, or 0 if nobody watches. It does not say which process the watcher is,
//! because the others do not need that. A watcher that was killed or stopped, or that cannot be
//! checked, watches nobody. Another waiter replaces it when its heartbeat is old. No two heartbeats
//! are the same. So a watcher that was replaced finds that out at its next heartbeat.
//!
//! Time namespaces have different times: a heartbeat from the future counts as old. The worst that
//! comes of it is that two waiters watch.
//!
//! # Memory ordering
//! Relaxed: the words decide which process spends time on checks, and protect nothing.

use std::time::Duration;

use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// A watcher without a heartbeat for this long is replaced.
const SILENT: Duration = Duration::from_millis(200);

/// A view of the watcher's word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a>(pub(crate) &'a AtomicU64);

/// A watcher's last heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat(u64);

impl Watch<'_> {
    /// Becomes the watcher, if there is none, or the last one is silent. `now` is in nanoseconds.
    pub(crate) fn begin(self, now: u64) -> Option<Heartbeat> {
        let last = self.0.load(Ordering::Relaxed);
        let is_alive = is_within(last, now, SILENT);
        if last != 0 && (is_alive || !rule("watch/a-silent-watcher-is-replaced")) {
            return None;
        }
        self.beat(last, now)
    }

    /// Gives a heartbeat. `None` if another waiter has become the watcher.
    pub(crate) fn go_on(self, last: Heartbeat, now: u64) -> Option<Heartbeat> {
        self.beat(last.0, now)
    }

    /// Stops watching.
    pub(crate) fn end(self, last: Heartbeat) {
        // If this fails, another waiter watches already.
        let _ = self.0.compare_exchange(last.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn beat(self, last: u64, now: u64) -> Option<Heartbeat> {
        let beat = if now == last { now + 1 } else { now.max(1) };
        self.0
            .compare_exchange(last, beat, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            .then_some(Heartbeat(beat))
    }
}

/// When an acquirer that only tries, and does not sleep, last checked the holder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCheck<'a>(pub(crate) &'a AtomicU64);

impl LastCheck<'_> {
    /// Whether the caller is to check now, because nobody has for this long.
    pub(crate) fn is_due(self, now: u64, pause: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        !(last != 0 && is_within(last, now, pause))
            && self
                .0
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

/// Whether the two times are less than `time` apart.
fn is_within(last: u64, now: u64, time: Duration) -> bool {
    u128::from(last.abs_diff(now)) < time.as_nanos()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_watcher_watches_until_it_ends_or_is_silent_for_too_long() {
        let word = AtomicU64::new(0);
        let watch = Watch(&word);
        let first = watch.begin(5 * MS).unwrap();
        assert_eq!(watch.begin(5 * MS), None);
        assert_eq!(watch.begin(200 * MS), None);
        let first = watch.go_on(first, 201 * MS).unwrap();
        assert_eq!(watch.begin(400 * MS), None);
        let second = watch.begin(900 * MS).unwrap();
        assert_eq!(watch.go_on(first, 901 * MS), None);
        watch.end(first);
        assert_eq!(watch.begin(901 * MS), None);
        watch.end(second);
        assert!(watch.begin(901 * MS).is_some());
    }

    #[test]
    fn a_heartbeat_of_another_clock_does_not_keep_others_from_watching() {
        let word = AtomicU64::new(0);
        let watch = Watch(&word);
        watch.begin(1_000_000 * MS).unwrap();
        assert!(watch.begin(5 * MS).is_some());
    }

    #[test]
    fn of_many_tries_one_checks_in_each_pause() {
        let word = AtomicU64::new(0);
        let last_check = LastCheck(&word);
        let pause = Duration::from_millis(50);
        let due: Vec<_> = (1..20).filter(|n| last_check.is_due(n * 10 * MS, pause)).collect();
        assert_eq!(due, [1, 6, 11, 16]);
    }
}

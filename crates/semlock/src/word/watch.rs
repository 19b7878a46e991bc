//! Who looks after a holder, and when somebody last did.
//!
//! Among those who sleep for an object one is the *watcher*: it wakes often, and looks whether the
//! holder lives. The word is the time of its last sign of life, in nanoseconds of the monotonic
//! clock; 0 where nobody watches. That, and not who it is, is what the others need: a watcher that
//! was killed, stopped, or cannot be asked for watches nobody, and is replaced when its sign is old.
//! Nobody else has the same sign, so that a watcher learns from its own next one that it was replaced.
//!
//! Times of different time namespaces differ: a sign from the future is as good as an old one.
//! The worst that comes of it is two watchers.
//!
//! # Memory ordering
//! Relaxed: the words decide who spends time on looking, and nothing is read under their protection.

use std::time::Duration;

use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// A watcher without a sign for so long is replaced.
const SILENT: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch<'a>(pub(crate) &'a AtomicU64);

/// The sign that this watcher gave last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat(u64);

impl Watch<'_> {
    /// Becomes the watcher, if there is none that gives signs; `now` is in nanoseconds.
    pub(crate) fn begin(self, now: u64) -> Option<Heartbeat> {
        let last = self.0.load(Ordering::Relaxed);
        let gives_signs = is_within(last, now, SILENT);
        if last != 0 && (gives_signs || !rule("watch/a-silent-watcher-is-replaced")) {
            return None;
        }
        self.sign(last, now)
    }

    /// Gives a sign; `None` if another has become the watcher.
    pub(crate) fn go_on(self, watching: Heartbeat, now: u64) -> Option<Heartbeat> {
        self.sign(watching.0, now)
    }

    pub(crate) fn end(self, watching: Heartbeat) {
        // Where that fails another watches already.
        let _ = self.0.compare_exchange(watching.0, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn sign(self, last: u64, now: u64) -> Option<Heartbeat> {
        let sign = if now == last { now + 1 } else { now.max(1) };
        self.0
            .compare_exchange(last, sign, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
            .then_some(Heartbeat(sign))
    }
}

/// When those who only try, and do not sleep, last looked after the holder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCheck<'a>(pub(crate) &'a AtomicU64);

impl LastCheck<'_> {
    /// Whether it is the caller's turn, because nobody has looked for so long.
    pub(crate) fn is_due(self, now: u64, pause: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        !(last != 0 && is_within(last, now, pause))
            && self
                .0
                .compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn is_within(last: u64, now: u64, time: Duration) -> bool {
    u128::from(last.abs_diff(now)) < time.as_nanos()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn one_watches_until_it_ends_or_is_silent_for_long() {
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
    fn a_sign_of_another_clock_does_not_keep_others_from_watching() {
        let word = AtomicU64::new(0);
        let watch = Watch(&word);
        watch.begin(1_000_000 * MS).unwrap();
        assert!(watch.begin(5 * MS).is_some());
    }

    #[test]
    fn tries_judge_once_in_a_while_however_many_there_are() {
        let word = AtomicU64::new(0);
        let judged = LastCheck(&word);
        let pause = Duration::from_millis(50);
        let due: Vec<_> = (1..20).filter(|n| judged.is_due(n * 10 * MS, pause)).collect();
        assert_eq!(due, [1, 6, 11, 16]);
    }
}

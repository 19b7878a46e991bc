//! A semaphore's value: permits without holders, for those that one process takes and another
//! gives back.
//!
//! # Memory ordering
//! Who takes sees what all who gave before it wrote: giving is a Release, taking an Acquire, and takings
//! that come between keep what was released. Giving is `SeqCst` on top of that, and so is the look that
//! each attempt begins with, because the gate needs it of them: see there. What an exchange that
//! fails tells is no older than that look, so it needs nothing itself.

use crate::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter<'a>(pub(crate) &'a AtomicU64);

impl Counter<'_> {
    pub(crate) fn value(self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    #[inline]
    pub(crate) fn try_take(self) -> bool {
        let mut value = self.value();
        while value > 0 {
            match self.0.compare_exchange(value, value - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => value = other,
            }
        }
        false
    }

    /// Gives one back; false if there are `most` already.
    #[inline]
    pub(crate) fn give(self, most: u64) -> bool {
        let mut value = self.value();
        while value < most {
            match self.0.compare_exchange(value, value + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => value = other,
            }
        }
        false
    }
}

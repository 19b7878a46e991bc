//! A semaphore's value: permits without holders, for those that one process takes and another
//! gives back.
//!
//! # Memory ordering
//! As for a permit.

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
            match self.0.compare_exchange(value, value - 1, Ordering::SeqCst, Ordering::SeqCst) {
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
            match self.0.compare_exchange(value, value + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(other) => value = other,
            }
        }
        false
    }
}

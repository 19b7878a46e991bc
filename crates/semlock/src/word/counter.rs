//! A semaphore's value: permits without holders. One process may take a permit, and another may
//! free it.
//!
//! ```text
//!   63                    32     31      30                      0
//!  ┌────────────────────────┬──────────┬────────────────────────┐
//!  │ `Reservation`          │ reserved │ value (31 bits)        │
//!  └────────────────────────┴──────────┴────────────────────────┘
//!   value     how many permits are free for all
//!   reserved  1: one more permit is free, but reserved
//! ```
//!
//! # Memory ordering
//! An acquirer sees what all releasers before it wrote: freeing is a Release, taking is an Acquire,
//! and takings in between keep what was released. Freeing is `SeqCst` on top of that, and so is the
//! load that each attempt begins with, because the eventcount needs that: see there. The value that
//! a failed exchange returns is no older than that load, so it needs no ordering itself.

use super::low;
use super::reservation::{Acquirer, Reservation};
use super::turns::Freed;
use crate::atomic::{AtomicU64, Ordering};

const VALUE: u64 = (1 << 31) - 1;
const RESERVED: u64 = 1 << 31;
const RESERVATION_SHIFT: u32 = u64::BITS - Reservation::BITS;

/// A view of the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter<'a>(pub(crate) &'a AtomicU64);

const fn reservation(seen: u64) -> Option<Reservation> {
    if seen & RESERVED == 0 {
        return None;
    }
    Some(Reservation::from_bits(low(seen >> RESERVATION_SHIFT)))
}

const fn with(value: u64, reserved: Option<Reservation>) -> u64 {
    match reserved {
        None => value,
        Some(reserved) => (reserved.bits() as u64) << RESERVATION_SHIFT | RESERVED | value,
    }
}

impl Counter<'_> {
    /// How many permits are free for all. A reserved one counts only if its reservation has
    /// expired.
    pub(crate) fn value(self, clock: impl FnOnce() -> u64) -> u64 {
        let seen = self.0.load(Ordering::SeqCst);
        let is_free = |reserved: Reservation| reserved.has_expired(clock());
        (seen & VALUE) + u64::from(reservation(seen).is_some_and(is_free))
    }

    /// Takes a permit if one is free for this acquirer.
    #[inline]
    pub(crate) fn try_take(self, acquirer: Acquirer) -> bool {
        let mut seen = self.0.load(Ordering::SeqCst);
        loop {
            let value = seen & VALUE;
            let after = match reservation(seen) {
                None if value == 0 => return false,
                None => seen - 1,
                // The acquirer's own permit first: the others may take the rest.
                Some(reserved) if acquirer.is_named_by(reserved) => value,
                Some(_) if value > 0 => seen - 1,
                Some(reserved) if acquirer.may_take(reserved) => value,
                Some(_) => return false,
            };
            match self.0.compare_exchange(seen, after, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
    }

    /// Frees a permit: for one waiter if `next` names one and no other waiter has a reservation
    /// that is still valid, otherwise for all. `None` if `most` permits are free already, reserved
    /// ones included.
    #[inline]
    pub(crate) fn free(
        self,
        most: u64,
        next: Option<Reservation>,
        clock: fn() -> u64,
    ) -> Option<Freed> {
        let mut seen = self.0.load(Ordering::SeqCst);
        loop {
            let (value, reserved) = (seen & VALUE, reservation(seen));
            if value + u64::from(reserved.is_some()) >= most {
                return None;
            }
            let is_pending = |reserved: Reservation| !reserved.has_expired(clock());
            let (after, freed) = if next.is_some() && !reserved.is_some_and(is_pending) {
                (with(value + u64::from(reserved.is_some()), next), Freed::ForOne)
            } else {
                (seen + 1, Freed::ForAll)
            };
            match self.0.compare_exchange(seen, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(freed),
                Err(other) => seen = other,
            }
        }
    }

    /// Reserves the permit for `next` instead, or frees it for all. False if no permit is
    /// `reserved` any more.
    pub(crate) fn replace_reservation(
        self,
        reserved: Reservation,
        next: Option<Reservation>,
    ) -> bool {
        let mut seen = self.0.load(Ordering::SeqCst);
        while reservation(seen) == Some(reserved) {
            let value = seen & VALUE;
            let after = if next.is_none() { value + 1 } else { with(value, next) };
            match self.0.compare_exchange(seen, after, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    /// Frees for all the permit that is reserved for this ticket. False if none is.
    pub(crate) fn cancel_reservation(self, ticket: u64) -> bool {
        let reserved = reservation(self.0.load(Ordering::SeqCst));
        reserved.is_some_and(|reserved| {
            reserved.is_for(ticket) && self.replace_reservation(reserved, None)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOBODY: Acquirer = Acquirer { ticket: None, clock: || 0 };
    const FIRST: Acquirer = Acquirer { ticket: Some(7), ..NOBODY };

    const RESERVED_FOR_FIRST: Option<Reservation> = Some(Reservation::new(7, 0));

    #[test]
    fn a_reserved_permit_counts_towards_the_most_and_is_for_one_waiter() {
        let word = AtomicU64::new(0);
        let counter = Counter(&word);
        assert_eq!(counter.free(2, RESERVED_FOR_FIRST, || 0), Some(Freed::ForOne));
        assert_eq!(counter.value(|| 0), 0);
        assert_eq!(counter.value(|| 200_000_000), 1);
        assert!(!counter.try_take(NOBODY));
        // The second permit, while the first one is reserved.
        assert_eq!(counter.free(2, Some(Reservation::new(8, 0)), || 0), Some(Freed::ForAll));
        assert_eq!(counter.free(2, None, || 0), None);
        assert!(counter.try_take(FIRST));
        assert!(counter.try_take(NOBODY));
        assert!(!counter.try_take(FIRST));
    }

    #[test]
    fn a_permit_whose_reservation_expired_is_for_all_and_not_lost() {
        let word = AtomicU64::new(0);
        let counter = Counter(&word);
        let late = Acquirer { clock: || 200_000_000, ..NOBODY };
        assert_eq!(counter.free(9, RESERVED_FOR_FIRST, || 0), Some(Freed::ForOne));
        assert!(counter.try_take(late) && !counter.try_take(late));
        assert_eq!(counter.free(9, RESERVED_FOR_FIRST, || 0), Some(Freed::ForOne));
        let second = Some(Reservation::new(8, 200_000_000));
        assert_eq!(counter.free(9, second, late.clock), Some(Freed::ForOne));
        assert!(counter.try_take(late) && !counter.try_take(late));
        assert!(counter.cancel_reservation(8) && !counter.cancel_reservation(8));
        assert_eq!(counter.value(|| 0), 1);
    }
}

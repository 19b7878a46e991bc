//! A free permit that only one waiter may take, for a while.
//!
//! ```text
//!   31              16 15               0
//!  ┌──────────────────┬──────────────────┐
//!  │ ticket, low bits │ time, ms         │
//!  └──────────────────┴──────────────────┘
//! ```
//!
//! While a waiter is starving, a releaser frees the permit for the first waiter alone. Otherwise
//! acquirers that come by would be faster, again and again. The reservation names the waiter by its
//! ticket (see `places`) and not by its process, because the waiter holds nothing yet.
//!
//! A reservation expires after [`LIFETIME`]. Then any acquirer may take the permit. So a waiter
//! that was killed or stopped, or that has left, does not delay the others for longer, and nobody
//! has to find out which of these it was. Time namespaces have different times: a time from the
//! future counts as expired, like an old one. Times wrap around after 65 s. So a reservation that
//! no acquirer has met for that long holds for another tenth of a second.

use std::time::Duration;

use super::low;
use crate::mutation::rule;

/// A woken waiter runs within this time, also on a busy machine.
pub(crate) const LIFETIME: Duration = Duration::from_millis(100);

/// For which waiter a permit is free, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reservation(u32);

impl Reservation {
    pub(crate) const BITS: u32 = 32;

    /// `now` is in nanoseconds.
    pub(crate) const fn new(ticket: u64, now: u64) -> Self {
        Self(low_bits(ticket) << 16 | milliseconds(now))
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn is_for(self, ticket: u64) -> bool {
        self.0 >> 16 == low_bits(ticket)
    }

    pub(crate) fn has_expired(self, now: u64) -> bool {
        let age = milliseconds(now).wrapping_sub(self.0) & 0xffff;
        u128::from(age) >= LIFETIME.as_millis() && rule("turns/a-reservation-expires")
    }
}

const fn low_bits(ticket: u64) -> u32 {
    low(ticket) & 0xffff
}

const fn milliseconds(now: u64) -> u32 {
    low(now / 1_000_000) & 0xffff
}

/// A thread that wants a permit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acquirer {
    /// The ticket of its place, if it has one.
    pub(crate) ticket: Option<u64>,
    /// The monotonic clock, in nanoseconds.
    pub(crate) clock: fn() -> u64,
}

impl Acquirer {
    /// Whether the permit is reserved for this acquirer.
    pub(crate) fn is_named_by(self, reserved: Reservation) -> bool {
        self.ticket.is_some_and(|ticket| reserved.is_for(ticket))
    }

    /// Whether this acquirer may take the reserved permit.
    pub(crate) fn may_take(self, reserved: Reservation) -> bool {
        self.is_named_by(reserved)
            || reserved.has_expired((self.clock)())
            || !rule("turns/a-reserved-permit-is-for-one-waiter")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_reservation_is_for_one_ticket_until_it_expires() {
        for began in [0, 7 * MS, 65_500 * MS, 65_535 * MS, 1 << 50] {
            let reserved = Reservation::new(0x1_0007, began);
            assert!(reserved.is_for(0x1_0007) && !reserved.is_for(0x1_0008));
            assert!(!reserved.has_expired(began));
            assert!(!reserved.has_expired(began + 99 * MS));
            assert!(reserved.has_expired(began + 101 * MS));
            assert_eq!(Reservation::from_bits(reserved.bits()), reserved);
        }
    }

    #[test]
    fn a_reservation_from_the_future_has_expired() {
        assert!(Reservation::new(1, 1_000 * MS).has_expired(5 * MS));
    }
}

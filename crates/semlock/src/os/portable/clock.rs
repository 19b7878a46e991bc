//! The monotonic clock, as a number that processes can compare.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// The same: there is no cheaper one.
pub(crate) fn about_now() -> u64 {
    now()
}

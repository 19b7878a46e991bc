//! The monotonic clock, as a number that processes can compare.

use rustix::time::{ClockId, clock_gettime};

/// In nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The same: no clock is cheaper.
pub(crate) fn about_now() -> u64 {
    now()
}

pub(crate) fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

//! The monotonic clock, where the system has a cheaper one that is some milliseconds late.

use rustix::time::ClockId;

use super::clock::nanoseconds;

/// In nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The same clock, some milliseconds late and much cheaper.
pub(crate) fn about_now() -> u64 {
    nanoseconds(ClockId::MonotonicCoarse)
}

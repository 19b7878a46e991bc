//! The monotonic clock, as a number that processes can compare.

use std::mem::MaybeUninit;

/// In nanoseconds, of `CLOCK_UPTIME_RAW`: macOS derives `CLOCK_MONOTONIC` from the wall clock, and
/// it is coarser.
pub(crate) fn now() -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: room for a timespec, which it fills: this clock is always there.
    let time = unsafe {
        libc::clock_gettime(libc::CLOCK_UPTIME_RAW, time.as_mut_ptr());
        time.assume_init()
    };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// The same: no clock is cheaper.
pub(crate) fn about_now() -> u64 {
    now()
}

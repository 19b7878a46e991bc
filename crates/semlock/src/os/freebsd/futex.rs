//! `_umtx_op(2)`, which does not tell how many threads it woke.

use std::ffi::{c_int, c_ulong, c_void};
use std::io;
use std::ptr::{null_mut, without_provenance_mut};
use std::time::Duration;

use libc::{UMTX_OP_WAIT_UINT, UMTX_OP_WAIT_UINT_PRIVATE, UMTX_OP_WAKE, UMTX_OP_WAKE_PRIVATE};

use crate::atomic::AtomicU32;
use crate::os::futex::{Reach, Slept, Woke};

fn object(word: &AtomicU32) -> *mut c_void {
    word.as_ptr().cast()
}

/// `UMTX_OP_WAIT_UINT`.
pub(crate) fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>, reach: Reach) -> Slept {
    let operation = match reach {
        Reach::Process => UMTX_OP_WAIT_UINT_PRIVATE,
        Reach::Machine => UMTX_OP_WAIT_UINT,
    };
    // A time that a timespec cannot hold is as good as forever.
    let seconds = time.and_then(|time| libc::time_t::try_from(time.as_secs()).ok());
    let mut time = time.zip(seconds).map(|(time, seconds)| libc::_umtx_time {
        _timeout: libc::timespec {
            tv_sec: seconds,
            // Below 10^9, which fits into any `c_long`.
            #[allow(clippy::cast_lossless)] // of 32 bits on some machines
            tv_nsec: time.subsec_nanos() as libc::c_long,
        },
        // A length of time, and no moment.
        _flags: 0,
        _clockid: libc::CLOCK_MONOTONIC.cast_unsigned(),
    });
    // The size of the time, if there is one, is passed as a pointer.
    let (size, time) = time.as_mut().map_or((null_mut(), null_mut()), |time| {
        let size = without_provenance_mut(size_of::<libc::_umtx_time>());
        (size, std::ptr::from_mut(time).cast())
    });
    // SAFETY: a valid word of 4 bytes, aligned to 4, which this does not write; no time, or one of
    // that size.
    let result =
        unsafe { libc::_umtx_op(object(word), operation, c_ulong::from(expected), size, time) };
    if result == 0 {
        // It was woken, or the word had another value.
        return Slept::Woken;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ETIMEDOUT) => Slept::TimedOut,
        Some(libc::EINTR) => Slept::Interrupted,
        // A valid word has no other error.
        _ => Slept::Woken,
    }
}

/// `UMTX_OP_WAKE`.
fn wake(word: &AtomicU32, most: c_int, reach: Reach) {
    let operation = match reach {
        Reach::Process => UMTX_OP_WAKE_PRIVATE,
        Reach::Machine => UMTX_OP_WAKE,
    };
    let most = most.cast_unsigned().into();
    // SAFETY: a valid word of 4 bytes, aligned to 4, which this does not write.
    unsafe { libc::_umtx_op(object(word), operation, most, null_mut(), null_mut()) };
}

pub(crate) fn wake_one(word: &AtomicU32, reach: Reach) -> Woke {
    wake(word, 1, reach);
    Woke::Unknown
}

pub(crate) fn wake_all(word: &AtomicU32, reach: Reach) {
    wake(word, c_int::MAX, reach);
}

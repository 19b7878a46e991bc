//! `futex(2)`.

use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

use crate::atomic::AtomicU32;
use crate::os::futex::{Reach, Slept, Woke};

fn flags(reach: Reach) -> futex::Flags {
    match reach {
        Reach::Process => futex::Flags::PRIVATE,
        Reach::Machine => futex::Flags::empty(),
    }
}

/// `FUTEX_WAIT`.
pub(crate) fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>, reach: Reach) -> Slept {
    // A time that a timespec cannot hold is as good as forever.
    let time = time.and_then(|time| time.try_into().ok());
    match futex::wait(word, flags(reach), expected, time.as_ref()) {
        Err(Errno::TIMEDOUT) => Slept::TimedOut,
        Err(Errno::INTR) => Slept::Interrupted,
        // EAGAIN means another value. A valid word has no other error.
        Ok(()) | Err(_) => Slept::Woken,
    }
}

/// `FUTEX_WAKE`.
pub(crate) fn wake_one(word: &AtomicU32, reach: Reach) -> Woke {
    match futex::wake(word, flags(reach), 1) {
        Ok(1..) => Woke::One,
        _ => Woke::Nobody,
    }
}

/// `FUTEX_WAKE`.
pub(crate) fn wake_all(word: &AtomicU32, reach: Reach) {
    // The kernel takes an int. A valid word has no error.
    let _ = futex::wake(word, flags(reach), i32::MAX.cast_unsigned());
}

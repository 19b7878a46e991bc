//! `futex(2)`, shared between processes.

use std::ptr::from_ref;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

use crate::atomic::{AtomicU32, AtomicU64};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Woken, or the word had another value.
    Woken,
    TimedOut,
    Interrupted,
}

/// The half of a word that a futex compares: the low one.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let halves = from_ref(word).cast::<AtomicU32>();
    // SAFETY: the word is valid for eight bytes and aligned for more than a u32's. Its low half is
    // the first on little-endian machines and the second on others. Both are only reached by
    // atomic instructions; the kernel, which gets this address, reads it by one too.
    unsafe { &*halves.add(usize::from(cfg!(target_endian = "big"))) }
}

/// Sleeps while the low half of `word` is `expected`: `FUTEX_WAIT`.
pub(crate) fn wait(word: &AtomicU64, expected: u32, time: Option<Duration>) -> Waited {
    // What a timespec cannot hold is as good as for ever.
    let time = time.and_then(|time| time.try_into().ok());
    match futex::wait(low_half(word), futex::Flags::empty(), expected, time.as_ref()) {
        Err(Errno::TIMEDOUT) => Waited::TimedOut,
        Err(Errno::INTR) => Waited::Interrupted,
        // EAGAIN is another value. There is nothing else that a valid word could be refused for.
        Ok(()) | Err(_) => Waited::Woken,
    }
}

/// Wakes those that sleep on the low half of `word`: `FUTEX_WAKE`.
pub(crate) fn wake(word: &AtomicU64, most: u32) -> u32 {
    // The kernel takes an int.
    let most = most.min(i32::MAX.cast_unsigned());
    let woken = futex::wake(low_half(word), futex::Flags::empty(), most).unwrap_or(0);
    u32::try_from(woken).unwrap_or(u32::MAX)
}

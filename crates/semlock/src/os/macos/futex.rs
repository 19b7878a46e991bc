//! `os_sync_wait_on_address`, which macOS has since 14.4; naps before that.
//!
//! The functions are looked up at run time, since a program has to start on a system that is older than the one it was
//! built on. What they promise stands in `<os/os_sync_wait_on_address.h>`:
//!
//! - A wait compares 4 bytes, and ends when it is woken, or at once where they differ: with the number of those who
//!   still sleep. Otherwise with -1 and `ETIMEDOUT`; `EINTR`; `EFAULT` or `ENOMEM`, where it may be tried again after a look
//!   at the word; or `EINVAL`.
//! - A wake-up fails with `ENOENT` where nobody sleeps there.
//! - Who wakes and who sleeps say the same about being `SHARED`.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::transmute_copy;
use std::time::Duration;

use libc::{
    OS_CLOCK_MACH_ABSOLUTE_TIME, OS_SYNC_WAIT_ON_ADDRESS_NONE, OS_SYNC_WAIT_ON_ADDRESS_SHARED,
    OS_SYNC_WAKE_BY_ADDRESS_NONE, OS_SYNC_WAKE_BY_ADDRESS_SHARED,
};
use once_cell::race::OnceBox;

use crate::atomic::AtomicU32;
use crate::os::futex::{Reach, Slept, Woke};
use crate::os::posix::polling_futex;
use crate::os::posix::symbol::symbol;

type Wait = unsafe extern "C" fn(*mut c_void, u64, usize, u32) -> c_int;
type WaitWithTimeout = unsafe extern "C" fn(*mut c_void, u64, usize, u32, u32, u64) -> c_int;
type Wake = unsafe extern "C" fn(*mut c_void, usize, u32) -> c_int;

#[derive(Clone, Copy)]
struct Functions {
    wait: Wait,
    wait_with_timeout: WaitWithTimeout,
    wake_any: Wake,
    wake_all: Wake,
}

/// What this system has, found out once.
fn functions() -> Option<&'static Functions> {
    static FOUND: OnceBox<Option<Functions>> = OnceBox::new();
    FOUND.get_or_init(|| Box::new(find())).as_ref()
}

fn find() -> Option<Functions> {
    let wait = symbol(c"os_sync_wait_on_address")?;
    let wait_with_timeout = symbol(c"os_sync_wait_on_address_with_timeout")?;
    let wake_any = symbol(c"os_sync_wake_by_address_any")?;
    let wake_all = symbol(c"os_sync_wake_by_address_all")?;
    // SAFETY: wherever these functions exist, they have these signatures.
    Some(unsafe {
        Functions {
            wait: transmute_copy(&wait),
            wait_with_timeout: transmute_copy(&wait_with_timeout),
            wake_any: transmute_copy(&wake_any),
            wake_all: transmute_copy(&wake_all),
        }
    })
}

/// What they compare and lock up: the word, as they take it.
fn address(word: &AtomicU32) -> *mut c_void {
    word.as_ptr().cast()
}

fn errno() -> c_int {
    io::Error::last_os_error().raw_os_error().unwrap_or_default()
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>, reach: Reach) -> Slept {
    let Some(functions) = functions() else {
        return polling_futex::wait(word, expected, time, reach);
    };
    let flags = match reach {
        Reach::Process => OS_SYNC_WAIT_ON_ADDRESS_NONE,
        Reach::Machine => OS_SYNC_WAIT_ON_ADDRESS_SHARED,
    };
    let (value, size) = (u64::from(expected), size_of::<AtomicU32>());
    let result = match time {
        // SAFETY: a word that is valid, of 4 bytes and aligned to as many; nothing is written there.
        None => unsafe { (functions.wait)(address(word), value, size, flags) },
        Some(time) => {
            // A time of 0 is refused.
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
            let clock = OS_CLOCK_MACH_ABSOLUTE_TIME;
            // SAFETY: as above; a clock that it knows, and nanoseconds.
            unsafe { (functions.wait_with_timeout)(address(word), value, size, flags, clock, time) }
        }
    };
    if result >= 0 {
        return Slept::Woken;
    }
    match errno() {
        libc::ETIMEDOUT => Slept::TimedOut,
        libc::EINTR => Slept::Interrupted,
        libc::EFAULT | libc::ENOMEM => Slept::Woken,
        // Whatever it is, it may be so again: who would look at the word at once would never rest.
        _ => polling_futex::wait(word, expected, time, reach),
    }
}

fn flags_to_wake(reach: Reach) -> u32 {
    match reach {
        Reach::Process => OS_SYNC_WAKE_BY_ADDRESS_NONE,
        Reach::Machine => OS_SYNC_WAKE_BY_ADDRESS_SHARED,
    }
}

pub(crate) fn wake_one(word: &AtomicU32, reach: Reach) -> Woke {
    let Some(functions) = functions() else { return polling_futex::wake_one(word, reach) };
    // SAFETY: a word that is valid, of 4 bytes and aligned to as many; nothing is written there.
    let result = unsafe {
        (functions.wake_any)(address(word), size_of::<AtomicU32>(), flags_to_wake(reach))
    };
    match result {
        0.. => Woke::One,
        _ if errno() == libc::ENOENT => Woke::Nobody,
        _ => Woke::Unknown,
    }
}

pub(crate) fn wake_all(word: &AtomicU32, reach: Reach) {
    let Some(functions) = functions() else { return polling_futex::wake_all(word, reach) };
    // SAFETY: as for `wake_one`.
    unsafe { (functions.wake_all)(address(word), size_of::<AtomicU32>(), flags_to_wake(reach)) };
}

//! `os_sync_wait_on_address`, which macOS has since 14.4; polling before that.
//!
//! What these functions promise is in `<os/os_sync_wait_on_address.h>`:
//!
//! - A wait compares 4 bytes. It ends when it is woken, or at once if they differ, and returns how
//!   many threads still sleep. Else it returns -1 and `ETIMEDOUT`; `EINTR`; `EFAULT` or `ENOMEM`,
//!   after which the caller may check the word and try again; or `EINVAL`.
//! - A wake-up fails with `ENOENT` if no thread sleeps there.
//! - The waiter and the waker pass the same `SHARED` flag.

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

/// The functions, if this system has them; looked up once.
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

/// The word, as these functions take it.
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
        // SAFETY: a valid word of 4 bytes, aligned to 4, which this does not write.
        None => unsafe { (functions.wait)(address(word), value, size, flags) },
        Some(time) => {
            // A time of 0 is an error.
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
        // Any other error may come again: a waiter that tried again at once would never sleep.
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
    // SAFETY: a valid word of 4 bytes, aligned to 4, which this does not write.
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

//! The state of a lock, and the marks of a queue's lock.

use std::ffi::c_void;

use pyo3::ffi::PyObject;
use semlock::raw;

use super::Lock;
use crate::ffi::objects::{flag, held};
use crate::ffi::values::{boolean, long, long_or_none, none, string};
use crate::ffi::waits::detached;

/// Counts permits. It detaches the thread where there are many.
pub(super) fn counted<T: Send>(lock: &Lock, count: impl FnOnce(&raw::Lock) -> T + Send) -> T {
    if lock.raw.counts_at_length() { detached(|| count(&lock.raw)) } else { count(&lock.raw) }
}

/// A function of a table that returns part of a lock's state.
macro_rules! tells {
    ($name:ident, $lock:ident => $answer:expr) => {
        pub(super) unsafe extern "C" fn $name(
            slf: *mut PyObject,
            _: *mut PyObject,
        ) -> *mut PyObject {
            let $lock: &Lock = held!(slf);
            $answer
        }
    };
}

tells!(is_zero, lock => boolean(counted(lock, raw::Lock::is_zero)));
tells!(get_value, lock => long(counted(lock, raw::Lock::value)));
tells!(count, lock => long(lock.raw.count()));
tells!(is_mine, lock => boolean(lock.raw.is_mine()));
tells!(holder, lock => long_or_none(lock.raw.holder()));
tells!(free_those_of_the_dead, lock => {
    detached(|| lock.raw.free_those_of_the_dead());
    none()
});

pub(super) unsafe extern "C" fn recovered(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    long_or_none(lock.raw.recovered())
}

/// The one argument of the constructor that a pickle carries: the others stand in the segment.
pub(super) unsafe extern "C" fn on_owner_died(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let _there: &Lock = held!(slf);
    // SAFETY: `slf` comes from Python.
    string(if unsafe { flag(slf) } { "ignore" } else { "warn" })
}

//! Acquiring and releasing: the hot path, and what happens when an owner died.

use std::ptr;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use semlock::{Deadline, Wait};

use super::Lock;
use crate::ffi::arguments::{self, acquire_arguments, is_none, refuse_exit, truth};
use crate::ffi::calls::{call_new, imported};
use crate::ffi::class_names::class_of;
use crate::ffi::errors::raise;
use crate::ffi::objects::{flag, held};
use crate::ffi::values::{boolean, long, none};
use crate::ffi::waits::{self, detached};
use crate::warned;

pub(crate) unsafe extern "C" fn acquire(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    if nargs == 0 && kwnames.is_null() {
        // SAFETY: `slf` comes from Python.
        return unsafe { acquire_or_wait(slf) };
    }
    let lock = held!(slf);
    // SAFETY: there is one argument; of False, only the address is taken.
    if nargs == 1 && kwnames.is_null() && unsafe { *args == ffi::Py_False() } {
        // SAFETY: `slf` comes from Python, and this is what it holds.
        return unsafe { acquire_now(slf, lock) };
    }
    // SAFETY: these are the arguments that Python gave.
    unsafe { acquire_with(slf, lock, args, nargs, kwnames) }
}

/// A lock's `try_acquire`. It detaches the thread while it checks many holders.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
fn try_acquire(lock: &Lock) -> Wait {
    lock.raw.try_acquire_with(|look| detached(look))
}

/// # Safety
/// Attached; `slf` is an instance of a type of this folder, or of a subclass.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
unsafe fn acquire_or_wait(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    match try_acquire(lock) {
        Wait::Acquired => boolean(true),
        // SAFETY: as for this function, and this is what it holds.
        tried => unsafe { not_at_once(slf, lock, tried, Deadline::NEVER) },
    }
}

/// # Safety
/// Attached; `slf` holds `lock`.
#[inline(never)] // keeps `acquire` short
unsafe fn acquire_now(slf: *mut PyObject, lock: &Lock) -> *mut PyObject {
    // SAFETY: as for this function.
    unsafe { ended(slf, lock, try_acquire(lock), None) }
}

/// # Safety
/// Attached; `slf` holds `lock`; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline(never)] // keeps the registers that it needs from being saved where it is not called
unsafe fn acquire_with(
    slf: *mut PyObject,
    lock: &Lock,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function.
    let Some([block, timeout]) = (unsafe { acquire_arguments(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    // SAFETY: an argument, alive during the call.
    let block = if block.is_null() { Some(true) } else { unsafe { truth(block) } };
    let Some(block) = block else {
        return ptr::null_mut();
    };
    let mut given = None;
    if !is_none(timeout) {
        // As in CPython: if the thread holds the mutex already, nobody reads its timeout.
        if lock.raw.again_if_mine() {
            return boolean(true);
        }
        // SAFETY: an argument, alive during the call.
        given = unsafe { arguments::timeout(timeout) };
        if given.is_none() {
            return ptr::null_mut();
        }
    }
    let tried = try_acquire(lock);
    if tried == Wait::Acquired {
        return boolean(true);
    }
    if !block {
        // SAFETY: as for this function.
        return unsafe { ended(slf, lock, tried, None) };
    }
    let deadline = given.map_or(Deadline::NEVER, Deadline::after);
    // SAFETY: as for this function.
    unsafe { not_at_once(slf, lock, tried, deadline) }
}

/// Continues where a try did not simply take the permit.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[cold]
unsafe fn not_at_once(
    slf: *mut PyObject,
    lock: &Lock,
    tried: Wait,
    deadline: Deadline,
) -> *mut PyObject {
    let end = match tried {
        Wait::TimedOut | Wait::Interrupted => {
            if warned::borrow(&lock.raw) {
                return boolean(true);
            }
            let mut waiter = lock.raw.waiter(deadline);
            waits::wait(|| Ok(waiter.wait()))
        }
        end => Some(end),
    };
    match end {
        // SAFETY: as for this function.
        Some(end) => unsafe { ended(slf, lock, end, Some(deadline)) },
        None => ptr::null_mut(),
    }
}

/// Makes the end of a try or a wait what `acquire` returns. Without a deadline, `acquire` does not
/// wait.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[inline]
unsafe fn ended(
    slf: *mut PyObject,
    lock: &Lock,
    end: Wait,
    deadline: Option<Deadline>,
) -> *mut PyObject {
    match end {
        Wait::Acquired => boolean(true),
        Wait::TimedOut | Wait::Interrupted => {
            boolean(deadline.is_none() && warned::borrow(&lock.raw))
        }
        // SAFETY: as for this function.
        Wait::OwnerDied(pid) => unsafe { recovered_from(slf, lock, pid, deadline) },
    }
}

/// Warns, and makes what `acquire` returns, when it took the lock over from an owner that died.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[cold]
unsafe fn recovered_from(
    slf: *mut PyObject,
    lock: &Lock,
    pid: u32,
    deadline: Option<Deadline>,
) -> *mut PyObject {
    // SAFETY: as for this function.
    let Warned { has_raised, is_held } = unsafe { warn_that_owner_died(slf, lock, pid) };
    if has_raised {
        if is_held {
            // The caller gets an exception, and so not the lock; the next owner is warned as well.
            lock.raw.give_back_as_owner_died(pid);
        }
        return ptr::null_mut();
    }
    if is_held {
        return boolean(true);
    }
    // The warning ran code that released the lock, or that still holds it: acquire it again.
    let tried = try_acquire(lock);
    // SAFETY: as for this function.
    unsafe {
        match deadline {
            Some(deadline) => not_at_once(slf, lock, tried, deadline),
            None => ended(slf, lock, tried, None),
        }
    }
}

/// How a warning ended.
pub(crate) struct Warned {
    /// It raised an exception, which is set.
    pub(crate) has_raised: bool,
    /// The thread that was warned holds the lock.
    pub(crate) is_held: bool,
}

/// Warns of an owner that died.
///
/// # Safety
/// Attached; `slf` holds `lock`, which this thread has from that owner.
#[cold]
pub(crate) unsafe fn warn_that_owner_died(slf: *mut PyObject, lock: &Lock, pid: u32) -> Warned {
    // SAFETY: as for this function.
    if unsafe { flag(slf) } {
        return Warned { has_raised: false, is_held: true };
    }
    let mut has_raised = false;
    // SAFETY: attached; `slf` is alive; new references, each passed on or released once.
    let is_held = warned::warn(&lock.raw, || unsafe {
        let warn = imported(c"semlock.errors", c"warn_that_owner_died");
        let warned = call_new(warn, [long(pid), class_of(slf)]);
        ffi::Py_XDECREF(warned);
        has_raised = warned.is_null();
    });
    Warned { has_raised, is_held }
}

pub(crate) unsafe extern "C" fn release(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this folder, or of a subclass.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
unsafe fn let_go(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    if warned::is_any() && warned::end_borrowing(&lock.raw) {
        return none();
    }
    match lock.raw.release() {
        Ok(()) => none(),
        Err(error) => raise(error),
    }
}

pub(crate) unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { acquire_or_wait(slf) }
}

pub(crate) unsafe extern "C" fn exit(
    slf: *mut PyObject,
    _: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    if nargs > 3 {
        return refuse_exit(nargs);
    }
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

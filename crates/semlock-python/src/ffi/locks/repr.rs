//! The representations of locks, which are those of `multiprocessing`.

use std::ptr;

use pyo3::ffi::{self, PyObject};
use semlock::raw;

use super::Lock;
use super::state::counted;
use crate::ffi::calls::{attribute_of_new, call_new, imported};
use crate::ffi::class_names::class_of;
use crate::ffi::objects::held;
use crate::ffi::values::{formatted, long, string};

/// The holder of a lock, and how often it holds it, in the words of `multiprocessing`.
///
/// # Safety
/// Attached; `slf` holds `lock`.
unsafe fn owner(lock: &raw::Lock) -> [*mut PyObject; 2] {
    if lock.is_mine() {
        return [caller(), long(lock.count())];
    }
    if !lock.is_zero() {
        return [string("None"), long(0)];
    }
    let other = if lock.count() > 0 { "SomeOtherThread" } else { "SomeOtherProcess" };
    [string(other), string("nonzero")]
}

/// The calling process's name, and the thread's if it is not the main one; null: exception set.
fn caller() -> *mut PyObject {
    let nothing = ptr::null_mut();
    // SAFETY: attached; each step passes on a reference of ours, or null with an exception set.
    unsafe {
        let thread = call_new(imported(c"threading", c"current_thread"), []);
        let thread = attribute_of_new(thread, c"name");
        if thread.is_null() {
            return nothing;
        }
        let process = call_new(imported(c"multiprocessing.process", c"current_process"), []);
        let process = attribute_of_new(process, c"name");
        if ffi::PyUnicode_Check(thread) != 0
            && ffi::PyUnicode_CompareWithASCIIString(thread, c"MainThread".as_ptr()) == 0
        {
            ffi::Py_DECREF(thread);
            return process;
        }
        formatted(c"%S|%S", process, thread)
    }
}

/// `told`, or "unknown" twice where finding it out raised an error. Nulls with the exception set
/// where that is no error (but Ctrl-C).
fn known(told: [*mut PyObject; 2]) -> [*mut PyObject; 2] {
    if told.iter().all(|object| !object.is_null()) {
        return told;
    }
    // SAFETY: attached, with an exception set; null or references of ours.
    unsafe {
        for object in told {
            ffi::Py_XDECREF(object);
        }
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) == 0 {
            return [ptr::null_mut(); 2];
        }
        ffi::PyErr_Clear();
    }
    [string("unknown"), string("unknown")]
}

pub(super) unsafe extern "C" fn repr_lock(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let [owner, times] = known(owner(&lock.raw));
        ffi::Py_XDECREF(times);
        formatted(c"<%S(owner=%S)>", if_told(owner, slf), owner)
    }
}

/// `class_of`, unless an exception is set already: then null.
///
/// # Safety
/// Attached; `slf` is alive.
pub(crate) unsafe fn if_told(told: *mut PyObject, slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    if told.is_null() { told } else { unsafe { class_of(slf) } }
}

pub(super) unsafe extern "C" fn repr_rlock(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let [owner, times] = known(owner(&lock.raw));
        let class = if_told(owner, slf);
        formatted(c"<%S(%S)>", class, formatted(c"%S, %S", owner, times))
    }
}

pub(super) unsafe extern "C" fn repr_semaphore(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python.
    unsafe { formatted(c"<%S(value=%S)>", class_of(slf), long(counted(lock, raw::Lock::value))) }
}

pub(super) unsafe extern "C" fn repr_bounded(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    let most = lock.raw.options().maxvalue;
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let value = counted(lock, raw::Lock::value);
        let values = formatted(c"value=%S, maxvalue=%S", long(value), long(most));
        formatted(c"<%S(%S)>", class_of(slf), values)
    }
}

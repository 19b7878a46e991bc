//! Making Python's objects of our values, and reading a `str`.

use std::ffi::CStr;
use std::ptr;

use pyo3::ffi::{self, Py_ssize_t, PyObject};

use super::interpreter::is_since_3_12;

#[inline]
pub(crate) fn boolean(value: bool) -> *mut PyObject {
    // SAFETY: attached, as everything here; only the addresses are taken.
    singleton(unsafe { if value { ffi::Py_True() } else { ffi::Py_False() } })
}

#[inline]
pub(crate) fn none() -> *mut PyObject {
    // SAFETY: attached, as everything here; only the address is taken.
    singleton(unsafe { ffi::Py_None() })
}

/// A new reference to None, True or False, which lives as long as the interpreter.
#[inline]
pub(crate) fn singleton(object: *mut PyObject) -> *mut PyObject {
    // Since 3.12 they are immortal (PEP 683): nobody has to count references to them.
    if !is_since_3_12() {
        // SAFETY: attached, as everything here; a live object. Up to 3.11 it begins with its
        // reference count, which is part of the stable ABI, and which every extension increments in
        // place.
        unsafe { *object.cast::<Py_ssize_t>() += 1 };
    }
    object
}

/// A new int; null: exception set.
pub(crate) fn long(value: impl Into<i64>) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLongLong(value.into()) }
}

/// A new int, or None; null: exception set.
pub(crate) fn long_or_none(value: Option<u32>) -> *mut PyObject {
    value.map_or_else(none, long)
}

/// A new int; null: exception set.
pub(crate) fn unsigned(value: u64) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromUnsignedLongLong(value) }
}

/// A new string; null: exception set.
pub(crate) fn string(value: &str) -> *mut PyObject {
    // SAFETY: attached; so many bytes are there. (A Py_ssize_t can hold the length of any string.)
    unsafe { ffi::PyUnicode_FromStringAndSize(value.as_ptr().cast(), value.len().cast_signed()) }
}

/// A new bytes object; null: exception set.
pub(crate) fn bytes(value: &[u8; 16]) -> *mut PyObject {
    // SAFETY: attached; so many bytes are there.
    unsafe { ffi::PyBytes_FromStringAndSize(value.as_ptr().cast(), 16) }
}

/// A new tuple, which takes over new references; null: one of them is null, or the tuple could not
/// be made, and an exception is set.
pub(crate) fn packed<const N: usize>(values: [*mut PyObject; N]) -> *mut PyObject {
    let mut all = ptr::null_mut();
    if values.iter().all(|value| !value.is_null()) {
        // SAFETY: attached; all are alive.
        all = unsafe { tuple(values.as_ptr(), N.cast_signed()) };
    }
    for value in values {
        // SAFETY: attached; null or a reference that is ours.
        unsafe { ffi::Py_XDECREF(value) };
    }
    all
}

/// Formats two objects into a new string; null: exception set. Takes over the references to them.
///
/// # Safety
/// Attached; each is null with an exception set, or a reference of the caller's; the format has two
/// places for objects.
pub(crate) unsafe fn formatted(
    format: &CStr,
    first: *mut PyObject,
    second: *mut PyObject,
) -> *mut PyObject {
    let mut string = ptr::null_mut();
    // SAFETY: as for this function.
    unsafe {
        if !first.is_null() && !second.is_null() {
            string = ffi::PyUnicode_FromFormat(format.as_ptr(), first, second);
        }
        ffi::Py_XDECREF(first);
        ffi::Py_XDECREF(second);
    }
    string
}

/// A new tuple of arguments; null: exception set.
///
/// # Safety
/// Attached; there are `nargs` live arguments.
pub(crate) unsafe fn tuple(args: *const *mut PyObject, nargs: Py_ssize_t) -> *mut PyObject {
    // SAFETY: attached.
    let tuple = unsafe { ffi::PyTuple_New(nargs) };
    if !tuple.is_null() {
        for index in 0..nargs {
            // SAFETY: a new tuple of `nargs` items. Each is set once, to a reference that it takes
            // over.
            unsafe { ffi::PyTuple_SetItem(tuple, index, ffi::Py_NewRef(*args.offset(index))) };
        }
    }
    tuple
}

/// What a `str` holds; `None`: exception set.
///
/// # Safety
/// Attached; `object` is a string that lives as long as the result is used.
pub(crate) unsafe fn text<'a>(object: *mut PyObject) -> Option<&'a str> {
    let mut size = 0;
    // SAFETY: a live string, and a place for a size.
    let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(object, &raw mut size) };
    if data.is_null() {
        return None;
    }
    // SAFETY: so many bytes are there, in UTF-8, while the string lives.
    Some(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), size.unsigned_abs()))
    })
}

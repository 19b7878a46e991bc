//! How messages and representations call an object's class.

use std::ffi::CStr;

use pyo3::ffi::{self, PyObject};

use super::calls::attribute_of_new;
use super::values::{formatted, text};

/// What messages call it, which is "None" for None; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
#[cold]
pub(crate) unsafe fn type_name(object: *mut PyObject) -> Option<String> {
    // SAFETY: only the address is used.
    if object == unsafe { ffi::Py_None() } {
        return Some("None".to_owned());
    }
    // SAFETY: as for this function.
    unsafe { copied(of_class(object, c"__name__")) }
}

/// What most representations begin with, a new string; null: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn class_of(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    unsafe { of_class(object, c"__name__") }
}

/// Its name with the classes that it is nested in; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn class_qualname(object: *mut PyObject) -> Option<String> {
    // SAFETY: as for this function.
    unsafe { copied(of_class(object, c"__qualname__")) }
}

/// The same with its module; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
#[cold]
pub(crate) unsafe fn class_with_module(object: *mut PyObject) -> Option<String> {
    // SAFETY: as for this function; a format for two objects.
    unsafe {
        let [module, name] =
            [c"__module__", c"__qualname__"].map(|attribute| of_class(object, attribute));
        copied(formatted(c"%S.%S", module, name))
    }
}

/// An attribute of an object's class: a new reference; null: exception set.
///
/// # Safety
/// Attached; `object` is alive.
unsafe fn of_class(object: *mut PyObject, attribute: &CStr) -> *mut PyObject {
    // SAFETY: as for this function; the class lives as long as its instance.
    unsafe { attribute_of_new(ffi::Py_NewRef(ffi::Py_TYPE(object).cast()), attribute) }
}

/// What a `str` holds, to which the reference is given up; `None`: exception set.
///
/// # Safety
/// Attached; `string` is null with an exception set, or a string and a reference of the caller's.
unsafe fn copied(string: *mut PyObject) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: as for this function; the reference is given back when the string was copied.
    unsafe {
        let copied = text(string).map(str::to_owned);
        ffi::Py_DECREF(string);
        copied
    }
}

//! Looking up and calling Python's functions.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::values::packed;

/// Does what may run Python code, with functions that are declared to let unwind.
///
/// Up to CPython 3.13 a daemon thread that comes back to Python while the interpreter ends is ended there. With glibc that
/// unwinds its stack, which must not cross frames that know nothing of it; and what is below is not to be ended, for the
/// rest of the process still uses it. So the thread stops here for good, as it does by itself since 3.14.
fn unwound_no_further<R>(call: impl FnOnce() -> R) -> R {
    struct Stops;

    impl Drop for Stops {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }

    let stops = Stops;
    let result = call();
    std::mem::forget(stops);
    result
}

/// A function of `pyo3::ffi`'s, which are declared not to unwind, as one that may. (Two declarations of one function would
/// become one, and that would not unwind.)
macro_rules! unwinding {
    ($function:path, ($($argument:ty),*) -> $result:ty) => {{
        let function = $function as unsafe extern "C" fn($($argument),*) -> $result;
        // In an unsafe block: these two are called alike.
        std::hint::black_box(std::mem::transmute::<
            unsafe extern "C" fn($($argument),*) -> $result,
            unsafe extern "C-unwind" fn($($argument),*) -> $result,
        >(function))
    }};
}

/// Something of a module's, imported if need be: a new reference; null: exception set.
pub(crate) fn imported(module: &CStr, name: &CStr) -> *mut PyObject {
    // SAFETY: attached, and C strings.
    let module = unwound_no_further(|| unsafe {
        unwinding!(ffi::PyImport_ImportModule, (*const c_char) -> *mut PyObject)(module.as_ptr())
    });
    // SAFETY: null with an exception set, or a new reference.
    unsafe { attribute_of_new(module, name) }
}

/// An attribute of something to which the reference is given up: a new reference; null: exception
/// set.
///
/// # Safety
/// `of` is null with an exception set, or a reference of the caller's.
pub(crate) unsafe fn attribute_of_new(of: *mut PyObject, name: &CStr) -> *mut PyObject {
    if of.is_null() {
        return of;
    }
    // SAFETY: attached; a live object, until the caller's reference is given back; a C string.
    unsafe {
        let attribute = ffi::PyObject_GetAttrString(of, name.as_ptr());
        ffi::Py_DECREF(of);
        attribute
    }
}

/// Calls something: a new reference; null: exception set.
///
/// # Safety
/// Attached; `function` is alive, `args` a tuple and `kwargs` a dictionary or null.
pub(crate) unsafe fn call(
    function: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function.
    unwound_no_further(|| unsafe {
        unwinding!(
            ffi::PyObject_Call,
            (*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject
        )(function, args, kwargs)
    })
}

/// Calls something to which the reference is given up, with new references, which are given up too: a new reference;
/// null: exception set.
///
/// # Safety
/// All are null with an exception set, or references of the caller's.
pub(crate) unsafe fn call_new<const N: usize>(
    function: *mut PyObject,
    args: [*mut PyObject; N],
) -> *mut PyObject {
    let args = packed(args);
    let mut result = ptr::null_mut();
    // SAFETY: attached; live objects, and references that are ours or null.
    unsafe {
        if !function.is_null() && !args.is_null() {
            result = call(function, args, ptr::null_mut());
        }
        ffi::Py_XDECREF(args);
        ffi::Py_XDECREF(function);
    }
    result
}

/// The same for what is not written against the C interface.
pub(crate) fn call_bound<'py, const N: usize>(
    function: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    let args = args.map(|argument| argument.clone().into_ptr());
    // SAFETY: attached, as there are bound objects; new references.
    unsafe {
        let result = call_new(function.clone().into_ptr(), args);
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// Whether something is true; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn is_true(object: *mut PyObject) -> Option<bool> {
    // SAFETY: as for this function.
    match unwound_no_further(|| unsafe {
        unwinding!(ffi::PyObject_IsTrue, (*mut PyObject) -> c_int)(object)
    }) {
        -1 => None,
        truth => Some(truth != 0),
    }
}

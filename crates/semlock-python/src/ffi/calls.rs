//! Looking up and calling Python's functions.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::values::packed;

/// Makes a call that may run Python code, with a function that is declared to let unwind.
///
/// Up to CPython 3.13 the interpreter, while it ends, ends each daemon thread that returns to
/// Python. With glibc that unwinds the thread's stack. The unwinding must not cross our frames,
/// which do not expect it, and must not drop what they own, which the rest of the process still
/// uses. So the thread stops here for good. (Since 3.14 the interpreter itself stops it.)
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

/// A function of `pyo3::ffi`, all of which are declared not to unwind, as one that may. (A second
/// declaration of the function would not help: the compiler makes one of the two, which does not
/// unwind.)
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

/// An attribute of a module, which is imported if need be: a new reference; null: exception set.
pub(crate) fn imported(module: &CStr, name: &CStr) -> *mut PyObject {
    // SAFETY: attached, and C strings.
    let module = unwound_no_further(|| unsafe {
        unwinding!(ffi::PyImport_ImportModule, (*const c_char) -> *mut PyObject)(module.as_ptr())
    });
    // SAFETY: null with an exception set, or a new reference.
    unsafe { attribute_of_new(module, name) }
}

/// An attribute of an object: a new reference; null: exception set. Takes over the reference to the
/// object.
///
/// # Safety
/// `of` is null with an exception set, or a reference of the caller's.
pub(crate) unsafe fn attribute_of_new(of: *mut PyObject, name: &CStr) -> *mut PyObject {
    if of.is_null() {
        return of;
    }
    // SAFETY: attached; a live object, until its reference is released; a C string.
    unsafe {
        let attribute = ffi::PyObject_GetAttrString(of, name.as_ptr());
        ffi::Py_DECREF(of);
        attribute
    }
}

/// Calls a function: a new reference; null: exception set.
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

/// Calls a function: a new reference; null: exception set. Takes over the references to the
/// function and to its arguments.
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

/// The same for bound objects.
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

/// Whether an object is true; `None`: exception set.
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

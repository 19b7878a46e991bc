//! The one place that says which of Python's exceptions stands for an error of the core.

use std::ffi::{CString, c_int};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use semlock::Error;

use super::values::{long, packed, string};

/// The exceptions that we raise with a message of our own.
#[derive(Clone, Copy)]
pub(crate) enum Exception {
    Assertion,
    Eof,
    Lookup,
    Os,
    Overflow,
    Runtime,
    Type,
    Value,
}

/// Sets an exception with a message. Returns null, for the caller to return.
#[cold]
pub(crate) fn raise_as(exception: Exception, message: String) -> *mut PyObject {
    let message = CString::new(message).unwrap_or_default();
    // SAFETY: attached; the exceptions live as long as the interpreter, and it is a C string.
    unsafe {
        let class = match exception {
            Exception::Assertion => ffi::PyExc_AssertionError,
            Exception::Eof => ffi::PyExc_EOFError,
            Exception::Lookup => ffi::PyExc_LookupError,
            Exception::Os => ffi::PyExc_OSError,
            Exception::Overflow => ffi::PyExc_OverflowError,
            Exception::Runtime => ffi::PyExc_RuntimeError,
            Exception::Type => ffi::PyExc_TypeError,
            Exception::Value => ffi::PyExc_ValueError,
        };
        ffi::PyErr_SetString(class, message.as_ptr());
    }
    ptr::null_mut()
}

/// Sets the exception that stands for an error. Returns null, for the caller to return. Where
/// CPython's own modules can meet the same error, they raise the same exception.
#[cold]
pub(crate) fn raise(error: Error) -> *mut PyObject {
    let exception = match error {
        Error::Os { errno, .. } => return raise_of_system(errno),
        Error::DescriptorLost => return raise_os(libc::EBADF, &error),
        Error::FileSizeLimit { .. } => return raise_os(libc::EFBIG, &error),
        // The message tells how each way failed; the first failure is the one to look into.
        Error::NoSharedMemory([first, ..]) => return raise_os(first.errno, &error),
        Error::ValueUnavailable => {
            // SAFETY: attached; the exception lives as long as the interpreter.
            unsafe { ffi::PyErr_SetNone(ffi::PyExc_NotImplementedError) };
            return ptr::null_mut();
        }
        Error::NotOwner => Exception::Assertion,
        Error::SegmentNotMapped => Exception::Lookup,
        Error::TooManyWaiters => Exception::Runtime,
        Error::MessageLost => Exception::Eof,
        _ => Exception::Value,
    };
    raise_as(exception, error.to_string())
}

/// Sets the `OSError` of an error number. Returns null, for the caller to return.
#[cfg(not(windows))]
pub(crate) fn raise_of_system(errno: c_int) -> *mut PyObject {
    errno::set_errno(errno::Errno(errno));
    // SAFETY: attached; the exception lives as long as the interpreter.
    unsafe { ffi::PyErr_SetFromErrno(ffi::PyExc_OSError) }
}

/// Sets the `OSError` of what `GetLastError` returned. Returns null, for the caller to return.
#[cfg(windows)]
pub(crate) fn raise_of_system(error: c_int) -> *mut PyObject {
    if !super::windows::exports::Interpreter::find().set_error(error) {
        let error = std::io::Error::from_raw_os_error(error);
        raise_as(Exception::Runtime, error.to_string());
    }
    ptr::null_mut()
}

/// Sets an `OSError` with a number, and a message that says more than the number. Returns null, for
/// the caller to return.
fn raise_os(errno: c_int, error: &Error) -> *mut PyObject {
    let [number, message] = [long(errno), string(&error.to_string())];
    let args = packed([number, message]);
    if !args.is_null() {
        // SAFETY: attached; an exception's class, and its arguments, whose reference is ours to
        // release.
        unsafe {
            ffi::PyErr_SetObject(ffi::PyExc_OSError, args);
            ffi::Py_DECREF(args);
        }
    }
    ptr::null_mut()
}

/// The same for `#[pymethods]`.
#[cold]
pub(crate) fn exception(py: Python<'_>, error: Error) -> PyErr {
    raise(error);
    PyErr::fetch(py)
}

//! semlock's errors as Python's exceptions.

use pyo3::exceptions::{PyAssertionError, PyNotImplementedError, PyOSError, PyValueError};
use pyo3::prelude::*;
use semlock::Error;

/// The exception that CPython's `_multiprocessing` raises for this.
#[cold]
pub(crate) fn exception(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::NotOwner => PyAssertionError::new_err(error.to_string()),
        Error::ValueUnavailable => PyNotImplementedError::new_err(()),
        Error::Os { errno, .. } => os_error(py, errno),
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// `OSError(errno, strerror)`, which Python turns into the subclass for this errno.
fn os_error(py: Python<'_>, errno: i32) -> PyErr {
    let message = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (errno,)))
        .and_then(|message| message.extract::<String>());
    match message {
        Ok(message) => PyOSError::new_err((errno, message)),
        Err(error) => error,
    }
}

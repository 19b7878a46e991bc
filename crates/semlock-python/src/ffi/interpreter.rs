//! The interpreter that imports the module.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Set when the module is made, and only read from then on.
static SINCE_3_12: AtomicBool = AtomicBool::new(false);

/// Refuses subinterpreters. Our types and exceptions are made once, in the process's first
/// interpreter: in another one, they would differ from its own of the same names.
pub(crate) fn check_interpreter() -> PyResult<()> {
    // SAFETY: attached, so there is one.
    match unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } {
        0 => Ok(()),
        _ => Err(PyImportError::new_err("semlock cannot be used in subinterpreters")),
    }
}

/// Notes what the interpreter is, before anything else of this folder is called.
pub(crate) fn prepare(py: Python<'_>) {
    SINCE_3_12.store(py.version_info() >= (3, 12), Ordering::Relaxed);
}

/// Whether this interpreter is CPython 3.12 or newer.
#[inline]
pub(crate) fn is_since_3_12() -> bool {
    SINCE_3_12.load(Ordering::Relaxed)
}

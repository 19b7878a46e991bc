//! `semlock._multiprocessing`: the names of CPython's `_multiprocessing`, over semlock.

#[allow(unsafe_code)]
mod ffi;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What CPython's `_multiprocessing` offers, over semlock: see `semlock.install()`.
#[pymodule(gil_used = false)]
fn _multiprocessing(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // What CPython's configure finds out. setattr, because add would make an `__all__`.
    let flags = PyDict::new(py);
    flags.set_item("HAVE_SEM_OPEN", 1)?;
    flags.set_item("HAVE_SEM_TIMEDWAIT", 1)?;
    module.setattr("SemLock", ffi::semlock_type(py)?)?;
    module.setattr("sem_unlink", ffi::sem_unlink_function(module)?)?;
    module.setattr("flags", flags)
}

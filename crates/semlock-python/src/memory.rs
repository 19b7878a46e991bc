//! Files and memory by their descriptors, for the Python side.

use std::os::fd::{IntoRawFd, RawFd};

use pyo3::prelude::*;
use semlock::raw;

use crate::capi::exception;
use crate::objects::numbers;

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // setattr, because add would make an `__all__`.
    module.setattr("_file_id", wrap_pyfunction!(file_id, module)?)?;
    module.setattr("_new_memory", wrap_pyfunction!(new_memory, module)?)
}

/// What tells the file that is open under a number from all others: its device, inode, mode, number of names and length, and
/// when it was made; that is 0 where nobody can tell.
///
/// Raises `OSError` for a number that nothing is open under.
#[pyfunction(name = "_file_id", signature = (fd, /))]
fn file_id(py: Python<'_>, fd: RawFd) -> PyResult<(u64, u64, u64, u64, u64, u64)> {
    let file = raw::FileId::of_number(fd).map_err(|error| exception(py, error))?;
    Ok(numbers(file).into())
}

/// A descriptor of new memory of so many bytes, all zero, that can be shared and has no name.
///
/// Raises `OSError` where there is none.
#[pyfunction(name = "_new_memory", signature = (size, /))]
fn new_memory(py: Python<'_>, size: u64) -> PyResult<RawFd> {
    let memory = py.detach(|| raw::new_memory(size));
    memory.map(IntoRawFd::into_raw_fd).map_err(|error| exception(py, error))
}

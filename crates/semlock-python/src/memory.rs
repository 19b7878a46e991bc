//! Files and memory by their descriptors, for the Python code.

use std::os::fd::{IntoRawFd, RawFd};

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use semlock::raw;
use semlock::raw::layout::{self, header, lock, node, permit};

use crate::ffi::errors::exception;
use crate::ffi::sharing::numbers;

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // setattr, because add would make an `__all__`.
    module.setattr("_file_id", wrap_pyfunction!(file_id, module)?)?;
    module.setattr("_is_open_as", wrap_pyfunction!(is_open_as, module)?)?;
    module.setattr("_new_memory", wrap_pyfunction!(new_memory, module)?)?;
    module.setattr("_layout", wrap_pyfunction!(words_by_name, module)?)
}

/// What tells the file that is open under a descriptor's number from all others: its device, inode,
/// mode, number of names and length, and when it was made (0: unknown).
///
/// Raises `OSError` if nothing is open under this number.
#[pyfunction(name = "_file_id", signature = (fd, /))]
fn file_id(py: Python<'_>, fd: RawFd) -> PyResult<(u64, u64, u64, u64, u64, u64)> {
    let file = raw::FileId::of_number(fd).map_err(|error| exception(py, error))?;
    Ok(numbers(file).into())
}

/// Whether this process has a file open under a descriptor's number. `file` is what `_file_id`
/// returned for it.
///
/// False for anything that cannot be a file: it may come out of a damaged pickle.
#[pyfunction(name = "_is_open_as", signature = (fd, file, /))]
fn is_open_as(fd: RawFd, file: &Bound<'_, PyAny>) -> bool {
    let Ok((device, inode, mode, links, length, born)) = file.extract() else {
        return false;
    };
    let wanted = raw::FileId { device, inode, mode, links, length, born };
    raw::FileId::of_number(fd).is_ok_and(|found| found.matches(&wanted))
}

/// A descriptor of new memory that can be shared and has no name: so many bytes, all zero.
///
/// Raises `OSError` where the system has none.
#[pyfunction(name = "_new_memory", signature = (size, /))]
fn new_memory(py: Python<'_>, size: u64) -> PyResult<RawFd> {
    let memory = py.detach(|| raw::new_memory(size));
    memory.map(IntoRawFd::into_raw_fd).map_err(|error| exception(py, error))
}

/// Where each word of a segment stands, by name: for tests, which read and write that memory.
#[pyfunction(name = "_layout", signature = ())]
fn words_by_name(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let words = [
        ("HEADER_NODES", header::NODES),
        ("HEADER_PLACES", header::PLACES),
        ("PLACES_AT", layout::PLACES_AT),
        ("NODES", layout::NODES),
        ("NODE_WORDS", node::WORDS),
        ("NODE_STATE", node::STATE),
        ("SLOT_WORDS", layout::SLOT_WORDS),
        ("TAG", layout::TAG),
        ("EVENTCOUNT", lock::EVENTCOUNT),
        ("WATCH", lock::WATCH),
    ];
    let bits = [
        ("NODE_STATUS", node::STATUS),
        ("NODE_SLOT_SHIFT", node::SLOT_SHIFT.into()),
        ("NODE_SLOT_BITS", node::SLOT_BITS.into()),
        ("PERMIT_DIED", permit::DIED),
        ("PERMIT_PID_SHIFT", permit::PID_SHIFT.into()),
    ];
    let words = words.map(|(name, word)| (name, word as u64));
    words.into_iter().chain(bits).collect::<Vec<_>>().into_py_dict(py)
}

//! `closesocket`, `recv` and `send` of `_multiprocessing`, which only Windows has.

use std::ptr;

use pyo3::exceptions::{PyBufferError, PyMemoryError, PySystemError, PyTypeError};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice, PyString, PyTuple};
use windows_sys::Win32::Networking::WinSock::{SOCKET, WSAGetLastError};
use windows_sys::Win32::Networking::WinSock::{closesocket as close, recv as receive, send as put};

use crate::ffi::errors::raise_of_system;

/// Adds them to a module.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for function in [
        wrap_pyfunction!(closesocket, module)?,
        wrap_pyfunction!(recv, module)?,
        wrap_pyfunction!(send, module)?,
    ] {
        module.setattr(function.getattr("__name__")?.cast_into::<PyString>()?, &function)?;
    }
    Ok(())
}

/// Makes a call of winsock while detached. Its result is negative where it fails.
fn winsock(py: Python<'_>, call: impl FnOnce() -> i32 + Send) -> PyResult<i32> {
    let result = py.detach(|| match call() {
        // Read at once: attaching makes calls of the system, too.
        // SAFETY: it cannot fail.
        ..0 => Err(unsafe { WSAGetLastError() }),
        count => Ok(count),
    });
    result.map_err(|error| {
        raise_of_system(error);
        PyErr::fetch(py)
    })
}

/// The result of one of Python's own parsers of arguments, whose messages are those of CPython's
/// module.
fn parsed(py: Python<'_>, parsed: i32) -> PyResult<()> {
    if parsed == 0 { Err(PyErr::fetch(py)) } else { Ok(()) }
}

#[pyfunction]
#[pyo3(signature = (handle, /))]
fn closesocket(handle: &Bound<'_, PyAny>) -> PyResult<()> {
    let mut socket: SOCKET = 0;
    // SAFETY: attached, an argument, and a place for the number of 64 bits that the format says.
    let done =
        unsafe { ffi::PyArg_Parse(handle.as_ptr(), c"K:closesocket".as_ptr(), &raw mut socket) };
    parsed(handle.py(), done)?;
    // SAFETY: winsock checks the number. The caller knows whose socket it is.
    winsock(handle.py(), || unsafe { close(socket) }).map(|_zero| ())
}

#[pyfunction]
#[pyo3(signature = (*args))]
fn recv<'py>(args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyBytes>> {
    let (mut socket, mut size): (SOCKET, i32) = (0, 0);
    // SAFETY: attached, a tuple, and a place for each of the numbers that the format says.
    let done = unsafe {
        ffi::PyArg_ParseTuple(args.as_ptr(), c"Ki:recv".as_ptr(), &raw mut socket, &raw mut size)
    };
    parsed(args.py(), done)?;
    let length = usize::try_from(size).map_err(|_negative| {
        PySystemError::new_err("Negative size passed to PyBytes_FromStringAndSize")
    })?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(|_full| PyMemoryError::new_err(()))?;
    buffer.resize(length, 0);
    // SAFETY: a buffer of this size.
    let received = winsock(args.py(), || unsafe { receive(socket, buffer.as_mut_ptr(), size, 0) })?;
    Ok(PyBytes::new(args.py(), &buffer[..received.unsigned_abs() as usize]))
}

#[pyfunction]
#[pyo3(signature = (*args))]
fn send(args: &Bound<'_, PyTuple>) -> PyResult<i32> {
    let py = args.py();
    let (mut socket, mut data): (SOCKET, *mut PyObject) = (0, ptr::null_mut());
    // SAFETY: attached, a tuple, and a place for the number and the object that the format says.
    let done = unsafe {
        ffi::PyArg_ParseTuple(args.as_ptr(), c"KO:send".as_ptr(), &raw mut socket, &raw mut data)
    };
    parsed(py, done)?;
    // The stable interface of 3.10 has no buffers, so the bytes are copied.
    // SAFETY: attached; an argument, which `args` keeps alive, and a new reference or null with an
    // exception set.
    let bytes = unsafe {
        let view = ffi::PyMemoryView_FromObject(data);
        Bound::from_owned_ptr_or_err(py, view)
    };
    let bytes = bytes.map_err(|error| {
        if !error.is_instance_of::<PyTypeError>(py) {
            return error;
        }
        // SAFETY: as above.
        let given = unsafe { Bound::from_borrowed_ptr(py, data) }.get_type();
        given.name().map_or_else(
            |error| error,
            |name| PyTypeError::new_err(format!("a bytes-like object is required, not '{name}'")),
        )
    })?;
    if !bytes.getattr("c_contiguous")?.is_truthy()? {
        return Err(PyBufferError::new_err("memoryview: underlying buffer is not C-contiguous"));
    }
    // As much as one call can send; the caller sends the rest.
    let most = PySlice::new(py, 0, i32::MAX as isize, 1);
    let bytes = bytes.call_method1("cast", ("B",))?.get_item(most)?;
    let bytes: Bound<'_, PyBytes> = bytes.call_method0("tobytes")?.cast_into()?;
    let data = bytes.as_bytes();
    let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
    // SAFETY: data of this length or more, which is alive during the call.
    winsock(py, || unsafe { put(socket, data.as_ptr(), length, 0) })
}

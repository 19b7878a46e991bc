//! What there is on Windows besides: waits that Ctrl-C ends, a mutex that is recovered, and `_multiprocessing`'s sockets.

use std::os::windows::io::{AsRawHandle, BorrowedHandle};
use std::ptr;
use std::time::Duration;

use pyo3::exceptions::{PyBufferError, PyMemoryError, PySystemError, PyTypeError};
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySlice, PyString, PyTuple};
use semlock::{Deadline, Error, Kind, Wait};
use windows_sys::Win32::Networking::WinSock::{SOCKET, WSAGetLastError};
use windows_sys::Win32::Networking::WinSock::{closesocket as close, recv as receive, send as put};
use windows_sys::Win32::System::Threading::ResetEvent;

use super::capi::{Exception, exception, raise, raise_as, raise_of_system, seconds};
use super::interpreter::Interpreter;

// ---- Waits ----

/// Waits, by a function that takes a deadline's place, detached from the interpreter; in the main thread it waits for an event
/// besides, so that Ctrl-C lets Python's handlers run. Tells how it ended, which is not `Interrupted`; `None`: exception set.
pub(crate) fn wait(
    mut wait_or: impl FnMut(Option<BorrowedHandle<'static>>) -> Result<Wait, Error> + Send,
) -> Option<Wait> {
    let event = Interpreter::find().sigint_event();
    super::capi::wait(|| {
        let waited = wait_or(event);
        if let (Ok(Wait::Interrupted), Some(event)) = (&waited, event) {
            // The interpreter notes a signal, and then sets the event. So between this and the next wait the handlers have
            // to be run: what is noted before that is handled there, and the event of what comes later ends the wait.
            // SAFETY: an event that is there as long as the interpreter.
            unsafe { ResetEvent(event.as_raw_handle()) };
        }
        waited
    })
}

/// A timeout as CPython takes it here; `None`: exception set.
///
/// # Safety
/// Attached; `timeout` is alive.
pub(crate) unsafe fn deadline(timeout: *mut PyObject) -> Option<Deadline> {
    // SAFETY: as for this function.
    let seconds = unsafe { seconds(timeout) }?;
    // Half of the milliseconds that are for ever.
    if seconds * 1000.0 >= 0.5 * f64::from(u32::MAX) {
        raise_as(Exception::Overflow, "timeout is too large".to_owned());
        return None;
    }
    Deadline::after_secs(seconds).map_err(raise).ok()
}

// ---- A mutex that is recovered ----

/// What an `RLock` stands on that is recovered when its owner dies: named and used as a `SemLock`.
#[pyclass(frozen, subclass, module = "semlock._native", name = "_RobustMutex")]
pub(crate) struct RobustMutex(semlock::RobustMutex);

#[pymethods]
impl RobustMutex {
    /// A new one, or what was duplicated for this process.
    #[new]
    #[pyo3(signature = (mutex=None, mark=None))]
    fn new(py: Python<'_>, mutex: Option<usize>, mark: Option<usize>) -> PyResult<Self> {
        let made = match mutex.zip(mark) {
            None => semlock::RobustMutex::new(),
            Some((mutex, mark)) => semlock::RobustMutex::from_handles([mutex, mark]),
        };
        made.map(Self).map_err(|error| exception(py, error))
    }

    #[getter]
    fn handle(&self) -> usize {
        self.0.handles()[0]
    }

    #[getter]
    fn _mark(&self) -> usize {
        self.0.handles()[1]
    }

    #[getter]
    fn kind(&self) -> i32 {
        Kind::RecursiveMutex as i32
    }

    #[getter]
    fn maxvalue(&self) -> i32 {
        1
    }

    #[getter]
    fn name(&self) -> Option<&str> {
        None
    }

    /// Whether this thread has it from an owner that died.
    #[getter]
    fn recovered(&self) -> bool {
        self.0.is_recovered()
    }

    /// None where it was not acquired; else whether an owner had died.
    #[pyo3(signature = (block, timeout, /))]
    fn _acquire(
        &self,
        py: Python<'_>,
        block: bool,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<bool>> {
        let deadline = match timeout {
            _ if !block => Some(Deadline::after(Duration::ZERO)),
            None => Some(Deadline::NEVER),
            // SAFETY: attached, and an argument.
            Some(timeout) => unsafe { deadline(timeout.as_ptr()) },
        };
        let waited = deadline.and_then(|deadline| wait(|event| self.0.wait(deadline, event)));
        match waited {
            Some(Wait::OwnerDied(_)) => Ok(Some(true)),
            Some(Wait::Acquired) => Ok(Some(false)),
            Some(_) => Ok(None),
            None => Err(PyErr::fetch(py)),
        }
    }

    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.0.release().map_err(|error| exception(py, error))
    }

    /// Releases it, and has the next be told of the owner that died.
    fn _let_go(&self, py: Python<'_>) -> PyResult<()> {
        self.0.let_go().map_err(|error| exception(py, error))
    }

    /// How often this thread has it.
    fn _count(&self) -> u32 {
        self.0.count()
    }

    fn _is_mine(&self) -> bool {
        self.0.is_mine()
    }

    fn _get_value(&self) -> i32 {
        i32::from(!self.0.is_held())
    }

    fn _is_zero(&self) -> bool {
        self.0.is_held()
    }
}

// ---- Sockets ----

/// Adds `closesocket`, `recv` and `send`.
pub(crate) fn add_sockets(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for function in [
        wrap_pyfunction!(closesocket, module)?,
        wrap_pyfunction!(recv, module)?,
        wrap_pyfunction!(send, module)?,
    ] {
        module.setattr(function.getattr("__name__")?.cast_into::<PyString>()?, &function)?;
    }
    Ok(())
}

/// Makes a call of winsock detached, whose result is negative where it fails.
fn winsock(py: Python<'_>, call: impl FnOnce() -> i32 + Send) -> PyResult<i32> {
    let result = py.detach(|| match call() {
        // Asked for at once: attaching makes calls, too.
        // SAFETY: it cannot fail.
        ..0 => Err(unsafe { WSAGetLastError() }),
        count => Ok(count),
    });
    result.map_err(|error| {
        raise_of_system(error);
        PyErr::fetch(py)
    })
}

/// The result of one of Python's parsers of arguments, which says what is wrong as CPython's own module does.
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
    // SAFETY: any number can be asked to be closed; whose it is, the caller knows.
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
    // Buffers are not part of the stable interface of 3.10, so the bytes are copied.
    // SAFETY: attached; an argument, which `args` keeps, and a new reference or null with an exception set.
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
    // As much as can be said in one call; the caller sends the rest.
    let most = PySlice::new(py, 0, i32::MAX as isize, 1);
    let bytes = bytes.call_method1("cast", ("B",))?.get_item(most)?;
    let bytes: Bound<'_, PyBytes> = bytes.call_method0("tobytes")?.cast_into()?;
    let data = bytes.as_bytes();
    let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
    // SAFETY: data of this length or more, which is alive during the call.
    winsock(py, || unsafe { put(socket, data.as_ptr(), length, 0) })
}

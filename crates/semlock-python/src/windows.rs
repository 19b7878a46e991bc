//! What `_multiprocessing` has on Windows besides: waits that Ctrl-C ends, and sockets.

use std::ffi::{CStr, c_void};
use std::mem::transmute;
use std::os::windows::io::BorrowedHandle;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use semlock::{Deadline, SemLock, Wait};
use windows_sys::Win32::Networking::WinSock::{SOCKET, WSAGetLastError};
use windows_sys::Win32::Networking::WinSock::{closesocket as close, recv as receive, send as put};
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleW, GetProcAddress};
use windows_sys::Win32::System::Threading::ResetEvent;

use crate::capi::{detached, raise, raise_of_system};

// ---- Waits ----

/// What the interpreter does not tell through its stable interface: which thread handles signals, and the event that
/// Ctrl-C sets.
#[derive(Clone, Copy)]
struct Interpreter {
    is_main_thread: unsafe extern "C" fn() -> i32,
    sigint_event: unsafe extern "C" fn() -> *mut c_void,
}

impl Interpreter {
    /// In the library of this version of Python, if that is where the interpreter is.
    fn find() -> Option<Self> {
        static FOUND: OnceLock<Option<Interpreter>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            // SAFETY: a C string that lives for ever: "3.11.9 (...".
            let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
            let mut numbers = version.split('.');
            let name = format!("python{}{}.dll\0", numbers.next()?, numbers.next()?);
            let name: Vec<u16> = name.encode_utf16().collect();
            // SAFETY: a string that ends with 0; a module that is loaded stays, being the interpreter.
            let module = unsafe { GetModuleHandleW(name.as_ptr()) };
            if module.is_null() {
                return None;
            }
            // SAFETY: the module's handle, and C strings.
            let [main, event] = [c"_PyOS_IsMainThread", c"_PyOS_SigintEvent"]
                .map(|name| unsafe { GetProcAddress(module, name.as_ptr().cast()) });
            // SAFETY: wherever these functions exist they have these signatures.
            unsafe {
                Some(Self {
                    is_main_thread: transmute::<unsafe extern "system" fn() -> isize, _>(main?),
                    sigint_event: transmute::<unsafe extern "system" fn() -> isize, _>(event?),
                })
            }
        })
    }

    /// The event, for the thread that is to see it.
    fn event(self) -> Option<BorrowedHandle<'static>> {
        // SAFETY: attached.
        if unsafe { (self.is_main_thread)() } == 0 {
            return None;
        }
        // SAFETY: attached.
        let event = unsafe { (self.sigint_event)() };
        // SAFETY: an event that the interpreter keeps as long as it runs.
        (!event.is_null()).then(|| unsafe { BorrowedHandle::borrow_raw(event) })
    }
}

/// Waits detached from the interpreter; in the main thread Ctrl-C lets Python's handlers run. Tells how it ended, which
/// is not `Interrupted`; `None`: exception set.
pub(crate) fn wait(lock: &SemLock, deadline: Deadline) -> Option<Wait> {
    let event = Interpreter::find().and_then(Interpreter::event);
    loop {
        let waited = match event {
            None => detached(|| lock.wait(deadline)),
            Some(event) => {
                // SAFETY: an event that is there as long as the interpreter.
                unsafe { ResetEvent(std::os::windows::io::AsRawHandle::as_raw_handle(&event)) };
                detached(|| {
                    let waited = lock.wait_or(deadline, event);
                    if waited == Ok(Wait::Interrupted) {
                        // The event is set before the handler is noted.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    waited
                })
            }
        };
        match waited {
            Ok(Wait::Interrupted) => {
                // SAFETY: attached again.
                if unsafe { ffi::PyErr_CheckSignals() } < 0 {
                    return None;
                }
            }
            Ok(end) => return Some(end),
            Err(error) => {
                raise(error);
                return None;
            }
        }
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

#[pyfunction]
#[pyo3(signature = (handle, /))]
fn closesocket(py: Python<'_>, handle: usize) -> PyResult<()> {
    let socket: SOCKET = handle;
    // SAFETY: any number can be asked to be closed; whose it is, the caller knows.
    winsock(py, || unsafe { close(socket) }).map(|_zero| ())
}

#[pyfunction]
#[pyo3(signature = (handle, size, /))]
fn recv(py: Python<'_>, handle: usize, size: i32) -> PyResult<Bound<'_, PyBytes>> {
    let socket: SOCKET = handle;
    let length = usize::try_from(size).map_err(|_negative| {
        PySystemError::new_err("Negative size passed to PyBytes_FromStringAndSize")
    })?;
    let mut buffer = vec![0; length];
    // SAFETY: a buffer of this size.
    let received = winsock(py, || unsafe { receive(socket, buffer.as_mut_ptr(), size, 0) })?;
    Ok(PyBytes::new(py, &buffer[..received.unsigned_abs() as usize]))
}

#[pyfunction]
#[pyo3(signature = (handle, buf, /))]
fn send(py: Python<'_>, handle: usize, buf: &Bound<'_, PyAny>) -> PyResult<i32> {
    let socket: SOCKET = handle;
    let view = py.import("builtins")?.getattr("memoryview")?.call1((buf,))?;
    let bytes: Bound<'_, PyBytes> = view.call_method0("tobytes")?.cast_into()?;
    let data = bytes.as_bytes();
    // As much as can be said in one call; the caller sends the rest.
    let length = i32::try_from(data.len()).unwrap_or(i32::MAX);
    // SAFETY: data of this length or more, which is alive during the call.
    winsock(py, || unsafe { put(socket, data.as_ptr(), length, 0) })
}

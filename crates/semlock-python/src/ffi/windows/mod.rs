//! What only Windows has: waits that Ctrl-C ends, and the sockets of `_multiprocessing`.

pub(crate) mod exports;
pub(crate) mod sockets;

use std::os::windows::io::{AsRawHandle, BorrowedHandle};

use pyo3::ffi::PyObject;
use pyo3::prelude::*;
use semlock::{Deadline, Error, Wait};
use windows_sys::Win32::System::Threading::ResetEvent;

use self::exports::Interpreter;
use super::arguments;
use super::errors::{Exception, raise_as};
use super::waits;

/// Waits while detached from the interpreter. In the main thread it also waits for the event that
/// Ctrl-C sets, so that Python's signal handlers run. Returns how the wait ended, which is never
/// `Interrupted`; `None`: exception set.
pub(crate) fn wait(
    mut wait_or: impl FnMut(Option<BorrowedHandle<'static>>) -> Result<Wait, Error> + Send,
) -> Option<Wait> {
    let event = Interpreter::find().sigint_event();
    waits::wait(|| {
        let waited = wait_or(event);
        if let (Ok(Wait::Interrupted), Some(event)) = (&waited, event) {
            // The interpreter notes a signal, and then sets the event. So the handlers have to run
            // between this reset and the next wait: they handle every signal noted before, and the
            // event of a later signal ends the next wait.
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
    let timeout = unsafe { arguments::timeout(timeout) }?;
    // CPython refuses timeouts from half of INFINITE on, which is the greatest number of
    // milliseconds.
    if timeout.as_secs_f64() * 1000.0 >= 0.5 * f64::from(u32::MAX) {
        raise_as(Exception::Overflow, "timeout is too large".to_owned());
        return None;
    }
    Some(Deadline::after(timeout))
}

/// The same for `#[pymethods]`.
pub(crate) fn deadline_of(timeout: &Bound<'_, PyAny>) -> Option<Deadline> {
    // SAFETY: attached, as there is a bound object, which is alive.
    unsafe { deadline(timeout.as_ptr()) }
}

//! Waiting while detached from the interpreter, so that other threads run meanwhile.

use pyo3::ffi;
use semlock::{Error, Wait};

use super::errors::raise;

/// Runs work that may take long while detached from the interpreter. The work uses no Python.
pub(crate) fn detached<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // SAFETY: attached now. `work` is no function of Python's, and has none of its objects, whose
    // pointers are not `Send`.
    let thread = unsafe { ffi::PyEval_SaveThread() };
    let result = work();
    // SAFETY: what PyEval_SaveThread returned on this thread. A daemon thread that comes back when
    // the interpreter has ended does not return from this. (Up to 3.13 Python itself would end the
    // thread, and unwind through this frame. PyO3's function of this name stops the thread
    // instead.)
    unsafe { ffi::PyEval_RestoreThread(thread) };
    result
}

/// Lets the handlers of signals run; `None`: one of them raised an exception.
pub(crate) fn handle_signals() -> Option<()> {
    // SAFETY: attached.
    (unsafe { ffi::PyErr_CheckSignals() } == 0).then_some(())
}

/// Waits while detached from the interpreter; between waits, lets Python's signal handlers run.
/// Returns how the wait ended, which is never `Interrupted`; `None`: exception set.
#[cold]
pub(crate) fn wait(mut wait: impl FnMut() -> Result<Wait, Error> + Send) -> Option<Wait> {
    loop {
        match detached(&mut wait) {
            Ok(Wait::Interrupted) => handle_signals()?,
            Ok(end) => return Some(end),
            Err(error) => {
                raise(error);
                return None;
            }
        }
    }
}

/// The same, for what spins before its first wait. `spin` returns `None` if it did not end the
/// wait, and no handler may have to run.
#[cold]
pub(crate) fn spin_and_wait(
    spin: impl FnOnce() -> Option<Wait> + Send,
    mut wait_on: impl FnMut() -> Result<Wait, Error> + Send,
) -> Option<Wait> {
    let mut spin = Some(spin);
    wait(|| match spin.take().and_then(|spin| spin()) {
        Some(end) => Ok(end),
        None => wait_on(),
    })
}

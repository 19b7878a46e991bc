//! How a process ends: the native part of `semlock.ends`.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

use semlock::raw;

/// The `run` of a `multiprocessing` process, which notes whether it ended well.
///
/// It is native, because a Python function would stand in each traceback of what the process runs.
#[pyclass(module = "semlock._native", name = "_Run", frozen)]
struct Run {
    run: Py<PyAny>,
    ended_well: AtomicBool,
}

#[pymethods]
impl Run {
    #[new]
    fn new(run: Py<PyAny>) -> Self {
        Self { run, ended_well: AtomicBool::new(false) }
    }

    fn __call__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let result = self.run.call0(py);
        let well = match &result {
            Ok(_) => true,
            Err(error) => is_status_zero(py, error)?,
        };
        self.ended_well.store(well, Ordering::Relaxed);
        result
    }

    /// Whether it has returned, or raised a `SystemExit` that stands for the status 0.
    #[getter]
    fn ended_well(&self) -> bool {
        self.ended_well.load(Ordering::Relaxed)
    }
}

fn is_status_zero(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    if !error.is_instance_of::<PySystemExit>(py) {
        return Ok(false);
    }
    let code = error.value(py).getattr("code")?;
    Ok(code.is_none() || code.extract::<i64>().is_ok_and(|code| code == 0))
}

/// Leaves what this process holds to others: see `semlock::raw::leave_held`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // the argument is converted into it
fn _leave_held(running: Vec<usize>) {
    raw::leave_held(&running);
}

/// The same, if this process ends with status 0: see `semlock::raw::leave_held_at_exit`.
#[pyfunction]
fn _leave_held_at_exit(running: Vec<usize>) {
    raw::leave_held_at_exit(running);
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // setattr, because add would make an `__all__`.
    module.setattr("_Run", module.py().get_type::<Run>())?;
    module.setattr("_leave_held", wrap_pyfunction!(_leave_held, module)?)?;
    module.setattr("_leave_held_at_exit", wrap_pyfunction!(_leave_held_at_exit, module)?)
}

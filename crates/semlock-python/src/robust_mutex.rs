//! A mutex of Windows that is recovered when its owner dies.

use std::time::Duration;

use pyo3::prelude::*;
use semlock::{Deadline, Kind, Wait};

use crate::ffi::errors::exception;
use crate::ffi::windows::{deadline_of, wait};

/// The mutex below an `RLock` that is recovered when its owner dies. It has the interface of a
/// `SemLock`.
#[pyclass(frozen, subclass, module = "semlock._native", name = "_RobustMutex")]
pub(crate) struct RobustMutex(semlock::RobustMutex);

#[pymethods]
impl RobustMutex {
    /// A new one, or one whose handles were duplicated for this process.
    #[new]
    #[pyo3(signature = (mutex=None, died=None))]
    fn new(py: Python<'_>, mutex: Option<usize>, died: Option<usize>) -> PyResult<Self> {
        let made = match mutex.zip(died) {
            None => semlock::RobustMutex::new(),
            Some((mutex, died)) => semlock::RobustMutex::from_handles([mutex, died]),
        };
        made.map(Self).map_err(|error| exception(py, error))
    }

    #[getter]
    fn handle(&self) -> usize {
        self.0.handles()[0]
    }

    #[getter]
    fn _died(&self) -> usize {
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

    /// Whether this thread recovered it from an owner that died.
    #[getter]
    fn recovered(&self) -> bool {
        self.0.is_recovered()
    }

    /// None if it was not acquired; otherwise whether its owner had died.
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
            Some(timeout) => deadline_of(timeout),
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

    /// Releases it, and lets the next owner know of the one that died.
    fn _let_go(&self, py: Python<'_>) -> PyResult<()> {
        self.0.let_go().map_err(|error| exception(py, error))
    }

    /// How many times this thread holds it.
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

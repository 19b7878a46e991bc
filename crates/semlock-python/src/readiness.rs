//! Waiting until one of several descriptors is readable.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyList};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::ffi::calls::call_bound;
use crate::ffi::descriptors::descriptor;
use crate::ffi::errors::raise_of_system;
use crate::ffi::waits::detached;

/// The longest timeout that the stdlib's wait takes, in seconds: its milliseconds are a C int.
const LONGEST: f64 = i32::MAX as f64 / 1000.0;

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // setattr, because add would make an `__all__`.
    module.setattr("_readable", wrap_pyfunction!(readable, module)?)
}

/// Waits until one of these objects is readable, or at its end, but not longer than so many seconds.
/// Returns those that are, in their order.
///
/// None where an object or the timeout is unusual: then the stdlib's own wait says what it makes of
/// them.
#[pyfunction(name = "_readable", signature = (objects, timeout, /))]
fn readable<'py>(
    objects: &Bound<'py, PyList>,
    timeout: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let py = objects.py();
    let Some(deadline) = deadline(timeout) else { return Ok(None) };
    let objects: Vec<_> = objects.iter().collect();
    let mut numbers = Vec::with_capacity(objects.len());
    for object in &objects {
        match number(object)? {
            Some(number) => numbers.push(number),
            None => return Ok(None),
        }
    }
    if !are_all_different(&numbers) {
        return Ok(None);
    }
    // The objects have these descriptors, and are here as long as they are used.
    let Some(descriptors) = numbers.into_iter().map(descriptor).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let wanted = descriptors.into_iter().map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN));
    let mut found: Vec<_> = wanted.collect();
    // The first look waits for nothing, and needs nobody to detach.
    let mut ready = poll(&mut found, Some(&NOW));
    loop {
        match ready {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => {
                raise_of_system(error.raw_os_error());
                return Err(PyErr::fetch(py));
            }
        }
        py.check_signals()?;
        let left = match deadline {
            None => None,
            Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Some(Timespec::try_from(left).unwrap_or(NOW)),
                _ => break,
            },
        };
        ready = detached(|| poll(&mut found, left.as_ref()));
    }
    let ready = objects.iter().zip(&found).filter(|(_, found)| !found.revents().is_empty());
    PyList::new(py, ready.map(|(object, _)| object).collect::<Vec<_>>()).map(Some)
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// When to stop waiting: never, or then. `None` for a timeout that is no usual number.
#[allow(clippy::option_option)] // two questions
fn deadline(timeout: &Bound<'_, PyAny>) -> Option<Option<Instant>> {
    if timeout.is_none() {
        return Some(None);
    }
    if !timeout.is_exact_instance_of::<PyFloat>() && !timeout.is_exact_instance_of::<PyInt>() {
        return None;
    }
    let seconds: f64 = timeout.extract().ok()?;
    // Not a number is in no range.
    if !(f64::MIN..=LONGEST).contains(&seconds) {
        return None;
    }
    Some(Some(Instant::now() + Duration::from_secs_f64(seconds.max(0.0))))
}

/// The number of an object's descriptor; `None` if it has none.
fn number(object: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    let py = object.py();
    let number = if object.is_exact_instance_of::<PyInt>() {
        object.extract()
    } else {
        object
            .getattr(intern!(py, "fileno"))
            .and_then(|fileno| call_bound(&fileno, []))
            .and_then(|number| number.extract())
    };
    let is_unusual = |error: &PyErr| {
        error.is_instance_of::<PyAttributeError>(py)
            || error.is_instance_of::<PyOverflowError>(py)
            || error.is_instance_of::<PyTypeError>(py)
            || error.is_instance_of::<PyValueError>(py)
    };
    match number {
        Ok(number) => Ok(Some(number)),
        Err(error) if is_unusual(&error) => Ok(None),
        // What a signal's handler raises meanwhile, too.
        Err(error) => Err(error),
    }
}

fn are_all_different(numbers: &[RawFd]) -> bool {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

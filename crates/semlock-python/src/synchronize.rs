//! The classes of `multiprocessing.synchronize`, and how ours stand for them.

#[cfg(not(unix))]
use pyo3::exceptions::PyAttributeError;
#[cfg(unix)]
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
#[cfg(not(unix))]
use pyo3::types::PyString;
use pyo3::types::PyTuple;
#[cfg(unix)]
use pyo3::types::PyType;

use crate::ffi::arguments::ignores_dead_owners_of;

/// Their names, which our classes have as well. Each base stands before what derives from it.
const NAMES: [&str; 8] =
    ["SemLock", "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"];

/// Adds what the Python code needs to know about them.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // setattr, because add would make an `__all__`.
    module.setattr("_NAMES_OF_SYNCHRONIZE", PyTuple::new(module.py(), NAMES)?)?;
    module.setattr("_ignores_dead_owners", wrap_pyfunction!(ignores_dead_owners, module)?)
}

/// Whether `on_owner_died` says to ignore an owner's death. For the classes that are written in
/// Python.
///
/// Raises `TypeError` or `ValueError` if it is neither "warn" nor "ignore".
#[pyfunction(name = "_ignores_dead_owners", signature = (on_owner_died, /))]
fn ignores_dead_owners(on_owner_died: &Bound<'_, PyAny>) -> PyResult<bool> {
    ignores_dead_owners_of(on_owner_died)
}

/// Makes each of the stdlib's classes a base of ours of the same name, so that `isinstance` and
/// `issubclass` give the answers that users expect. It is the last base, so that Python finds our
/// methods first.
#[cfg(unix)]
pub(crate) fn stand_for_the_stdlibs(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let stdlibs = match py.import("multiprocessing.synchronize") {
        Ok(stdlibs) => stdlibs,
        // The interpreter was built without them, so nobody can check for them.
        Err(error) if error.is_instance_of::<PyImportError>(py) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in NAMES {
        // The module is just being imported, and imports us in the place of `_multiprocessing`: its
        // classes are not there yet.
        let Some(stdlibs_class) = stdlibs.getattr_opt(name)? else { return Ok(()) };
        let class = module.getattr(name)?;
        let (base,): (Bound<'_, PyAny>,) = class.getattr("__bases__")?.extract()?;
        // Something else may stand under this name, and nobody can check for that.
        if let Ok(stdlibs_class) = stdlibs_class.cast_into::<PyType>() {
            class.setattr("__bases__", (base, stdlibs_class))?;
        }
    }
    Ok(())
}

/// This system does not have our native classes. `semlock.kernel` has others of the same names, and
/// is imported when somebody asks for the first of them. It cannot be imported now: it needs
/// `multiprocessing.synchronize`, which may itself be importing us in the place of
/// `_multiprocessing`.
#[cfg(not(unix))]
pub(crate) fn stand_for_the_stdlibs(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.setattr("__getattr__", wrap_pyfunction!(stand_in, module)?)
}

/// Returns one of those classes, and keeps it as an attribute of the module.
#[cfg(not(unix))]
#[pyfunction(name = "__getattr__", pass_module)]
fn stand_in<'py>(
    module: &Bound<'py, PyModule>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    if !NAMES.contains(&&*name.to_cow()?) {
        let message = format!("module 'semlock._native' has no attribute {}", name.repr()?);
        return Err(PyAttributeError::new_err(message));
    }
    let class = module.py().import("semlock.kernel")?.getattr(name)?;
    module.setattr(name, &class)?;
    Ok(class)
}

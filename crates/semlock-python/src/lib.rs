//! `semlock._native`: the native classes of `semlock`, and the module `semlock._multiprocessing`,
//! which has the names of CPython's `_multiprocessing`.

#[cfg(unix)]
mod barrier;
#[cfg(unix)]
mod end;
#[allow(unsafe_code)]
mod ffi;
#[cfg(unix)]
mod memory;
#[cfg(windows)]
mod robust_mutex;
#[cfg(unix)]
mod warned;

#[cfg(all(windows, target_pointer_width = "32"))]
compile_error!("on Windows, semlock is for 64 bits");

#[cfg(not(unix))]
use pyo3::exceptions::PyAttributeError;
#[cfg(unix)]
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
#[cfg(not(unix))]
use pyo3::types::PyString;
#[cfg(unix)]
use pyo3::types::PyType;

#[cfg(windows)]
use crate::ffi::windows::sockets;
#[cfg(unix)]
use crate::ffi::{condition, event, locks, objects};
use crate::ffi::{exact_port, interpreter};

/// The native classes of semlock.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    interpreter::check_interpreter()?;
    interpreter::prepare(py);
    add_multiprocessing(py)?;
    add_shared(module)
}

/// Has what stands in for the classes that this system does not have be added when the first of them is asked for: it
/// builds on `multiprocessing.synchronize`, which may be half imported yet, and asking for `_multiprocessing`.
#[cfg(not(unix))]
fn add_shared(module: &Bound<'_, PyModule>) -> PyResult<()> {
    #[cfg(windows)]
    module.setattr("_RobustMutex", module.py().get_type::<robust_mutex::RobustMutex>())?;
    module.setattr("HAS_SHARED", false)?;
    module.setattr("__getattr__", wrap_pyfunction!(stand_in, module)?)
}

/// One of those classes, which from then on is there.
#[cfg(not(unix))]
#[pyfunction(name = "__getattr__", pass_module)]
fn stand_in<'py>(
    module: &Bound<'py, PyModule>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    // The import system asks for `__path__`, which is not worth an import.
    if !name.to_cow()?.starts_with('_') {
        let kernel = module.py().import("semlock.kernel")?;
        if kernel.getattr("__all__")?.contains(name)? {
            let class = kernel.getattr(name)?;
            module.setattr(name, &class)?;
            return Ok(class);
        }
    }
    let message = format!("module 'semlock._native' has no attribute {}", name.repr()?);
    Err(PyAttributeError::new_err(message))
}

/// Adds what lives in memory that processes share.
#[cfg(unix)]
fn add_shared(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.setattr("HAS_SHARED", true)?;
    let locks = locks::classes::classes(py)?;
    let conditions = condition::classes(py)?;
    barrier::broken_error(py)?;
    // setattr, because add would make an `__all__`.
    for (name, class) in [
        ("_Shared", objects::shared_type(py)?),
        ("SemLock", &locks.semlock),
        ("Lock", &locks.lock),
        ("RLock", &locks.rlock),
        ("Semaphore", &locks.semaphore),
        ("BoundedSemaphore", &locks.bounded_semaphore),
        ("_SemLockView", &locks.view),
        ("Condition", &conditions.condition),
        ("_Waiters", &conditions.waiters),
        ("Event", event::event_type(py)?),
    ] {
        module.setattr(name, class)?;
    }
    module.setattr("_Barrier", py.get_type::<barrier::Base>())?;
    module.setattr("Barrier", py.get_type::<barrier::Barrier>())?;
    end::add(module)?;
    memory::add(module)?;
    derive_from_stocks(module)
}

/// Makes the class of `multiprocessing` that each of ours stands for a base of it, so that `isinstance` and `issubclass` say what
/// who checks with those wants to know. It comes last, so that nothing is looked up there that ours have.
#[cfg(unix)]
fn derive_from_stocks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let stocks = match py.import("multiprocessing.synchronize") {
        Ok(stocks) => stocks,
        // An interpreter that was built without: there is nothing to check with.
        Err(error) if error.is_instance_of::<PyImportError>(py) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Each base before what derives from it.
    for name in [
        "SemLock",
        "Lock",
        "RLock",
        "Semaphore",
        "BoundedSemaphore",
        "Condition",
        "Event",
        "Barrier",
    ] {
        // It is being imported, and imports us in the place of `_multiprocessing`: its classes are not there yet.
        let Some(stocks_class) = stocks.getattr_opt(name)? else { return Ok(()) };
        let class = module.getattr(name)?;
        let (base,): (Bound<'_, PyAny>,) = class.getattr("__bases__")?.extract()?;
        // Whoever has put something else there checks with nothing.
        if let Ok(stocks_class) = stocks_class.cast_into::<PyType>() {
            class.setattr("__bases__", (base, stocks_class))?;
        }
    }
    Ok(())
}

/// Makes `semlock._multiprocessing`: what CPython's `_multiprocessing` offers, over semlock. See
/// `semlock.install()`.
fn add_multiprocessing(py: Python<'_>) -> PyResult<()> {
    const NAME: &str = "semlock._multiprocessing";

    let module = PyModule::new(py, NAME)?;
    // What CPython's configure finds out.
    let flags = PyDict::new(py);
    for (flag, is_set) in [
        ("HAVE_SEM_OPEN", cfg!(unix)),
        ("HAVE_SEM_TIMEDWAIT", cfg!(unix) && semlock::HAS_TIMED_WAIT),
        ("HAVE_BROKEN_SEM_GETVALUE", !semlock::HAS_VALUE),
    ] {
        if is_set {
            flags.set_item(flag, 1)?;
        }
    }
    module.setattr("SemLock", exact_port::semlock_type(py)?)?;
    module.setattr("sem_unlink", exact_port::sem_unlink_function(&module)?)?;
    module.setattr("flags", flags)?;
    #[cfg(windows)]
    sockets::add(&module)?;
    module.setattr("__doc__", "What CPython's _multiprocessing offers, over semlock.")?;
    module.setattr("__package__", "semlock")?;
    let spec = py.import("importlib.machinery")?.getattr("ModuleSpec")?;
    module.setattr("__spec__", spec.call1((NAME, py.None()))?)?;
    py.import("sys")?.getattr("modules")?.set_item(NAME, &module)?;
    // As the import of a submodule does, which this spares.
    py.import("semlock")?.setattr("_multiprocessing", module)
}

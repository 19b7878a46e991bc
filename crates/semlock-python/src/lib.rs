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
#[cfg(unix)]
mod readiness;
#[cfg(windows)]
mod robust_mutex;
mod synchronize;
#[cfg(unix)]
mod warned;

#[cfg(all(windows, target_pointer_width = "32"))]
compile_error!("on Windows, semlock is for 64 bits");

use pyo3::prelude::*;
use pyo3::types::PyDict;

#[cfg(windows)]
use crate::ffi::windows::sockets;
#[cfg(unix)]
use crate::ffi::{channel, condition, event, locks, objects};
use crate::ffi::{exact_port, interpreter};

/// The native classes of semlock.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    interpreter::check_interpreter()?;
    interpreter::prepare(py);
    add_multiprocessing(py)?;
    synchronize::add(module)?;
    #[cfg(windows)]
    module.setattr("_RobustMutex", py.get_type::<robust_mutex::RobustMutex>())?;
    module.setattr("HAS_SHARED", cfg!(unix))?;
    #[cfg(unix)]
    add_shared(module)?;
    synchronize::stand_for_the_stdlibs(module)
}

/// Adds what lives in memory that processes share.
#[cfg(unix)]
fn add_shared(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
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
        ("_Channel", channel::channel_type(py)?),
    ] {
        module.setattr(name, class)?;
    }
    module.setattr("_Barrier", py.get_type::<barrier::Base>())?;
    module.setattr("Barrier", py.get_type::<barrier::Barrier>())?;
    module.setattr("_MOST_PERMITS", semlock::raw::MOST_PERMITS)?;
    end::add(module)?;
    ffi::connection::add(module)?;
    readiness::add(module)?;
    memory::add(module)
}

/// Makes `semlock._multiprocessing`: what CPython's `_multiprocessing` offers, over semlock. See
/// `semlock.install()`.
fn add_multiprocessing(py: Python<'_>) -> PyResult<()> {
    const NAME: &str = "semlock._multiprocessing";

    let module = PyModule::new(py, NAME)?;
    // As CPython's configure sets them.
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
    // As importing a submodule does, which is not needed then.
    py.import("semlock")?.setattr("_multiprocessing", module)
}

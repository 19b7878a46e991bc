//! `Barrier` on shared memory.

// Docstrings are plain text in Python.
#![allow(clippy::doc_markdown)]

use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use semlock::raw::{self, Entered, Passed, Shared};
use semlock::{Deadline, Error};

use crate::ffi::calls::call_bound;
use crate::ffi::errors::exception;
use crate::ffi::sharing::{numbers, place_of};

static BROKEN: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `threading.BrokenBarrierError`. It is imported together with semlock, because nothing can be
/// imported any more when the interpreter ends.
pub(crate) fn broken_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    BROKEN.import(py, "threading", "BrokenBarrierError")
}

/// What `Barrier` derives from, so that another base can be added. Python changes a type's bases
/// only if the new ones lay out its instances as the old ones did, and it does not do so for
/// `object`.
#[pyclass(frozen, subclass, module = "semlock._native", name = "_Barrier")]
pub(crate) struct Base;

/// A point where processes wait until a fixed number of them have come.
///
/// Each thread that waits is a member. A member that dies while it waits breaks the barrier.
///
/// :param parties: how many members have to come, from 1 to 4294967295. At most 4096 can wait at
///     once.
/// :param action: a function without arguments. The last member to come calls it before any gets
///     through.
/// :param timeout: the timeout of a `wait` that is given none, in seconds. None means no limit.
/// :param ctx: a multiprocessing context, as in the stdlib; it has no effect.
/// :raises ValueError: parties out of their range.
/// :raises OSError: the system has no memory to share.
///
/// >>> import semlock
/// >>> context = semlock.get_context("spawn")
/// >>> barrier = context.Barrier(2, timeout=60)  # seconds
/// >>> worker = context.Process(target=barrier.wait)
/// >>> worker.start()
/// >>> barrier.wait() in (0, 1)
/// True
/// >>> worker.join()
#[pyclass(frozen, subclass, dict, weakref, extends = Base, module = "semlock")]
pub(crate) struct Barrier {
    /// What `__init__` makes. A subclass may take other arguments, and call it later.
    state: OnceLock<State>,
}

struct State {
    /// Used while detached wherever it may wait for its own lock, whose holder may have been
    /// stopped.
    raw: raw::Barrier,
    /// `None` when the garbage collector has cleared it. (An action is often a method of the
    /// barrier's own subclass, and so refers to the barrier.)
    action: Mutex<Option<Py<PyAny>>>,
    timeout: Option<f64>,
}

impl State {
    fn new(
        raw: Result<raw::Barrier, Error>,
        action: Option<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        py: Python<'_>,
    ) -> PyResult<Self> {
        let raw = raw.map_err(|error| exception(py, error))?;
        let action = Mutex::new(action.map(Bound::unbind));
        Ok(Self { raw, action, timeout })
    }

    /// Held only for moments: a thread that waits for it may hold the GIL.
    fn lock_action(&self) -> MutexGuard<'_, Option<Py<PyAny>>> {
        self.action.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn action(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock_action().as_ref().map(|action| action.clone_ref(py))
    }

    /// The last member runs the action, and then lets the others go.
    fn let_go(&self, py: Python<'_>, member: raw::Member) -> PyResult<Passed> {
        let acted =
            self.action(py).map_or(Ok(()), |action| call_bound(action.bind(py), []).map(drop));
        let succeeded = acted.is_ok();
        let passed = py.detach(|| self.raw.finish(member, succeeded));
        acted.map(|()| passed)
    }

    /// Sleeps. If a signal handler raises, this member leaves the barrier to the others.
    fn sleep(&self, py: Python<'_>, member: raw::Member, deadline: Deadline) -> PyResult<Passed> {
        let mut is_first = true;
        let passed = loop {
            let wait = || {
                if std::mem::take(&mut is_first) && self.raw.spin(&member, deadline) {
                    return Passed::Interrupted;
                }
                self.raw.sleep(&member, deadline)
            };
            match py.detach(wait) {
                Passed::Interrupted => {
                    if let Err(raised) = py.check_signals() {
                        break Err(raised);
                    }
                }
                passed => break Ok(passed),
            }
        };
        py.detach(|| drop(member));
        passed
    }
}

impl Barrier {
    fn state(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(|| {
            PyRuntimeError::new_err(
                "this Barrier was never initialised: the __init__ of a subclass has to call \
                 super().__init__()",
            )
        })
    }

    fn fill(&self, state: State) -> PyResult<()> {
        self.state.set(state).map_err(|_state| {
            PyRuntimeError::new_err(
                "this Barrier is initialised already: others may be using it, make a new one",
            )
        })
    }
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(parties, action=None, timeout=None, *, ctx=None)"
    )]
    fn new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Base).add_subclass(Self { state: OnceLock::new() })
    }

    #[pyo3(signature = (parties, action=None, timeout=None, *, ctx=None))]
    fn __init__(
        &self,
        py: Python<'_>,
        parties: i64,
        action: Option<Bound<'_, PyAny>>,
        timeout: Option<f64>,
        ctx: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // All contexts have the same barriers.
        let _ = ctx;
        if parties < 1 {
            return Err(PyValueError::new_err("parties must be > 0"));
        }
        let parties = u32::try_from(parties)
            .map_err(|_| PyValueError::new_err(format!("too many parties: {parties}")))?;
        self.fill(State::new(raw::Barrier::new(parties), action, timeout, py)?)
    }

    /// Wait until all have come, and return how many came before this one.
    ///
    /// :param timeout: the seconds to wait at most. A timeout breaks the barrier for all. None
    ///     means the timeout that the barrier was made with.
    /// :returns: a number from 0 to parties - 1, another one for each member.
    /// :raises threading.BrokenBarrierError: the barrier is broken, breaks, or is reset meanwhile,
    ///     or the timeout passed.
    /// :raises RuntimeError: 4096 threads wait already in this part of the memory.
    /// :raises ValueError: a timeout that is NaN.
    /// :raises Exception: what the action raised, in the call that ran it. This breaks the barrier.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<u32> {
        let state = self.state()?;
        let deadline = match timeout.or(state.timeout) {
            Some(seconds) => Deadline::after_secs(seconds).map_err(|error| exception(py, error))?,
            None => Deadline::NEVER,
        };
        let entered = loop {
            match py.detach(|| state.raw.enter(deadline)) {
                Ok(Entered::Interrupted) => py.check_signals()?,
                Ok(entered) => break entered,
                Err(error) => return Err(exception(py, error)),
            }
        };
        let (index, passed) = match entered {
            Entered::Last(member) => (member.index(), state.let_go(py, member)?),
            Entered::Waits(member) => (member.index(), state.sleep(py, member, deadline)?),
            Entered::TimedOut => {
                // As if it had entered: the others must not wait for it.
                py.detach(|| state.raw.abort());
                (0, Passed::TimedOut)
            }
            Entered::Broken | Entered::Interrupted => (0, Passed::Broken),
        };
        match passed {
            Passed::Through => Ok(index),
            Passed::Broken | Passed::TimedOut | Passed::Interrupted => {
                Err(PyErr::from_type(broken_error(py)?.clone(), ()))
            }
        }
    }

    /// Make the barrier usable again, also a broken one.
    ///
    /// Members that wait at this moment get a threading.BrokenBarrierError.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        py.detach(|| state.raw.reset());
        Ok(())
    }

    /// Break the barrier until it is reset.
    ///
    /// Members that wait, and those that come later, get a threading.BrokenBarrierError.
    fn abort(&self, py: Python<'_>) -> PyResult<()> {
        let state = self.state()?;
        py.detach(|| state.raw.abort());
        Ok(())
    }

    /// How many have to come.
    #[getter]
    fn parties(&self) -> PyResult<u32> {
        Ok(self.state()?.raw.parties())
    }

    /// How many wait; 0 if the barrier is broken.
    #[getter]
    fn n_waiting(&self) -> PyResult<u32> {
        let raw = &self.state()?.raw;
        Ok(if raw.is_broken() { 0 } else { raw.waiting() })
    }

    /// Whether the barrier is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.state()?.raw.is_broken())
    }

    /// What the last one calls before all are let go.
    #[getter]
    fn _action(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.state()?.action(py))
    }

    /// What `wait` takes for its timeout where it is given none.
    #[getter]
    fn _timeout(&self) -> PyResult<Option<f64>> {
        Ok(self.state()?.timeout)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let raw = &slf.get().state()?.raw;
        let class = slf.get_type();
        let place = slf.as_ptr().addr();
        let start = format!("<{}.{} at {place:#x}: ", class.module()?, class.qualname()?);
        if raw.is_broken() {
            return Ok(start + "broken>");
        }
        Ok(format!("{start}waiters={}/{}>", raw.waiting(), raw.parties()))
    }

    /// Where it lives: its segment's id, its slot and its tag.
    fn _address<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, u32, u64)> {
        let raw::Address { segment, slot, tag } = self.state()?.raw.peek_address();
        Ok((PyBytes::new(py, &segment), slot, tag))
    }

    /// The descriptor of its segment here.
    fn _descriptor(&self, py: Python<'_>) -> PyResult<RawFd> {
        let descriptor = self.state()?.raw.descriptor();
        descriptor.map(|fd| fd.as_raw_fd()).map_err(|error| exception(py, error))
    }

    /// The pid of its segment's maker, and the descriptor there.
    fn _maker(&self) -> PyResult<(u32, RawFd)> {
        Ok(self.state()?.raw.maker())
    }

    /// What tells its segment's file from all others: see `_file_id`.
    fn _file(&self) -> PyResult<(u64, u64, u64, u64, u64, u64)> {
        Ok(numbers(self.state()?.raw.file()).into())
    }

    /// Note that other processes may have it from now on.
    fn _mark_shared(&self) -> PyResult<()> {
        self.state()?.raw.mark_shared();
        Ok(())
    }

    /// What lives at that address.
    #[classmethod]
    #[allow(clippy::too_many_arguments)] // what a pickle carries
    fn _rebuild<'py>(
        cls: &Bound<'py, PyType>,
        segment: &Bound<'py, PyAny>,
        slot: &Bound<'py, PyAny>,
        tag: &Bound<'py, PyAny>,
        fd: &Bound<'py, PyAny>,
        action: Option<Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, Self>> {
        let (address, descriptor) = place_of([segment, slot, tag, fd])?;
        let raw = raw::Barrier::open(address, descriptor);
        let state = State::new(raw, action, timeout, cls.py())?;
        // An empty instance of the class that was pickled.
        let new = cls.call_method1("__new__", (cls,))?.cast_into::<Self>()?;
        new.get().fill(state)?;
        Ok(new)
    }

    /// The same object: a copy would be nobody's barrier.
    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The same object: a copy would be nobody's barrier.
    #[pyo3(signature = (_memo, /))]
    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    /// Pickle by where it lives.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let reduce = slf.py().import("semlock.sharing")?.getattr("reduce_shared")?;
        call_bound(&reduce, [slf.as_any()])
    }

    /// What was added to it, as far as that is pickled.
    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let get_state = slf.py().import("semlock.sharing")?.getattr("get_state")?;
        call_bound(&get_state, [slf.as_any()])
    }

    /// Add what was pickled with it.
    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let set_state = slf.py().import("semlock.sharing")?.getattr("set_state")?;
        call_bound(&set_state, [slf.as_any(), state]).map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // If it is locked, the barrier is in use just now, and must not be collected.
        if let Some(Ok(action)) = self.state.get().map(|state| state.action.try_lock()) {
            visit.call(action.as_ref())?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let action = self.state.get().and_then(|state| state.lock_action().take());
        // Dropped while the mutex is free, because that may run any code.
        drop(action);
    }
}

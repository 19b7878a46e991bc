//! The classes, and the tables of their methods and attributes.

use pyo3::ffi::{self, METH_FASTCALL, METH_NOARGS, METH_STATIC};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::Lock;
use super::acquire::{acquire, enter, exit, release};
use super::make::{
    init_bounded, init_lock, init_rlock, init_semaphore, init_semlock, make_name, rebuild,
};
use super::repr::{repr_bounded, repr_lock, repr_rlock, repr_semaphore};
use super::state::{free_those_of_the_dead, get_value, holder, is_zero, on_owner_died, recovered};
use super::view::{make_view_type, semlock};
use crate::ffi::docs::locks as docs;
use crate::ffi::errors::{Exception, raise_as};
use crate::ffi::objects::make_type;
use crate::ffi::sharing::shared_methods;
use crate::ffi::types::{self, Constant, END_OF_GETTERS, FAST, OF_CLASS, getter, method};

static SEMLOCK_METHODS: Constant<[ffi::PyMethodDef; 13]> = Constant(shared_methods!(
    Lock,
    [
        method!(c"acquire", FAST, PyCFunctionFastWithKeywords: acquire, docs::ACQUIRE),
        method!(c"release", METH_NOARGS, PyCFunction: release, docs::RELEASE),
        method!(c"__enter__", METH_NOARGS, PyCFunction: enter,
        c"__enter__($self, /)\n--\n\nAcquire it."),
        method!(c"__exit__", METH_FASTCALL, PyCFunctionFast: exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nRelease it."),
        method!(c"locked", METH_NOARGS, PyCFunction: is_zero, docs::LOCKED),
        method!(c"_make_name", METH_NOARGS | METH_STATIC, PyCFunction: make_name,
        c"_make_name()\n--\n\nA new name for a semaphore, as multiprocessing makes them."),
        method!(c"_rebuild", OF_CLASS, PyCFunctionWithKeywords: rebuild,
        c"_rebuild($type, /, segment, slot, tag, fd=-1, on_owner_died='warn')\n--\n\n\
          What lives at that address. LookupError without a descriptor where it is not mapped."),
    ]
));

static SEMAPHORE_METHODS: Constant<[ffi::PyMethodDef; 3]> = Constant([
    method!(c"get_value", METH_NOARGS, PyCFunction: get_value, docs::GET_VALUE),
    method!(c"_free_those_of_the_dead", METH_NOARGS, PyCFunction: free_those_of_the_dead,
        c"_free_those_of_the_dead($self, /)\n--\n\nFree permits of dead holders, and tell nobody."),
    ffi::PyMethodDef::zeroed(),
]);

static LOCK_METHODS: Constant<[ffi::PyMethodDef; 2]> = Constant([
    method!(c"holder", METH_NOARGS, PyCFunction: holder, docs::HOLDER),
    ffi::PyMethodDef::zeroed(),
]);

static RLOCK_METHODS: Constant<[ffi::PyMethodDef; 2]> = Constant([
    method!(c"holder", METH_NOARGS, PyCFunction: holder, docs::HOLDER),
    ffi::PyMethodDef::zeroed(),
]);

static SEMLOCK_GETTERS: Constant<[ffi::PyGetSetDef; 4]> = Constant([
    getter(c"recovered", recovered, docs::RECOVERED),
    getter(c"_on_owner_died", on_owner_died, c"What it was made with."),
    getter(c"_semlock", semlock, c"What multiprocessing calls the semaphore below."),
    END_OF_GETTERS,
]);

/// The classes, made once and never freed.
pub(crate) struct Classes {
    pub(crate) semlock: Py<PyAny>,
    pub(crate) lock: Py<PyAny>,
    pub(crate) rlock: Py<PyAny>,
    pub(crate) semaphore: Py<PyAny>,
    pub(crate) bounded_semaphore: Py<PyAny>,
    pub(crate) view: Py<PyAny>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

pub(crate) fn classes(py: Python<'_>) -> PyResult<&Classes> {
    CLASSES.get_or_try_init(py, || make_classes(py))
}

/// The classes; `None` with an exception set if the module was not imported.
pub(crate) fn made<'a>() -> Option<&'a Classes> {
    // SAFETY: attached; the token is not kept.
    let classes = CLASSES.get(unsafe { Python::assume_attached() });
    if classes.is_none() {
        raise_as(Exception::Runtime, "semlock._native is not imported".to_owned());
    }
    classes
}

fn make_classes(py: Python<'_>) -> PyResult<Classes> {
    let semlock = make_semlock(py)?;
    let lock = make_lock(py, &semlock)?;
    let rlock = make_rlock(py, &semlock)?;
    let semaphore = make_semaphore(py, &semlock)?;
    let bounded_semaphore = make_bounded_semaphore(py, &semaphore)?;
    Ok(Classes {
        semlock: semlock.unbind(),
        lock: lock.unbind(),
        rlock: rlock.unbind(),
        semaphore: semaphore.unbind(),
        bounded_semaphore: bounded_semaphore.unbind(),
        view: make_view_type(py)?.unbind(),
    })
}

fn make_semlock(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let slots = [
        types::init(init_semlock),
        types::methods(&SEMLOCK_METHODS),
        types::getters(&SEMLOCK_GETTERS),
        types::doc(
            c"SemLock(kind, value, maxvalue, *, ctx=None)\n--\n\n\
              What all locks and semaphores are.",
        ),
    ];
    // SAFETY: functions for `Object<Lock>`s, and tables that end with zero entries.
    unsafe { make_type::<Lock>(py, c"semlock._native.SemLock", None, &slots) }
}

fn make_lock<'py>(py: Python<'py>, base: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let slots = [
        types::init(init_lock),
        types::repr(repr_lock),
        types::methods(&LOCK_METHODS),
        types::doc(docs::LOCK),
    ];
    // SAFETY: functions for `Object<Lock>`s, and tables that end with zero entries.
    unsafe { make_type::<Lock>(py, c"semlock.Lock", Some(base), &slots) }
}

fn make_rlock<'py>(py: Python<'py>, base: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let slots = [
        types::init(init_rlock),
        types::repr(repr_rlock),
        types::methods(&RLOCK_METHODS),
        types::doc(docs::RLOCK),
    ];
    // SAFETY: functions for `Object<Lock>`s, and tables that end with zero entries.
    unsafe { make_type::<Lock>(py, c"semlock.RLock", Some(base), &slots) }
}

fn make_semaphore<'py>(py: Python<'py>, base: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let slots = [
        types::init(init_semaphore),
        types::repr(repr_semaphore),
        types::methods(&SEMAPHORE_METHODS),
        types::doc(docs::SEMAPHORE),
    ];
    // SAFETY: functions for `Object<Lock>`s, and tables that end with zero entries.
    unsafe { make_type::<Lock>(py, c"semlock.Semaphore", Some(base), &slots) }
}

fn make_bounded_semaphore<'py>(
    py: Python<'py>,
    base: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let slots =
        [types::init(init_bounded), types::repr(repr_bounded), types::doc(docs::BOUNDED_SEMAPHORE)];
    // SAFETY: functions for `Object<Lock>`s, and tables that end with zero entries.
    unsafe { make_type::<Lock>(py, c"semlock.BoundedSemaphore", Some(base), &slots) }
}

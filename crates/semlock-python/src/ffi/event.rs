//! `Event` on shared memory.
//!
//! It is on the hot path because programs call `is_set()` in loops.
//!
//! # Safety
//! The heads of this folder and of `objects` say what every function in the tables relies on. The
//! type of this file holds an `Event`.

use std::ffi::c_int;
use std::ptr;

use pyo3::ffi::{self, METH_NOARGS, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use semlock::Wait;
use semlock::raw::{self, Shared};

use super::arguments::{deadline, parse, timeout_argument};
use super::class_names::class_qualname;
use super::docs::event as docs;
use super::errors::raise;
use super::objects::{Contents, fill, held, make_type, new_with};
use super::sharing::{place, shared_methods};
use super::types::{self, Constant, FAST, OF_CLASS, method};
use super::values::{self, boolean, none};
use super::waits;

struct Event {
    raw: raw::Event,
}

impl Contents for Event {}

impl Shared for Event {
    fn object(&self) -> &raw::Object {
        self.raw.object()
    }
}

unsafe extern "C" fn is_set(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let event: &Event = held!(slf);
    boolean(event.raw.is_set())
}

unsafe extern "C" fn set(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let event: &Event = held!(slf);
    event.raw.set();
    none()
}

unsafe extern "C" fn clear(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let event: &Event = held!(slf);
    event.raw.clear();
    none()
}

unsafe extern "C" fn wait(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let event: &Event = held!(slf);
    if nargs == 0 && kwnames.is_null() && event.raw.is_set() {
        return boolean(true);
    }
    // SAFETY: these are the arguments that Python gave.
    unsafe { wait_with(event, args, nargs, kwnames) }
}

/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline(never)] // keeps the registers that it needs from being saved where it is not called
unsafe fn wait_with(
    event: &Event,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // First of all: this wait ends with every `set` from now on.
    let epoch = event.raw.epoch();
    // SAFETY: as for this function.
    let Some(timeout) = (unsafe { timeout_argument(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    // As in CPython: if the event is set already, nobody reads the timeout.
    if event.raw.is_set() {
        return boolean(true);
    }
    // SAFETY: an argument, alive during the call.
    let Some(deadline) = (unsafe { deadline(timeout) }) else {
        return ptr::null_mut();
    };
    let spin = || event.raw.spin(epoch, deadline);
    match waits::spin_and_wait(spin, || Ok(event.raw.wait_since(epoch, deadline))) {
        Some(end) => boolean(end == Wait::Acquired),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    let event: &Event = held!(slf);
    let status = if event.raw.is_set() { "set" } else { "unset" };
    // SAFETY: attached, and `slf` comes from Python.
    match unsafe { class_qualname(slf) } {
        Some(name) => values::string(&format!("<{name} at {:#x} {status}>", slf.addr())),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn init(slf: *mut PyObject, args: *mut PyObject, kwargs: *mut PyObject) -> c_int {
    let mut given = [ptr::null_mut(); 1];
    // SAFETY: attached; the arguments are those that Python gave.
    unsafe {
        if !parse(args, kwargs, c"|$O:Event", [c"ctx"], &mut given) {
            return -1;
        }
        fill(slf, || raw::Event::new().map(|raw| Event { raw }).map_err(raise).ok())
    }
}

unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let names = [c"segment", c"slot", c"tag", c"fd"];
    let mut given = [ptr::null_mut(); 4];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call;
    // `class` is this file's, or a subclass.
    unsafe {
        if !parse(args, kwargs, c"OOO|O:_rebuild", names, &mut given) {
            return ptr::null_mut();
        }
        let opened = place(given).and_then(|(address, descriptor)| {
            raw::Event::open(address, descriptor).map_err(raise).ok()
        });
        opened.map_or(ptr::null_mut(), |raw| new_with(class, Event { raw }))
    }
}

static METHODS: Constant<[ffi::PyMethodDef; 11]> = Constant(shared_methods!(
    Event,
    [
        method!(c"is_set", METH_NOARGS, PyCFunction: is_set, docs::IS_SET),
        method!(c"set", METH_NOARGS, PyCFunction: set, docs::SET),
        method!(c"clear", METH_NOARGS, PyCFunction: clear, docs::CLEAR),
        method!(c"wait", FAST, PyCFunctionFastWithKeywords: wait, docs::WAIT),
        method!(c"_rebuild", OF_CLASS,
        PyCFunctionWithKeywords: rebuild,
        c"_rebuild($type, /, segment, slot, tag, fd=-1)\n--\n\nWhat lives at that address."),
    ]
));

static TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The class, made once and never freed.
pub(crate) fn event_type(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    let slots =
        [types::init(init), types::repr(repr), types::methods(&METHODS), types::doc(docs::EVENT)];
    TYPE.get_or_try_init(py, || {
        // SAFETY: functions for `Object<Event>`s, and tables that end with zero entries.
        unsafe { make_type::<Event>(py, c"semlock.Event", None, &slots) }.map(Bound::unbind)
    })
}

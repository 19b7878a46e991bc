//! The view: `_semlock` of a lock, which `multiprocessing` and others use.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi::{self, METH_FASTCALL, METH_NOARGS, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use semlock::raw::{LockKind, Shared};

use super::Lock;
use super::acquire::{acquire, enter, exit, release};
use super::classes::made;
use super::state::{count, get_value, is_mine, is_zero};
use crate::ffi::objects::held;
use crate::ffi::sharing::name_of;
use crate::ffi::types::{self, Constant, END_OF_GETTERS, FAST, getter, method, slot};
use crate::ffi::values::{long, none, unsigned};

/// An instance of `_SemLockView`: the lock's own methods, whatever a subclass overrides.
#[repr(C)]
struct View {
    ob_base: PyObject,
    /// A reference that it owns, to an object that holds a `Lock`. (The collector does not clear it
    /// to break cycles: all of them go through the lock's attributes or a subclass's slots, which
    /// it clears.)
    lock: *mut PyObject,
}

/// # Safety
/// `slf` is a view.
unsafe fn viewed(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    unsafe { (*slf.cast::<View>()).lock }
}

pub(super) unsafe extern "C" fn semlock(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let _there: &Lock = held!(slf);
    let Some(classes) = made() else {
        return ptr::null_mut();
    };
    // SAFETY: attached; a type without an allocator of its own, whose instances have a fixed size.
    // `lock` is null until it is written, as `view_traverse` expects.
    unsafe {
        let view = ffi::PyType_GenericAlloc(classes.view.as_ptr().cast(), 0);
        if !view.is_null() {
            (*view.cast::<View>()).lock = ffi::Py_NewRef(slf);
        }
        view
    }
}

unsafe extern "C" fn view_dealloc(slf: *mut PyObject) {
    // SAFETY: nobody else refers to this object any more. The collector tracks it since it was
    // made. Its reference is released once. An instance of a heap type counts as a reference to it.
    // PyObject_GC_Del frees what PyType_GenericAlloc made.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::Py_XDECREF(viewed(slf));
        let class = ffi::Py_TYPE(slf);
        ffi::PyObject_GC_Del(slf.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn view_traverse(
    slf: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector gave the arguments; the lock is alive, or null.
    unsafe {
        let lock = viewed(slf);
        if !lock.is_null() {
            let result = visit(lock, arg);
            if result != 0 {
                return result;
            }
        }
        visit(ffi::Py_TYPE(slf).cast(), arg)
    }
}

unsafe extern "C" fn view_acquire(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
    unsafe { acquire(viewed(slf), args, nargs, kwnames) }
}

unsafe extern "C" fn view_exit(
    slf: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
    unsafe { exit(viewed(slf), args, nargs) }
}

macro_rules! through_view {
    ($of_view:ident, $name:ident) => {
        unsafe extern "C" fn $of_view(slf: *mut PyObject, other: *mut PyObject) -> *mut PyObject {
            // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
            unsafe { $name(viewed(slf), other) }
        }
    };
}

through_view!(view_is_zero, is_zero);
through_view!(view_get_value, get_value);
through_view!(view_count, count);
through_view!(view_is_mine, is_mine);
through_view!(view_release, release);
through_view!(view_enter, enter);

/// Nothing is left to do: a child finds by its fork generation that it holds nothing.
unsafe extern "C" fn view_after_fork(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    none()
}

unsafe extern "C" fn view_name(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    name_of(lock.peek_address())
}

unsafe extern "C" fn view_handle(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // The object's address: no other object of this process has it at the same time.
    // SAFETY: `slf` is a view, which Python gave.
    unsigned(unsafe { viewed(slf) }.addr() as u64)
}

unsafe extern "C" fn view_kind(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    // As in `multiprocessing`: a lock that is not recursive is a semaphore of one permit.
    let kind = match lock.raw.options().kind {
        LockKind::ReentrantMutex => semlock::Kind::RecursiveMutex,
        LockKind::Mutex | LockKind::Semaphore => semlock::Kind::Semaphore,
    };
    long(kind as i32)
}

unsafe extern "C" fn view_maxvalue(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so its lock is alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    long(lock.raw.options().maxvalue)
}

// ---- Tables ----

static VIEW_METHODS: Constant<[ffi::PyMethodDef; 10]> = Constant([
    method!(c"acquire", FAST, PyCFunctionFastWithKeywords: view_acquire,
        c"acquire($self, /, block=True, timeout=None)\n--\n\n"),
    method!(c"release", METH_NOARGS, PyCFunction: view_release, c"release($self, /)\n--\n\n"),
    method!(c"__enter__", METH_NOARGS, PyCFunction: view_enter, c"__enter__($self, /)\n--\n\n"),
    method!(c"__exit__", METH_FASTCALL, PyCFunctionFast: view_exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\n"),
    method!(c"_count", METH_NOARGS, PyCFunction: view_count, c"_count($self, /)\n--\n\n"),
    method!(c"_is_mine", METH_NOARGS, PyCFunction: view_is_mine, c"_is_mine($self, /)\n--\n\n"),
    method!(c"_get_value", METH_NOARGS, PyCFunction: view_get_value,
        c"_get_value($self, /)\n--\n\n"),
    method!(c"_is_zero", METH_NOARGS, PyCFunction: view_is_zero, c"_is_zero($self, /)\n--\n\n"),
    method!(c"_after_fork", METH_NOARGS, PyCFunction: view_after_fork,
        c"_after_fork($self, /)\n--\n\n"),
    ffi::PyMethodDef::zeroed(),
]);

static VIEW_GETTERS: Constant<[ffi::PyGetSetDef; 5]> = Constant([
    getter(c"name", view_name, c""),
    getter(c"handle", view_handle, c""),
    getter(c"kind", view_kind, c""),
    getter(c"maxvalue", view_maxvalue, c""),
    END_OF_GETTERS,
]);

pub(super) fn make_view_type(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let slots = [
        slot(ffi::Py_tp_dealloc, view_dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, view_traverse as *mut c_void),
        types::methods(&VIEW_METHODS),
        types::getters(&VIEW_GETTERS),
    ];
    let flags =
        ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let name = c"semlock._native._SemLockView";
    // SAFETY: what they name is what their numbers say, for `View`s.
    unsafe { types::make_type(py, name, size_of::<View>(), flags, &slots) }
}

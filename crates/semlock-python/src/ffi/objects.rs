//! What the instances of the shared backend's types have in common: how they begin and end.
//!
//! ```text
//!  Object<T>:  ob_base     PyObject
//!              weakrefs    Python's list of weak references
//!              attributes  a dictionary, or null
//!              state       EMPTY, FILLING or READY
//!              flag        one bit of the type's own
//!              value       T: what `__init__` made
//! ```
//!
//! All types have one base, `_Shared`, which has the first three fields and tells Python where they
//! are. Python makes the dictionary when the first attribute is set; most instances never have one.
//! An attribute can refer back to its instance, so the garbage collector tracks instances.
//!
//! `__new__` takes any arguments and makes an empty instance, so that subclasses can choose their
//! own. `__init__` fills it, once. Using an empty one raises `RuntimeError`.
//!
//! # Safety
//! As at the head of this folder. And a function with a `T` in a type's tables gets instances of a
//! type that `make_type` made for the same `T`, or of a subclass.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::class_names::type_name;
use super::errors::{Exception, raise_as};
use super::sharing::{get_state, reduce, set_state};
use super::types::{self, Constant, END_OF_GETTERS, END_OF_MEMBERS, method, slot};

/// As the allocator leaves it: `__init__` has not run, or failed.
const EMPTY: u8 = 0;
/// An `__init__` is running.
const FILLING: u8 = 1;
/// `value` is there, and stays until the instance is freed.
const READY: u8 = 2;

#[repr(C)]
pub(crate) struct Object<T> {
    ob_base: PyObject,
    weakrefs: *mut PyObject,
    attributes: *mut PyObject,
    state: AtomicU8,
    /// A bit that the type has to remember. In `value` it would cost each instance eight bytes.
    flag: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// What an instance holds; `None` if it is empty.
///
/// # Safety
/// `slf` begins with an `Object<T>`, and lives as long as the result is used.
#[inline]
pub(crate) unsafe fn get<'a, T>(slf: *mut PyObject) -> Option<&'a T> {
    let object = slf.cast::<Object<T>>();
    // SAFETY: a live instance. Acquire: this thread sees what another wrote before it stored READY.
    if unsafe { (*object).state.load(Ordering::Acquire) } != READY {
        return None;
    }
    // SAFETY: READY means that the value is there, and that nobody writes it any more.
    Some(unsafe { (*(*object).value.get()).assume_init_ref() })
}

/// An instance's flag. It is false unless it was set.
///
/// # Safety
/// `slf` begins with an `Object`.
pub(crate) unsafe fn flag(slf: *mut PyObject) -> bool {
    // SAFETY: as for this function. Relaxed: it was set before READY, or before anyone else had the
    // instance.
    unsafe { (*slf.cast::<Object<()>>()).flag.load(Ordering::Relaxed) }
}

/// Sets the flag of an instance that is being filled, or that nobody else has yet.
///
/// # Safety
/// `slf` begins with an `Object`.
pub(crate) unsafe fn set_flag(slf: *mut PyObject, flag: bool) {
    // SAFETY: as for this function.
    unsafe { (*slf.cast::<Object<()>>()).flag.store(flag, Ordering::Relaxed) }
}

/// What `$slf` holds. If it is empty, the function that uses this returns null with an exception
/// set.
macro_rules! held {
    ($slf:expr) => {
        // SAFETY: `slf` comes from Python, and is an instance of the type whose table this is in.
        match unsafe { $crate::ffi::objects::get($slf) } {
            Some(value) => value,
            // SAFETY: as above.
            None => return unsafe { $crate::ffi::objects::raise_empty($slf) },
        }
    };
}
pub(crate) use held;

/// # Safety
/// Attached; `slf` is alive.
#[cold]
pub(crate) unsafe fn raise_empty(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    if let Some(name) = unsafe { type_name(slf) } {
        let message = format!(
            "this {name} was never initialised: the __init__ of a subclass has to call \
             super().__init__()"
        );
        raise_as(Exception::Runtime, message);
    }
    ptr::null_mut()
}

/// Fills an instance with what `make` makes: the end of a type's `__init__`. Returns what
/// `__init__` has to return.
///
/// # Safety
/// Attached; `slf` begins with an `Object<T>`.
pub(crate) unsafe fn fill<T>(slf: *mut PyObject, make: impl FnOnce() -> Option<T>) -> c_int {
    let object = slf.cast::<Object<T>>();
    // SAFETY: a live instance.
    let state = unsafe { &(*object).state };
    if state.compare_exchange(EMPTY, FILLING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // SAFETY: a live instance.
        if let Some(name) = unsafe { type_name(slf) } {
            let message = format!(
                "this {name} is initialised already: others may be using it, make a new one"
            );
            raise_as(Exception::Runtime, message);
        }
        return -1;
    }
    let Some(value) = make() else {
        state.store(EMPTY, Ordering::Relaxed);
        return -1;
    };
    // SAFETY: of all threads that found it EMPTY, one made it FILLING, and none reads the value
    // before READY.
    unsafe { (*(*object).value.get()).write(value) };
    state.store(READY, Ordering::Release);
    0
}

/// `__new__`: an empty instance, whatever the arguments.
pub(crate) unsafe extern "C" fn new(
    class: *mut PyTypeObject,
    _args: *mut PyObject,
    _kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached, and a heap type. The new memory is zero except for its head, which means:
    // no weak references, no attributes, EMPTY, no flag, and a `value` that is not there yet.
    unsafe { types::allocate(class) }
}

/// A new instance that holds this; null: exception set.
///
/// # Safety
/// Attached; `class` is a type of `Object<T>`s or a subclass.
pub(crate) unsafe fn new_with<T>(class: *mut PyObject, value: T) -> *mut PyObject {
    // SAFETY: as for this function; it does not read the other arguments.
    let object = unsafe { new(class.cast(), ptr::null_mut(), ptr::null_mut()) };
    if !object.is_null() {
        // SAFETY: a new instance, which nobody else has: it is not filled yet.
        let _filled = unsafe { fill(object, || Some(value)) };
    }
    object
}

unsafe extern "C" fn dealloc<T>(slf: *mut PyObject) {
    let object = slf.cast::<Object<T>>();
    // SAFETY: nobody else refers to this object any more. The collector must not see it half freed.
    // Its weak references are cleared while all of it is still there. (It does not check whether
    // there are any: without the GIL, one may just be ending in another thread, which then changes
    // the list.) `value` is dropped once, if it is there, and the reference to the attributes
    // released once.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        ffi::PyObject_ClearWeakRefs(slf);
        if *(*object).state.get_mut() == READY {
            (*(*object).value.get()).assume_init_drop();
        }
        ffi::Py_XDECREF((*object).attributes);
        types::free(slf);
    }
}

unsafe extern "C" fn traverse<T: Contents>(
    slf: *mut PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector gave the arguments. It calls this while no thread changes the instance.
    // The references live as long as the instance.
    unsafe {
        let object = slf.cast::<Object<T>>();
        let held = get::<T>(slf).map_or(ptr::null_mut(), Contents::reference);
        for reference in [(*object).attributes, held, ffi::Py_TYPE(slf).cast()] {
            if !reference.is_null() {
                let result = visit(reference, arg);
                if result != 0 {
                    return result;
                }
            }
        }
    }
    0
}

/// Breaks the reference cycles that an instance is in: all of them go through its attributes, or
/// through the slots of a subclass.
unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: the collector calls it for an instance that only the cycle can reach. The reference
    // is taken out before it is released, because that may run any code.
    unsafe {
        let attributes = &raw mut (*slf.cast::<Object<()>>()).attributes;
        ffi::Py_XDECREF(attributes.replace(ptr::null_mut()));
    }
    0
}

/// Whether any attribute was ever set on an instance.
///
/// # Safety
/// `slf` begins with an `Object`.
pub(crate) unsafe fn has_attributes(slf: *mut PyObject) -> bool {
    // SAFETY: as for this function. Without the GIL another thread may just be setting the first.
    let attributes =
        unsafe { AtomicPtr::from_ptr(&raw mut (*slf.cast::<Object<()>>()).attributes) };
    !attributes.load(Ordering::Relaxed).is_null()
}

/// A member that tells Python where a field of an instance is.
const fn offset_member(name: &'static CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        // A Py_ssize_t can hold the size of any object.
        offset: offset.cast_signed(),
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

// All fields before `value` have the same places in all `Object`s: these do not depend on `T`.
static MEMBERS: Constant<[ffi::PyMemberDef; 3]> = Constant([
    offset_member(c"__weaklistoffset__", offset_of!(Object<()>, weakrefs)),
    offset_member(c"__dictoffset__", offset_of!(Object<()>, attributes)),
    END_OF_MEMBERS,
]);

static GETTERS: Constant<[ffi::PyGetSetDef; 2]> = Constant([
    ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(ffi::PyObject_GenericGetDict),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: c"The attributes that were set on it.".as_ptr(),
        closure: ptr::null_mut(),
    },
    END_OF_GETTERS,
]);

static METHODS: Constant<[ffi::PyMethodDef; 6]> = Constant([
    method!(c"__copy__", ffi::METH_NOARGS, PyCFunction: itself,
        c"__copy__($self, /)\n--\n\nThe same object: a copy would not exclude anybody."),
    method!(c"__deepcopy__", ffi::METH_O, PyCFunction: itself,
        c"__deepcopy__($self, memo, /)\n--\n\nThe same object: a copy would not exclude anybody."),
    method!(c"__reduce__", ffi::METH_NOARGS, PyCFunction: reduce,
        c"__reduce__($self, /)\n--\n\nPickle by where it lives."),
    method!(c"__getstate__", ffi::METH_NOARGS, PyCFunction: get_state,
        c"__getstate__($self, /)\n--\n\nWhat was added to it, as far as that is pickled."),
    method!(c"__setstate__", ffi::METH_O, PyCFunction: set_state,
        c"__setstate__($self, state, /)\n--\n\nAdd what was pickled with it."),
    ffi::PyMethodDef::zeroed(),
]);

static SHARED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The base of all types, made once.
pub(crate) fn shared_type(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    let slots = [
        types::methods(&METHODS),
        types::members(&MEMBERS),
        types::getters(&GETTERS),
        types::doc(c"What all that lives in shared memory is."),
    ];
    SHARED.get_or_try_init(py, || {
        // SAFETY: tables that end with zero entries, for `Object<()>`s; `object` is alive.
        unsafe {
            let object = (&raw mut ffi::PyBaseObject_Type).cast();
            make_type_over::<()>(py, c"semlock._native._Shared", object, &slots).map(Bound::unbind)
        }
    })
}

/// Makes a type that users can derive from. It derives from `base`, which is another of these, or
/// from `_Shared`.
///
/// # Safety
/// The slots hold what their numbers say: functions of the right signature, for `Object<T>`s, and
/// tables that end with a zero entry and live for ever.
pub(crate) unsafe fn make_type<'py, T: Contents>(
    py: Python<'py>,
    name: &CStr,
    base: Option<&Bound<'py, PyAny>>,
    slots: &[ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let base = match base {
        Some(base) => base.as_ptr(),
        None => shared_type(py)?.as_ptr(),
    };
    // SAFETY: as for this function, and the base is alive.
    unsafe { make_type_over::<T>(py, name, base, slots) }
}

/// # Safety
/// As for `make_type`, and `base` is alive.
unsafe fn make_type_over<'py, T: Contents>(
    py: Python<'py>,
    name: &CStr,
    base: *mut PyObject,
    slots: &[ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let mut all = slots.to_vec();
    // For subclasses, too: Python does not always take from the base what a spec leaves out.
    all.extend([
        slot(ffi::Py_tp_base, base.cast()),
        slot(ffi::Py_tp_new, new as *mut _),
        slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut _),
        slot(ffi::Py_tp_traverse, traverse::<T> as *mut _),
        slot(ffi::Py_tp_clear, clear as *mut _),
    ]);
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_HAVE_GC;
    // SAFETY: as for this function; an `Object` begins with a PyObject.
    unsafe { types::make_type(py, name, size_of::<Object<T>>(), flags, &all) }
}

/// What an instance holds.
pub(crate) trait Contents {
    /// The Python object that it refers to, for the garbage collector; null if there is none.
    fn reference(&self) -> *mut PyObject {
        ptr::null_mut()
    }
}

/// What an instance of `_Shared` itself holds.
impl Contents for () {}

unsafe extern "C" fn itself(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached, and `slf` comes from Python.
    unsafe { ffi::Py_NewRef(slf) }
}

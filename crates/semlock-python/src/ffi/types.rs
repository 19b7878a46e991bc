//! Making types: the tables that they are made of, and the memory of their instances.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

use pyo3::ffi::{self, PyObject, PyTypeObject};
use pyo3::prelude::*;

// Instances of our types begin with a `PyObject`, and our own fields follow it. The stable ABI of
// interpreters without the GIL (abi3t) does not tell how large a `PyObject` is, so our fields would
// overlap it. (There a type asks for bytes beside those of its base by a negative size, and then
// for their place.)
const _: () = assert!(
    size_of::<PyObject>() != 0,
    "semlock cannot be built for abi3t: its types lay their data behind PyObject, whose size is \
     not known there. Build for one version of Python: without PyO3's abi3t features"
);

/// Makes a table of pointers to constants a constant itself.
#[repr(transparent)]
pub(crate) struct Constant<T>(pub(crate) T);

// SAFETY: the tables are never written, and Python only reads them.
unsafe impl<T> Sync for Constant<T> {}

/// One entry of a type's table of methods.
macro_rules! method {
    ($name:literal, $flags:expr, $kind:ident: $function:expr, $doc:expr) => {
        pyo3::ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { $kind: $function },
            ml_flags: $flags,
            ml_doc: $doc.as_ptr(),
        }
    };
}
pub(crate) use method;

/// The flags of a method that gets its arguments as an array.
pub(crate) const FAST: c_int = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;

/// The flags of a class's method that gets its arguments as a tuple and a dictionary.
pub(crate) const OF_CLASS: c_int = ffi::METH_VARARGS | ffi::METH_KEYWORDS | ffi::METH_CLASS;

pub(crate) fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// A type's docstring.
pub(crate) fn doc(text: &'static CStr) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_doc, text.as_ptr().cast_mut().cast())
}

/// A type's methods: a table that ends with a zero entry.
pub(crate) fn methods<const N: usize>(
    table: &'static Constant<[ffi::PyMethodDef; N]>,
) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_methods, ptr::from_ref(table).cast_mut().cast())
}

/// A type's attributes that are computed: a table that ends with `END_OF_GETTERS`.
pub(crate) fn getters<const N: usize>(
    table: &'static Constant<[ffi::PyGetSetDef; N]>,
) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_getset, ptr::from_ref(table).cast_mut().cast())
}

/// A type's attributes that Python reads from its instances: a table that ends with
/// `END_OF_MEMBERS`.
pub(crate) fn members<const N: usize>(
    table: &'static Constant<[ffi::PyMemberDef; N]>,
) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_members, ptr::from_ref(table).cast_mut().cast())
}

/// A type's `__init__`.
pub(crate) fn init(function: ffi::initproc) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_init, function as *mut c_void)
}

/// A type's `__repr__`.
pub(crate) fn repr(function: ffi::reprfunc) -> ffi::PyType_Slot {
    slot(ffi::Py_tp_repr, function as *mut c_void)
}

/// One entry of a type's table of attributes that are computed.
pub(crate) const fn getter(
    name: &'static CStr,
    get: ffi::getter,
    doc: &'static CStr,
) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get),
        set: None,
        doc: doc.as_ptr(),
        closure: ptr::null_mut(),
    }
}

/// The end of a table of attributes that are computed.
pub(crate) const END_OF_GETTERS: ffi::PyGetSetDef = ffi::PyGetSetDef {
    name: ptr::null(),
    get: None,
    set: None,
    doc: ptr::null(),
    closure: ptr::null_mut(),
};

/// The end of a table of attributes that Python reads from instances.
pub(crate) const END_OF_MEMBERS: ffi::PyMemberDef =
    ffi::PyMemberDef { name: ptr::null(), type_code: 0, offset: 0, flags: 0, doc: ptr::null() };

/// Makes a type.
///
/// # Safety
/// The slots hold what their numbers say: functions of the right signature, for instances that
/// begin with a `PyObject` and have `basicsize` bytes; and tables that end with a zero entry and
/// live for ever.
pub(crate) unsafe fn make_type<'py>(
    py: Python<'py>,
    name: &CStr,
    basicsize: usize,
    flags: c_ulong,
    slots: &[ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyAny>> {
    let mut ended = slots.to_vec();
    ended.push(slot(0, ptr::null_mut()));
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: basicsize.try_into()?,
        itemsize: 0,
        flags: flags.try_into()?,
        slots: ended.as_mut_ptr(),
    };
    // SAFETY: as for this function, and the slots end with a zero one; the call only reads the
    // spec.
    let made = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}

/// The memory of a new instance, zero except for its head; null: exception set.
///
/// # Safety
/// Attached; `class` is a heap type.
pub(crate) unsafe fn allocate(class: *mut PyTypeObject) -> *mut PyObject {
    // SAFETY: a heap type; every type has this slot.
    let alloc = unsafe { ffi::PyType_GetSlot(class, ffi::Py_tp_alloc) };
    // SAFETY: that is what the slot holds.
    let alloc: ffi::allocfunc = unsafe { std::mem::transmute(alloc) };
    // SAFETY: the type's own allocator, for one object of its basic size.
    unsafe { alloc(class, 0) }
}

/// Frees the memory of an instance: the end of a `dealloc`.
///
/// # Safety
/// Attached; nobody else refers to the object any more, and all that it owns was dropped. It is an
/// instance of a heap type.
pub(crate) unsafe fn free(object: *mut PyObject) {
    // SAFETY: a live object.
    let class = unsafe { ffi::Py_TYPE(object) };
    // SAFETY: a heap type; every type has this slot.
    let free = unsafe { ffi::PyType_GetSlot(class, ffi::Py_tp_free) };
    // SAFETY: that is what the slot holds.
    let free: ffi::freefunc = unsafe { std::mem::transmute(free) };
    // SAFETY: the type's own way to free what its own allocator gave.
    unsafe { free(object.cast()) };
    // SAFETY: an instance of a heap type counts as a reference to it.
    unsafe { ffi::Py_DECREF(class.cast()) };
}

//! Types, and the tables that they are made of.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

// Instances of our types begin with a `PyObject`, and have what is ours behind it. In the stable ABI of
// interpreters without the GIL (abi3t) nobody is told how large it is, and ours would lie over it. (There
// a type asks for more bytes than its base has, by a negative size, and for where they are.)
const _: () = assert!(
    size_of::<PyObject>() != 0,
    "semlock cannot be built for abi3t: its types lay their data behind PyObject, whose size is not \
     known there. Build for one version of Python: without PyO3's abi3t features"
);

/// Lets a table of pointers to constants be a constant itself.
#[repr(transparent)]
pub(crate) struct Constant<T>(pub(crate) T);

// SAFETY: the tables are never written, and Python only reads them.
unsafe impl<T> Sync for Constant<T> {}

/// One entry of a type's table of methods.
macro_rules! method {
    ($name:literal, $flags:expr, $kind:ident: $function:expr, $doc:literal) => {
        pyo3::ffi::PyMethodDef {
            ml_name: $name.as_ptr(),
            ml_meth: pyo3::ffi::PyMethodDefPointer { $kind: $function },
            ml_flags: $flags,
            ml_doc: $doc.as_ptr(),
        }
    };
}
pub(crate) use method;

pub(crate) fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
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

/// The end of such a table.
pub(crate) const END_OF_GETTERS: ffi::PyGetSetDef = ffi::PyGetSetDef {
    name: ptr::null(),
    get: None,
    set: None,
    doc: ptr::null(),
    closure: ptr::null_mut(),
};

/// Makes a type.
///
/// # Safety
/// The slots hold what their numbers say: functions of those types, for instances that begin with a
/// `PyObject` and have `basicsize` bytes; and tables that end with a zero entry and live for ever.
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
    // SAFETY: as for this function, and they end with a zero one; the spec is only read during the
    // call.
    let made = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, made) }
}

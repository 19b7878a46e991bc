//! How objects reach other processes: where they live, and what a pickle carries of that.
//!
//! # Safety
//! As at the head of `objects`.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use semlock::raw::{Address, FileId, Shared};

use super::arguments::integer;
use super::calls::{call_new, imported};
use super::errors::{Exception, raise, raise_as};
use super::objects::held;
use super::values::{bytes, long, none, packed, string, unsigned};

/// A type's table of methods: its own, and those that every shared type has for what it holds.
macro_rules! shared_methods {
    ($type:ty, [$($method:expr),* $(,)?]) => {
        [
            $($method,)*
            method!(c"_address", pyo3::ffi::METH_NOARGS,
                PyCFunction: $crate::ffi::sharing::address::<$type>,
                c"_address($self, /)\n--\n\n\
                  Where it lives: its segment's id, its slot and its tag."),
            method!(c"_descriptor", pyo3::ffi::METH_NOARGS,
                PyCFunction: $crate::ffi::sharing::descriptor::<$type>,
                c"_descriptor($self, /)\n--\n\nThe descriptor of its segment here."),
            method!(c"_maker", pyo3::ffi::METH_NOARGS,
                PyCFunction: $crate::ffi::sharing::maker::<$type>,
                c"_maker($self, /)\n--\n\n\
                  The pid of its segment's maker, and the descriptor there."),
            method!(c"_file", pyo3::ffi::METH_NOARGS,
                PyCFunction: $crate::ffi::sharing::file::<$type>,
                c"_file($self, /)\n--\n\nThe identity of its segment's file: see `_file_id`."),
            method!(c"_mark_shared", pyo3::ffi::METH_NOARGS,
                PyCFunction: $crate::ffi::sharing::mark_shared::<$type>,
                c"_mark_shared($self, /)\n--\n\n\
                  Note that other processes may have it from now on."),
            pyo3::ffi::PyMethodDef::zeroed(),
        ]
    };
}
pub(crate) use shared_methods;

pub(crate) unsafe extern "C" fn address<T: Shared + 'static>(
    slf: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let value: &T = held!(slf);
    address_tuple(value.peek_address())
}

fn address_tuple(Address { segment, slot, tag }: Address) -> *mut PyObject {
    packed([bytes(&segment), long(slot), unsigned(tag)])
}

pub(crate) unsafe extern "C" fn descriptor<T: Shared + 'static>(
    slf: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let value: &T = held!(slf);
    value.descriptor().map_or_else(raise, |descriptor| long(descriptor.as_raw_fd()))
}

pub(crate) unsafe extern "C" fn maker<T: Shared + 'static>(
    slf: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let value: &T = held!(slf);
    let (pid, descriptor) = value.maker();
    packed([long(pid), long(descriptor)])
}

pub(crate) unsafe extern "C" fn file<T: Shared + 'static>(
    slf: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let value: &T = held!(slf);
    packed(numbers(value.file()).map(unsigned))
}

/// A file's identity as Python has it.
pub(crate) fn numbers(file: FileId) -> [u64; 6] {
    let FileId { device, inode, mode, links, length, born } = file;
    [device, inode, mode, links, length, born]
}

pub(crate) unsafe extern "C" fn mark_shared<T: Shared + 'static>(
    slf: *mut PyObject,
    _: *mut PyObject,
) -> *mut PyObject {
    let value: &T = held!(slf);
    value.mark_shared();
    none()
}

pub(crate) unsafe extern "C" fn reduce(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; a new reference or null, and `slf` comes from Python.
    unsafe { call_new(imported(c"semlock.sharing", c"reduce_shared"), [ffi::Py_NewRef(slf)]) }
}

pub(crate) unsafe extern "C" fn get_state(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; a new reference or null, and `slf` comes from Python.
    unsafe { call_new(imported(c"semlock.sharing", c"get_state"), [ffi::Py_NewRef(slf)]) }
}

pub(crate) unsafe extern "C" fn set_state(
    slf: *mut PyObject,
    state: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; a new reference or null, and both come from Python.
    unsafe {
        let given = [slf, state].map(|object| ffi::Py_NewRef(object));
        call_new(imported(c"semlock.sharing", c"set_state"), given)
    }
}

/// A place in a segment, and a descriptor of the segment if one came with it.
pub(crate) type Place<'fd> = (Address, Option<BorrowedFd<'fd>>);

/// Reads what `_rebuild` is given, which came out of a pickle and may be anything; `None`:
/// exception set.
///
/// # Safety
/// Attached; `segment`, `slot` and `tag` are alive, `fd` is alive or null where it was left out.
pub(crate) unsafe fn place<'fd>(
    [segment, slot, tag, fd]: [*mut PyObject; 4],
) -> Option<Place<'fd>> {
    // SAFETY: as for this function.
    let address = unsafe {
        Address {
            segment: segment_id(segment)?,
            slot: natural(slot, u32::MAX.into(), "slot")?.try_into().ok()?,
            tag: natural(tag, u64::MAX, "tag")?,
        }
    };
    if fd.is_null() {
        return Some((address, None));
    }
    // SAFETY: as for this function.
    let fd = unsafe { integer(fd) }?;
    if fd < -1 {
        raise_as(Exception::Value, format!("a descriptor is not negative: {fd}"));
        return None;
    }
    // SAFETY: it is not -1. The caller of `_rebuild` knows whether it is open. It is borrowed for
    // the call; if it is closed, the system calls that read it fail.
    let descriptor = (fd != -1).then(|| unsafe { BorrowedFd::borrow_raw(fd) });
    Some((address, descriptor))
}

/// The same for `#[pymethods]`.
pub(crate) fn place_of<'fd>(given: [&Bound<'_, PyAny>; 4]) -> PyResult<Place<'fd>> {
    // SAFETY: attached, as there are bound objects, which are alive.
    let place = unsafe { place(given.map(Bound::as_ptr)) };
    place.ok_or_else(|| PyErr::fetch(given[0].py()))
}

/// # Safety
/// Attached; `object` is alive.
unsafe fn segment_id(object: *mut PyObject) -> Option<[u8; 16]> {
    let (mut data, mut size): (*mut std::ffi::c_char, Py_ssize_t) = (ptr::null_mut(), 0);
    // SAFETY: a live object, and places for a pointer and a size. If it is no bytes object, Python
    // raises a TypeError.
    if unsafe { ffi::PyBytes_AsStringAndSize(object, &raw mut data, &raw mut size) } < 0 {
        return None;
    }
    if size != 16 {
        raise_as(Exception::Value, format!("a segment's id has 16 bytes, not {size}"));
        return None;
    }
    // SAFETY: 16 bytes are there while the object lives.
    Some(unsafe { data.cast::<[u8; 16]>().read_unaligned() })
}

/// An int from 0 to `most`; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
unsafe fn natural(object: *mut PyObject, most: u64, what: &str) -> Option<u64> {
    // SAFETY: attached; a live object.
    let value = unsafe { ffi::PyLong_AsUnsignedLongLong(object) };
    if value == u64::MAX {
        // SAFETY: attached.
        unsafe {
            if !ffi::PyErr_Occurred().is_null() {
                if ffi::PyErr_ExceptionMatches(ffi::PyExc_OverflowError) != 0 {
                    raise_as(Exception::Value, format!("a {what} is from 0 to {most}"));
                }
                return None;
            }
        }
    }
    if value > most {
        raise_as(Exception::Value, format!("a {what} is from 0 to {most}, not {value}"));
        return None;
    }
    Some(value)
}

/// A name for the object at an address, without a slash; null: exception set.
pub(crate) fn name_of(address: Address) -> *mut PyObject {
    let id = u128::from_be_bytes(address.segment);
    string(&format!("semlock-{id:032x}-{}", address.slot))
}

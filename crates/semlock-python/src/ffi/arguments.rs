//! Reading the arguments of a call, and raising for those that are wrong.

use std::ffi::{CStr, c_int, c_long};
use std::ptr;
use std::time::Duration;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use semlock::Deadline;

use super::calls::is_true;
use super::class_names::type_name;
use super::errors::{Exception, raise, raise_as};
use super::interpreter::is_since_3_12;
use super::values::{text, tuple};

/// What `__exit__` raises when it gets more than the three arguments that it takes.
#[cold]
pub(crate) fn refuse_exit(nargs: Py_ssize_t) -> *mut PyObject {
    let message = format!("__exit__ expected at most 3 arguments, got {nargs}");
    raise_as(Exception::Type, message)
}

/// An object as a truth value, as the interpreter's own `_multiprocessing` reads one; `None`:
/// exception set.
///
/// # Safety
/// Attached; `object` is alive.
#[inline]
pub(crate) unsafe fn truth(object: *mut PyObject) -> Option<bool> {
    // SAFETY: only the addresses are used.
    if object == unsafe { ffi::Py_True() } {
        return Some(true);
    }
    // SAFETY: only the addresses are used.
    if object == unsafe { ffi::Py_False() } {
        return Some(false);
    }
    // Since CPython 3.12 any object has a truth value here; before, only an int had one.
    if is_since_3_12() {
        // SAFETY: a live object.
        unsafe { is_true(object) }
    } else {
        // SAFETY: a live object.
        unsafe { integer(object) }.map(|integer| integer != 0)
    }
}

/// An object as a C int; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn integer(object: *mut PyObject) -> Option<c_int> {
    let mut overflow = 0;
    // SAFETY: a live object, and a place for an int.
    let long: c_long = unsafe { ffi::PyLong_AsLongAndOverflow(object, &raw mut overflow) };
    if long == -1 && overflow == 0 {
        // SAFETY: attached.
        if !unsafe { ffi::PyErr_Occurred() }.is_null() {
            return None;
        }
    }
    if overflow == 0 {
        #[cfg_attr(windows, allow(irrefutable_let_patterns))] // where a long is an int
        if let Ok(int) = c_int::try_from(long) {
            return Some(int);
        }
    }
    let message = "Python int too large to convert to C int".to_owned();
    raise_as(Exception::Overflow, message);
    None
}

/// `acquire`'s two arguments, null where they were left out; `None`: exception set.
///
/// # Safety
/// The arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline]
pub(crate) unsafe fn acquire_arguments(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<[*mut PyObject; 2]> {
    let (mut block, mut timeout) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: there are `nargs` positional arguments.
    unsafe {
        if nargs >= 1 {
            block = *args;
        }
        if nargs >= 2 {
            timeout = *args.add(1);
        }
    }
    // SAFETY: kwnames is null or a tuple.
    let keywords = if kwnames.is_null() { 0 } else { unsafe { ffi::PyTuple_Size(kwnames) } };
    // Python's own parser says what is wrong with unusual arguments.
    // SAFETY: as for this function.
    let parse = || unsafe { parse_acquire_arguments(args, nargs, kwnames) };
    if nargs + keywords > 2 {
        return parse();
    }
    for keyword in 0..keywords {
        // SAFETY: the tuple has `keywords` strings.
        let name = unsafe { ffi::PyTuple_GetItem(kwnames, keyword) };
        // SAFETY: the keywords' values follow the positional ones.
        let value = unsafe { *args.offset(nargs + keyword) };
        // SAFETY: `name` is a string, and the other a C string.
        let is = |known: &CStr| unsafe {
            ffi::PyUnicode_CompareWithASCIIString(name, known.as_ptr()) == 0
        };
        if timeout.is_null() && is(c"timeout") {
            timeout = value;
        } else if block.is_null() && is(c"block") {
            block = value;
        } else {
            return parse();
        }
    }
    Some([block, timeout])
}

/// The same through Python's own parser, which raises what CPython's `acquire` raises.
///
/// # Safety
/// As for `acquire_arguments`.
#[cold]
unsafe fn parse_acquire_arguments(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<[*mut PyObject; 2]> {
    // SAFETY: as for this function.
    unsafe { fast_arguments(args, nargs, kwnames, c"|OO:acquire", [c"block", c"timeout"]) }
}

/// The arguments of a call as objects, null where they were left out, through Python's own parser;
/// `None`: exception set.
///
/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call; the format has a
/// place for each name.
pub(crate) unsafe fn fast_arguments<const N: usize>(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
    format: &CStr,
    names: [&CStr; N],
) -> Option<[*mut PyObject; N]> {
    let mut values = [ptr::null_mut(); N];
    // SAFETY: as for this function. The parser finds borrowed references, which the caller holds
    // for the whole call.
    unsafe {
        let tuple = tuple(args, nargs);
        let keywords = keywords(args, nargs, kwnames);
        let parsed = !tuple.is_null()
            && !keywords.is_null()
            && parse(tuple, keywords, format, names, &mut values);
        ffi::Py_XDECREF(tuple);
        ffi::Py_XDECREF(keywords);
        parsed.then_some(values)
    }
}

/// `wait`'s one argument, null where it was left out; `None`: exception set.
///
/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
pub(crate) unsafe fn timeout_argument(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<*mut PyObject> {
    // SAFETY: as for this function.
    let given = unsafe { fast_arguments(args, nargs, kwnames, c"|O:wait", [c"timeout"]) };
    given.map(|[timeout]| timeout)
}

/// An object as a float, which may be NaN; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn float(object: *mut PyObject) -> Option<f64> {
    // SAFETY: as for this function.
    let float = unsafe { ffi::PyFloat_AsDouble(object) };
    #[allow(clippy::float_cmp)] // exactly this value means that an exception may be set
    if float == -1.0 {
        // SAFETY: attached.
        if !unsafe { ffi::PyErr_Occurred() }.is_null() {
            return None;
        }
    }
    Some(float)
}

/// A timeout in seconds; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn timeout(object: *mut PyObject) -> Option<Duration> {
    // SAFETY: as for this function.
    let seconds = unsafe { float(object) }?;
    Deadline::timeout(seconds).map_err(raise).ok()
}

/// The deadline of a wait that begins now; `None`: exception set.
///
/// # Safety
/// Attached; `timeout` is alive, or null where it was left out.
pub(crate) unsafe fn deadline(timeout: *mut PyObject) -> Option<Deadline> {
    if is_none(timeout) {
        return Some(Deadline::NEVER);
    }
    // SAFETY: as for this function.
    unsafe { self::timeout(timeout) }.map(Deadline::after)
}

/// Whether `on_owner_died` says to ignore an owner's death; `None`: exception set.
///
/// # Safety
/// Attached; it is alive, or null where it was left out.
pub(crate) unsafe fn ignores_dead_owners(on_owner_died: *mut PyObject) -> Option<bool> {
    if on_owner_died.is_null() {
        return Some(false);
    }
    // SAFETY: as for this function. If it is no string, only its type is read.
    let given = unsafe {
        if ffi::PyUnicode_Check(on_owner_died) == 0 {
            let given = type_name(on_owner_died)?;
            let message = format!("on_owner_died must be \"warn\" or \"ignore\", not {given}");
            raise_as(Exception::Type, message);
            return None;
        }
        text(on_owner_died)?
    };
    match given {
        "warn" => Some(false),
        "ignore" => Some(true),
        _ => {
            let message = format!("on_owner_died must be \"warn\" or \"ignore\", not {given:?}");
            raise_as(Exception::Value, message);
            None
        }
    }
}

/// The same for `#[pymethods]`.
pub(crate) fn ignores_dead_owners_of(on_owner_died: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: attached, as there is a bound object, which is alive.
    let ignores = unsafe { ignores_dead_owners(on_owner_died.as_ptr()) };
    ignores.ok_or_else(|| PyErr::fetch(on_owner_died.py()))
}

/// Whether an argument was left out, or is None.
pub(crate) fn is_none(object: *mut PyObject) -> bool {
    // SAFETY: only the address is used.
    object.is_null() || object == unsafe { ffi::Py_None() }
}

/// A new dictionary of keyword arguments; null: exception set.
///
/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
pub(crate) unsafe fn keywords(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: attached; kwnames is null or a tuple of strings, whose values follow the positional
    // arguments, and all are alive during the call.
    unsafe {
        let dict = ffi::PyDict_New();
        let count = if kwnames.is_null() { 0 } else { ffi::PyTuple_Size(kwnames) };
        for keyword in 0..count {
            let name = ffi::PyTuple_GetItem(kwnames, keyword);
            let value = *args.offset(nargs + keyword);
            if dict.is_null() || ffi::PyDict_SetItem(dict, name, value) < 0 {
                ffi::Py_XDECREF(dict);
                return ptr::null_mut();
            }
        }
        dict
    }
}

/// Parses the arguments of a call into objects, which are borrowed from the caller, and null where
/// they were left out; false: exception set.
///
/// # Safety
/// Attached; a tuple, and a dictionary or null; the format has a place for each name.
pub(crate) unsafe fn parse<const N: usize>(
    args: *mut PyObject,
    kwargs: *mut PyObject,
    format: &CStr,
    names: [&CStr; N],
    values: &mut [*mut PyObject; N],
) -> bool {
    const { assert!(N <= MOST_ARGUMENTS) };
    let mut ended = [ptr::null(); MOST_ARGUMENTS + 1];
    ended[..N].copy_from_slice(&names.map(CStr::as_ptr));
    // The format uses only the first of these places.
    let mut places = [ptr::null_mut::<*mut PyObject>(); MOST_ARGUMENTS];
    for (place, value) in places.iter_mut().zip(values) {
        *place = value;
    }
    // SAFETY: as for this function: names that end with a null one, and a place for each of the
    // format's objects.
    let parsed = unsafe {
        ffi::PyArg_ParseTupleAndKeywords(
            args,
            kwargs,
            format.as_ptr(),
            ended.as_mut_ptr().cast(),
            places[0],
            places[1],
            places[2],
            places[3],
            places[4],
        )
    };
    parsed != 0
}

/// The most arguments that any of our functions takes.
const MOST_ARGUMENTS: usize = 5;

//! Python's C interface, as the types that are written against it use it.
//!
//! # Safety
//! What every function in the types' tables of methods and slots relies on, because Python promises
//! it to those it calls through them:
//!
//! * it runs attached to the interpreter (with the GIL, where there is one), which is what "attached"
//!   in the comments refers to; all of this file's functions are for attached threads;
//! * `slf` is an instance of the type whose table it is, or of a subclass, and begins as that type's
//!   instances do;
//! * argument pointers are valid for the call, and `args` has as many as it says.
//!
//! None of them may unwind into Python: none panics. And none uses `PyErr` or what else owns
//! references through `pyo3`, which does not know that a thread is attached that it has not attached
//! itself, and would put off releasing them, for ever. They set exceptions as C does. (`#[pymethods]`
//! are free of that: there `pyo3` does attach.)

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use semlock::{Error, Wait};

// Instances of our types begin with a `PyObject`, and have what is ours behind it. In the stable ABI of
// interpreters without the GIL (abi3t) nobody is told how large it is, and ours would lie over it. (There
// a type asks for more bytes than its base has, by a negative size, and for where they are.)
const _: () = assert!(
    size_of::<PyObject>() != 0,
    "semlock cannot be built for abi3t: its types lay their data behind PyObject, whose size is not \
     known there. Build for one version of Python: without PyO3's abi3t features"
);

// ---- Tables ----

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

/// Whether this interpreter is CPython 3.12 or newer. Set when the module is made, and only read after.
static SINCE_3_12: AtomicBool = AtomicBool::new(false);

/// Refuses all interpreters of a process but the one that it began with: types and exceptions are made once, and would be
/// other objects than those of the same names there.
pub(crate) fn check_interpreter() -> PyResult<()> {
    // SAFETY: attached, so there is one.
    match unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } {
        0 => Ok(()),
        _ => Err(PyImportError::new_err("semlock cannot be used in subinterpreters")),
    }
}

/// Looks at the interpreter, before anything else of this file is called.
pub(crate) fn prepare(py: Python<'_>) {
    SINCE_3_12.store(py.version_info() >= (3, 12), Ordering::Relaxed);
}

// ---- Exceptions ----

/// The exceptions that are raised with a message of our own.
#[derive(Clone, Copy)]
pub(crate) enum Exception {
    Assertion,
    Lookup,
    Overflow,
    Runtime,
    Type,
    Value,
}

/// Sets an exception with a message; null, to return.
#[cold]
pub(crate) fn raise_as(exception: Exception, message: String) -> *mut PyObject {
    let message = CString::new(message).unwrap_or_default();
    // SAFETY: attached; the exceptions live as long as the interpreter, and it is a C string.
    unsafe {
        let class = match exception {
            Exception::Assertion => ffi::PyExc_AssertionError,
            Exception::Lookup => ffi::PyExc_LookupError,
            Exception::Overflow => ffi::PyExc_OverflowError,
            Exception::Runtime => ffi::PyExc_RuntimeError,
            Exception::Type => ffi::PyExc_TypeError,
            Exception::Value => ffi::PyExc_ValueError,
        };
        ffi::PyErr_SetString(class, message.as_ptr());
    }
    ptr::null_mut()
}

/// Sets the exception that stands for an error; null, to return. What CPython's own modules can
/// meet, too, is what they raise.
#[cold]
pub(crate) fn raise(error: Error) -> *mut PyObject {
    let exception = match error {
        Error::Os { errno, .. } => return raise_of_system(errno),
        Error::DescriptorLost => return raise_os(libc::EBADF, &error),
        Error::FileSizeLimit { .. } => return raise_os(libc::EFBIG, &error),
        // The message has what each way said; what the first one did is the reason to look into.
        Error::NoSharedMemory([first, ..]) => return raise_os(first.errno, &error),
        Error::ValueUnavailable => {
            // SAFETY: attached; the exception lives as long as the interpreter.
            unsafe { ffi::PyErr_SetNone(ffi::PyExc_NotImplementedError) };
            return ptr::null_mut();
        }
        Error::NotOwner => Exception::Assertion,
        Error::SegmentNotMapped => Exception::Lookup,
        Error::TooManyWaiters => Exception::Runtime,
        _ => Exception::Value,
    };
    raise_as(exception, error.to_string())
}

/// Sets the `OSError` of what the operating system said; null, to return.
#[cfg(not(windows))]
pub(crate) fn raise_of_system(errno: c_int) -> *mut PyObject {
    errno::set_errno(errno::Errno(errno));
    // SAFETY: attached; the exception lives as long as the interpreter.
    unsafe { ffi::PyErr_SetFromErrno(ffi::PyExc_OSError) }
}

/// Sets the `OSError` of what `GetLastError` said; null, to return.
#[cfg(windows)]
pub(crate) fn raise_of_system(error: c_int) -> *mut PyObject {
    if !super::windows::interpreter::Interpreter::find().set_error(error) {
        let error = std::io::Error::from_raw_os_error(error);
        raise_as(Exception::Runtime, error.to_string());
    }
    ptr::null_mut()
}

/// Sets an `OSError` with a number and a message that says more than the number; null, to return.
fn raise_os(errno: c_int, error: &Error) -> *mut PyObject {
    let [number, message] = [long(errno), string(&error.to_string())];
    let args = packed([number, message]);
    if !args.is_null() {
        // SAFETY: attached; an exception's class, and the arguments to make one with, which are ours
        // to give back.
        unsafe {
            ffi::PyErr_SetObject(ffi::PyExc_OSError, args);
            ffi::Py_DECREF(args);
        }
    }
    ptr::null_mut()
}

/// The same for `#[pymethods]`.
#[cold]
pub(crate) fn exception(py: Python<'_>, error: Error) -> PyErr {
    raise(error);
    PyErr::fetch(py)
}

// ---- Waiting ----

/// Runs what may take long, and knows no Python, detached from the interpreter.
pub(crate) fn detached<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    // SAFETY: attached now. `work` is no function of Python's, and has none of its objects, whose
    // pointers are not `Send`.
    let thread = unsafe { ffi::PyEval_SaveThread() };
    let result = work();
    // SAFETY: what PyEval_SaveThread gave on this thread. A daemon thread that comes back when the
    // interpreter has ended does not return from this. (Up to 3.13 Python itself would end the
    // thread and unwind through this frame; PyO3's function of this name keeps it instead.)
    unsafe { ffi::PyEval_RestoreThread(thread) };
    result
}

/// Waits detached from the interpreter; between waits, lets Python's signal handlers run. Tells how
/// it ended, which is not `Interrupted`; `None`: exception set.
#[cold]
pub(crate) fn wait(mut wait: impl FnMut() -> Result<Wait, Error> + Send) -> Option<Wait> {
    loop {
        match detached(&mut wait) {
            Ok(Wait::Interrupted) => {
                // SAFETY: attached again.
                if unsafe { ffi::PyErr_CheckSignals() } < 0 {
                    return None;
                }
            }
            Ok(end) => return Some(end),
            Err(error) => {
                raise(error);
                return None;
            }
        }
    }
}

// ---- Results ----

#[inline]
pub(crate) fn boolean(value: bool) -> *mut PyObject {
    // SAFETY: attached, as everything here; only the addresses are taken.
    singleton(unsafe { if value { ffi::Py_True() } else { ffi::Py_False() } })
}

#[inline]
pub(crate) fn none() -> *mut PyObject {
    // SAFETY: attached, as everything here; only the address is taken.
    singleton(unsafe { ffi::Py_None() })
}

/// A new reference to None, True or False, which lives as long as the interpreter.
#[inline]
pub(crate) fn singleton(object: *mut PyObject) -> *mut PyObject {
    // Since 3.12 they are immortal (PEP 683), and their references need no counting.
    if !SINCE_3_12.load(Ordering::Relaxed) {
        // SAFETY: attached, as everything here; a live object. Up to 3.11 it begins with its count,
        // which is part of the stable ABI, and incremented in place by every extension.
        unsafe { *object.cast::<Py_ssize_t>() += 1 };
    }
    object
}

/// A new int; null: exception set.
pub(crate) fn long(value: impl Into<i64>) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLongLong(value.into()) }
}

/// A new int, or None; null: exception set.
pub(crate) fn long_or_none(value: Option<u32>) -> *mut PyObject {
    value.map_or_else(none, long)
}

/// A new int; null: exception set.
pub(crate) fn unsigned(value: u64) -> *mut PyObject {
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromUnsignedLongLong(value) }
}

/// A new string; null: exception set.
pub(crate) fn string(value: &str) -> *mut PyObject {
    // SAFETY: attached; so many bytes are there. (No string is longer than a Py_ssize_t can tell.)
    unsafe { ffi::PyUnicode_FromStringAndSize(value.as_ptr().cast(), value.len().cast_signed()) }
}

/// A new bytes object; null: exception set.
pub(crate) fn bytes(value: &[u8; 16]) -> *mut PyObject {
    // SAFETY: attached; so many bytes are there.
    unsafe { ffi::PyBytes_FromStringAndSize(value.as_ptr().cast(), 16) }
}

/// A new tuple that takes over new references; null where one of them is null, or with an exception
/// set.
pub(crate) fn packed<const N: usize>(values: [*mut PyObject; N]) -> *mut PyObject {
    let mut tuple = ptr::null_mut();
    if values.iter().all(|value| !value.is_null()) {
        // SAFETY: attached; all are alive.
        tuple = unsafe { self::tuple(values.as_ptr(), N.cast_signed()) };
    }
    for value in values {
        // SAFETY: attached; null or a reference that is ours.
        unsafe { ffi::Py_XDECREF(value) };
    }
    tuple
}

// ---- Looking up and calling ----

/// Does what may run Python code, with functions that are declared to let unwind.
///
/// Up to CPython 3.13 a daemon thread that comes back to Python while the interpreter ends is ended there. With glibc that
/// unwinds its stack, which must not cross frames that know nothing of it; and what is below is not to be ended, for the
/// rest of the process still uses it. So the thread stops here for good, as it does by itself since 3.14.
fn unwound_no_further<R>(call: impl FnOnce() -> R) -> R {
    struct Stops;

    impl Drop for Stops {
        fn drop(&mut self) {
            loop {
                std::thread::park();
            }
        }
    }

    let stops = Stops;
    let result = call();
    std::mem::forget(stops);
    result
}

/// A function of `pyo3::ffi`'s, which are declared not to unwind, as one that may. (Two declarations of one function would
/// become one, and that would not unwind.)
macro_rules! unwinding {
    ($function:path, ($($argument:ty),*) -> $result:ty) => {{
        let function = $function as unsafe extern "C" fn($($argument),*) -> $result;
        // In an unsafe block: these two are called alike.
        std::hint::black_box(std::mem::transmute::<
            unsafe extern "C" fn($($argument),*) -> $result,
            unsafe extern "C-unwind" fn($($argument),*) -> $result,
        >(function))
    }};
}

/// Something of a module's, imported if need be: a new reference; null: exception set.
pub(crate) fn imported(module: &CStr, name: &CStr) -> *mut PyObject {
    // SAFETY: attached, and C strings.
    let module = unwound_no_further(|| unsafe {
        unwinding!(ffi::PyImport_ImportModule, (*const c_char) -> *mut PyObject)(module.as_ptr())
    });
    // SAFETY: null with an exception set, or a new reference.
    unsafe { attribute_of_new(module, name) }
}

/// An attribute of something to which the reference is given up: a new reference; null: exception
/// set.
///
/// # Safety
/// `of` is null with an exception set, or a reference of the caller's.
pub(crate) unsafe fn attribute_of_new(of: *mut PyObject, name: &CStr) -> *mut PyObject {
    if of.is_null() {
        return of;
    }
    // SAFETY: attached; a live object, until the caller's reference is given back; a C string.
    unsafe {
        let attribute = ffi::PyObject_GetAttrString(of, name.as_ptr());
        ffi::Py_DECREF(of);
        attribute
    }
}

/// Calls something: a new reference; null: exception set.
///
/// # Safety
/// Attached; `function` is alive, `args` a tuple and `kwargs` a dictionary or null.
pub(crate) unsafe fn call(
    function: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function.
    unwound_no_further(|| unsafe {
        unwinding!(
            ffi::PyObject_Call,
            (*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject
        )(function, args, kwargs)
    })
}

/// Calls something to which the reference is given up, with new references, which are given up too: a new reference;
/// null: exception set.
///
/// # Safety
/// All are null with an exception set, or references of the caller's.
pub(crate) unsafe fn call_new<const N: usize>(
    function: *mut PyObject,
    args: [*mut PyObject; N],
) -> *mut PyObject {
    let args = packed(args);
    let mut result = ptr::null_mut();
    // SAFETY: attached; live objects, and references that are ours or null.
    unsafe {
        if !function.is_null() && !args.is_null() {
            result = call(function, args, ptr::null_mut());
        }
        ffi::Py_XDECREF(args);
        ffi::Py_XDECREF(function);
    }
    result
}

/// The same for what is not written against the C interface.
pub(crate) fn call_bound<'py, const N: usize>(
    function: &Bound<'py, PyAny>,
    args: [&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    let args = args.map(|argument| argument.clone().into_ptr());
    // SAFETY: attached, as there are bound objects; new references.
    unsafe {
        let result = call_new(function.clone().into_ptr(), args);
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// Whether something is true; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
pub(crate) unsafe fn is_true(object: *mut PyObject) -> Option<bool> {
    // SAFETY: as for this function.
    match unwound_no_further(|| unsafe {
        unwinding!(ffi::PyObject_IsTrue, (*mut PyObject) -> c_int)(object)
    }) {
        -1 => None,
        truth => Some(truth != 0),
    }
}

// ---- Arguments ----

/// What the interpreter's own `_multiprocessing` takes for a truth value; `None`: exception set.
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
    // CPython 3.12 began to take anything for a truth value where it took an int before.
    if SINCE_3_12.load(Ordering::Relaxed) {
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

/// `acquire`'s two arguments, null where not given; `None`: exception set.
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
    // Of what is odd, let Python say what is wrong, as it would.
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
    // SAFETY: as for this function. What the parser finds is borrowed from the caller, who has it
    // all through the call.
    unsafe {
        let tuple = tuple(args, nargs);
        let keywords = keywords(args, nargs, kwnames);
        let parsed = !tuple.is_null()
            && !keywords.is_null()
            && parse(tuple, keywords, format, names.map(CStr::as_ptr), &mut values);
        ffi::Py_XDECREF(tuple);
        ffi::Py_XDECREF(keywords);
        parsed.then_some(values)
    }
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

/// An object as a number of seconds, which is not NaN; `None`: exception set.
///
/// # Safety
/// `object` is alive.
pub(crate) unsafe fn seconds(object: *mut PyObject) -> Option<f64> {
    // SAFETY: attached; a live object.
    let seconds = unsafe { ffi::PyFloat_AsDouble(object) };
    #[allow(clippy::float_cmp)] // exactly this value says that there may be an exception
    if seconds == -1.0 {
        // SAFETY: attached.
        if !unsafe { ffi::PyErr_Occurred() }.is_null() {
            return None;
        }
    }
    if seconds.is_nan() {
        raise(Error::TimeoutIsNan);
        return None;
    }
    Some(seconds)
}

/// Whether an argument was left out, or is None.
pub(crate) fn is_none(object: *mut PyObject) -> bool {
    // SAFETY: only the address is used.
    object.is_null() || object == unsafe { ffi::Py_None() }
}

/// A new tuple of arguments; null: exception set.
///
/// # Safety
/// Attached; there are `nargs` live arguments.
pub(crate) unsafe fn tuple(args: *const *mut PyObject, nargs: Py_ssize_t) -> *mut PyObject {
    // SAFETY: attached.
    let tuple = unsafe { ffi::PyTuple_New(nargs) };
    if !tuple.is_null() {
        for index in 0..nargs {
            // SAFETY: a new tuple of `nargs`, each set once, to a reference that it takes over.
            unsafe { ffi::PyTuple_SetItem(tuple, index, ffi::Py_NewRef(*args.offset(index))) };
        }
    }
    tuple
}

/// What a `str` holds; `None`: exception set.
///
/// # Safety
/// Attached; `object` is a string that lives as long as the result is used.
pub(crate) unsafe fn text<'a>(object: *mut PyObject) -> Option<&'a str> {
    let mut size = 0;
    // SAFETY: a live string, and a place for a size.
    let data = unsafe { ffi::PyUnicode_AsUTF8AndSize(object, &raw mut size) };
    if data.is_null() {
        return None;
    }
    // SAFETY: so many bytes are there, in UTF-8, while the string lives.
    Some(unsafe {
        std::str::from_utf8_unchecked(std::slice::from_raw_parts(data.cast(), size.unsigned_abs()))
    })
}

/// How messages call an object's type; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
#[cold]
pub(crate) unsafe fn type_name(object: *mut PyObject) -> Option<String> {
    // SAFETY: only the address is used.
    if object == unsafe { ffi::Py_None() } {
        return Some("None".to_owned());
    }
    // SAFETY: attached; a live object, whose type lives as long. The name is a new reference, or
    // null with an exception set, and given back when it was copied.
    unsafe {
        let class: *mut PyObject = ffi::Py_TYPE(object).cast();
        let name = ffi::PyObject_GetAttrString(class, c"__name__".as_ptr());
        if name.is_null() {
            return None;
        }
        let copied = text(name).map(str::to_owned);
        ffi::Py_DECREF(name);
        copied
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
    names: [*const c_char; N],
    values: &mut [*mut PyObject; N],
) -> bool {
    const { assert!(N <= MOST_ARGUMENTS) };
    let mut ended = [ptr::null(); MOST_ARGUMENTS + 1];
    ended[..N].copy_from_slice(&names);
    // What is left over of these, the format has no places for.
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

/// The most that any of our functions takes.
const MOST_ARGUMENTS: usize = 5;

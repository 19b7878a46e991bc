//! The exact port of CPython's `_multiprocessing`: `SemLock` and `sem_unlink`.
//!
//! ```text
//!  Object:  ob_base                    PyObject
//!           handle kind maxvalue name  what Python reads
//!           lock                       semlock::SemLock, which owns what `name` points to
//! ```
//!
//! # Safety
//! The head of this folder says what every function in the tables `METHODS` and `SEM_UNLINK`, and
//! in the type's slots, relies on. An instance begins with an `Object` whose `lock` is alive:
//! `new_object` writes it before anyone sees the instance, and only `dealloc` drops it, when nobody
//! refers to the instance any more.

use std::ffi::{CStr, c_char, c_int, c_ulonglong, c_void};
use std::ptr;

use pyo3::ffi::{self, Py_ssize_t, PyObject, PyTypeObject};
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyString;
use semlock::{Deadline, Error, Kind, Name, Naming, SEM_VALUE_MAX, SemLock, Wait};

use super::arguments::{acquire_arguments, integer, is_none, parse, refuse_exit, truth};
use super::calls::{call_new, imported};
use super::class_names::type_name;
use super::errors::{Exception, raise, raise_as};
use super::types::{self, Constant, END_OF_MEMBERS, FAST, make_type, method, slot};
use super::values::{boolean, none, text, tuple};

/// An instance of `SemLock`.
#[repr(C)]
struct Object {
    ob_base: PyObject,
    /// Wide enough for an address, everywhere.
    handle: c_ulonglong,
    /// The number that was given. `_rebuild` does not check it: any number but 0 means a semaphore.
    kind: c_int,
    maxvalue: c_int,
    /// A C string that `lock` owns, or null.
    name: *const c_char,
    lock: SemLock,
}

static METHODS: Constant<[ffi::PyMethodDef; 12]> = Constant([
    method!(c"acquire", FAST, PyCFunctionFastWithKeywords: acquire,
        c"acquire($self, /, block=True, timeout=None)\n--\n\nAcquire the semaphore/lock."),
    method!(c"release", ffi::METH_NOARGS, PyCFunction: release,
        c"release($self, /)\n--\n\nRelease the semaphore/lock."),
    method!(c"__enter__", ffi::METH_NOARGS, PyCFunction: enter,
        c"__enter__($self, /)\n--\n\nEnter the semaphore/lock."),
    method!(c"__exit__", ffi::METH_FASTCALL, PyCFunctionFast: exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\n\
          Exit the semaphore/lock."),
    method!(c"_count", ffi::METH_NOARGS, PyCFunction: count,
        c"_count($self, /)\n--\n\nNum of `acquire()`s minus num of `release()`s for this process."),
    method!(c"_is_mine", ffi::METH_NOARGS, PyCFunction: is_mine,
        c"_is_mine($self, /)\n--\n\nWhether the lock is owned by this thread."),
    method!(c"_get_value", ffi::METH_NOARGS, PyCFunction: get_value,
        c"_get_value($self, /)\n--\n\nGet the value of the semaphore."),
    method!(c"_is_zero", ffi::METH_NOARGS, PyCFunction: is_zero,
        c"_is_zero($self, /)\n--\n\nReturn whether semaphore has value zero."),
    method!(c"_rebuild", ffi::METH_FASTCALL | ffi::METH_CLASS, PyCFunctionFast: rebuild,
        c"_rebuild($type, handle, kind, maxvalue, name, /)\n--\n\n"),
    method!(c"_after_fork", ffi::METH_NOARGS, PyCFunction: after_fork,
        c"_after_fork($self, /)\n--\n\nRezero the net acquisition count after fork()."),
    method!(c"__reduce__", ffi::METH_NOARGS, PyCFunction: reduce,
        c"__reduce__($self, /)\n--\n\nPickle by name; a semaphore without one cannot be pickled."),
    ffi::PyMethodDef::zeroed(),
]);

static SEM_UNLINK: Constant<ffi::PyMethodDef> = Constant(method!(c"sem_unlink", ffi::METH_O,
    PyCFunction: sem_unlink, c"sem_unlink($module, name, /)\n--\n\n"));

macro_rules! member {
    ($name:literal, $kind:expr, $field:ident) => {
        ffi::PyMemberDef {
            name: $name.as_ptr(),
            type_code: $kind,
            // A Py_ssize_t can hold the size of any object.
            offset: std::mem::offset_of!(Object, $field).cast_signed(),
            flags: ffi::Py_READONLY,
            doc: c"".as_ptr(),
        }
    };
}

static MEMBERS: Constant<[ffi::PyMemberDef; 5]> = Constant([
    member!(c"handle", ffi::Py_T_ULONGLONG, handle),
    member!(c"kind", ffi::Py_T_INT, kind),
    member!(c"maxvalue", ffi::Py_T_INT, maxvalue),
    member!(c"name", ffi::Py_T_STRING, name),
    END_OF_MEMBERS,
]);

/// Makes the type, once for the interpreter.
pub(crate) fn semlock_type(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let slots = [
        slot(ffi::Py_tp_new, new as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        types::doc(c"Semaphore/Mutex type"),
        types::methods(&METHODS),
        types::members(&MEMBERS),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_BASETYPE | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    // Users know it by this name: it stands in messages, and in `repr`.
    let name = c"_multiprocessing.SemLock";
    // SAFETY: what they name is what their numbers say, for `Object`s, which begin with a PyObject;
    // the tables end with zero entries.
    let made = unsafe { make_type(py, name, size_of::<Object>(), flags, &slots) }?;
    for (name, value) in [
        ("SEM_VALUE_MAX", SEM_VALUE_MAX),
        ("RECURSIVE_MUTEX", Kind::RecursiveMutex as i32),
        ("SEMAPHORE", Kind::Semaphore as i32),
    ] {
        set_constant(&made, name, value)?;
    }
    Ok(made)
}

/// Sets an attribute of an immutable type: `type.__setattr__` refuses that, `object.__setattr__`
/// does not.
fn set_constant(of: &Bound<'_, PyAny>, name: &str, value: i32) -> PyResult<()> {
    let name = PyString::intern(of.py(), name);
    let value = value.into_pyobject(of.py())?;
    // SAFETY: three live objects; a type has a dictionary, and nobody has read from this one yet.
    if unsafe { ffi::PyObject_GenericSetAttr(of.as_ptr(), name.as_ptr(), value.as_ptr()) } < 0 {
        return Err(PyErr::fetch(of.py()));
    }
    // SAFETY: a type object.
    unsafe { ffi::PyType_Modified(of.as_ptr().cast()) };
    Ok(())
}

/// Makes the function `sem_unlink` of this module.
pub(crate) fn sem_unlink_function<'py>(
    module: &Bound<'py, PyModule>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = module.py();
    let name = PyString::intern(py, "_multiprocessing");
    let definition = (&raw const SEM_UNLINK).cast_mut().cast();
    // SAFETY: the definition lives for ever, and nobody writes it; two live objects, to which the
    // function makes references of its own.
    let function = unsafe { ffi::PyCFunction_NewEx(definition, module.as_ptr(), name.as_ptr()) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, function) }
}

// ---- The hot path ----

/// # Safety
/// `slf` comes from Python: see the head of this folder.
#[inline]
unsafe fn lock<'a>(slf: *mut PyObject) -> &'a SemLock {
    // SAFETY: `slf` begins with an `Object` whose lock is alive while the caller has `slf`.
    unsafe { &(*slf.cast::<Object>()).lock }
}

unsafe extern "C" fn acquire(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    let lock = unsafe { lock(slf) };
    if nargs == 0 && kwnames.is_null() {
        return acquire_or_wait(lock);
    }
    // SAFETY: there is one argument; of False, only the address is taken.
    if nargs == 1 && kwnames.is_null() && unsafe { *args == ffi::Py_False() } {
        return acquire_now(lock);
    }
    // SAFETY: these are the arguments that Python gave.
    unsafe { acquire_with(lock, args, nargs, kwnames) }
}

/// # Safety
/// The arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline(never)] // keeps the registers that it needs from being saved where it is not called
unsafe fn acquire_with(
    lock: &SemLock,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: these are the arguments that Python gave.
    let Some([block, timeout]) = (unsafe { acquire_arguments(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    let block = if block.is_null() {
        true
    } else {
        // SAFETY: an argument, alive during the call.
        match unsafe { truth(block) } {
            Some(block) => block,
            None => return ptr::null_mut(),
        }
    };
    if is_none(timeout) {
        return if block { acquire_or_wait(lock) } else { acquire_now(lock) };
    }
    // SAFETY: as above.
    unsafe { acquire_in_time(lock, block, timeout) }
}

/// # Safety
/// `timeout` is alive.
#[cfg(unix)]
unsafe fn acquire_in_time(lock: &SemLock, block: bool, timeout: *mut PyObject) -> *mut PyObject {
    // As in CPython: if the thread holds the mutex already, nobody reads its timeout.
    if lock.again_if_mine() {
        return boolean(true);
    }
    // SAFETY: as for this function.
    let Some(timeout) = (unsafe { super::arguments::timeout(timeout) }) else {
        return ptr::null_mut();
    };
    match lock.try_acquire() {
        Ok(false) if block => wait(lock, Deadline::after(timeout)),
        Ok(acquired) => boolean(acquired),
        Err(error) => raise(error),
    }
}

/// # Safety
/// `timeout` is alive.
#[cfg(windows)]
unsafe fn acquire_in_time(lock: &SemLock, block: bool, timeout: *mut PyObject) -> *mut PyObject {
    // As in CPython there: the timeout is read first, and only if the call may wait.
    if !block {
        return acquire_now(lock);
    }
    // SAFETY: as for this function.
    let Some(deadline) = (unsafe { super::windows::deadline(timeout) }) else {
        return ptr::null_mut();
    };
    match lock.try_acquire() {
        Ok(false) => wait(lock, deadline),
        Ok(true) => boolean(true),
        Err(error) => raise(error),
    }
}

#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
fn acquire_or_wait(lock: &SemLock) -> *mut PyObject {
    match lock.try_acquire() {
        Ok(true) => boolean(true),
        Ok(false) => wait(lock, Deadline::NEVER),
        Err(error) => raise(error),
    }
}

#[inline(never)] // keeps `acquire` short
fn acquire_now(lock: &SemLock) -> *mut PyObject {
    match lock.try_acquire() {
        Ok(acquired) => boolean(acquired),
        Err(error) => raise(error),
    }
}

#[cold]
fn wait(lock: &SemLock, deadline: Deadline) -> *mut PyObject {
    #[cfg(unix)]
    let waited = super::waits::wait(|| lock.wait(deadline));
    #[cfg(windows)]
    let waited = super::windows::wait(|event| lock.wait_or(deadline, event));
    match waited {
        // The operating system's semaphores know no owners.
        Some(Wait::Acquired | Wait::OwnerDied(_)) => boolean(true),
        Some(_) => boolean(false),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn release(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

/// Reads the value, and releases a permit if the greatest value allows it. In between, no other
/// thread may release one through the same object: then one of the two would exceed the greatest
/// value. The GIL prevents that, or without the GIL the object's own mutex.
///
/// # Safety
/// Attached; `slf` comes from Python.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of both its callers, which only one would get
unsafe fn let_go(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function; nobody keeps the token or the borrowed reference.
    let (object, lock) = unsafe { (Borrowed::from_ptr(Python::assume_attached(), slf), lock(slf)) };
    match with_critical_section(&object, || lock.release()) {
        Ok(()) => none(),
        Err(error) => raise(error),
    }
}

unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    acquire_or_wait(unsafe { lock(slf) })
}

unsafe extern "C" fn exit(
    slf: *mut PyObject,
    _: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    if nargs > 3 {
        return refuse_exit(nargs);
    }
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

unsafe extern "C" fn is_zero(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    match unsafe { lock(slf) }.is_zero() {
        Ok(zero) => boolean(zero),
        Err(error) => raise(error),
    }
}

unsafe extern "C" fn get_value(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    match unsafe { lock(slf) }.value() {
        // SAFETY: attached.
        Ok(value) => unsafe { ffi::PyLong_FromLong(value.into()) },
        Err(error) => raise(error),
    }
}

unsafe extern "C" fn count(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    let count = unsafe { lock(slf) }.count();
    // SAFETY: attached.
    unsafe { ffi::PyLong_FromLongLong(count) }
}

unsafe extern "C" fn is_mine(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    boolean(unsafe { lock(slf) }.is_mine())
}

unsafe extern "C" fn after_fork(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { lock(slf) }.after_fork();
    none()
}

// ---- Arguments ----

/// The constructor's five arguments; `None`: exception set.
///
/// # Safety
/// Attached; `args` is a tuple and `kwargs` a dictionary or null.
unsafe fn new_arguments(args: *mut PyObject, kwargs: *mut PyObject) -> Option<[*mut PyObject; 5]> {
    let mut values: [*mut PyObject; 5] = [ptr::null_mut(); 5];
    // multiprocessing passes all of them by position, which needs no parser.
    // SAFETY: a tuple.
    if kwargs.is_null() && unsafe { ffi::PyTuple_Size(args) } == 5 {
        for (index, value) in (0..).zip(&mut values) {
            // SAFETY: a tuple of five.
            *value = unsafe { ffi::PyTuple_GetItem(args, index) };
        }
        return Some(values);
    }
    let names = [c"kind", c"value", c"maxvalue", c"name", c"unlink"];
    // SAFETY: as for this function; a place for each of the format's five objects.
    let parsed = unsafe { parse(args, kwargs, c"OOOOO:SemLock", names, &mut values) };
    parsed.then_some(values)
}

/// A `str` argument as a semaphore's name; `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive.
unsafe fn name_argument(object: *mut PyObject, what: &str) -> Option<Name> {
    // SAFETY: a live object.
    if unsafe { ffi::PyUnicode_Check(object) } == 0 {
        // SAFETY: a live object.
        if let Some(given) = unsafe { type_name(object) } {
            let message = format!("{what} must be str, not {given}");
            raise_as(Exception::Type, message);
        }
        return None;
    }
    // SAFETY: a live string.
    let name = unsafe { text(object) }?;
    Name::new(name).map_err(raise).ok()
}

// ---- Making and ending ----

unsafe extern "C" fn new(
    class: *mut PyTypeObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: these are the arguments that Python gave.
    let Some([kind, value, maxvalue, name, unlink]) = (unsafe { new_arguments(args, kwargs) })
    else {
        return ptr::null_mut();
    };
    // SAFETY: all five are set, and alive during the call.
    let converted = unsafe {
        (|| {
            let numbers = (integer(kind)?, integer(value)?, integer(maxvalue)?);
            let name = name_argument(name, "SemLock() argument 'name'")?;
            Some((numbers, name, truth(unlink)?))
        })()
    };
    let Some(((number, value, maxvalue), name, unlink)) = converted else {
        return ptr::null_mut();
    };
    let naming = if unlink { Naming::Unlink } else { Naming::Keep };
    // As in C: a negative value becomes one above SEM_VALUE_MAX, which is EINVAL.
    let value = value.cast_unsigned();
    let created = Kind::try_from(number)
        .and_then(|kind| SemLock::create(kind, value, maxvalue, &name, naming));
    let lock = match created {
        Ok(lock) => lock,
        Err(error) => return raise(error),
    };
    // SAFETY: `class` is ours or a subclass.
    let object = unsafe { new_object(class, number, lock) };
    if object.is_null() && naming == Naming::Keep {
        // The MemoryError stays set. Nobody else knows the name, so nobody else could unlink it.
        let _ = unlink_name(&name);
    }
    object
}

/// A new instance with this lock; null: exception set.
///
/// # Safety
/// Attached; `class` is the type of this file or a subclass.
unsafe fn new_object(class: *mut PyTypeObject, kind: c_int, lock: SemLock) -> *mut PyObject {
    // SAFETY: attached, and a heap type.
    let object = unsafe { types::allocate(class) }.cast::<Object>();
    if object.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: new memory of the size of an `Object` or more. Its head is set, and is not written.
    unsafe {
        (&raw mut (*object).handle).write(lock.handle() as c_ulonglong);
        (&raw mut (*object).kind).write(kind);
        (&raw mut (*object).maxvalue).write(lock.maxvalue());
        // It stays where it is when the lock moves.
        let name = lock.name().map_or(ptr::null(), |name| name.as_c_str().as_ptr());
        (&raw mut (*object).name).write(name);
        (&raw mut (*object).lock).write(lock);
    }
    object.cast()
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: nobody else refers to this object any more, and `new_object` wrote its lock.
    unsafe {
        ptr::drop_in_place(&raw mut (*slf.cast::<Object>()).lock);
        types::free(slf);
    }
}

unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: attached; these are the arguments that Python gave.
    let args = unsafe { tuple(args, nargs) };
    if args.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: attached; `class` is the type or a subclass, and `args` a tuple.
    let object = unsafe { rebuild_from(class.cast(), args) };
    // SAFETY: made above, and released once.
    unsafe { ffi::Py_DECREF(args) };
    object
}

/// # Safety
/// Attached; `class` is the type of this file or a subclass, `args` a tuple.
unsafe fn rebuild_from(class: *mut PyTypeObject, args: *mut PyObject) -> *mut PyObject {
    let mut handle: c_ulonglong = 0;
    let mut number: c_int = 0;
    let mut maxvalue: c_int = 0;
    let mut name: *const c_char = ptr::null();
    // SAFETY: a tuple, and a place of its C type for each of the format's four values.
    let parsed = unsafe {
        ffi::PyArg_ParseTuple(
            args,
            c"Kiiz:_rebuild".as_ptr(),
            ptr::from_mut(&mut handle),
            ptr::from_mut(&mut number),
            ptr::from_mut(&mut maxvalue),
            ptr::from_mut(&mut name),
        )
    };
    if parsed == 0 {
        return ptr::null_mut();
    }
    let kind = Kind::try_from(number).unwrap_or(Kind::Semaphore);
    // A number that is too large for an address is no handle.
    let handle = usize::try_from(handle).unwrap_or(0);
    let name = (!name.is_null()).then(|| {
        // SAFETY: a C string in UTF-8, which lives as long as `args`.
        unsafe { CStr::from_ptr(name) }.to_string_lossy()
    });
    match reopen(handle, kind, maxvalue, name.as_deref()) {
        // SAFETY: as for this function.
        Ok(lock) => unsafe { new_object(class, number, lock) },
        Err(error) => raise(error),
    }
}

/// Opens the semaphore by its name if it has one, and by its handle otherwise.
#[cfg(unix)]
fn reopen(
    handle: usize,
    kind: Kind,
    maxvalue: c_int,
    name: Option<&str>,
) -> Result<SemLock, Error> {
    match name {
        None => SemLock::rebuild_from_handle(handle, kind, maxvalue),
        Some(name) => SemLock::rebuild(kind, maxvalue, &Name::new(name)?),
    }
}

/// Opens the semaphore by its handle, and remembers its name for the caller.
#[cfg(windows)]
fn reopen(
    handle: usize,
    kind: Kind,
    maxvalue: c_int,
    name: Option<&str>,
) -> Result<SemLock, Error> {
    let lock = SemLock::rebuild_from_handle(handle, kind, maxvalue)?;
    Ok(match name {
        None => lock,
        Some(name) => lock.named(Name::new(name)?),
    })
}

unsafe extern "C" fn reduce(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: attached; a new reference or null, and `slf` comes from Python.
    unsafe { call_new(imported(c"semlock", c"_reduce_semlock"), [ffi::Py_NewRef(slf)]) }
}

unsafe extern "C" fn sem_unlink(_: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: an argument, alive during the call.
    match unsafe { name_argument(name, "sem_unlink() argument") } {
        None => ptr::null_mut(),
        Some(name) => match unlink_name(&name) {
            Ok(()) => none(),
            Err(error) => raise(error),
        },
    }
}

#[cfg(unix)]
use semlock::unlink as unlink_name;

/// Does nothing: there are no names to unlink.
#[cfg(windows)]
#[allow(clippy::unnecessary_wraps)] // elsewhere it can fail
fn unlink_name(_: &Name) -> Result<(), Error> {
    Ok(())
}

//! Making locks: the constructors, and what unpickling calls.

use std::ffi::{CStr, c_int};
use std::ptr;

use pyo3::ffi::{self, PyObject};
use semlock::Error;
use semlock::raw::{self, LockKind, Options};

use super::Lock;
use super::classes::made;
use crate::ffi::arguments::{ignores_dead_owners, integer, is_none, parse, truth};
use crate::ffi::calls::{attribute_of_new, call_new, imported};
use crate::ffi::errors::{Exception, raise, raise_as};
use crate::ffi::objects::{fill, new_with, set_flag};
use crate::ffi::sharing::place;
use crate::ffi::values::formatted;

/// The keyword arguments that all constructors take.
struct Settings {
    robust: bool,
    ignores_dead_owners: bool,
}

/// # Safety
/// Attached; both are alive, or null where they were left out.
unsafe fn settings(
    robust: *mut PyObject,
    by_default: bool,
    on_owner_died: *mut PyObject,
) -> Option<Settings> {
    // SAFETY: as for this function.
    unsafe {
        let robust = if is_none(robust) { by_default } else { truth(robust)? };
        Some(Settings { robust, ignores_dead_owners: ignores_dead_owners(on_owner_died)? })
    }
}

fn make(options: Options) -> Option<Lock> {
    raw::Lock::new(options).map(|raw| Lock { raw }).map_err(raise).ok()
}

/// The number of permits of a new semaphore; `None`: the exception is set that CPython raises.
///
/// # Safety
/// Attached; `object` is alive, or null where it was left out.
unsafe fn permits(object: *mut PyObject) -> Option<u32> {
    // SAFETY: as for this function.
    let given = if object.is_null() { 1 } else { unsafe { integer(object) }? };
    u32::try_from(given)
        .map_err(|_negative| raise(Error::Os { call: "sem_init", errno: libc::EINVAL }))
        .ok()
}

/// The greatest value of a semaphore without a bound, whatever that of the system's semaphores is.
const GREATEST: u32 = i32::MAX.cast_unsigned();

/// `SemLock.__init__`, with the arguments of `multiprocessing.synchronize.SemLock`'s.
pub(super) unsafe extern "C" fn init_semlock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    let names = [c"kind", c"value", c"maxvalue", c"ctx"];
    let mut given = [ptr::null_mut(); 4];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call.
    unsafe {
        if !parse(args, kwargs, c"OOO|$O:SemLock", names, &mut given) {
            return -1;
        }
        let [kind, value, maxvalue, _ctx] = given;
        fill(slf, || {
            let (kind, value) = (integer(kind)?, permits(value)?);
            let maxvalue = permits(maxvalue)?;
            let (kind, robust) = match kind {
                0 if value == 1 && maxvalue == 1 => (LockKind::ReentrantMutex, true),
                0 => {
                    let message = "a recursive mutex has a value and maxvalue of 1".to_owned();
                    raise_as(Exception::Value, message);
                    return None;
                }
                1 => (LockKind::Semaphore, false),
                _ => {
                    raise(Error::UnrecognizedKind);
                    return None;
                }
            };
            make(Options { kind, value, maxvalue, robust })
        })
    }
}

pub(super) unsafe extern "C" fn init_lock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_mutex(slf, args, kwargs, LockKind::Mutex, c"|$OOO:Lock") }
}

pub(super) unsafe extern "C" fn init_rlock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_mutex(slf, args, kwargs, LockKind::ReentrantMutex, c"|$OOO:RLock") }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this folder; the arguments are those of an
/// `__init__`.
unsafe fn init_mutex(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
    kind: LockKind,
    format: &CStr,
) -> c_int {
    let names = [c"ctx", c"robust", c"on_owner_died"];
    let mut given = [ptr::null_mut(); 3];
    // SAFETY: as for this function; what is parsed is alive during the call.
    unsafe {
        if !parse(args, kwargs, format, names, &mut given) {
            return -1;
        }
        let [_ctx, robust, on_owner_died] = given;
        fill(slf, || {
            let Settings { robust, ignores_dead_owners } = settings(robust, true, on_owner_died)?;
            set_flag(slf, ignores_dead_owners);
            make(Options { kind, value: 1, maxvalue: 1, robust })
        })
    }
}

pub(super) unsafe extern "C" fn init_semaphore(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_permits(slf, args, kwargs, false, c"|O$OOO:Semaphore") }
}

pub(super) unsafe extern "C" fn init_bounded(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_permits(slf, args, kwargs, true, c"|O$OOO:BoundedSemaphore") }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this folder; the arguments are those of an
/// `__init__`.
unsafe fn init_permits(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
    bounded: bool,
    format: &CStr,
) -> c_int {
    let names = [c"value", c"ctx", c"robust", c"on_owner_died"];
    let mut given = [ptr::null_mut(); 4];
    // SAFETY: as for this function; what is parsed is alive during the call.
    unsafe {
        if !parse(args, kwargs, format, names, &mut given) {
            return -1;
        }
        let [value, _ctx, robust, on_owner_died] = given;
        fill(slf, || {
            let value = permits(value)?;
            let Settings { robust, ignores_dead_owners } = settings(robust, false, on_owner_died)?;
            // Only holders release a robust one, so it never has more permits than at the
            // beginning.
            let maxvalue = if bounded || robust { value } else { GREATEST };
            set_flag(slf, ignores_dead_owners);
            make(Options { kind: LockKind::Semaphore, value, maxvalue, robust })
        })
    }
}

/// `_rebuild(segment, slot, tag, fd=-1, on_owner_died="warn")`: the same lock, in another process.
pub(super) unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let names = [c"segment", c"slot", c"tag", c"fd", c"on_owner_died"];
    let mut given = [ptr::null_mut(); 5];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call;
    // `class` is one of this folder's, or a subclass.
    unsafe {
        if !parse(args, kwargs, c"OOO|OO:_rebuild", names, &mut given) {
            return ptr::null_mut();
        }
        let [segment, slot, tag, fd, on_owner_died] = given;
        let opened = (|| {
            let ignores_dead_owners = ignores_dead_owners(on_owner_died)?;
            let (address, descriptor) = place([segment, slot, tag, fd])?;
            let raw = raw::Lock::open(address, descriptor).map_err(raise).ok()?;
            suits(class, raw.options().kind).then_some((Lock { raw }, ignores_dead_owners))
        })();
        let Some((lock, ignores_dead_owners)) = opened else {
            return ptr::null_mut();
        };
        let object = new_with(class, lock);
        if !object.is_null() {
            set_flag(object, ignores_dead_owners);
        }
        object
    }
}

/// Whether a class is for locks of this kind; if not, an exception is set.
///
/// # Safety
/// Attached, and `class` is a type.
unsafe fn suits(class: *mut PyObject, kind: LockKind) -> bool {
    let Some(classes) = made() else {
        return false;
    };
    let suits = [
        (&classes.lock, LockKind::Mutex),
        (&classes.rlock, LockKind::ReentrantMutex),
        (&classes.semaphore, LockKind::Semaphore),
    ]
    .iter()
    .all(|&(of, its)| {
        // SAFETY: two types.
        its == kind || unsafe { ffi::PyType_IsSubtype(class.cast(), of.as_ptr().cast()) } == 0
    });
    if !suits {
        let message = format!("what lives there is a {kind:?}, which is not of this class");
        raise_as(Exception::Value, message);
    }
    suits
}

/// A new `RLock`, as `RLock()` makes one; null: exception set.
pub(crate) fn new_rlock() -> *mut PyObject {
    let Some(classes) = made() else {
        return ptr::null_mut();
    };
    let options = Options { kind: LockKind::ReentrantMutex, value: 1, maxvalue: 1, robust: true };
    match make(options) {
        // SAFETY: attached, and a type of this folder.
        Some(lock) => unsafe { new_with(classes.rlock.as_ptr(), lock) },
        None => ptr::null_mut(),
    }
}

/// A name that is not in use, as `multiprocessing` makes them for semaphores.
pub(super) unsafe extern "C" fn make_name(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let nothing = ptr::null_mut();
    // SAFETY: attached; each step passes on a reference of ours, or null with an exception set.
    unsafe {
        let process = call_new(imported(c"multiprocessing.process", c"current_process"), []);
        let config = attribute_of_new(process, c"_config");
        if config.is_null() {
            return nothing;
        }
        let prefix = ffi::PyMapping_GetItemString(config, c"semprefix".as_ptr());
        ffi::Py_DECREF(config);
        if prefix.is_null() {
            return nothing;
        }
        let names = call_new(imported(c"tempfile", c"_get_candidate_names"), []);
        let random = call_new(attribute_of_new(names, c"__next__"), []);
        formatted(c"%S-%S", prefix, random)
    }
}

//! `Lock`, `RLock`, `Semaphore` and `BoundedSemaphore` on shared memory, and their base `SemLock`.
//!
//! # Safety
//! What every function in the tables relies on is told at the heads of this folder and of `objects`: the types
//! of this file hold a `Lock`, but for `_SemLockView`, whose instances begin with a `View`.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi::{self, METH_FASTCALL, METH_NOARGS, METH_STATIC, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use semlock::raw::{self, LockKind, Options};
use semlock::{Deadline, Error, Wait};

use super::arguments::{acquire_arguments, integer, is_none, parse, seconds, truth};
use super::calls::{attribute_of_new, call_new, imported};
use super::class_names::{class_of, class_with_module, type_name};
use super::errors::{Exception, raise, raise_as};
use super::objects::{
    Contents, fill, flag, get, held, make_type, name_of, new_with, place, set_flag, shared,
    shared_methods,
};
use super::types::{self, Constant, END_OF_GETTERS, getter, method, slot};
use super::values::{boolean, formatted, long, long_or_none, none, string, text, unsigned};
use super::waits::{self, detached};
use crate::warned;

/// What an instance holds. Its flag says whether it ignores dead owners: that it is for `recovered` alone to tell.
pub(crate) struct Lock {
    pub(crate) raw: raw::Lock,
}

impl Contents for Lock {}

shared!(Lock, raw);

// ---- The hot path ----

pub(crate) unsafe extern "C" fn acquire(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    if nargs == 0 && kwnames.is_null() {
        // SAFETY: `slf` comes from Python.
        return unsafe { acquire_or_wait(slf) };
    }
    let lock = held!(slf);
    // SAFETY: there is one argument; of False, only the address is taken.
    if nargs == 1 && kwnames.is_null() && unsafe { *args == ffi::Py_False() } {
        // SAFETY: `slf` comes from Python, and this is what it holds.
        return unsafe { acquire_now(slf, lock) };
    }
    // SAFETY: these are the arguments that Python gave.
    unsafe { acquire_with(slf, lock, args, nargs, kwnames) }
}

/// What a lock's `try_acquire` says; detached while it looks at many holders.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
fn try_acquire(lock: &Lock) -> Wait {
    lock.raw.try_acquire_with(|look| detached(look))
}

/// # Safety
/// Attached; `slf` is an instance of a type of this file, or of a subclass.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
unsafe fn acquire_or_wait(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    match try_acquire(lock) {
        Wait::Acquired => boolean(true),
        // SAFETY: as for this function, and this is what it holds.
        tried => unsafe { not_at_once(slf, lock, tried, Deadline::NEVER) },
    }
}

/// # Safety
/// Attached; `slf` holds `lock`.
#[inline(never)] // keeps `acquire` short
unsafe fn acquire_now(slf: *mut PyObject, lock: &Lock) -> *mut PyObject {
    // SAFETY: as for this function.
    unsafe { ended(slf, lock, try_acquire(lock), None) }
}

/// # Safety
/// Attached; `slf` holds `lock`; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline(never)] // keeps the registers that it needs from being saved where it is not called
unsafe fn acquire_with(
    slf: *mut PyObject,
    lock: &Lock,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function.
    let Some([block, timeout]) = (unsafe { acquire_arguments(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    // SAFETY: an argument, alive during the call.
    let block = if block.is_null() { Some(true) } else { unsafe { truth(block) } };
    let Some(block) = block else {
        return ptr::null_mut();
    };
    let mut timeout_in_seconds = None;
    if !is_none(timeout) {
        // As in CPython, the timeout of who holds a mutex already is not looked at.
        if lock.raw.again_if_mine() {
            return boolean(true);
        }
        // SAFETY: an argument, alive during the call.
        timeout_in_seconds = unsafe { seconds(timeout) };
        if timeout_in_seconds.is_none() {
            return ptr::null_mut();
        }
    }
    let tried = try_acquire(lock);
    if tried == Wait::Acquired {
        return boolean(true);
    }
    if !block {
        // SAFETY: as for this function.
        return unsafe { ended(slf, lock, tried, None) };
    }
    match timeout_in_seconds.map_or(Ok(Deadline::NEVER), Deadline::after_secs) {
        // SAFETY: as for this function.
        Ok(deadline) => unsafe { not_at_once(slf, lock, tried, deadline) },
        Err(error) => raise(error),
    }
}

/// What is left to do where a try did not just take the permit.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[cold]
unsafe fn not_at_once(
    slf: *mut PyObject,
    lock: &Lock,
    tried: Wait,
    deadline: Deadline,
) -> *mut PyObject {
    let end = match tried {
        Wait::TimedOut | Wait::Interrupted => {
            if warned::borrow(&lock.raw) {
                return boolean(true);
            }
            let mut waiter = lock.raw.waiter(deadline);
            waits::wait(|| Ok(waiter.wait()))
        }
        end => Some(end),
    };
    match end {
        // SAFETY: as for this function.
        Some(end) => unsafe { ended(slf, lock, end, Some(deadline)) },
        None => ptr::null_mut(),
    }
}

/// What `acquire` returns for what came of it. Without a deadline it does not wait.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[inline]
unsafe fn ended(
    slf: *mut PyObject,
    lock: &Lock,
    end: Wait,
    deadline: Option<Deadline>,
) -> *mut PyObject {
    match end {
        Wait::Acquired => boolean(true),
        Wait::TimedOut | Wait::Interrupted => {
            boolean(deadline.is_none() && warned::borrow(&lock.raw))
        }
        // SAFETY: as for this function.
        Wait::OwnerDied(pid) => unsafe { recovered_from(slf, lock, pid, deadline) },
    }
}

/// What `acquire` returns where it has the lock from an owner that died.
///
/// # Safety
/// Attached; `slf` holds `lock`.
#[cold]
unsafe fn recovered_from(
    slf: *mut PyObject,
    lock: &Lock,
    pid: u32,
    deadline: Option<Deadline>,
) -> *mut PyObject {
    // SAFETY: as for this function.
    let Warned { has_raised, is_held } = unsafe { warn_that_owner_died(slf, lock, pid) };
    if has_raised {
        if is_held {
            // It does not hold what it was refused; the next one is told as well.
            lock.raw.give_back_as_owner_died(pid);
        }
        return ptr::null_mut();
    }
    if is_held {
        return boolean(true);
    }
    // The warning ran what released the lock, or goes on holding it: it is to be acquired anew.
    let tried = try_acquire(lock);
    // SAFETY: as for this function.
    unsafe {
        match deadline {
            Some(deadline) => not_at_once(slf, lock, tried, deadline),
            None => ended(slf, lock, tried, None),
        }
    }
}

/// What came of a warning.
pub(crate) struct Warned {
    /// It was an exception, which is set.
    pub(crate) has_raised: bool,
    /// The thread that was warned holds the lock.
    pub(crate) is_held: bool,
}

/// Warns of an owner that died.
///
/// # Safety
/// Attached; `slf` holds `lock`, which this thread has from that owner.
#[cold]
pub(crate) unsafe fn warn_that_owner_died(slf: *mut PyObject, lock: &Lock, pid: u32) -> Warned {
    // SAFETY: as for this function.
    if unsafe { flag(slf) } {
        return Warned { has_raised: false, is_held: true };
    }
    let mut has_raised = false;
    // SAFETY: attached; `slf` is alive; new references, each given up or given back once.
    let is_held = warned::warn(&lock.raw, || unsafe {
        let warn = imported(c"semlock.errors", c"warn_that_owner_died");
        let warned = call_new(warn, [long(pid), class_of(slf)]);
        ffi::Py_XDECREF(warned);
        has_raised = warned.is_null();
    });
    Warned { has_raised, is_held }
}

pub(crate) unsafe extern "C" fn release(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this file, or of a subclass.
#[inline(always)]
#[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
unsafe fn let_go(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    if warned::is_any() && warned::end_borrowing(&lock.raw) {
        return none();
    }
    match lock.raw.release() {
        Ok(()) => none(),
        Err(error) => raise(error),
    }
}

pub(crate) unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python.
    unsafe { acquire_or_wait(slf) }
}

pub(crate) unsafe extern "C" fn exit(
    slf: *mut PyObject,
    _: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    if nargs > 3 {
        let message = format!("__exit__ expected at most 3 arguments, got {nargs}");
        return raise_as(Exception::Type, message);
    }
    // SAFETY: `slf` comes from Python.
    unsafe { let_go(slf) }
}

// ---- What a lock can tell ----

/// What is known by counting permits; detached where there are many.
fn counted<T: Send>(lock: &Lock, count: impl FnOnce(&raw::Lock) -> T + Send) -> T {
    if lock.raw.counts_at_length() { detached(|| count(&lock.raw)) } else { count(&lock.raw) }
}

/// A function of a table that tells something of a lock, and its twin for the lock's view.
macro_rules! tells {
    ($name:ident, $of_view:ident, $lock:ident => $answer:expr) => {
        unsafe extern "C" fn $name(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
            let $lock: &Lock = held!(slf);
            $answer
        }

        through_view!($of_view, $name);
    };
    ($name:ident, $lock:ident => $answer:expr) => {
        unsafe extern "C" fn $name(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
            let $lock: &Lock = held!(slf);
            $answer
        }
    };
}

macro_rules! through_view {
    ($of_view:ident, $name:ident) => {
        unsafe extern "C" fn $of_view(slf: *mut PyObject, other: *mut PyObject) -> *mut PyObject {
            // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
            unsafe { $name(viewed(slf), other) }
        }
    };
}

tells!(is_zero, view_is_zero, lock => boolean(counted(lock, raw::Lock::is_zero)));
tells!(get_value, view_get_value, lock => long(counted(lock, raw::Lock::value)));
tells!(count, view_count, lock => long(lock.raw.count()));
tells!(is_mine, view_is_mine, lock => boolean(lock.raw.is_mine()));
tells!(holder, lock => long_or_none(lock.raw.holder()));
tells!(guard_messages, lock => {
    lock.raw.guard_messages();
    none()
});
tells!(begin_message, lock => boolean(lock.raw.begin_message()));
tells!(is_mid_message, lock => boolean(lock.raw.is_mid_message()));
tells!(is_moving_message, lock => boolean(lock.raw.is_moving_message()));
tells!(free_those_of_the_dead, lock => {
    detached(|| lock.raw.free_those_of_the_dead());
    none()
});
tells!(end_message, lock => {
    lock.raw.end_message();
    none()
});

unsafe extern "C" fn recovered(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    long_or_none(lock.raw.recovered())
}

/// What a pickle carries of the constructor's arguments: the rest lives in the segment.
unsafe extern "C" fn on_owner_died(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let _there: &Lock = held!(slf);
    // SAFETY: `slf` comes from Python.
    string(if unsafe { flag(slf) } { "ignore" } else { "warn" })
}

/// A name that nothing has, as `multiprocessing` makes them for semaphores.
unsafe extern "C" fn make_name(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let nothing = ptr::null_mut();
    // SAFETY: attached; each step gives up a reference of ours, or null with an exception set.
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

// ---- Representations ----

/// Who holds a lock, and how often, as `multiprocessing` tells it.
///
/// # Safety
/// Attached; `slf` holds `lock`.
unsafe fn owner(lock: &raw::Lock) -> [*mut PyObject; 2] {
    if lock.is_mine() {
        return [caller(), long(lock.count())];
    }
    if !lock.is_zero() {
        return [string("None"), long(0)];
    }
    let other = if lock.count() > 0 { "SomeOtherThread" } else { "SomeOtherProcess" };
    [string(other), string("nonzero")]
}

/// The calling process's name, and the thread's if it is not the main one; null: exception set.
fn caller() -> *mut PyObject {
    let nothing = ptr::null_mut();
    // SAFETY: attached; each step gives up a reference of ours, or null with an exception set.
    unsafe {
        let thread = call_new(imported(c"threading", c"current_thread"), []);
        let thread = attribute_of_new(thread, c"name");
        if thread.is_null() {
            return nothing;
        }
        let process = call_new(imported(c"multiprocessing.process", c"current_process"), []);
        let process = attribute_of_new(process, c"name");
        if ffi::PyUnicode_Check(thread) != 0
            && ffi::PyUnicode_CompareWithASCIIString(thread, c"MainThread".as_ptr()) == 0
        {
            ffi::Py_DECREF(thread);
            return process;
        }
        formatted(c"%S|%S", process, thread)
    }
}

/// In the place of what could not be told, unless it is no error that was raised (but Ctrl-C).
fn known(told: [*mut PyObject; 2]) -> [*mut PyObject; 2] {
    if told.iter().all(|object| !object.is_null()) {
        return told;
    }
    // SAFETY: attached, with an exception set; null or references of ours.
    unsafe {
        for object in told {
            ffi::Py_XDECREF(object);
        }
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) == 0 {
            return [ptr::null_mut(); 2];
        }
        ffi::PyErr_Clear();
    }
    [string("unknown"), string("unknown")]
}

unsafe extern "C" fn repr_lock(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let [owner, times] = known(owner(&lock.raw));
        ffi::Py_XDECREF(times);
        formatted(c"<%S(owner=%S)>", if_told(owner, slf), owner)
    }
}

/// `class_of`, unless there is an exception already.
///
/// # Safety
/// Attached; `slf` is alive.
pub(crate) unsafe fn if_told(told: *mut PyObject, slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    if told.is_null() { told } else { unsafe { class_of(slf) } }
}

unsafe extern "C" fn repr_rlock(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let [owner, times] = known(owner(&lock.raw));
        let class = if_told(owner, slf);
        formatted(c"<%S(%S)>", class, formatted(c"%S, %S", owner, times))
    }
}

unsafe extern "C" fn repr_semaphore(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    // SAFETY: attached, and `slf` comes from Python.
    unsafe { formatted(c"<%S(value=%S)>", class_of(slf), long(counted(lock, raw::Lock::value))) }
}

unsafe extern "C" fn repr_bounded(slf: *mut PyObject) -> *mut PyObject {
    let lock: &Lock = held!(slf);
    let most = lock.raw.options().maxvalue;
    // SAFETY: attached, and `slf` comes from Python; each step takes references of ours.
    unsafe {
        let value = counted(lock, raw::Lock::value);
        let values = formatted(c"value=%S, maxvalue=%S", long(value), long(most));
        formatted(c"<%S(%S)>", class_of(slf), values)
    }
}

// ---- Making ----

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
        Some(Settings { robust, ignores_dead_owners: ignores(on_owner_died)? })
    }
}

/// Whether `on_owner_died` says to ignore it; `None`: exception set.
///
/// # Safety
/// Attached; it is alive, or null where it was left out.
unsafe fn ignores(on_owner_died: *mut PyObject) -> Option<bool> {
    if on_owner_died.is_null() {
        return Some(false);
    }
    // SAFETY: as for this function; of what is no string, only its type is looked at.
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

fn make(options: Options) -> Option<Lock> {
    match raw::Lock::new(options) {
        Ok(raw) => Some(Lock { raw }),
        Err(error) => {
            raise(error);
            None
        }
    }
}

/// The number of permits of a new semaphore; `None`: exception set, which CPython raises for it.
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

/// What a semaphore without a bound can be, whatever the system's own can.
const GREATEST: u32 = i32::MAX.cast_unsigned();

/// `SemLock.__init__`, with the arguments of `multiprocessing.synchronize.SemLock`'s.
unsafe extern "C" fn init_semlock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    let names = [c"kind".as_ptr(), c"value".as_ptr(), c"maxvalue".as_ptr(), c"ctx".as_ptr()];
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

unsafe extern "C" fn init_lock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_mutex(slf, args, kwargs, LockKind::Mutex, c"|$OOO:Lock") }
}

unsafe extern "C" fn init_rlock(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_mutex(slf, args, kwargs, LockKind::ReentrantMutex, c"|$OOO:RLock") }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this file; the arguments are those of an `__init__`.
unsafe fn init_mutex(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
    kind: LockKind,
    format: &std::ffi::CStr,
) -> c_int {
    let names = [c"ctx".as_ptr(), c"robust".as_ptr(), c"on_owner_died".as_ptr()];
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

unsafe extern "C" fn init_semaphore(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_permits(slf, args, kwargs, false, c"|O$OOO:Semaphore") }
}

unsafe extern "C" fn init_bounded(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> c_int {
    // SAFETY: these are the arguments that Python gave.
    unsafe { init_permits(slf, args, kwargs, true, c"|O$OOO:BoundedSemaphore") }
}

/// # Safety
/// Attached; `slf` is an instance of a type of this file; the arguments are those of an `__init__`.
unsafe fn init_permits(
    slf: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
    bounded: bool,
    format: &std::ffi::CStr,
) -> c_int {
    let names = [c"value".as_ptr(), c"ctx".as_ptr(), c"robust".as_ptr(), c"on_owner_died".as_ptr()];
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
            // A robust one never has more permits than it began with: only holders can release.
            let maxvalue = if bounded || robust { value } else { GREATEST };
            set_flag(slf, ignores_dead_owners);
            make(Options { kind: LockKind::Semaphore, value, maxvalue, robust })
        })
    }
}

/// `_rebuild(segment, slot, tag, fd=-1, on_owner_died="warn")`: the same lock, in another process.
unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let names = [
        c"segment".as_ptr(),
        c"slot".as_ptr(),
        c"tag".as_ptr(),
        c"fd".as_ptr(),
        c"on_owner_died".as_ptr(),
    ];
    let mut given = [ptr::null_mut(); 5];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call;
    // `class` is one of this file's, or a subclass.
    unsafe {
        if !parse(args, kwargs, c"OOO|OO:_rebuild", names, &mut given) {
            return ptr::null_mut();
        }
        let [segment, slot, tag, fd, on_owner_died] = given;
        let opened = (|| {
            let ignores_dead_owners = ignores(on_owner_died)?;
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
    let Some(types) = made() else {
        return false;
    };
    let suits = [
        (&types.lock, LockKind::Mutex),
        (&types.rlock, LockKind::ReentrantMutex),
        (&types.semaphore, LockKind::Semaphore),
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

// ---- The view: what `multiprocessing` and others ask of `_semlock` ----

/// An instance of `_SemLockView`: the lock as it is, whatever a subclass of it overrides.
#[repr(C)]
struct View {
    ob_base: PyObject,
    /// A reference of its own, and one that holds a `Lock`. (It is not cleared to break cycles: those
    /// all go through the lock's attributes or a subclass's slots, which are.)
    lock: *mut PyObject,
}

/// # Safety
/// `slf` is a view.
unsafe fn viewed(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: as for this function.
    unsafe { (*slf.cast::<View>()).lock }
}

unsafe extern "C" fn semlock(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let _there: &Lock = held!(slf);
    let Some(types) = made() else {
        return ptr::null_mut();
    };
    // SAFETY: attached; a type without an allocator of its own, of instances of a fixed size. `lock`
    // is null till it is written, which is what `view_traverse` expects.
    unsafe {
        let view = ffi::PyType_GenericAlloc(types.view.as_ptr().cast(), 0);
        if !view.is_null() {
            (*view.cast::<View>()).lock = ffi::Py_NewRef(slf);
        }
        view
    }
}

unsafe extern "C" fn view_dealloc(slf: *mut PyObject) {
    // SAFETY: nobody else has this object any more; it was tracked since it was made, and its
    // reference is given back once. It is of a heap type, which its instances count for, and goes
    // the way that PyType_GenericAlloc's objects go.
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
    // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
    unsafe { acquire(viewed(slf), args, nargs, kwnames) }
}

unsafe extern "C" fn view_exit(
    slf: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
    unsafe { exit(viewed(slf), args, nargs) }
}

through_view!(view_release, release);
through_view!(view_enter, enter);

/// What a child has of a lock is looked at by fork generations: there is nothing to do.
unsafe extern "C" fn view_after_fork(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    none()
}

unsafe extern "C" fn view_name(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    name_of(lock.raw.address())
}

unsafe extern "C" fn view_handle(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // Its address: no other object of this process has that while it lives.
    // SAFETY: `slf` is a view, which Python gave.
    unsigned(unsafe { viewed(slf) }.addr() as u64)
}

unsafe extern "C" fn view_kind(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    // As `multiprocessing` makes them: what is not recursive is a semaphore of one permit.
    let kind = match lock.raw.options().kind {
        LockKind::ReentrantMutex => semlock::Kind::RecursiveMutex,
        LockKind::Mutex | LockKind::Semaphore => semlock::Kind::Semaphore,
    };
    long(kind as i32)
}

unsafe extern "C" fn view_maxvalue(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: `slf` is a view, which Python gave, and so is its lock alive.
    let slf = unsafe { viewed(slf) };
    let lock: &Lock = held!(slf);
    long(lock.raw.options().maxvalue)
}

// ---- Tables ----

const ACQUIRE: c_int = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
const REBUILD: c_int = ffi::METH_VARARGS | ffi::METH_KEYWORDS | ffi::METH_CLASS;

static SEMLOCK_METHODS: Constant<[ffi::PyMethodDef; 13]> = Constant(shared_methods!(
    Lock,
    [
        method!(c"acquire", ACQUIRE, PyCFunctionFastWithKeywords: acquire,
        c"acquire($self, /, block=True, timeout=None)\n--\n\nAcquire it; False if that took too long."),
        method!(c"release", METH_NOARGS, PyCFunction: release,
        c"release($self, /)\n--\n\nRelease it."),
        method!(c"__enter__", METH_NOARGS, PyCFunction: enter,
        c"__enter__($self, /)\n--\n\nAcquire it."),
        method!(c"__exit__", METH_FASTCALL, PyCFunctionFast: exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nRelease it."),
        method!(c"locked", METH_NOARGS, PyCFunction: is_zero,
        c"locked($self, /)\n--\n\nWhether no permit is free."),
        method!(c"_make_name", METH_NOARGS | METH_STATIC, PyCFunction: make_name,
        c"_make_name()\n--\n\nA new name for a semaphore, as multiprocessing makes them."),
        method!(c"_rebuild", REBUILD, PyCFunctionWithKeywords: rebuild,
        c"_rebuild($type, /, segment, slot, tag, fd=-1, on_owner_died='warn')\n--\n\n\
          What lives at that address. LookupError without a descriptor where it is not mapped."),
    ]
));

static SEMAPHORE_METHODS: Constant<[ffi::PyMethodDef; 3]> = Constant([
    method!(c"get_value", METH_NOARGS, PyCFunction: get_value,
        c"get_value($self, /)\n--\n\nThe number of free permits."),
    method!(c"_free_those_of_the_dead", METH_NOARGS, PyCFunction: free_those_of_the_dead,
        c"_free_those_of_the_dead($self, /)\n--\n\nFree permits whose holders died, and tell nobody."),
    ffi::PyMethodDef::zeroed(),
]);

static LOCK_METHODS: Constant<[ffi::PyMethodDef; 7]> = Constant([
    method!(c"holder", METH_NOARGS, PyCFunction: holder,
        c"holder($self, /)\n--\n\nThe pid of the process that holds it, or None."),
    method!(c"_guard_messages", METH_NOARGS, PyCFunction: guard_messages,
        c"_guard_messages($self, /)\n--\n\nMake it a queue's, whose messages are moved under it."),
    method!(c"_begin_message", METH_NOARGS, PyCFunction: begin_message,
        c"_begin_message($self, /)\n--\n\nMark that a message is being moved; False if it is marked."),
    method!(c"_end_message", METH_NOARGS, PyCFunction: end_message,
        c"_end_message($self, /)\n--\n\nRemove that mark."),
    method!(c"_is_mid_message", METH_NOARGS, PyCFunction: is_mid_message,
        c"_is_mid_message($self, /)\n--\n\nWhether that mark is set."),
    method!(c"_is_moving_message", METH_NOARGS, PyCFunction: is_moving_message,
        c"_is_moving_message($self, /)\n--\n\nWhether this thread has set it."),
    ffi::PyMethodDef::zeroed(),
]);

static RLOCK_METHODS: Constant<[ffi::PyMethodDef; 2]> = Constant([
    method!(c"holder", METH_NOARGS, PyCFunction: holder,
        c"holder($self, /)\n--\n\nThe pid of the process that holds it, or None."),
    ffi::PyMethodDef::zeroed(),
]);

static VIEW_METHODS: Constant<[ffi::PyMethodDef; 10]> = Constant([
    method!(c"acquire", ACQUIRE, PyCFunctionFastWithKeywords: view_acquire,
        c"acquire($self, /, block=True, timeout=None)\n--\n\n"),
    method!(c"release", METH_NOARGS, PyCFunction: view_release, c"release($self, /)\n--\n\n"),
    method!(c"__enter__", METH_NOARGS, PyCFunction: view_enter, c"__enter__($self, /)\n--\n\n"),
    method!(c"__exit__", METH_FASTCALL, PyCFunctionFast: view_exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\n"),
    method!(c"_count", METH_NOARGS, PyCFunction: view_count, c"_count($self, /)\n--\n\n"),
    method!(c"_is_mine", METH_NOARGS, PyCFunction: view_is_mine, c"_is_mine($self, /)\n--\n\n"),
    method!(c"_get_value", METH_NOARGS, PyCFunction: view_get_value, c"_get_value($self, /)\n--\n\n"),
    method!(c"_is_zero", METH_NOARGS, PyCFunction: view_is_zero, c"_is_zero($self, /)\n--\n\n"),
    method!(c"_after_fork", METH_NOARGS, PyCFunction: view_after_fork,
        c"_after_fork($self, /)\n--\n\n"),
    ffi::PyMethodDef::zeroed(),
]);

static SEMLOCK_GETTERS: Constant<[ffi::PyGetSetDef; 4]> = Constant([
    getter(
        c"recovered",
        recovered,
        c"The pid of the owner that died, from acquire to release; or None.",
    ),
    getter(c"_on_owner_died", on_owner_died, c"What it was made with."),
    getter(c"_semlock", semlock, c"What multiprocessing calls the semaphore below."),
    END_OF_GETTERS,
]);

static VIEW_GETTERS: Constant<[ffi::PyGetSetDef; 5]> = Constant([
    getter(c"name", view_name, c""),
    getter(c"handle", view_handle, c""),
    getter(c"kind", view_kind, c""),
    getter(c"maxvalue", view_maxvalue, c""),
    END_OF_GETTERS,
]);

// ---- The types ----

/// Made once, and never ended.
pub(crate) struct Types {
    pub(crate) semlock: Py<PyAny>,
    pub(crate) lock: Py<PyAny>,
    pub(crate) rlock: Py<PyAny>,
    pub(crate) semaphore: Py<PyAny>,
    pub(crate) bounded_semaphore: Py<PyAny>,
    pub(crate) view: Py<PyAny>,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

pub(crate) fn types(py: Python<'_>) -> PyResult<&Types> {
    TYPES.get_or_try_init(py, || make_types(py))
}

/// The types, which have been made; if not, `None` with an exception set.
fn made<'a>() -> Option<&'a Types> {
    // SAFETY: attached; the token is not kept.
    let types = TYPES.get(unsafe { Python::assume_attached() });
    if types.is_none() {
        raise_as(Exception::Runtime, "semlock._native is not imported".to_owned());
    }
    types
}

fn make_types(py: Python<'_>) -> PyResult<Types> {
    use ffi::{
        Py_tp_dealloc, Py_tp_doc, Py_tp_getset, Py_tp_init, Py_tp_methods, Py_tp_repr,
        Py_tp_traverse,
    };

    let doc = |doc: &'static std::ffi::CStr| slot(Py_tp_doc, doc.as_ptr().cast_mut().cast());
    let methods = |table: *const ffi::PyMethodDef| slot(Py_tp_methods, table.cast_mut().cast());
    let init = |function: ffi::initproc| slot(Py_tp_init, function as *mut c_void);
    let repr = |function: ffi::reprfunc| slot(Py_tp_repr, function as *mut c_void);

    let make = |name, base, slots: &[_]| {
        // SAFETY: what they name is what their numbers say, for `Object<Lock>`s; the tables are
        // static and end with zero entries.
        unsafe { make_type::<Lock>(py, name, base, slots) }
    };
    let semlock = make(
        c"semlock._native.SemLock",
        None,
        &[
            init(init_semlock),
            methods(SEMLOCK_METHODS.0.as_ptr()),
            slot(Py_tp_getset, SEMLOCK_GETTERS.0.as_ptr().cast_mut().cast()),
            doc(c"SemLock(kind, value, maxvalue, *, ctx=None)\n--\n\n\
                  What all locks and semaphores are."),
        ],
    )?;
    let lock = make(
        c"semlock.Lock",
        Some(&semlock),
        &[
            init(init_lock),
            repr(repr_lock),
            methods(LOCK_METHODS.0.as_ptr()),
            doc(c"Lock(*, ctx=None, robust=True, on_owner_died='warn')\n--\n\n\
                  A lock that processes share, and that the next one gets if its holder dies."),
        ],
    )?;
    let rlock = make(
        c"semlock.RLock",
        Some(&semlock),
        &[
            init(init_rlock),
            repr(repr_rlock),
            methods(RLOCK_METHODS.0.as_ptr()),
            doc(c"RLock(*, ctx=None, robust=True, on_owner_died='warn')\n--\n\n\
                  A lock that the thread which holds it can take again."),
        ],
    )?;
    let semaphore = make(
        c"semlock.Semaphore",
        Some(&semlock),
        &[
            init(init_semaphore),
            repr(repr_semaphore),
            methods(SEMAPHORE_METHODS.0.as_ptr()),
            doc(c"Semaphore(value=1, *, ctx=None, robust=False, on_owner_died='warn')\n--\n\n\
                  Permits that processes share."),
        ],
    )?;
    let bounded_semaphore = make(
        c"semlock.BoundedSemaphore",
        Some(&semaphore),
        &[
            init(init_bounded),
            repr(repr_bounded),
            doc(c"BoundedSemaphore(value=1, *, ctx=None, robust=False, on_owner_died='warn')\n--\n\n\
                  Permits that processes share, and never more than there were."),
        ],
    )?;
    // SAFETY: what they name is what their numbers say, for `View`s.
    let view = unsafe {
        types::make_type(
            py,
            c"semlock._native._SemLockView",
            size_of::<View>(),
            ffi::Py_TPFLAGS_DEFAULT
                | ffi::Py_TPFLAGS_HAVE_GC
                | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
            &[
                slot(Py_tp_dealloc, view_dealloc as *mut c_void),
                slot(Py_tp_traverse, view_traverse as *mut c_void),
                methods(VIEW_METHODS.0.as_ptr()),
                slot(Py_tp_getset, VIEW_GETTERS.0.as_ptr().cast_mut().cast()),
            ],
        )?
    };
    Ok(Types {
        semlock: semlock.unbind(),
        lock: lock.unbind(),
        rlock: rlock.unbind(),
        semaphore: semaphore.unbind(),
        bounded_semaphore: bounded_semaphore.unbind(),
        view: view.unbind(),
    })
}

/// A new `RLock`, as without arguments; null: exception set.
pub(crate) fn new_rlock() -> *mut PyObject {
    let Some(types) = made() else {
        return ptr::null_mut();
    };
    let options = Options { kind: LockKind::ReentrantMutex, value: 1, maxvalue: 1, robust: true };
    match make(options) {
        // SAFETY: attached, and a type of this file's.
        Some(lock) => unsafe { new_with(types.rlock.as_ptr(), lock) },
        None => ptr::null_mut(),
    }
}

/// What a `Lock` or `RLock`, or one of a subclass, holds, and whether it is exactly such; `None`:
/// exception set.
///
/// # Safety
/// Attached; `object` is alive, as long as the result is used.
pub(crate) unsafe fn mutex<'a>(object: *mut PyObject) -> Option<(&'a Lock, bool)> {
    let types = made()?;
    // SAFETY: live objects.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let mutexes = [&types.lock, &types.rlock].map(|class| class.as_ptr().cast());
        if !mutexes.iter().any(|&mutex| ffi::PyType_IsSubtype(class, mutex) != 0) {
            if let Some(given) = class_with_module(object) {
                let message = format!(
                    "a condition's lock has to be a semlock.Lock or a semlock.RLock, not {given}: \
                     make it with semlock (after install(), if that is called), or leave it out to \
                     get a new RLock"
                );
                raise_as(Exception::Type, message);
            }
            return None;
        }
        let Some(lock) = get(object) else {
            super::objects::raise_empty(object);
            return None;
        };
        Some((lock, mutexes.contains(&class)))
    }
}

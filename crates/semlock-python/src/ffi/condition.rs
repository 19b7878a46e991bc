//! `Condition` on shared memory.
//!
//! It is on the hot path because `with condition:` and `notify()` run as often as `with lock:`.
//!
//! # Safety
//! The heads of this folder and of `objects` say what every function in the tables relies on. The
//! types of this file hold a `Condition`, except for `_Waiters`, whose instances begin with a
//! `Waiters`.

use std::ffi::{c_int, c_long, c_void};
use std::ptr;

use pyo3::ffi::{self, METH_NOARGS, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use semlock::raw::{self, Shared};
use semlock::{Deadline, Error, Wait};

use super::arguments::{self, deadline, fast_arguments, float, is_none, parse, timeout_argument};
use super::calls::{call, call_new, is_true};
use super::class_names::class_with_module;
use super::docs::condition as docs;
use super::errors::{Exception, raise, raise_as};
use super::locks::acquire::warn_that_owner_died;
use super::locks::make::new_rlock;
use super::locks::repr::if_told;
use super::locks::{self, Lock};
use super::objects::{Contents, fill, get, has_attributes, held, make_type, new_with, raise_empty};
use super::sharing::{place, shared_methods};
use super::types::{self, Constant, END_OF_GETTERS, FAST, OF_CLASS, getter, method, slot};
use super::values::{self, boolean, formatted, long, none};
use super::waits::{self, detached};

struct Condition {
    raw: raw::Condvar,
    lock: Reference,
    /// Whether the lock is exactly a `Lock` or `RLock`, and had no attributes when the condition
    /// was made. Then its methods are called directly, and not looked up.
    is_plain: bool,
}

impl Contents for Condition {
    fn reference(&self) -> *mut PyObject {
        self.lock.0
    }
}

impl Shared for Condition {
    fn object(&self) -> &raw::Object {
        self.raw.object()
    }
}

/// The object of a lock, which `mutex` has checked. (The collector does not clear it to break
/// cycles: all of them go through attributes or a subclass's slots, which it clears.)
struct Reference(*mut PyObject);

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: attached, as every caller of this file's functions is; a reference that it owns.
        unsafe { ffi::Py_DECREF(self.0) };
    }
}

impl Condition {
    fn lock(&self) -> &Lock {
        // SAFETY: `mutex` found it filled. It stays filled, and lives as long as the reference.
        unsafe { get(self.lock.0).unwrap_unchecked() }
    }
}

// ---- Acquiring and releasing the lock ----

/// Calls a method of the lock, which a subclass may have overridden.
///
/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[cold]
unsafe fn delegate(
    condition: &Condition,
    name: &std::ffi::CStr,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function; the lock lives as long as the condition. Each new reference is
    // released once.
    unsafe {
        let function = ffi::PyObject_GetAttrString(condition.lock.0, name.as_ptr());
        if function.is_null() {
            return function;
        }
        let tuple = values::tuple(args, nargs);
        let keywords = arguments::keywords(args, nargs, kwnames);
        let mut result = ptr::null_mut();
        if !tuple.is_null() && !keywords.is_null() {
            result = call(function, tuple, keywords);
        }
        ffi::Py_XDECREF(keywords);
        ffi::Py_XDECREF(tuple);
        ffi::Py_DECREF(function);
        result
    }
}

unsafe extern "C" fn acquire(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: these are the arguments that Python gave; the lock lives as long as the condition.
    unsafe {
        if condition.is_plain {
            return locks::acquire::acquire(condition.lock.0, args, nargs, kwnames);
        }
        delegate(condition, c"acquire", args, nargs, kwnames)
    }
}

unsafe extern "C" fn release(slf: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: attached; the lock lives as long as the condition; there are no arguments.
    unsafe {
        if condition.is_plain {
            return locks::acquire::release(condition.lock.0, nothing);
        }
        delegate(condition, c"release", ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn enter(slf: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: attached; the lock lives as long as the condition; there are no arguments.
    unsafe {
        if condition.is_plain {
            return locks::acquire::enter(condition.lock.0, nothing);
        }
        delegate(condition, c"__enter__", ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn exit(
    slf: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: these are the arguments that Python gave; the lock lives as long as the condition.
    unsafe {
        if condition.is_plain {
            return locks::acquire::exit(condition.lock.0, args, nargs);
        }
        delegate(condition, c"__exit__", args, nargs, ptr::null_mut())
    }
}

// ---- Notifying ----

unsafe extern "C" fn notify(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    if nargs == 0 && kwnames.is_null() {
        return condition.notify(1);
    }
    // SAFETY: these are the arguments that Python gave.
    match unsafe { how_many(args, nargs, kwnames) } {
        Some(n) => condition.notify(n),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn notify_all(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    condition.notify(u32::MAX)
}

impl Condition {
    #[inline]
    fn notify(&self, n: u32) -> *mut PyObject {
        if !self.lock().raw.is_mine() {
            return raise_as(Exception::Assertion, "lock is not owned".to_owned());
        }
        self.raw.notify(n);
        none()
    }
}

/// `notify`'s argument, limited to the number of waiters that there can be; `None`: exception set.
///
/// # Safety
/// Attached; the arguments are those of a `METH_FASTCALL | METH_KEYWORDS` call.
#[inline(never)] // keeps `notify` short
unsafe fn how_many(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<u32> {
    // SAFETY: as for this function.
    let [n] = unsafe { fast_arguments(args, nargs, kwnames, c"|O:notify", [c"n"]) }?;
    if n.is_null() {
        return Some(1);
    }
    let mut overflow = 0;
    // SAFETY: an argument, alive during the call, and a place for an int.
    let n: c_long = unsafe { ffi::PyLong_AsLongAndOverflow(n, &raw mut overflow) };
    if n == -1 && overflow == 0 {
        // SAFETY: attached.
        if !unsafe { ffi::PyErr_Occurred() }.is_null() {
            return None;
        }
    }
    let few = if overflow < 0 { 0 } else { u32::MAX };
    Some(if overflow == 0 { n.max(0).try_into().unwrap_or(u32::MAX) } else { few })
}

// ---- Waiting ----

unsafe extern "C" fn wait(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    if !condition.lock().raw.is_mine() {
        let message = "must acquire() condition before using wait()".to_owned();
        return raise_as(Exception::Assertion, message);
    }
    // SAFETY: these are the arguments that Python gave, alive during the call.
    let deadline =
        unsafe { timeout_argument(args, nargs, kwnames).and_then(|given| deadline(given)) };
    match deadline {
        Some(deadline) => condition.wait(deadline),
        None => ptr::null_mut(),
    }
}

impl Condition {
    /// Waits for a notification, and releases the lock meanwhile. The caller holds the lock, and
    /// holds it again when this returns, however the wait ends.
    fn wait(&self, deadline: Deadline) -> *mut PyObject {
        let lock = self.lock();
        let waiting = match self.raw.enter() {
            Ok(waiting) => waiting,
            Err(error) => return raise(error),
        };
        let depth = match lock.raw.release_all() {
            Ok(depth) => depth,
            Err(error) => {
                // The lock is still held, so nobody can have notified this waiter.
                self.raw.abandon(waiting);
                return raise(error);
            }
        };
        // If an exception is set from here on, it stays set until this returns.
        let condvar = &self.raw;
        let spin = || condvar.spin(&waiting, deadline);
        let slept = waits::spin_and_wait(spin, || Ok(condvar.sleep(&waiting, deadline)));
        loop {
            let taken = take_again(&lock.raw);
            lock.raw.restore_depth(depth);
            match taken {
                // The warning ran code that released the lock, or that still holds it: take it
                // again.
                Wait::OwnerDied(pid) if !self.warn_that_owner_died(pid) => {}
                _ => break,
            }
        }
        // A signal can arrive together with the notification, and then interrupts no sleep. Its
        // handler runs now, so that what it raises ends the wait. A moment later it would replace
        // the result.
        // SAFETY: attached; handlers run only where no exception is set.
        let failed = slept.is_none()
            || unsafe { !ffi::PyErr_Occurred().is_null() || ffi::PyErr_CheckSignals() < 0 };
        if failed {
            // If this waiter was notified, the notification goes to another.
            self.raw.abandon(waiting);
            return ptr::null_mut();
        }
        boolean(self.raw.leave(waiting))
    }

    /// Warns of an owner that died during the wait; returns whether the lock is held then. If the
    /// warning raises, the lock stays held: the caller of `wait` holds it, and has to release it.
    #[allow(deprecated)] // older versions than CPython 3.12 do not have what replaces them
    fn warn_that_owner_died(&self, pid: u32) -> bool {
        let mut before = [ptr::null_mut(); 3];
        let [kind, value, traceback] = &mut before;
        // SAFETY: attached, with places for three references, which are passed on once; the lock's
        // object is alive and holds the lock.
        unsafe {
            ffi::PyErr_Fetch(kind, value, traceback);
            let warned = warn_that_owner_died(self.lock.0, self.lock(), pid);
            // The first exception is the one that ends the wait.
            if !before[0].is_null() {
                ffi::PyErr_Restore(before[0], before[1], before[2]);
            }
            warned.is_held
        }
    }
}

/// Takes a lock, whatever signals arrive. If a signal's handler raises, the exception is set when
/// this returns, and the handlers of further signals run later.
fn take_again(lock: &raw::Lock) -> Wait {
    let tried = lock.try_acquire();
    if tried != Wait::TimedOut {
        return tried;
    }
    let mut waiter = lock.waiter(Deadline::NEVER);
    loop {
        match detached(|| waiter.wait()) {
            // SAFETY: attached again. If a handler raises, the exception stays set.
            Wait::Interrupted => unsafe {
                if ffi::PyErr_Occurred().is_null() {
                    ffi::PyErr_CheckSignals();
                }
            },
            // woken for nothing: this deadline never comes
            Wait::TimedOut => {}
            end => return end,
        }
    }
}

/// `wait_for(predicate, timeout=None)`, which calls the instance's own `wait`.
unsafe extern "C" fn wait_for(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let _there: &Condition = held!(slf);
    let names = [c"predicate", c"timeout"];
    // SAFETY: these are the arguments that Python gave.
    let given = unsafe { fast_arguments(args, nargs, kwnames, c"O|O:wait_for", names) };
    let Some([predicate, timeout]) = given else {
        return ptr::null_mut();
    };
    // SAFETY: `slf` comes from Python, and the arguments are alive during the call.
    unsafe { wait_until_true(slf, predicate, timeout) }
}

/// # Safety
/// Attached; `slf` and `predicate` are alive, `timeout` is alive or null.
unsafe fn wait_until_true(
    slf: *mut PyObject,
    predicate: *mut PyObject,
    timeout: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as for this function. Results are new references, or null with an exception set. Each
    // is released or returned.
    unsafe {
        let mut since = None;
        loop {
            let result = call_new(ffi::Py_NewRef(predicate), []);
            if result.is_null() {
                return result;
            }
            let truth = is_true(result);
            if truth == Some(true) {
                return result;
            }
            let left = truth.and_then(|_false| seconds_left(timeout, &mut since));
            let waited = match left {
                None => ptr::null_mut(),
                Some(Some(left)) if left <= 0.0 => return result,
                Some(left) => wait_once(slf, left),
            };
            ffi::Py_DECREF(result);
            if waited.is_null() {
                return waited;
            }
            ffi::Py_DECREF(waited);
        }
    }
}

/// What is left of a timeout, which begins with the first call; `Some(None)`: there is no timeout;
/// `None`: exception set.
///
/// # Safety
/// Attached; `timeout` is alive or null.
#[allow(clippy::option_option)] // the outer one means an exception, as in all of this folder
unsafe fn seconds_left(
    timeout: *mut PyObject,
    since: &mut Option<std::time::Instant>,
) -> Option<Option<f64>> {
    if is_none(timeout) {
        return Some(None);
    }
    // SAFETY: as for this function.
    let timeout = unsafe { float(timeout) }?;
    let since = since.get_or_insert_with(std::time::Instant::now);
    Some(Some(timeout - since.elapsed().as_secs_f64()))
}

/// Calls an instance's `wait`: a new reference; null: exception set.
///
/// # Safety
/// Attached; `slf` is alive.
unsafe fn wait_once(slf: *mut PyObject, timeout: Option<f64>) -> *mut PyObject {
    // SAFETY: as for this function; new references, each passed on once.
    unsafe {
        let timeout = timeout.map_or_else(none, |timeout| ffi::PyFloat_FromDouble(timeout));
        if timeout.is_null() {
            return timeout;
        }
        call_new(ffi::PyObject_GetAttrString(slf, c"wait".as_ptr()), [timeout])
    }
}

// ---- The state of a condition ----

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: attached, and `slf` comes from Python; each step takes over references of ours, and
    // the lock lives as long as the condition.
    unsafe {
        let lock = ffi::Py_NewRef(condition.lock.0);
        let parts = formatted(c"%S, %S", lock, long(condition.raw.waiting()));
        formatted(c"<%S(%S)>", if_told(parts, slf), parts)
    }
}

unsafe extern "C" fn lock(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    // SAFETY: attached; the lock lives as long as the condition.
    unsafe { ffi::Py_NewRef(condition.lock.0) }
}

unsafe extern "C" fn sleeping_count(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let condition: &Condition = held!(slf);
    waiters(condition.raw.waiting())
}

/// `_woken_count` and `_wait_semaphore`: always 0, because no notifier waits for its waiters to
/// wake.
unsafe extern "C" fn no_count(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    let _there: &Condition = held!(slf);
    waiters(0)
}

/// An instance of `_Waiters`: a number that `multiprocessing` keeps in a semaphore and reads with
/// `get_value()`. This one keeps the number of the moment when it was made.
#[repr(C)]
struct Waiters {
    ob_base: PyObject,
    value: u32,
}

fn waiters(value: u32) -> *mut PyObject {
    // SAFETY: attached; the token is not kept.
    let Some(classes) = CLASSES.get(unsafe { Python::assume_attached() }) else {
        return raise_as(Exception::Runtime, "semlock._native is not imported".to_owned());
    };
    // SAFETY: attached; a type without an allocator of its own, whose instances have a fixed size.
    unsafe {
        let made = ffi::PyType_GenericAlloc(classes.waiters.as_ptr().cast(), 0);
        if !made.is_null() {
            (*made.cast::<Waiters>()).value = value;
        }
        made
    }
}

unsafe extern "C" fn waiters_value(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: `slf` comes from Python, and begins with a `Waiters`.
    long(unsafe { (*slf.cast::<Waiters>()).value })
}

unsafe extern "C" fn waiters_dealloc(slf: *mut PyObject) {
    // SAFETY: nobody else refers to this object any more. An instance of a heap type counts as a
    // reference to it. PyObject_Free frees what PyType_GenericAlloc made.
    unsafe {
        let class = ffi::Py_TYPE(slf);
        ffi::PyObject_Free(slf.cast());
        ffi::Py_DECREF(class.cast());
    }
}

// ---- Making and ending ----

/// What a `Lock` or `RLock`, or an instance of a subclass, holds, and whether it is no subclass;
/// `None`: exception set.
///
/// # Safety
/// Attached; `object` is alive, as long as the result is used.
unsafe fn mutex<'a>(object: *mut PyObject) -> Option<(&'a Lock, bool)> {
    let classes = locks::classes::made()?;
    // SAFETY: live objects.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let mutexes = [&classes.lock, &classes.rlock].map(|class| class.as_ptr().cast());
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
            raise_empty(object);
            return None;
        };
        Some((lock, mutexes.contains(&class)))
    }
}

/// A condition with this lock, or with a new one; `None`: exception set.
///
/// # Safety
/// Attached; `lock` is alive, or null where it was left out.
unsafe fn over(
    lock: *mut PyObject,
    raw: impl FnOnce() -> Result<raw::Condvar, Error>,
) -> Option<Condition> {
    let lock = if is_none(lock) {
        new_rlock()
    } else {
        // SAFETY: as for this function.
        unsafe { ffi::Py_NewRef(lock) }
    };
    if lock.is_null() {
        return None;
    }
    let reference = Reference(lock);
    // SAFETY: attached, and there is a reference to it.
    let (_, is_exact) = unsafe { mutex(lock) }?;
    // SAFETY: a lock, as `mutex` found.
    let is_plain = is_exact && !unsafe { has_attributes(lock) };
    let raw = raw().map_err(raise).ok()?;
    Some(Condition { raw, lock: reference, is_plain })
}

unsafe extern "C" fn init(slf: *mut PyObject, args: *mut PyObject, kwargs: *mut PyObject) -> c_int {
    let mut given = [ptr::null_mut(); 2];
    let names = [c"lock", c"ctx"];
    // SAFETY: attached; the arguments are those that Python gave, alive during the call.
    unsafe {
        if !parse(args, kwargs, c"|O$O:Condition", names, &mut given) {
            return -1;
        }
        let [lock, _ctx] = given;
        fill(slf, || over(lock, raw::Condvar::new))
    }
}

unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let names = [c"segment", c"slot", c"tag", c"fd", c"lock"];
    let mut given = [ptr::null_mut(); 5];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call;
    // `class` is this file's, or a subclass.
    unsafe {
        if !parse(args, kwargs, c"OOOOO:_rebuild", names, &mut given) {
            return ptr::null_mut();
        }
        let [segment, slot, tag, fd, lock] = given;
        let opened = place([segment, slot, tag, fd]).and_then(|(address, descriptor)| {
            over(lock, || raw::Condvar::open(address, descriptor))
        });
        opened.map_or(ptr::null_mut(), |condition| new_with(class, condition))
    }
}

// ---- Tables ----

static METHODS: Constant<[ffi::PyMethodDef; 15]> = Constant(shared_methods!(
    Condition,
    [
        method!(c"acquire", FAST, PyCFunctionFastWithKeywords: acquire, docs::ACQUIRE),
        method!(c"release", METH_NOARGS, PyCFunction: release, docs::RELEASE),
        method!(c"__enter__", METH_NOARGS, PyCFunction: enter,
        c"__enter__($self, /)\n--\n\nAcquire the lock."),
        method!(c"__exit__", ffi::METH_FASTCALL, PyCFunctionFast: exit,
        c"__exit__($self, exc_type=None, exc_value=None, exc_tb=None, /)\n--\n\nRelease the lock."),
        method!(c"wait", FAST, PyCFunctionFastWithKeywords: wait, docs::WAIT),
        method!(c"wait_for", FAST, PyCFunctionFastWithKeywords: wait_for, docs::WAIT_FOR),
        method!(c"notify", FAST, PyCFunctionFastWithKeywords: notify, docs::NOTIFY),
        method!(c"notify_all", METH_NOARGS, PyCFunction: notify_all, docs::NOTIFY_ALL),
        method!(c"_rebuild", OF_CLASS,
        PyCFunctionWithKeywords: rebuild,
        c"_rebuild($type, /, segment, slot, tag, fd, lock)\n--\n\nWhat lives at that address."),
    ]
));

static GETTERS: Constant<[ffi::PyGetSetDef; 5]> = Constant([
    getter(c"_lock", lock, c"The lock."),
    getter(c"_sleeping_count", sleeping_count, c"How many wait."),
    getter(c"_woken_count", no_count, c"Always none: they need not be counted."),
    getter(c"_wait_semaphore", no_count, c"Always none: it is not slept on."),
    END_OF_GETTERS,
]);

static WAITERS_METHODS: Constant<[ffi::PyMethodDef; 2]> = Constant([
    method!(c"get_value", METH_NOARGS, PyCFunction: waiters_value, c"get_value($self, /)\n--\n\n"),
    ffi::PyMethodDef::zeroed(),
]);

/// The classes, made once and never freed.
pub(crate) struct Classes {
    pub(crate) condition: Py<PyAny>,
    pub(crate) waiters: Py<PyAny>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

pub(crate) fn classes(py: Python<'_>) -> PyResult<&Classes> {
    CLASSES.get_or_try_init(py, || make_classes(py))
}

fn make_classes(py: Python<'_>) -> PyResult<Classes> {
    let slots = [
        types::init(init),
        types::repr(repr),
        types::methods(&METHODS),
        types::getters(&GETTERS),
        types::doc(docs::CONDITION),
    ];
    // SAFETY: functions for `Object<Condition>`s, and tables that end with zero entries.
    let condition = unsafe { make_type::<Condition>(py, c"semlock.Condition", None, &slots) }?;
    let slots = [
        slot(ffi::Py_tp_dealloc, waiters_dealloc as *mut c_void),
        types::methods(&WAITERS_METHODS),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let name = c"semlock._native._Waiters";
    // SAFETY: what they name is what their numbers say, for `Waiters`, which begin with a PyObject.
    let waiters = unsafe { types::make_type(py, name, size_of::<Waiters>(), flags, &slots) }?;
    Ok(Classes { condition: condition.unbind(), waiters: waiters.unbind() })
}

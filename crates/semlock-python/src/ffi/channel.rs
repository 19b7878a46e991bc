//! `Channel` on shared memory: what `semlock`'s queues stand on.
//!
//! # Safety
//! The heads of this folder and of `objects` say what every function in the tables relies on. The
//! type of this file holds a `Channel`.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use pyo3::ffi::{self, METH_NOARGS, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use semlock::raw::{self, Buffer, Shared, Tried};
use semlock::{Deadline, Error, Wait};

use super::arguments::{deadline, fast_arguments, integer, is_none, parse};
use super::buffers::{Bytes, LARGE, NewObject, RAISED};
use super::errors::{Exception, raise, raise_as};
use super::objects::{Contents, fill, held, make_type, new_with};
use super::sharing::{numbers, place, shared_methods};
use super::types::{self, Constant, FAST, OF_CLASS, method};
use super::values::{boolean, long, none, packed, unsigned};
use super::waits;

struct Channel {
    raw: raw::Channel,
}

impl Contents for Channel {}

impl Shared for Channel {
    fn object(&self) -> &raw::Object {
        self.raw.object()
    }
}

/// The arguments `data` and `timeout`, or `timeout` alone; the second one null where it was left
/// out.
///
/// # Safety
/// As for `fast_arguments`.
#[inline]
unsafe fn one_and_timeout(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<[*mut PyObject; 2]> {
    // SAFETY: as for this function.
    unsafe {
        if kwnames.is_null() && nargs == 1 {
            return Some([*args, ptr::null_mut()]);
        }
        fast_arguments(args, nargs, kwnames, c"O|O:send", [c"data", c"timeout"])
    }
}

unsafe extern "C" fn send(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // SAFETY: these are the arguments that Python gave, all alive during the call.
    unsafe {
        let Some([data, timeout]) = one_and_timeout(args, nargs, kwnames) else {
            return ptr::null_mut();
        };
        if ffi::PyList_Check(data) == 0 {
            let Some(bytes) = Bytes::of(data) else { return ptr::null_mut() };
            return send_pieces(channel, &[bytes.as_slice()], timeout);
        }
        let mut all = Vec::new();
        for index in 0..ffi::PyList_Size(data) {
            let Some(bytes) = Bytes::of(ffi::PyList_GetItem(data, index)) else {
                return ptr::null_mut();
            };
            all.push(bytes);
        }
        let pieces: Vec<_> = all.iter().map(Bytes::as_slice).collect();
        send_pieces(channel, &pieces, timeout)
    }
}

/// # Safety
/// Attached; `timeout` is alive, or null where it was left out.
#[inline]
unsafe fn send_pieces(
    channel: &Channel,
    pieces: &[&[u8]],
    timeout: *mut PyObject,
) -> *mut PyObject {
    let is_small = pieces.iter().map(|piece| piece.len()).sum::<usize>() < LARGE;
    // To copy a large message takes longer than to detach.
    if is_small {
        match channel.raw.try_send(pieces) {
            Ok(Tried::Done) => return boolean(true),
            Ok(_) => {}
            Err(error) => return raise(error),
        }
    }
    // SAFETY: as for this function.
    let Some(deadline) = (unsafe { deadline(timeout) }) else { return ptr::null_mut() };
    let mut sending = channel.raw.sending(pieces, deadline);
    match waits::wait(|| sending.wait()) {
        Some(end) => boolean(end == Wait::Acquired),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn receive(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    let mut message = NewObject::new();
    match channel.raw.try_receive(&mut message) {
        Ok(Tried::Done) => return message.into_object(),
        Ok(_) => {}
        Err(error) => return raise_unless_raised(error),
    }
    // SAFETY: these are the arguments that Python gave, all alive during the call.
    let Some(deadline) = (unsafe { deadline_of(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    receive_until(channel, deadline)
}

/// The deadline for the one argument `timeout`; `None`: exception set.
///
/// # Safety
/// As for `fast_arguments`.
unsafe fn deadline_of(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> Option<Deadline> {
    // SAFETY: as for this function.
    unsafe {
        let [timeout] = fast_arguments(args, nargs, kwnames, c"|O:receive", [c"timeout"])?;
        deadline(timeout)
    }
}

fn raise_unless_raised(error: Error) -> *mut PyObject {
    if error == RAISED { ptr::null_mut() } else { raise(error) }
}

/// A message that arrives while this thread is detached, when it cannot make Python objects.
struct Detached {
    small: Vec<u8>,
    /// Made before for a large message, and how many bytes of it that has.
    prepared: NewObject,
    capacity: usize,
    length: usize,
    /// How many bytes the message needs that came instead.
    needs: Option<usize>,
}

/// A message came for which an object has to be made first. It stays in the channel.
const NEEDS_MORE: Error = Error::OutOfRange("a larger object is needed");

impl Buffer for Detached {
    fn begin(&mut self, bytes: usize) -> Result<(), Error> {
        self.length = bytes;
        if bytes < LARGE {
            self.small.begin(bytes)
        } else if bytes == self.capacity {
            Ok(())
        } else {
            self.needs = Some(bytes);
            Err(NEEDS_MORE)
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        if self.length < LARGE { self.small.bytes() } else { self.prepared.bytes() }
    }
}

#[cold]
fn receive_until(channel: &Channel, deadline: Deadline) -> *mut PyObject {
    let mut message = Detached {
        small: Vec::new(),
        prepared: NewObject::new(),
        capacity: 0,
        length: 0,
        needs: None,
    };
    loop {
        let mut receiving = channel.raw.receiving(&mut message, deadline);
        let mut needs_more = false;
        let end = waits::wait(|| match receiving.wait() {
            Err(NEEDS_MORE) => {
                needs_more = true;
                Ok(Wait::TimedOut)
            }
            end => end,
        });
        drop(receiving);
        match end {
            None => return ptr::null_mut(),
            Some(Wait::TimedOut) if !needs_more => return none(),
            Some(Wait::TimedOut) => {
                let bytes = message.needs.take().unwrap_or_default();
                if !message.prepared.allocate(bytes) {
                    return ptr::null_mut();
                }
                message.capacity = bytes;
            }
            Some(_) if message.length >= LARGE => return message.prepared.into_object(),
            Some(_) => {
                let mut object = NewObject::new();
                if !object.allocate(message.length) {
                    return ptr::null_mut();
                }
                object.bytes().copy_from_slice(message.small.bytes());
                return object.into_object();
            }
        }
    }
}

unsafe extern "C" fn poll(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // SAFETY: these are the arguments that Python gave, all alive during the call.
    let Some(deadline) = (unsafe { deadline_of(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    match waits::wait(|| channel.raw.wait_readable(deadline)) {
        Some(end) => boolean(end == Wait::Acquired),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn is_empty(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    boolean(channel.raw.is_empty())
}

unsafe extern "C" fn count(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    unsigned(channel.raw.count() as u64)
}

unsafe extern "C" fn fileno(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    let bell = channel.raw.want_bell().and_then(|()| channel.raw.bell());
    bell.map_or_else(raise, |[reader, _]| long(reader.as_raw_fd()))
}

unsafe extern "C" fn bell(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    channel.raw.bell().map_or_else(raise, |ends| packed(ends.map(|end| long(end.as_raw_fd()))))
}

unsafe extern "C" fn bell_file(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    packed(numbers(channel.raw.bell_file()).map(unsigned))
}

unsafe extern "C" fn close_sending(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    channel.raw.close_sending();
    none()
}

unsafe extern "C" fn sends(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    boolean(channel.raw.sends())
}

unsafe extern "C" fn is_abandoned(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    boolean(channel.raw.is_abandoned())
}

unsafe extern "C" fn note_takers(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    channel.raw.note_takers();
    none()
}

unsafe extern "C" fn taken_by_the_dead(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    let mut all: Vec<(u32, u64)> = Vec::new();
    // It may wait for a receiver that is in the middle of a message.
    let found =
        waits::detached(|| channel.raw.taken_by_the_dead(|pid, number| all.push((pid, number))));
    if let Err(error) = found {
        return raise(error);
    }
    // SAFETY: attached; new references, which the list takes over.
    unsafe {
        let list = ffi::PyList_New(0);
        for (pid, number) in all {
            let pair = packed([long(pid), unsigned(number)]);
            let failed = list.is_null() || pair.is_null() || ffi::PyList_Append(list, pair) < 0;
            ffi::Py_XDECREF(pair);
            if failed {
                ffi::Py_XDECREF(list);
                return ptr::null_mut();
            }
        }
        list
    }
}

unsafe extern "C" fn init(slf: *mut PyObject, args: *mut PyObject, kwargs: *mut PyObject) -> c_int {
    let mut given = [ptr::null_mut(); 2];
    // SAFETY: attached; the arguments are those that Python gave.
    unsafe {
        if !parse(args, kwargs, c"|O$O:Channel", [c"capacity", c"ctx"], &mut given) {
            return -1;
        }
        let capacity = if is_none(given[0]) {
            semlock::Channel::CAPACITY
        } else {
            let capacity = ffi::PyNumber_AsSsize_t(given[0], ffi::PyExc_OverflowError);
            if capacity == -1 && !ffi::PyErr_Occurred().is_null() {
                return -1;
            }
            let Ok(capacity) = usize::try_from(capacity) else {
                raise_as(Exception::Value, format!("a capacity is not negative: {capacity}"));
                return -1;
            };
            capacity
        };
        fill(slf, || raw::Channel::new(capacity).map(|raw| Channel { raw }).map_err(raise).ok())
    }
}

unsafe extern "C" fn rebuild(
    class: *mut PyObject,
    args: *mut PyObject,
    kwargs: *mut PyObject,
) -> *mut PyObject {
    let names = [c"segment", c"slot", c"tag", c"fd", c"bell"];
    let mut given = [ptr::null_mut(); 5];
    // SAFETY: attached; the arguments are those that Python gave, and all alive during the call;
    // `class` is this file's, or a subclass.
    unsafe {
        if !parse(args, kwargs, c"OOOOO:_rebuild", names, &mut given) {
            return ptr::null_mut();
        }
        let [segment, slot, tag, fd, bell] = given;
        let opened = place([segment, slot, tag, fd]).and_then(|(address, descriptor)| {
            let bell = [end_of(bell, 0)?, end_of(bell, 1)?];
            let bell = bell.map(|end| end.try_clone_to_owned());
            let [Ok(reader), Ok(writer)] = bell else {
                raise(Error::DescriptorLost);
                return None;
            };
            raw::Channel::open(address, descriptor, [reader, writer]).map_err(raise).ok()
        });
        opened.map_or(ptr::null_mut(), |raw| new_with(class, Channel { raw }))
    }
}

/// One of the two descriptors in a tuple; `None`: exception set.
///
/// # Safety
/// Attached; `bell` is alive.
unsafe fn end_of<'fd>(bell: *mut PyObject, index: Py_ssize_t) -> Option<BorrowedFd<'fd>> {
    // SAFETY: as for this function; what is no sequence raises. The number is borrowed to be
    // duplicated: if it is not open, that fails.
    unsafe {
        let item = ffi::PySequence_GetItem(bell, index);
        if item.is_null() {
            return None;
        }
        let number = integer(item);
        ffi::Py_DECREF(item);
        let number = number?;
        if number < 0 {
            raise_as(Exception::Value, format!("a descriptor is not negative: {number}"));
            return None;
        }
        Some(BorrowedFd::borrow_raw(number))
    }
}

static METHODS: Constant<[ffi::PyMethodDef; 20]> = Constant(shared_methods!(
    Channel,
    [
        method!(c"send", FAST, PyCFunctionFastWithKeywords: send,
            c"send($self, data, timeout=None)\n--\n\nSend a message: bytes, or a list of what has bytes. False at the timeout."),
        method!(c"receive", FAST, PyCFunctionFastWithKeywords: receive,
            c"receive($self, timeout=None)\n--\n\nReceive a message: bytes, or a bytearray if it is large. None at the timeout."),
        method!(c"poll", FAST, PyCFunctionFastWithKeywords: poll,
            c"poll($self, timeout=None)\n--\n\nWait until there is a message. False at the timeout."),
        method!(c"is_empty", METH_NOARGS, PyCFunction: is_empty,
            c"is_empty($self, /)\n--\n\nWhether nothing is there to be received."),
        method!(c"count", METH_NOARGS, PyCFunction: count,
            c"count($self, /)\n--\n\nHow many messages are there."),
        method!(c"fileno", METH_NOARGS, PyCFunction: fileno,
            c"fileno($self, /)\n--\n\nA descriptor that is readable while there is a message."),
        method!(c"_bell", METH_NOARGS, PyCFunction: bell,
            c"_bell($self, /)\n--\n\nThe descriptors of its bell, which a process needs to open it."),
        method!(c"_bell_file", METH_NOARGS, PyCFunction: bell_file,
            c"_bell_file($self, /)\n--\n\nWhat tells its bell's pipe from all others: see `_file_id`."),
        method!(c"sends", METH_NOARGS, PyCFunction: sends,
            c"sends($self, /)\n--\n\nWhether this process has not said that it does not send any more."),
        method!(c"close_sending", METH_NOARGS, PyCFunction: close_sending,
            c"close_sending($self, /)\n--\n\nNote that this process does not send any more."),
        method!(c"is_abandoned", METH_NOARGS, PyCFunction: is_abandoned,
            c"is_abandoned($self, /)\n--\n\nWhether no process can send any more."),
        method!(c"_note_takers", METH_NOARGS, PyCFunction: note_takers,
            c"_note_takers($self, /)\n--\n\nMake receivers note which message they take."),
        method!(c"_taken_by_the_dead", METH_NOARGS, PyCFunction: taken_by_the_dead,
            c"_taken_by_the_dead($self, /)\n--\n\nThe pid of each receiver that died, and the number of the message that it took last."),
        method!(c"_rebuild", OF_CLASS, PyCFunctionWithKeywords: rebuild,
            c"_rebuild($type, /, segment, slot, tag, fd, bell)\n--\n\nWhat lives at that address."),
    ]
));

static TYPE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The class, made once and never freed.
pub(crate) fn channel_type(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    let slots = [
        types::init(init),
        types::methods(&METHODS),
        types::doc(
            c"Channel(capacity=None, *, ctx=None)\n--\n\nMessages of bytes between processes.",
        ),
    ];
    TYPE.get_or_try_init(py, || {
        // SAFETY: functions for `Object<Channel>`s, and tables that end with zero entries.
        unsafe { make_type::<Channel>(py, c"semlock._native._Channel", None, &slots) }
            .map(Bound::unbind)
    })
}

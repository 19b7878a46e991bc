//! `Channel` on shared memory: what `semlock`'s queues stand on.
//!
//! # Safety
//! The heads of this folder and of `objects` say what every function in the tables relies on. The
//! type of this file holds a `Channel`.

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use pyo3::ffi::{self, METH_NOARGS, METH_O, Py_ssize_t, PyObject};
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
use super::waits::{self, detached};

struct Channel {
    raw: raw::Channel,
}

impl Contents for Channel {}

impl Shared for Channel {
    fn object(&self) -> &raw::Object {
        self.raw.object()
    }
}

/// The argument `data` and those that may follow it; null where they were left out. Without names
/// no tuple is made: each message comes this way.
///
/// # Safety
/// As for `fast_arguments`.
#[inline]
unsafe fn data_and_more<const N: usize>(
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
    format: &CStr,
    names: [&CStr; N],
) -> Option<[*mut PyObject; N]> {
    let given = nargs.cast_unsigned();
    // SAFETY: as for this function; so many arguments are there.
    unsafe {
        if kwnames.is_null() && (1..=N).contains(&given) {
            let mut all = [ptr::null_mut(); N];
            all[..given].copy_from_slice(std::slice::from_raw_parts(args, given));
            return Some(all);
        }
        fast_arguments(args, nargs, kwnames, format, names)
    }
}

/// Calls `run` with the pieces of a message: bytes, or a list of what has bytes. `None`: exception
/// set.
///
/// # Safety
/// Attached; `data` is alive.
#[inline]
unsafe fn with_pieces<T>(data: *mut PyObject, run: impl FnOnce(&[&[u8]]) -> T) -> Option<T> {
    // SAFETY: as for this function; the list's items live as long as it is not changed, and the
    // bytes are held.
    unsafe {
        if ffi::PyList_Check(data) == 0 {
            let bytes = Bytes::of(data)?;
            return Some(run(&[bytes.as_slice()]));
        }
        let all: Option<Vec<_>> = (0..ffi::PyList_Size(data))
            .map(|index| Bytes::of(ffi::PyList_GetItem(data, index)))
            .collect();
        let all = all?;
        let pieces: Vec<_> = all.iter().map(Bytes::as_slice).collect();
        Some(run(&pieces))
    }
}

/// Whether a message is sent without detaching. To copy a large one takes longer than to detach;
/// and nobody waits attached, not even for a process that rings the bell, and may be stopped then.
#[inline]
fn is_sent_attached(channel: &raw::Channel, pieces: &[&[u8]]) -> bool {
    pieces.iter().map(|piece| piece.len()).sum::<usize>() < LARGE && !channel.has_bell()
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
        let names = [c"data", c"timeout", c"goes_on"];
        let given = data_and_more(args, nargs, kwnames, c"O|OO:send", names);
        let Some([data, timeout, goes_on]) = given else { return ptr::null_mut() };
        let sent = with_pieces(data, |pieces| send_pieces(channel, pieces, timeout, goes_on));
        sent.unwrap_or(ptr::null_mut())
    }
}

/// What became of a message that was to be put.
enum Put {
    Sent,
    /// It has a place.
    Left,
    NoPlace,
}

unsafe extern "C" fn put(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // SAFETY: these are the arguments that Python gave, all alive during the call.
    let put = unsafe {
        let names = [c"data", c"timeout"];
        let given = data_and_more(args, nargs, kwnames, c"O|O:put", names);
        let Some([data, timeout]) = given else { return ptr::null_mut() };
        with_pieces(data, |pieces| put_pieces(channel, pieces, timeout))
    };
    match put.flatten() {
        Some(Put::Sent) => boolean(true),
        Some(Put::Left) => none(),
        Some(Put::NoPlace) => boolean(false),
        None => ptr::null_mut(),
    }
}

/// `None`: exception set.
///
/// # Safety
/// Attached; `timeout` is alive, or null where it was left out.
#[inline]
unsafe fn put_pieces(channel: &Channel, pieces: &[&[u8]], timeout: *mut PyObject) -> Option<Put> {
    let raw = &channel.raw;
    if sent_now(raw, pieces, || raw.try_put(pieces))? {
        return Some(Put::Sent);
    }
    // SAFETY: as for this function.
    let deadline = unsafe { deadline(timeout) }?;
    let mut claiming = raw.claiming(deadline);
    if waits::wait(|| claiming.wait())? != Wait::Acquired {
        return Some(Put::NoPlace);
    }
    drop(claiming);
    let sent = sent_now(raw, pieces, || raw.try_send_claimed(pieces));
    if sent.is_none() {
        detached(|| raw.give_back());
    }
    Some(if sent? { Put::Sent } else { Put::Left })
}

/// Whether a message was sent at once, by `send`. One that waits for nothing but this very thread,
/// which a signal's handler has interrupted, is sent later. `None`: exception set.
#[inline]
fn sent_now(
    channel: &raw::Channel,
    pieces: &[&[u8]],
    send: impl FnOnce() -> Result<Tried, Error> + Send,
) -> Option<bool> {
    let tried = if is_sent_attached(channel, pieces) { send() } else { detached(send) };
    match tried {
        Ok(Tried::Done) => Some(true),
        Ok(Tried::NotNow | Tried::InParts) | Err(Error::InMidMessage) => Some(false),
        Err(error) => {
            raise(error);
            None
        }
    }
}

/// # Safety
/// Attached; `timeout` and `goes_on` are alive, or null where they were left out.
#[inline]
unsafe fn send_pieces(
    channel: &Channel,
    pieces: &[&[u8]],
    timeout: *mut PyObject,
    goes_on: *mut PyObject,
) -> *mut PyObject {
    if is_sent_attached(&channel.raw, pieces) {
        match channel.raw.try_send(pieces) {
            Ok(Tried::Done) => return boolean(true),
            Ok(_) => {}
            Err(error) => return raise(error),
        }
    }
    // SAFETY: as for this function.
    let Some(until) = (unsafe { deadline(timeout) }) else { return ptr::null_mut() };
    let asks = !is_none(goes_on);
    let mut sending = channel.raw.sending(pieces, until);
    loop {
        match waits::wait(|| sending.wait()) {
            None => return ptr::null_mut(),
            Some(Wait::TimedOut) if asks => {}
            Some(end) => return boolean(end == Wait::Acquired),
        }
        // SAFETY: as for this function; a new reference, which is dropped.
        unsafe {
            let answer = ffi::PyObject_CallNoArgs(goes_on);
            let goes_on = if answer.is_null() { -1 } else { ffi::PyObject_IsTrue(answer) };
            ffi::Py_XDECREF(answer);
            match goes_on {
                -1 => return ptr::null_mut(),
                0 => return boolean(false),
                _ => {}
            }
            let Some(until) = deadline(timeout) else { return ptr::null_mut() };
            sending.set_deadline(until);
        }
    }
}

/// `ENDS_WHEN_LOST`: an `EOFError` where a message that has begun does not come whole.
unsafe extern "C" fn receive<const ENDS_WHEN_LOST: bool>(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    match receive_now(&channel.raw) {
        Ok(Some(message)) => return message.into_object(),
        Ok(None) => {}
        Err(error) => return raise_unless_raised(error),
    }
    // SAFETY: these are the arguments that Python gave, all alive during the call.
    let Some(deadline) = (unsafe { deadline_of(args, nargs, kwnames) }) else {
        return ptr::null_mut();
    };
    receive_until(channel, deadline, ENDS_WHEN_LOST)
}

/// Receives a message if one is there. An error may say that an exception is set.
#[inline]
fn receive_now(channel: &raw::Channel) -> Result<Option<NewObject>, Error> {
    if channel.has_bell() {
        return receive_now_detached(channel);
    }
    let mut message = NewObject::new();
    let tried = channel.try_receive(&mut message)?;
    Ok((tried == Tried::Done).then_some(message))
}

/// The same where this may wait a moment for another process that rings the bell.
#[cold]
fn receive_now_detached(channel: &raw::Channel) -> Result<Option<NewObject>, Error> {
    let mut bytes = Vec::new();
    if detached(|| channel.try_receive(&mut bytes))? != Tried::Done {
        return Ok(None);
    }
    NewObject::with(&bytes).map(Some).ok_or(RAISED)
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
fn receive_until(channel: &Channel, deadline: Deadline, ends_when_lost: bool) -> *mut PyObject {
    let mut message = Detached {
        small: Vec::new(),
        prepared: NewObject::new(),
        capacity: 0,
        length: 0,
        needs: None,
    };
    loop {
        let mut receiving = channel.raw.receiving(&mut message, deadline);
        if ends_when_lost {
            receiving.end_when_lost();
        }
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
                let object = NewObject::with(message.small.bytes());
                return object.map_or(ptr::null_mut(), NewObject::into_object);
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

/// Puts the messages of a list, as long as they are sent at once. Returns how many were.
unsafe extern "C" fn put_at_once(slf: *mut PyObject, messages: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // SAFETY: attached; the list lives during the call, and an item as long as it is used.
    unsafe {
        let mut sent = 0;
        while sent < ffi::PyList_Size(messages) {
            let data = ffi::PyList_GetItem(messages, sent);
            let raw = &channel.raw;
            let put = |pieces: &[&[u8]]| sent_now(raw, pieces, || raw.try_put(pieces));
            let tried = with_pieces(data, put);
            match tried.flatten() {
                Some(true) => sent += 1,
                Some(false) => break,
                None => return ptr::null_mut(),
            }
        }
        if ffi::PyErr_Occurred().is_null() { long(sent as i64) } else { ptr::null_mut() }
    }
}

/// Receives the messages that are there, at most so many, into a list.
unsafe extern "C" fn receive_at_once(slf: *mut PyObject, most: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // SAFETY: attached; new references, which the list takes over.
    unsafe {
        let most = ffi::PyNumber_AsSsize_t(most, ffi::PyExc_OverflowError);
        let list = ffi::PyList_New(0);
        if list.is_null() || most == -1 && !ffi::PyErr_Occurred().is_null() {
            ffi::Py_XDECREF(list);
            return ptr::null_mut();
        }
        while ffi::PyList_Size(list) < most {
            let failed = match receive_now(&channel.raw) {
                Ok(Some(message)) => {
                    let message = message.into_object();
                    let failed = ffi::PyList_Append(list, message) < 0;
                    ffi::Py_DECREF(message);
                    failed
                }
                Ok(None) => break,
                // What was received is not lost: the error comes again with the next call.
                Err(error) if ffi::PyList_Size(list) == 0 => {
                    raise_unless_raised(error);
                    true
                }
                Err(_) => {
                    ffi::PyErr_Clear();
                    break;
                }
            };
            if failed {
                ffi::Py_DECREF(list);
                return ptr::null_mut();
            }
        }
        list
    }
}

unsafe extern "C" fn claim(
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
    let mut claiming = channel.raw.claiming(deadline);
    match waits::wait(|| claiming.wait()) {
        Some(end) => boolean(end == Wait::Acquired),
        None => ptr::null_mut(),
    }
}

unsafe extern "C" fn give_back(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    boolean(detached(|| channel.raw.give_back()))
}

unsafe extern "C" fn put_and_not_taken(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    let raw = &channel.raw;
    let count = raw.try_put_by_the_living_and_not_taken();
    unsigned(count.unwrap_or_else(|| detached(|| raw.put_by_the_living_and_not_taken())))
}

unsafe extern "C" fn done(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    boolean(channel.raw.try_done().unwrap_or_else(|| detached(|| channel.raw.done())))
}

unsafe extern "C" fn unfinished(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    let count = channel.raw.try_unfinished();
    unsigned(count.unwrap_or_else(|| detached(|| channel.raw.unfinished())))
}

unsafe extern "C" fn lost(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    unsigned(channel.raw.lost())
}

unsafe extern "C" fn find_lost(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    let channel: &Channel = held!(slf);
    // It may wait for a receiver that is in the middle of a message.
    detached(|| channel.raw.find_lost()).map_or_else(raise, unsigned)
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
    let found = detached(|| channel.raw.taken_by_the_dead(|pid, number| all.push((pid, number))));
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
    let mut given = [ptr::null_mut(); 5];
    let names = [c"capacity", c"ctx", c"counts", c"limit", c"tasks"];
    // SAFETY: attached; the arguments are those that Python gave.
    unsafe {
        if !parse(args, kwargs, c"|O$OOOO:Channel", names, &mut given) {
            return -1;
        }
        let [counts, tasks] =
            [given[2], given[4]].map(|it| !it.is_null() && ffi::PyObject_IsTrue(it) == 1);
        let limit =
            if is_none(given[3]) { None } else { Some(ffi::PyLong_AsUnsignedLongLong(given[3])) };
        if !ffi::PyErr_Occurred().is_null() {
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
        let make = || {
            if counts {
                raw::Channel::new_counting(capacity, limit, tasks)
            } else {
                raw::Channel::new(capacity)
            }
        };
        fill(slf, || make().map(|raw| Channel { raw }).map_err(raise).ok())
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

static METHODS: Constant<[ffi::PyMethodDef; 31]> = Constant(shared_methods!(
    Channel,
    [
        method!(c"send", FAST, PyCFunctionFastWithKeywords: send,
            c"send($self, data, timeout=None, goes_on=None)\n--\n\nSend a message: bytes, or a list of what has bytes. False at the timeout, unless goes_on() says to wait on."),
        method!(c"receive", FAST, PyCFunctionFastWithKeywords: receive::<false>,
            c"receive($self, timeout=None)\n--\n\nReceive a message: bytes, or a bytearray if it is large. None at the timeout."),
        method!(c"receive_what_is_there", FAST, PyCFunctionFastWithKeywords: receive::<true>,
            c"receive_what_is_there($self, timeout=None)\n--\n\nThe same, but EOFError if a message that has begun does not come whole."),
        method!(c"poll", FAST, PyCFunctionFastWithKeywords: poll,
            c"poll($self, timeout=None)\n--\n\nWait until there is a message. False at the timeout."),
        method!(c"is_empty", METH_NOARGS, PyCFunction: is_empty,
            c"is_empty($self, /)\n--\n\nWhether nothing is there to be received."),
        method!(c"count", METH_NOARGS, PyCFunction: count,
            c"count($self, /)\n--\n\nHow many messages are there."),
        method!(c"put", FAST, PyCFunctionFastWithKeywords: put,
            c"put($self, data, timeout=None)\n--\n\nPut a message. True: it was sent; None: it has a place, and has to be sent; False: no place at the timeout."),
        method!(c"put_at_once", METH_O, PyCFunction: put_at_once,
            c"put_at_once($self, messages, /)\n--\n\nPut the messages of a list, as far as they can be sent at once. Returns how many."),
        method!(c"receive_at_once", METH_O, PyCFunction: receive_at_once,
            c"receive_at_once($self, most, /)\n--\n\nA list of the messages that are there, at most so many."),
        method!(c"claim", FAST, PyCFunctionFastWithKeywords: claim,
            c"claim($self, timeout=None)\n--\n\nGet a place for a message that is sent later. False at the timeout."),
        method!(c"give_back", METH_NOARGS, PyCFunction: give_back,
            c"give_back($self, /)\n--\n\nGive back the place of a message that is not sent. False if there is none."),
        method!(c"put_and_not_taken", METH_NOARGS, PyCFunction: put_and_not_taken,
            c"put_and_not_taken($self, /)\n--\n\nHow many messages were put and not taken."),
        method!(c"done", METH_NOARGS, PyCFunction: done,
            c"done($self, /)\n--\n\nNote that a message is done. False if none is unfinished."),
        method!(c"unfinished", METH_NOARGS, PyCFunction: unfinished,
            c"unfinished($self, /)\n--\n\nHow many messages were put and are not done."),
        method!(c"lost", METH_NOARGS, PyCFunction: lost,
            c"lost($self, /)\n--\n\nHow many messages were found so far that dead processes have lost."),
        method!(c"find_lost", METH_NOARGS, PyCFunction: find_lost,
            c"find_lost($self, /)\n--\n\nThe same, after a search for dead processes."),
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
            c"Channel(capacity=None, *, ctx=None, counts=False, limit=None, tasks=False)\n--\n\nMessages of bytes between processes.",
        ),
    ];
    TYPE.get_or_try_init(py, || {
        // SAFETY: functions for `Object<Channel>`s, and tables that end with zero entries.
        unsafe { make_type::<Channel>(py, c"semlock._native._Channel", None, &slots) }
            .map(Bound::unbind)
    })
}

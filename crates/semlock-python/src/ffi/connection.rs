//! Writing and reading the messages of `multiprocessing`'s connections.
//!
//! `semlock.install` puts these functions below the stdlib's `Connection`, whose framing they have:
//!
//! ```text
//!  message of at most 2^31 - 1 bytes   longer
//!  ┌─────────────┬─────────┐           ┌────────┬─────────────┬─────────┐
//!  │ length: i32 │ message │           │ -1: i32│ length: u64 │ message │
//!  └─────────────┴─────────┘           └────────┴─────────────┴─────────┘
//!  big endian; nothing is read of a message of any other negative length
//! ```
//!
//! # Safety
//! The head of this folder says what both functions rely on. Their `slf` is null.

use std::io::IoSlice;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::slice;

use pyo3::ffi::{self, METH_FASTCALL, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use rustix::io::{Errno, read, writev};

use super::arguments::integer;
use super::buffers::Bytes;
use super::calls::call_new;
use super::descriptors::descriptor;
use super::errors::{Exception, raise_as, raise_of_system};
use super::types::{Constant, method};
use super::values::{none, unsigned};
use super::waits::{detached, handle_signals};

/// So few bytes are copied while attached: that takes less time than to detach.
const FEW: usize = 4096;

static FUNCTIONS: Constant<[ffi::PyMethodDef; 2]> = Constant([
    method!(c"_write_message", METH_FASTCALL, PyCFunctionFast: write_message,
        c"_write_message(connection, data, /)\n--\n\nWrite a message."),
    method!(c"_read_message", METH_FASTCALL, PyCFunctionFast: read_message,
        c"_read_message(connection, maxsize, /)\n--\n\n\
          Read a message. None if it is longer than that: then most of it is left there."),
]);

/// `"_handle"`, `"seek"`, and `io.BytesIO`.
struct Names {
    handle: Py<PyString>,
    seek: Py<PyString>,
    bytes_io: Py<PyAny>,
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    NAMES.get_or_try_init(py, || {
        let [handle, seek] = ["_handle", "seek"].map(|name| PyString::intern(py, name).unbind());
        let bytes_io = py.import("io")?.getattr("BytesIO")?.unbind();
        Ok::<_, PyErr>(Names { handle, seek, bytes_io })
    })?;
    for (name, function) in ["_write_message", "_read_message"].into_iter().zip(&FUNCTIONS.0) {
        // SAFETY: attached, as the token says; a function that lives for ever and that nobody writes
        // to. A new reference, or null with an exception set.
        let function = unsafe {
            let function = ptr::from_ref(function).cast_mut();
            let made = ffi::PyCFunction_NewEx(function, ptr::null_mut(), ptr::null_mut());
            Bound::from_owned_ptr_or_err(py, made)?
        };
        // setattr, because add would make an `__all__`.
        module.setattr(name, function)?;
    }
    Ok(())
}

/// `None`: exception set.
fn names<'a>() -> Option<&'a Names> {
    // SAFETY: attached; the token is not kept.
    let names = NAMES.get(unsafe { Python::assume_attached() });
    if names.is_none() {
        raise_as(Exception::Runtime, "semlock._native was not imported".to_owned());
    }
    names
}

/// A connection, alive during the call.
#[derive(Clone, Copy)]
struct Connection<'a> {
    object: *mut PyObject,
    names: &'a Names,
}

impl Connection<'_> {
    /// Its descriptor now: another thread may have closed it since the last call. `None`: exception
    /// set.
    fn descriptor<'fd>(self) -> Option<BorrowedFd<'fd>> {
        // SAFETY: attached; a live object; a new reference, which is released.
        let number: RawFd = unsafe {
            let handle = ffi::PyObject_GetAttr(self.object, self.names.handle.as_ptr());
            if handle.is_null() {
                return None;
            }
            let number = integer(handle);
            ffi::Py_DECREF(handle);
            number?
        };
        let found = descriptor(number);
        if found.is_none() {
            raise_of_system(libc::EBADF);
        }
        found
    }

    /// Moves a part of a message of at most so many bytes: by `at_once`, which waits for nothing, or
    /// by `call`. Returns how many bytes moved; `None`: exception set.
    fn part<B: Send>(
        self,
        length: usize,
        mut buffer: B,
        at_once: impl Fn(BorrowedFd<'_>, &mut B) -> Result<usize, Errno>,
        call: impl Fn(BorrowedFd<'_>, &mut B) -> Result<usize, Errno> + Send + Sync,
    ) -> Option<usize> {
        let mut fd = self.descriptor()?;
        let mut moved = Err(Errno::AGAIN);
        if length <= FEW && self::at_once::are_there() {
            moved = at_once(fd, &mut buffer);
        }
        loop {
            match moved {
                Ok(moved) => {
                    // The rest may take long.
                    if moved < length && moved > 0 {
                        handle_signals()?;
                    }
                    return Some(moved);
                }
                Err(Errno::INTR) => {
                    handle_signals()?;
                    fd = self.descriptor()?;
                }
                Err(_) => {}
            }
            moved = detached(|| call(fd, &mut buffer));
            if let Err(error) = moved
                && error != Errno::INTR
            {
                raise_of_system(error.raw_os_error());
                return None;
            }
        }
    }
}

/// The two arguments of a call; `None`: exception set.
///
/// # Safety
/// There are `nargs` of them.
unsafe fn two(
    name: &str,
    args: *const *mut PyObject,
    nargs: Py_ssize_t,
) -> Option<(Connection<'static>, *mut PyObject)> {
    if nargs != 2 {
        raise_as(Exception::Type, format!("{name} expected 2 arguments, got {nargs}"));
        return None;
    }
    // SAFETY: two are there.
    unsafe { Some((Connection { object: *args, names: names()? }, *args.add(1))) }
}

unsafe extern "C" fn write_message(
    _: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: these are the arguments that Python gave, alive during the call.
    let written = unsafe {
        two("_write_message", args, nargs).and_then(|(connection, data)| {
            let data = Bytes::of(data)?;
            write(connection, data.as_slice())
        })
    };
    written.map_or(ptr::null_mut(), |()| none())
}

/// Writes a message; `None`: exception set.
fn write(connection: Connection<'_>, message: &[u8]) -> Option<()> {
    let mut head = [0xff; 12];
    let head = if let Ok(length) = i32::try_from(message.len()) {
        head[..4].copy_from_slice(&length.to_be_bytes());
        &head[..4]
    } else {
        head[4..].copy_from_slice(&(message.len() as u64).to_be_bytes());
        &head
    };
    let all = head.len() + message.len();
    let mut moved = 0;
    while moved < all {
        let pieces = [
            IoSlice::new(head.get(moved..).unwrap_or_default()),
            IoSlice::new(&message[moved.saturating_sub(head.len())..]),
        ];
        moved += connection.part(
            all - moved,
            pieces,
            |fd, pieces| at_once::write(fd, pieces),
            |fd, pieces| writev(fd, pieces),
        )?;
    }
    Some(())
}

unsafe extern "C" fn read_message(
    _: *mut PyObject,
    args: *mut *mut PyObject,
    nargs: Py_ssize_t,
) -> *mut PyObject {
    // SAFETY: these are the arguments that Python gave, alive during the call.
    let read = unsafe {
        two("_read_message", args, nargs).and_then(|(connection, maxsize)| {
            let length = read_length(connection)?;
            // Most of a message that is too long stays there.
            Some(if is_more(length, maxsize)? { none() } else { read_rest(connection, length) })
        })
    };
    read.unwrap_or(ptr::null_mut())
}

/// Reads the length of a message; `None`: exception set.
fn read_length(connection: Connection<'_>) -> Option<u64> {
    let mut head = [0; 4];
    fill(connection, &mut head)?;
    match i32::from_be_bytes(head) {
        -1 => {
            let mut length = [0; 8];
            fill(connection, &mut length)?;
            Some(u64::from_be_bytes(length))
        }
        length => Some(u64::try_from(length).unwrap_or(0)),
    }
}

/// Whether a length is more than `maxsize`, which may be None; `None`: exception set.
///
/// # Safety
/// Attached; `maxsize` is alive.
#[inline]
unsafe fn is_more(length: u64, maxsize: *mut PyObject) -> Option<bool> {
    // SAFETY: as for this function; a new reference, which is released.
    unsafe {
        if maxsize == ffi::Py_None() {
            return Some(false);
        }
        let length = unsigned(length);
        if length.is_null() {
            return None;
        }
        let is_more = ffi::PyObject_RichCompareBool(length, maxsize, ffi::Py_GT);
        ffi::Py_DECREF(length);
        (is_more >= 0).then_some(is_more > 0)
    }
}

/// Reads so many bytes: a new `BytesIO`; null: exception set.
fn read_rest(connection: Connection<'_>, length: u64) -> *mut PyObject {
    // SAFETY: attached. Nobody else has the new object, so its bytes may be written. The references
    // are ours.
    unsafe {
        let Ok(size) = Py_ssize_t::try_from(length) else { return ffi::PyErr_NoMemory() };
        let bytes = ffi::PyBytes_FromStringAndSize(ptr::null(), size);
        if bytes.is_null() {
            return bytes;
        }
        let start = ffi::PyBytes_AsString(bytes).cast();
        let buffer = slice::from_raw_parts_mut(start, size.cast_unsigned());
        if fill(connection, buffer).is_none() {
            ffi::Py_DECREF(bytes);
            return ptr::null_mut();
        }
        file_of(connection.names, bytes, length)
    }
}

/// A new `BytesIO` with these bytes, which stands at their end as if they had been written to it;
/// null: exception set. Takes over the reference to the bytes.
///
/// # Safety
/// Attached; the bytes are a bytes object of this length.
unsafe fn file_of(names: &Names, bytes: *mut PyObject, length: u64) -> *mut PyObject {
    // SAFETY: as for this function; references that are ours. The file holds the only one to the
    // bytes: so it need not copy them to make a buffer of them.
    unsafe {
        let file = call_new(ffi::Py_NewRef(names.bytes_io.as_ptr()), [bytes]);
        if file.is_null() {
            return file;
        }
        let seek = ffi::PyObject_GetAttr(file, names.seek.as_ptr());
        let position = call_new(seek, [unsigned(length)]);
        if position.is_null() {
            ffi::Py_DECREF(file);
            return ptr::null_mut();
        }
        ffi::Py_DECREF(position);
        file
    }
}

/// Reads as many bytes as the buffer has; `None`: exception set.
fn fill(connection: Connection<'_>, buffer: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let rest = &mut buffer[filled..];
        let length = rest.len();
        let moved = connection.part(
            length,
            rest,
            |fd, rest| at_once::read(fd, rest),
            |fd, rest| read(fd, &mut **rest),
        )?;
        if moved == 0 {
            if filled == 0 {
                // SAFETY: attached; the exception lives as long as the interpreter.
                unsafe { ffi::PyErr_SetNone(ffi::PyExc_EOFError) };
            } else {
                raise_as(Exception::Os, "got end of file during message".to_owned());
            }
            return None;
        }
        filled += moved;
    }
    Some(())
}

/// System calls that do not wait, for which nobody has to detach.
#[cfg(target_os = "linux")]
mod at_once {
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

    /// The file's own position, which pipes and sockets do not have.
    const HERE: u64 = u64::MAX;

    /// Whether the kernel has refused them: it is too old to know them for pipes, or a filter forbids
    /// them. Then nobody tries them again.
    static REFUSED: AtomicBool = AtomicBool::new(false);

    pub(super) fn are_there() -> bool {
        !REFUSED.load(Ordering::Relaxed)
    }

    pub(super) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
        noted(preadv2(fd, &mut [IoSliceMut::new(buffer)], HERE, ReadWriteFlags::NOWAIT))
    }

    pub(super) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
        noted(pwritev2(fd, pieces, HERE, ReadWriteFlags::NOWAIT))
    }

    fn noted(end: Result<usize, Errno>) -> Result<usize, Errno> {
        if let Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE | Errno::PERM) =
            end
        {
            REFUSED.store(true, Ordering::Relaxed);
        }
        end
    }
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
mod at_once {
    use std::io::IoSlice;
    use std::os::fd::BorrowedFd;

    use rustix::io::Errno;

    pub(super) fn are_there() -> bool {
        false
    }

    pub(super) fn read(_: BorrowedFd<'_>, _: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }

    pub(super) fn write(_: BorrowedFd<'_>, _: &[IoSlice<'_>]) -> Result<usize, Errno> {
        Err(Errno::NOSYS)
    }
}

//! Bytes of Python objects: reading those of arguments, and making objects from a message.
//!
//! # Safety
//! As at the head of this folder.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use pyo3::ffi::{self, Py_ssize_t, PyObject};
use semlock::Error;
use semlock::raw::Buffer;

/// CPython's `Py_buffer`. It is the same in all versions, but a part of the stable ABI only since
/// 3.11; so are the functions below, which all versions have.
#[repr(C)]
struct View {
    buf: *mut c_void,
    obj: *mut PyObject,
    len: Py_ssize_t,
    itemsize: Py_ssize_t,
    readonly: c_int,
    ndim: c_int,
    format: *mut c_char,
    shape: *mut Py_ssize_t,
    strides: *mut Py_ssize_t,
    suboffsets: *mut Py_ssize_t,
    internal: *mut c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut PyObject, view: *mut View, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut View);
}

/// One block of bytes, read-only or not.
const SIMPLE: c_int = 0;

/// The bytes of an argument, which stay where they are as long as this is there.
pub(crate) struct Bytes {
    start: *const u8,
    length: usize,
    /// `None` for a bytes object, whose bytes stay as long as it lives.
    view: Option<Box<View>>,
}

impl Bytes {
    /// `None`: exception set.
    ///
    /// # Safety
    /// Attached; `object` lives as long as the result.
    pub(crate) unsafe fn of(object: *mut PyObject) -> Option<Self> {
        let (mut start, mut length): (*mut c_char, Py_ssize_t) = (ptr::null_mut(), 0);
        // SAFETY: a live object; of a bytes object the second call cannot fail.
        unsafe {
            if ffi::PyBytes_Check(object) != 0 {
                ffi::PyBytes_AsStringAndSize(object, &raw mut start, &raw mut length);
                return Some(Self {
                    start: start.cast(),
                    length: length.cast_unsigned(),
                    view: None,
                });
            }
        }
        let mut view = Box::new(MaybeUninit::<View>::uninit());
        // SAFETY: a live object, and room for a view, which the call fills unless it fails.
        let view = unsafe {
            if PyObject_GetBuffer(object, view.as_mut_ptr(), SIMPLE) < 0 {
                return None;
            }
            Box::from_raw(Box::into_raw(view).cast::<View>())
        };
        let length = view.len.cast_unsigned();
        Some(Self { start: view.buf.cast(), length, view: Some(view) })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: so many bytes are there while the object or the view is. Another thread may write
        // to them meanwhile if it has them too, as with all that takes buffers in Python: then the
        // bytes that are copied are old or new ones.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Some(view) = &mut self.view {
            // SAFETY: attached; a view that was filled, released once.
            unsafe { PyBuffer_Release(&raw mut **view) };
        }
    }
}

/// From so many bytes on, a message becomes a bytearray: parts of it may be what arrays live in, and
/// these have to be writable.
pub(crate) const LARGE: usize = 32 << 10;

/// A new bytes object or bytearray with a message in it.
pub(crate) struct NewObject {
    object: *mut PyObject,
    start: *mut u8,
    length: usize,
}

// SAFETY: another thread may own the reference. What is done with it needs to be attached.
unsafe impl Send for NewObject {}

impl NewObject {
    pub(crate) const fn new() -> Self {
        Self { object: ptr::null_mut(), start: ptr::null_mut(), length: 0 }
    }

    /// One with these bytes; `None`: exception set.
    pub(crate) fn with(bytes: &[u8]) -> Option<Self> {
        let mut object = Self::new();
        if !object.allocate(bytes.len()) {
            return None;
        }
        object.bytes().copy_from_slice(bytes);
        Some(object)
    }

    /// Room for so many bytes; false: exception set.
    pub(crate) fn allocate(&mut self, bytes: usize) -> bool {
        self.release();
        let Ok(length) = Py_ssize_t::try_from(bytes) else {
            // SAFETY: attached.
            unsafe { ffi::PyErr_NoMemory() };
            return false;
        };
        // SAFETY: attached. Neither object is anyone else's yet, so their bytes may be written; they
        // stay where they are, as nobody resizes them.
        unsafe {
            if bytes < LARGE {
                self.object = ffi::PyBytes_FromStringAndSize(ptr::null(), length);
                if !self.object.is_null() {
                    self.start = ffi::PyBytes_AsString(self.object).cast();
                }
            } else {
                self.object = ffi::PyByteArray_FromStringAndSize(ptr::null(), length);
                if !self.object.is_null() {
                    self.start = ffi::PyByteArray_AsString(self.object).cast();
                }
            }
        }
        self.length = bytes;
        !self.object.is_null()
    }

    /// The reference, which is the caller's from now on.
    pub(crate) fn into_object(mut self) -> *mut PyObject {
        std::mem::replace(&mut self.object, ptr::null_mut())
    }

    fn release(&mut self) {
        // SAFETY: attached; null or a reference that is this one's.
        unsafe { ffi::Py_XDECREF(std::mem::replace(&mut self.object, ptr::null_mut())) };
    }
}

impl Drop for NewObject {
    fn drop(&mut self) {
        self.release();
    }
}

/// What `Buffer::begin` returns where an exception is set.
pub(crate) const RAISED: Error = Error::OutOfRange("an exception is set");

/// For attached threads.
impl Buffer for NewObject {
    fn begin(&mut self, bytes: usize) -> Result<(), Error> {
        if self.allocate(bytes) { Ok(()) } else { Err(RAISED) }
    }

    fn bytes(&mut self) -> &mut [u8] {
        if self.length == 0 {
            return &mut [];
        }
        // SAFETY: the object has so many bytes, which nobody else has.
        unsafe { slice::from_raw_parts_mut(self.start, self.length) }
    }
}

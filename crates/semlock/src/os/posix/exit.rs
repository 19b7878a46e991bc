//! The end of a process by `exit(3)`.

use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

use super::symbol::symbol;
use crate::Error;

/// What is called with the status, and an argument that means nothing.
pub(crate) type Handler = extern "C" fn(c_int, *mut c_void);

/// Has a handler called with the status when this process calls `exit(3)`, or returns from its main function: `on_exit(3)`, where
/// the C library has that. What ends by `_exit(2)` or a signal calls none.
pub(crate) fn on_exit(handler: Handler) -> Result<(), Error> {
    let Some(found) = symbol(c"on_exit") else { return Ok(()) };
    // SAFETY: what a C library has under this name has this type (glibc's manual; it comes from SunOS).
    let on_exit: unsafe extern "C" fn(Handler, *mut c_void) -> c_int =
        unsafe { transmute(found.as_ptr()) };
    // SAFETY: the handler lives as long as the process (CPython unloads none of its extensions), and does not unwind.
    match unsafe { on_exit(handler, null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::Os { call: "on_exit", errno: libc::ENOMEM }),
    }
}

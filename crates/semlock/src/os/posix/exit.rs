//! Handlers that run when a process ends by `exit(3)`: `on_exit(3)`.

use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;

use super::symbol::symbol;
use crate::Error;

/// Gets the status, and an argument that means nothing.
pub(crate) type Handler = extern "C" fn(c_int, *mut c_void);

/// Calls a handler with the status when this process calls `exit(3)` or returns from its main
/// function. Does nothing where the C library has no `on_exit(3)`. A process that ends by
/// `_exit(2)` or a signal calls no handler.
pub(crate) fn on_exit(handler: Handler) -> Result<(), Error> {
    let Some(found) = symbol(c"on_exit") else { return Ok(()) };
    // SAFETY: wherever a C library has this function, it has this type (glibc's manual; it comes
    // from SunOS).
    let on_exit: unsafe extern "C" fn(Handler, *mut c_void) -> c_int =
        unsafe { transmute(found.as_ptr()) };
    // SAFETY: the handler lives as long as the process (CPython unloads no extension), and does not
    // unwind.
    match unsafe { on_exit(handler, null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::Os { call: "on_exit", errno: libc::ENOMEM }),
    }
}

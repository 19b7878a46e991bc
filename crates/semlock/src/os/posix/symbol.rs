//! Functions that are looked up at run time, because a program has to start on a system that is
//! older than the one that it was built on.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

/// The address of a function or an object in what is loaded already: `dlsym(3)`.
pub(in crate::os) fn symbol(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: a C string; looking up runs nothing.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

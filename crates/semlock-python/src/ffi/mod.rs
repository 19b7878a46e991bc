//! Everything that is written against Python's C interface: the only `unsafe` of the extension.
//!
//! The types on the hot path are here. A `#[pyclass]` would be shorter, but its methods cost some
//! 15 ns a call more, which is a third of an uncontended acquire and release. All other types are
//! `#[pyclass]`es, beside this folder.

// The classes that not every system has use all of it.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod capi;
#[cfg(unix)]
pub(crate) mod condition;
#[cfg(unix)]
pub(crate) mod event;
pub(crate) mod exact_port;
#[cfg(unix)]
pub(crate) mod locks;
#[cfg(unix)]
pub(crate) mod objects;
#[cfg(windows)]
pub(crate) mod windows;

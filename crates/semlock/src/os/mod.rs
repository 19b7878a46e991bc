//! Calls of the operating system, each made safe: the only `unsafe` of this crate.

#[allow(unsafe_code)]
pub(crate) mod sem_open;
#[allow(unsafe_code)]
pub(crate) mod thread;

//! Calls of the operating system, each made safe: the only `unsafe` of this crate.

#[cfg(target_os = "linux")]
pub(crate) mod clock;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) mod cpu;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) mod fork;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) mod futex;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod known;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) mod mapping;
#[cfg(unix)]
pub(crate) mod nap;
#[cfg(target_os = "linux")]
pub(crate) mod process;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod sem_open;
#[allow(unsafe_code)]
pub(crate) mod thread;
#[cfg(windows)]
#[allow(unsafe_code)]
pub(crate) mod win32;

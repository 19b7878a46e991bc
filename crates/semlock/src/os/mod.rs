//! Calls of the operating system, each made safe: the only `unsafe` of this crate.
//!
//! What is the same wherever there is POSIX stands in the modules here. What differs stands in one folder for each
//! system, of which one is compiled, as `system`; all export the same names:
//!
//! ```text
//!             futex                  memory                    processes                    cpu          lineage
//!  linux      futex(2)               memfd, wiped on fork      pidfd, /proc                 told         F_OFD_SETLK
//!  macos      os_sync_wait_on_...    shm_open                  proc_pidinfo                 not told     unknown
//!             (14.4), or naps
//!  freebsd    _umtx_op(2)            memfd, wiped on fork      sysctl(3)                    not told     unknown
//!  portable   naps                   shm_open                  kill(2), /proc               not told     unknown
//!  elsewhere  naps                   shm_open                  nobody can be asked for      not told     unknown
//! ```
//!
//! `portable` is Linux with `--cfg semlock_portable`, which has it do with what macOS has, to test there what has to do.
//! Each falls back on what stands below it, where a kernel is older or a filter forbids something.

#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod at_fork;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod exit;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod fork;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod futex;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod mapping;
#[cfg(unix)]
pub(crate) mod nap;
#[cfg(unix)]
pub(crate) mod process;
#[cfg(unix)]
#[allow(unsafe_code)]
pub(crate) mod sem_open;
#[allow(unsafe_code)]
pub(crate) mod thread;
#[cfg(windows)]
#[allow(unsafe_code)]
pub(crate) mod win32;
#[cfg(unix)]
#[allow(unsafe_code)]
mod wiped;

// ---- The one choice of system ----

#[cfg(all(target_os = "linux", not(semlock_portable)))]
#[path = "linux/mod.rs"]
mod system;

#[cfg(target_os = "macos")]
#[path = "macos/mod.rs"]
mod system;

#[cfg(target_os = "freebsd")]
#[path = "freebsd/mod.rs"]
mod system;

#[cfg(all(target_os = "linux", semlock_portable))]
#[path = "portable/mod.rs"]
mod system;

#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))))]
#[path = "elsewhere/mod.rs"]
mod system;

#[cfg(unix)]
pub(crate) use self::system::{clock, cpu, lineage};

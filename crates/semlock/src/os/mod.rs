//! Calls of the operating system, each made safe: the only `unsafe` code of this crate.
//!
//! ```text
//!  posix/           what is the same on every Unix, and what several of these folders share
//!  linux/ ...       what is not the same: a folder for each system, of which one is compiled
//!  exports.rs       what each of these folders exports
//!  thread.rs        threads, on every system
//!  win32.rs         Windows, which shares nothing with the others
//! ```
//!
//! What each system's folder stands on:
//!
//! ```text
//!                futex                    memory    processes       cpu  lineage      semaphores
//!  linux         futex(2)                 memfd *   pidfd, /proc    yes  F_OFD_SETLK  all
//!  macos         os_sync_wait_on_address  shm_open  proc_pidinfo    no   no           named only
//!                (14.4), or polling
//!  freebsd       _umtx_op(2)              memfd *   sysctl(3)       no   no           all
//!  portable      polling                  shm_open  kill(2), /proc  no   no           named only
//!  generic_unix  polling                  shm_open  not checked     no   no           all
//!
//!  * wiped on fork by the kernel; elsewhere by a handler
//! ```
//!
//! Where a kernel is older, or a filter forbids a call, a system does what the ones below it do.
//!
//! `portable` is Linux with `--cfg semlock_portable`. It uses only what macOS has too, so that
//! tests on Linux run the code of such systems.
//!
//! To add a system: write its folder with what `exports.rs` lists, most of it taken from `posix/`,
//! and choose it here.

#[cfg(unix)]
mod exports;
#[cfg(unix)]
mod posix;
#[allow(unsafe_code)]
pub(crate) mod thread;
#[cfg(windows)]
#[allow(unsafe_code)]
pub(crate) mod win32;

#[cfg(unix)]
pub(crate) use self::posix::{
    atfork, backoff, bell, exit, fork_mutex, futex, mapping, process, sem_open,
};
#[cfg(unix)]
pub(crate) use self::system::{clock, cpu, lineage};

// ---- The one choice of system ----

#[cfg(all(target_os = "linux", not(semlock_portable)))]
mod linux;
#[cfg(all(target_os = "linux", not(semlock_portable)))]
use self::linux as system;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use self::macos as system;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
use self::freebsd as system;

#[cfg(all(target_os = "linux", semlock_portable))]
mod portable;
#[cfg(all(target_os = "linux", semlock_portable))]
use self::portable as system;

#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))))]
mod generic_unix;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))))]
use self::generic_unix as system;

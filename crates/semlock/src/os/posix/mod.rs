//! What Unix systems share.

// ---- For the rest of the crate ----
// These modules are the same on every Unix. They call the chosen system for what is not.

#[allow(unsafe_code)]
pub(crate) mod atfork;
pub(crate) mod backoff;
#[allow(unsafe_code)]
pub(crate) mod bell;
#[allow(unsafe_code)]
pub(crate) mod exit;
#[allow(unsafe_code)]
pub(crate) mod fork_mutex;
#[allow(unsafe_code)]
pub(crate) mod futex;
#[allow(unsafe_code)]
pub(crate) mod mapping;
pub(crate) mod process;
#[allow(unsafe_code)]
pub(crate) mod sem_open;
#[allow(unsafe_code)]
pub(crate) mod symbol;
#[allow(unsafe_code)]
mod wipe_on_fork;

// ---- For the systems' folders ----
// What several of them export. No system uses all of it, hence `dead_code`.

#[allow(dead_code, unsafe_code)]
pub(crate) mod basic_sem;
#[allow(dead_code)]
pub(crate) mod clock;
#[allow(dead_code)]
pub(crate) mod no_lineage;
#[allow(dead_code)]
pub(crate) mod no_memfd;
#[allow(dead_code)]
pub(crate) mod pids;
#[allow(dead_code)]
pub(crate) mod polling_futex;
#[allow(dead_code)]
pub(crate) mod unknown_cpu;

// The same, where not every system has the calls.

#[allow(dead_code)]
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) mod coarse_clock;
#[allow(dead_code)]
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) mod fallocate;
#[allow(dead_code, unsafe_code)]
#[cfg(not(target_os = "macos"))]
pub(crate) mod full_sem;
#[allow(dead_code)]
#[cfg(target_os = "linux")]
pub(crate) mod proc;

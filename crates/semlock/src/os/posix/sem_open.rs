//! POSIX semaphores: `sem_overview(7)`.
//!
//! [`Sem`] owns an open semaphore, wherever its memory came from. Its handle is the address of that
//! memory (on macOS: the number of a descriptor, as an address). A table of the open ones turns a
//! handle back into an owner. So a handle that this process does not have is refused, and a
//! semaphore is closed exactly once:
//!
//! ```text
//!  Sem ──raw──────────────┐
//!   └─── Arc<Mapping> ──► sem_t      mapped by sem_open (Named) or mmap (Anonymous)
//!             ▲
//!  OPEN ──Weak┘   keyed by the sem_t's address, which is the handle
//! ```
//!
//! A thread holds the table's mutex for a few instructions, and never while it waits. A fork takes
//! the mutex too. Otherwise a child would inherit it locked if another thread of its parent was
//! just opening or closing a semaphore, and could do neither. (Raw `clone(2)` and `_Fork(3)` do not
//! take it. They are for processes with one thread.)

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, c_int, c_uint};
use std::io;
use std::mem::size_of;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use libc::{sem_t, timespec};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::atfork::{Forking, Registered, on_fork};
use crate::os::system::sem::{self, EACH_OPEN_HAS_ITS_HANDLE};
pub(crate) use crate::os::system::sem::{
    ClockWait, HAS_TIMED_WAIT, HAS_VALUE, TimedWait, VALUE_MAX,
};

/// An open semaphore. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub(crate) struct Sem {
    /// The same as in the mapping, to save the hot path a step. On macOS it is no address, but the
    /// number of a descriptor, which may be 0.
    raw: *mut sem_t,
    /// Keeps `raw` mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: `raw` points to memory that the mapping owns, at an address that does not depend on the
// thread. POSIX lets any thread call any sem_* function on it at any time.
unsafe impl Send for Sem {}
// SAFETY: as above; every method takes `&self` and leaves synchronisation to POSIX.
unsafe impl Sync for Sem {}

#[derive(Debug)]
struct Mapping {
    raw: *mut sem_t,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    /// `sem_open` mapped it.
    Named,
    /// `mmap` mapped it, and `sem_init` made it a semaphore.
    Anonymous,
}

// SAFETY: as for `Sem`; dropping unmaps memory, which any thread may do.
unsafe impl Send for Mapping {}
// SAFETY: nothing but its address is read through a shared reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut open = open();
        let mut is_its_own = false;
        if let Entry::Occupied(entry) = open.entry(self.raw.addr()) {
            // Another `sem_open` may have returned this address meanwhile: then the entry is its
            // own.
            is_its_own = ptr::eq(entry.get().as_ptr(), self);
            if is_its_own {
                entry.remove();
            }
        }
        match self.storage {
            Storage::Named if EACH_OPEN_HAS_ITS_HANDLE && !is_its_own => {}
            // SAFETY: sem_close wants a semaphore from sem_open that is still open: `from_named`
            // took over exactly one reference, and only this gives it back.
            Storage::Named => unsafe {
                libc::sem_close(self.raw);
            },
            // No sem_destroy: other processes may still use the semaphore.
            // SAFETY: munmap wants a mapping of this length that nothing uses any more: `anonymous`
            // made it, and every user holds the Arc, whose last clone is being dropped.
            Storage::Anonymous => unsafe {
                let _cannot_fail_on_what_mmap_gave = munmap(self.raw.cast(), size_of::<sem_t>());
            },
        }
    }
}

/// The semaphores that this process has open, by handle.
type Table = BTreeMap<usize, Weak<Mapping>>;

fn open() -> MutexGuard<'static, Table> {
    static SEEN_BY_FORKS: Registered = Registered::new();
    // If there is no memory even for this, forks do not take the mutex.
    let _ = SEEN_BY_FORKS.once(|| on_fork(before_fork, after_fork, after_fork));
    table()
}

fn table() -> MutexGuard<'static, Table> {
    static OPEN: Mutex<Table> = Mutex::new(BTreeMap::new());
    // A panic while it is locked leaves the map whole: only single calls change it.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

static FORKING: Forking = Forking::new();

/// The table's guard during a fork.
struct Kept(UnsafeCell<Option<MutexGuard<'static, Table>>>);

// SAFETY: only the thread that forks reaches the cell, while it holds the table's mutex. That
// thread, or its copy in the child, locks and unlocks the mutex.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(None));

extern "C" fn before_fork() {
    if !FORKING.is_new() {
        return;
    }
    let guard = table();
    FORKING.begin();
    // SAFETY: this thread holds the mutex, and no reference to the cell is left.
    unsafe { *KEPT.0.get() = Some(guard) };
}

extern "C" fn after_fork() {
    if FORKING.end() {
        // SAFETY: this thread holds the mutex since `before_fork`. It takes the guard out before it
        // unlocks.
        drop(unsafe { (*KEPT.0.get()).take() });
    }
}

/// Not inlined, to keep its code off the callers' hot paths.
#[inline(never)]
fn errno() -> Errno {
    // `last_os_error` always has a number.
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

/// 0 is success. Otherwise the reason is in `errno`.
#[inline]
pub(super) fn check(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(errno()) }
}

impl Sem {
    /// `sem_open(name, O_CREAT | O_EXCL, 0600, value)`.
    pub(crate) fn create(name: &CStr, value: c_uint) -> Result<Self, Errno> {
        let mode: c_uint = 0o600;
        // SAFETY: `name` is a C string; with O_CREAT come a mode and a value, as unsigned ints.
        let raw =
            unsafe { libc::sem_open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL, mode, value) };
        Self::from_named(raw)
    }

    /// `sem_open(name, 0)`: what another process created.
    pub(crate) fn open(name: &CStr) -> Result<Self, Errno> {
        // SAFETY: `name` is a C string, and without O_CREAT nothing else is read.
        Self::from_named(unsafe { libc::sem_open(name.as_ptr(), 0) })
    }

    /// `sem_init(3)` in a shared mapping of its own. Forked children share it. It needs no file
    /// system.
    pub(crate) fn anonymous(value: c_uint) -> Result<Self, Errno> {
        if !sem::HAS_UNNAMED {
            return Err(Errno::NOSYS);
        }
        // SAFETY: a null hint lets the kernel choose an address that nothing uses.
        let memory = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                size_of::<sem_t>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )
        }?;
        let raw = memory.cast::<sem_t>();
        // SAFETY: the memory is writable, page-aligned, large enough, and nobody else's yet.
        if let Err(error) = unsafe { sem::init(raw, value) } {
            // SAFETY: the mapping was made above and nothing points into it.
            unsafe { munmap(memory, size_of::<sem_t>()) }?;
            return Err(error);
        }
        Ok(Self::register(&mut open(), Mapping { raw, storage: Storage::Anonymous }))
    }

    /// The open semaphore with this handle, if this process has one.
    pub(crate) fn from_handle(handle: usize) -> Option<Self> {
        let mapping = open().get(&handle)?.upgrade()?;
        Some(Self { raw: mapping.raw, _mapping: mapping })
    }

    /// What [`from_handle`](Self::from_handle) takes in this process.
    pub(crate) fn handle(&self) -> usize {
        self.raw.addr()
    }

    /// Takes over the reference that `sem_open` counted for the caller.
    fn from_named(raw: *mut sem_t) -> Result<Self, Errno> {
        if raw == libc::SEM_FAILED {
            return Err(errno());
        }
        // SAFETY: a semaphore that was just opened, and stays open.
        unsafe { sem::close_on_exec(raw) };
        let mut open = open();
        let known = if EACH_OPEN_HAS_ITS_HANDLE { None } else { open.get(&raw.addr()) };
        // Most C libraries return the same address for each `sem_open` of a semaphore, and count
        // them.
        if let Some(mapping) = known.and_then(Weak::upgrade) {
            // SAFETY: sem_open has just counted a reference at this address, and `mapping` holds
            // another: giving one back leaves the memory mapped.
            unsafe { libc::sem_close(raw) };
            return Ok(Self { raw, _mapping: mapping });
        }
        Ok(Self::register(&mut open, Mapping { raw, storage: Storage::Named }))
    }

    fn register(open: &mut BTreeMap<usize, Weak<Mapping>>, mapping: Mapping) -> Self {
        let mapping = Arc::new(mapping);
        open.insert(mapping.raw.addr(), Arc::downgrade(&mapping));
        Self { raw: mapping.raw, _mapping: mapping }
    }

    /// `sem_trywait(3)`: true if a permit was taken.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, Errno> {
        // SAFETY: `raw` is an open semaphore while `self` lives; so in every method below.
        if unsafe { libc::sem_trywait(self.raw) } == 0 {
            return Ok(true);
        }
        match errno() {
            Errno::AGAIN => Ok(false),
            error => Err(error),
        }
    }

    /// `sem_wait(3)`: without a timeout, or until a signal (`EINTR`).
    pub(crate) fn wait(&self) -> Result<(), Errno> {
        // SAFETY: an open semaphore.
        check(unsafe { libc::sem_wait(self.raw) })
    }

    /// `sem_timedwait(3)`: until a moment of the wall clock.
    pub(crate) fn timed_wait(&self, function: TimedWait, until: &timespec) -> Result<(), Errno> {
        // SAFETY: an open semaphore.
        check(unsafe { function.wait(self.raw, until) })
    }

    /// `sem_clockwait(3)`: until a moment of the monotonic clock.
    pub(crate) fn clock_wait(&self, function: ClockWait, until: &timespec) -> Result<(), Errno> {
        // SAFETY: an open semaphore.
        check(unsafe { function.wait(self.raw, until) })
    }

    /// `sem_post(3)`.
    #[inline]
    pub(crate) fn post(&self) -> Result<(), Errno> {
        // SAFETY: an open semaphore.
        check(unsafe { libc::sem_post(self.raw) })
    }

    /// `sem_getvalue(3)`; negative where a system counts waiters below zero.
    #[inline]
    pub(crate) fn value(&self) -> Result<c_int, Errno> {
        // SAFETY: an open semaphore.
        unsafe { sem::value(self.raw) }
    }
}

/// `sem_unlink(3)`: ends the name. Processes that have the semaphore open keep it.
pub(crate) fn unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string.
    check(unsafe { libc::sem_unlink(name.as_ptr()) })
}

// With unnamed semaphores, because the C library takes a lock of its own around named ones, and a
// child may find that one locked.
#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;
    use crate::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_child_can_open_semaphores_whatever_its_parents_threads_were_doing_with_theirs() {
        if !sem::HAS_UNNAMED {
            return;
        }
        let done = AtomicBool::new(false);
        let forks = 300;
        let failed = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(Sem::anonymous(1).unwrap());
                    }
                });
            }
            let failed = (0..forks).find(|_| {
                // SAFETY: the child opens a semaphore, for which it takes no lock that another
                // thread of its parent can have left locked: this test shows that. It exits without
                // unwinding.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: an alarm of this process's own, which ends a child that hangs.
                    unsafe { libc::alarm(60) };
                    let opened = Sem::anonymous(1).is_ok();
                    // SAFETY: ends the process at once.
                    unsafe { libc::_exit(i32::from(!opened)) };
                }
                let pid = Pid::from_raw(child).unwrap();
                let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
                status.exit_status() != Some(0)
            });
            done.store(true, Ordering::Relaxed);
            failed
        });
        assert_eq!(failed, None);
    }
}

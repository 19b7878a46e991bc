//! Memory that a forked child finds zero, where the kernel does not wipe it (macOS; Linux before
//! 4.14).
//!
//! A process has a list of such regions. A handler of `pthread_atfork(3)` walks the list in the
//! child, and maps new memory over each region.
//!
//! ```text
//!  bytes   0: free
//!          1: a thread enters a region, or did when this child was forked
//!          n: the region's length
//! ```
//!
//! A fork copies the list as it is at that moment, whatever other threads are doing, and the child
//! has only the thread that forked. So what matters is where the others can have been:
//!
//! - Entering: a region is mapped before it is entered, and used only after. If the child's copy of
//!   the list has it, the mapping is there. If not, nothing in the child uses it.
//! - Leaving: a region leaves the list before it is unmapped. If the child's copy still has it, the
//!   mapping is there, and wiping it harms nothing. A stale entry never reaches what was mapped
//!   *afterwards* at that address.
//!
//! So the handler needs no lock, which another thread could hold forever. It loads, stores and
//! calls `mmap(2)`, and nothing else: only such calls are safe between a fork and the child's first
//! step.
//!
//! The handler does not run in a child that another call than `fork(3)` made: see
//! [`identity`](super::process::identity).

use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::atfork::{Registered, on_fork_in_child};
use crate::Error;
use crate::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

const FREE: usize = 0;
const ENTERING: usize = 1;

#[derive(Debug)]
struct Entry {
    start: AtomicPtr<AtomicU64>,
    bytes: AtomicUsize,
    /// Set before the entry is in the list, and never again.
    next: AtomicPtr<Entry>,
}

/// The list's first entry. Entries are never freed, and are used again.
static FIRST: AtomicPtr<Entry> = AtomicPtr::new(null_mut());

/// A region in the list. It leaves the list when this is dropped, which must be before the region
/// is unmapped.
#[derive(Debug)]
pub(super) struct Region(&'static Entry);

impl Region {
    /// Makes a forked child find so many bytes of private memory wiped.
    ///
    /// # Safety
    /// They are one whole mapping: private, anonymous and writable. Only atomics reach it.
    pub(super) unsafe fn enter(start: NonNull<AtomicU64>, bytes: usize) -> Result<Self, Error> {
        watch_forks()?;
        let entry = entries().find(|entry| entry.claim()).unwrap_or_else(new_entry);
        entry.start.store(start.as_ptr(), Ordering::Relaxed);
        entry.bytes.store(bytes, Ordering::Release);
        Ok(Self(entry))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.0.bytes.store(FREE, Ordering::Release);
    }
}

impl Entry {
    fn claim(&self) -> bool {
        self.bytes.compare_exchange(FREE, ENTERING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = &FIRST;
    std::iter::from_fn(move || {
        // SAFETY: null, or an entry that `new_entry` published whole, and that is never freed.
        let entry = unsafe { next.load(Ordering::Acquire).as_ref() }?;
        next = &entry.next;
        Some(entry)
    })
}

/// A new entry, which only the caller uses.
#[cold]
fn new_entry() -> &'static Entry {
    let entry: &'static Entry = Box::leak(Box::new(Entry {
        start: AtomicPtr::new(null_mut()),
        bytes: AtomicUsize::new(ENTERING),
        next: AtomicPtr::new(null_mut()),
    }));
    let mut first = FIRST.load(Ordering::Relaxed);
    loop {
        entry.next.store(first, Ordering::Relaxed);
        let new = std::ptr::from_ref(entry).cast_mut();
        match FIRST.compare_exchange(first, new, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return entry,
            Err(other) => first = other,
        }
    }
}

fn watch_forks() -> Result<(), Error> {
    static WATCHED: Registered = Registered::new();
    // A handler that is registered twice wipes twice.
    WATCHED.once(|| on_fork_in_child(wipe))
}

/// Runs in a child, before anything else of semlock runs there.
extern "C" fn wipe() {
    for entry in entries() {
        match entry.bytes.load(Ordering::Acquire) {
            FREE => {}
            // The thread that was entering it is not in this process.
            ENTERING => entry.bytes.store(FREE, Ordering::Relaxed),
            bytes => {
                let start = entry.start.load(Ordering::Relaxed);
                let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                // SAFETY: a private mapping of ours, which is there (see above), is replaced whole
                // by one of the same kind. References to it read numbers, through atomics, and no
                // other thread runs yet.
                let fresh = unsafe {
                    let both = ProtFlags::READ | ProtFlags::WRITE;
                    mmap_anonymous(start.cast(), bytes, both, flags)
                };
                if fresh.is_err() {
                    // There may be no memory for a new mapping: then the old one is overwritten.
                    // SAFETY: as above: so many bytes are mapped there.
                    let words = unsafe {
                        std::slice::from_raw_parts(start, bytes / size_of::<AtomicU64>())
                    };
                    for word in words {
                        word.store(0, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

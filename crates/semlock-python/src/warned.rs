//! What code that a warning runs may do with the lock whose owner died.
//!
//! The warned thread holds the lock already, so that nobody else gets it first. But its `acquire`
//! has not returned yet, and the warning may run code that acquires the same lock: with
//! `logging.captureWarnings(True)`, a log handler that writes under the lock does so. It would wait
//! for its own thread for ever, and all others with it.
//!
//! So such code borrows the lock: its `acquire` returns at once, and its `release` only ends the
//! loan. That disturbs nobody, because the `acquire` that warns has not returned yet. (An `RLock`
//! can be taken again in any case.)

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use semlock::raw::{Address, Lock, LockKind, Shared};

/// How many warnings of this process have not ended. If a thread forks during one, the number stays
/// too high in the child, which then reads `WARNINGS` for nothing.
static UNENDED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The warnings of this thread, the innermost last.
    static WARNINGS: RefCell<Vec<Warning>> = const { RefCell::new(Vec::new()) };
}

struct Warning {
    lock: Address,
    is_borrowed: bool,
}

/// Whether any thread is being warned. Otherwise nothing is borrowed.
#[inline]
pub(crate) fn is_any() -> bool {
    // Relaxed: the warnings of other threads do not matter.
    UNENDED.load(Ordering::Relaxed) != 0
}

/// Warns the calling thread, which has just recovered this lock. Returns whether the thread still
/// holds the lock then: code that the warning ran may have released it, or may still borrow it.
pub(crate) fn warn(lock: &Lock, emit: impl FnOnce()) -> bool {
    let address = lock.peek_address();
    let warning = Warning { lock: address, is_borrowed: false };
    // If that fails, the thread is ending, and nobody can borrow the lock.
    let _ = WARNINGS.try_with(|mine| mine.borrow_mut().push(warning));
    UNENDED.fetch_add(1, Ordering::Relaxed);
    emit();
    UNENDED.fetch_sub(1, Ordering::Relaxed);
    let is_borrowed = WARNINGS.try_with(|mine| {
        let mut mine = mine.borrow_mut();
        // It need not be the last one: a thread can switch between several stacks (greenlets).
        let this = mine.iter().rposition(|warning| warning.lock == address);
        this.is_some_and(|this| mine.remove(this).is_borrowed)
    });
    is_held(lock) && !is_borrowed.unwrap_or(false)
}

/// Borrows the lock if the calling thread is being warned about it. If so, the thread goes on as if
/// it had acquired the lock, until it calls `end_borrowing`.
pub(crate) fn borrow(lock: &Lock) -> bool {
    is_any() && change(lock, true)
}

/// Ends the loan if the calling thread borrows this lock; false if it does not.
#[cold]
pub(crate) fn end_borrowing(lock: &Lock) -> bool {
    change(lock, false)
}

/// Notes in the thread's innermost warning about this lock whether the lock is borrowed; false if
/// nothing changed.
fn change(lock: &Lock, is_borrowed: bool) -> bool {
    let address = lock.peek_address();
    WARNINGS
        .try_with(|mine| {
            let mut mine = mine.borrow_mut();
            let warning = mine.iter_mut().rev().find(|warning| warning.lock == address);
            // In a forked child, the lock is the parent's.
            let changes = warning.filter(|it| it.is_borrowed != is_borrowed && is_held(lock));
            changes.map(|warning| warning.is_borrowed = is_borrowed).is_some()
        })
        .unwrap_or(false)
}

/// Whether the calling thread holds this lock; of a semaphore, whether its process holds a permit.
fn is_held(lock: &Lock) -> bool {
    match lock.options().kind {
        LockKind::Semaphore => lock.count() > 0,
        LockKind::Mutex | LockKind::ReentrantMutex => lock.is_mine(),
    }
}

//! What the code that a warning runs may do with the lock whose owner died.
//!
//! The thread that is warned has the lock: nobody else is to come before it. But its `acquire` has not returned yet, and the
//! warning may run code that acquires the same lock, as a log handler does that writes under it (with
//! `logging.captureWarnings(True)`). It would wait for its own thread, for ever, and all others with it.
//!
//! So such code borrows the lock: its `acquire` returns at once, and its `release` only ends that. It interrupts nobody, because
//! whoever called the `acquire` that warns has not gone on yet. (It may take an `RLock` again in any case.)

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use semlock::raw::{Address, Lock, LockKind};

/// How many warnings of this process have not ended. A fork in the midst of one leaves it too high in the child, which costs
/// a look at `WARNINGS`.
static UNENDED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Those of this thread, the innermost last.
    static WARNINGS: RefCell<Vec<Warning>> = const { RefCell::new(Vec::new()) };
}

struct Warning {
    lock: Address,
    is_borrowed: bool,
}

/// Whether any thread is being warned. Only then is there anything to find here.
#[inline]
pub(crate) fn is_any() -> bool {
    // Relaxed: of other threads' warnings nothing has to be known.
    UNENDED.load(Ordering::Relaxed) != 0
}

/// Warns a thread that has just recovered this lock. Tells whether the thread still has the lock then: what the warning ran may
/// have released it, or have borrowed it for longer.
pub(crate) fn warn(lock: &Lock, emit: impl FnOnce()) -> bool {
    let address = lock.address();
    let warning = Warning { lock: address, is_borrowed: false };
    // Where that fails, the thread is ending, and nothing is lent.
    let _ = WARNINGS.try_with(|mine| mine.borrow_mut().push(warning));
    UNENDED.fetch_add(1, Ordering::Relaxed);
    emit();
    UNENDED.fetch_sub(1, Ordering::Relaxed);
    let is_borrowed = WARNINGS.try_with(|mine| {
        let mut mine = mine.borrow_mut();
        // Not just the last: a thread can switch between several stacks (greenlets).
        let this = mine.iter().rposition(|warning| warning.lock == address);
        this.is_some_and(|this| mine.remove(this).is_borrowed)
    });
    is_held(lock) && !is_borrowed.unwrap_or(false)
}

/// Whether the calling thread is being warned about this lock, and may go on as if it had acquired it: it has it until it
/// calls `end_borrowing`.
pub(crate) fn borrow(lock: &Lock) -> bool {
    is_any() && change(lock, true)
}

/// Whether what the calling thread releases is what it has borrowed, which it has not any more then.
#[cold]
pub(crate) fn end_borrowing(lock: &Lock) -> bool {
    change(lock, false)
}

/// Makes the thread's innermost warning about this lock one where it is borrowed or is not, unless it is so already.
fn change(lock: &Lock, is_borrowed: bool) -> bool {
    let address = lock.address();
    WARNINGS
        .try_with(|mine| {
            let mut mine = mine.borrow_mut();
            let warning = mine.iter_mut().rev().find(|warning| warning.lock == address);
            // In a fork of the thread it is the parent's.
            let changes = warning.filter(|it| it.is_borrowed != is_borrowed && is_held(lock));
            changes.map(|warning| warning.is_borrowed = is_borrowed).is_some()
        })
        .unwrap_or(false)
}

/// Whether the calling thread has this lock; of a semaphore, whether its process has a permit.
fn is_held(lock: &Lock) -> bool {
    match lock.options().kind {
        LockKind::Semaphore => lock.count() > 0,
        LockKind::Mutex | LockKind::ReentrantMutex => lock.is_mine(),
    }
}

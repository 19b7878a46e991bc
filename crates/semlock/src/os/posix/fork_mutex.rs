//! A mutex that survives forks.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

use super::futex::{self, Reach};
use super::process::identity;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

/// A mutex for one process, which a forked child finds free, even if no handler ran at the fork and
/// another thread of the parent held it. Then the child gets a new value, because the old one may
/// be half-changed. The old one is not dropped.
///
/// ```text
///  word   0: free      pid << 32 | 1: locked by that process      | 2: and a thread sleeps
/// ```
#[derive(Debug)]
pub(crate) struct ForkMutex<T> {
    word: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: only a thread that holds the mutex reaches the value.
unsafe impl<T: Send> Sync for ForkMutex<T> {}

const LOCKED: u64 = 1;
const SLEEPERS: u64 = 2;

impl<T: Default> ForkMutex<T> {
    pub(crate) const fn new() -> Self {
        Self { word: AtomicU64::new(0), value: UnsafeCell::new(None) }
    }

    pub(crate) fn lock(&self) -> ForkGuard<'_, T> {
        let mine = u64::from(identity().pid) << 32;
        let free =
            self.word.compare_exchange(0, mine | LOCKED, Ordering::Acquire, Ordering::Relaxed);
        if let Err(seen) = free {
            self.lock_slow(mine, seen);
        }
        let guard = ForkGuard(self);
        // SAFETY: the mutex is held, and `guard` gives no reference to the value before this ends.
        let value = unsafe { &mut *self.value.get() };
        if value.is_none() {
            *value = Some(T::default());
        }
        guard
    }

    #[cold]
    fn lock_slow(&self, mine: u64, mut seen: u64) {
        loop {
            let ours = seen >> 32 == mine >> 32 || !rule("fork/a-mutex-of-another-process-is-free");
            if seen == 0 || !ours {
                // A thread that slept cannot know whether others sleep.
                let locked = mine | SLEEPERS;
                match self.word.compare_exchange(seen, locked, Ordering::Acquire, Ordering::Relaxed)
                {
                    Ok(0) => return,
                    Ok(_) => {
                        if rule("fork/a-half-changed-value-is-replaced") {
                            // SAFETY: this thread holds the mutex: the thread of another process
                            // that held it has its own copy. The old value is not dropped.
                            unsafe { self.value.get().write(None) };
                        }
                        return;
                    }
                    Err(other) => seen = other,
                }
                continue;
            }
            if seen & SLEEPERS == 0 {
                let asleep = mine | SLEEPERS;
                if let Err(other) =
                    self.word.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed)
                {
                    seen = other;
                    continue;
                }
            }
            // A signal, or a wake-up: check the word again.
            #[allow(clippy::cast_possible_truncation)] // the low half
            let _ = futex::wait(&self.word, SLEEPERS as u32, None, Reach::Process);
            seen = self.word.load(Ordering::Relaxed);
        }
    }

    /// Locks the mutex for a fork, and acts on the value. `unlock_after_fork` unlocks it, in the
    /// parent and in the child.
    pub(crate) fn lock_for_fork(&self, act: impl FnOnce(&mut T)) {
        let mut guard = std::mem::ManuallyDrop::new(self.lock());
        act(&mut guard);
    }

    /// Acts on the value once more, and unlocks what `lock_for_fork` locked.
    pub(crate) fn unlock_after_fork(&self, act: impl FnOnce(&mut T)) {
        // This thread locked it; or, in the child, the thread that it is a copy of.
        act(&mut ForkGuard(self));
    }

    fn unlock(&self) {
        if self.word.swap(0, Ordering::Release) & SLEEPERS != 0 {
            futex::wake_one(&self.word, Reach::Process);
        }
    }
}

#[derive(Debug)]
pub(crate) struct ForkGuard<'a, T: Default>(&'a ForkMutex<T>);

impl<T: Default> Deref for ForkGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mutex is held as long as the guard lives, and `lock` has put a value there.
        unsafe { (*self.0.value.get()).as_ref().unwrap_unchecked() }
    }
}

impl<T: Default> DerefMut for ForkGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as for `deref`; nobody else has the guard.
        unsafe { (*self.0.value.get()).as_mut().unwrap_unchecked() }
    }
}

impl<T: Default> Drop for ForkGuard<'_, T> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;

    #[test]
    fn a_forked_child_finds_a_held_mutex_free_and_its_value_new() {
        static MUTEX: ForkMutex<u32> = ForkMutex::new();
        let mut guard = MUTEX.lock();
        *guard = 7;
        // SAFETY: the child calls nothing but this mutex's functions, and exits without unwinding
        // or running destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: an alarm of this process's own: nothing else would end a wait for a thread of
            // the parent.
            unsafe { libc::alarm(60) };
            let found = *MUTEX.lock();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(found != 0)) };
        }
        let pid = Pid::from_raw(child).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
        assert_eq!(*guard, 7);
        drop(guard);
        assert_eq!(*MUTEX.lock(), 7);
    }
}

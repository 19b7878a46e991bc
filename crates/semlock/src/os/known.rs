//! What a process finds out once.

use std::ptr::null_mut;

use crate::atomic::{AtomicPtr, Ordering};

/// An answer that stays: of several threads that look for it at once, the first one's.
///
/// Not a `OnceLock`: a child that is forked while a thread is at it would wait for that thread for ever.
#[derive(Debug)]
pub(crate) struct Known<T>(AtomicPtr<T>);

impl<T: Send + Sync> Known<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    #[inline]
    pub(crate) fn get(&'static self, find_out: impl FnOnce() -> T) -> &'static T {
        let known = self.0.load(Ordering::Acquire);
        // SAFETY: what stands here was made by `keep`, and is never changed or freed.
        unsafe { known.as_ref() }.unwrap_or_else(|| self.keep(find_out()))
    }

    #[cold]
    fn keep(&'static self, found: T) -> &'static T {
        let found = Box::into_raw(Box::new(found));
        let nothing = null_mut();
        match self.0.compare_exchange(nothing, found, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it stays where it is from now on.
            Ok(_) => unsafe { &*found },
            Err(known) => {
                // SAFETY: nobody else has it.
                drop(unsafe { Box::from_raw(found) });
                // SAFETY: as in `get`.
                unsafe { &*known }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn who_comes_while_another_finds_out_does_not_wait_and_the_first_answer_stays() {
        static KNOWN: Known<u32> = Known::new();
        let (begun, found) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let late = KNOWN.get(|| {
                    begun.wait();
                    found.wait();
                    1
                });
                assert_eq!(*late, 2);
            });
            begun.wait();
            assert_eq!(*KNOWN.get(|| 2), 2);
            found.wait();
        });
        assert_eq!(*KNOWN.get(|| 3), 2);
    }
}

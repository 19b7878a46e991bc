//! The one source of atomics, so that a model checker can replace std's.

#[cfg(loom)]
pub(crate) use self::mortal::{AtomicU64, Ordering, killed_after};
#[cfg(not(loom))]
#[allow(unused_imports)] // not every system's part needs all of them
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// loom's atomics. Before each operation on one, a model can kill the process.
///
/// loom treats a `SeqCst` access as `AcqRel`. In addition to that, all threads agree on one order
/// of all `SeqCst` accesses. Our algorithms need this order where a thread stores to one word and
/// then loads another. So the first `SeqCst` load after a `SeqCst` store gets a fence before it:
/// loom knows fences. Where only one of the two accesses is `SeqCst`, there is no fence. (A fence
/// is stronger than the accesses that it replaces, because it orders other accesses too. The load
/// of an exchange gets no fence, because it sees the latest value anyway.)
#[cfg(loom)]
mod mortal {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    pub(crate) use loom::sync::atomic::Ordering;
    use loom::sync::atomic::fence;

    #[cfg(semlock_mutation)]
    use crate::mutation::ordering;

    loom::thread_local! {
        /// How many operations the calling thread has left.
        static LEFT: Cell<usize> = Cell::new(usize::MAX);
        /// Whether it has made a `SeqCst` store, and no fence after it.
        static STORED: Cell<bool> = Cell::new(false);
    }

    struct Killed;

    /// Runs `life` for `steps` atomic operations and then kills it. `None` if it was killed before
    /// its end.
    pub(crate) fn killed_after<T>(steps: usize, life: impl FnOnce() -> T) -> Option<T> {
        LEFT.with(|left| left.set(steps));
        let lived = catch_unwind(AssertUnwindSafe(life));
        LEFT.with(|left| left.set(usize::MAX));
        match lived {
            Ok(done) => Some(done),
            Err(cause) if cause.is::<Killed>() => None,
            Err(failure) => resume_unwind(failure),
        }
    }

    #[cfg(not(semlock_mutation))]
    fn ordering(_part: &'static str, order: Ordering) -> Ordering {
        order
    }

    fn stored(order: Ordering) {
        if order == Ordering::SeqCst {
            STORED.with(|stored| stored.set(true));
        }
    }

    fn step() {
        LEFT.with(|left| match left.get() {
            0 => resume_unwind(Box::new(Killed)),
            usize::MAX => {}
            more => left.set(more - 1),
        });
    }

    /// The word itself, and a second atomic that makes loom try more orders. loom remembers one
    /// access of each atomic, the last one. So where a thread loads a word and then changes it,
    /// loom does not see that another thread loaded the word before, and never tries the two in the
    /// other order. (loom takes two loads for independent.) So each load makes an exchange of the
    /// second atomic too: it fails and orders nothing, but loom takes it for a change.
    #[derive(Debug)]
    pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64, loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            let [word, loads] = [value, 0].map(loom::sync::atomic::AtomicU64::new);
            Self(word, loads)
        }

        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> u64 {
            let order = ordering("load", order);
            step();
            let _ = self.1.compare_exchange(1, 1, Ordering::Relaxed, Ordering::Relaxed);
            if order == Ordering::SeqCst && STORED.with(|stored| stored.replace(false)) {
                fence(Ordering::SeqCst);
            }
            self.0.load(order)
        }

        #[track_caller]
        pub(crate) fn store(&self, value: u64, order: Ordering) {
            let order = ordering("store", order);
            step();
            self.0.store(value, order);
            stored(order);
        }

        #[track_caller]
        pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
            let order = ordering("swap", order);
            step();
            let old = self.0.swap(value, order);
            stored(order);
            old
        }

        #[track_caller]
        pub(crate) fn compare_exchange(
            &self,
            from: u64,
            to: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            let (success, failure) = (ordering("success", success), ordering("failure", failure));
            step();
            self.0.compare_exchange(from, to, success, failure).inspect(|_| stored(success))
        }

        #[track_caller]
        pub(crate) fn fetch_add(&self, more: u64, order: Ordering) -> u64 {
            let order = ordering("fetch_add", order);
            step();
            let old = self.0.fetch_add(more, order);
            stored(order);
            old
        }

        #[track_caller]
        pub(crate) fn fetch_max(&self, least: u64, order: Ordering) -> u64 {
            let order = ordering("fetch_max", order);
            step();
            let old = self.0.fetch_max(least, order);
            stored(order);
            old
        }
    }
}

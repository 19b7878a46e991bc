//! `SemLock`: kinds, recursion, owner thread and greatest value over a backend's semaphore.
//!
//! Processes share the semaphore. Beside it, each `SemLock` keeps private to its process how many
//! permits the process acquired through it, and which thread was the last to do so:
//!
//! ```text
//!            this process                          shared
//!  SemLock { kind, maxvalue, name, count, owner, sem ──► value }
//! ```
//!
//! A recursive mutex is *mine* when `count > 0` and the calling thread is the owner. To acquire it
//! again then only adds to the count.
//!
//! # Memory ordering
//! The semaphore itself orders what a lock protects: in POSIX, `sem_wait` and `sem_post`
//! synchronise memory. `count` and `owner` must answer one question right while other threads
//! change them: is this recursive mutex *mine*? A thread that got the permit writes `owner` and
//! then adds to the count (Release). The thread that asks reads the count (Acquire) and then
//! `owner`. So a thread that sees a count of 1 or more sees the owner that belongs to this count,
//! or a later one. It finds its own name only if it is the holder: a holder writes its name while
//! it holds the permit, and subtracts from the count before it releases the permit.
//!
//! For semaphores, both fields are information only. So they are for a "recursive mutex" with more
//! than one permit, which is no mutex.

use crate::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::backend::Semaphore;
use crate::balance::Balance;
use crate::os::thread;
use crate::{Deadline, Error, Name, Naming, Wait};

/// What a [`SemLock`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Kind {
    /// The thread that holds it can acquire it again, and only that thread can release it.
    RecursiveMutex = 0,
    /// Permits that any process can acquire and any process can release.
    Semaphore = 1,
}

impl TryFrom<i32> for Kind {
    type Error = Error;

    fn try_from(kind: i32) -> Result<Self, Error> {
        match kind {
            0 => Ok(Self::RecursiveMutex),
            1 => Ok(Self::Semaphore),
            _ => Err(Error::UnrecognizedKind),
        }
    }
}

/// A semaphore or recursive mutex that processes share.
///
/// To drop it closes the semaphore for this `SemLock`. Permits that it acquired stay acquired.
#[derive(Debug)]
pub struct SemLock {
    sem: Semaphore,
    /// Acquires minus releases by this process: see the module's head.
    count: [AtomicU64; 3],
    /// The thread that was the last to acquire; 0: none yet.
    owner: AtomicUsize,
    maxvalue: i32,
    kind: Kind,
    name: Option<Name>,
}

impl SemLock {
    /// Creates a semaphore under a name that is not in use.
    ///
    /// [`release`](Self::release) does not raise the value above `maxvalue`. `value` may be greater
    /// than that, except on Windows, where the system's semaphores have a greatest value of their
    /// own. On Windows semaphores have no names either: other processes reach one by its
    /// [`handle`](Self::handle), which they inherit or receive.
    ///
    /// # Errors
    /// [`Error::Os`]: `EEXIST` for a taken name; `EINVAL` for an impossible one, or a value above
    /// [`SEM_VALUE_MAX`](crate::SEM_VALUE_MAX); and the other errors of `sem_open(3)`.
    pub fn create(
        kind: Kind,
        value: u32,
        maxvalue: i32,
        name: &Name,
        naming: Naming,
    ) -> Result<Self, Error> {
        let sem = Semaphore::create(name, value, maxvalue, naming)?;
        let name = (naming == Naming::Keep).then(|| name.clone());
        Ok(Self::over(sem, kind, maxvalue, name))
    }

    /// Opens a semaphore that another process created, and leaves its value as it is. (Not on
    /// Windows, where processes reach semaphores by their handles.)
    ///
    /// # Errors
    /// [`Error::Os`]: `ENOENT` where nothing has this name.
    #[cfg(unix)]
    pub fn rebuild(kind: Kind, maxvalue: i32, name: &Name) -> Result<Self, Error> {
        Ok(Self::over(Semaphore::open(name)?, kind, maxvalue, Some(name.clone())))
    }

    /// Makes a second `SemLock` over a semaphore that this process has open, or that its parent had
    /// open at the fork. On Windows also over a handle that this process inherited or received; the
    /// `SemLock` then owns the handle.
    ///
    /// # Errors
    /// [`Error::UnknownHandle`].
    pub fn rebuild_from_handle(handle: usize, kind: Kind, maxvalue: i32) -> Result<Self, Error> {
        Ok(Self::over(Semaphore::from_handle(handle)?, kind, maxvalue, None))
    }

    /// The same, with a name for the caller to remember. On Windows nothing can be opened by this
    /// name.
    #[cfg(windows)]
    #[must_use]
    pub fn named(self, name: Name) -> Self {
        Self { name: Some(name), ..self }
    }

    fn over(sem: Semaphore, kind: Kind, maxvalue: i32, name: Option<Name>) -> Self {
        let count = Default::default();
        Self { sem, count, owner: AtomicUsize::new(0), maxvalue, kind, name }
    }

    /// Acquires a permit if that needs no waiting. Returns whether it did.
    ///
    /// # Errors
    /// [`Error::Os`]: what `sem_trywait(3)` says.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
    pub fn try_acquire(&self) -> Result<bool, Error> {
        if self.again_if_mine() {
            return Ok(true);
        }
        let taken = self.sem.try_wait()?;
        if taken {
            self.took();
        }
        Ok(taken)
    }

    /// If this is a recursive mutex that the calling thread holds, adds 1 to its count. Returns
    /// whether it is.
    #[inline]
    pub fn again_if_mine(&self) -> bool {
        if self.kind == Kind::Semaphore {
            return false;
        }
        let me = thread::current();
        let mine = self.is_held_by(me);
        if mine {
            self.balance().add(1, me);
        }
        mine
    }

    /// Acquires a permit; waits for it until a deadline or a signal.
    ///
    /// For a caller that has something to do when a signal arrives, and then waits on. Other
    /// callers use [`acquire_until`](Self::acquire_until).
    ///
    /// # Errors
    /// [`Error::Os`]: what `sem_timedwait(3)` says.
    pub fn wait(&self, deadline: Deadline) -> Result<Wait, Error> {
        self.wait_by(|sem| sem.wait(deadline))
    }

    /// The same, but it also ends, as for a signal, when an event is signalled.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    #[cfg(windows)]
    pub fn wait_or(
        &self,
        deadline: Deadline,
        event: Option<std::os::windows::io::BorrowedHandle<'_>>,
    ) -> Result<Wait, Error> {
        self.wait_by(|sem| sem.wait_or(deadline, event))
    }

    fn wait_by(&self, wait: impl FnOnce(&Semaphore) -> Result<Wait, Error>) -> Result<Wait, Error> {
        if self.again_if_mine() {
            return Ok(Wait::Acquired);
        }
        let result = wait(&self.sem)?;
        if result == Wait::Acquired {
            self.took();
        }
        Ok(result)
    }

    /// Acquires a permit, however long that takes.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn acquire(&self) -> Result<(), Error> {
        self.acquire_until(Deadline::NEVER).map(|_always| ())
    }

    /// Acquires a permit; false if there was none before the deadline.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub fn acquire_until(&self, deadline: Deadline) -> Result<bool, Error> {
        if self.try_acquire()? {
            return Ok(true);
        }
        loop {
            match self.wait(deadline)? {
                Wait::Acquired | Wait::OwnerDied(_) => return Ok(true),
                Wait::TimedOut => return Ok(false),
                Wait::Interrupted => {}
            }
        }
    }

    #[inline]
    fn balance(&self) -> Balance<'_> {
        Balance::of(self.count.each_ref())
    }

    #[inline]
    fn took(&self) {
        let me = thread::current();
        self.owner.store(me, Ordering::Relaxed);
        self.balance().add(1, me);
    }

    /// Releases a permit. Of a recursive mutex that was acquired several times, this only decreases
    /// the count.
    ///
    /// # Errors
    /// [`Error::NotOwner`] for a recursive mutex that the calling thread does not hold.
    /// [`Error::ReleasedTooManyTimes`] for a semaphore at its greatest value. Two threads that
    /// release at the same moment may both succeed, as in CPython.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as for `try_acquire`
    pub fn release(&self) -> Result<(), Error> {
        if self.kind == Kind::Semaphore {
            if !Semaphore::KEEPS_MAXVALUE {
                self.check_below_maxvalue()?;
            }
            self.balance().add(-1, thread::current());
        } else {
            let me = thread::current();
            if !self.is_held_by(me) {
                return Err(Error::NotOwner);
            }
            // Before the post: after it, the next holder changes the count.
            self.balance().add(-1, me);
            if self.balance().get() > 0 {
                return Ok(());
            }
        }
        self.sem.post().map_err(|error| self.not_posted(error))
    }

    #[cold]
    fn not_posted(&self, error: Error) -> Error {
        self.balance().add(1, thread::current());
        error
    }

    #[inline]
    fn check_below_maxvalue(&self) -> Result<(), Error> {
        match self.sem.value() {
            Ok(value) if value >= self.maxvalue => Err(Error::ReleasedTooManyTimes),
            Ok(_) => Ok(()),
            Err(Error::ValueUnavailable) => self.check_below_maxvalue_by_trying(),
            Err(error) => Err(error),
        }
    }

    /// Where the value cannot be read, an attempt to acquire shows whether a greatest value of 1 is
    /// reached. It cannot show this for a higher one.
    #[cold]
    fn check_below_maxvalue_by_trying(&self) -> Result<(), Error> {
        if self.maxvalue == 1 && !self.is_zero_by_trying()? {
            return Err(Error::ReleasedTooManyTimes);
        }
        Ok(())
    }

    /// The number of permits that are free now.
    ///
    /// # Errors
    /// [`Error::ValueUnavailable`] where the operating system has no call for it.
    #[inline]
    pub fn value(&self) -> Result<i32, Error> {
        self.sem.value()
    }

    /// Whether no permit is free now.
    ///
    /// # Errors
    /// [`Error::Os`]: what `sem_getvalue(3)` says.
    #[inline]
    pub fn is_zero(&self) -> Result<bool, Error> {
        match self.sem.value() {
            Ok(value) => Ok(value == 0),
            Err(Error::ValueUnavailable) => self.is_zero_by_trying(),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn is_zero_by_trying(&self) -> Result<bool, Error> {
        let taken = self.sem.try_wait()?;
        if taken {
            self.sem.post()?;
        }
        Ok(!taken)
    }

    /// Acquires minus releases by this process through this object.
    #[inline]
    #[must_use]
    pub fn count(&self) -> i64 {
        self.balance().get()
    }

    /// Whether the calling thread was the last to acquire it, and this process has not released all
    /// permits since.
    #[inline]
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.is_held_by(thread::current())
    }

    #[inline]
    fn is_held_by(&self, thread: usize) -> bool {
        self.balance().get() > 0 && self.owner.load(Ordering::Relaxed) == thread
    }

    /// Call this in a child just forked: the child does not hold what its parent holds.
    pub fn after_fork(&self) {
        self.balance().clear();
    }

    /// A number by which this process and its forked children can open the semaphore again while
    /// this `SemLock` lives.
    #[inline]
    #[must_use]
    pub fn handle(&self) -> usize {
        self.sem.handle()
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The value that [`release`](Self::release) does not exceed.
    #[must_use]
    pub fn maxvalue(&self) -> i32 {
        self.maxvalue
    }

    /// The name that other processes can open it by, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unnamed(kind: Kind, value: u32, maxvalue: i32) -> SemLock {
        let name = Name::new(&format!("/semlock-unit-{}", std::process::id())).unwrap();
        SemLock::create(kind, value, maxvalue, &name, Naming::Unlink).unwrap()
    }

    /// How many permits can be acquired. It releases them again.
    fn free(lock: &SemLock) -> i32 {
        let mut taken = 0;
        while lock.sem.try_wait().unwrap() {
            taken += 1;
        }
        for _ in 0..taken {
            lock.sem.post().unwrap();
        }
        taken
    }

    // macOS cannot read a semaphore's value. The tests try its rules on every system.
    #[test]
    fn trying_tells_zero_and_gives_back_what_it_took() {
        let lock = unnamed(Kind::Semaphore, 2, 2);
        for left in [2, 1] {
            assert_eq!(free(&lock), left);
            assert!(!lock.is_zero_by_trying().unwrap());
            assert_eq!(free(&lock), left);
            lock.acquire().unwrap();
        }
        assert!(lock.is_zero_by_trying().unwrap());
        assert_eq!(lock.count(), 2);
    }

    #[test]
    fn trying_keeps_a_greatest_value_of_one_and_no_other() {
        let lock = unnamed(Kind::Semaphore, 1, 1);
        let result = lock.check_below_maxvalue_by_trying();
        assert!(matches!(result, Err(Error::ReleasedTooManyTimes)));
        assert_eq!(free(&lock), 1);
        lock.acquire().unwrap();
        lock.check_below_maxvalue_by_trying().unwrap();
        assert_eq!(free(&lock), 0);

        unnamed(Kind::Semaphore, 2, 2).check_below_maxvalue_by_trying().unwrap();
    }

    #[test]
    // Only where a value can begin above `maxvalue`, and the system keeps a greatest value itself.
    #[cfg(all(unix, not(target_vendor = "apple")))]
    fn a_post_that_fails_leaves_the_count_as_it_was() {
        let full = unnamed(Kind::RecursiveMutex, crate::SEM_VALUE_MAX.cast_unsigned(), 1);
        full.took();
        assert!(matches!(full.release(), Err(Error::Os { call: "sem_post", .. })));
        assert_eq!(full.count(), 1);
        assert!(full.is_mine());
    }
}

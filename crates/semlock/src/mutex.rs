//! Mutexes with guards.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error, Wait};

/// What acquiring gives: a guard, and whether the last holder died.
///
/// # Examples
/// ```
/// use semlock::{Acquired, Mutex};
///
/// let mutex = Mutex::new()?;
/// let guard = match mutex.lock() {
///     Acquired::Clean(guard) => guard,
///     Acquired::OwnerDied(guard, _pid) => guard, // first check what it protects
/// };
/// # drop(guard);
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub enum Acquired<G> {
    /// The last holder gave it back.
    Clean(G),
    /// The last holder, of this pid, died while it held it. The guard holds the lock as any other;
    /// what the lock protects may be half-written: check it before you use it.
    OwnerDied(G, u32),
}

impl<G> Acquired<G> {
    /// Returns the guard, for callers to whom the owner's death does not matter.
    ///
    /// # Examples
    /// ```
    /// use semlock::Mutex;
    ///
    /// let mutex = Mutex::new()?;
    /// let _guard = mutex.lock().into_guard();
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn into_guard(self) -> G {
        match self {
            Self::Clean(guard) | Self::OwnerDied(guard, _) => guard,
        }
    }

    /// What a wait gave; `None` where its deadline has passed.
    pub(crate) fn of(wait: Wait, guard: impl FnOnce() -> G) -> Option<Self> {
        match wait {
            Wait::Acquired => Some(Self::Clean(guard())),
            Wait::OwnerDied(pid) => Some(Self::OwnerDied(guard(), pid)),
            Wait::TimedOut | Wait::Interrupted => None,
        }
    }
}

/// A mutex that processes share, and that outlives its holders.
///
/// It has no name and leaves nothing behind. Children get it by fork; any other process by its
/// address and a descriptor: see [`Shared`].
///
/// # Examples
/// ```
/// use semlock::{Acquired, Mutex};
///
/// # fn main() -> Result<(), semlock::Error> {
/// let mutex = Mutex::new()?;
/// match mutex.lock() {
///     Acquired::Clean(_guard) => {}
///     Acquired::OwnerDied(_guard, pid) => eprintln!("process {pid} died while it held this"),
/// }
/// assert_eq!(mutex.holder(), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mutex(Lock);

/// Holds a [`Mutex`], and releases it when it is dropped.
///
/// A child that is forked meanwhile has the guard too, and may be the one that goes on with the mutex, as a daemon does: one of
/// the two, parent or child, has to [`forget`](std::mem::forget) it.
///
/// A process that ends while it holds one, also by forgetting it, has died with the mutex, whatever its status.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub struct MutexGuard<'a>(&'a Mutex);

const MUTEX: Options = Options { kind: LockKind::Mutex, value: 1, maxvalue: 1, robust: true };

impl Shared for Mutex {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Mutex {
    /// Makes a mutex that is free.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::Mutex;
    ///
    /// let mutex = Mutex::new()?;
    /// assert_eq!(mutex.holder(), None);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        Lock::new(MUTEX).map(Self)
    }

    /// The same mutex as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::{Mutex, Shared};
    ///
    /// let mutex = Mutex::new()?;
    /// let same = Mutex::open(mutex.address(), Some(mutex.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::Mutex, address, descriptor).map(Self)
    }

    /// Acquires the mutex, however long that takes. Signals do not end the wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::Mutex;
    ///
    /// let mutex = Mutex::new()?;
    /// let guard = mutex.lock().into_guard();
    /// // Change what the mutex protects.
    /// drop(guard);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn lock(&self) -> Acquired<MutexGuard<'_>> {
        loop {
            if let Some(acquired) = self.lock_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Acquires the mutex; `None` if that was not possible before the deadline.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Deadline, Mutex};
    ///
    /// let mutex = Mutex::new()?;
    /// let _guard = mutex.lock();
    /// let deadline = Deadline::after(Duration::from_millis(5));
    /// assert!(mutex.lock_until(deadline).is_none());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn lock_until(&self, deadline: Deadline) -> Option<Acquired<MutexGuard<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || MutexGuard(self))
    }

    /// Acquires the mutex if nobody holds it, or its holder is dead; it does not wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::Mutex;
    ///
    /// let mutex = Mutex::new()?;
    /// let guard = mutex.try_lock();
    /// assert!(guard.is_some() && mutex.try_lock().is_none());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn try_lock(&self) -> Option<Acquired<MutexGuard<'_>>> {
        Acquired::of(self.0.try_acquire(), || MutexGuard(self))
    }

    /// Returns the pid of the process that holds the mutex, without checking whether it lives.
    ///
    /// # Examples
    /// ```
    /// use semlock::Mutex;
    ///
    /// let mutex = Mutex::new()?;
    /// let _guard = mutex.lock();
    /// assert_eq!(mutex.holder(), Some(std::process::id()));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        self.0.holder()
    }
}

impl<'a> MutexGuard<'a> {
    pub(crate) fn mutex(&self) -> &'a Mutex {
        self.0
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        // It fails where somebody else has released it by a raw lock: then it is free.
        let _ = self.0.0.release();
    }
}

/// A mutex that the thread that holds it can acquire again.
///
/// It is free when all guards are dropped.
///
/// # Examples
/// ```
/// use semlock::ReentrantMutex;
///
/// let mutex = ReentrantMutex::new()?;
/// let outer = mutex.lock().into_guard();
/// let inner = mutex.lock().into_guard();
/// drop((inner, outer));
/// assert_eq!(mutex.holder(), None);
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct ReentrantMutex(Lock);

/// Holds a [`ReentrantMutex`] once, until it is dropped. It stays with its thread.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub struct ReentrantMutexGuard<'a>(&'a ReentrantMutex, PhantomData<*const ()>);

impl Shared for ReentrantMutex {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl ReentrantMutex {
    /// Makes a mutex that is free.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::ReentrantMutex;
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// assert_eq!(mutex.holder(), None);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        Lock::new(Options { kind: LockKind::ReentrantMutex, ..MUTEX }).map(Self)
    }

    /// The same mutex as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::{ReentrantMutex, Shared};
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// let same = ReentrantMutex::open(mutex.address(), Some(mutex.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::ReentrantMutex, address, descriptor).map(Self)
    }

    fn guard(&self) -> ReentrantMutexGuard<'_> {
        ReentrantMutexGuard(self, PhantomData)
    }

    /// Acquires the mutex, however long that takes. Signals do not end the wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::ReentrantMutex;
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// let guard = mutex.lock().into_guard();
    /// // Change what the mutex protects.
    /// drop(guard);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn lock(&self) -> Acquired<ReentrantMutexGuard<'_>> {
        loop {
            if let Some(acquired) = self.lock_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Acquires the mutex; `None` if that was not possible before the deadline.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Deadline, ReentrantMutex};
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// let deadline = Deadline::after(Duration::from_secs(1));
    /// assert!(mutex.lock_until(deadline).is_some());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn lock_until(&self, deadline: Deadline) -> Option<Acquired<ReentrantMutexGuard<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || self.guard())
    }

    /// Acquires the mutex if no other thread holds it, or its holder is dead; it does not wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::ReentrantMutex;
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// let guard = mutex.try_lock();
    /// assert!(guard.is_some() && mutex.try_lock().is_some());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn try_lock(&self) -> Option<Acquired<ReentrantMutexGuard<'_>>> {
        Acquired::of(self.0.try_acquire(), || self.guard())
    }

    /// Returns the pid of the process that holds the mutex, without checking whether it lives.
    ///
    /// # Examples
    /// ```
    /// use semlock::ReentrantMutex;
    ///
    /// let mutex = ReentrantMutex::new()?;
    /// let _guard = mutex.lock();
    /// assert_eq!(mutex.holder(), Some(std::process::id()));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        self.0.holder()
    }
}

impl Drop for ReentrantMutexGuard<'_> {
    fn drop(&mut self) {
        // It fails in a child that was forked while it was held: the child holds nothing.
        let _ = self.0.0.release();
    }
}

//! Mutexes with guards.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error, Wait};

/// The result of an acquire: a guard, and whether the last holder died.
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
    /// The last holder released the lock, or there was none.
    Clean(G),
    /// The last holder died while it held the lock; this is its pid. The guard holds the lock like
    /// any other guard. What the lock protects may be half-written: check it before you use it.
    OwnerDied(G, u32),
}

impl<G> Acquired<G> {
    /// Returns the guard. It is for callers to whom the death of the last holder does not matter.
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

    /// Converts the end of a wait; `None` if the deadline has passed.
    pub(crate) fn of(wait: Wait, guard: impl FnOnce() -> G) -> Option<Self> {
        match wait {
            Wait::Acquired => Some(Self::Clean(guard())),
            Wait::OwnerDied(pid) => Some(Self::OwnerDied(guard(), pid)),
            Wait::TimedOut | Wait::Interrupted => None,
        }
    }
}

/// A mutex that processes share, and that a holder's death does not lose.
///
/// It has no name and leaves nothing behind. Children get it by fork. Any other process opens it by
/// its address and a descriptor: see [`Shared`].
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

/// A held [`Mutex`]. Dropping the guard releases the mutex.
///
/// A child that is forked while the guard exists has a copy of the guard, but only one of the two
/// processes may release the mutex. The other one has to [`forget`](std::mem::forget) its guard. So
/// a daemon can acquire a mutex, fork, end, and leave the mutex to its child. As long as such a
/// child lives, it counts as a holder.
///
/// Any end of a process that holds the mutex counts as its death, whatever its exit status is. This
/// includes a process that has forgotten the guard.
/// ([`raw::leave_held`](crate::raw::leave_held) makes an exception.)
///
/// # Examples
/// ```
/// use semlock::Mutex;
///
/// let mutex = Mutex::new()?;
/// let guard = mutex.lock().into_guard();
/// assert_eq!(mutex.holder(), Some(std::process::id()));
/// drop(guard);
/// assert_eq!(mutex.holder(), None);
///
/// std::mem::forget(mutex.lock().into_guard());
/// assert!(mutex.try_lock().is_none()); // it stays held
/// # Ok::<(), semlock::Error>(())
/// ```
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
    /// Makes a mutex that nobody holds.
    ///
    /// # Errors
    /// [`Error::NoSharedMemory`], [`Error::FileSizeLimit`] or [`Error::Os`] if there is no memory
    /// for it.
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

    /// Opens the mutex that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the mutex's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no mutex of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
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

    /// Acquires the mutex if nobody holds it, or if its holder is dead. It does not wait.
    ///
    /// It checks whether the holder lives only if nobody has checked in the last 50 ms.
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

    /// Returns the pid of the process that holds the mutex. It does not check whether that process
    /// lives.
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
        // This fails if the mutex was released by a raw lock meanwhile. Then it is free already.
        let _ = self.0.0.release();
    }
}

/// A mutex that its holder can acquire again. The holder is one thread.
///
/// The mutex becomes free when all guards are dropped.
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

/// One acquire of a [`ReentrantMutex`]. Dropping the guard undoes this acquire.
///
/// The guard cannot be sent to another thread. The copy that a forked child has holds nothing.
///
/// # Examples
/// ```
/// use semlock::ReentrantMutex;
///
/// let mutex = ReentrantMutex::new()?;
/// let outer = mutex.lock().into_guard();
/// let inner = mutex.lock().into_guard();
/// drop(inner);
/// assert_eq!(mutex.holder(), Some(std::process::id())); // `outer` still holds it
/// drop(outer);
/// assert_eq!(mutex.holder(), None);
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub struct ReentrantMutexGuard<'a>(&'a ReentrantMutex, PhantomData<*const ()>);

impl Shared for ReentrantMutex {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl ReentrantMutex {
    /// Makes a mutex that nobody holds.
    ///
    /// # Errors
    /// [`Error::NoSharedMemory`], [`Error::FileSizeLimit`] or [`Error::Os`] if there is no memory
    /// for it.
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

    /// Opens the mutex that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the mutex's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no mutex of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
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

    /// Acquires the mutex if no other thread holds it, or if its holder is dead. It does not wait.
    ///
    /// It checks whether the holder lives only if nobody has checked in the last 50 ms.
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

    /// Returns the pid of the process that holds the mutex. It does not check whether that process
    /// lives.
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
        // This fails for the copy that a forked child has: the child holds nothing.
        let _ = self.0.0.release();
    }
}

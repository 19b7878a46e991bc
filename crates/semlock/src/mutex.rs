//! Mutexes with guards.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error, Wait};

/// What a lock gives: a guard, and whether the one who held it before lives.
#[derive(Debug)]
#[must_use]
pub enum Acquired<G> {
    /// The last holder gave it back.
    Clean(G),
    /// The last holder, of this pid, died as it held it. The lock is held now as any other is; what it
    /// protects may be half-written, and wants looking after.
    OwnerDied(G, u32),
}

impl<G> Acquired<G> {
    /// The guard, for those to whom the owner's death does not matter.
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

/// Holds a [`Mutex`] until it is dropped.
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
    /// Makes one that is free.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        Lock::new(MUTEX).map(Self)
    }

    /// The same mutex as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::Mutex, address, descriptor).map(Self)
    }

    /// Takes it, however long that takes.
    pub fn lock(&self) -> Acquired<MutexGuard<'_>> {
        loop {
            if let Some(acquired) = self.lock_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Takes it; `None` where that was not possible before the deadline.
    pub fn lock_until(&self, deadline: Deadline) -> Option<Acquired<MutexGuard<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || MutexGuard(self))
    }

    /// Takes it if nobody holds it, or its holder is found dead.
    pub fn try_lock(&self) -> Option<Acquired<MutexGuard<'_>>> {
        Acquired::of(self.0.try_acquire(), || MutexGuard(self))
    }

    /// The pid of the process that holds it.
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

/// A mutex that the thread that holds it can take again.
#[derive(Debug)]
pub struct ReentrantMutex(Lock);

/// Holds a [`ReentrantMutex`], once, until it is dropped; it stays with its thread.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub struct ReentrantMutexGuard<'a>(&'a ReentrantMutex, PhantomData<*const ()>);

impl Shared for ReentrantMutex {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl ReentrantMutex {
    /// Makes one that is free.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        Lock::new(Options { kind: LockKind::ReentrantMutex, ..MUTEX }).map(Self)
    }

    /// The same mutex as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::ReentrantMutex, address, descriptor).map(Self)
    }

    fn guard(&self) -> ReentrantMutexGuard<'_> {
        ReentrantMutexGuard(self, PhantomData)
    }

    /// Takes it, however long that takes.
    pub fn lock(&self) -> Acquired<ReentrantMutexGuard<'_>> {
        loop {
            if let Some(acquired) = self.lock_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Takes it; `None` where that was not possible before the deadline.
    pub fn lock_until(&self, deadline: Deadline) -> Option<Acquired<ReentrantMutexGuard<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || self.guard())
    }

    /// Takes it if no other thread holds it, or its holder is found dead.
    pub fn try_lock(&self) -> Option<Acquired<ReentrantMutexGuard<'_>>> {
        Acquired::of(self.0.try_acquire(), || self.guard())
    }

    /// The pid of the process that holds it.
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

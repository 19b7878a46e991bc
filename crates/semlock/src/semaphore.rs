//! Semaphores with guards.

use std::os::fd::BorrowedFd;

use crate::mutex::Acquired;
use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error};

/// A number of permits that processes share.
///
/// # Examples
/// ```
/// use semlock::Semaphore;
///
/// let semaphore = Semaphore::robust(2)?;
/// let permit = semaphore.acquire().into_guard();
/// assert_eq!(semaphore.available(), 1);
/// drop(permit);
/// assert_eq!(semaphore.available(), 2);
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct Semaphore(Lock);

/// A permit of a [`Semaphore`], until it is dropped.
///
/// A child that is forked meanwhile has it too. One of a robust semaphore belongs to the process that took it; of one that is not,
/// parent or child has to [`forget`](Self::forget) it, or it is given back twice.
#[derive(Debug)]
#[must_use = "dropped at once, it holds nothing"]
pub struct Permit<'a>(&'a Semaphore);

impl Shared for Semaphore {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Semaphore {
    /// Makes a semaphore whose permits have no holder, at most 2,147,483,647.
    ///
    /// One process may acquire a permit and another one release it. A permit of a killed process is
    /// lost.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::new(3)?;
    /// assert_eq!(semaphore.available(), 3);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new(permits: u32) -> Result<Self, Error> {
        Self::with(permits, false)
    }

    /// Makes a semaphore whose permits belong to the process that acquires them, at most 524,280.
    ///
    /// A permit of a killed process comes back.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::robust(3)?;
    /// assert_eq!(semaphore.available(), 3);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn robust(permits: u32) -> Result<Self, Error> {
        Self::with(permits, true)
    }

    fn with(permits: u32, robust: bool) -> Result<Self, Error> {
        let maxvalue = i32::MAX.cast_unsigned();
        Lock::new(Options { kind: LockKind::Semaphore, value: permits, maxvalue, robust }).map(Self)
    }

    /// The same semaphore as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::{Semaphore, Shared};
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// let same = Semaphore::open(semaphore.address(), Some(semaphore.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::Semaphore, address, descriptor).map(Self)
    }

    /// Acquires a permit, however long that takes. Signals do not end the wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// let _permit = semaphore.acquire().into_guard();
    /// assert_eq!(semaphore.available(), 0);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn acquire(&self) -> Acquired<Permit<'_>> {
        loop {
            if let Some(acquired) = self.acquire_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Acquires a permit; `None` if there was none before the deadline.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Deadline, Semaphore};
    ///
    /// let none = Semaphore::new(0)?;
    /// let deadline = Deadline::after(Duration::from_millis(5));
    /// assert!(none.acquire_until(deadline).is_none());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn acquire_until(&self, deadline: Deadline) -> Option<Acquired<Permit<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || Permit(self))
    }

    /// Acquires a permit if one is free, or its holder is dead; it does not wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// let permit = semaphore.try_acquire();
    /// assert!(permit.is_some() && semaphore.try_acquire().is_none());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn try_acquire(&self) -> Option<Acquired<Permit<'_>>> {
        Acquired::of(self.0.try_acquire(), || Permit(self))
    }

    /// Gives a permit to the semaphore.
    ///
    /// The permit was acquired and [forgotten](Permit::forget), perhaps by another process, or it
    /// is new.
    ///
    /// # Errors
    /// [`Error::ReleasedTooManyTimes`]; [`Error::NotHeldHere`] where it is robust and this
    /// process has none.
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// semaphore.acquire().into_guard().forget();
    /// semaphore.release()?; // any process may do this
    /// assert_eq!(semaphore.available(), 1);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn release(&self) -> Result<(), Error> {
        self.0.release()
    }

    /// Returns the number of free permits. A permit of a dead process counts as taken.
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// assert_eq!(Semaphore::new(3)?.available(), 3);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.value()
    }
}

impl Permit<'_> {
    /// Keeps the permit taken, until [`Semaphore::release`] gives it back.
    ///
    /// # Examples
    /// ```
    /// use semlock::Semaphore;
    ///
    /// let semaphore = Semaphore::new(1)?;
    /// semaphore.acquire().into_guard().forget();
    /// assert_eq!(semaphore.available(), 0);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // A robust one's fails in a child that was forked while it was held: the child holds nothing.
        let _ = self.0.0.release();
    }
}

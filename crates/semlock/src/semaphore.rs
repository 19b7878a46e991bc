//! Semaphores with guards.

use std::os::fd::BorrowedFd;

use crate::mutex::Acquired;
use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error};

/// A number of permits that processes share. A process acquires a permit, and releases it.
///
/// A semaphore made by [`robust`](Self::robust) notes which process holds which permit, so that no
/// permit is lost when a holder dies. One made by [`new`](Self::new) does not.
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

/// A permit of a [`Semaphore`]. Dropping it releases the permit.
///
/// A child that is forked while the permit exists has a copy of it. If the semaphore is robust, the
/// permit belongs to the process that acquired it, and the child's copy holds nothing. If it is
/// not, parent or child has to [`forget`](Self::forget) the permit. Otherwise it is released twice.
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
#[must_use = "dropped at once, it holds nothing"]
pub struct Permit<'a>(&'a Semaphore);

impl Shared for Semaphore {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Semaphore {
    /// Makes a semaphore whose permits have no holder.
    ///
    /// One process may acquire a permit and another one release it. If a process dies with a
    /// permit, that permit is lost.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for more than 2,147,483,647 permits; [`Error::NoSharedMemory`],
    /// [`Error::FileSizeLimit`] or [`Error::Os`] if there is no memory for it.
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

    /// Makes a semaphore whose permits belong to the process that acquires them.
    ///
    /// If a process dies with a permit, another process can acquire that permit.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for more than 524,280 permits; otherwise as for [`new`](Self::new).
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

    /// Opens the semaphore that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the semaphore's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no semaphore of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
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

    /// Acquires a permit if one is free, or if a holder of one is dead. It does not wait.
    ///
    /// It checks whether the holders live only if nobody has checked in the last 50 ms.
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

    /// Adds a free permit to the semaphore.
    ///
    /// This releases a permit that was acquired and [forgotten](Permit::forget), perhaps by another
    /// process. If there is none, it raises the number of permits by 1.
    ///
    /// # Errors
    /// [`Error::ReleasedTooManyTimes`] if there are 2,147,483,647 free permits already;
    /// [`Error::NotHeldHere`] if the semaphore is robust and this process holds no permit of it.
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

    /// Returns the number of free permits. A permit that a dead process holds does not count as
    /// free until another process recovers it.
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
    /// Drops the guard without releasing the permit. Later, [`Semaphore::release`] releases it.
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
        // If the semaphore is robust, this fails for the copy that a forked child has: the child
        // holds nothing.
        let _ = self.0.0.release();
    }
}

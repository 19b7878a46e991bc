//! Conditions with guards.

use std::os::fd::BorrowedFd;

use crate::mutex::{Acquired, MutexGuard};
use crate::raw::{self, Address, Object, Shared};
use crate::{Deadline, Error, Wait};

/// A condition: holders of a [`Mutex`](crate::Mutex) wait here until a notifier wakes them.
///
/// The notifier may be in another process. The oldest waiter is notified first. A wait ends
/// only with a notification or at its deadline. If a waiter dies after it was notified, the next
/// waiter gets its notification.
///
/// # Examples
/// ```
/// use semlock::{Condvar, Mutex};
///
/// let (mutex, condvar) = (Mutex::new()?, Condvar::new()?);
/// std::thread::scope(|scope| {
///     let guard = mutex.lock().into_guard();
///     scope.spawn(|| condvar.notify_one(&mutex.lock().into_guard()));
///     condvar.wait(guard).map(drop)
/// })?;
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct Condvar(raw::Condvar);

impl Shared for Condvar {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Condvar {
    /// Makes a condition that nobody waits for.
    ///
    /// # Errors
    /// [`Error::NoSharedMemory`], [`Error::FileSizeLimit`] or [`Error::Os`] if there is no memory
    /// for it.
    ///
    /// # Examples
    /// ```
    /// use semlock::Condvar;
    ///
    /// let condvar = Condvar::new()?;
    /// # drop(condvar);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        raw::Condvar::new().map(Self)
    }

    /// Opens the condition that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the condition's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no condition of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Condvar, Shared};
    ///
    /// let condvar = Condvar::new()?;
    /// let same = Condvar::open(condvar.address(), Some(condvar.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Condvar::open(address, descriptor).map(Self)
    }

    /// Releases the mutex, waits for a notification, and acquires the mutex again.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`]. Then the guard is dropped.
    ///
    /// # Examples
    /// See [`Condvar`].
    pub fn wait<'a>(&self, guard: MutexGuard<'a>) -> Result<Acquired<MutexGuard<'a>>, Error> {
        self.wait_until(guard, Deadline::NEVER).map(|(acquired, _notified)| acquired)
    }

    /// The same as [`wait`](Self::wait), until a deadline. It also returns whether a notification
    /// came.
    ///
    /// It acquires the mutex in any case, so it can return after the deadline.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`]. Then the guard is dropped.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Condvar, Deadline, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new()?, Condvar::new()?);
    /// let deadline = Deadline::after(Duration::from_millis(5));
    /// let (acquired, notified) = condvar.wait_until(mutex.lock().into_guard(), deadline)?;
    /// assert!(!notified);
    /// # drop(acquired);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn wait_until<'a>(
        &self,
        guard: MutexGuard<'a>,
        deadline: Deadline,
    ) -> Result<(Acquired<MutexGuard<'a>>, bool), Error> {
        let waiting = self.0.enter()?;
        let mutex = guard.mutex();
        drop(guard);
        if self.0.spin(&waiting, deadline) != Some(Wait::Acquired) {
            while self.0.sleep(&waiting, deadline) == Wait::Interrupted {}
        }
        let acquired = mutex.lock();
        Ok((acquired, self.0.leave(waiting)))
    }

    /// Notifies the oldest waiter. Returns whether there was one.
    ///
    /// The guard shows that the caller holds the mutex.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new()?, Condvar::new()?);
    /// assert!(!condvar.notify_one(&mutex.lock().into_guard())); // nobody waits
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn notify_one(&self, guard: &MutexGuard<'_>) -> bool {
        self.notify(guard, 1) > 0
    }

    /// Notifies all waiters. Returns how many there were.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new()?, Condvar::new()?);
    /// assert_eq!(condvar.notify_all(&mutex.lock().into_guard()), 0); // nobody waits
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn notify_all(&self, guard: &MutexGuard<'_>) -> u32 {
        self.notify(guard, u32::MAX)
    }

    /// Notifies at most `most` waiters, the oldest first. Returns how many it notified.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Condvar, Mutex};
    ///
    /// let (mutex, condvar) = (Mutex::new()?, Condvar::new()?);
    /// assert_eq!(condvar.notify(&mutex.lock().into_guard(), 2), 0); // nobody waits
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn notify(&self, _guard: &MutexGuard<'_>, most: u32) -> u32 {
        self.0.notify(most)
    }
}

//! Conditions with guards.

use std::os::fd::BorrowedFd;

use crate::mutex::{Acquired, MutexGuard};
use crate::raw::{self, Address, Object, Shared};
use crate::{Deadline, Error, Wait};

/// Where processes that hold a [`Mutex`](crate::Mutex) sleep until others that do notify them.
///
/// The oldest is notified first; nobody is woken without; and a waiter that dies after it was notified
/// leaves its notification to another.
#[derive(Debug)]
pub struct Condvar(raw::Condvar);

impl Shared for Condvar {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Condvar {
    /// Makes one.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        raw::Condvar::new().map(Self)
    }

    /// The same condition as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Condvar::open(address, descriptor).map(Self)
    }

    /// Gives the mutex back, sleeps until notified, and takes the mutex again.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`]; then the guard is dropped.
    pub fn wait<'a>(&self, guard: MutexGuard<'a>) -> Result<Acquired<MutexGuard<'a>>, Error> {
        self.wait_until(guard, Deadline::NEVER).map(|(acquired, _notified)| acquired)
    }

    /// As [`wait`](Self::wait), until a deadline; tells whether it was notified.
    ///
    /// # Errors
    /// [`Error::TooManyWaiters`]; then the guard is dropped.
    pub fn wait_until<'a>(
        &self,
        guard: MutexGuard<'a>,
        deadline: Deadline,
    ) -> Result<(Acquired<MutexGuard<'a>>, bool), Error> {
        let waiting = self.0.enter()?;
        let mutex = guard.mutex();
        drop(guard);
        while self.0.sleep(&waiting, deadline) == Wait::Interrupted {}
        let acquired = mutex.lock();
        Ok((acquired, self.0.leave(waiting)))
    }

    /// Notifies the oldest who waits; true if anybody does. The guard shows that the mutex is held.
    pub fn notify_one(&self, guard: &MutexGuard<'_>) -> bool {
        self.notify(guard, 1) > 0
    }

    /// Notifies all who wait, and returns how many.
    pub fn notify_all(&self, guard: &MutexGuard<'_>) -> u32 {
        self.notify(guard, u32::MAX)
    }

    /// Notifies at most so many, and returns how many.
    pub fn notify(&self, _guard: &MutexGuard<'_>, most: u32) -> u32 {
        self.0.notify(most)
    }
}

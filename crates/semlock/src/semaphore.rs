//! Semaphores with guards.

use std::os::fd::BorrowedFd;

use crate::mutex::Acquired;
use crate::raw::{Address, Lock, LockKind, Object, Options, Shared};
use crate::{Deadline, Error};

/// Permits that processes share.
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
    /// Makes one with so many permits, which nobody owns: one process may take one and another give it back,
    /// and what a killed process has taken is gone.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new(permits: u32) -> Result<Self, Error> {
        Self::with(permits, false)
    }

    /// Makes one with so many permits, which belong to the process that takes them: what a killed process has
    /// taken comes back.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
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
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        Lock::open_as(LockKind::Semaphore, address, descriptor).map(Self)
    }

    /// Takes a permit, however long that takes.
    pub fn acquire(&self) -> Acquired<Permit<'_>> {
        loop {
            if let Some(acquired) = self.acquire_until(Deadline::NEVER) {
                return acquired;
            }
        }
    }

    /// Takes a permit; `None` where there was none before the deadline.
    pub fn acquire_until(&self, deadline: Deadline) -> Option<Acquired<Permit<'_>>> {
        Acquired::of(self.0.acquire_until(deadline), || Permit(self))
    }

    /// Takes a permit if one is free, or its holder is found dead.
    pub fn try_acquire(&self) -> Option<Acquired<Permit<'_>>> {
        Acquired::of(self.0.try_acquire(), || Permit(self))
    }

    /// Gives a permit to the semaphore that was taken and [forgotten](Permit::forget), perhaps by another
    /// process, or that is new.
    ///
    /// # Errors
    /// [`Error::ReleasedTooManyTimes`]; [`Error::NotHeldHere`] where it is robust and this
    /// process has none.
    pub fn release(&self) -> Result<(), Error> {
        self.0.release()
    }

    /// Permits that are free.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.0.value()
    }
}

impl Permit<'_> {
    /// Keeps the permit taken; [`Semaphore::release`] gives it back.
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

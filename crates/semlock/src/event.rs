//! Events.

use std::os::fd::BorrowedFd;

use crate::raw::{self, Address, Object, Shared};
use crate::{Deadline, Error, Wait};

/// A flag that processes wait for. Who waited when it was set gets through, also if it is cleared at once.
#[derive(Debug)]
pub struct Event(raw::Event);

impl Shared for Event {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Event {
    /// Makes one that is not set.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        raw::Event::new().map(Self)
    }

    /// The same event as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Event::open(address, descriptor).map(Self)
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Sets it, and wakes all who wait for it.
    pub fn set(&self) {
        self.0.set();
    }

    /// Clears it.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Waits until it is set, however long that takes.
    pub fn wait(&self) {
        while !self.wait_until(Deadline::NEVER) {}
    }

    /// Waits until it is set; false if it was not before the deadline. Signals do not end the wait.
    #[must_use]
    pub fn wait_until(&self, deadline: Deadline) -> bool {
        let epoch = self.0.epoch();
        loop {
            match self.0.wait_since(epoch, deadline) {
                Wait::Acquired | Wait::OwnerDied(_) => return true,
                Wait::TimedOut => return false,
                Wait::Interrupted => {}
            }
        }
    }
}

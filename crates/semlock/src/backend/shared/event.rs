//! Events.

use std::os::fd::BorrowedFd;

use super::layout::event::FLAG;
use super::layout::{Kind, Tag};
use super::object::{Kernel, Object, Shared};
use super::wait_schedule::WaitSchedule;
use crate::word::{Slept, event};
use crate::{Address, Deadline, Error, Wait};

/// A flag that processes wait for. It is one word, and needs no lock to be set.
#[derive(Debug)]
pub struct Event {
    object: Object,
}

impl Shared for Event {
    fn object(&self) -> &Object {
        &self.object
    }
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        let tag = Tag { kind: Kind::Event, robust: false, limit: 0 };
        Ok(Self { object: Object::new(tag)? })
    }

    /// Opens an event that this process or another one has: see
    /// [`Lock::open`](super::lock::Lock::open).
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for a descriptor or an address that is not semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let (object, _) = Object::open(&address, descriptor, &[Kind::Event])?;
        Ok(Self { object })
    }

    fn word(&self) -> event::Event<'_> {
        event::Event(self.object.word(FLAG))
    }

    /// Whether it is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.word().is_set()
    }

    /// Sets it, and wakes all its waiters.
    #[inline]
    pub fn set(&self) {
        self.word().set(&Kernel);
    }

    /// Clears it. A waiter that waited when it was set still gets through.
    #[inline]
    pub fn clear(&self) {
        self.word().clear();
    }

    /// The epoch in which a wait begins, for [`wait_since`](Self::wait_since).
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.word().epoch()
    }

    /// Waits until the event is set, or was set after that epoch; until a deadline; or until a
    /// signal.
    pub fn wait_since(&self, epoch: u32, deadline: Deadline) -> Wait {
        // The process that set it may have been killed before it woke the waiters. So no sleep is
        // endless.
        let mut schedule = WaitSchedule::new(None, deadline, self.object.me());
        loop {
            // Read the deadline before the flag: this process may be stopped in between, and an
            // event that was set before the deadline counts.
            let time = schedule.sleep_for();
            if self.word().passed(epoch) {
                return Wait::Acquired;
            }
            let Some(time) = time else { return Wait::TimedOut };
            if self.word().sleep(&Kernel, epoch, Some(time)) == Slept::Interrupted {
                return Wait::Interrupted;
            }
            if schedule.gives_a_turn() {
                return Wait::Interrupted;
            }
        }
    }
}

//! Events.

use std::os::fd::BorrowedFd;

use super::layout::event::FLAG;
use super::layout::{Kind, Tag};
use super::object::{Kernel, Object, Shared};
use super::wait_schedule::WaitSchedule;
use crate::word::{Slept, event};
use crate::{Address, Deadline, Error, Wait};

/// A flag that processes wait for. One word: setting it takes no lock.
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
    /// Makes one that is not set.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new() -> Result<Self, Error> {
        let tag = Tag { kind: Kind::Event, robust: false, limit: 0 };
        Ok(Self { object: Object::new(tag)? })
    }

    /// The same event as another: see [`Lock::open`](super::lock::Lock::open).
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
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

    /// Sets it, and wakes all who wait for it.
    #[inline]
    pub fn set(&self) {
        self.word().set(&Kernel);
    }

    /// Clears it. Who waited when it was set gets through all the same.
    #[inline]
    pub fn clear(&self) {
        self.word().clear();
    }

    /// The moment at which a wait begins, for [`wait_since`](Self::wait_since).
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.word().epoch()
    }

    /// Waits until it is, or was, set after that moment, until a deadline, or a signal.
    pub fn wait_since(&self, epoch: u32, deadline: Deadline) -> Wait {
        // Who set it may have been killed before it woke anybody; so nobody sleeps for ever.
        let mut schedule = WaitSchedule::new(None, deadline, self.object.me());
        loop {
            // The deadline is looked at first: this process may be stopped in between, and what was set
            // before the deadline counts.
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

//! Events.

use std::os::fd::BorrowedFd;

use super::layout::event::{FLAG, LAST_CPU};
use super::layout::{Kind, Tag};
use super::object::{Kernel, Object, Shared};
use super::spin::{EVENTS, LastCpu, try_before_a_sleep};
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

    fn last_cpu(&self) -> LastCpu<'_> {
        LastCpu(self.object.word(LAST_CPU))
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
        self.last_cpu().take();
        self.word().set(&Kernel);
    }

    /// Clears it. A waiter that waited when it was set still gets through.
    #[inline]
    pub fn clear(&self) {
        self.word().clear();
    }

    /// The epoch in which a wait begins, for [`spin`](Self::spin) and
    /// [`wait_since`](Self::wait_since).
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.word().epoch()
    }

    /// Spins before the first [`wait_since`](Self::wait_since) of a wait, if that may pay.
    /// [`Wait::Acquired`]: the event is set, or was set after that epoch. [`Wait::Interrupted`]: a
    /// signal may have arrived. `None`: go on with `wait_since`.
    pub fn spin(&self, epoch: u32, deadline: Deadline) -> Option<Wait> {
        let is_over = || self.word().passed(epoch);
        try_before_a_sleep(&EVENTS, Some(self.last_cpu()), deadline, is_over)
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

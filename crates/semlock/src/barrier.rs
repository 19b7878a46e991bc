//! Barriers.

use std::os::fd::BorrowedFd;

use crate::raw::{self, Address, Entered, Object, Passed, Shared};
use crate::{Deadline, Error};

/// Where processes wait until all of them have come. Who dies inside breaks it for the others.
#[derive(Debug)]
pub struct Barrier(raw::Barrier);

impl Shared for Barrier {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Barrier {
    /// Makes one for so many parties.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for none; where there is no memory, [`Error::NoSharedMemory`] or
    /// [`Error::Os`].
    pub fn new(parties: u32) -> Result<Self, Error> {
        raw::Barrier::new(parties).map(Self)
    }

    /// The same barrier as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Barrier::open(address, descriptor).map(Self)
    }

    /// Waits until all have come; returns how many had come before.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`]; [`Error::TooManyWaiters`].
    pub fn wait(&self) -> Result<u32, Error> {
        self.wait_until(Deadline::NEVER, || {})
    }

    /// As [`wait`](Self::wait), until a deadline, which breaks the barrier. The last one to come runs
    /// the action before any gets through; if that panics, the barrier is broken.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`]; [`Error::TooManyWaiters`].
    pub fn wait_until(&self, deadline: Deadline, action: impl FnOnce()) -> Result<u32, Error> {
        let member = loop {
            match self.0.enter(deadline)? {
                Entered::Last(member) => {
                    let index = member.index();
                    action();
                    return match self.0.finish(member, true) {
                        Passed::Through => Ok(index),
                        _ => Err(Error::BarrierBroken),
                    };
                }
                Entered::Waits(member) => break member,
                Entered::Broken | Entered::TimedOut => return Err(Error::BarrierBroken),
                Entered::Interrupted => {}
            }
        };
        loop {
            match self.0.sleep(&member, deadline) {
                Passed::Through => return Ok(member.index()),
                Passed::Broken | Passed::TimedOut => return Err(Error::BarrierBroken),
                Passed::Interrupted => {}
            }
        }
    }

    /// Makes a broken one usable again; who waits gets [`Error::BarrierBroken`].
    pub fn reset(&self) {
        self.0.reset();
    }

    /// Breaks it.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

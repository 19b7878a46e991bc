//! Barriers.

use std::os::fd::BorrowedFd;

use crate::raw::{self, Address, Entered, Object, Passed, Shared};
use crate::{Deadline, Error};

/// A point where processes wait until a fixed number of them have come.
///
/// A member that dies while it waits breaks the barrier.
///
/// # Examples
/// ```
/// use semlock::Barrier;
///
/// let barrier = Barrier::new(2)?;
/// std::thread::scope(|scope| {
///     let other = scope.spawn(|| barrier.wait());
///     let (mine, others) = (barrier.wait()?, other.join().unwrap()?);
///     assert_eq!(mine + others, 1);
///     Ok::<(), semlock::Error>(())
/// })?;
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct Barrier(raw::Barrier);

impl Shared for Barrier {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Barrier {
    /// Makes a barrier for this number of members.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for 0; [`Error::NoSharedMemory`], [`Error::FileSizeLimit`] or
    /// [`Error::Os`] if there is no memory for it.
    ///
    /// # Examples
    /// ```
    /// use semlock::Barrier;
    ///
    /// let barrier = Barrier::new(4)?;
    /// assert!(!barrier.is_broken());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new(parties: u32) -> Result<Self, Error> {
        raw::Barrier::new(parties).map(Self)
    }

    /// Opens the barrier that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the barrier's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no barrier of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Barrier, Shared};
    ///
    /// let barrier = Barrier::new(2)?;
    /// let same = Barrier::open(barrier.address(), Some(barrier.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Barrier::open(address, descriptor).map(Self)
    }

    /// Waits until all members have come. Returns how many of them came before this one.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`] if the barrier is broken, breaks, or is reset meanwhile;
    /// [`Error::TooManyWaiters`].
    ///
    /// # Examples
    /// ```
    /// use semlock::Barrier;
    ///
    /// let barrier = Barrier::new(1)?;
    /// assert_eq!(barrier.wait()?, 0);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn wait(&self) -> Result<u32, Error> {
        self.wait_until(Deadline::NEVER, || {})
    }

    /// The same as [`wait`](Self::wait), until a deadline. If the deadline passes, the barrier
    /// breaks.
    ///
    /// The last member to come runs `action` before any member gets through.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`] if the barrier is broken, breaks, or is reset meanwhile;
    /// [`Error::TooManyWaiters`].
    ///
    /// # Panics
    /// If `action` panics. Then the barrier breaks for the other members.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Barrier, Deadline};
    ///
    /// let barrier = Barrier::new(1)?;
    /// barrier.wait_until(Deadline::NEVER, || println!("all are here"))?;
    /// # Ok::<(), semlock::Error>(())
    /// ```
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
        self.0.spin(&member, deadline);
        loop {
            match self.0.sleep(&member, deadline) {
                Passed::Through => return Ok(member.index()),
                Passed::Broken | Passed::TimedOut => return Err(Error::BarrierBroken),
                Passed::Interrupted => {}
            }
        }
    }

    /// Makes the barrier usable again, also a broken one. Members that wait at this moment get
    /// [`Error::BarrierBroken`].
    ///
    /// # Examples
    /// ```
    /// use semlock::Barrier;
    ///
    /// let barrier = Barrier::new(1)?;
    /// barrier.abort();
    /// barrier.reset();
    /// assert!(!barrier.is_broken());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn reset(&self) {
        self.0.reset();
    }

    /// Breaks the barrier. Until it is reset, all calls of [`wait`](Self::wait) fail.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Barrier, Error};
    ///
    /// let barrier = Barrier::new(1)?;
    /// barrier.abort();
    /// assert_eq!(barrier.wait(), Err(Error::BarrierBroken));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Returns whether the barrier is broken.
    ///
    /// # Examples
    /// ```
    /// use semlock::Barrier;
    ///
    /// assert!(!Barrier::new(4)?.is_broken());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
}

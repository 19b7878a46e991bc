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
    /// Makes a barrier for so many parties.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for none; where there is no memory, [`Error::NoSharedMemory`] or
    /// [`Error::Os`].
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

    /// The same barrier as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`].
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
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

    /// Waits until all have come, and returns how many came before this one.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`]; [`Error::TooManyWaiters`].
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

    /// As [`wait`](Self::wait), until a deadline, which breaks the barrier.
    ///
    /// The last one to come runs the action before any gets through.
    ///
    /// # Errors
    /// [`Error::BarrierBroken`]; [`Error::TooManyWaiters`].
    ///
    /// # Panics
    /// If the action panics. This breaks the barrier for the others.
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
        loop {
            match self.0.sleep(&member, deadline) {
                Passed::Through => return Ok(member.index()),
                Passed::Broken | Passed::TimedOut => return Err(Error::BarrierBroken),
                Passed::Interrupted => {}
            }
        }
    }

    /// Makes the barrier as new, also a broken one. Those that wait get [`Error::BarrierBroken`].
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

    /// Breaks the barrier until it is reset: all calls of [`wait`](Self::wait) fail.
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

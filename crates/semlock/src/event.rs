//! Events.

use std::os::fd::BorrowedFd;

use crate::raw::{self, Address, Object, Shared};
use crate::{Deadline, Error, Wait};

/// A flag that processes wait for.
///
/// If the event is set and cleared at once, all earlier waiters still return.
///
/// # Examples
/// ```
/// use semlock::Event;
///
/// let event = Event::new()?;
/// event.set(); // another process does this
/// event.wait();
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct Event(raw::Event);

impl Shared for Event {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    /// [`Error::NoSharedMemory`], [`Error::FileSizeLimit`] or [`Error::Os`] if there is no memory
    /// for it.
    ///
    /// # Examples
    /// ```
    /// use semlock::Event;
    ///
    /// assert!(!Event::new()?.is_set());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn new() -> Result<Self, Error> {
        raw::Event::new().map(Self)
    }

    /// Opens the event that lives at this address.
    ///
    /// The address comes from [`Shared::address`], in this process or in another one. The
    /// descriptor is the one of the event's segment. It may be `None` if this process has an
    /// object of that segment already.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] if the descriptor is needed and missing; [`Error::BadSegment`]
    /// or [`Error::BadAddress`] if no event of semlock's lives there; [`Error::Os`] if a system
    /// call fails.
    ///
    /// # Examples
    /// ```
    /// use semlock::{Event, Shared};
    ///
    /// let event = Event::new()?;
    /// let same = Event::open(event.address(), Some(event.descriptor()?))?;
    /// # drop(same);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        raw::Event::open(address, descriptor).map(Self)
    }

    /// Returns whether the event is set.
    ///
    /// # Examples
    /// ```
    /// use semlock::Event;
    ///
    /// let event = Event::new()?;
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Sets the event, and wakes all its waiters. It acquires no lock.
    ///
    /// # Examples
    /// ```
    /// use semlock::Event;
    ///
    /// let event = Event::new()?;
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn set(&self) {
        self.0.set();
    }

    /// Clears the event.
    ///
    /// # Examples
    /// ```
    /// use semlock::Event;
    ///
    /// let event = Event::new()?;
    /// event.set();
    /// event.clear();
    /// assert!(!event.is_set());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Waits until the event is set, however long that takes. Signals do not end the wait.
    ///
    /// # Examples
    /// ```
    /// use semlock::Event;
    ///
    /// let event = Event::new()?;
    /// event.set();
    /// event.wait();
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn wait(&self) {
        while !self.wait_until(Deadline::NEVER) {}
    }

    /// Waits until the event is set, or until the deadline. Returns whether the event was set.
    ///
    /// Signals do not end the wait.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Deadline, Event};
    ///
    /// let event = Event::new()?;
    /// assert!(!event.wait_until(Deadline::after(Duration::from_millis(5))));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn wait_until(&self, deadline: Deadline) -> bool {
        let epoch = self.0.epoch();
        if self.0.spin(epoch, deadline) == Some(Wait::Acquired) {
            return true;
        }
        loop {
            match self.0.wait_since(epoch, deadline) {
                Wait::Acquired | Wait::OwnerDied(_) => return true,
                Wait::TimedOut => return false,
                Wait::Interrupted => {}
            }
        }
    }
}

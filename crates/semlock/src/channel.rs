//! Channels.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::raw::{self, Address, Object, Shared, Tried};
use crate::{Deadline, Error, Wait};

/// Passes messages of bytes from any number of senders to any number of receivers, in order.
///
/// A process may be killed at any moment, also in the middle of a message. Nothing breaks: a
/// message is there whole, or was never sent; and it was received, or is still there. (A message
/// that is larger than the [`capacity`](Self::capacity) goes in parts. If its sender or its
/// receiver dies in the middle of it, that message is lost, and nothing else.)
///
/// # Examples
/// ```
/// use semlock::Channel;
///
/// let channel = Channel::new()?;
/// channel.send(b"hello")?; // another process does this
/// assert_eq!(channel.receive()?, b"hello");
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Debug)]
pub struct Channel(raw::Channel);

impl Shared for Channel {
    fn object(&self) -> &Object {
        self.0.object()
    }
}

impl Channel {
    /// The capacity that [`new`](Self::new) gives, in bytes.
    pub const CAPACITY: usize = 256 << 10;

    /// Makes a channel with a capacity of [`CAPACITY`](Self::CAPACITY). It takes as much memory,
    /// and three descriptors.
    ///
    /// # Errors
    /// Where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    ///
    /// # Examples
    /// See [`Channel`].
    pub fn new() -> Result<Self, Error> {
        Self::with_capacity(Self::CAPACITY)
    }

    /// Makes a channel that has room for so many bytes: for the messages that nobody has received
    /// yet, each with up to 15 bytes more. A sender that finds no room waits for some.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for more than 4 MiB; otherwise as for [`new`](Self::new).
    ///
    /// # Examples
    /// ```
    /// use semlock::Channel;
    ///
    /// assert_eq!(Channel::with_capacity(10_000)?.capacity(), 16_384);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn with_capacity(bytes: usize) -> Result<Self, Error> {
        raw::Channel::new(bytes).map(Self)
    }

    /// The same channel as another, in this process or in the one that sent its address; with a
    /// descriptor of its segment, where this process does not have that yet: see [`Shared`]. It
    /// also needs the two descriptors of its [`bell`](Self::bell).
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`] without a descriptor that is needed; [`Error::BadSegment`] and
    /// [`Error::BadAddress`] for what is none of semlock's; [`Error::Os`].
    ///
    /// # Examples
    /// ```
    /// use semlock::{Channel, Shared};
    ///
    /// let channel = Channel::new()?;
    /// let [reader, writer] = channel.bell()?.map(|end| end.try_clone_to_owned());
    /// let bell = [reader.unwrap(), writer.unwrap()];
    /// let same = Channel::open(channel.address(), Some(channel.descriptor()?), bell)?;
    /// same.send(b"hello")?;
    /// assert_eq!(channel.receive()?, b"hello");
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn open(
        address: Address,
        descriptor: Option<BorrowedFd<'_>>,
        bell: [OwnedFd; 2],
    ) -> Result<Self, Error> {
        raw::Channel::open(address, descriptor, bell).map(Self)
    }

    /// How many bytes there is room for. A message that has at least 8 bytes less is sent whole.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// How many messages wait to be received. One that a sender is in the middle of does not count.
    ///
    /// # Examples
    /// ```
    /// use semlock::Channel;
    ///
    /// let channel = Channel::new()?;
    /// channel.send(b"one")?;
    /// channel.send(b"two")?;
    /// assert_eq!(channel.len(), 2);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count()
    }

    /// Whether nothing waits to be received, no part of a message either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends a message. Waits while there is no room, however long that takes. Signals do not end
    /// the wait.
    ///
    /// # Errors
    /// [`Error::InMidMessage`] in a signal's handler that has interrupted this very thread in the
    /// middle of a message; [`Error::ChannelOverwritten`]; [`Error::DescriptorLost`] if the bell is
    /// used, and other code has closed it.
    ///
    /// # Examples
    /// See [`Channel`].
    pub fn send(&self, message: &[u8]) -> Result<(), Error> {
        while !self.send_until(message, Deadline::NEVER)? {}
        Ok(())
    }

    /// Sends a message if that needs no waiting; false if it does: because there is no room,
    /// because the message is larger than the capacity, or because another process sends at this
    /// moment.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Examples
    /// ```
    /// use semlock::Channel;
    ///
    /// let channel = Channel::with_capacity(4096)?;
    /// assert!(channel.try_send(&[0; 3000])?);
    /// assert!(!channel.try_send(&[0; 3000])?);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn try_send(&self, message: &[u8]) -> Result<bool, Error> {
        self.0.try_send(&[message]).map(|tried| tried == Tried::Done)
    }

    /// Sends a message; false if it was not sent before the deadline. Nobody receives it then.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Channel, Deadline};
    ///
    /// let channel = Channel::with_capacity(4096)?;
    /// let soon = Deadline::after(Duration::from_millis(5));
    /// assert!(!channel.send_until(&[0; 10_000], soon)?);
    /// assert!(channel.send_until(b"small", soon)?);
    /// assert_eq!(channel.receive()?, b"small");
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn send_until(&self, message: &[u8], deadline: Deadline) -> Result<bool, Error> {
        let pieces = [message];
        if self.0.try_send(&pieces)? == Tried::Done {
            return Ok(true);
        }
        let mut sending = self.0.sending(&pieces, deadline);
        to_the_end(|| sending.wait())
    }

    /// Receives a message. Waits while there is none, however long that takes. Signals do not end
    /// the wait.
    ///
    /// # Errors
    /// As for [`send`](Self::send); [`Error::Os`] if there is no memory for it: then it stays.
    ///
    /// # Examples
    /// See [`Channel`].
    pub fn receive(&self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(message) = self.receive_until(Deadline::NEVER)? {
                return Ok(message);
            }
        }
    }

    /// Receives a message if one is there, and no other process receives at this moment. (It waits
    /// for the rest of a message that is larger than the capacity.)
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    ///
    /// # Examples
    /// ```
    /// use semlock::Channel;
    ///
    /// assert_eq!(Channel::new()?.try_receive()?, None);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn try_receive(&self) -> Result<Option<Vec<u8>>, Error> {
        let mut message = Vec::new();
        match self.0.try_receive(&mut message)? {
            Tried::Done => Ok(Some(message)),
            Tried::NotNow => Ok(None),
            Tried::InParts => self.receive_until(Deadline::after(std::time::Duration::ZERO)),
        }
    }

    /// Receives a message; `None` if there was none before the deadline.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::{Channel, Deadline};
    ///
    /// let soon = Deadline::after(Duration::from_millis(5));
    /// assert_eq!(Channel::new()?.receive_until(soon)?, None);
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn receive_until(&self, deadline: Deadline) -> Result<Option<Vec<u8>>, Error> {
        let mut message = Vec::new();
        let received = {
            let mut receiving = self.0.receiving(&mut message, deadline);
            to_the_end(|| receiving.wait())?
        };
        Ok(received.then_some(message))
    }

    /// The two ends of the channel's bell. Poll the first one: it is readable while something waits
    /// to be received. Do not read from it. Both are for [`open`](Self::open).
    ///
    /// The call makes every process ring the bell from now on, which costs a system call each time
    /// that the channel gets its first message or loses its last one.
    ///
    /// # Errors
    /// [`Error::DescriptorLost`] if other code has closed it.
    ///
    /// # Examples
    /// ```
    /// use rustix::event::{PollFd, PollFlags, poll};
    /// use semlock::Channel;
    ///
    /// let channel = Channel::new()?;
    /// let [readable, _] = channel.bell()?;
    /// channel.send(b"hello")?;
    /// assert_eq!(poll(&mut [PollFd::new(&readable, PollFlags::IN)], None), Ok(1));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn bell(&self) -> Result<[BorrowedFd<'_>; 2], Error> {
        self.0.want_bell()?;
        self.0.bell()
    }
}

/// Calls again after each signal. True at the end, false at the deadline.
fn to_the_end(mut wait: impl FnMut() -> Result<Wait, Error>) -> Result<bool, Error> {
    loop {
        match wait()? {
            Wait::Acquired | Wait::OwnerDied(_) => return Ok(true),
            Wait::TimedOut => return Ok(false),
            Wait::Interrupted => {}
        }
    }
}

//! A descriptor that can be polled: readable after it was rung, until it is silenced.
//!
//! It is a pipe with a byte in it or none. (An eventfd would be one descriptor instead of two, but
//! all of them are one file: nobody could tell whether a number still refers to this one.)

use std::io::pipe;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, Mode, OFlags};
use rustix::io::{Errno, ioctl_fionbio, read, write};

use super::mapping::FileId;
use crate::Error;
use crate::atomic::{AtomicI32, Ordering};

/// The pipe, as this process has it.
#[derive(Debug)]
pub(crate) struct Bell {
    /// The numbers of both ends. Any code of this process can close them and reuse the numbers.
    reader: RawFd,
    /// -1: this process has closed it.
    writer: AtomicI32,
    /// Tells whether the numbers still refer to what was opened.
    file: FileId,
}

impl Bell {
    /// A new one, which was not rung.
    pub(crate) fn new() -> Result<Self, Error> {
        let (reader, writer) = pipe().map_err(|error| Error::Os {
            call: "pipe",
            errno: error.raw_os_error().unwrap_or(libc::EMFILE),
        })?;
        Self::over(OwnedFd::from(reader), OwnedFd::from(writer))
    }

    /// One that another process made, by descriptors that came from there.
    pub(crate) fn over(reader: OwnedFd, writer: OwnedFd) -> Result<Self, Error> {
        let file = FileId::of(reader.as_fd())?;
        if !FileId::of(writer.as_fd())?.matches(&file) {
            return Err(Error::BadSegment("these descriptors are no two ends of one pipe"));
        }
        for end in [&reader, &writer] {
            // Nobody waits in a system call of ours: whoever finds nothing there goes on. (Also
            // where another process has opened them anew, and its descriptors wait.)
            ioctl_fionbio(end, true).map_err(Error::os("ioctl"))?;
        }
        let writer = AtomicI32::new(writer.into_raw_fd());
        Ok(Self { reader: reader.into_raw_fd(), writer, file })
    }

    /// Both ends: who polls reads from the first one.
    pub(crate) fn ends(&self) -> Result<[BorrowedFd<'_>; 2], Error> {
        let ends = [self.open(self.reader), self.open(self.writer())];
        let [Some(reader), Some(writer)] = ends else { return Err(Error::DescriptorLost) };
        Ok([reader, writer])
    }

    /// Tells its pipe from all others.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Makes the descriptor readable.
    pub(crate) fn ring(&self) -> Result<(), Error> {
        let reopened;
        let writer = if let Some(writer) = self.open(self.writer()) {
            writer
        } else {
            reopened = self.reopen()?;
            reopened.as_fd()
        };
        loop {
            match write(writer, b".") {
                Err(Errno::INTR) => {}
                // It is full of bytes, and so it is readable.
                Ok(_) | Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(Error::os("write")(errno)),
            }
        }
    }

    /// Makes the descriptor unreadable.
    pub(crate) fn silence(&self) {
        let Some(reader) = self.open(self.reader) else { return };
        let mut bytes = [0_u8; 256];
        loop {
            match read(reader, &mut bytes) {
                Err(Errno::INTR) => {}
                // A dead process may have rung it once more.
                Ok(count) if count == bytes.len() => {}
                _ => return,
            }
        }
    }

    /// Closes this process's end for ringing: what [`is_abandoned`](Self::is_abandoned) asks for.
    /// It can ring all the same.
    pub(crate) fn close_writer(&self) {
        let writer = self.writer.swap(-1, Ordering::Relaxed);
        if self.open(writer).is_some() {
            // SAFETY: it is what was opened for this value, and nothing finds it here any more.
            drop(unsafe { OwnedFd::from_raw_fd(writer) });
        }
    }

    /// Whether this process has not called [`close_writer`](Self::close_writer).
    pub(crate) fn has_writer(&self) -> bool {
        self.writer() >= 0
    }

    /// Whether every process that had the channel has closed its end for ringing, or is dead.
    pub(crate) fn is_abandoned(&self) -> bool {
        let Some(reader) = self.open(self.reader) else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut ends = [PollFd::new(&reader, PollFlags::empty())];
        poll(&mut ends, Some(&now)).is_ok() && ends[0].revents().contains(PollFlags::HUP)
    }

    /// Opens the end for ringing once more, through the other one.
    #[cold]
    fn reopen(&self) -> Result<OwnedFd, Error> {
        let reader = self.open(self.reader).ok_or(Error::DescriptorLost)?;
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map_err(|_| Error::DescriptorLost)
    }

    fn writer(&self) -> RawFd {
        self.writer.load(Ordering::Relaxed)
    }

    fn open(&self, number: RawFd) -> Option<BorrowedFd<'_>> {
        if number < 0 {
            return None;
        }
        // SAFETY: it is not -1. It is used to ask the system what it refers to, and returned only
        // if that is this pipe. Nothing here closes it before this is dropped.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        FileId::of(descriptor).is_ok_and(|file| file.matches(&self.file)).then_some(descriptor)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        for number in [self.reader, self.writer()] {
            // If other code closed it, its number may be reused by now. Then it stays open.
            if self.open(number).is_some() {
                // SAFETY: it is what was opened for this value, and nothing uses it after this.
                drop(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_readable(bell: &Bell) -> bool {
        let reader = bell.open(bell.reader).unwrap();
        let now = Timespec::try_from(Duration::ZERO).unwrap();
        poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn it_is_readable_from_a_ring_to_the_next_silence() {
        let bell = Bell::new().unwrap();
        assert!(!is_readable(&bell));
        for rings in [1, 2, 300, 100_000] {
            for _ in 0..rings {
                bell.ring().unwrap();
            }
            assert!(is_readable(&bell));
            bell.silence();
            assert!(!is_readable(&bell));
        }
    }

    #[test]
    fn it_is_abandoned_when_the_last_end_for_ringing_is_closed() {
        let bell = Bell::new().unwrap();
        let ends = bell.ends().unwrap().map(|end| end.try_clone_to_owned().unwrap());
        let [reader, writer] = ends;
        let others = Bell::over(reader, writer).unwrap();
        bell.close_writer();
        assert!(!bell.is_abandoned());
        others.close_writer();
        assert!(bell.is_abandoned());
        bell.ring().unwrap();
        assert!(is_readable(&others));
    }

    #[test]
    fn a_number_that_was_closed_and_reused_is_neither_written_to_nor_closed() {
        let bell = Bell::new().unwrap();
        let (other, kept) = pipe().unwrap();
        // SAFETY: the number stays open, as a duplicate of another descriptor.
        let mut number = unsafe { OwnedFd::from_raw_fd(bell.writer()) };
        rustix::io::dup2(&kept, &mut number).unwrap();
        let number = number.into_raw_fd();
        // It opens that end once more.
        bell.ring().unwrap();
        assert!(is_readable(&bell));
        drop(bell);
        // SAFETY: it is still open, as this test made it.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        ioctl_fionbio(&other, true).unwrap();
        assert_eq!(read(&other, &mut [0_u8; 1]), Err(Errno::AGAIN));
    }
}

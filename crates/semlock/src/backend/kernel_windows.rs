//! The `kernel` backend on Windows: its semaphores, which have a greatest value of their own and are reached by handles that
//! are inherited or duplicated.

use std::os::windows::io::BorrowedHandle;
use std::time::Duration;

use crate::os::win32::{LastError, Sem, Waited};
use crate::{Deadline, Error, Name, Naming, Wait};

/// The greatest value a semaphore can have.
pub const SEM_VALUE_MAX: i32 = i32::MAX;

/// Whether the operating system can tell a semaphore's value.
pub const HAS_VALUE: bool = true;

/// Whether it can wait for one until a moment.
pub const HAS_TIMED_WAIT: bool = true;

/// The longest time that can be waited for at once, in milliseconds: more is for ever.
const LONGEST: u32 = u32::MAX - 1;
const FOR_EVER: u32 = u32::MAX;

/// An open semaphore of the operating system.
#[derive(Debug)]
pub(crate) struct Semaphore(Sem);

impl Semaphore {
    /// The operating system itself refuses what would exceed the greatest value.
    pub(crate) const KEEPS_MAXVALUE: bool = true;

    /// A name is for the caller to remember: nothing can be opened by it here.
    pub(crate) fn create(_: &Name, value: u32, maxvalue: i32, _: Naming) -> Result<Self, Error> {
        // What is too great comes out negative, which is refused.
        Sem::create(value.cast_signed(), maxvalue).map(Self).map_err(os("CreateSemaphore"))
    }

    pub(crate) fn from_handle(handle: usize) -> Result<Self, Error> {
        Sem::from_handle(handle).map(Self).ok_or(Error::UnknownHandle(handle))
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.handle()
    }

    /// Takes a permit if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, Error> {
        self.0.try_wait().map_err(os("WaitForSingleObjectEx"))
    }

    /// Sleeps until a permit was taken, or the deadline has passed.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Wait, Error> {
        self.wait_or(deadline, None)
    }

    /// The same, or until an event is signalled.
    pub(crate) fn wait_or(
        &self,
        deadline: Deadline,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Wait, Error> {
        loop {
            let left = deadline.remaining();
            let time = left.map_or(FOR_EVER, milliseconds);
            match self.0.wait(time, event).map_err(os("WaitForMultipleObjectsEx"))? {
                Waited::Taken => return Ok(Wait::Acquired),
                Waited::Interrupted => return Ok(Wait::Interrupted),
                Waited::TimedOut if left == Some(Duration::ZERO) => return Ok(Wait::TimedOut),
                // The clock that it waits by is a coarse one, or the time was too long for one wait.
                Waited::TimedOut => {}
            }
        }
    }

    #[inline]
    pub(crate) fn post(&self) -> Result<(), Error> {
        match self.0.post() {
            Ok(_before) => Ok(()),
            Err(error) if error.is_too_many_posts() => Err(Error::ReleasedTooManyTimes),
            Err(error) => Err(os("ReleaseSemaphore")(error)),
        }
    }

    /// The value now: it can only be found out by taking a permit and giving it back.
    pub(crate) fn value(&self) -> Result<i32, Error> {
        if !self.try_wait()? {
            return Ok(0);
        }
        self.0.post().map(|before| before.saturating_add(1)).map_err(os("ReleaseSemaphore"))
    }
}

/// Not less than what is left.
fn milliseconds(left: Duration) -> u32 {
    let whole = left.as_nanos().div_ceil(1_000_000);
    u32::try_from(whole).map_or(LONGEST, |whole| whole.min(LONGEST))
}

fn os(call: &'static str) -> impl Fn(LastError) -> Error {
    move |error| Error::Os { call, errno: error.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_not_cut_to_whole_milliseconds_and_not_for_ever_where_it_ends() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(20)), 20);
        assert_eq!(milliseconds(Duration::MAX), LONGEST);
    }

    #[test]
    fn a_handle_of_something_else_is_not_taken_over() {
        use std::os::windows::io::AsRawHandle;
        let thread = std::thread::spawn(|| ());
        let handle = thread.as_raw_handle().addr();
        assert!(matches!(Semaphore::from_handle(handle), Err(Error::UnknownHandle(_))));
        thread.join().unwrap();
    }
}

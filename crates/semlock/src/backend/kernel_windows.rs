//! The `kernel` backend on Windows: the system's semaphores, and a robust mutex. The semaphores
//! have a greatest value of their own, and processes reach them by handles that they inherit or
//! receive. The mutex is recovered when its owner ends.

use std::os::windows::io::BorrowedHandle;
use std::time::Duration;

use crate::os::win32::{Flag, Held, LastError, Mutant, Sem, Waited};
use crate::{Deadline, Error, Name, Naming, Wait};

/// The greatest value a semaphore can have.
pub const SEM_VALUE_MAX: i32 = i32::MAX;

/// Whether the operating system can read a semaphore's value.
pub const HAS_VALUE: bool = true;

/// Whether it can wait for a semaphore until a deadline.
pub const HAS_TIMED_WAIT: bool = true;

/// The longest time of one wait, in milliseconds: a greater number means for ever.
const LONGEST: u32 = u32::MAX - 1;
const FOR_EVER: u32 = u32::MAX;

/// An open semaphore of the operating system.
#[derive(Debug)]
pub(crate) struct Semaphore(Sem);

impl Semaphore {
    /// The operating system itself refuses a release that would exceed the greatest value.
    pub(crate) const KEEPS_MAXVALUE: bool = true;

    /// The name is for the caller to remember. Nothing can be opened by it here.
    pub(crate) fn create(_: &Name, value: u32, maxvalue: i32, _: Naming) -> Result<Self, Error> {
        // A value that is too great becomes negative, which the system refuses.
        Sem::create(value.cast_signed(), maxvalue).map(Self).map_err(os("CreateSemaphore"))
    }

    pub(crate) fn from_handle(handle: usize) -> Result<Self, Error> {
        Sem::from_handle(handle).map(Self).ok_or(Error::UnknownHandle(handle))
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.handle()
    }

    /// Acquires a permit if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, Error> {
        self.0.try_wait().map_err(os("WaitForSingleObjectEx"))
    }

    /// Sleeps until it has acquired a permit, or the deadline has passed.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Wait, Error> {
        self.wait_or(deadline, None)
    }

    /// The same, but it also ends when an event is signalled.
    pub(crate) fn wait_or(
        &self,
        deadline: Deadline,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Wait, Error> {
        loop {
            let left = deadline.remaining();
            let time = left.map_or(FOR_EVER, milliseconds);
            match self.0.wait(time, event).map_err(os("WaitForMultipleObjectsEx"))? {
                // (Semaphores have no owners, and are not abandoned.)
                Waited::Taken | Waited::Abandoned => return Ok(Wait::Acquired),
                Waited::Interrupted => return Ok(Wait::Interrupted),
                Waited::TimedOut if left == Some(Duration::ZERO) => return Ok(Wait::TimedOut),
                // The clock of the wait is coarse, or the time was too long for one wait: wait
                // again.
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

    /// The value now. The system says it only to a caller that acquires a permit and releases it.
    pub(crate) fn value(&self) -> Result<i32, Error> {
        if !self.try_wait()? {
            return Ok(0);
        }
        self.0.post().map(|before| before.saturating_add(1)).map_err(os("ReleaseSemaphore"))
    }
}

/// A recursive mutex that belongs to one thread of any process. If its owner ends before it has
/// released the mutex, the system frees the mutex. (Windows.)
///
/// ```text
///  RobustMutex { mutex, died }
///    mutex   the system's: its owner, how often it is held, and whether it was abandoned
///    died    an event that only the holder of the mutex changes: the holder that finds that an
///            owner has ended sets it, and the next holder that calls `release` resets it
/// ```
///
/// So a process keeps no private state of it, and may be killed between any two calls. An owner
/// that got [`Wait::OwnerDied`] and ends before it has released is one more owner that has ended.
///
/// As with the system's own mutex, it is recovered also from a thread that ends while its process
/// goes on. Which owner ended is unknown.
#[derive(Debug)]
pub struct RobustMutex {
    mutex: Mutant,
    died: Flag,
}

impl RobustMutex {
    /// Makes a new mutex that is free.
    pub fn new() -> Result<Self, Error> {
        let died = Flag::create().map_err(os("CreateEvent"))?;
        Ok(Self { mutex: Mutant::create().map_err(os("CreateMutex"))?, died })
    }

    /// Makes one of handles that this process has, inherited or received. The mutex then owns the
    /// handles.
    ///
    /// # Errors
    /// [`Error::UnknownHandle`].
    pub fn from_handles([mutex, died]: [usize; 2]) -> Result<Self, Error> {
        Ok(Self {
            mutex: Mutant::from_handle(mutex).ok_or(Error::UnknownHandle(mutex))?,
            died: Flag::from_handle(died).ok_or(Error::UnknownHandle(died))?,
        })
    }

    /// The handles, to be duplicated for another process.
    #[must_use]
    pub fn handles(&self) -> [usize; 2] {
        [self.mutex.handle(), self.died.handle()]
    }

    /// Acquires it, once more if the calling thread holds it already. Waits for it until a
    /// deadline, or until an event is signalled.
    ///
    /// Returns [`Wait::OwnerDied`] once after an owner ended. The pid in it is 0, because the
    /// owner's is unknown.
    pub fn wait(
        &self,
        deadline: Deadline,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Wait, Error> {
        let waited = loop {
            let left = deadline.remaining();
            let time = left.map_or(FOR_EVER, milliseconds);
            match self.mutex.wait(time, event).map_err(os("WaitForMultipleObjectsEx"))? {
                Waited::TimedOut if left == Some(Duration::ZERO) => return Ok(Wait::TimedOut),
                // As for a semaphore.
                Waited::TimedOut => {}
                waited => break waited,
            }
        };
        if waited == Waited::Interrupted {
            return Ok(Wait::Interrupted);
        }
        if waited == Waited::Abandoned {
            // If that fails, this thread keeps the mutex until the thread ends. The next owner
            // would not get [`Wait::OwnerDied`] otherwise.
            self.died.set().map_err(os("SetEvent"))?;
        }
        let is_new = self.mutex.held().times == 1;
        Ok(if is_new && self.died.is_set() { Wait::OwnerDied(0) } else { Wait::Acquired })
    }

    /// Releases it, once.
    ///
    /// # Errors
    /// [`Error::NotOwner`].
    pub fn release(&self) -> Result<(), Error> {
        if self.held() == (Held { times: 1, by_caller: true }) {
            // Before another thread can acquire it.
            self.died.reset().map_err(os("ResetEvent"))?;
        }
        self.let_go()
    }

    /// Releases it, once. If this owner got [`Wait::OwnerDied`], the next owner gets it too.
    ///
    /// # Errors
    /// [`Error::NotOwner`].
    pub fn let_go(&self) -> Result<(), Error> {
        self.mutex.release().map_err(|error| {
            if error.is_not_owner() { Error::NotOwner } else { os("ReleaseMutex")(error) }
        })
    }

    /// Whether the calling thread holds it and has recovered it from an owner that ended.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.is_mine() && self.died.is_set()
    }

    /// Whether the calling thread holds it.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.held().by_caller
    }

    /// How often the calling thread holds it.
    #[must_use]
    pub fn count(&self) -> u32 {
        let held = self.held();
        if held.by_caller { held.times } else { 0 }
    }

    /// Whether a thread that has not ended holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held().times > 0
    }

    fn held(&self) -> Held {
        self.mutex.held()
    }
}

/// The time left in milliseconds, rounded up; `LONGEST` at most.
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
    fn a_wait_is_rounded_up_to_whole_milliseconds_and_never_becomes_endless() {
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

    #[test]
    fn a_handle_of_another_kind_is_not_taken_for_a_mutex() {
        let mutex = RobustMutex::new().unwrap();
        let [lock, died] = mutex.handles();
        assert!(RobustMutex::from_handles([lock, died]).is_ok());
        assert!(matches!(
            RobustMutex::from_handles([died, died]),
            Err(Error::UnknownHandle(number)) if number == died
        ));
        assert!(matches!(
            RobustMutex::from_handles([lock, lock]),
            Err(Error::UnknownHandle(number)) if number == lock
        ));
        assert!(matches!(Semaphore::from_handle(lock), Err(Error::UnknownHandle(_))));
    }

    #[test]
    fn a_mutex_belongs_to_its_thread_and_counts() {
        let mutex = RobustMutex::new().unwrap();
        let now = Deadline::after(Duration::ZERO);
        assert_eq!(mutex.release(), Err(Error::NotOwner));
        for count in 1..=3 {
            assert_eq!(mutex.wait(now, None), Ok(Wait::Acquired));
            assert_eq!((mutex.count(), mutex.is_mine(), mutex.is_held()), (count, true, true));
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!((mutex.count(), mutex.is_mine(), mutex.is_held()), (0, false, true));
                assert_eq!(mutex.wait(now, None), Ok(Wait::TimedOut));
                assert_eq!(mutex.release(), Err(Error::NotOwner));
            });
        });
        for _ in 0..3 {
            assert!(mutex.is_held());
            mutex.release().unwrap();
        }
        assert!(!mutex.is_held());
        assert_eq!(mutex.release(), Err(Error::NotOwner));
    }

    #[test]
    fn each_owner_after_one_that_ended_gets_owner_died_until_one_has_released() {
        let mutex = RobustMutex::new().unwrap();
        let take = || mutex.wait(Deadline::after(Duration::ZERO), None).unwrap();
        // (The end of a scope does not wait until its threads have ended. Joining them does.)
        let in_a_thread = |expected: &[Wait]| {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| expected.iter().for_each(|it| assert_eq!(take(), *it)));
                thread.join().unwrap();
            });
        };
        in_a_thread(&[Wait::Acquired, Wait::Acquired]);
        assert!(!mutex.is_recovered());
        // The next owner lets it go unrecovered, and the one after that ends too.
        assert_eq!(take(), Wait::OwnerDied(0));
        assert!(mutex.is_recovered());
        mutex.let_go().unwrap();
        in_a_thread(&[Wait::OwnerDied(0)]);
        assert_eq!(take(), Wait::OwnerDied(0));
        // The same owner gets it once.
        assert_eq!(take(), Wait::Acquired);
        assert!(mutex.is_recovered());
        mutex.release().unwrap();
        assert!(mutex.is_recovered());
        mutex.release().unwrap();
        assert!(!mutex.is_recovered());
        assert_eq!(take(), Wait::Acquired);
        mutex.release().unwrap();
    }
}

//! The `kernel` backend on POSIX: the operating system's own semaphores, by name or in anonymous
//! shared memory.
//!
//! Unnamed semaphores (`Naming::Unlink`) need no file system. The caller expects the result of
//! "create under this name, then unlink it": a taken or impossible name is refused, and nothing is
//! left under the name. So this only looks the name up, and makes the semaphore by `sem_init` in
//! anonymous shared memory. That works where no tmpfs is mounted, leaves nothing behind if the
//! process is killed in between, and needs fewer system calls.

use std::time::Duration;

use once_cell::race::OnceBox;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::os::backoff::{Backoff, Interrupted};
use crate::os::sem_open::{self, ClockWait, Sem, TimedWait};
use crate::{Deadline, Error, Name, Naming, Wait};

const NANOSECONDS: i64 = 1_000_000_000;

/// The longest sleep of a wait that polls.
const LONGEST_SLEEP: Duration = Duration::from_millis(20);

/// The greatest value a semaphore can have.
pub const SEM_VALUE_MAX: i32 = sem_open::VALUE_MAX;

/// Whether the operating system can read a semaphore's value; [`Error::ValueUnavailable`] where it
/// cannot.
pub const HAS_VALUE: bool = sem_open::HAS_VALUE;

/// Whether it can wait for a semaphore until a deadline. Where it cannot, a wait polls.
pub const HAS_TIMED_WAIT: bool = sem_open::HAS_TIMED_WAIT;

/// An open semaphore of the operating system.
#[derive(Debug)]
pub(crate) struct Semaphore(Sem);

impl Semaphore {
    /// The operating system knows only one greatest value, its own.
    pub(crate) const KEEPS_MAXVALUE: bool = false;

    pub(crate) fn create(name: &Name, value: u32, _: i32, naming: Naming) -> Result<Self, Error> {
        match naming {
            Naming::Keep => Sem::create(name.as_c_str(), value).map_err(Error::os("sem_open")),
            Naming::Unlink => create_unnamed(name, value),
        }
        .map(Self)
    }

    pub(crate) fn open(name: &Name) -> Result<Self, Error> {
        Sem::open(name.as_c_str()).map(Self).map_err(Error::os("sem_open"))
    }

    pub(crate) fn from_handle(handle: usize) -> Result<Self, Error> {
        Sem::from_handle(handle).map(Self).ok_or(Error::UnknownHandle(handle))
    }

    #[inline]
    pub(crate) fn handle(&self) -> usize {
        self.0.handle()
    }

    /// Acquires a permit if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, Error> {
        match self.0.try_wait() {
            Ok(taken) => Ok(taken),
            Err(error) => self.try_wait_again(error),
        }
    }

    #[cold]
    fn try_wait_again(&self, mut error: Errno) -> Result<bool, Error> {
        // It does not sleep, so it need not return for a signal: try again.
        while error == Errno::INTR {
            match self.0.try_wait() {
                Ok(taken) => return Ok(taken),
                Err(other) => error = other,
            }
        }
        Err(Error::os("sem_trywait")(error))
    }

    /// Sleeps until it has acquired a permit, the deadline has passed, or a signal has arrived.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Wait, Error> {
        /// The best way that this system has; found once.
        static WAY: OnceBox<Way> = OnceBox::new();

        if deadline == Deadline::NEVER {
            return outcome(self.0.wait()).map_err(Error::os("sem_wait"));
        }
        WAY.get_or_init(|| Box::new(Way::best())).wait(&self.0, deadline)
    }

    #[inline]
    pub(crate) fn post(&self) -> Result<(), Error> {
        self.0.post().map_err(Error::os("sem_post"))
    }

    /// The value now; [`Error::ValueUnavailable`] where the system has no such call.
    #[inline]
    pub(crate) fn value(&self) -> Result<i32, Error> {
        match self.0.value() {
            // On some systems a negative value is the number of waiters.
            Ok(value) => Ok(value.max(0)),
            Err(error) => Err(no_value(error)),
        }
    }
}

#[cold]
fn no_value(error: Errno) -> Error {
    match error {
        Errno::NOSYS => Error::ValueUnavailable,
        error => Error::os("sem_getvalue")(error),
    }
}

/// Removes a name. Processes that have the semaphore open keep it.
///
/// # Errors
/// [`Error::Os`]: `ENOENT` where nothing has this name.
pub fn unlink(name: &Name) -> Result<(), Error> {
    sem_open::unlink(name.as_c_str()).map_err(Error::os("sem_unlink"))
}

fn create_unnamed(name: &Name, value: u32) -> Result<Sem, Error> {
    if value > SEM_VALUE_MAX.cast_unsigned() {
        return Err(Error::os("sem_open")(Errno::INVAL));
    }
    match Sem::open(name.as_c_str()) {
        Ok(_taken) => return Err(Error::os("sem_open")(Errno::EXIST)),
        // The usual case. Or there is no tmpfs for names: for that glibc returns ENOENT, and old
        // versions return ENOSYS.
        Err(Errno::NOENT | Errno::NOSYS) => match Sem::anonymous(value) {
            // macOS has no unnamed semaphores.
            Err(Errno::NOSYS) => {}
            result => return result.map_err(Error::os("sem_init")),
        },
        // The name is impossible, or something is in the way: the attempt to create it gives the
        // right error.
        Err(_) => {}
    }
    let named = match Sem::create(name.as_c_str(), value) {
        // Here no name can be created at all, so no name can be taken.
        Err(why @ (Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSPC)) => {
            return match Sem::anonymous(value) {
                Err(Errno::NOSYS) => Err(Error::os("sem_open")(why)),
                result => result.map_err(Error::os("sem_init")),
            };
        }
        result => result.map_err(Error::os("sem_open"))?,
    };
    unlink(name)?;
    Ok(named)
}

fn outcome(result: Result<(), Errno>) -> Result<Wait, Errno> {
    match result {
        Ok(()) => Ok(Wait::Acquired),
        Err(Errno::TIMEDOUT) => Ok(Wait::TimedOut),
        Err(Errno::INTR) => Ok(Wait::Interrupted),
        Err(error) => Err(error),
    }
}

/// A timespec's seconds. (`libc` deprecates the name where the type will be wider.)
#[allow(deprecated)]
type Seconds = libc::time_t;

/// The last second that a timespec can express.
const LATEST: Seconds = Seconds::MAX;

/// The deadline as a time of this clock.
fn moment(clock: ClockId, deadline: Deadline) -> libc::timespec {
    let now = clock_gettime(clock);
    let remaining = deadline.remaining().unwrap_or(Duration::MAX);
    let nanoseconds = now.tv_nsec + i64::from(remaining.subsec_nanos());
    let seconds = i64::try_from(remaining.as_secs())
        .unwrap_or(i64::MAX)
        .saturating_add(now.tv_sec)
        .saturating_add(nanoseconds / NANOSECONDS);
    libc::timespec {
        tv_sec: Seconds::try_from(seconds).unwrap_or(LATEST),
        // Below 10^9, which fits into every `c_long`.
        tv_nsec: (nanoseconds % NANOSECONDS) as libc::c_long,
    }
}

/// A way of waiting until a deadline.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The system can wait until a time of the monotonic clock.
    Monotonic(ClockWait),
    /// It can wait only until a time of the wall clock.
    Wall(TimedWait),
    /// It can wait only without a deadline: so the caller polls.
    Polling,
}

impl Way {
    fn best() -> Self {
        ClockWait::find()
            .map(Self::Monotonic)
            .or_else(|| TimedWait::find().map(Self::Wall))
            .unwrap_or(Self::Polling)
    }

    fn wait(self, sem: &Sem, deadline: Deadline) -> Result<Wait, Error> {
        match self {
            Self::Monotonic(function) => {
                let until = moment(ClockId::Monotonic, deadline);
                outcome(sem.clock_wait(function, &until)).map_err(Error::os("sem_clockwait"))
            }
            Self::Wall(function) => wait_by_wall_clock(sem, function, deadline),
            Self::Polling => wait_by_polling(sem, deadline),
        }
    }
}

/// Converts the time left *now* into a time of the wall clock, and checks the deadline again when
/// the system says that this time is over. (If the clock is set back during the wait, that wait
/// gets longer.)
fn wait_by_wall_clock(sem: &Sem, function: TimedWait, deadline: Deadline) -> Result<Wait, Error> {
    loop {
        let until = moment(ClockId::Realtime, deadline);
        match outcome(sem.timed_wait(function, &until)).map_err(Error::os("sem_timedwait"))? {
            // The wall clock was set forward, and there is time left: wait again.
            Wait::TimedOut if deadline.remaining() != Some(Duration::ZERO) => {}
            result => return Ok(result),
        }
    }
}

/// Try, check the time, sleep.
fn wait_by_polling(sem: &Sem, deadline: Deadline) -> Result<Wait, Error> {
    let mut backoff = Backoff::up_to(LONGEST_SLEEP);
    loop {
        match sem.try_wait() {
            Ok(true) => return Ok(Wait::Acquired),
            Ok(false) => {}
            Err(Errno::INTR) => return Ok(Wait::Interrupted),
            Err(error) => return Err(Error::os("sem_trywait")(error)),
        }
        if deadline.remaining() == Some(Duration::ZERO) {
            return Ok(Wait::TimedOut);
        }
        if backoff.sleep(deadline.remaining()) == Err(Interrupted) {
            return Ok(Wait::Interrupted);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;

    /// Every way of waiting until a deadline that this system has.
    fn ways() -> Vec<Way> {
        let mut ways = vec![Way::Polling];
        ways.extend(TimedWait::find().map(Way::Wall));
        ways.extend(ClockWait::find().map(Way::Monotonic));
        ways
    }

    /// A semaphore without a permit.
    fn none_free() -> Sem {
        Semaphore::create(&unique("way"), 0, 1, Naming::Unlink).unwrap().0
    }

    fn unique(what: &str) -> Name {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Name::new(&format!("/semlock-{what}-{}-{count}", std::process::id())).unwrap()
    }

    #[test]
    fn every_way_of_waiting_ends_at_the_deadline_and_not_before() {
        let sem = none_free();
        for way in ways() {
            let start = Instant::now();
            let result = way.wait(&sem, Deadline::after(Duration::from_millis(30))).unwrap();
            assert_eq!(result, Wait::TimedOut, "{way:?}");
            assert!(start.elapsed() >= Duration::from_millis(30), "{way:?}");
        }
    }

    #[test]
    fn every_way_of_waiting_acquires_a_free_permit_after_the_deadline() {
        let sem = none_free();
        for way in ways() {
            sem.post().unwrap();
            assert_eq!(
                way.wait(&sem, Deadline::after(Duration::ZERO)).unwrap(),
                Wait::Acquired,
                "{way:?}"
            );
            assert_eq!(
                way.wait(&sem, Deadline::after(Duration::ZERO)).unwrap(),
                Wait::TimedOut,
                "{way:?}"
            );
        }
    }

    #[test]
    fn every_way_of_waiting_is_woken_by_a_post() {
        for way in ways() {
            let sem = none_free();
            thread::scope(|scope| {
                let waiter =
                    scope.spawn(|| way.wait(&sem, Deadline::after(Duration::from_secs(60))));
                sem.post().unwrap();
                assert_eq!(waiter.join().unwrap().unwrap(), Wait::Acquired, "{way:?}");
            });
        }
    }

    #[test]
    fn a_moment_too_late_for_the_clock_saturates() {
        let late = moment(ClockId::Monotonic, Deadline::NEVER);
        assert_eq!(late.tv_sec, LATEST);
        assert!(late.tv_nsec < NANOSECONDS);
    }

    #[test]
    fn an_unnamed_semaphore_leaves_nothing_under_its_name() {
        let name = unique("unnamed");
        let sem = Semaphore::create(&name, 3, 3, Naming::Unlink).unwrap();
        let value = if HAS_VALUE { Ok(3) } else { Err(Error::ValueUnavailable) };
        assert_eq!(sem.value(), value);
        let error = Semaphore::open(&name).unwrap_err();
        assert_eq!(error, Error::os("sem_open")(Errno::NOENT));
    }

    #[test]
    fn an_unnamed_semaphore_is_refused_a_name_that_is_taken() {
        let name = unique("taken");
        let keeper = Semaphore::create(&name, 1, 1, Naming::Keep).unwrap();
        for naming in [Naming::Keep, Naming::Unlink] {
            let error = Semaphore::create(&name, 1, 1, naming).unwrap_err();
            assert_eq!(error, Error::os("sem_open")(Errno::EXIST));
        }
        unlink(&name).unwrap();
        drop(keeper);
    }

    #[test]
    fn a_semaphore_opened_twice_has_one_handle_and_stays_open_for_the_second() {
        let name = unique("twice");
        let first = Semaphore::create(&name, 1, 1, Naming::Keep).unwrap();
        let second = Semaphore::open(&name).unwrap();
        unlink(&name).unwrap();
        if cfg!(not(target_vendor = "apple")) {
            assert_eq!(first.handle(), second.handle());
        }
        drop(first);
        assert!(second.try_wait().unwrap());
        let third = Semaphore::from_handle(second.handle()).unwrap();
        drop(second);
        third.post().unwrap();
        let handle = third.handle();
        drop(third);
        assert!(matches!(Semaphore::from_handle(handle), Err(Error::UnknownHandle(_))));
    }
}

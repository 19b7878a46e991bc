//! Deadlines, and how waits end.

use std::time::{Duration, Instant};

use crate::Error;

/// A moment of the monotonic clock, or never.
///
/// A caller computes a deadline once, before the first wait. So a wait that a signal interrupts can
/// go on to the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// A deadline that never comes.
    pub const NEVER: Self = Self(None);

    /// Returns the moment that is this long from now.
    ///
    /// It is [`NEVER`](Self::NEVER) if that moment is too late for the clock.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::Deadline;
    ///
    /// let deadline = Deadline::after(Duration::from_millis(250));
    /// assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
    /// # let _ = deadline;
    /// ```
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// Returns the moment that is this many seconds from now.
    ///
    /// A negative number counts as 0. The deadline is [`NEVER`](Self::NEVER) if the number is
    /// infinite, or if that moment is too late for the clock.
    ///
    /// # Errors
    /// [`Error::TimeoutIsNan`] for NaN.
    ///
    /// # Examples
    /// ```
    /// use semlock::Deadline;
    ///
    /// assert_eq!(Deadline::after_secs(f64::INFINITY)?, Deadline::NEVER);
    /// assert!(Deadline::after_secs(f64::NAN).is_err());
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn after_secs(timeout: f64) -> Result<Self, Error> {
        Self::timeout(timeout).map(Self::after)
    }

    /// Converts seconds to a timeout, for a wait that begins later.
    ///
    /// A negative number counts as 0. The timeout is [`Duration::MAX`] if the number is infinite or
    /// greater than that.
    ///
    /// # Errors
    /// [`Error::TimeoutIsNan`] for NaN.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// use semlock::Deadline;
    ///
    /// assert_eq!(Deadline::timeout(-1.0)?, Duration::ZERO);
    /// assert_eq!(Deadline::timeout(0.25)?, Duration::from_millis(250));
    /// # Ok::<(), semlock::Error>(())
    /// ```
    pub fn timeout(seconds: f64) -> Result<Duration, Error> {
        if seconds.is_nan() {
            return Err(Error::TimeoutIsNan);
        }
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }

    /// The time left until the deadline: zero if it has passed, `None` if it never comes.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|then| then.saturating_duration_since(Instant::now()))
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wait {
    /// The waiter got what it waited for: a permit, an event that is set, or a notification.
    Acquired,
    /// The waiter got a permit whose last holder died while it held it; this is the holder's pid.
    /// What the permit protects may be half-written. Only robust objects return this: the permits
    /// of others have no holder. On Windows the pid is unknown, and 0.
    OwnerDied(u32),
    /// The deadline passed.
    TimedOut,
    /// A signal arrived, or may have arrived. The caller can handle it now, and then wait on.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_no_clock_can_hold_never_ends() {
        for huge in [f64::INFINITY, f64::MAX, 1e30, 1e20] {
            assert_eq!(Deadline::after_secs(huge).unwrap(), Deadline::NEVER);
        }
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
    }

    #[test]
    fn a_negative_timeout_is_over_at_once() {
        for past in [-0.0, -1e-9, -5.0, f64::NEG_INFINITY] {
            let deadline = Deadline::after_secs(past).unwrap();
            assert_eq!(deadline.remaining(), Some(Duration::ZERO));
        }
    }

    #[test]
    fn nan_is_refused() {
        assert!(matches!(Deadline::after_secs(f64::NAN), Err(Error::TimeoutIsNan)));
        assert!(matches!(Deadline::timeout(-f64::NAN), Err(Error::TimeoutIsNan)));
    }
}

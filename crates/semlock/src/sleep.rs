//! How a sleep on a word ends, and whom a wake-up reaches.
//!
//! The algorithms of `word` and the futexes of `os` do not know each other. Both use these types.

/// How a sleep on a word ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slept {
    /// The sleeper was woken, perhaps without a reason, or the word had another value: check again.
    Woken,
    /// The time has passed.
    TimedOut,
    /// A signal has arrived.
    Interrupted,
}

/// Whom a wake-up for one sleeper has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // each system gives its own answers
pub(crate) enum Woke {
    /// A sleeper. It may be dying.
    One,
    /// Nobody. No sleeper is left that went to sleep before the last change of the word.
    Nobody,
    /// The system does not say.
    Unknown,
}

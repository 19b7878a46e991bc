//! Everything that can go wrong, as one type.

use std::io;

/// Why a call on a [`SemLock`](crate::SemLock) failed.
///
/// Small and without a destructor, so that a `Result` costs the hot paths nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kind is neither 0 (recursive mutex) nor 1 (semaphore).
    #[error("unrecognized kind")]
    UnrecognizedKind,

    /// A recursive mutex can be released only by the thread that holds it.
    #[error("attempt to release recursive lock not owned by thread")]
    NotOwner,

    /// The semaphore already is at its greatest value.
    #[error("semaphore or lock released too many times")]
    ReleasedTooManyTimes,

    /// No open semaphore of this process has this handle.
    #[error(
        "no semaphore with handle {0:#x} is open in this process: \
         rebuild it by name, or keep the SemLock that made the handle"
    )]
    UnknownHandle(usize),

    /// A name goes to the operating system as a C string, which ends at the first NUL.
    #[error("embedded null character")]
    NulInName,

    /// A timeout has to be a number.
    #[error("Invalid value NaN (not a number)")]
    TimeoutIsNan,

    /// This operating system cannot tell a semaphore's value (macOS).
    #[error("this operating system cannot read a semaphore's value")]
    ValueUnavailable,

    /// The operating system refused.
    #[error("{call}: {}", io::Error::from_raw_os_error(*.errno))]
    Os {
        /// The function that failed, as its manual page is called.
        call: &'static str,
        /// Its `errno(3)`.
        errno: i32,
    },
}

impl Error {
    pub(crate) fn os(call: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Os { call, errno: errno.raw_os_error() }
    }
}

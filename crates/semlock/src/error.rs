//! One type for all errors.

use std::io;

/// Why a call failed. Its text says what to do, where that is not obvious.
///
/// It is small and has no destructor, so that a `Result` costs the hot paths nothing.
///
/// # Examples
/// ```
/// use semlock::{Error, Semaphore};
///
/// match Semaphore::robust(1_000_000) {
///     Ok(_) => unreachable!("a robust semaphore has at most 524,280 permits"),
///     Err(Error::OutOfRange(message)) => println!("{message}"),
///     Err(other) => return Err(other),
/// }
/// # Ok::<(), semlock::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kind is neither 0 (recursive mutex) nor 1 (semaphore).
    #[error("unrecognized kind")]
    UnrecognizedKind,

    /// The calling thread does not hold this recursive mutex, so it cannot release it.
    #[error("attempt to release recursive lock not owned by thread")]
    NotOwner,

    /// The semaphore has its greatest value already.
    #[error("semaphore or lock released too many times")]
    ReleasedTooManyTimes,

    /// No semaphore that is open in this process has this handle.
    #[error(
        "no such object with handle {0:#x} is open in this process: \
         keep the one that made the handle, or rebuild a semaphore by name"
    )]
    UnknownHandle(usize),

    /// The name has a NUL character. It would end there, because the operating system takes names
    /// as C strings.
    #[error("embedded null character")]
    NulInName,

    /// The timeout is NaN, which is not a number.
    #[error("Invalid value NaN (not a number)")]
    TimeoutIsNan,

    /// This operating system has no call that reads a semaphore's value (macOS).
    #[error("this operating system cannot read a semaphore's value")]
    ValueUnavailable,

    /// This process holds no permit of this robust semaphore. A permit belongs to the process that
    /// acquired it, so no other process can release it.
    #[error("this process holds no permit of this robust semaphore that it could release")]
    NotHeldHere,

    /// The segment of this condition or barrier has no free node for one more waiter.
    #[error(
        "too many waiters: the conditions and barriers that share this one's memory have no room \
         for one more"
    )]
    TooManyWaiters,

    /// The barrier was broken before, or broke or was reset while this member waited.
    #[error("the barrier is broken: a member gave up, died, or reset it")]
    BarrierBroken,

    /// The calling thread is in the middle of a message of this channel.
    #[error(
        "this thread is in the middle of a message on this very channel: a signal handler cannot \
         send or receive there meanwhile; set an event in it, or give it a channel of its own"
    )]
    InMidMessage,

    /// The message that the caller had begun to receive does not come whole.
    #[error("the process that sent this message died, or gave up, in the middle of it")]
    MessageLost,

    /// The words of a channel say what cannot be.
    #[error("something else has overwritten this channel's memory: make a new one")]
    ChannelOverwritten,

    /// This process has not mapped the object's segment, and got no descriptor of it.
    #[error("this process does not have the memory that the object lives in")]
    SegmentNotMapped,

    /// The descriptor is not one of the object's segment.
    #[error("this is not the memory that the object lives in: {0}")]
    BadSegment(&'static str),

    /// No object of that kind lives at this address.
    #[error("no such object lives there: {0}")]
    BadAddress(&'static str),

    /// A number is too large or too small, such as a number of permits or members.
    #[error("{0}")]
    OutOfRange(&'static str),

    /// Other code of this process closed the descriptor of the object's segment.
    #[error(
        "the descriptor of the memory that the object lives in was closed by somebody else: \
         the object works on, but cannot be sent to a process that does not have it yet"
    )]
    DescriptorLost,

    /// No way to get memory that processes can share has worked. It says why each failed.
    #[error("no memory to share: {}", refusals(.0))]
    NoSharedMemory([Refused; 3]),

    /// This process may not make a file that is long enough (`RLIMIT_FSIZE`). To the operating
    /// system, the memory of objects is a file.
    #[error(
        "File too large: locks live in a file without a name, of at least {least} bytes, \
         and this process may write files of {limit} bytes at most: \
         raise its limit (RLIMIT_FSIZE, `ulimit -f`)"
    )]
    FileSizeLimit {
        /// The limit, in bytes.
        limit: u64,
        /// The shortest file that the object fits in, in bytes.
        least: u64,
    },

    /// A call of the operating system failed.
    #[error("{call}: {}", io::Error::from_raw_os_error(*.errno))]
    Os {
        /// The name of the function that failed, as in its manual page.
        call: &'static str,
        /// Its `errno(3)`; on Windows, the result of `GetLastError`.
        errno: i32,
    },
}

/// Why one way to get memory that processes can share failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The way: `memfd_create`, a file in `/dev/shm` (`shm_open` on other systems than Linux), or a
    /// file in the temporary directory. Empty on a system that has fewer ways.
    pub way: &'static str,
    /// Its `errno(3)`.
    pub errno: i32,
}

fn refusals(ways: &[Refused]) -> String {
    let said = ways
        .iter()
        // Not every system has three.
        .filter(|refused| !refused.way.is_empty())
        .map(|refused| format!("{}: {}", refused.way, io::Error::from_raw_os_error(refused.errno)));
    said.collect::<Vec<_>>().join("; ")
}

#[cfg(unix)]
impl Error {
    pub(crate) fn os(call: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Os { call, errno: errno.raw_os_error() }
    }
}

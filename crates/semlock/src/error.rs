//! Everything that can go wrong, as one type.

use std::io;

/// Why a call failed.
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

    /// Nothing that is open in this process has this handle.
    #[error(
        "no such object with handle {0:#x} is open in this process: \
         keep the one that made the handle, or rebuild a semaphore by name"
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

    /// A permit of a robust semaphore belongs to the process that took it.
    #[error("this process holds no permit of this robust semaphore that it could release")]
    NotHeldHere,

    /// The segment of the condition or barrier has no node left for another waiter.
    #[error(
        "too many waiters: the conditions and barriers that share this one's memory have no room for one more"
    )]
    TooManyWaiters,

    /// A barrier was broken, is, or became so while its members waited.
    #[error("the barrier is broken: a member gave up, died, or reset it")]
    BarrierBroken,

    /// The calling thread is in the middle of a message of this channel.
    #[error(
        "this thread is in the middle of a message on this very channel: a signal handler cannot \
         send or receive there meanwhile; set an event in it, or give it a channel of its own"
    )]
    InMidMessage,

    /// The words of a channel say what cannot be.
    #[error("something else has overwritten this channel's memory: make a new one")]
    ChannelOverwritten,

    /// This process has not mapped the segment that an object lives in.
    #[error("this process does not have the memory that the object lives in")]
    SegmentNotMapped,

    /// What a descriptor is, is not the segment that it should be.
    #[error("this is not the memory that the object lives in: {0}")]
    BadSegment(&'static str),

    /// Nothing of that kind lives at this address.
    #[error("no such object lives there: {0}")]
    BadAddress(&'static str),

    /// More permits, parties, or whatever it is, than can be.
    #[error("{0}")]
    OutOfRange(&'static str),

    /// The descriptor of a segment was closed by somebody else.
    #[error(
        "the descriptor of the memory that the object lives in was closed by somebody else: the object \
         works on, but cannot be sent to a process that does not have it yet"
    )]
    DescriptorLost,

    /// There is no way to get memory that can be shared.
    #[error("no memory to share: {}", refusals(.0))]
    NoSharedMemory([Refused; 3]),

    /// What locks live in is a file to the operating system, and this process may make none that is long enough.
    #[error(
        "File too large: locks live in a file without a name, of at least {least} bytes, and this process may \
         write files of {limit} bytes at most: raise its limit (RLIMIT_FSIZE, `ulimit -f`)"
    )]
    FileSizeLimit {
        /// The limit, in bytes.
        limit: u64,
        /// The shortest file that the object fits in, in bytes.
        least: u64,
    },

    /// The operating system refused.
    #[error("{call}: {}", io::Error::from_raw_os_error(*.errno))]
    Os {
        /// The function that failed, as its manual page is called.
        call: &'static str,
        /// Its `errno(3)`; on Windows, what `GetLastError` says.
        errno: i32,
    },
}

/// Why one of the ways to get memory that can be shared failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `memfd_create`, a file in `/dev/shm` (elsewhere `shm_open`), or one in the temporary directory; nothing where a
    /// system has one less.
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

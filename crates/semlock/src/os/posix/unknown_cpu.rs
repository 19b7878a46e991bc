//! Processors, where the system does not tell on which one a thread runs, or is slow to.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use once_cell::race::OnceNonZeroUsize;

/// The processor that the calling thread runs on: unknown.
#[inline]
pub(crate) fn current() -> Option<u32> {
    None
}

/// On how many processors this process may run.
pub(crate) fn count() -> usize {
    static COUNT: OnceNonZeroUsize = OnceNonZeroUsize::new();
    COUNT.get_or_init(|| available_parallelism().unwrap_or(NonZeroUsize::MIN)).get()
}

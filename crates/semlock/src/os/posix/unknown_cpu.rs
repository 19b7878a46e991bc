//! Processors, where the system does not tell on which one a thread runs, or is slow to.

use std::thread::available_parallelism;

use once_cell::race::OnceBool;

/// The processor that the calling thread runs on: unknown.
#[inline]
pub(crate) fn current() -> Option<u32> {
    None
}

/// Whether this process may run on more than one processor.
pub(crate) fn are_several() -> bool {
    static SEVERAL: OnceBool = OnceBool::new();
    SEVERAL.get_or_init(|| available_parallelism().is_ok_and(|processors| processors.get() > 1))
}

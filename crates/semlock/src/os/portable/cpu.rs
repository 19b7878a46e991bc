//! Processors, where the system does not tell on which one a thread runs, or takes long to.

use crate::os::known::Known;
use std::thread::available_parallelism;

/// The processor that the calling thread runs on just now: nobody knows.
#[inline]
pub(crate) fn current() -> Option<u32> {
    None
}

/// Whether this process may run on more than one processor.
pub(crate) fn are_several() -> bool {
    static SEVERAL: Known<bool> = Known::new();
    *SEVERAL.get(|| available_parallelism().is_ok_and(|processors| processors.get() > 1))
}

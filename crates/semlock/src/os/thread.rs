//! Threads.

/// `pthread_self(3)`: a number that no other running thread of this process has; never 0.
///
/// The address of a thread-local would do as well, but costs twice as much in a library that is
/// loaded at run time.
#[inline]
#[allow(clippy::cast_possible_truncation)] // it is a pointer, or as wide as one
pub(crate) fn current() -> usize {
    // SAFETY: it cannot fail.
    (unsafe { libc::pthread_self() }) as usize
}

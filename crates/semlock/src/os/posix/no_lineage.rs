//! Where no mark is known that forked children inherit, and that goes when they end or execute.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// That this process, and each that is forked from it or from such a child, may be found by some numbers.
#[derive(Debug)]
pub(crate) enum Lineage {}

impl Lineage {
    /// They cannot be found.
    pub(crate) fn begin(_file: BorrowedFd<'_>, _numbers: &[u64]) -> Option<Self> {
        None
    }

    pub(crate) fn leave_to_child(self) {
        match self {}
    }
}

/// Whether a process is left that has begun a lineage of this number, or was forked as one of it: nobody can tell.
pub(crate) fn may_be_left(_file: BorrowedFd<'_>, _number: u64) -> bool {
    true
}

/// Some number, from one to another, of a lineage that a process is left of.
///
/// # Errors
/// Always: nobody can tell.
pub(crate) fn find_left(_: BorrowedFd<'_>, _: u64, _: u64) -> Result<Option<u64>, Errno> {
    Err(Errno::NOSYS)
}

//! Lineages where the system has nothing that forked children inherit until they end or execute.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The lineage of a process and of all that it forks: there is none.
#[derive(Debug)]
pub(crate) enum Lineage {}

impl Lineage {
    /// Begins none.
    pub(crate) fn begin(_file: BorrowedFd<'_>, _numbers: &[u64]) -> Option<Self> {
        None
    }

    pub(crate) fn leave_to_child(self) {
        match self {}
    }
}

/// Whether a process of this lineage may be left: that is unknown.
pub(crate) fn may_be_left(_file: BorrowedFd<'_>, _number: u64) -> bool {
    true
}

/// The number, in this range, of a lineage of which a process is left.
///
/// # Errors
/// Always: that is unknown.
pub(crate) fn find_left(_: BorrowedFd<'_>, _: u64, _: u64) -> Result<Option<u64>, Errno> {
    Err(Errno::NOSYS)
}

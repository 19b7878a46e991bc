//! Lineages where the system has no mark that forked children inherit until they end or execute.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// The mark of a process and of all that it forks: there is none.
#[derive(Debug)]
pub(crate) enum Lineage {}

impl Lineage {
    /// Marks nothing.
    pub(crate) fn begin(_file: BorrowedFd<'_>, _numbers: &[u64]) -> Option<Self> {
        None
    }

    pub(crate) fn leave_to_child(self) {
        match self {}
    }
}

/// Whether a process that bears this mark may be left: that is unknown.
pub(crate) fn may_be_left(_file: BorrowedFd<'_>, _number: u64) -> bool {
    true
}

/// A number, in this range, of a mark that some process bears.
///
/// # Errors
/// Always: that is unknown.
pub(crate) fn find_left(_: BorrowedFd<'_>, _: u64, _: u64) -> Result<Option<u64>, Errno> {
    Err(Errno::NOSYS)
}

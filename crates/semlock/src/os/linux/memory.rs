//! Memory: memfds, files that never had a name, and `MADV_WIPEONFORK`.

use std::env::temp_dir;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;

use rustix::fs::{
    AtFlags, MemfdFlags, Mode, OFlags, SealFlags, StatxFlags, fcntl_add_seals, memfd_create, open,
    statx,
};
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};

use crate::atomic::AtomicU64;
use crate::os::mapping::{Way, unlinked_file, unlinked_shared_memory};

// A shared memory object is a file of a tmpfs.
pub(crate) use crate::os::posix::fallocate::{allocate_file, allocate_file as allocate_object};

/// In this order.
pub(crate) const WAYS: &[(&str, Way)] = &[
    ("memfd_create", memfd),
    ("a file in /dev/shm", |bytes| nameless("/dev/shm".as_ref(), unlinked_shared_memory, bytes)),
    ("a file in the temporary directory", |bytes| nameless(&temp_dir(), unlinked_file, bytes)),
];

fn memfd(bytes: u64) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create(c"semlock", flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::INVAL) => memfd_create(c"semlock", flags)?,
        made => made?,
    };
    allocate_file(descriptor.as_fd(), bytes)?;
    // From now on nobody can shrink it under a mapping.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&descriptor, seals)?;
    Ok(descriptor)
}

/// A new file that never has a name (`O_TMPFILE`), so that a process that is killed leaves no file
/// behind. Where the file system has no such files, `otherwise` makes another.
fn nameless(folder: &Path, otherwise: Way, bytes: u64) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    match open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => otherwise(bytes),
        file => {
            let file = file?;
            allocate_file(file.as_fd(), bytes)?;
            Ok(file)
        }
    }
}

/// When a file was made, in nanoseconds since 1970; 0 where its file system does not tell, or a
/// filter forbids the call.
pub(crate) fn born(file: BorrowedFd<'_>) -> u64 {
    let told = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME);
    let told = told.ok().filter(|told| told.stx_mask & StatxFlags::BTIME.bits() != 0);
    told.map_or(0, |told| {
        let seconds = told.stx_btime.tv_sec.cast_unsigned();
        seconds.wrapping_mul(1_000_000_000).wrapping_add(told.stx_btime.tv_nsec.into())
    })
}

/// A new descriptor of the file that one mapping covers whole. The kernel gives it to a process
/// that may checkpoint others (`CAP_CHECKPOINT_RESTORE`; before Linux 5.9 `CAP_SYS_ADMIN`). Root
/// may, outside of containers.
pub(crate) fn reopen(start: NonNull<AtomicU64>, bytes: usize) -> Result<OwnedFd, Errno> {
    let start = start.addr().get();
    let end = (start + bytes).next_multiple_of(rustix::param::page_size());
    let path = format!("/proc/self/map_files/{start:x}-{end:x}");
    open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// `MADV_WIPEONFORK`, since Linux 4.14.
pub(crate) fn wipe_on_fork(start: NonNull<AtomicU64>, bytes: usize) -> Result<(), Errno> {
    // SAFETY: the caller's own mapping, whole. It holds only numbers.
    unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxWipeOnFork) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::ftruncate;

    use super::*;

    #[test]
    fn a_memfd_cannot_be_taken_away_from_under_its_users() {
        let descriptor = memfd(8192).unwrap();
        assert_eq!(ftruncate(&descriptor, 0), Err(Errno::PERM));
        assert!(
            rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
        );
    }
}

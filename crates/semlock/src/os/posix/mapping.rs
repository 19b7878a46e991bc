//! Memory that processes share, the private memory beside it, and places in both.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::fs::{Mode, SeekFrom, fstat, seek};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};
use rustix::shm;

use super::wipe_on_fork::Region;
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::system::memory::{WAYS, allocate_file, allocate_object, born, reopen, wipe_on_fork};
use crate::{Error, Refused};

const WORD: usize = size_of::<AtomicU64>();
/// The largest page of any system, in bytes.
const LARGEST_PAGE: usize = 1 << 16;

/// A mapping, as words; unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<AtomicU64>,
    words: usize,
    /// Set where a handler wipes it in a forked child, because the kernel does not.
    wiped: Option<Region>,
}

// SAFETY: only atomics reach it, and any thread may call `munmap`.
unsafe impl Send for Memory {}
// SAFETY: as for Send.
unsafe impl Sync for Memory {}

impl Memory {
    /// Private memory, all zero, and zero again in a forked child. Where the kernel wipes it, the
    /// child may be made by any call; elsewhere only by `fork(3)`.
    pub(crate) fn wipe_on_fork(words: usize) -> Result<Self, Error> {
        Self::private(words, wipe_on_fork)
    }

    fn private(
        words: usize,
        by_the_kernel: impl FnOnce(NonNull<AtomicU64>, usize) -> Result<(), Errno>,
    ) -> Result<Self, Error> {
        let bytes = words * WORD;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let mut memory = Self::over(start.map_err(Error::os("mmap"))?.cast(), words)?;
        if rule("fork/private-memory-is-wiped") && by_the_kernel(memory.start, bytes).is_err() {
            // SAFETY: our own mapping, whole and of this kind. It leaves the list before it is
            // unmapped.
            memory.wiped = Some(unsafe { Region::enter(memory.start, bytes) }?);
        }
        Ok(memory)
    }

    /// For private memory: whether the kernel wipes it, by whatever call a child is made.
    pub(crate) fn is_wiped_by_the_kernel(&self) -> bool {
        self.wiped.is_none()
    }

    /// Maps so many words of a file, which must be as long.
    pub(in crate::os) fn shared(descriptor: BorrowedFd<'_>, words: usize) -> Result<Self, Error> {
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            mmap(
                null_mut(),
                words * WORD,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                descriptor,
                0,
            )
        };
        Self::over(start.map_err(Error::os("mmap"))?.cast(), words)
    }

    fn over(start: *mut AtomicU64, words: usize) -> Result<Self, Error> {
        // The kernel maps nothing at 0 unless a caller asks for that.
        let start = NonNull::new(start).ok_or(Error::Os { call: "mmap", errno: 0 })?;
        Ok(Self { start, words, wiped: None })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped as long as this lives. Zeroed memory, and whatever
        // another process wrote there, are numbers. All access is atomic. (A file that is shorter
        // than its mapping would be a SIGBUS: `new_memory` allocates, and seals a memfd.)
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Before it is unmapped, as `Region` demands.
        drop(self.wiped.take());
        // SAFETY: our own mapping, whole, to which no reference is left: `words` borrows from this,
        // and a `Place` keeps it alive.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.words * WORD) };
    }
}

/// Memory that another process can map, given its descriptor.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Memory,
    /// The number of its descriptor. Any code of this process can close it and reuse the number.
    descriptor: AtomicU32,
    /// The identity of the file: it shows whether the descriptor still refers to what was opened.
    file: FileId,
    /// The random offset that its descriptor was given. Nothing reads or writes the file, so the
    /// offset stays, and no other descriptor is likely to have the same. Only for memory that this
    /// process made.
    position: Option<u64>,
}

impl Shared {
    /// New memory: see [`new_memory`].
    pub(crate) fn create(words: usize) -> Result<Self, Error> {
        let descriptor = new_memory(u64::try_from(words * WORD).unwrap_or(u64::MAX))?;
        let memory = Memory::shared(descriptor.as_fd(), words)?;
        let position = set_random_offset(descriptor.as_fd());
        let mut made = Self::over(descriptor, memory)?;
        made.position = position;
        Ok(made)
    }

    fn over(descriptor: OwnedFd, memory: Memory) -> Result<Self, Error> {
        let file = FileId::of(descriptor.as_fd())?;
        let descriptor = AtomicU32::new(descriptor.into_raw_fd().cast_unsigned());
        Ok(Self { memory, descriptor, file, position: None })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    /// The descriptor. If other code has closed it, this opens a new one, where the system can open
    /// a mapping; elsewhere there is none.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.open_descriptor().or_else(|| self.reopen())
    }

    /// Whether there still is a descriptor. It takes a third of the time of `descriptor`: each new
    /// object calls it.
    pub(crate) fn has_descriptor(&self) -> bool {
        let points_to = || seek(self.borrow_descriptor(), SeekFrom::Current(0)).ok();
        self.position.is_some() && points_to() == self.position || self.descriptor().is_some()
    }

    /// The identity of its file.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// The number of its descriptor, whatever that refers to by now.
    pub(crate) fn descriptor_number(&self) -> RawFd {
        self.descriptor.load(Ordering::Relaxed).cast_signed()
    }

    fn borrow_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: it is not -1. It is used to ask the system whether it is open, and what it refers
        // to; it is returned only if it refers to this file. Nothing here closes it before this is
        // dropped.
        unsafe { BorrowedFd::borrow_raw(self.descriptor_number()) }
    }

    fn open_descriptor(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.borrow_descriptor();
        self.is_of(descriptor).then_some(descriptor)
    }

    fn is_of(&self, descriptor: BorrowedFd<'_>) -> bool {
        // The file is mapped, so no other has its inode: its birth time need not be compared.
        FileId::of_status(descriptor).is_ok_and(|found| found.matches(&self.file))
    }

    #[cold]
    fn reopen(&self) -> Option<BorrowedFd<'_>> {
        let lost = self.descriptor.load(Ordering::Relaxed);
        let again = reopen(self.memory.start, self.memory.words * WORD).ok()?;
        if !self.is_of(again.as_fd()) {
            return None;
        }
        let number = again.as_raw_fd().cast_unsigned();
        let kept =
            self.descriptor.compare_exchange(lost, number, Ordering::Relaxed, Ordering::Relaxed);
        if kept.is_ok() {
            // From now on it is closed by its number.
            let _ = again.into_raw_fd();
        }
        // Else another thread was faster.
        self.open_descriptor()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // If other code closed it, its number may be reused by now. Then it stays open.
        if self.open_descriptor().is_some() {
            // SAFETY: it is what was opened for this value, and nothing uses it after this.
            drop(unsafe { OwnedFd::from_raw_fd(self.descriptor_number()) });
        }
    }
}

/// Gives a descriptor of a new file an offset that no other descriptor is likely to have. `None` if
/// that is not possible.
fn set_random_offset(descriptor: BorrowedFd<'_>) -> Option<u64> {
    // All file systems allow such an offset.
    let position = random().ok()?[0] >> 24;
    seek(descriptor, SeekFrom::Start(position)).ok()
}

/// What a descriptor of unknown origin refers to, mapped to be checked.
///
/// This does not duplicate the descriptor until it proves to be of a segment. For the duplicate
/// would be closed again, and a process that closes any descriptor of a file loses all record locks
/// (`fcntl(2)`) that it has on the file.
#[derive(Debug)]
pub(crate) struct Unproven<'fd> {
    memory: Memory,
    descriptor: BorrowedFd<'fd>,
}

impl<'fd> Unproven<'fd> {
    /// Maps the file of a descriptor, if it is at least so many words long.
    pub(crate) fn map(descriptor: BorrowedFd<'fd>, least: usize) -> Result<Self, Error> {
        let length = fstat(descriptor).map_err(Error::os("fstat"))?.st_size;
        let words = usize::try_from(length).unwrap_or(0) / WORD;
        if words < least {
            return Err(Error::BadSegment("it is too short, or no memory at all"));
        }
        let memory = Memory::shared(descriptor, words)?;
        Ok(Self { memory, descriptor })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.memory.words()
    }

    /// Whether it was made with so many words. A system may have rounded them up to whole pages.
    pub(crate) fn has_length(&self, words: usize) -> bool {
        self.words().len().checked_sub(words).is_some_and(|more| more < LARGEST_PAGE / WORD)
    }

    /// Keeps it, because it is a segment, with a descriptor of our own.
    pub(crate) fn keep(self) -> Result<Shared, Error> {
        let own = fcntl_dupfd_cloexec(self.descriptor, 0).map_err(Error::os("fcntl"))?;
        Shared::over(own, self.memory)
    }
}

/// The identity of a file. It is the same in every process that has the file, whatever
/// its name or mount is there.
///
/// Device and inode alone do not suffice: a file system reuses the inode of a file that was
/// deleted, and on macOS all shared memory objects have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Its device.
    pub device: u64,
    /// Its inode on that device.
    pub inode: u64,
    /// Its type and permissions.
    pub mode: u64,
    /// How many names it has: mostly none, for shared memory.
    pub links: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When it was made, in nanoseconds since 1970; 0 where that is unknown.
    pub born: u64,
}

impl FileId {
    /// The file that a descriptor refers to. The descriptor may be one that only refers (`O_PATH`).
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of(descriptor: BorrowedFd<'_>) -> Result<Self, Error> {
        let known = Self::of_status(descriptor).map_err(Error::os("fstat"))?;
        Ok(Self { born: born(descriptor), ..known })
    }

    /// The file that this process has open under this number.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of_number(number: RawFd) -> Result<Self, Error> {
        if number < 0 {
            return Err(Error::Os { call: "fstat", errno: libc::EBADF });
        }
        // SAFETY: it is not -1. It is borrowed for system calls that change nothing. If it is
        // closed or reused meanwhile, they return an error or another answer.
        Self::of(unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// All but the birth time, by `fstat(2)`.
    // The types of these fields differ from system to system.
    #[allow(clippy::cast_lossless, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    fn of_status(descriptor: BorrowedFd<'_>) -> Result<Self, Errno> {
        fstat(descriptor).map(|file| Self {
            device: file.st_dev as u64,
            inode: file.st_ino as u64,
            mode: file.st_mode as u64,
            links: file.st_nlink as u64,
            length: file.st_size as u64,
            born: 0,
        })
    }

    /// Whether both are the same file, as far as both are known.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let born = if self.born == 0 || other.born == 0 { other.born } else { self.born };
        Self { born, ..*self } == *other
    }
}

/// New memory of so many bytes, all zero, and allocated whole: if memory is full, this is an error
/// now (`ENOSPC`), and no SIGBUS later. It has no name. It is a memfd, sealed so that it keeps its
/// length; or else a shared memory object, or a file in the temporary directory, which never had a
/// name or are unlinked at once.
///
/// # Errors
/// [`Error::NoSharedMemory`], with the error of each of them.
pub fn new_memory(bytes: u64) -> Result<OwnedFd, Error> {
    let mut refused = [Refused { way: "", errno: 0 }; 3];
    for (&(way, make), refused) in WAYS.iter().zip(&mut refused) {
        match make(bytes) {
            Ok(descriptor) => return Ok(descriptor),
            Err(errno) => *refused = Refused { way, errno: errno.raw_os_error() },
        }
    }
    Err(Error::NoSharedMemory(refused))
}

/// The longest file that this process may make (`RLIMIT_FSIZE`), in bytes; `None` without a limit.
pub(crate) fn file_size_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Whether there was no memory because so much was asked for: then there may be less.
pub(crate) fn lacks_room(error: Error) -> bool {
    let is_of_room = |errno: i32| {
        let errno = Errno::from_raw_os_error(errno);
        matches!(errno, Errno::FBIG | Errno::NOSPC | Errno::DQUOT | Errno::NOMEM)
    };
    match error {
        // Not every system has three ways.
        Error::NoSharedMemory(refused) => {
            refused.iter().any(|refused| refused.errno != 0 && is_of_room(refused.errno))
        }
        Error::Os { errno, .. } => errno != 0 && is_of_room(errno),
        _ => false,
    }
}

/// An error if this process may not make a file so long. The kernel would send a signal
/// (`SIGXFSZ`), which ends a process that does not handle it. So the systems' folders call this
/// before they give a file its length.
pub(in crate::os) fn check_file_size(bytes: u64) -> Result<(), Errno> {
    match file_size_limit() {
        Some(limit) if bytes > limit => Err(Errno::FBIG),
        _ => Ok(()),
    }
}

/// Makes so many bytes of memory without a name, which processes can share.
pub(in crate::os) type Way = fn(u64) -> Result<OwnedFd, Errno>;

pub(in crate::os) fn unlinked_shared_memory(bytes: u64) -> Result<OwnedFd, Errno> {
    let name = format!("/{}", random_name()?);
    let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
    let descriptor = shm::open(&name, flags, Mode::RUSR | Mode::WUSR)?;
    shm::unlink(&name)?;
    allocate_object(descriptor.as_fd(), bytes)?;
    Ok(descriptor)
}

pub(in crate::os) fn unlinked_file(bytes: u64) -> Result<OwnedFd, Errno> {
    let folder = std::env::temp_dir();
    let path = folder.join(random_name()?);
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(errno)?;
    std::fs::remove_file(&path).map_err(errno)?;
    allocate_file(file.as_fd(), bytes)?;
    Ok(file.into())
}

/// 128 random bits.
pub(crate) fn random() -> Result<[u64; 2], Errno> {
    let one = || {
        getrandom::u64()
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    };
    Ok([one()?, one()?])
}

/// A random name of 24 bytes: macOS takes 30 at most, with a slash before them.
fn random_name() -> Result<String, Errno> {
    random().map(|[a, _]| format!("semlock-{a:016x}"))
}

/// Where an object lives: words of a segment that processes share, and private words of this
/// process. It keeps both mapped.
#[derive(Debug)]
pub(crate) struct Place<T, const SHARED: usize, const PRIVATE: usize> {
    shared: NonNull<[AtomicU64; SHARED]>,
    private: NonNull<[AtomicU64; PRIVATE]>,
    /// The first word of the private memory.
    head: NonNull<AtomicU64>,
    keeps: Arc<T>,
}

/// What a `Place` lies in and keeps alive.
pub(crate) trait Holds {
    fn shared(&self) -> &Shared;
    fn private(&self) -> &Memory;
}

// SAFETY: only atomics reach it, and it keeps what it points to alive.
unsafe impl<T: Send + Sync, const SHARED: usize, const PRIVATE: usize> Send
    for Place<T, SHARED, PRIVATE>
{
}
// SAFETY: as for Send.
unsafe impl<T: Send + Sync, const SHARED: usize, const PRIVATE: usize> Sync
    for Place<T, SHARED, PRIVATE>
{
}

impl<T: Holds, const SHARED: usize, const PRIVATE: usize> Place<T, SHARED, PRIVATE> {
    /// The place that begins at these words; `None` where it would not lie inside.
    pub(crate) fn new(keeps: Arc<T>, shared_at: usize, private_at: usize) -> Option<Self> {
        let shared = first(keeps.shared().words().get(shared_at..)?)?;
        let private = first(keeps.private().words().get(private_at..)?)?;
        let head = NonNull::from(keeps.private().words().first()?);
        Some(Self { shared, private, head, keeps })
    }

    #[inline]
    pub(crate) fn shared(&self) -> &[AtomicU64; SHARED] {
        // SAFETY: it lies in memory of `keeps`, which is mapped as long as that lives.
        unsafe { self.shared.as_ref() }
    }

    #[inline]
    pub(crate) fn private(&self) -> &[AtomicU64; PRIVATE] {
        // SAFETY: as for `shared`.
        unsafe { self.private.as_ref() }
    }

    #[inline]
    pub(crate) fn head(&self) -> &AtomicU64 {
        // SAFETY: as for `shared`.
        unsafe { self.head.as_ref() }
    }

    pub(crate) fn keeps(&self) -> &Arc<T> {
        &self.keeps
    }
}

fn first<const N: usize>(words: &[AtomicU64]) -> Option<NonNull<[AtomicU64; N]>> {
    let words: &[AtomicU64; N] = words.first_chunk()?;
    Some(NonNull::from(words))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const WORDS: usize = 1024;

    #[test]
    fn each_way_gives_memory_of_that_length_without_a_name() {
        for (_, make) in WAYS {
            let descriptor = make((WORDS * WORD) as u64).unwrap();
            assert_eq!(fstat(&descriptor).unwrap().st_nlink, 0);
            let open = || Unproven::map(descriptor.as_fd(), WORDS).unwrap().keep().unwrap();
            let (one, other) = (open(), open());
            one.words()[WORDS - 1].store(7, Ordering::Relaxed);
            assert_eq!(other.words()[WORDS - 1].load(Ordering::Relaxed), 7);
            assert!(matches!(
                Unproven::map(descriptor.as_fd(), WORDS + LARGEST_PAGE / WORD),
                Err(Error::BadSegment(_))
            ));
            assert!(one.file().matches(&other.file()));
            assert!(!one.file().matches(&Shared::create(WORDS).unwrap().file()));
        }
    }

    #[test]
    fn a_descriptor_whose_number_was_reused_is_neither_returned_nor_closed() {
        let shared = Shared::create(WORDS).unwrap();
        let number = shared.descriptor_number();
        assert_eq!(shared.descriptor().unwrap().as_raw_fd(), number);
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        replace(number, file.as_fd());
        // A new one, where the system gives one, is another number.
        assert!(shared.descriptor().is_none_or(|descriptor| descriptor.as_raw_fd() != number));
        shared.words()[3].store(1, Ordering::Relaxed);
        drop(shared);
        // SAFETY: only this test has what `replace` put there.
        let stolen = unsafe { OwnedFd::from_raw_fd(number) };
        assert!(rustix::io::fcntl_getfd(&stolen).is_ok());
    }

    /// Reuses a number, as `os.closerange` and a later `open` would.
    fn replace(number: RawFd, other: BorrowedFd<'_>) {
        // SAFETY: the test's own. A `Shared` checks it before it uses it.
        let mut stolen = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        rustix::io::dup2(other, &mut stolen).unwrap();
    }

    #[test]
    fn another_segment_under_its_number_is_not_its_descriptor() {
        let [lost, other] = [(); 2].map(|()| Shared::create(WORDS).unwrap());
        let number = lost.descriptor_number();
        assert!(lost.has_descriptor() && other.has_descriptor());
        replace(number, other.descriptor().unwrap());
        // It may have a new one, under another number.
        if lost.has_descriptor() {
            assert_ne!(lost.descriptor_number(), number);
            assert!(lost.is_of(lost.descriptor().unwrap()));
        }
        // A read or a write moves the offset.
        seek(other.descriptor().unwrap(), SeekFrom::Start(0)).unwrap();
        assert!(other.has_descriptor());
        // SAFETY: as in `replace`; nothing uses that number any more.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }

    /// Whether a forked child finds all of this zero.
    fn is_wiped_in_a_child(private: &Memory) -> bool {
        // SAFETY: the child only loads, and exits without unwinding or running destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let wiped = private.words().iter().all(|word| word.load(Ordering::Relaxed) == 0);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!wiped)) };
        }
        let pid = rustix::process::Pid::from_raw(child).unwrap();
        let options = rustix::process::WaitOptions::empty();
        let (_, status) = rustix::process::waitpid(Some(pid), options).unwrap().unwrap();
        status.exit_status() == Some(0)
    }

    #[test]
    fn a_forked_child_finds_private_memory_wiped() {
        let private = Memory::wipe_on_fork(1).unwrap();
        private.words()[0].store(5, Ordering::Relaxed);
        assert!(is_wiped_in_a_child(&private));
        assert_eq!(private.words()[0].load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_forked_child_finds_private_memory_wiped_where_the_kernel_does_not_do_it() {
        let make = |words| Memory::private(words, |_, _| Err(Errno::INVAL)).unwrap();
        let all = [1, 5_000, 3, 700].map(make);
        // Entries are used again, and a region that left the list is not wiped.
        let [first, gone, ..] = &all;
        assert!(!first.is_wiped_by_the_kernel() && !gone.is_wiped_by_the_kernel());
        let [first, gone, third, fourth] = all;
        drop(gone);
        let again = make(4_000);
        for private in [&first, &third, &fourth, &again] {
            private.words().iter().for_each(|word| word.store(5, Ordering::Relaxed));
        }
        for private in [&first, &third, &fourth, &again] {
            assert!(is_wiped_in_a_child(private));
            assert!(private.words().iter().all(|word| word.load(Ordering::Relaxed) == 5));
        }
    }

    #[test]
    fn names_are_no_longer_than_any_system_takes() {
        let [one, other] = [(); 2].map(|()| random_name().unwrap());
        assert_ne!(one, other);
        assert!(one.len() < 30);
    }
}

//! Memory that processes share, the memory beside it that they do not, and places in both.

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
/// In bytes, of all systems.
const LARGEST_PAGE: usize = 1 << 16;

/// A mapping, as words; unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<AtomicU64>,
    words: usize,
    /// That a child is to find it wiped, where the kernel does not see to that.
    wiped: Option<Region>,
}

// SAFETY: it is reached through atomics alone, and `munmap` may be called by any thread.
unsafe impl Send for Memory {}
// SAFETY: as for Send.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of this process alone, all zero; and zero again in a child that was forked: by whatever means, where
    /// the kernel sees to that, and else by `fork(3)`.
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
            // SAFETY: our own mapping, whole, of this kind, which is unmapped after it has left the list.
            memory.wiped = Some(unsafe { Region::enter(memory.start, bytes) }?);
        }
        Ok(memory)
    }

    /// Of private memory: whether the kernel wipes it, however a child is made.
    pub(crate) fn is_wiped_by_the_kernel(&self) -> bool {
        self.wiped.is_none()
    }

    /// Maps so many words of what the descriptor is, which has to be as long.
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
        // The kernel maps nothing at 0 unless it is asked to.
        let start = NonNull::new(start).ok_or(Error::Os { call: "mmap", errno: 0 })?;
        Ok(Self { start, words, wiped: None })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped as long as this lives; zeroed memory and whatever another
        // process may have written there are numbers. All access is atomic. (A file that is shorter
        // than its mapping would be SIGBUS: `Shared` allocates and seals, and says where it cannot.)
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // First: see there.
        drop(self.wiped.take());
        // SAFETY: our own mapping, whole, which nobody refers to any more: `words` borrows from this,
        // and a `Place` keeps it alive.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.words * WORD) };
    }
}

/// A piece of memory that other processes can be given, by its descriptor.
#[derive(Debug)]
pub(crate) struct Shared {
    memory: Memory,
    /// The number of its descriptor, which anybody can close, and take for something else.
    descriptor: AtomicU32,
    /// What tells whether the descriptor is still what was opened.
    file: FileId,
    /// Where its descriptor points to in the file that nobody reads or writes, as a mark: no other is likely to point there.
    /// Only of memory that was made here.
    position: Option<u64>,
}

impl Shared {
    /// New memory: see [`new_memory`].
    pub(crate) fn create(words: usize) -> Result<Self, Error> {
        let descriptor = new_memory(u64::try_from(words * WORD).unwrap_or(u64::MAX))?;
        let memory = Memory::shared(descriptor.as_fd(), words)?;
        let position = mark(descriptor.as_fd());
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

    /// The descriptor. If somebody has closed it behind our back, a new one, which some systems give of a mapping; else
    /// there is none.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.open_descriptor().or_else(|| self.reopen())
    }

    /// Whether there still is a descriptor, at a third of the price of `descriptor`: each new object asks.
    pub(crate) fn has_descriptor(&self) -> bool {
        let points_to = || seek(self.borrow_descriptor(), SeekFrom::Current(0)).ok();
        self.position.is_some() && points_to() == self.position || self.descriptor().is_some()
    }

    /// What tells its file from all others.
    pub(crate) fn file(&self) -> FileId {
        self.file
    }

    /// Its number, whatever it is by now.
    pub(crate) fn descriptor_number(&self) -> RawFd {
        self.descriptor.load(Ordering::Relaxed).cast_signed()
    }

    fn borrow_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: it is not -1. Whether it is open, and what it is, the system is asked with it; only what it is then
        // found to be is given to others. Nothing here closes it before this is dropped.
        unsafe { BorrowedFd::borrow_raw(self.descriptor_number()) }
    }

    fn open_descriptor(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.borrow_descriptor();
        self.is_of(descriptor).then_some(descriptor)
    }

    fn is_of(&self, descriptor: BorrowedFd<'_>) -> bool {
        // The file is mapped, so that no other has its number: when it was made need not be asked for.
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
            // It is closed by its number from now on.
            let _ = again.into_raw_fd();
        }
        // Else another thread was faster.
        self.open_descriptor()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // If somebody closed it, the number may be somebody else's by now: that stays open.
        if self.open_descriptor().is_some() {
            // SAFETY: it is what was opened here, or for here, and nobody uses it after this.
            drop(unsafe { OwnedFd::from_raw_fd(self.descriptor_number()) });
        }
    }
}

/// Has a descriptor of a new file point to where no other is likely to; `None` if it cannot.
fn mark(descriptor: BorrowedFd<'_>) -> Option<u64> {
    // Files of all file systems may be longer than that.
    let position = random().ok()?[0] >> 24;
    seek(descriptor, SeekFrom::Start(position)).ok()
}

/// Memory that a descriptor of somebody else's may be, mapped to be looked at.
///
/// Until it is known to be a segment, no descriptor of it is made here. For that would be closed again, and a process that
/// closes any descriptor of a file loses all record locks (`fcntl(2)`) that it has on the file.
#[derive(Debug)]
pub(crate) struct Unproven<'fd> {
    memory: Memory,
    descriptor: BorrowedFd<'fd>,
}

impl<'fd> Unproven<'fd> {
    /// Maps what a descriptor is, if it is at least so many words long.
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

    /// Whether it was made with so many words: a system may have rounded them up to whole pages.
    pub(crate) fn has_length(&self, words: usize) -> bool {
        self.words().len().checked_sub(words).is_some_and(|more| more < LARGEST_PAGE / WORD)
    }

    /// Keeps it, with a descriptor of our own: it is a segment.
    pub(crate) fn keep(self) -> Result<Shared, Error> {
        let own = fcntl_dupfd_cloexec(self.descriptor, 0).map_err(Error::os("fcntl"))?;
        Shared::over(own, self.memory)
    }
}

/// What tells a file from all others, in every process that has it, whatever name or mount it has there.
///
/// Device and inode alone do not: a file system gives the inode of a file that has gone to the next, and on macOS no shared
/// memory object has either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// What kind of file it is, and who may do what with it.
    pub mode: u64,
    /// How many names it has: none, mostly, for memory that is shared.
    pub links: u64,
    /// Its length in bytes.
    pub length: u64,
    /// When it was made, in nanoseconds since 1970; 0 where nobody can tell.
    pub born: u64,
}

impl FileId {
    /// The file that a descriptor refers to. That may be one that only refers to it (`O_PATH`).
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of(descriptor: BorrowedFd<'_>) -> Result<Self, Error> {
        let known = Self::of_status(descriptor).map_err(Error::os("fstat"))?;
        Ok(Self { born: born(descriptor), ..known })
    }

    /// The file that this process has open under a number, which may be anybody's.
    ///
    /// # Errors
    /// As `fstat(2)`.
    pub fn of_number(number: RawFd) -> Result<Self, Error> {
        if number < 0 {
            return Err(Error::Os { call: "fstat", errno: libc::EBADF });
        }
        // SAFETY: it is not -1. It is borrowed for system calls that change nothing, and for which one that is closed, or
        // becomes another's meanwhile, is an error or another answer.
        Self::of(unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// What `fstat(2)` tells.
    #[allow(clippy::cast_lossless, clippy::cast_sign_loss, clippy::unnecessary_cast)] // their types differ, and nobody reckons with them
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

    /// Whether both are of one file, as far as it is told of both.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        let born = if self.born == 0 || other.born == 0 { other.born } else { self.born };
        Self { born, ..*self } == *other
    }
}

/// New memory of so many bytes, all zero, allocated whole: memory that is full says so now (`ENOSPC`), and not as a SIGBUS
/// later. It has no name: a memfd, sealed so that it keeps its length, or else a shared memory object or a file of the temporary
/// directory, which never had one or are unlinked at once.
///
/// # Errors
/// [`Error::NoSharedMemory`], with what each of them said.
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

/// The longest file that this process may make (`RLIMIT_FSIZE`), in bytes; `None` where nothing limits it.
pub(crate) fn file_size_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Whether memory could not be had because so much of it is not there, so that less of it may be.
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

/// Whether a file may become so long. The kernel answers one that becomes longer with a signal (`SIGXFSZ`), which ends a
/// process that does not handle it: so the systems' parts ask here before they give a file its length.
pub(in crate::os) fn check_file_size(bytes: u64) -> Result<(), Errno> {
    match file_size_limit() {
        Some(limit) if bytes > limit => Err(Errno::FBIG),
        _ => Ok(()),
    }
}

/// A way to get so many bytes of memory that can be shared, without a name.
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

/// 128 bits that nobody else gets.
pub(crate) fn random() -> Result<[u64; 2], Errno> {
    let one = || {
        getrandom::u64()
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    };
    Ok([one()?, one()?])
}

/// A name that nobody else has: of 24 bytes, because macOS takes 30 at most, with a slash before them.
fn random_name() -> Result<String, Errno> {
    random().map(|[a, _]| format!("semlock-{a:016x}"))
}

/// Where an object lives: words of a segment that processes share, and words beside it that are this
/// process's alone. It keeps both alive.
#[derive(Debug)]
pub(crate) struct Place<T, const SHARED: usize, const PRIVATE: usize> {
    shared: NonNull<[AtomicU64; SHARED]>,
    private: NonNull<[AtomicU64; PRIVATE]>,
    /// The first word of the private memory.
    head: NonNull<AtomicU64>,
    keeps: Arc<T>,
}

/// What a `Place` is in, and keeps alive.
pub(crate) trait Holds {
    fn shared(&self) -> &Shared;
    fn private(&self) -> &Memory;
}

// SAFETY: it is reached through atomics alone, and keeps what it points to alive.
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
    fn a_number_that_became_somebody_elses_is_neither_handed_out_nor_closed() {
        let shared = Shared::create(WORDS).unwrap();
        let number = shared.descriptor_number();
        assert_eq!(shared.descriptor().unwrap().as_raw_fd(), number);
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        replace(number, file.as_fd());
        // A new one, where the system gives one, is another number.
        assert!(shared.descriptor().is_none_or(|descriptor| descriptor.as_raw_fd() != number));
        shared.words()[3].store(1, Ordering::Relaxed);
        drop(shared);
        // SAFETY: what `replace` put there is nobody else's.
        let stolen = unsafe { OwnedFd::from_raw_fd(number) };
        assert!(rustix::io::fcntl_getfd(&stolen).is_ok());
    }

    /// Makes a number something else, as `os.closerange` and an `open` afterwards would.
    fn replace(number: RawFd, other: BorrowedFd<'_>) {
        // SAFETY: the test's own, of `shared`s that look at it before they use it.
        let mut stolen = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
        rustix::io::dup2(other, &mut stolen).unwrap();
    }

    #[test]
    fn another_segment_under_its_number_is_not_its_descriptor() {
        let [lost, other] = [(); 2].map(|()| Shared::create(WORDS).unwrap());
        let number = lost.descriptor_number();
        assert!(lost.has_descriptor() && other.has_descriptor());
        replace(number, other.descriptor().unwrap());
        // It may have got a new one, under another number.
        if lost.has_descriptor() {
            assert_ne!(lost.descriptor_number(), number);
            assert!(lost.is_of(lost.descriptor().unwrap()));
        }
        // Whoever reads or writes it moves where it points to.
        seek(other.descriptor().unwrap(), SeekFrom::Start(0)).unwrap();
        assert!(other.has_descriptor());
        // SAFETY: as in `replace`; nobody has that number any more.
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
        // Entries are used again, and what has left the list is left alone.
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

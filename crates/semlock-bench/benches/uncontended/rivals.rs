//! The system's locks between processes, as a C program has them: in shared memory, every call
//! checked.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// Panics unless a call that answers 0 for success has succeeded.
#[track_caller]
fn check(answer: c_int) {
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
}

/// Memory for one `T`, shared with children, that nobody has written yet.
struct Shared<T>(ptr::NonNull<T>);

impl<T> Shared<T> {
    fn new() -> Self {
        // SAFETY: the kernel chooses where; nothing that is mapped already is touched.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(ptr::NonNull::new(memory.cast()).expect("mmap answers an address"))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this, and its only pointer goes now.
        check(unsafe { libc::munmap(self.get().cast(), size_of::<T>()) });
    }
}

/// A process-shared `sem_t` of one permit.
pub struct Semaphore(Shared<libc::sem_t>);

impl Semaphore {
    pub fn new() -> Self {
        let shared = Shared::new();
        // SAFETY: the memory is ours, writable and aligned (to a page), and no semaphore yet.
        check(unsafe { libc::sem_init(shared.get(), 1, 1) });
        Self(shared)
    }

    #[inline]
    pub fn wait(&self) {
        // SAFETY: `new` made it a semaphore, and it is one until it is unmapped.
        check(unsafe { libc::sem_wait(self.0.get()) });
    }

    #[inline]
    pub fn post(&self) {
        // SAFETY: as for `wait`.
        check(unsafe { libc::sem_post(self.0.get()) });
    }
}

/// A robust, process-shared `pthread_mutex_t`.
pub struct RobustMutex(Shared<libc::pthread_mutex_t>);

impl RobustMutex {
    pub fn new() -> Self {
        let shared = Shared::new();
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `init` makes `attributes` valid for all that follows; the mutex's memory is
        // ours, writable and aligned (to a page), and no mutex yet.
        unsafe {
            check(libc::pthread_mutexattr_init(attributes));
            check(libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED));
            check(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST));
            check(libc::pthread_mutex_init(shared.get(), attributes));
            check(libc::pthread_mutexattr_destroy(attributes));
        }
        Self(shared)
    }

    #[inline]
    pub fn lock(&self) {
        // SAFETY: `new` made it a mutex, and it is one until it is unmapped.
        check(unsafe { libc::pthread_mutex_lock(self.0.get()) });
    }

    #[inline]
    pub fn unlock(&self) {
        // SAFETY: as for `lock`; robust mutexes check that the caller holds them.
        check(unsafe { libc::pthread_mutex_unlock(self.0.get()) });
    }
}

/// Whom an `fcntl` lock belongs to, and with whom it goes.
#[derive(Clone, Copy)]
pub enum Whose {
    OpenFile,
    Process,
}

/// A lock on a file, which is in memory: no disk is measured.
pub struct FileLock {
    file: OwnedFd,
    command: c_int,
}

impl FileLock {
    pub fn new(whose: Whose) -> Self {
        // SAFETY: the name is a C string.
        let descriptor = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(descriptor >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: it was opened just now, and nobody else knows it.
        let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let command = match whose {
            Whose::OpenFile => libc::F_OFD_SETLKW,
            Whose::Process => libc::F_SETLKW,
        };
        Self { file, command }
    }

    #[inline]
    pub fn lock(&self) {
        self.set(libc::F_WRLCK);
    }

    #[inline]
    pub fn unlock(&self) {
        self.set(libc::F_UNLCK);
    }

    #[inline]
    fn set(&self, kind: c_int) {
        // The whole file. A pid of 0 is what locks of an open file demand.
        let range = libc::flock {
            l_type: kind.try_into().expect("the kinds are small"),
            l_whence: 0,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        // SAFETY: the descriptor is open, and these commands read a `flock`, which lives on.
        check(unsafe { libc::fcntl(self.file.as_raw_fd(), self.command, &raw const range) });
    }
}

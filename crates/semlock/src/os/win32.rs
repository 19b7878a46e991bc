//! Windows's semaphores: `CreateSemaphoreW`.
//!
//! [`Sem`] owns a handle. A table of the open ones turns a handle's number back into an owner, so that each is closed
//! exactly once; a number that is not in it can be one that this process was started with, or that another process
//! duplicated into it, and is taken over if it is a semaphore's.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use windows_sys::Win32::Foundation::{
    ERROR_TOO_MANY_POSTS, HANDLE, WAIT_FAILED, WAIT_OBJECT_0, WAIT_TIMEOUT,
};
use windows_sys::Win32::System::Threading::{
    CreateSemaphoreW, ReleaseSemaphore, WaitForMultipleObjectsEx, WaitForSingleObjectEx,
};

/// What `GetLastError` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastError(pub(crate) i32);

impl LastError {
    fn get() -> Self {
        // There is always a number in an error that was made from one.
        Self(io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    pub(crate) fn is_too_many_posts(self) -> bool {
        self.0.cast_unsigned() == ERROR_TOO_MANY_POSTS
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Taken,
    /// The event that it waited for besides was signalled.
    Interrupted,
    TimedOut,
}

/// An open semaphore. Clones share it; the last one closes it.
#[derive(Clone, Debug)]
pub(crate) struct Sem(Arc<OwnedHandle>);

/// The semaphores that this process has open, by handle.
fn open() -> MutexGuard<'static, BTreeMap<usize, Weak<OwnedHandle>>> {
    static OPEN: Mutex<BTreeMap<usize, Weak<OwnedHandle>>> = Mutex::new(BTreeMap::new());
    // A panic in here leaves the map whole: it is changed by single calls only.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    /// What a semaphore is at; fails where the handle is none, or something else's.
    fn NtQuerySemaphore(
        handle: HANDLE,
        class: u32,
        information: *mut [i32; 2],
        length: u32,
        returned: *mut u32,
    ) -> i32;
}

fn is_semaphore(handle: RawHandle) -> bool {
    let mut counts = [0; 2];
    // SAFETY: any number can be asked about; what is asked for (class 0) are two numbers of 32 bits, the value
    // and the greatest one, for which there is room.
    unsafe { NtQuerySemaphore(handle, 0, &raw mut counts, 8, ptr::null_mut()) == 0 }
}

impl Sem {
    /// `CreateSemaphoreW`, without a name: it is reached by handles alone.
    pub(crate) fn create(value: i32, maxvalue: i32) -> Result<Self, LastError> {
        // SAFETY: without attributes and a name nothing is read.
        let handle = unsafe { CreateSemaphoreW(ptr::null(), value, maxvalue, ptr::null()) };
        if handle.is_null() {
            return Err(LastError::get());
        }
        // SAFETY: a new handle, nobody else's.
        Ok(Self::register(&mut open(), unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    /// The semaphore of this handle: one that is open here, or one that was handed to this process, which is taken over.
    pub(crate) fn from_handle(number: usize) -> Option<Self> {
        let mut open = open();
        if let Some(known) = open.get(&number).and_then(Weak::upgrade) {
            return Some(Self(known));
        }
        let handle: RawHandle = ptr::without_provenance_mut::<c_void>(number);
        // SAFETY: a semaphore's handle that no `Sem` has: whoever passes its number passes the handle.
        is_semaphore(handle)
            .then(|| Self::register(&mut open, unsafe { OwnedHandle::from_raw_handle(handle) }))
    }

    fn register(open: &mut BTreeMap<usize, Weak<OwnedHandle>>, handle: OwnedHandle) -> Self {
        // Numbers of handles that were closed are used again.
        open.retain(|_, known| known.strong_count() > 0);
        let sem = Self(Arc::new(handle));
        open.insert(sem.handle(), Arc::downgrade(&sem.0));
        sem
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.as_raw_handle().addr()
    }

    /// True if a permit was taken.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, LastError> {
        // SAFETY: an open handle while `self` lives; so in every method below.
        match unsafe { WaitForSingleObjectEx(self.0.as_raw_handle(), 0, 0) } {
            WAIT_OBJECT_0 => Ok(true),
            WAIT_TIMEOUT => Ok(false),
            _ => Err(LastError::get()),
        }
    }

    /// Waits for so many milliseconds at most, and for an event besides.
    pub(crate) fn wait(
        &self,
        milliseconds: u32,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Waited, LastError> {
        let mut handles = [self.0.as_raw_handle(), ptr::null_mut()];
        let mut count = 1;
        if let Some(event) = event {
            handles[1] = event.as_raw_handle();
            count = 2;
        }
        // SAFETY: so many open handles; the second one as long as it is borrowed.
        let result =
            unsafe { WaitForMultipleObjectsEx(count, handles.as_ptr(), 0, milliseconds, 0) };
        match result {
            WAIT_OBJECT_0 => Ok(Waited::Taken),
            WAIT_TIMEOUT => Ok(Waited::TimedOut),
            WAIT_FAILED => Err(LastError::get()),
            _ => Ok(Waited::Interrupted),
        }
    }

    /// `ReleaseSemaphore` of one; the value before.
    #[inline]
    pub(crate) fn post(&self) -> Result<i32, LastError> {
        let mut before = 0;
        // SAFETY: an open handle, and a place for a number.
        let done = unsafe { ReleaseSemaphore(self.0.as_raw_handle(), 1, &raw mut before) };
        if done == 0 { Err(LastError::get()) } else { Ok(before) }
    }
}

//! Windows's semaphores, mutexes and events: `CreateSemaphoreW`, `CreateMutexW`, `CreateEventW`.
//!
//! [`Sem`], [`Mutant`] and [`Flag`] own a handle. A table of the open ones turns a handle's number
//! back into an owner, so that each is closed exactly once. A number that is not in the table may
//! be a handle that this process inherited, or that another process duplicated into it. It is taken
//! over if it is of the kind that the caller asks for.

use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::mem::ManuallyDrop;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use windows_sys::Win32::Foundation::{
    ERROR_NOT_OWNER, ERROR_TOO_MANY_POSTS, HANDLE, WAIT_ABANDONED_0, WAIT_FAILED, WAIT_OBJECT_0,
    WAIT_TIMEOUT,
};
use windows_sys::Win32::System::Threading::{
    CreateEventW, CreateMutexW, CreateSemaphoreW, ReleaseMutex, ReleaseSemaphore, ResetEvent,
    SetEvent, WaitForMultipleObjectsEx, WaitForSingleObjectEx,
};

/// What `GetLastError` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastError(pub(crate) i32);

impl LastError {
    fn get() -> Self {
        // `last_os_error` always has a number.
        Self(io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    pub(crate) fn is_too_many_posts(self) -> bool {
        self.0.cast_unsigned() == ERROR_TOO_MANY_POSTS
    }

    pub(crate) fn is_not_owner(self) -> bool {
        self.0.cast_unsigned() == ERROR_NOT_OWNER
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Taken,
    /// It took a mutex whose last owner, a thread, ended while it held it.
    Abandoned,
    /// The event that it also waited for was set.
    Interrupted,
    TimedOut,
}

/// A handle. Clones share it; the last one closes it.
type Handle = Arc<Registered>;
type Table = HashMap<usize, Weak<Registered>>;

/// What this process has open, by number.
fn open() -> MutexGuard<'static, Table> {
    static OPEN: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);
    // A panic while it is locked leaves the map whole: only single calls change it.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle that is in the table until it is closed. It leaves the table and is closed under the
/// table's mutex, because the system reuses its number after that.
#[derive(Debug)]
struct Registered(ManuallyDrop<OwnedHandle>);

impl Registered {
    fn new(open: &mut Table, handle: OwnedHandle) -> Handle {
        let number = handle.as_raw_handle().addr();
        let handle = Arc::new(Self(ManuallyDrop::new(handle)));
        open.insert(number, Arc::downgrade(&handle));
        handle
    }

    fn as_raw_handle(&self) -> RawHandle {
        self.0.as_raw_handle()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = open();
        open.remove(&self.as_raw_handle().addr());
        // SAFETY: nothing uses it after this.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}

/// Takes over a handle that a call has just created.
///
/// # Safety
/// `handle` is null, and the last error is set; or it is a new handle that nothing else owns.
unsafe fn created(handle: HANDLE) -> Result<Handle, LastError> {
    if handle.is_null() {
        return Err(LastError::get());
    }
    // SAFETY: as for this function.
    Ok(Registered::new(&mut open(), unsafe { OwnedHandle::from_raw_handle(handle) }))
}

/// The handle with this number: one that is in the table, or one that this process was given, which
/// is taken over.
fn from_number(number: usize, query: Query) -> Option<Handle> {
    let mut open = open();
    let handle: RawHandle = ptr::without_provenance_mut::<c_void>(number);
    // Also for one that is in the table: it may be of another kind.
    ask(handle, query)?;
    if let Some(known) = open.get(&number) {
        // Without an owner it is about to be closed.
        return known.upgrade();
    }
    // SAFETY: a handle of that kind, which is not in the table. A caller that passes its number
    // gives the handle away.
    Some(Registered::new(&mut open, unsafe { OwnedHandle::from_raw_handle(handle) }))
}

/// A function that returns the state of an object. It fails for what is no handle, or one of
/// another kind.
type Query = unsafe extern "system" fn(HANDLE, u32, *mut [i32; 2], u32, *mut u32) -> i32;

#[link(name = "ntdll", kind = "raw-dylib")]
unsafe extern "system" {
    /// The value, and the greatest value.
    fn NtQuerySemaphore(
        handle: HANDLE,
        class: u32,
        information: *mut [i32; 2],
        length: u32,
        returned: *mut u32,
    ) -> i32;

    /// 1 minus the times that it is held; and two bytes: whether the calling thread holds it, and
    /// whether its last owner ended.
    fn NtQueryMutant(
        handle: HANDLE,
        class: u32,
        information: *mut [i32; 2],
        length: u32,
        returned: *mut u32,
    ) -> i32;

    /// Whether it resets itself, and whether it is set.
    fn NtQueryEvent(
        handle: HANDLE,
        class: u32,
        information: *mut [i32; 2],
        length: u32,
        returned: *mut u32,
    ) -> i32;
}

fn ask(handle: RawHandle, query: Query) -> Option<[i32; 2]> {
    let mut answer = [0; 2];
    // SAFETY: these functions take any number. What each of them returns as class 0 has eight
    // bytes, for which there is room.
    let status = unsafe { query(handle, 0, &raw mut answer, 8, ptr::null_mut()) };
    (status == 0).then_some(answer)
}

/// Waits for so many milliseconds at most, and also for an event.
fn wait(
    handle: &Registered,
    milliseconds: u32,
    event: Option<BorrowedHandle<'_>>,
) -> Result<Waited, LastError> {
    let mut handles = [handle.as_raw_handle(), ptr::null_mut()];
    let mut count = 1;
    if let Some(event) = event {
        handles[1] = event.as_raw_handle();
        count = 2;
    }
    // SAFETY: so many handles, which are open while they are borrowed.
    let result = unsafe { WaitForMultipleObjectsEx(count, handles.as_ptr(), 0, milliseconds, 0) };
    match result {
        WAIT_OBJECT_0 => Ok(Waited::Taken),
        WAIT_ABANDONED_0 => Ok(Waited::Abandoned),
        WAIT_TIMEOUT => Ok(Waited::TimedOut),
        WAIT_FAILED => Err(LastError::get()),
        _ => Ok(Waited::Interrupted),
    }
}

/// The result of a call that returns 0 where it fails.
fn succeeded(result: i32) -> Result<(), LastError> {
    if result == 0 { Err(LastError::get()) } else { Ok(()) }
}

/// An open semaphore.
#[derive(Clone, Debug)]
pub(crate) struct Sem(Handle);

impl Sem {
    /// `CreateSemaphoreW`, without a name: only handles reach it.
    pub(crate) fn create(value: i32, maxvalue: i32) -> Result<Self, LastError> {
        // SAFETY: without attributes and a name it reads nothing; what it returns is new.
        unsafe { created(CreateSemaphoreW(ptr::null(), value, maxvalue, ptr::null())) }.map(Self)
    }

    pub(crate) fn from_handle(number: usize) -> Option<Self> {
        from_number(number, NtQuerySemaphore).map(Self)
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.as_raw_handle().addr()
    }

    /// True if it took a permit.
    #[inline]
    pub(crate) fn try_wait(&self) -> Result<bool, LastError> {
        // SAFETY: an open handle while `self` lives; so in every method below.
        match unsafe { WaitForSingleObjectEx(self.0.as_raw_handle(), 0, 0) } {
            WAIT_OBJECT_0 => Ok(true),
            WAIT_TIMEOUT => Ok(false),
            _ => Err(LastError::get()),
        }
    }

    pub(crate) fn wait(
        &self,
        milliseconds: u32,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Waited, LastError> {
        wait(&self.0, milliseconds, event)
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

/// An open mutex, which the thread that waits for it owns. (The system's own name, because `Mutex`
/// is std's.)
#[derive(Clone, Debug)]
pub(crate) struct Mutant(Handle);

/// How often it is held, and whether by the calling thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) times: u32,
    pub(crate) by_caller: bool,
}

impl Mutant {
    /// `CreateMutexW`, without a name and without an owner.
    pub(crate) fn create() -> Result<Self, LastError> {
        // SAFETY: without attributes and a name it reads nothing; what it returns is new.
        unsafe { created(CreateMutexW(ptr::null(), 0, ptr::null())) }.map(Self)
    }

    pub(crate) fn from_handle(number: usize) -> Option<Self> {
        from_number(number, NtQueryMutant).map(Self)
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.as_raw_handle().addr()
    }

    pub(crate) fn held(&self) -> Held {
        // It is open and of this kind: the call does not fail.
        let [free, flags] = ask(self.0.as_raw_handle(), NtQueryMutant).unwrap_or([1, 0]);
        let times = u32::try_from(1 - i64::from(free)).unwrap_or_default();
        Held { times, by_caller: flags.to_ne_bytes()[0] != 0 }
    }

    pub(crate) fn wait(
        &self,
        milliseconds: u32,
        event: Option<BorrowedHandle<'_>>,
    ) -> Result<Waited, LastError> {
        wait(&self.0, milliseconds, event)
    }

    pub(crate) fn release(&self) -> Result<(), LastError> {
        // SAFETY: an open handle while `self` lives.
        succeeded(unsafe { ReleaseMutex(self.0.as_raw_handle()) })
    }
}

/// An open event, used as a flag.
#[derive(Clone, Debug)]
pub(crate) struct Flag(Handle);

impl Flag {
    /// `CreateEventW`, without a name. It does not reset itself, and is not set.
    pub(crate) fn create() -> Result<Self, LastError> {
        // SAFETY: without attributes and a name it reads nothing; what it returns is new.
        unsafe { created(CreateEventW(ptr::null(), 1, 0, ptr::null())) }.map(Self)
    }

    pub(crate) fn from_handle(number: usize) -> Option<Self> {
        from_number(number, NtQueryEvent).map(Self)
    }

    pub(crate) fn handle(&self) -> usize {
        self.0.as_raw_handle().addr()
    }

    pub(crate) fn is_set(&self) -> bool {
        // It is open and of this kind: the call does not fail.
        ask(self.0.as_raw_handle(), NtQueryEvent).is_some_and(|[_, set]| set != 0)
    }

    pub(crate) fn set(&self) -> Result<(), LastError> {
        // SAFETY: an open handle while `self` lives; so below.
        succeeded(unsafe { SetEvent(self.0.as_raw_handle()) })
    }

    pub(crate) fn reset(&self) -> Result<(), LastError> {
        // SAFETY: as above.
        succeeded(unsafe { ResetEvent(self.0.as_raw_handle()) })
    }
}

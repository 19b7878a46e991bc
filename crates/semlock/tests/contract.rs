//! What a `SemLock` promises, through its public face alone.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use semlock::{Deadline, Error, HAS_VALUE, Kind, Name, Naming, SEM_VALUE_MAX, SemLock, Wait};

fn unique() -> Name {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Name::new(&format!("/semlock-contract-{}-{count}", std::process::id())).unwrap()
}

fn unnamed(kind: Kind, value: u32, maxvalue: i32) -> SemLock {
    SemLock::create(kind, value, maxvalue, &unique(), Naming::Unlink).unwrap()
}

/// The value; where the operating system cannot tell it, what can be taken, and is given back.
fn value(lock: &SemLock) -> i32 {
    if HAS_VALUE {
        return lock.value().unwrap();
    }
    assert_eq!(lock.value(), Err(Error::ValueUnavailable));
    let same = SemLock::rebuild_from_handle(lock.handle(), Kind::Semaphore, SEM_VALUE_MAX).unwrap();
    let mut taken = 0;
    while same.try_acquire().unwrap() {
        taken += 1;
    }
    for _ in 0..taken {
        same.release().unwrap();
    }
    taken
}

#[cfg(unix)]
fn errno(error: Error) -> i32 {
    match error {
        Error::Os { errno, .. } => errno,
        other => panic!("not the operating system's: {other:?}"),
    }
}

#[test]
fn a_semaphore_gives_as_many_permits_as_it_has() {
    let lock = unnamed(Kind::Semaphore, 2, 2);
    assert!(lock.try_acquire().unwrap());
    assert_eq!((value(&lock), lock.count()), (1, 1));
    assert!(!lock.is_zero().unwrap());
    assert!(lock.try_acquire().unwrap());
    assert!(!lock.try_acquire().unwrap());
    assert!(lock.is_zero().unwrap());
    lock.release().unwrap();
    lock.release().unwrap();
    assert_eq!((value(&lock), lock.count()), (2, 0));
}

#[test]
fn a_semaphore_is_not_released_above_its_greatest_value() {
    let lock = unnamed(Kind::Semaphore, 1, 1);
    assert_eq!(lock.release(), Err(Error::ReleasedTooManyTimes));
    assert_eq!((value(&lock), lock.count()), (1, 0));
}

#[test]
#[cfg(unix)]
fn a_semaphore_can_begin_above_its_greatest_value() {
    let lock = unnamed(Kind::Semaphore, 20, 10);
    assert_eq!((value(&lock), lock.maxvalue()), (20, 10));
    // As in CPython, a greatest value of more than one is kept only where the value can be read.
    let released = if HAS_VALUE { Err(Error::ReleasedTooManyTimes) } else { Ok(()) };
    assert_eq!(lock.release(), released);
    assert_eq!(value(&lock), if HAS_VALUE { 20 } else { 21 });
}

#[test]
fn anyone_can_release_a_semaphore_that_another_thread_took() {
    let lock = unnamed(Kind::Semaphore, 1, 1);
    lock.acquire().unwrap();
    assert!(lock.is_mine());
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!lock.is_mine());
            lock.release().unwrap();
        });
    });
    assert_eq!((value(&lock), lock.count()), (1, 0));
}

#[test]
fn a_recursive_mutex_is_free_after_as_many_releases_as_acquires() {
    let lock = unnamed(Kind::RecursiveMutex, 1, 1);
    for count in 1..=3 {
        lock.acquire().unwrap();
        assert_eq!((lock.count(), value(&lock)), (count, 0));
    }
    assert_eq!(lock.wait(Deadline::NEVER).unwrap(), Wait::Acquired);
    assert!(lock.acquire_until(Deadline::after(Duration::ZERO)).unwrap());
    for count in (0..5).rev() {
        assert!(lock.is_mine());
        lock.release().unwrap();
        assert_eq!(lock.count(), count);
    }
    assert!(!lock.is_mine());
    assert_eq!(value(&lock), 1);
    assert_eq!(lock.release(), Err(Error::NotOwner));
}

#[test]
fn a_recursive_mutex_is_closed_to_other_threads() {
    let lock = unnamed(Kind::RecursiveMutex, 1, 1);
    lock.acquire().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!lock.is_mine());
            assert!(!lock.try_acquire().unwrap());
            assert_eq!(lock.release(), Err(Error::NotOwner));
        });
    });
    lock.release().unwrap();
}

#[test]
fn a_lock_excludes_all_others_and_counts_all() {
    for kind in [Kind::Semaphore, Kind::RecursiveMutex] {
        let lock = unnamed(kind, 1, 1);
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        lock.acquire().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        assert!(lock.is_mine());
                        inside.fetch_sub(1, Ordering::Relaxed);
                        lock.release().unwrap();
                    }
                });
            }
        });
        assert_eq!((value(&lock), lock.count()), (1, 0));
    }
}

#[test]
fn a_deadline_is_not_missed_by_coming_early() {
    let lock = unnamed(Kind::Semaphore, 0, 1);
    let timeout = Duration::from_millis(40);
    let start = Instant::now();
    assert!(!lock.acquire_until(Deadline::after(timeout)).unwrap());
    assert!(start.elapsed() >= timeout);
}

#[test]
fn a_waiter_is_woken_by_a_release() {
    for deadline in [Deadline::NEVER, Deadline::after(Duration::from_secs(100))] {
        let lock = unnamed(Kind::Semaphore, 0, 1);
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                assert!(lock.acquire_until(deadline).unwrap());
            });
            start.wait();
            lock.release().unwrap();
        });
        assert_eq!(value(&lock), 0);
    }
}

#[test]
fn a_forked_child_holds_nothing() {
    let lock = unnamed(Kind::RecursiveMutex, 1, 1);
    lock.acquire().unwrap();
    lock.after_fork();
    assert!(!lock.is_mine());
    assert_eq!((lock.count(), value(&lock)), (0, 0));
}

#[test]
#[cfg(unix)]
fn a_name_is_kept_until_it_is_unlinked() {
    let name = unique();
    let lock = SemLock::create(Kind::Semaphore, 1, 1, &name, Naming::Keep).unwrap();
    assert_eq!(lock.name(), Some(&name));
    let same = SemLock::rebuild(Kind::Semaphore, 1, &name).unwrap();
    lock.acquire().unwrap();
    assert!(same.is_zero().unwrap());
    assert_eq!(same.count(), 0);
    for naming in [Naming::Keep, Naming::Unlink] {
        let taken = SemLock::create(Kind::Semaphore, 1, 1, &name, naming).unwrap_err();
        assert_eq!(errno(taken), libc::EEXIST);
    }
    semlock::unlink(&name).unwrap();
    assert_eq!(errno(semlock::unlink(&name).unwrap_err()), libc::ENOENT);
    let gone = SemLock::rebuild(Kind::Semaphore, 1, &name).unwrap_err();
    assert_eq!(errno(gone), libc::ENOENT);
    // Processes that have it open keep it.
    same.release().unwrap();
    assert!(lock.try_acquire().unwrap());
}

#[test]
fn a_handle_is_good_while_its_semaphore_is_open_and_no_longer() {
    let lock = unnamed(Kind::Semaphore, 1, 1);
    let handle = lock.handle();
    let same = SemLock::rebuild_from_handle(handle, Kind::Semaphore, 1).unwrap();
    drop(lock);
    same.acquire().unwrap();
    assert_eq!(same.handle(), handle);
    drop(same);
    for handle in [handle, 0, 1, usize::MAX] {
        let error = SemLock::rebuild_from_handle(handle, Kind::Semaphore, 1).unwrap_err();
        assert_eq!(error, Error::UnknownHandle(handle));
    }
}

#[test]
#[cfg(unix)]
fn impossible_names_and_values_are_refused_and_leave_nothing() {
    assert_eq!(Name::new("a\0b"), Err(Error::NulInName));
    for naming in [Naming::Keep, Naming::Unlink] {
        for name in ["", "/", "/a/b", &format!("/{}", "a".repeat(300))] {
            let name = Name::new(name).unwrap();
            let error = SemLock::create(Kind::Semaphore, 1, 1, &name, naming).unwrap_err();
            assert!([libc::EINVAL, libc::ENAMETOOLONG].contains(&errno(error)), "{name:?}");
        }
        let name = unique();
        for value in [SEM_VALUE_MAX.cast_unsigned() + 1, u32::MAX] {
            let error = SemLock::create(Kind::Semaphore, value, 1, &name, naming).unwrap_err();
            assert_eq!(errno(error), libc::EINVAL);
        }
        let gone = SemLock::rebuild(Kind::Semaphore, 1, &name).unwrap_err();
        assert_eq!(errno(gone), libc::ENOENT);
    }
    assert_eq!(Kind::try_from(7), Err(Error::UnrecognizedKind));
}

#[test]
#[cfg(unix)]
fn a_name_needs_no_slash() {
    let name = Name::new(&format!("semlock-contract-{}", std::process::id())).unwrap();
    let lock = SemLock::create(Kind::Semaphore, 1, 1, &name, Naming::Keep).unwrap();
    semlock::unlink(&name).unwrap();
    assert_eq!(value(&lock), 1);
}

/// Its semaphores have a greatest value of their own, and no names.
#[test]
#[cfg(windows)]
fn on_windows_the_system_keeps_the_greatest_value_and_a_name_is_no_ones() {
    let name = unique();
    let refused = |value, maxvalue| {
        let result = SemLock::create(Kind::Semaphore, value, maxvalue, &name, Naming::Keep);
        assert!(matches!(result, Err(Error::Os { call: "CreateSemaphore", errno: 87 })));
    };
    refused(20, 10);
    refused(0, 0);
    refused(1, -1);
    refused(SEM_VALUE_MAX.cast_unsigned() + 1, SEM_VALUE_MAX);
    let [one, other] = [0, 1]
        .map(|value| SemLock::create(Kind::Semaphore, value, 1, &name, Naming::Keep).unwrap());
    assert_eq!((one.value().unwrap(), other.value().unwrap()), (0, 1));
    assert_eq!(one.name(), Some(&name));
    // A mutex that is not held is not given back either.
    let mutex = unnamed(Kind::RecursiveMutex, 1, 1);
    assert_eq!(mutex.release(), Err(Error::NotOwner));
    assert_eq!(Kind::try_from(7), Err(Error::UnrecognizedKind));
}

#[test]
#[cfg(windows)]
#[allow(unsafe_code)]
fn on_windows_an_event_ends_a_wait_and_takes_no_permit() {
    use std::os::windows::io::{AsHandle, FromRawHandle, OwnedHandle};
    use std::ptr;
    use windows_sys::Win32::System::Threading::{CreateEventW, ResetEvent, SetEvent};

    let lock = unnamed(Kind::Semaphore, 0, 1);
    // SAFETY: without attributes and a name nothing is read; the handle is new.
    let event =
        unsafe { OwnedHandle::from_raw_handle(CreateEventW(ptr::null(), 1, 0, ptr::null())) };
    let raw = std::os::windows::io::AsRawHandle::as_raw_handle(&event);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| lock.wait_or(Deadline::NEVER, Some(event.as_handle())));
        // SAFETY: an open handle.
        assert_ne!(unsafe { SetEvent(raw) }, 0);
        assert_eq!(waiter.join().unwrap(), Ok(Wait::Interrupted));
    });
    // SAFETY: an open handle.
    assert_ne!(unsafe { ResetEvent(raw) }, 0);
    let soon = Deadline::after(Duration::from_millis(5));
    assert_eq!(lock.wait_or(soon, Some(event.as_handle())), Ok(Wait::TimedOut));
    lock.release().unwrap();
    assert_eq!(lock.wait_or(Deadline::NEVER, Some(event.as_handle())), Ok(Wait::Acquired));
}

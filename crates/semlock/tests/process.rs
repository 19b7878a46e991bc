//! One semaphore, two processes: this test program starts itself again as the other.

use std::env;
use std::process::{Command, Stdio};

use semlock::{Deadline, Kind, Name, Naming, SemLock};
use std::time::Duration;

const ROUNDS: u32 = 1_000;
const SEMAPHORES: &str = "SEMLOCK_TEST_SEMAPHORES";

fn create(name: &str) -> SemLock {
    let name = Name::new(&format!("/semlock-process-{}-{name}", std::process::id())).unwrap();
    SemLock::create(Kind::Semaphore, 0, 1, &name, Naming::Keep).unwrap()
}

/// What a child can open it by: its name.
#[cfg(unix)]
fn pass(lock: &SemLock) -> String {
    lock.name().unwrap().as_c_str().to_str().unwrap().to_owned()
}

#[cfg(unix)]
fn receive(passed: &str) -> SemLock {
    SemLock::rebuild(Kind::Semaphore, 1, &Name::new(passed).unwrap()).unwrap()
}

#[cfg(unix)]
fn forget(lock: &SemLock) {
    semlock::unlink(lock.name().unwrap()).unwrap();
}

/// What a child can open it by: its handle, which it inherits under the same number.
#[cfg(windows)]
#[allow(unsafe_code)]
fn pass(lock: &SemLock) -> String {
    use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};

    let handle = std::ptr::without_provenance_mut(lock.handle());
    // SAFETY: a handle that is open as long as the lock is there.
    let done = unsafe { SetHandleInformation(handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) };
    assert_ne!(done, 0);
    lock.handle().to_string()
}

#[cfg(windows)]
fn receive(passed: &str) -> SemLock {
    SemLock::rebuild_from_handle(passed.parse().unwrap(), Kind::Semaphore, 1).unwrap()
}

#[cfg(windows)]
fn forget(_: &SemLock) {}

fn take(lock: &SemLock) {
    // A watchdog, so that a lost wake-up is a failure and not a hang.
    assert!(lock.acquire_until(Deadline::after(Duration::from_secs(60))).unwrap());
}

#[test]
fn a_token_goes_to_and_fro_between_processes() {
    if let Ok(passed) = env::var(SEMAPHORES) {
        let [there, back] = passed.split(' ').collect::<Vec<_>>()[..] else { panic!("{passed}") };
        let (there, back) = (receive(there), receive(back));
        for _ in 0..ROUNDS {
            take(&there);
            back.release().unwrap();
        }
        return;
    }
    let (there, back) = (create("there"), create("back"));
    let passed = [&there, &back].map(pass);
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_token_goes_to_and_fro_between_processes"])
        .env(SEMAPHORES, passed.join(" "))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let played = std::panic::catch_unwind(|| {
        for _ in 0..ROUNDS {
            there.release().unwrap();
            take(&back);
        }
    });
    for lock in [&there, &back] {
        forget(lock);
    }
    if played.is_err() {
        child.kill().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert!(played.is_ok());
    assert!(there.is_zero().unwrap() && back.is_zero().unwrap());
}

//! One semaphore, two processes: this test program starts itself again as the other.

use std::env;
use std::process::{Command, Stdio};

use semlock::{Deadline, Kind, Name, Naming, SemLock};
use std::time::Duration;

const ROUNDS: u32 = 1_000;
const NAMES: &str = "SEMLOCK_TEST_NAMES";

fn named(name: &str) -> (Name, SemLock) {
    let name = Name::new(&format!("/semlock-process-{}-{name}", std::process::id())).unwrap();
    let lock = SemLock::create(Kind::Semaphore, 0, 1, &name, Naming::Keep).unwrap();
    (name, lock)
}

fn take(lock: &SemLock) {
    // A watchdog, so that a lost wake-up is a failure and not a hang.
    assert!(lock.acquire_until(Deadline::after(Duration::from_secs(60))).unwrap());
}

#[test]
fn a_token_goes_to_and_fro_between_processes() {
    if let Ok(names) = env::var(NAMES) {
        let [there, back] = names.split(' ').collect::<Vec<_>>()[..] else { panic!("{names}") };
        let open = |name| SemLock::rebuild(Kind::Semaphore, 1, &Name::new(name).unwrap()).unwrap();
        let (there, back) = (open(there), open(back));
        for _ in 0..ROUNDS {
            take(&there);
            back.release().unwrap();
        }
        return;
    }
    let (there_name, there) = named("there");
    let (back_name, back) = named("back");
    let names = [&there_name, &back_name].map(|name| name.as_c_str().to_str().unwrap());
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_token_goes_to_and_fro_between_processes"])
        .env(NAMES, names.join(" "))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let played = std::panic::catch_unwind(|| {
        for _ in 0..ROUNDS {
            there.release().unwrap();
            take(&back);
        }
    });
    for name in [&there_name, &back_name] {
        semlock::unlink(name).unwrap();
    }
    if played.is_err() {
        child.kill().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert!(played.is_ok());
    assert!(there.is_zero().unwrap() && back.is_zero().unwrap());
}

//! Making, opening and dropping: who dies at it takes nobody's memory with it, and leaves nothing.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd};

use nix::unistd::Pid;
use semlock::raw::{Lock, LockKind, Options, Shared};
use semlock::{Address, Mutex};

use super::Named;
use super::mutex::{mutex, take, works};
use crate::peer::{Peer, fresh};
use crate::tracer::{Dead, Tracer};

pub const SCENARIOS: &[Named] = &[
    ("create/fresh-segment", fresh_segment),
    ("create/used-segment", used_segment),
    ("create/used-slot", used_slot),
    ("create/robust-semaphore", robust_semaphore),
    ("open/unknown-segment", open_unknown),
    ("open/known-segment", open_known),
    ("drop/last-of-its-segment", drop_last),
    ("drop/one-of-many", drop_one),
];

fn semaphore(permits: u32) -> Lock {
    let options =
        Options { kind: LockKind::Semaphore, value: permits, maxvalue: permits, robust: true };
    Lock::new(options).expect("memory")
}

/// What stands where names of shared memory stand.
fn names() -> Vec<String> {
    let folders = ["/dev/shm".into(), std::env::temp_dir()];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("semlock-")).collect()
}

fn segment(lock: &Lock) -> [u8; 16] {
    lock.peek_address().segment
}

/// It held this all the time.
fn assert_died_with(tracer: &Tracer, lock: &Lock, dead: &Dead) {
    assert_eq!(works(tracer, lock), dead.pid);
}

/// Its first object: a child has no part in its parent's segment.
fn fresh_segment(tracer: &Tracer) {
    let (before, held) = (names(), mutex());
    let prepare = || {
        take(&held);
        || Mutex::new().expect("memory")
    };
    let dead = tracer.kill(prepare, || {});
    assert_died_with(tracer, &held, &dead);
    assert_eq!(names(), before);
    // A segment that its maker left half-made is nobody else's; and in its parent's a child takes
    // nothing.
    fresh(|| {
        let own = mutex();
        assert_ne!(segment(&own), segment(&held));
        works(tracer, &own);
    });
}

/// Where an object of another process lives, and that process's descriptor of it.
struct Told {
    to: PipeWriter,
    from: PipeReader,
}

impl Told {
    fn new() -> Self {
        let (from, to) = pipe().expect("pipe");
        Self { to, from }
    }

    fn tell(&self, lock: &Lock) {
        let descriptor = lock.descriptor().expect("it is open").as_raw_fd();
        writeln!(&self.to, "{} {descriptor}", lock.address()).expect("the tracer listens");
    }

    fn hear(&self, of: Pid) -> (Address, File) {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            (&self.from).read_exact(&mut byte).expect("it tells");
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).expect("text");
        let (address, descriptor) = line.trim().split_once(' ').expect("two");
        let file = format!("/proc/{of}/fd/{descriptor}");
        let file = File::options().read(true).write(true).open(file).expect("it is there");
        (address.parse().expect("an address"), file)
    }
}

/// One dies at this, in its own segment, where it holds another object that others have.
fn in_own_segment<T>(tracer: &Tracer, act: impl FnOnce() -> T) {
    let (told, known) = (Told::new(), RefCell::new(None));
    let prepare = || {
        let held = mutex();
        take(&held);
        told.tell(&held);
        std::mem::forget(held);
        act
    };
    let dead = tracer.kill_known(prepare, |pid| *known.borrow_mut() = Some(told.hear(pid)), || {});
    let (address, file) = known.into_inner().expect("it has told");
    let held = Lock::open(address, Some(file.as_fd())).expect("it lives as long as one has it");
    assert_died_with(tracer, &held, &dead);
}

fn used_segment(tracer: &Tracer) {
    in_own_segment(tracer, mutex);
}

fn used_slot(tracer: &Tracer) {
    in_own_segment(tracer, || {
        drop(mutex());
        mutex()
    });
}

fn robust_semaphore(tracer: &Tracer) {
    in_own_segment(tracer, || semaphore(20));
}

fn drop_one(tracer: &Tracer) {
    in_own_segment(tracer, || drop(mutex()));
}

/// One that has made a mutex, which it keeps until it hears that it can go on; and what opens that
/// mutex.
pub fn made_by_another() -> (Peer, impl Fn() -> Lock + Sync) {
    let told = Told::new();
    let maker = Peer::start(|line| {
        let lock = mutex();
        told.tell(&lock);
        line.hear();
    });
    let (address, file) = told.hear(maker.pid());
    (maker, move || Lock::open(address, Some(file.as_fd())).expect("it is there"))
}

/// It opens what it has no part in yet, and takes it.
fn open_unknown(tracer: &Tracer) {
    let (mut maker, open) = made_by_another();
    let prepare = || {
        || {
            let lock = open();
            take(&lock);
            lock
        }
    };
    let dead = tracer.kill(prepare, || {});
    maker.go();
    maker.join();
    let lock = open();
    let told = works(tracer, &lock);
    assert!(told == dead.pid || told == 0 && !dead.returned, "told {told}");
}

fn open_known(tracer: &Tracer) {
    let lock = mutex();
    let prepare = || {
        || {
            let same = Lock::open(lock.peek_address(), None).expect("it is here");
            take(&same);
            same
        }
    };
    let dead = tracer.kill(prepare, || {});
    let told = works(tracer, &lock);
    assert!(told == dead.pid || told == 0 && !dead.returned, "told {told}");
}

fn drop_last(tracer: &Tracer) {
    let held = mutex();
    let prepare = || {
        take(&held);
        let last = mutex();
        || drop(last)
    };
    let dead = tracer.kill(prepare, || {});
    assert_died_with(tracer, &held, &dead);
}

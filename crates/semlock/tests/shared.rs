//! The shared backend, among threads and among processes: this test program starts itself again as
//! the others, and hands them what they need by descriptor and address.
#![cfg(unix)]

use std::env;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use semlock::raw::layout::{self, Size, channel, lock, node};
use semlock::raw::{self, Entered, Passed, Tried};
use semlock::{
    Acquired, Address, Barrier, Channel, Condvar, Deadline, Error, Event, Mutex, ReentrantMutex,
    Semaphore, Shared, Wait,
};

/// A watchdog, so that a lost wake-up is a failure and not a hang.
fn watchdog() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A watchdog for waits that have to be without a deadline: ends the program if it is not dropped
/// in time.
struct EndsInTime {
    _ends_when_dropped: mpsc::Sender<()>,
}

impl EndsInTime {
    fn start() -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let time = Duration::from_secs(60);
            if receiver.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("hangs");
                std::process::abort();
            }
        });
        Self { _ends_when_dropped: sender }
    }
}

/// This program, running the same test as a child: `OBJECT` is the address and descriptor that it
/// is given.
const OBJECT: &str = "SEMLOCK_TEST_OBJECT";

struct Peer {
    child: Child,
    /// What it hears nothing from until this is closed.
    _input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(test: &str, object: &impl Shared) -> Self {
        let address = object.address();
        // One that is not closed on exec, for the child alone.
        let inherited = duplicate(object.descriptor().unwrap().as_raw_fd());
        let number = inherited.as_raw_fd();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(OBJECT, format!("{address} {number}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, _input: input, output }
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        // The test runner prints lines of its own.
        while line.trim() != word {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "ended before {word:?}");
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn duplicate(descriptor: i32) -> OwnedFd {
    // `/proc/self/fd` opens what a descriptor is, without `unsafe`.
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{descriptor}"))
        .unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    file.into()
}

/// What a child was given: `None` in the parent.
fn given() -> Option<(Address, OwnedFd)> {
    let object = env::var(OBJECT).ok()?;
    let (address, number) = object.split_once(' ').unwrap();
    Some((address.parse().unwrap(), duplicate(number.parse().unwrap())))
}

fn say(word: &str) {
    println!("\n{word}");
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn a_killed_holder_is_replaced_and_its_successor_is_told() {
    if let Some((address, descriptor)) = given() {
        let mutex = Mutex::open(address, Some(descriptor.as_fd())).unwrap();
        let _guard = mutex.lock();
        say("held");
        hear();
        return;
    }
    let mutex = Mutex::new().unwrap();
    let test = "a_killed_holder_is_replaced_and_its_successor_is_told";
    let mut peer = Peer::start(test, &mutex);
    peer.expect("held");
    assert_eq!(mutex.holder(), Some(peer.child.id()));
    let soon = Deadline::after(Duration::from_millis(200));
    assert!(mutex.lock_until(soon).is_none());

    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let acquired = mutex.lock_until(watchdog()).expect("a hang");
                    matches!(acquired, Acquired::OwnerDied(_, pid) if pid == peer.child.id())
                })
            })
            .collect();
        // Not reaped: a zombie is dead.
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&peer.child),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let told = waiters.into_iter().map(|waiter| waiter.join().unwrap());
        assert_eq!(told.filter(|&told| told).count(), 1);
    });
    assert_eq!(mutex.holder(), None);
}

#[test]
fn a_short_wait_checks_the_holder_once_more_at_its_deadline() {
    if is_dead_holder() {
        return;
    }
    let test = "a_short_wait_checks_the_holder_once_more_at_its_deadline";
    let mutex = raw::Lock::new(raw::Options {
        kind: raw::LockKind::Mutex,
        value: 1,
        maxvalue: 1,
        robust: true,
    })
    .unwrap();
    let mut peer = Peer::start(test, &mutex);
    peer.expect("held");
    // This checks the holder, which lives. For the next 50 ms no acquirer that only tries checks it
    // again.
    assert_eq!(mutex.try_acquire(), Wait::TimedOut);
    let pid = peer.child.id();
    peer.kill();
    peer.child.wait().unwrap();
    // Too short for a watcher's sleep.
    let deadline = Deadline::after(Duration::from_millis(60));
    assert_eq!(mutex.acquire_until(deadline), Wait::OwnerDied(pid));
    mutex.release().unwrap();
}

#[test]
fn permits_of_a_killed_process_come_back() {
    if let Some((address, descriptor)) = given() {
        let semaphore = Semaphore::open(address, Some(descriptor.as_fd())).unwrap();
        for _ in 0..3 {
            semaphore.acquire().into_guard().forget();
        }
        say("held");
        hear();
        return;
    }
    let semaphore = Semaphore::robust(4).unwrap();
    let test = "permits_of_a_killed_process_come_back";
    let mut peer = Peer::start(test, &semaphore);
    peer.expect("held");
    assert_eq!(semaphore.available(), 1);
    assert_eq!(semaphore.release(), Err(Error::NotHeldHere));
    peer.kill();
    let taken: Vec<_> =
        (0..4).map(|_| semaphore.acquire_until(watchdog()).expect("a hang")).collect();
    let died = taken.iter().filter(|taken| matches!(taken, Acquired::OwnerDied(..))).count();
    assert_eq!((died, semaphore.available()), (3, 0));
    assert!(semaphore.try_acquire().is_none());
    drop(taken);
    assert_eq!(semaphore.available(), 4);
}

#[test]
fn threads_exclude_each_other_and_wake_each_other() {
    let mutex = Mutex::new().unwrap();
    let (inside, counted) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let _guard = mutex.lock_until(watchdog()).expect("a hang").into_guard();
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    counted.store(counted.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(counted.into_inner(), 20_000);
}

#[test]
fn a_token_goes_to_and_fro_by_semaphores() {
    let [there, back] = [0, 0].map(|permits| Semaphore::new(permits).unwrap());
    let take = |semaphore: &Semaphore| {
        semaphore.acquire_until(watchdog()).expect("a hang").into_guard().forget();
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5_000 {
                take(&there);
                back.release().unwrap();
            }
        });
        for _ in 0..5_000 {
            there.release().unwrap();
            take(&back);
        }
    });
    assert_eq!((there.available(), back.available()), (0, 0));
}

#[test]
fn a_reentrant_mutex_belongs_to_its_thread() {
    let mutex = ReentrantMutex::new().unwrap();
    let again = ReentrantMutex::open(mutex.address(), None).unwrap();
    let outer = mutex.lock();
    let inner = again.lock();
    thread::scope(|scope| {
        scope.spawn(|| assert!(mutex.try_lock().is_none()));
    });
    drop(outer);
    assert!(mutex.holder().is_some());
    drop(inner);
    assert_eq!(mutex.holder(), None);
}

#[test]
fn notify_wakes_exactly_so_many_and_the_oldest_first() {
    let (mutex, condvar) = (Mutex::new().unwrap(), Condvar::new().unwrap());
    let order = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..4 {
            let guard = mutex.lock().into_guard();
            scope.spawn({
                let (mutex, condvar, order) = (&mutex, &condvar, &order);
                move || {
                    let guard = mutex.lock().into_guard();
                    let (acquired, notified) = condvar.wait_until(guard, watchdog()).unwrap();
                    assert!(notified, "a hang");
                    order.lock().unwrap().push(number);
                    drop(acquired);
                }
            });
            // The next one starts when this one waits.
            drop(guard);
            while waiting_at(&condvar) <= number {
                thread::yield_now();
            }
        }
        for expected in [vec![0], vec![0, 1]] {
            assert!(condvar.notify_one(&mutex.lock().into_guard()));
            while order.lock().unwrap().len() < expected.len() {
                thread::yield_now();
            }
            assert_eq!(*order.lock().unwrap(), expected);
        }
        let guard = mutex.lock().into_guard();
        assert_eq!(condvar.notify(&guard, 1) + condvar.notify_all(&guard), 2);
        assert_eq!(condvar.notify_all(&guard), 0);
    });
    assert_eq!(order.into_inner().unwrap().len(), 4);
}

fn waiting_at(condvar: &Condvar) -> u32 {
    raw::Condvar::open(condvar.address(), None).unwrap().waiting()
}

#[test]
fn a_wait_that_is_not_notified_ends_at_its_deadline_with_the_mutex() {
    let (mutex, condvar) = (Mutex::new().unwrap(), Condvar::new().unwrap());
    let guard = mutex.lock().into_guard();
    let soon = Deadline::after(Duration::from_millis(20));
    let (acquired, notified) = condvar.wait_until(guard, soon).unwrap();
    assert!(!notified);
    assert_eq!(mutex.holder(), Some(std::process::id()));
    assert!(!condvar.notify_one(&acquired.into_guard()));
}

#[test]
fn an_event_that_was_set_and_cleared_lets_its_waiters_through() {
    if let Some((address, descriptor)) = given() {
        let event = raw::Event::open(address, Some(descriptor.as_fd())).unwrap();
        let epoch = event.epoch();
        say("waits");
        let passed = event.wait_since(epoch, watchdog());
        assert_eq!(passed, semlock::Wait::Acquired);
        say("passed");
        return;
    }
    let event = Event::new().unwrap();
    let test = "an_event_that_was_set_and_cleared_lets_its_waiters_through";
    let mut peers: Vec<_> = (0..2).map(|_| Peer::start(test, &event)).collect();
    for peer in &mut peers {
        peer.expect("waits");
    }
    event.set();
    event.clear();
    assert!(!event.is_set());
    for peer in &mut peers {
        peer.expect("passed");
    }
    assert!(!event.wait_until(Deadline::after(Duration::from_millis(5))));
}

#[test]
fn a_barrier_lets_all_through_again_and_again() {
    let barrier = Barrier::new(3).unwrap();
    let actions = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 1..=200 {
                    let action = || {
                        actions.fetch_add(1, Ordering::Relaxed);
                    };
                    assert!(barrier.wait_until(watchdog(), action).unwrap() < 3);
                    assert!(actions.load(Ordering::Relaxed) >= round);
                }
            });
        }
    });
    assert_eq!(actions.into_inner(), 200);
}

#[test]
fn a_member_that_is_killed_breaks_the_barrier() {
    if let Some((address, descriptor)) = given() {
        let barrier = Barrier::open(address, Some(descriptor.as_fd())).unwrap();
        say("comes");
        let _ = barrier.wait();
        return;
    }
    let barrier = Barrier::new(3).unwrap();
    let test = "a_member_that_is_killed_breaks_the_barrier";
    let mut peer = Peer::start(test, &barrier);
    peer.expect("comes");
    let raw = raw::Barrier::open(barrier.address(), None).unwrap();
    while raw.waiting() < 1 {
        thread::yield_now();
    }
    thread::scope(|scope| {
        let waits = scope.spawn(|| barrier.wait_until(watchdog(), || {}));
        while raw.waiting() < 2 {
            thread::yield_now();
        }
        peer.kill();
        assert_eq!(waits.join().unwrap(), Err(Error::BarrierBroken));
    });
    assert!(barrier.is_broken());
    assert_eq!(barrier.wait(), Err(Error::BarrierBroken));
    barrier.reset();
    assert!(!barrier.is_broken());
}

/// So many waits that some are over as the waiter spins, some as it falls asleep, and some later.
const MEETINGS: u32 = 5_000;

#[test]
fn who_waits_for_an_event_gets_on_whether_it_spins_or_sleeps() {
    let [there, back] = [(); 2].map(|()| Event::new().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MEETINGS {
                assert!(there.wait_until(watchdog()));
                there.clear();
                back.set();
            }
        });
        for _ in 0..MEETINGS {
            there.set();
            assert!(back.wait_until(watchdog()));
            back.clear();
        }
    });
}

#[test]
fn who_waits_for_a_condition_gets_on_whether_it_spins_or_sleeps() {
    let (mutex, condvar) = (Mutex::new().unwrap(), Condvar::new().unwrap());
    let turn = AtomicU64::new(0);
    let take_turns = |me: u64| {
        for _ in 0..MEETINGS {
            let mut guard = mutex.lock().into_guard();
            while turn.load(Ordering::Relaxed) != me {
                let (acquired, notified) = condvar.wait_until(guard, watchdog()).unwrap();
                assert!(notified);
                guard = acquired.into_guard();
            }
            turn.store(1 - me, Ordering::Relaxed);
            condvar.notify_one(&guard);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| take_turns(1));
        take_turns(0);
    });
}

#[test]
fn the_members_of_a_barrier_get_through_whether_they_spin_or_sleep() {
    for parties in [2, 4] {
        let barrier = Barrier::new(parties).unwrap();
        let meet = || {
            for _ in 0..MEETINGS / parties {
                barrier.wait_until(watchdog(), || {}).unwrap();
            }
        };
        thread::scope(|scope| {
            (0..parties).for_each(|_| drop(scope.spawn(meet)));
        });
    }
}

#[test]
fn the_last_member_checks_whether_the_earlier_ones_live() {
    if let Some((address, descriptor)) = given() {
        let barrier = Barrier::open(address, Some(descriptor.as_fd())).unwrap();
        say("comes");
        let _ = barrier.wait();
        return;
    }
    let barrier = Barrier::new(2).unwrap();
    let test = "the_last_member_checks_whether_the_earlier_ones_live";
    let mut peer = Peer::start(test, &barrier);
    peer.expect("comes");
    let raw = raw::Barrier::open(barrier.address(), None).unwrap();
    while raw.waiting() < 1 {
        thread::yield_now();
    }
    peer.kill();
    peer.child.wait().unwrap();
    assert_eq!(
        barrier.wait_until(watchdog(), || panic!("not all live")),
        Err(Error::BarrierBroken)
    );
}

#[test]
fn a_member_that_leaves_instead_of_running_the_action_breaks_the_barrier() {
    let barrier = raw::Barrier::new(2).unwrap();
    let _bound = EndsInTime::start();
    thread::scope(|scope| {
        let waits = scope.spawn(|| match barrier.enter(Deadline::NEVER) {
            Ok(Entered::Waits(member)) => barrier.sleep(&member, Deadline::NEVER),
            other => panic!("{other:?}"),
        });
        while barrier.waiting() < 1 {
            thread::yield_now();
        }
        match barrier.enter(Deadline::NEVER) {
            Ok(Entered::Last(member)) => drop(member),
            other => panic!("{other:?}"),
        }
        assert_eq!(waits.join().unwrap(), Passed::Broken);
    });
    assert!(barrier.is_broken());
}

#[test]
fn what_is_no_address_of_this_segment_is_refused() {
    let mutex = Mutex::new().unwrap();
    let address = mutex.address();
    let open = |address| Mutex::open(address, None).map(|_| ());
    assert_eq!(open(address), Ok(()));
    assert!(matches!(open(Address { slot: u32::MAX, ..address }), Err(Error::BadAddress(_))));
    assert!(matches!(
        open(Address { tag: address.tag ^ 1 << 40, ..address }),
        Err(Error::BadAddress(_))
    ));
    let event = Event::new().unwrap();
    assert!(matches!(open(event.address()), Err(Error::BadAddress(_))));
    assert!(matches!(ReentrantMutex::open(address, None), Err(Error::BadAddress(_))));
    let elsewhere = Address { segment: [7; 16], ..address };
    assert_eq!(open(elsewhere), Err(Error::SegmentNotMapped));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let with_file = Mutex::open(elsewhere, Some(file.as_fd()));
    assert!(matches!(with_file, Err(Error::BadSegment(_) | Error::Os { .. })));
    let own = duplicate(mutex.descriptor().unwrap().as_raw_fd());
    assert!(matches!(Mutex::open(elsewhere, Some(own.as_fd())), Err(Error::BadSegment(_))));
}

/// The words of a segment, written as a process that was killed in the middle would have left them.
struct Words(std::fs::File);

impl Words {
    fn of(object: &impl Shared) -> Self {
        Self(duplicate(object.descriptor().unwrap().as_raw_fd()).into())
    }

    fn read(&self, word: usize) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, word as u64 * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn write(&self, word: usize, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
    }

    fn size(&self) -> Size {
        Size::in_header(|word| self.read(word)).unwrap()
    }

    /// Where a slot begins.
    fn slot(&self, address: Address) -> usize {
        self.size().slot_at(address.slot as usize)
    }

    /// Whether no place is free.
    fn places_are_taken(&self) -> bool {
        let places = (0..self.size().places).map(|place| layout::PLACES_AT + place * node::WORDS);
        places.into_iter().all(|place| self.read(place + node::PROCESS) != 0)
    }

    /// The state of the first member of the barrier that lives there. (Tests share the table.)
    fn node_of(&self, address: Address) -> usize {
        let member = u64::from(address.slot) << node::SLOT_SHIFT | node::MEMBER;
        let bits = node::SLOT_SHIFT + node::SLOT_BITS;
        let waits = |&word: &usize| self.read(word) & ((1 << bits) - 1) == member;
        let size = self.size();
        let nodes = (0..size.nodes).map(|node| size.nodes_at() + node * node::WORDS);
        nodes.map(|node| node + node::STATE).find(waits).unwrap()
    }
}

// ---- Turns ----

const MUTEX: raw::Options =
    raw::Options { kind: raw::LockKind::Mutex, value: 1, maxvalue: 1, robust: true };

/// Waiters, more than there are places.
const MANY: usize = layout::PLACES + 120;

/// All tests share a table of places: one at a time fills it.
static CROWD: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn small_thread() -> thread::Builder {
    thread::Builder::new().stack_size(64 * 1024)
}

#[test]
fn a_waiter_keeps_its_place_when_it_wakes_to_check() {
    // Beside a crowd, a waiter may run so late that its turn has expired.
    let _alone = CROWD.lock().unwrap();
    let lock = raw::Lock::new(MUTEX).unwrap();
    let (got, order) = mpsc::channel();
    let _bound = EndsInTime::start();
    thread::scope(|scope| {
        assert_eq!(lock.try_acquire(), Wait::Acquired);
        for number in 1..=4 {
            let (lock, got) = (&lock, got.clone());
            scope.spawn(move || {
                assert_eq!(lock.acquire_until(watchdog()), Wait::Acquired);
                got.send(number).unwrap();
                lock.release().unwrap();
            });
            while lock.waiting() < number {
                thread::yield_now();
            }
        }
        // The first one watches. Until it has checked four times, each other one has once.
        let words = Words::of(&lock);
        let watch = words.slot(lock.peek_address()) + lock::WATCH;
        for _ in 0..4 {
            let sign = words.read(watch);
            while words.read(watch) == sign {
                thread::yield_now();
            }
        }
        lock.release().unwrap();
        assert_eq!((0..4).map(|_| order.recv().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    });
}

#[test]
fn places_of_waiters_that_died_are_used_again() {
    const TEST: &str = "places_of_waiters_that_died_are_used_again";
    const FEW: u32 = 20;

    if let Some((address, descriptor)) = given() {
        let lock = raw::Lock::open(address, Some(descriptor.as_fd())).unwrap();
        let lock: &raw::Lock = Box::leak(Box::new(lock));
        for _ in 0..MANY {
            small_thread().spawn(|| lock.acquire_until(Deadline::NEVER)).unwrap();
        }
        say("waiting");
        hear();
        return;
    }
    let _alone = CROWD.lock().unwrap();
    let lock = raw::Lock::new(MUTEX).unwrap();
    let _bound = EndsInTime::start();
    assert_eq!(lock.try_acquire(), Wait::Acquired);
    let mut peer = Peer::start(TEST, &lock);
    peer.expect("waiting");
    let words = Words::of(&lock);
    while !words.places_are_taken() {
        thread::yield_now();
    }
    assert!((lock.waiting() as usize) < MANY);
    drop(peer);
    thread::scope(|scope| {
        // More than other tests can have left free.
        for _ in 0..FEW {
            scope.spawn(|| {
                assert_eq!(lock.acquire_until(watchdog()), Wait::Acquired);
                lock.release().unwrap();
            });
        }
        while lock.waiting() != FEW {
            thread::yield_now();
        }
        lock.release().unwrap();
    });
}

#[test]
fn more_waiters_than_there_are_places_all_get_their_turn() {
    let _alone = CROWD.lock().unwrap();
    let lock = raw::Lock::new(MUTEX).unwrap();
    let _bound = EndsInTime::start();
    thread::scope(|scope| {
        assert_eq!(lock.try_acquire(), Wait::Acquired);
        for _ in 0..MANY {
            let waits = || {
                assert_eq!(lock.acquire_until(watchdog()), Wait::Acquired);
                lock.release().unwrap();
            };
            small_thread().spawn_scoped(scope, waits).unwrap();
        }
        while (lock.waiting() as usize) < layout::PLACES - 80 {
            thread::yield_now();
        }
        lock.release().unwrap();
    });
    assert_eq!(lock.waiting(), 0);
}

/// What a permit says that a process took which is dead by now.
fn dead_holder(test: &str) -> u64 {
    let mutex = Mutex::new().unwrap();
    let mut peer = Peer::start(test, &mutex);
    peer.expect("held");
    let words = Words::of(&mutex);
    words.read(words.slot(mutex.peek_address()) + lock::PERMIT)
}

/// What the child of `dead_holder` does; true in that child.
fn is_dead_holder() -> bool {
    given().is_some_and(|(address, descriptor)| {
        let mutex = Mutex::open(address, Some(descriptor.as_fd())).unwrap();
        let _guard = mutex.lock();
        say("held");
        hear();
        true
    })
}

#[test]
fn a_member_killed_when_half_of_a_barrier_is_through_leaves_no_member_waiting() {
    if is_dead_holder() {
        return;
    }
    let dead =
        dead_holder("a_member_killed_when_half_of_a_barrier_is_through_leaves_no_member_waiting");
    let barrier = raw::Barrier::new(3).unwrap();
    let words = Words::of(&barrier);
    let _bound = EndsInTime::start();
    thread::scope(|scope| {
        // Without a deadline, because members check at their deadlines.
        let waits = || match barrier.enter(Deadline::NEVER) {
            Ok(Entered::Waits(member)) => barrier.sleep(&member, Deadline::NEVER),
            other => panic!("{other:?}"),
        };
        let members = [scope.spawn(waits), scope.spawn(waits)];
        while barrier.waiting() < 2 {
            thread::yield_now();
        }
        // As `abort`, by one who is no member, killed after the first node and before the second.
        words.write(words.slot(barrier.peek_address()) + layout::barrier::PERMIT, dead);
        let first = words.node_of(barrier.peek_address());
        words.write(first, words.read(first) & !node::STATUS | node::BROKEN);
        for member in members {
            assert_eq!(member.join().unwrap(), Passed::Broken);
        }
    });
    assert!(barrier.is_broken());
}

#[test]
fn a_receiver_in_the_middle_of_a_message_notices_that_its_sender_gave_up() {
    let channel = Channel::with_capacity(4096).unwrap();
    // Three parts are there, and nobody sends the rest.
    assert_eq!(
        channel.send_until(&[2; 5000], Deadline::after(Duration::from_millis(5))),
        Ok(false)
    );
    assert!(!channel.is_empty());
    let deadline = Deadline::after(Duration::from_millis(300));
    assert_eq!(channel.receive_until(deadline), Ok(None));
    assert!(channel.is_empty());
    assert_eq!(channel.try_send(&[3; 4088]), Ok(true));
    assert_eq!(channel.receive().unwrap(), [3; 4088]);
}

#[test]
fn no_more_messages_than_the_limit_are_put() {
    const MESSAGES: usize = 5_000;
    let channel = raw::Channel::new_counting(4096, Some(1), false).unwrap();
    let _bound = EndsInTime::start();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut put = 0;
                while put < MESSAGES {
                    put += usize::from(channel.try_put(&[b"one"]).unwrap() == Tried::Done);
                    let there = channel.put_and_not_taken();
                    assert!(there <= 1, "{there} messages have one place");
                }
            });
        }
        let mut taken = 0;
        while taken < 2 * MESSAGES {
            taken += usize::from(channel.try_receive(&mut Vec::new()).unwrap() == Tried::Done);
        }
    });
}

#[test]
fn whoever_has_waited_for_a_place_for_long_gets_the_next_one() {
    let channel = raw::Channel::new_counting(4096, Some(1), false).unwrap();
    let _bound = EndsInTime::start();
    assert_eq!(channel.try_put(&[b"first"]), Ok(Tried::Done));
    let words = Words::of(&channel);
    let backlog = words.slot(channel.peek_address()) + channel::BACKLOG * layout::SLOT_WORDS;
    let receive = || {
        let mut message = Vec::new();
        while channel.receiving(&mut message, watchdog()).wait() != Ok(Wait::Acquired) {}
        message
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while channel.claiming(watchdog()).wait() != Ok(Wait::Acquired) {}
            assert_eq!(channel.try_send_claimed(&[b"second"]), Ok(Tried::Done));
        });
        while words.read(backlog + channel::backlog::STARVING) == 0 {
            thread::yield_now();
        }
        assert_eq!(receive(), b"first");
        // The place is free, or that one has it: whoever does not wait for its turn gets none.
        while channel.put_and_not_taken() == 0 {
            assert_eq!(channel.try_put(&[b"third"]), Ok(Tried::NotNow));
        }
        assert_eq!(receive(), b"second");
    });
    assert_eq!(channel.try_put(&[b"fourth"]), Ok(Tried::Done));
}

#[test]
fn a_limit_of_file_size_is_an_error_and_no_signal() {
    const ENV: &str = "SEMLOCK_TEST_FILE_SIZE_LIMIT";
    if let Ok(limit) = env::var(ENV) {
        // The signal ends this program, which ignores none.
        let limit = limit.parse().unwrap();
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: None }).unwrap();
        match Mutex::new() {
            Ok(mutex) => {
                drop(mutex.lock());
                say("made");
            }
            Err(Error::FileSizeLimit { limit: named, least }) => {
                assert!(named == limit && least > limit);
                say(&least.to_string());
            }
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let with_limit = |limit: u64| {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "a_limit_of_file_size_is_an_error_and_no_signal", "--nocapture"])
            .env(ENV, limit.to_string())
            .output()
            .unwrap();
        assert!(child.status.success(), "{limit}: {child:?}");
        String::from_utf8(child.stdout).unwrap()
    };
    let said = with_limit(1000);
    let least = said.lines().find_map(|line| line.parse().ok()).unwrap();
    for enough in [least, 100_000, 1_000_000] {
        assert!(with_limit(enough).lines().any(|line| line == "made"));
    }
    assert!(with_limit(least - 1).lines().any(|line| line == least.to_string()));
}

//! One object of each kind, and everything that can be done with one.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use semlock::raw::layout::channel;
use semlock::raw::{
    Barrier, Buffer, Channel, Condvar, Entered, Event, Lock, LockKind, Options, Passed, Shared,
};
use semlock::{Address, Deadline, Error, Wait};

/// Long enough to be slept through.
const SHORT: Duration = Duration::from_micros(50);

pub enum Object {
    Lock(Lock),
    Condvar(Condvar),
    Event(Event),
    Barrier(Barrier),
    /// Alone in its segment.
    Channel(Box<Channel>),
}

/// One of each kind.
pub fn one_of_each() -> Vec<Object> {
    let lock = |kind, value, robust| {
        Object::Lock(Lock::new(Options { kind, value, maxvalue: 5, robust }).unwrap())
    };
    vec![
        lock(LockKind::Mutex, 1, true),
        lock(LockKind::Mutex, 1, false),
        lock(LockKind::ReentrantMutex, 1, true),
        lock(LockKind::Semaphore, 3, false),
        lock(LockKind::Semaphore, 3, true),
        Object::Condvar(Condvar::new().unwrap()),
        Object::Event(Event::new().unwrap()),
        Object::Barrier(Barrier::new(2).unwrap()),
    ]
}

/// A buffer that is not made for what cannot have been sent.
struct Short(Vec<u8>);

impl Buffer for Short {
    fn begin(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > 1 << 20 { Err(Error::ChannelOverwritten) } else { self.0.begin(bytes) }
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.0.bytes()
    }
}

type Open = fn(Address, Option<BorrowedFd<'_>>) -> Result<Object, Error>;

/// The smallest channel there is.
pub fn channel() -> Object {
    Object::Channel(Box::new(Channel::new(512).unwrap()))
}

fn new_bell() -> [OwnedFd; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    [reader.into(), writer.into()]
}

/// Opens what is there as each kind: at most one of them can be right.
pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Option<Object> {
    let ways: [Open; 5] = [
        |address, descriptor| Lock::open(address, descriptor).map(Object::Lock),
        |address, descriptor| Condvar::open(address, descriptor).map(Object::Condvar),
        |address, descriptor| Event::open(address, descriptor).map(Object::Event),
        |address, descriptor| Barrier::open(address, descriptor).map(Object::Barrier),
        |address, descriptor| {
            Channel::open(address, descriptor, new_bell()).map(Box::new).map(Object::Channel)
        },
    ];
    let results = ways.map(|open| open(address, descriptor));
    let mut opened = None;
    for result in results {
        match result {
            Ok(object) => {
                assert!(opened.is_none(), "it is of two kinds");
                assert_eq!(object.address(), address);
                opened = Some(object);
            }
            Err(Error::SegmentNotMapped | Error::BadSegment(_) | Error::BadAddress(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    opened
}

impl Object {
    fn shared(&self) -> &dyn Shared {
        match self {
            Self::Lock(lock) => lock,
            Self::Condvar(condvar) => condvar,
            Self::Event(event) => event,
            Self::Barrier(barrier) => barrier,
            Self::Channel(channel) => &**channel,
        }
    }

    pub fn address(&self) -> Address {
        self.shared().peek_address()
    }

    /// How many slots it takes.
    pub fn slots(&self) -> usize {
        match self {
            Self::Channel(channel) => channel::SLOTS + channel.capacity() / size_of::<u64>() / 8,
            Self::Lock(lock) if lock.options().robust => 2,
            _ => 1,
        }
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared().descriptor().unwrap()
    }

    /// Does all that can be done with it, whatever its words say; somebody else may write between
    /// any two steps.
    pub fn use_it(&self, mut between: impl FnMut()) {
        let soon = || Deadline::after(SHORT);
        match self {
            Self::Lock(lock) => {
                let _ = (lock.holder(), lock.recovered(), lock.value(), lock.is_zero());
                let tried = lock.try_acquire();
                between();
                let _ = (lock.again_if_mine(), lock.is_mine(), lock.count());
                let waited = lock.acquire_until(soon());
                between();
                if let Wait::OwnerDied(pid) = waited {
                    lock.give_back_as_owner_died(pid);
                } else if waited == Wait::Acquired {
                    let _ = lock.release();
                }
                between();
                if tried != Wait::TimedOut {
                    let _ = lock.release();
                }
                let _ = lock.release();
            }
            Self::Condvar(condvar) => {
                let _ = condvar.waiting();
                let waiting = condvar.enter();
                between();
                condvar.notify(1);
                if let Ok(waiting) = waiting {
                    let _ = condvar.sleep(&waiting, soon());
                    between();
                    let _ = condvar.leave(waiting);
                }
                let waiting = condvar.enter();
                between();
                condvar.notify(u32::MAX);
                if let Ok(waiting) = waiting {
                    condvar.abandon(waiting);
                }
            }
            Self::Event(event) => {
                let epoch = event.epoch();
                between();
                let _ = event.wait_since(epoch, soon());
                event.set();
                between();
                let _ = event.is_set();
                let _ = event.wait_since(event.epoch(), soon());
                event.clear();
            }
            Self::Barrier(barrier) => {
                match barrier.enter(soon()) {
                    Ok(Entered::Waits(member)) => {
                        between();
                        if barrier.sleep(&member, soon()) == Passed::Interrupted {
                            let _ = barrier.sleep(&member, soon());
                        }
                    }
                    Ok(_) | Err(_) => between(),
                }
                barrier.reset();
                between();
                barrier.abort();
                barrier.reset();
            }
            Self::Channel(channel) => {
                let mut message = Short(Vec::new());
                let _ = (channel.count(), channel.is_empty(), channel.capacity());
                let _ = channel.try_send(&[b"hello", b", world"]);
                between();
                let _ = channel.try_receive(&mut message);
                between();
                let _ = channel.sending(&[b"again"], soon()).wait();
                between();
                let _ = channel.sending(&[&[7; 600]], soon()).wait();
                between();
                let _ = channel.wait_readable(soon());
                between();
                // In the middle of a message it waits for the rest, as long as it lives who sends.
                let mut receiving = channel.receiving(&mut message, soon());
                for _ in 0..3 {
                    if receiving.wait() != Ok(Wait::Interrupted) {
                        break;
                    }
                    between();
                }
            }
        }
    }
}

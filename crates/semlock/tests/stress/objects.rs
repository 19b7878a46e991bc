//! The objects under test.

use semlock::raw::layout::{self, NODES, Size};
use semlock::raw::{self, Lock, LockKind, Options, Shared, Waiting};
use semlock::{Address, Barrier, Condvar, Error, Mutex, ReentrantMutex, Semaphore};

pub const PERMITS: u32 = 3;
pub const PARTIES: u32 = 3;
/// Bytes of the channel's ring: room for some ten small messages.
const CAPACITY: usize = 1024;

macro_rules! objects {
    ($($(#[$doc:meta])* $object:ident),*) => {
        /// An object, and what belongs to it in the arena.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Object { $($(#[$doc])* $object),* }

        impl Object {
            pub const ALL: &[Self] = &[$(Self::$object),*];
        }
    };
}
objects!(
    Mutex,
    /// A mutex that everybody only tries: no watcher sleeps there.
    TriedMutex,
    /// One without a guard.
    RawMutex,
    ReentrantMutex,
    RobustSemaphore,
    /// Its permits are also taken by one process and given back by another.
    PlainSemaphore,
    BoundedSemaphore,
    /// The condition's.
    ConditionMutex,
    Condition,
    Event,
    Barrier,
    /// Messages from all to all.
    Channel
);

impl Object {
    /// Whether who waits for it waits for those who were there before; and not for what somebody is
    /// free to do, as to give back a permit that another took.
    pub fn is_taken_in_turn(self) -> bool {
        !matches!(
            self,
            Self::PlainSemaphore | Self::Condition | Self::Event | Self::Barrier | Self::Channel
        )
    }

    /// How many can have it at once.
    pub fn permits(self) -> u64 {
        match self {
            Self::RobustSemaphore | Self::BoundedSemaphore => PERMITS.into(),
            _ => 1,
        }
    }
}

pub const OBJECTS: usize = Object::ALL.len();

/// Made by the parent; the children have them by fork.
pub struct Objects {
    pub mutex: Mutex,
    pub tried_mutex: Mutex,
    pub raw_mutex: Lock,
    pub reentrant_mutex: ReentrantMutex,
    pub robust: Semaphore,
    pub plain: Semaphore,
    pub bounded: Lock,
    pub condition_mutex: Mutex,
    pub condition: Condvar,
    /// The same, and one that tells how many wait.
    pub condition_waiters: raw::Condvar,
    /// One that tells which setting it is.
    pub event: raw::Event,
    pub barrier: Barrier,
    /// The same, and one that tells how many are in.
    pub barrier_members: raw::Barrier,
    pub channel: raw::Channel,
}

/// The parent's waits, so many that the table of those who wait is nearly full: what the dead leave
/// there is needed again soon.
pub struct Crowd {
    condition: raw::Condvar,
    waits: Vec<Waiting>,
}

/// Nodes that are left: for 16 consumers and 16 at the barrier, those of them who died not long
/// ago, and some more.
const NODES_LEFT: usize = 40;

impl Crowd {
    pub fn new() -> Result<Self, Error> {
        let condition = raw::Condvar::new()?;
        let waits = (NODES_LEFT..NODES).map(|_| condition.enter()).collect::<Result<_, _>>()?;
        Ok(Self { condition, waits })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for waiting in self.waits.drain(..) {
            self.condition.abandon(waiting);
        }
    }
}

impl Objects {
    pub fn new() -> Result<Self, Error> {
        let raw = Options { kind: LockKind::Mutex, value: 1, maxvalue: 1, robust: true };
        let bounded =
            Options { kind: LockKind::Semaphore, value: PERMITS, maxvalue: PERMITS, robust: false };
        let (condition, barrier) = (Condvar::new()?, Barrier::new(PARTIES)?);
        let objects = Self {
            mutex: Mutex::new()?,
            tried_mutex: Mutex::new()?,
            raw_mutex: Lock::new(raw)?,
            reentrant_mutex: ReentrantMutex::new()?,
            robust: Semaphore::robust(PERMITS)?,
            plain: Semaphore::new(PERMITS)?,
            bounded: Lock::new(bounded)?,
            condition_mutex: Mutex::new()?,
            condition_waiters: raw::Condvar::open(condition.address(), None)?,
            condition,
            event: raw::Event::new()?,
            barrier_members: raw::Barrier::open(barrier.address(), None)?,
            barrier,
            channel: raw::Channel::new(CAPACITY)?,
        };
        // Children of one who has used them find what it knows of its own, and must not believe it.
        drop(objects.mutex.lock());
        drop(objects.reentrant_mutex.lock());
        drop(objects.robust.acquire());
        Ok(objects)
    }

    pub fn address(&self, object: Object) -> Address {
        self.shared(object).peek_address()
    }

    fn shared(&self, object: Object) -> &dyn Shared {
        match object {
            Object::Mutex => &self.mutex,
            Object::TriedMutex => &self.tried_mutex,
            Object::RawMutex => &self.raw_mutex,
            Object::ReentrantMutex => &self.reentrant_mutex,
            Object::RobustSemaphore => &self.robust,
            Object::PlainSemaphore => &self.plain,
            Object::BoundedSemaphore => &self.bounded,
            Object::ConditionMutex => &self.condition_mutex,
            Object::Condition => &self.condition,
            Object::Event => &self.event,
            Object::Barrier => &self.barrier,
            Object::Channel => &self.channel,
        }
    }

    /// The words of an object's slot, and of the one that follows: a robust semaphore's permits.
    pub fn words(&self, object: Object) -> Vec<u64> {
        let descriptor = self.shared(object).descriptor().expect("nobody closed it");
        let word = |number: usize| {
            let mut bytes = [0; 8];
            rustix::io::pread(descriptor, &mut bytes, number as u64 * 8).expect("pread");
            u64::from_ne_bytes(bytes)
        };
        let size = Size::in_header(word).expect("a segment");
        let slot = self.address(object).slot as usize;
        let after = match object {
            Object::RobustSemaphore => slot + 2,
            Object::Channel => slot + layout::channel::SLOTS,
            _ => slot + 1,
        };
        (size.slot_at(slot)..size.slot_at(after)).map(word).collect()
    }
}

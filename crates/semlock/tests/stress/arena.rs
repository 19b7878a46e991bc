//! The memory that all processes of a stress test share, beside the objects that are tested: what
//! each of them says about itself, and what the checker compares it with.
//!
//! ```text
//!  Head    operations · alarm · bell         how much was done, and when to ring for the parent
//!          run                               on, auditing, draining, over
//!          failure                           the first one's text
//!          current[16]                       which life each of the 16 processes is
//!          most_held · lossless              for how long things are held; whether none is killed
//!          stopped                           for how long some process was stopped
//!          places[object]                    one for each object:
//!            stamps[4]      who is inside: life << 8 | thread + 1, or 0
//!            entries exits  how often somebody came in, and went out
//!            passes         how often an operation on it came to its end
//!            before after   changed together inside: unequal, something was left half-written
//!            longest        hold and wait
//!          written[4]                        what the raw mutex guards: all equal, but amid a change
//!          condition                         tokens, and to whom they belong (see `Condition`)
//!          barrier                           actions run, and who got through as which number
//!
//!  lives   one for each process that ever was, in the order of their births:
//!            pid · state       unborn ─► alive ─► doomed (will be killed) ─► dead (for sure)
//!            died              when it was doomed
//!            order             at what its first thread is to die, and after how many microseconds
//!            reports[object]   how often its death there was reported
//!            threads[3]        steps · phases[object] · coming[object] · ticket · epoch
//!                              messages: begun, sent, received by whomever
//!                              the last 16 operations
//! ```
//!
//! What a dead process has said about itself does not change any more, so whoever knows that it is
//! dead can rely on that. All access is `SeqCst`: it is the checker, and not what is checked.

use std::ops::Deref;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::thread::futex;
use rustix::time::{ClockId, clock_gettime};

use crate::objects::{OBJECTS, Object, PARTIES};

pub const PROCESSES: usize = 16;
pub const THREADS: usize = 3;
/// Operations that each thread remembers.
const LOGGED: usize = 16;
/// And whose coming is remembered for each object: more than come while one waits for long things.
const ARRIVALS: usize = 1024;
/// The most messages that one thread sends.
pub const MESSAGES: usize = 1 << 15;
/// The most that can be inside of anything at once.
const STAMPS: usize = 4;
const TEXT: usize = 1024;

/// What the run is at.
pub const ON: u32 = 0;
/// Nobody touches the plain semaphores, which the parent counts.
pub const AUDIT: u32 = 1;
/// Nobody makes tokens any more; those that there are get used up.
pub const DRAIN: u32 = 2;
/// All end.
pub const OVER: u32 = 3;

#[repr(C)]
pub struct Head {
    pub operations: AtomicU64,
    alarm: AtomicU64,
    bell: AtomicU32,
    pub run: AtomicU32,
    /// 0: none; 1: somebody writes its text; 2: it is there.
    failure: AtomicU32,
    length: AtomicU32,
    text: [AtomicU8; TEXT],
    current: [AtomicU32; PROCESSES],
    /// Microseconds for which something is held at most, and half as long at least; 0: hardly at
    /// all.
    pub most_held: AtomicU64,
    /// Not 0: nobody is killed, so that no permit is lost.
    pub lossless: AtomicU32,
    /// Nanoseconds in which at least one process was stopped, twice; while one is, less the moment
    /// since when, and 1 more.
    stopped: AtomicU64,
    places: [Place; OBJECTS],
    pub written: [AtomicU64; 4],
    pub condition: Condition,
    pub barrier: Generations,
}

/// What is known of one object.
#[repr(C, align(64))]
pub struct Place {
    pub stamps: [AtomicU64; STAMPS],
    pub entries: AtomicU64,
    pub exits: AtomicU64,
    pub passes: AtomicU64,
    pub before: AtomicU64,
    pub after: AtomicU64,
    /// Reports of a death, and what was found half-written then.
    pub reports: AtomicU64,
    pub half_written: AtomicU64,
    /// Permits of a semaphore that were acquired. Any process may release them.
    pub owed: AtomicU64,
    /// When the last acquirers came, and how many there have been in all.
    arrivals: [AtomicU64; ARRIVALS],
    arrived: AtomicU64,
    /// Nanoseconds.
    pub longest_hold: AtomicU64,
    pub longest_wait: AtomicU64,
}

impl Place {
    /// Notes an acquirer that comes now. Returns how many had come before.
    fn arrive(&self, at: u64) -> u64 {
        let number = self.arrived.fetch_add(1, SeqCst);
        self.arrivals[index(number)].store(at, SeqCst);
        number
    }

    /// How many came after that many, until then; `None` if nobody knows any more.
    pub fn arrivals(&self, after: u64, until: u64) -> Option<u64> {
        let came = (after..self.arrived.load(SeqCst))
            .take_while(|&number| self.arrivals[index(number)].load(SeqCst) <= until)
            .count() as u64;
        (self.arrived.load(SeqCst) - after < ARRIVALS as u64).then_some(came)
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("few") % ARRIVALS
}

/// What is known of the condition; all but `sequence` changes with its mutex held.
///
/// A consumer never takes a token without having been notified. A batch of tokens is made for those
/// who wait at that moment, and the next only when these are used up, or all who could have got
/// them are dead: so a notification that is lost is a token that stays, and everything stands
/// still.
#[repr(C, align(64))]
pub struct Condition {
    pub tokens: AtomicU64,
    /// How many a producer is about to notify.
    pub asked: AtomicU64,
    /// Numbers consumers in the order of their coming.
    pub sequence: AtomicU64,
    /// The last number for which the tokens were made.
    pub batch: AtomicU64,
    /// The moment of that, as those who are notified will have come back for the mutex.
    pub notified: Coming,
    pub made: AtomicU64,
    pub consumed: AtomicU64,
    /// Tokens that nobody lives for.
    pub forfeited: AtomicU64,
    /// Notified though there was no token left; and how often that may be, because a death has left
    /// open how many were notified, or tokens were taken back.
    pub extra: AtomicU64,
    pub extra_allowed: AtomicU64,
}

/// What is known of the barrier.
#[repr(C, align(64))]
pub struct Generations {
    pub actions: AtomicU64,
    pub passed_as: [AtomicU64; PARTIES as usize],
}

pub const UNBORN: u32 = 0;
pub const ALIVE: u32 = 1;
pub const DOOMED: u32 = 2;
pub const DEAD: u32 = 3;

/// One process, from its fork to its end.
#[repr(C, align(64))]
pub struct Life {
    pub pid: AtomicU32,
    pub state: AtomicU32,
    died: AtomicU64,
    /// Microseconds << 8 | object + 1; 0: none.
    order: AtomicU64,
    pub reports: [AtomicU8; OBJECTS],
    pub threads: [Thread; THREADS],
}

impl Life {
    /// From now on it may be dead.
    pub fn doom(&self) {
        self.died.store(now(), SeqCst);
        self.state.store(DOOMED, SeqCst);
    }

    /// When it was doomed; 0 if it is not.
    pub fn died(&self) -> u64 {
        self.died.load(SeqCst)
    }

    /// Orders its first thread to die so long after it has begun to be at this object.
    pub fn order_to_die(&self, object: Object, microseconds: u64) {
        self.order.store(microseconds << 8 | (object as u64 + 1), SeqCst);
    }

    pub fn ordered_to_die(&self) -> Option<(Object, u64)> {
        let order = self.order.load(SeqCst);
        let object = usize::try_from(order & 0xff).ok()?.checked_sub(1)?;
        Some((Object::ALL[object], order >> 8))
    }
}

/// Where a thread stands with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Away = 0,
    /// It may have it, or not yet.
    Comes = 1,
    /// It has it.
    Inside = 2,
    /// It may still have it, or not any more.
    Goes = 3,
}

/// The moment at which one begins to wait for something.
#[repr(C)]
pub struct Coming {
    /// Nanoseconds of the clock; 0: nobody waits.
    pub at: AtomicU64,
    /// How many waited for it, or had it, already.
    pub before: AtomicU64,
    /// How many had ever come, with those who came at the same moment.
    pub arrived: AtomicU64,
    /// For how long some process had been stopped until then.
    pub stopped: AtomicU64,
    /// How often the object had been entered until then.
    pub entries: AtomicU64,
}

impl Coming {
    pub fn begin(&self, arena: Arena, object: Object) {
        let (place, at) = (arena.place(object), now());
        self.note(arena, object, arena.queue(object), at);
        self.arrived.store(place.arrive(at) + 1, SeqCst);
    }

    /// The same, for so many who begin at the same moment, before each of them can tell.
    pub fn begin_together(&self, arena: Arena, object: Object, waiters: u32) {
        let (place, at) = (arena.place(object), now());
        self.note(arena, object, arena.queue(object) + u64::from(waiters) - 1, at);
        self.arrived.store(place.arrived.load(SeqCst), SeqCst);
    }

    fn note(&self, arena: Arena, object: Object, before: u64, at: u64) {
        self.before.store(before, SeqCst);
        self.stopped.store(arena.stopped_time(), SeqCst);
        self.entries.store(arena.place(object).entries.load(SeqCst), SeqCst);
        self.at.store(at, SeqCst);
    }

    pub fn begin_as(&self, other: &Self) {
        self.before.store(other.before.load(SeqCst), SeqCst);
        self.arrived.store(other.arrived.load(SeqCst), SeqCst);
        self.stopped.store(other.stopped.load(SeqCst), SeqCst);
        self.entries.store(other.entries.load(SeqCst), SeqCst);
        self.at.store(other.at.load(SeqCst), SeqCst);
    }

    pub fn end(&self) {
        self.at.store(0, SeqCst);
    }
}

/// What one thread says of itself.
#[repr(C, align(64))]
pub struct Thread {
    /// Operations begun.
    pub steps: AtomicU64,
    phases: [AtomicU8; OBJECTS],
    /// Since when it waits for something; and since when it has it.
    pub coming: [Coming; OBJECTS],
    pub entered: [AtomicU64; OBJECTS],
    /// Its number as a consumer that waits; 0 if it does not.
    pub ticket: AtomicU64,
    /// The event's epoch from which on it waits, plus 1; 0 if it does not.
    pub epoch: AtomicU64,
    /// Messages that it has begun to send, and those that it has sent for sure. One that was not
    /// sent has the number of the next one.
    pub begun: AtomicU64,
    pub sent: AtomicU64,
    /// A bit for each of its messages that was received.
    pub received: [AtomicU64; MESSAGES / 64],
    log: [AtomicU64; LOGGED],
    logged: AtomicU64,
}

impl Thread {
    pub fn phase(&self, object: Object) -> Phase {
        match self.phases[object as usize].load(SeqCst) {
            0 => Phase::Away,
            1 => Phase::Comes,
            2 => Phase::Inside,
            _ => Phase::Goes,
        }
    }

    pub fn set_phase(&self, object: Object, phase: Phase) {
        self.phases[object as usize].store(phase as u8, SeqCst);
    }

    pub fn note(&self, object: Object, deed: Deed) {
        let number = self.logged.load(SeqCst);
        let entry = (now() / 1_000) << 16 | (object as u64) << 8 | deed as u64;
        self.log[usize::try_from(number).expect("few") % LOGGED].store(entry, SeqCst);
        self.logged.store(number + 1, SeqCst);
    }

    /// The last operations, the oldest first: microseconds of the clock, object, deed.
    pub fn noted(&self) -> impl Iterator<Item = (u64, Object, Deed)> + '_ {
        let end = usize::try_from(self.logged.load(SeqCst)).expect("few");
        (end.saturating_sub(LOGGED)..end).filter_map(|number| {
            let entry = self.log[number % LOGGED].load(SeqCst);
            let object = Object::ALL.get(usize::try_from(entry >> 8 & 0xff).ok()?)?;
            let deed = Deed::ALL.get(usize::try_from(entry & 0xff).ok()?)?;
            Some((entry >> 16, *object, *deed))
        })
    }
}

macro_rules! deeds {
    ($($deed:ident),*) => {
        /// What a thread does, for its log.
        #[derive(Clone, Copy, Debug)]
        #[repr(u8)]
        pub enum Deed { $($deed),* }

        impl Deed {
            const ALL: &[Self] = &[$(Self::$deed),*];
        }
    };
}
deeds!(
    Comes,
    Tries,
    Enters,
    EntersAfterDeath,
    Leaves,
    IsRefused,
    HandsOver,
    GivesBack,
    Notifies,
    NotifiesNobody,
    Waits,
    IsNotified,
    IsNotNotified,
    Sets,
    Clears,
    Passes,
    PassesLast,
    LeavesAction,
    FindsBroken,
    Resets
);

/// The memory itself; it stays as long as the process.
#[derive(Clone, Copy)]
pub struct Arena {
    head: &'static Head,
    lives: &'static [Life],
}

impl Deref for Arena {
    type Target = Head;

    fn deref(&self) -> &Head {
        self.head
    }
}

impl Arena {
    /// One for so many lives, all zero.
    pub fn new(lives: usize) -> Self {
        let map = |bytes| {
            // SAFETY: a new mapping, at a place that the kernel chooses.
            let start = unsafe {
                let access = ProtFlags::READ | ProtFlags::WRITE;
                mmap_anonymous(null_mut(), bytes, access, MapFlags::SHARED)
            };
            start.expect("mmap")
        };
        // SAFETY: the mapping is as long, aligned to a page, and never unmapped; zeroes are a
        // `Head`, which consists of atomics.
        let head = unsafe { &*map(size_of::<Head>()).cast::<Head>() };
        // SAFETY: as for the head.
        let lives = unsafe { slice::from_raw_parts(map(size_of::<Life>() * lives).cast(), lives) };
        Self { head, lives }
    }

    pub fn place(&self, object: Object) -> &'static Place {
        &self.head.places[object as usize]
    }

    pub fn life(&self, number: u32) -> &'static Life {
        &self.lives[number as usize]
    }

    /// All that were born, with their numbers.
    pub fn lives(&self) -> impl DoubleEndedIterator<Item = (u32, &'static Life)> + use<> {
        let born = self.lives.partition_point(|life| life.state.load(SeqCst) != UNBORN);
        (0..).zip(&self.lives[..born]).collect::<Vec<_>>().into_iter()
    }

    /// The number of the life that this process is now.
    pub fn current(&self, process: usize) -> u32 {
        self.head.current[process].load(SeqCst)
    }

    pub fn set_current(&self, process: usize, life: u32) {
        self.head.current[process].store(life, SeqCst);
    }

    /// The threads of all who live.
    pub fn living_threads(&self) -> impl Iterator<Item = &'static Thread> + use<> {
        let (head, lives) = (self.head, self.lives);
        head.current
            .iter()
            .map(move |life| &lives[life.load(SeqCst) as usize])
            .filter(|life| life.state.load(SeqCst) == ALIVE)
            .flat_map(|life| &life.threads)
    }

    /// How many wait for something, or have it.
    fn queue(&self, object: Object) -> u64 {
        let is_there = |thread: &&Thread| {
            thread.coming[object as usize].at.load(SeqCst) != 0
                || thread.phase(object) != Phase::Away
        };
        self.living_threads().filter(is_there).count() as u64
    }

    /// Nanoseconds for which somebody has held something, or holds it by now.
    pub fn longest_hold(&self, object: Object) -> u64 {
        self.living_threads()
            .filter(|thread| thread.phase(object) == Phase::Inside)
            .map(|thread| now().saturating_sub(thread.entered[object as usize].load(SeqCst)))
            .fold(self.place(object).longest_hold.load(SeqCst), u64::max)
    }

    /// Nanoseconds in which at least one process was stopped.
    pub fn stopped_time(&self) -> u64 {
        let (time, is_one) = self.stopped();
        if is_one { time.wrapping_add(now()) } else { time }
    }

    fn stopped(&self) -> (u64, bool) {
        let word = self.stopped.load(SeqCst);
        ((word.cast_signed() >> 1).cast_unsigned(), word & 1 == 1)
    }

    /// To be told how many are stopped, before one more is and after one less is.
    pub fn note_stopped(&self, processes: usize) {
        let (time, was_one) = self.stopped();
        match (processes > 0, was_one) {
            (true, false) => self.stopped.store(time.wrapping_sub(now()) << 1 | 1, SeqCst),
            (false, true) => self.stopped.store(time.wrapping_add(now()) << 1, SeqCst),
            _ => {}
        }
    }

    pub fn is(&self, run: u32) -> bool {
        self.run.load(SeqCst) == run
    }

    // ---- Ringing for the parent ----

    /// Counts an operation, and rings if it is the one that the parent waits for.
    pub fn count_operation(&self) {
        if self.operations.fetch_add(1, SeqCst) + 1 == self.alarm.load(SeqCst) {
            self.ring();
        }
    }

    pub fn ring(&self) {
        self.bell.fetch_add(1, SeqCst);
        futex::wake(&self.bell, futex::Flags::empty(), 1).expect("futex");
    }

    /// Waits until so many operations were done (true), for so long, or until there is a failure.
    pub fn wait_for_operations(&self, alarm: u64, time: Duration) -> bool {
        self.alarm.store(alarm, SeqCst);
        let until = now() + u64::try_from(time.as_nanos()).expect("short");
        loop {
            let bell = self.bell.load(SeqCst);
            if self.operations.load(SeqCst) >= alarm {
                return true;
            }
            let left = until.saturating_sub(now());
            if left == 0 || self.has_failed() {
                return false;
            }
            self.wait_for_bell(bell, Duration::from_nanos(left));
        }
    }

    /// Waits until somebody rings, or for so long.
    pub fn wait_for_bell(&self, seen: u32, time: Duration) {
        let time = time.try_into().expect("short");
        // Whatever ends it, the caller checks again.
        let _ = futex::wait(&self.bell, futex::Flags::empty(), seen, Some(&time));
    }

    pub fn bell(&self) -> u32 {
        self.bell.load(SeqCst)
    }

    // ---- Failing ----

    pub fn has_failed(&self) -> bool {
        self.failure.load(SeqCst) == 2
    }

    /// Notes a failure, if it is the first.
    pub fn note_failure(&self, text: &str) {
        if self.failure.compare_exchange(0, 1, SeqCst, SeqCst).is_ok() {
            for (to, from) in self.text.iter().zip(text.bytes()) {
                to.store(from, SeqCst);
            }
            let length = text.len().min(TEXT);
            self.length.store(u32::try_from(length).expect("short"), SeqCst);
            self.failure.store(2, SeqCst);
        }
        self.ring();
    }

    pub fn failure(&self) -> Option<String> {
        self.has_failed().then(|| {
            let length = self.length.load(SeqCst) as usize;
            let bytes: Vec<_> = self.text[..length].iter().map(|byte| byte.load(SeqCst)).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
}

/// Nanoseconds of the monotonic clock.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

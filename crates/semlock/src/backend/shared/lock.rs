//! Mutexes and semaphores.
//!
//! A mutex is one permit, a robust semaphore is several permits, and a plain semaphore is a
//! counter. They share the eventcount, and the loop of its waiters (`waiter`).
//!
//! Beside that, each process keeps an entry of its own for each lock (see `layout`). For a robust
//! semaphore it also notes which permits it holds, so it finds one to release without a search
//! through all (see `blocks::Mine`).
//!
//! The entry says whether *this process* holds a lock. The permit cannot say that: after an exec
//! the permit still names this process, but the new program knows nothing about it.
//!
//! # Memory ordering
//! The entry must answer one question right while other threads change it: is this recursive mutex
//! *mine*? A thread that got the permit writes the owner and then the depth (Release). It clears
//! the owner before it frees the permit. The thread that asks reads the depth (Acquire) and then
//! the owner. A thread writes its own name there only while it holds the mutex, so a thread that
//! finds its name with a depth above 0 is the holder.

use std::os::fd::BorrowedFd;

use super::heirs::is_left_by_all;
use super::layout::lock::{EVENTCOUNT, HEIRS, LAST_CHECK, LAST_CPU, PERMIT, TICKETS, VALUE};
use super::layout::{Kind, Tag, entry};
use super::liveness::{LivenessCache, is_due};
use super::object::{Kernel, Object, Shared};
use super::spin::LastCpu;
use crate::atomic::{AtomicU64, Ordering};
use crate::balance::Balance;
use crate::mutation::rule;
use crate::os::{clock, thread};
use crate::word::blocks::{Blocks, Mine};
use crate::word::counter::Counter;
use crate::word::eventcount::EventCount;
use crate::word::permit::{Permit, Process, State, Taken};
use crate::word::places::{Place, Places};
use crate::word::reservation::{Acquirer, Reservation};
use crate::word::turns::{Freed, Permits, Turns};
use crate::{Address, Error, Wait};

/// What a [`Lock`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// One permit, which any process may release while its holder lives.
    Mutex,
    /// One permit of one thread. This thread can acquire it again, and no other thread can release
    /// it.
    ReentrantMutex,
    /// Several permits.
    Semaphore,
}

impl From<LockKind> for Kind {
    fn from(kind: LockKind) -> Self {
        match kind {
            LockKind::Mutex => Self::Mutex,
            LockKind::ReentrantMutex => Self::ReentrantMutex,
            LockKind::Semaphore => Self::Semaphore,
        }
    }
}

/// How to make a [`Lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What it is.
    pub kind: LockKind,
    /// A semaphore's permits at the beginning.
    pub value: u32,
    /// The most permits that a plain semaphore can have. (A robust one has `value` permits.)
    pub maxvalue: u32,
    /// Whether a permit whose holder died can be acquired again.
    pub robust: bool,
}

/// A mutex, recursive mutex or semaphore, without guards. The guards are built on it, and bindings
/// use it.
#[derive(Debug)]
pub struct Lock {
    pub(super) object: Object,
    pub(super) tag: Tag,
}

/// So many holders can be checked quickly: a check takes some microseconds for each.
const FEW_HOLDERS: u32 = 64;
/// So many permits are counted in a few microseconds.
const FEW_TO_COUNT: u32 = 4_096;

const KINDS: [Kind; 3] = [Kind::Mutex, Kind::ReentrantMutex, Kind::Semaphore];

impl Shared for Lock {
    fn object(&self) -> &Object {
        &self.object
    }
}

impl Lock {
    /// Makes one.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new(options: Options) -> Result<Self, Error> {
        let Options { kind, value, maxvalue, robust } = options;
        let kind = Kind::from(kind);
        let limit = match kind {
            Kind::Semaphore if robust => value,
            Kind::Semaphore => maxvalue,
            _ => 1,
        };
        if value.max(limit) > i32::MAX.cast_unsigned() {
            return Err(Error::OutOfRange("a semaphore's value is at most 2147483647"));
        }
        let tag = Tag { kind, robust, limit };
        let new = Self { object: Object::new(tag)?, tag };
        if kind == Kind::Semaphore {
            if robust {
                new.blocks().free_all();
            } else {
                new.object.word(VALUE).store(value.into(), Ordering::Release);
            }
        }
        Ok(new)
    }

    /// Opens a lock that this process or another one has. Where this process does not have its
    /// segment yet, it needs a descriptor of that.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`], [`Error::BadSegment`], [`Error::BadAddress`]; [`Error::Os`]
    /// where mapping fails.
    pub fn open(address: Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Self, Error> {
        let (object, tag) = Object::open(&address, descriptor, &KINDS)?;
        Ok(Self { object, tag })
    }

    /// The same, for a lock of this kind only.
    pub(crate) fn open_as(
        kind: LockKind,
        address: Address,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let (object, tag) = Object::open(&address, descriptor, &[kind.into()])?;
        Ok(Self { object, tag })
    }

    /// The options it was made with. Of a plain semaphore `value` is 0.
    #[must_use]
    pub fn options(&self) -> Options {
        let Tag { kind, robust, limit } = self.tag;
        let kind = match kind {
            Kind::Mutex => LockKind::Mutex,
            Kind::ReentrantMutex => LockKind::ReentrantMutex,
            _ => LockKind::Semaphore,
        };
        let value = if kind == LockKind::Semaphore && !robust { 0 } else { limit };
        Options { kind, value, maxvalue: limit, robust }
    }

    fn permit(&self) -> Permit<'_> {
        Permit(self.object.word(PERMIT))
    }

    fn counter(&self) -> Counter<'_> {
        Counter(self.object.word(VALUE))
    }

    pub(super) fn eventcount(&self) -> EventCount<'_> {
        EventCount(self.object.word(EVENTCOUNT))
    }

    pub(super) fn last_cpu(&self) -> LastCpu<'_> {
        LastCpu(self.object.word(LAST_CPU))
    }

    /// All permits of a mutex or a robust semaphore.
    fn blocks(&self) -> Blocks<'_> {
        if self.tag.kind != Kind::Semaphore {
            let permits = std::slice::from_ref(self.object.word(PERMIT));
            return Blocks { permits, hints: &[] };
        }
        let permits = self.tag.limit as usize;
        let words = self.object.words_after(permits + Blocks::hints(permits));
        let (permits, hints) = words.split_at(permits);
        Blocks { permits, hints }
    }

    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { eventcount: self.eventcount(), places: self.places() }
    }

    /// The places of its waiters. A barrier's own lock has no places, because it is held for
    /// moments only.
    pub(super) fn places(&self) -> Option<Places<'_>> {
        (self.tag.kind != Kind::Barrier).then(|| self.object.places(TICKETS))
    }

    /// The permits of a robust semaphore that this process holds.
    fn mine(&self) -> Mine<'_> {
        Mine(self.object.private_words_after(Mine::words(self.tag.limit as usize)))
    }

    /// The index of a robust semaphore's permit from which the search for another begins.
    fn near(&self) -> usize {
        let last = self.object.private()[entry::LAST_PERMIT].load(Ordering::Relaxed);
        // Each process begins at another permit, so that they do not all try the same one first.
        let permits = u64::from(self.tag.limit.max(1));
        let near = last.checked_sub(1).unwrap_or(self.object.me().pid().into()) % permits;
        usize::try_from(near).unwrap_or_default()
    }

    fn set_near(&self, permit: usize) {
        self.object.private()[entry::LAST_PERMIT].store(permit as u64 + 1, Ordering::Relaxed);
    }

    /// Whether there is a free or reserved permit that `is_it` changes. It returns true if it does.
    fn find_reserved(&self, mut is_it: impl FnMut(Permit<'_>) -> bool) -> bool {
        self.blocks().find(self.near(), |permit| is_it(permit).then_some(())).is_some()
    }

    fn owner(&self) -> &AtomicU64 {
        &self.object.private()[entry::OWNER]
    }

    /// A mutex's depth; a robust semaphore's permits that this process holds.
    fn depth(&self) -> &AtomicU64 {
        &self.object.private()[entry::DEPTH]
    }

    fn recovered_from(&self) -> &AtomicU64 {
        &self.object.private()[entry::RECOVERED_FROM]
    }

    /// A plain semaphore's acquires minus its releases.
    fn balance(&self) -> Balance<'_> {
        Balance::of(entry::BALANCE.map(|word| &self.object.private()[word]))
    }

    // ---- Acquiring ----

    /// Acquires a permit if that needs no waiting: [`Wait::Acquired`], [`Wait::OwnerDied`] or
    /// [`Wait::TimedOut`].
    ///
    /// If nobody has checked the holder in the last 50 ms, it checks whether the holder lives. So
    /// an acquirer that only tries finds a dead holder too.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the hot path of several callers, which only one would get
    pub fn try_acquire(&self) -> Wait {
        self.try_acquire_with(|check| check())
    }

    /// The same, for a caller that holds something others need, such as an interpreter's lock.
    /// Where the check may take long, because there can be many holders, this passes it to
    /// `at_length`, which gives up what the caller holds and runs the check.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as for `try_acquire`
    pub fn try_acquire_with(&self, at_length: impl FnOnce(&mut (dyn FnMut() + Send))) -> Wait {
        if self.tag.kind == Kind::Mutex && self.permit().try_take_clean(self.object.me()) {
            self.took_mutex();
            return Wait::Acquired;
        }
        self.try_acquire_slow(at_length)
    }

    #[inline]
    fn took_mutex(&self) {
        // Here, and not at the release: another process may release it, and cannot reach this
        // process's entry.
        if rule("check/a-clean-acquire-forgets-the-death") {
            self.recovered_from().store(0, Ordering::Relaxed);
        }
        self.owner().store(thread::current() as u64, Ordering::Relaxed);
        self.depth().store(1, Ordering::Release);
        // A waiter for a mutex waits for its holder. A barrier's lock has no `last_cpu`, because it
        // is held for moments only.
        if self.tag.kind != Kind::Barrier {
            self.last_cpu().take();
        }
    }

    // Not cold: recursive mutexes and semaphores are acquired here.
    fn try_acquire_slow(&self, at_length: impl FnOnce(&mut (dyn FnMut() + Send))) -> Wait {
        if self.again_if_mine() {
            return Wait::Acquired;
        }
        match self.attempt(None) {
            Some(taken) => taken,
            None if self.tag.robust => {
                self.check_holder_if_due(at_length).unwrap_or(Wait::TimedOut)
            }
            None => Wait::TimedOut,
        }
    }

    #[cold]
    fn check_holder_if_due(
        &self,
        at_length: impl FnOnce(&mut (dyn FnMut() + Send)),
    ) -> Option<Wait> {
        let me = self.object.me();
        if !is_due(self.object.word(LAST_CHECK), me) {
            return None;
        }
        if self.holders() <= FEW_HOLDERS {
            return self.check_holder(&mut LivenessCache::new(me));
        }
        let mut found = None;
        at_length(&mut || found = self.check_holder(&mut LivenessCache::new(me)));
        found
    }

    /// How many holders there can be.
    fn holders(&self) -> u32 {
        if self.tag.kind == Kind::Semaphore { self.tag.limit } else { 1 }
    }

    /// Whether it takes long to count the free permits. A caller that holds something others need
    /// then gives that up first.
    #[must_use]
    pub fn counts_at_length(&self) -> bool {
        self.tag.kind == Kind::Semaphore && self.tag.robust && self.tag.limit > FEW_TO_COUNT
    }

    /// If this is a recursive mutex that the calling thread holds, adds 1 to its depth. Returns
    /// whether it is.
    #[inline]
    pub fn again_if_mine(&self) -> bool {
        if self.tag.kind != Kind::ReentrantMutex {
            return false;
        }
        let depth = self.depth().load(Ordering::Acquire);
        let mine = depth > 0 && self.owner().load(Ordering::Relaxed) == thread::current() as u64;
        if mine {
            self.depth().store(depth + 1, Ordering::Release);
        }
        mine
    }

    /// Acquires a permit that is free for all, or reserved for the waiter in `place`.
    #[inline]
    pub(super) fn attempt(&self, place: Option<&Place>) -> Option<Wait> {
        let acquirer = acquirer(place);
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, .. } => {
                self.counter().try_take(acquirer).then(|| {
                    let me = thread::current();
                    self.owner().store(me as u64, Ordering::Relaxed);
                    self.balance().add(1, me);
                    Wait::Acquired
                })
            }
            Tag { kind: Kind::Semaphore, .. } => self.attempt_permits(acquirer),
            _ => self.permit().try_take(self.object.me(), acquirer).map(|taken| self.took(taken)),
        }
    }

    fn attempt_permits(&self, acquirer: Acquirer) -> Option<Wait> {
        let me = self.object.me();
        let (index, taken) =
            self.blocks().find(self.near(), |permit| permit.try_take(me, acquirer))?;
        Some(self.took_one_of_many(index, taken))
    }

    /// Notes that this process has acquired a permit of a robust semaphore.
    fn took_one_of_many(&self, index: usize, taken: Taken) -> Wait {
        // Before the depth counts it: a thread that counts one less then finds a permit.
        self.mine().add(index);
        self.set_near(index);
        self.took(taken)
    }

    /// Counts one permit of a robust semaphore less and returns its index; `None` if this process
    /// holds none.
    fn take_out_one_of_mine(&self) -> Option<usize> {
        let one_less = |held: u64| held.checked_sub(1);
        self.depth().fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less).ok()?;
        self.recovered_from().store(0, Ordering::Relaxed);
        loop {
            // There is one. This thread can miss it only while other threads acquire and release.
            if let Some(index) = self.mine().remove_one(self.near()) {
                self.set_near(index);
                return Some(index);
            }
        }
    }

    /// Notes that this process has acquired a permit.
    fn took(&self, taken: Taken) -> Wait {
        if self.tag.kind == Kind::Semaphore {
            self.owner().store(thread::current() as u64, Ordering::Relaxed);
            self.depth().fetch_add(1, Ordering::AcqRel);
        } else {
            self.took_mutex();
        }
        if let Taken::OwnerDied(dead) = taken {
            self.recovered_from().store(dead.pid().into(), Ordering::Relaxed);
        }
        match taken {
            Taken::Clean => Wait::Acquired,
            Taken::OwnerDied(dead) => Wait::OwnerDied(dead.pid()),
        }
    }

    /// Recovers a permit from a holder that died.
    pub(super) fn check_holder(&self, liveness: &mut LivenessCache) -> Option<Wait> {
        if self.tag.kind == Kind::Semaphore {
            return self.check_holders(liveness);
        }
        let State::Held(holder) = self.permit().state() else { return None };
        let file = || self.object.segment().descriptor();
        (is_left_by_all(holder, self.object.word(HEIRS), file, liveness)
            && self.permit().recover(holder, self.object.me()))
        .then(|| self.took(Taken::OwnerDied(holder)))
    }

    /// The same for a robust semaphore. It also takes a free permit that acquirers cannot find,
    /// because its releaser was killed in the middle of the release.
    fn check_holders(&self, liveness: &mut LivenessCache) -> Option<Wait> {
        let me = self.object.me();
        let acquirer = acquirer(None);
        let blocks = self.blocks();
        let mut is_dead = liveness.each_once();
        blocks.permits.iter().map(Permit).enumerate().find_map(|(index, permit)| {
            let taken = match permit.state() {
                State::Held(holder) => (is_dead(holder) && permit.recover(holder, me))
                    .then_some(Taken::OwnerDied(holder)),
                _ if blocks.set_lost_hint(index) => permit.try_take(me, acquirer),
                _ => None,
            };
            taken.map(|taken| self.took_one_of_many(index, taken))
        })
    }

    /// Whether a mutex's holder has died.
    pub(super) fn is_held_by_dead(&self, is_dead: &mut impl FnMut(Process) -> bool) -> bool {
        matches!(self.permit().state(), State::Held(holder) if is_dead(holder))
    }

    // ---- Releasing ----

    /// Releases a permit. Of a recursive mutex that was acquired several times, this only decreases
    /// the depth.
    ///
    /// # Errors
    /// [`Error::NotOwner`] for a recursive mutex that the calling thread does not hold.
    /// [`Error::ReleasedTooManyTimes`] for a mutex that is free, and a semaphore at its greatest
    /// value. [`Error::NotHeldHere`] for a robust semaphore of which this process holds no permit.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as for `try_acquire`
    pub fn release(&self) -> Result<(), Error> {
        if self.tag.kind == Kind::Mutex && !self.eventcount().is_in_turn() {
            // Before it is free: after that, the next holder may have written here.
            self.forget_mutex();
            if self.permit().free_if_held_by(self.object.me()) {
                self.wake_one(None);
                return Ok(());
            }
        }
        self.release_slow()
    }

    #[inline]
    fn forget_mutex(&self) {
        self.depth().store(0, Ordering::Relaxed);
        self.owner().store(0, Ordering::Relaxed);
    }

    // Not cold: recursive mutexes and semaphores are released here.
    fn release_slow(&self) -> Result<(), Error> {
        if self.tag.kind == Kind::ReentrantMutex {
            if !self.is_my_threads() {
                return Err(Error::NotOwner);
            }
            let depth = self.depth().load(Ordering::Relaxed);
            if depth > 1 {
                self.depth().store(depth - 1, Ordering::Relaxed);
                return Ok(());
            }
        }
        if self.eventcount().is_in_turn() {
            return self.release_in_turn();
        }
        self.free(None)?;
        self.wake_one(None);
        Ok(())
    }

    /// Frees a permit for the first waiter, because a waiter has waited for too long.
    #[cold]
    fn release_in_turn(&self) -> Result<(), Error> {
        let me = self.object.me();
        let mut liveness = LivenessCache::new(me);
        let is_dead = &mut |process| liveness.is_dead(process);
        self.turns().release(&Kernel, self, clock::now, me, is_dead)
    }

    /// Wakes the first waiter; `other` is the caller's own place. Where nobody waits, this reads
    /// nothing but the eventcount.
    #[inline]
    pub(super) fn wake_one(&self, other: Option<&Place>) {
        self.eventcount().wake_one(&Kernel, || self.turns().wake_first(&Kernel, other));
    }

    /// Releases what the calling thread recovered from an owner that died, if it still holds that.
    /// The next acquirer gets [`Wait::OwnerDied`] too.
    pub fn give_back_as_owner_died(&self, pid: u32) {
        let me = self.object.me();
        let dead = Process::new(pid, 0, false);
        if self.tag.kind == Kind::Semaphore {
            let Some(index) = self.take_out_one_of_mine() else { return };
            let blocks = self.blocks();
            Permit(&blocks.permits[index]).free_as_owner_died(me, dead);
            blocks.set_hint(index);
        } else {
            // Code that ran meanwhile may have released it, and another thread may have acquired
            // it.
            if !self.is_mine() || self.recovered() != Some(pid) {
                return;
            }
            self.forget_mutex();
            if rule("check/the-next-holder-is-told-too") {
                self.permit().free_as_owner_died(me, dead);
            } else {
                self.permit().free(None);
            }
        }
        self.wake_one(None);
    }

    /// Releases a mutex that the calling thread holds, however often it acquired it. Returns how
    /// often.
    ///
    /// # Errors
    /// [`Error::NotOwner`].
    pub fn release_all(&self) -> Result<u32, Error> {
        if !self.is_mine() {
            return Err(Error::NotOwner);
        }
        let depth = self.depth().load(Ordering::Relaxed);
        self.depth().store(1, Ordering::Relaxed);
        self.release()?;
        Ok(u32::try_from(depth).unwrap_or(u32::MAX))
    }

    /// Restores the depth that `release_all` returned, after the mutex was acquired again. It adds
    /// to the depth: a signal's handler may have acquired the mutex in between and still hold it.
    pub fn restore_depth(&self, depth: u32) {
        let taken = self.depth().load(Ordering::Relaxed);
        self.depth().store(taken - 1 + u64::from(depth), Ordering::Release);
    }

    /// Frees the permits of a robust semaphore whose holders have died, and acquires none. For
    /// callers that need not know who held them. All processes together do this at most once in 50
    /// ms.
    pub fn free_those_of_the_dead(&self) {
        let me = self.object.me();
        let has_holders = self.tag.kind == Kind::Semaphore && self.tag.robust;
        if !has_holders || !is_due(self.object.word(LAST_CHECK), me) {
            return;
        }
        let mut liveness = LivenessCache::new(me);
        let mut is_dead = liveness.each_once();
        let blocks = self.blocks();
        for (index, permit) in blocks.permits.iter().map(Permit).enumerate() {
            let is_free = match permit.state() {
                State::Held(holder) if is_dead(holder) && permit.free_if_held_by(holder) => {
                    blocks.set_hint(index);
                    true
                }
                State::Held(_) => false,
                _ => blocks.set_lost_hint(index),
            };
            if is_free {
                self.wake_one(None);
            }
        }
    }

    // ---- Asking ----

    /// Whether the calling thread was the last of this process to acquire it, and the process still
    /// holds it.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        match self.tag.kind {
            Kind::ReentrantMutex => self.is_my_threads(),
            Kind::Mutex => self.is_my_threads() && self.is_held_by_this_process(),
            _ => {
                self.count() > 0 && self.owner().load(Ordering::Relaxed) == thread::current() as u64
            }
        }
    }

    #[inline]
    pub(super) fn is_my_threads(&self) -> bool {
        self.depth().load(Ordering::Acquire) > 0
            && self.owner().load(Ordering::Relaxed) == thread::current() as u64
    }

    fn is_held_by_this_process(&self) -> bool {
        match self.permit().state() {
            State::Held(holder) => holder.pid() == self.object.me().pid(),
            _ => false,
        }
    }

    /// A mutex's depth in this process; a semaphore's permits that this process has acquired and
    /// not released.
    #[must_use]
    pub fn count(&self) -> i64 {
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, .. } => self.balance().get(),
            Tag { kind: Kind::Mutex, .. } if !self.is_held_by_this_process() => 0,
            _ => self.depth().load(Ordering::Acquire).cast_signed(),
        }
    }

    /// How many permits are free. A permit that a dead process holds is not free until it is
    /// recovered. A permit that is reserved for one waiter is not free until the reservation
    /// expires.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // neither value nor permits are more than 2^31
    pub fn value(&self) -> u32 {
        let is_free = |word: &&AtomicU64| match Permit(word).state() {
            State::Held(_) => false,
            State::Reserved(reserved) => reserved.has_expired(clock::now()),
            State::Free | State::OwnerDied(_) => true,
        };
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, .. } => {
                self.counter().value(clock::now) as u32
            }
            Tag { kind: Kind::Semaphore, .. } => {
                self.blocks().permits.iter().filter(is_free).count() as u32
            }
            _ => u32::from(is_free(&self.object.word(PERMIT))),
        }
    }

    /// Whether no permit is free.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        // Where there are many permits, it mostly finds a free one at once.
        !(self.counts_at_length() && self.find_free()) && self.value() == 0
    }

    /// Whether the hints lead to a free permit of a robust semaphore. This does not read all
    /// permits.
    fn find_free(&self) -> bool {
        let is_free = |permit: Permit<'_>| {
            matches!(permit.state(), State::Free | State::OwnerDied(_)).then_some(())
        };
        self.blocks().find(self.near(), is_free).is_some()
    }

    /// How many threads, of all processes, wait for it in a place. They are asleep or were just
    /// woken.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        let places = self.places().map_or(0, |places| places.count());
        u32::try_from(places).unwrap_or(u32::MAX)
    }

    /// The pid of the process that holds a mutex. If that is a foreign process, this is its pid in
    /// its own namespace.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        match self.permit().state() {
            State::Held(holder) if self.tag.kind != Kind::Semaphore => Some(holder.pid()),
            _ => None,
        }
    }

    /// The pid of the owner that died, if this process recovered the lock from one and has not
    /// released it.
    #[must_use]
    pub fn recovered(&self) -> Option<u32> {
        let is_counter = self.tag.kind == Kind::Semaphore && !self.tag.robust;
        if is_counter || self.count() == 0 {
            return None;
        }
        let pid = self.recovered_from().load(Ordering::Relaxed);
        u32::try_from(pid).ok().filter(|&pid| pid != 0)
    }
}

fn acquirer(place: Option<&Place>) -> Acquirer {
    Acquirer { ticket: place.map(Place::ticket), clock: clock::now }
}

impl Permits for Lock {
    type Refused = Error;

    /// The caller has made sure that the calling thread holds a recursive mutex.
    fn free(&self, next: Option<Reservation>) -> Result<Freed, Error> {
        let me = self.object.me();
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, limit } => {
                let freed = self.counter().free(limit.into(), next, clock::now);
                let freed = freed.ok_or(Error::ReleasedTooManyTimes)?;
                self.last_cpu().take();
                self.balance().add(-1, thread::current());
                return Ok(freed);
            }
            Tag { kind: Kind::Semaphore, .. } => {
                let blocks = self.blocks();
                let index = loop {
                    let index = self.take_out_one_of_mine().ok_or(Error::NotHeldHere)?;
                    // Another process may have written there. Then try the next permit.
                    if Permit(&blocks.permits[index]).reserve_if_held_by(me, next) {
                        break index;
                    }
                };
                blocks.set_hint(index);
            }
            Tag { kind: Kind::ReentrantMutex, .. } => {
                self.forget_mutex();
                if !self.permit().reserve_if_held_by(me, next) {
                    return Err(Error::NotOwner);
                }
            }
            _ => {
                self.forget_mutex();
                if !self.permit().free(next) {
                    return Err(Error::ReleasedTooManyTimes);
                }
            }
        }
        Ok(if next.is_some() { Freed::ForOne } else { Freed::ForAll })
    }

    fn replace_reservation(&self, reserved: Reservation, next: Option<Reservation>) -> bool {
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, .. } => {
                self.counter().replace_reservation(reserved, next)
            }
            _ => self.find_reserved(|permit| permit.replace_reservation(reserved, next)),
        }
    }

    fn cancel_reservation(&self, ticket: u64) -> bool {
        match self.tag {
            Tag { kind: Kind::Semaphore, robust: false, .. } => {
                self.counter().cancel_reservation(ticket)
            }
            _ => self.find_reserved(|permit| permit.cancel_reservation(ticket)),
        }
    }
}

//! Channels: messages of bytes between processes.
//!
//! `word::channel` is the algorithm. Here are its locks, its sleeps, and its bell.
//!
//! * Who waits for a message holds no lock. So a process that is killed or stopped while it waits
//!   delays nobody. Only a receiver that has taken the first part of a message holds the receivers'
//!   lock until it has the last one. About ten times a second it checks whether the sender is still
//!   there.
//! * Who waits for room holds the senders' lock. So messages get in by turns, small or large: the
//!   lock is fair.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::counting::Counting;
use super::layout::channel::{
    ARRIVALS, BACKLOG, BELL_LOCK, HEAD, LEAST_WORDS, MODE, MOST_WORDS, PARTS, RECEIVERS, ROOM,
    RUNG, SENDERS, SLOTS, TAIL, TAKEN, mode,
};
use super::layout::{self, SLOT_WORDS, Tag};
use super::liveness::LivenessCache;
use super::lock::Lock;
use super::object::{Kernel, Object, Shared};
use super::spin::{LastCpu, MESSAGES, try_for_a_while};
use super::wait_schedule::WaitSchedule;
use super::waiter::Waiter;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::bell::Bell;
use crate::os::mapping::FileId;
use crate::os::thread;
use crate::word::Slept;
use crate::word::channel::{self as word, Channel as View, Corrupt, Kind, Message, Written};
use crate::word::eventcount::{EventCount, WaiterFlags};
use crate::word::permit::Process;
use crate::word::tallies::{Role, Tallies};
use crate::{Address, Deadline, Error, Wait};

/// Where a message that is received goes.
pub trait Buffer {
    /// Makes room for a message of so many bytes. This is called again if that one does not come
    /// whole, because its sender died or gave up.
    ///
    /// # Errors
    /// Any. The message then stays in the channel.
    fn begin(&mut self, bytes: usize) -> Result<(), Error>;

    /// The room that the last call of `begin` has made.
    fn bytes(&mut self) -> &mut [u8];
}

impl Buffer for Vec<u8> {
    fn begin(&mut self, bytes: usize) -> Result<(), Error> {
        self.clear();
        let full = |_| Error::Os { call: "malloc", errno: libc::ENOMEM };
        self.try_reserve_exact(bytes).map_err(full)?;
        self.resize(bytes, 0);
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}

/// A channel for messages, without conveniences.
#[derive(Debug)]
pub struct Channel {
    object: Object,
    senders: Lock,
    receivers: Lock,
    bell_lock: Lock,
    bell: Bell,
    /// Words of its ring.
    words: usize,
    /// The node in which this process notes what it takes, plus 1; 0: none yet.
    taker: AtomicU64,
    counting: Option<Counting>,
}

impl Shared for Channel {
    fn object(&self) -> &Object {
        &self.object
    }
}

/// How a call that does not wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Tried {
    /// The message was sent or received.
    Done,
    /// There is no room, or no message, or another process is at it.
    NotNow,
    /// The next message comes in parts: it takes a call that waits.
    InParts,
}

/// So often, a receiver in the middle of a message checks whether the sender is still there.
const CHECKS_SENDER: Duration = Duration::from_millis(100);

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Self {
        Self::ChannelOverwritten
    }
}

impl Channel {
    /// Makes one with a ring of at least so many bytes.
    ///
    /// # Errors
    /// [`Error::OutOfRange`]; where there is no memory, [`Error::NoSharedMemory`] or [`Error::Os`].
    pub fn new(capacity: usize) -> Result<Self, Error> {
        Self::make(capacity, 0, |_backlog| {})
    }

    /// `fill` fills the words of its backlog.
    pub(super) fn make(
        capacity: usize,
        mode: u64,
        fill: impl FnOnce(&[AtomicU64]),
    ) -> Result<Self, Error> {
        let too_large = Error::OutOfRange("a channel's capacity is 4 MiB at most");
        let words = capacity.div_ceil(size_of::<u64>()).max(LEAST_WORDS);
        let words = words.checked_next_power_of_two().ok_or(too_large)?;
        let limit = u32::try_from(words).ok().filter(|_| words <= MOST_WORDS).ok_or(too_large)?;
        let bell = Bell::new()?;
        let object = Object::new_alone(Tag { kind: layout::Kind::Channel, robust: true, limit })?;
        fill(&object.words_after(BACKLOG * SLOT_WORDS)[(BACKLOG - 1) * SLOT_WORDS..]);
        object.word(MODE).store(mode, Ordering::Release);
        Self::over(object, bell, words)
    }

    /// Opens one that this process or another one has: see
    /// [`Lock::open`](super::lock::Lock::open). The descriptors of its [`bell`](Self::bell) come
    /// with it.
    ///
    /// # Errors
    /// [`Error::SegmentNotMapped`], [`Error::BadSegment`], [`Error::BadAddress`]; [`Error::Os`]
    /// where mapping fails.
    pub fn open(
        address: Address,
        descriptor: Option<BorrowedFd<'_>>,
        [reader, writer]: [OwnedFd; 2],
    ) -> Result<Self, Error> {
        let (object, tag) = Object::open(&address, descriptor, &[layout::Kind::Channel])?;
        let words = tag.limit as usize;
        if !words.is_power_of_two() || !(LEAST_WORDS..=MOST_WORDS).contains(&words) {
            return Err(Error::BadAddress("no channel is of this size"));
        }
        Self::over(object, Bell::over(reader, writer)?, words)
    }

    fn over(object: Object, bell: Bell, words: usize) -> Result<Self, Error> {
        let tag = Tag { kind: layout::Kind::Mutex, robust: true, limit: 1 };
        let lock = |slot| {
            let object = object.part(slot).ok_or(Error::BadAddress("there is no such slot"));
            object.map(|object| Lock { object, tag })
        };
        let (senders, receivers, bell_lock) = (lock(SENDERS)?, lock(RECEIVERS)?, lock(BELL_LOCK)?);
        let counts = object.word(MODE).load(Ordering::Acquire) & mode::COUNTS != 0;
        let counting = counts.then(|| Counting::of(&object)).transpose()?;
        let taker = AtomicU64::new(0);
        Ok(Self { object, senders, receivers, bell_lock, bell, words, taker, counting })
    }

    /// How many bytes its ring has. A message of 8 bytes less is sent whole.
    #[must_use]
    pub fn capacity(&self) -> usize {
        size_of_val(self.view().ring)
    }

    /// How many messages are there.
    #[must_use]
    pub fn count(&self) -> usize {
        self.view().count()
    }

    /// Whether nothing is there to be received.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    pub(super) fn counting(&self) -> Option<&Counting> {
        self.counting.as_ref()
    }

    pub(super) fn view(&self) -> View<'_> {
        let more = self.object.words_after((SLOTS - 1) * SLOT_WORDS + self.words);
        let (slots, ring) = more.split_at((SLOTS - 1) * SLOT_WORDS);
        let taken = &slots[(TAKEN - 1) * SLOT_WORDS..];
        View {
            tail: self.object.word(TAIL),
            arrivals: EventCount(self.object.word(ARRIVALS)),
            parts: EventCount(self.object.word(PARTS)),
            head: &taken[HEAD],
            room: EventCount(&taken[ROOM]),
            ring,
        }
    }

    // ---- Sending ----

    /// Sends a message, whose bytes may lie in several places, if that needs no waiting.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`], [`Error::DescriptorLost`].
    #[inline]
    pub fn try_send(&self, message: &[&[u8]]) -> Result<Tried, Error> {
        self.try_send_with(message, |written| self.try_commit_counted(written))
    }

    /// The same; `commit` decides about what was written.
    #[inline]
    pub(super) fn try_send_with(
        &self,
        message: &[&[u8]],
        commit: impl FnOnce(Written) -> Result<Tried, Error>,
    ) -> Result<Tried, Error> {
        if !is_acquired(self.senders.try_acquire()) {
            return not_now(&self.senders);
        }
        let sent = self.try_send_locked(Message::new(message), commit);
        unlock(&self.senders);
        sent
    }

    #[inline]
    fn try_send_locked(
        &self,
        mut message: Message<'_>,
        commit: impl FnOnce(Written) -> Result<Tried, Error>,
    ) -> Result<Tried, Error> {
        let view = self.view();
        if !view.fits(message.len()) {
            return Ok(Tried::InParts);
        }
        if !view.has_room(Kind::Whole, message.len())? {
            return Ok(Tried::NotNow);
        }
        let bytes = message.len();
        commit(view.write(Kind::Whole, bytes, &mut message))
    }

    /// Begins to send a message, until a deadline.
    pub fn sending<'a>(&'a self, pieces: &'a [&'a [u8]], deadline: Deadline) -> Sending<'a> {
        Sending {
            channel: self,
            pieces,
            deadline,
            process: self.object.me(),
            waiter: None,
            holds: false,
            left: Message::new(pieces),
            has_begun: false,
        }
    }

    /// Writes and commits a record. There is room for it.
    #[inline]
    fn put(&self, kind: Kind, bytes: usize, message: &mut Message<'_>) -> Result<(), Error> {
        let written = self.view().write(kind, bytes, message);
        self.commit_counted(kind, written)
    }

    #[inline]
    pub(super) fn commit(&self, written: Written) -> Result<(), Error> {
        self.view().commit(&Kernel, self, written)
    }

    // ---- Receiving ----

    /// Receives a message, if that needs no waiting.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`]; what the buffer returns.
    #[inline]
    pub fn try_receive(&self, buffer: &mut impl Buffer) -> Result<Tried, Error> {
        if self.is_empty() {
            self.view().set_bell_right(self);
            return Ok(Tried::NotNow);
        }
        let tried = self.receivers.try_acquire();
        if !is_acquired(tried) {
            return not_now(&self.receivers);
        }
        let received = self.undo_after(tried).and_then(|()| self.try_receive_locked(buffer));
        unlock(&self.receivers);
        received
    }

    fn try_receive_locked(&self, buffer: &mut impl Buffer) -> Result<Tried, Error> {
        let view = self.view();
        while let Some(record) = view.next()? {
            match record.kind {
                Kind::Whole => {
                    buffer.begin(record.bytes)?;
                    view.copy(&record, buffer.bytes());
                    self.take(&record);
                    return Ok(Tried::Done);
                }
                Kind::First => return Ok(Tried::InParts),
                Kind::More | Kind::Last => self.take(&record),
            }
        }
        Ok(Tried::NotNow)
    }

    /// Begins to receive a message, until a deadline.
    pub fn receiving<'a, B: Buffer>(
        &'a self,
        buffer: &'a mut B,
        deadline: Deadline,
    ) -> Receiving<'a, B> {
        let process = self.object.me();
        let (waiter, holds, filled, ends_when_lost) = (None, false, None, false);
        Receiving {
            channel: self,
            buffer,
            deadline,
            process,
            waiter,
            holds,
            filled,
            ends_when_lost,
        }
    }

    /// Waits until there is something to receive, until a deadline or a signal.
    ///
    /// # Errors
    /// [`Error::ChannelOverwritten`].
    pub fn wait_readable(&self, deadline: Deadline) -> Result<Wait, Error> {
        loop {
            self.drop_remains()?;
            let view = self.view();
            if !view.is_empty() {
                return Ok(Wait::Acquired);
            }
            view.set_bell_right(self);
            match self.wait_for_record(view.arrivals, deadline)? {
                // It takes nothing: another that waits may take what it was woken for.
                Wait::Acquired => view.arrivals.wake_one(&Kernel, || false),
                end => return Ok(end),
            }
        }
    }

    /// Drops what is left of messages whose sender or receiver died, if no other process receives
    /// at this moment.
    fn drop_remains(&self) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let tried = self.receivers.try_acquire();
        if !is_acquired(tried) {
            return Ok(());
        }
        let result = self.undo_after(tried).and_then(|()| self.drop_remains_locked());
        unlock(&self.receivers);
        result
    }

    fn drop_remains_locked(&self) -> Result<(), Error> {
        let view = self.view();
        while let Some(record) = view.next()? {
            if record.kind.begins_a_message() {
                break;
            }
            self.take(&record);
        }
        Ok(())
    }

    // ---- Who takes what ----

    /// From now on, whoever receives a message notes that it did, for
    /// [`taken_by_the_dead`](Self::taken_by_the_dead). 512 processes can do so at a time.
    pub fn note_takers(&self) {
        self.object.word(MODE).fetch_or(mode::NOTES, Ordering::Release);
    }

    fn notes(&self) -> bool {
        self.object.word(MODE).load(Ordering::Acquire) & (mode::NOTES | mode::TASKS) != 0
    }

    pub(super) fn tallies(&self) -> Tallies<'_> {
        Tallies(self.object.segment().waiters())
    }

    /// This process's node as a taker, plus 1; 0: none.
    pub(super) fn taker_node(&self) -> u64 {
        self.taker.load(Ordering::Relaxed)
    }

    /// The processor that a receiver was on last.
    pub(super) fn takers_cpu(&self) -> LastCpu<'_> {
        self.receivers.last_cpu()
    }

    /// Takes a record. Under the receivers' lock.
    #[inline]
    fn take(&self, record: &word::Record) {
        if record.kind.begins_a_message() && self.notes() {
            self.note();
        }
        self.view().take(&Kernel, self, record);
        self.wake_putter(record);
    }

    #[cold]
    fn note(&self) {
        self.make_room_for_a_taker(&self.taker);
        match self.node_of(&self.taker, self.object.me(), Role::Taker) {
            Some(node) => self.tallies().take(node, self.view().next_number()),
            None => self.take_without_node(),
        }
    }

    /// Under the receivers' lock. If its last holder died, nobody has taken the next message.
    fn undo_after(&self, acquired: Wait) -> Result<(), Error> {
        if matches!(acquired, Wait::OwnerDied(_)) && self.notes() {
            let view = self.view();
            if view.next()?.is_some_and(|record| record.kind.begins_a_message()) {
                self.tallies().undo_taking(view.next_number());
            }
        }
        Ok(())
    }

    /// Runs something under the receivers' lock, when all notes are right.
    pub(super) fn with_receivers_lock(&self, run: impl FnOnce()) -> Result<(), Error> {
        let mut waiter = None;
        let acquired = loop {
            match acquire(self, &self.receivers, &mut waiter, Deadline::NEVER)? {
                Wait::Interrupted | Wait::TimedOut => {}
                acquired => break acquired,
            }
        };
        let result = self.undo_after(acquired).map(|()| run());
        unlock(&self.receivers);
        result
    }

    /// Which message each process that has died took last, by the process's pid and the message's
    /// number: the first message has number 0, and after 2^23 messages they begin again. Each is
    /// told once. Of a process that never received, nothing is.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`].
    pub fn taken_by_the_dead(&self, mut tell: impl FnMut(u32, u64)) -> Result<(), Error> {
        self.with_receivers_lock(|| {
            let mut liveness = LivenessCache::new(self.object.me());
            for (node, process) in self.tallies().dead(Role::Taker, liveness.each_once()) {
                let tally = self.tallies().free(node, process);
                if let Some(number) = tally.and_then(|tally| tally.last) {
                    tell(process.pid(), number);
                }
            }
        })
    }

    // ---- The bell ----

    /// The descriptors of the bell. The first one is readable while there is something to receive;
    /// with the second one, other processes ring.
    ///
    /// # Errors
    /// [`Error::DescriptorLost`] where other code has closed them.
    pub fn bell(&self) -> Result<[BorrowedFd<'_>; 2], Error> {
        self.bell.ends()
    }

    /// The identity of the bell's pipe.
    #[must_use]
    pub fn bell_file(&self) -> FileId {
        self.bell.file()
    }

    /// Notes that this process does not send any more: see [`is_abandoned`](Self::is_abandoned).
    pub fn close_sending(&self) {
        self.bell.close_writer();
    }

    /// Whether this process has not called [`close_sending`](Self::close_sending).
    #[must_use]
    pub fn sends(&self) -> bool {
        self.bell.has_writer()
    }

    /// Whether nobody can send any more: each process that had the channel has called
    /// [`close_sending`](Self::close_sending), or is dead.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.bell.is_abandoned()
    }

    /// Whether somebody has asked for the bell: then each call that sends or receives may wait a
    /// moment for another process that rings it.
    #[inline]
    #[must_use]
    pub fn has_bell(&self) -> bool {
        self.view().has_bell()
    }

    /// Makes the bell ring from now on, for a caller that polls its descriptor.
    ///
    /// # Errors
    /// [`Error::DescriptorLost`] where other code has closed it.
    pub fn want_bell(&self) -> Result<(), Error> {
        self.view().want_bell(self)
    }

    // ---- Sleeping ----

    /// An error if the calling thread is in the middle of a message, and so would wait for itself:
    /// for its own lock; as a sender for the room, or as a receiver for the part, that comes only
    /// when the call goes on which it has interrupted.
    #[cold]
    fn refuse_in_mid_message(&self) -> Result<(), Error> {
        let is_mid_message = self.senders.is_mine() || self.receivers.is_mine();
        if is_mid_message { Err(Error::InMidMessage) } else { Ok(()) }
    }

    /// Spins and then sleeps until there is a record; until a deadline or a signal.
    fn wait_for_record(
        &self,
        eventcount: EventCount<'_>,
        deadline: Deadline,
    ) -> Result<Wait, Error> {
        let view = self.view();
        let is_there = || (!view.is_empty()).then_some(());
        if try_for_a_while(&MESSAGES, Some(self.senders.last_cpu()), is_there).is_some() {
            return Ok(Wait::Acquired);
        }
        self.sleep(eventcount, deadline, || Ok(!view.is_empty()))
    }

    /// Sleeps until there is what `look` looks for; until a deadline or a signal.
    pub(super) fn sleep(
        &self,
        eventcount: EventCount<'_>,
        deadline: Deadline,
        mut look: impl FnMut() -> Result<bool, Error>,
    ) -> Result<Wait, Error> {
        // The process that has to wake this one may be killed before it does. So no sleep is
        // endless.
        let mut schedule = WaitSchedule::new(None, deadline, self.object.me());
        let mut key = None;
        let waiter = WaiterFlags { has_place: false, is_starving: false };
        let mut sleep = || loop {
            let prepared = eventcount.prepare_wait(waiter, key);
            key = Some(prepared);
            // The deadline before the look: this process may be stopped in between, and what was
            // there before the deadline counts.
            let time = schedule.sleep_for();
            if look()? {
                return Ok(Wait::Acquired);
            }
            let Some(time) = time else { return Ok(Wait::TimedOut) };
            let slept = eventcount.sleep(&Kernel, prepared, Some(time));
            if slept == Slept::Interrupted || (schedule.gives_a_turn() && !look()?) {
                return Ok(Wait::Interrupted);
            }
        };
        let end = sleep();
        if let Some(key) = key {
            eventcount.cancel_wait(key);
        }
        end
    }
}

impl word::Bell for Channel {
    type Error = Error;

    fn locked<T>(&self, run: impl FnOnce(bool) -> T) -> T {
        let acquired = self.bell_lock.acquire_until(Deadline::NEVER);
        let result = run(matches!(acquired, Wait::OwnerDied(_)));
        unlock(&self.bell_lock);
        result
    }

    fn is_locked(&self) -> bool {
        self.bell_lock.holder().is_some()
    }

    fn rung(&self) -> &AtomicU64 {
        self.object.word(RUNG)
    }

    fn ring(&self) -> Result<(), Error> {
        self.bell.ring()
    }

    fn silence(&self) {
        self.bell.silence();
    }
}

pub(super) fn is_acquired(wait: Wait) -> bool {
    matches!(wait, Wait::Acquired | Wait::OwnerDied(_))
}

pub(super) fn unlock(lock: &Lock) {
    let released = lock.release();
    debug_assert!(released.is_ok());
}

#[cold]
fn not_now(lock: &Lock) -> Result<Tried, Error> {
    if lock.is_mine() { Err(Error::InMidMessage) } else { Ok(Tried::NotNow) }
}

/// Acquires one of a channel's locks, or goes on to wait for it.
pub(super) fn acquire<'a>(
    channel: &Channel,
    lock: &'a Lock,
    waiter: &mut Option<Waiter<'a>>,
    deadline: Deadline,
) -> Result<Wait, Error> {
    if waiter.is_none() {
        let tried = lock.try_acquire();
        if is_acquired(tried) {
            return Ok(tried);
        }
        channel.refuse_in_mid_message()?;
    }
    let end = waiter.get_or_insert_with(|| lock.waiter(deadline)).wait();
    if is_acquired(end) {
        *waiter = None;
    }
    Ok(end)
}

/// A message that is being sent. To drop it ends that: if a part was sent, receivers drop it.
#[derive(Debug)]
#[must_use = "it sends only as long as it is there"]
pub struct Sending<'a> {
    channel: &'a Channel,
    pieces: &'a [&'a [u8]],
    deadline: Deadline,
    /// The process that sends. A child that a signal's handler forks meanwhile sends a message of
    /// its own.
    process: Process,
    waiter: Option<Waiter<'a>>,
    /// Whether it holds the senders' lock.
    holds: bool,
    left: Message<'a>,
    /// Whether a part was sent.
    has_begun: bool,
}

impl Sending<'_> {
    /// Sends the message; waits until the deadline or a signal. [`Wait::Acquired`]: it was sent.
    /// After [`Wait::Interrupted`], the caller does what it has to do when a signal arrives, and
    /// calls again.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`], [`Error::DescriptorLost`].
    pub fn wait(&mut self) -> Result<Wait, Error> {
        let channel = self.channel;
        let me = channel.object.me();
        if self.process != me {
            (self.process, self.waiter, self.holds) = (me, None, false);
            (self.left, self.has_begun) = (Message::new(self.pieces), false);
        }
        if !self.holds {
            let end = acquire(channel, &channel.senders, &mut self.waiter, self.deadline)?;
            if !is_acquired(end) {
                return Ok(end);
            }
            self.holds = true;
        }
        let end = self.send()?;
        if end == Wait::Acquired {
            self.end();
        }
        Ok(end)
    }

    /// Gives it another deadline. So a message whose first parts were sent can go on after
    /// [`Wait::TimedOut`], instead of beginning anew.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
        // It has the old one.
        self.waiter = None;
    }

    fn send(&mut self) -> Result<Wait, Error> {
        let channel = self.channel;
        let view = channel.view();
        loop {
            let (kind, bytes) = match (self.left.len(), view.part()) {
                (left, _) if !self.has_begun && view.fits(left) => (Kind::Whole, left),
                (_, part) if !self.has_begun => (Kind::First, part),
                (left, part) if left > part => (Kind::More, part),
                (left, _) => (Kind::Last, left),
            };
            match self.wait_for_room(kind, bytes)? {
                Wait::Acquired => {}
                end => return Ok(end),
            }
            channel.put(kind, bytes, &mut self.left)?;
            self.has_begun = true;
            if kind.ends_a_message() {
                return Ok(Wait::Acquired);
            }
        }
    }

    fn wait_for_room(&self, kind: Kind, bytes: usize) -> Result<Wait, Error> {
        let channel = self.channel;
        let view = channel.view();
        if view.has_room(kind, bytes)? {
            return Ok(Wait::Acquired);
        }
        if channel.receivers.is_mine() {
            return Err(Error::InMidMessage);
        }
        let has_room = || view.has_room_after_a_wait(kind, bytes).map_err(Error::from);
        let try_it = || match has_room() {
            Ok(false) => None,
            end => Some(end),
        };
        if let Some(end) = try_for_a_while(&MESSAGES, Some(channel.receivers.last_cpu()), try_it) {
            return end.map(|_| Wait::Acquired);
        }
        channel.sleep(view.room, self.deadline, has_room)
    }

    fn end(&mut self) {
        self.waiter = None;
        if std::mem::take(&mut self.holds) {
            unlock(&self.channel.senders);
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.process == self.channel.object.me() {
            self.end();
        }
    }
}

/// A message that is being received. To drop it ends that: if a part was received, the message is
/// lost.
#[derive(Debug)]
#[must_use = "it receives only as long as it is there"]
pub struct Receiving<'a, B: Buffer> {
    channel: &'a Channel,
    buffer: &'a mut B,
    deadline: Deadline,
    /// The process that receives, as for [`Sending`].
    process: Process,
    waiter: Option<Waiter<'a>>,
    /// Whether it holds the receivers' lock.
    holds: bool,
    /// In the middle of a message in parts: how many bytes of it are there.
    filled: Option<usize>,
    ends_when_lost: bool,
}

impl<B: Buffer> Receiving<'_, B> {
    /// From now on, [`wait`](Self::wait) ends with [`Error::MessageLost`] where the message that it
    /// has begun does not come whole. Else it waits for the next one: too long for a caller that
    /// began only because something was there.
    pub fn end_when_lost(&mut self) {
        self.ends_when_lost = true;
    }

    /// Receives a message; waits until the deadline or a signal. [`Wait::Acquired`]: it is in the
    /// buffer. In the middle of a message in parts, the deadline ends nothing: the message would be
    /// lost. After [`Wait::Interrupted`], the caller does what it has to do when a signal arrives,
    /// and calls again.
    ///
    /// # Errors
    /// [`Error::InMidMessage`], [`Error::ChannelOverwritten`]; what the buffer returns.
    pub fn wait(&mut self) -> Result<Wait, Error> {
        let channel = self.channel;
        let me = channel.object.me();
        if self.process != me {
            (self.process, self.waiter, self.holds, self.filled) = (me, None, false, None);
        }
        let view = channel.view();
        loop {
            if !self.holds {
                if self.waiter.is_none() && view.is_empty() {
                    channel.refuse_in_mid_message()?;
                    view.set_bell_right(channel);
                    match channel.wait_for_record(view.arrivals, self.deadline)? {
                        Wait::Acquired => {}
                        end => return Ok(end),
                    }
                }
                let end = acquire(channel, &channel.receivers, &mut self.waiter, self.deadline)?;
                if !is_acquired(end) {
                    return Ok(end);
                }
                self.holds = true;
                channel.undo_after(end)?;
            }
            let Some(record) = view.next()? else {
                if self.filled.is_none() {
                    self.end();
                    continue;
                }
                let end = self.wait_for_part()?;
                if self.filled.is_none() && self.ends_when_lost {
                    self.end();
                    return Err(Error::MessageLost);
                }
                if end == Wait::Interrupted {
                    return Ok(Wait::Interrupted);
                }
                continue;
            };
            if record.kind == Kind::First && channel.senders.is_mine() {
                return Err(Error::InMidMessage);
            }
            if self.receive(&record)? {
                self.filled = None;
                self.end();
                return Ok(Wait::Acquired);
            }
        }
    }

    /// Takes a record. Returns whether the message is whole.
    fn receive(&mut self, record: &word::Record) -> Result<bool, Error> {
        let channel = self.channel;
        let view = channel.view();
        match (record.kind, self.filled) {
            // What was begun before does not come: its sender is gone.
            (Kind::Whole | Kind::First, _) => {
                self.buffer.begin(record.total)?;
                view.copy(record, &mut self.buffer.bytes()[..record.bytes]);
                self.filled = Some(record.bytes);
            }
            (Kind::More | Kind::Last, Some(filled)) => {
                let end = filled + record.bytes;
                let is_last = record.kind == Kind::Last;
                let whole = self.buffer.bytes();
                if end > whole.len() || is_last != (end == whole.len()) {
                    return Err(Error::ChannelOverwritten);
                }
                view.copy(record, &mut whole[filled..end]);
                self.filled = Some(end);
            }
            // Its beginning was lost with another receiver.
            (Kind::More | Kind::Last, None) => {}
        }
        channel.take(record);
        Ok(self.filled.is_some() && record.kind.ends_a_message())
    }

    /// Waits for the next part of a message, and gives the message up if its sender is gone.
    fn wait_for_part(&mut self) -> Result<Wait, Error> {
        let channel = self.channel;
        let view = channel.view();
        let end = channel.wait_for_record(view.parts, Deadline::after(CHECKS_SENDER))?;
        // A sender in the middle of a message holds the lock.
        if end == Wait::TimedOut
            && rule("channel/a-receiver-notices-that-its-sender-died")
            && is_acquired(channel.senders.try_acquire())
        {
            if view.is_empty() {
                self.filled = None;
            }
            unlock(&channel.senders);
        }
        // A signal that arrived just before the sleep has not interrupted it: see `WaitSchedule`.
        let has_a_turn = end == Wait::TimedOut && thread::is_first() && rule("sleep/gives-a-turn");
        Ok(if has_a_turn { Wait::Interrupted } else { end })
    }

    fn end(&mut self) {
        self.waiter = None;
        self.filled = None;
        if std::mem::take(&mut self.holds) {
            unlock(&self.channel.receivers);
        }
    }
}

impl<B: Buffer> Drop for Receiving<'_, B> {
    fn drop(&mut self) {
        if self.process != self.channel.object.me() {
            return;
        }
        self.end();
        // It may have been woken for a message that it has not taken: another takes it.
        let view = self.channel.view();
        if !view.is_empty() {
            view.arrivals.wake_one(&Kernel, || false);
        }
    }
}

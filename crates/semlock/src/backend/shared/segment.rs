//! Segments: the memory that objects live in.
//!
//! `layout` says what each word of a segment is, and each word of the private memory that every
//! process keeps beside it.
//!
//! The slots that follow a robust semaphore's slot hold its permits, and hints where free ones may
//! be (`word::blocks`). In each process the entries of these slots belong to the semaphore too:
//! there the process notes which permits it holds.
//!
//! Only the process that made a segment takes slots of it (`registry`). Processes share no count of
//! users, so no such count can be lost: a process unmaps a segment with its last object there, and
//! the kernel frees the memory with the last process.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::heirs::{self, Inheritable};
use super::layout::{
    ENTRY_WORDS, FEWEST_NODES, FEWEST_SLOTS, Kind, MAGIC, MOST_SLOTS_OF_ONE, PLACES_AT, SLOT_WORDS,
    Size, TAG, Tag, VERSION, condvar, entry, entry_at, header, lock, node, private,
};
use crate::Error;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::lineage::Lineage;
use crate::os::mapping::{
    self, FileId, Holds, Memory, Shared, Unproven, file_size_limit, lacks_room, random,
};
use crate::os::process::{START_BITS, identity};
use crate::os::thread;
use crate::word::permit::{self, Permit, Process};
use crate::word::places::Places;
use crate::word::waiters::Waiters;

// A permit keeps every bit of a start time.
const _: () = assert!(START_BITS <= permit::START_BITS);

impl Size {
    /// The next smaller size, with `least_slots` slots at least. It reduces the slots first:
    /// waiters need nodes, and a later segment cannot lend nodes to this one.
    fn smaller(self, least_slots: usize) -> Option<Self> {
        let slots = (self.slots / 2).max(least_slots);
        if self.slots > FEWEST_SLOTS.max(least_slots) {
            Some(Self { slots: slots.max(FEWEST_SLOTS), ..self })
        } else if self.nodes > FEWEST_NODES {
            // The slots that follow the nodes must begin at a cache line.
            let half = |nodes: usize| (nodes / 2).next_multiple_of(SLOT_WORDS / node::WORDS);
            let [places, nodes] =
                [self.places, self.nodes].map(|nodes| half(nodes).max(FEWEST_NODES));
            Some(Self { places, nodes, slots })
        } else {
            None
        }
    }
}

/// Where an object lives.
pub(crate) type Place = mapping::Place<Segment, SLOT_WORDS, ENTRY_WORDS>;

#[derive(Debug)]
pub(crate) struct Segment {
    shared: Shared,
    private: Memory,
    id: [u64; 2],
    size: Size,
}

impl Holds for Segment {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn private(&self) -> &Memory {
        &self.private
    }
}

impl Segment {
    /// Makes a segment of this size. Where there is no room for that, it makes a smaller one, with
    /// `least_slots` slots at least.
    pub(super) fn create(mut size: Size, least_slots: usize) -> Result<Self, Error> {
        let limit = file_size_limit().unwrap_or(u64::MAX);
        loop {
            let smaller = size.smaller(least_slots).filter(|_| size.bytes() > limit);
            if let Some(smaller) = smaller {
                size = smaller;
                continue;
            }
            match (Self::create_of(size), size.smaller(least_slots)) {
                (Err(error), Some(smaller)) if lacks_room(error) => size = smaller,
                (Err(error), _) => return Err(name_the_limit(error, size)),
                (made, _) => return made,
            }
        }
    }

    fn create_of(size: Size) -> Result<Self, Error> {
        let too_large = Error::Os { call: "mmap", errno: libc::ENOMEM };
        let shared = Shared::create(size.words().ok_or(too_large)?)?;
        let me = identity();
        let id = random().map_err(Error::os("getrandom"))?;
        let header = [
            (header::MAGIC, MAGIC),
            (header::VERSION, VERSION),
            (header::LENGTH, shared.words().len() as u64),
            (header::ID, id[0]),
            (header::ID + 1, id[1]),
            (header::MAKER_PID, me.pid.into()),
            (header::MAKER_START, me.start),
            (header::MAKER_PID_NAMESPACE, me.namespaces.pid),
            (header::MAKER_TIME_NAMESPACE, me.namespaces.time),
            (header::NODES, size.nodes as u64),
            (header::SLOTS, size.slots as u64),
            (header::DESCRIPTOR, shared.descriptor_number().cast_unsigned().into()),
            (header::PLACES, size.places as u64),
        ];
        for (word, value) in header {
            shared.words()[word].store(value, Ordering::Relaxed);
        }
        Self::over(shared, id, size)
    }

    /// Opens a segment. It trusts no word of it before it has checked that word.
    pub(super) fn open(descriptor: BorrowedFd<'_>, id: [u64; 2]) -> Result<Self, Error> {
        let found = Unproven::map(descriptor, header::WORDS)?;
        let read = |word: usize| found.words()[word].load(Ordering::Relaxed);
        if read(header::MAGIC) != MAGIC {
            return Err(Error::BadSegment("it is none of semlock's"));
        }
        if read(header::VERSION) != VERSION {
            return Err(Error::BadSegment("it has another layout, of another version of semlock"));
        }
        if [read(header::ID), read(header::ID + 1)] != id {
            return Err(Error::BadSegment("it has another id"));
        }
        let bad_size = Error::BadSegment("its length is not what its header says");
        let size = Size::in_header(read).ok_or(bad_size)?;
        let length = usize::try_from(read(header::LENGTH)).map_err(|_| bad_size)?;
        if size.words() != Some(length)
            || !found.has_length(length)
            || size.slots > MOST_SLOTS_OF_ONE
        {
            return Err(bad_size);
        }
        Self::over(found.keep()?, id, size)
    }

    fn over(shared: Shared, id: [u64; 2], size: Size) -> Result<Self, Error> {
        let private = Memory::wipe_on_fork(entry_at(size.slots))?;
        Ok(Self { shared, private, id, size })
    }

    fn header(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[word]
    }

    /// How many slots it has.
    pub(super) fn slots(&self) -> usize {
        self.size.slots
    }

    /// Slots in use.
    pub(super) fn used(&self) -> usize {
        // Another process can write to shared memory: no value there may lead out of the segment.
        let used = self.header(header::SLOTS_USED).load(Ordering::Acquire);
        usize::try_from(used).map_or(self.size.slots, |used| used.min(self.size.slots))
    }

    /// Notes that so many slots are in use. Only the maker calls this.
    pub(super) fn set_used(&self, slots: usize) {
        self.header(header::SLOTS_USED).store(slots as u64, Ordering::Release);
    }

    /// Whether this is its id.
    pub(super) fn has_id(&self, id: [u64; 2]) -> bool {
        self.id == id
    }

    /// So many shared words, from the slot that follows `slot`.
    pub(crate) fn words_after(&self, slot: u32, words: usize) -> &[AtomicU64] {
        let at = self.size.slot_at(slot as usize + 1);
        &self.shared.words()[at..at + words]
    }

    /// So many of this process's private words, from the entry that follows that of `slot`.
    pub(crate) fn private_words_after(&self, slot: u32, words: usize) -> &[AtomicU64] {
        let at = entry_at(slot as usize + 1);
        &self.private.words()[at..at + words]
    }

    /// A function from the slot of a condition to the number of tickets when its last `notify`
    /// began. A process that finds a dead waiter that was notified needs it. 0 for a slot that does
    /// not exist.
    pub(super) fn notified_at(&self) -> impl Fn(u64) -> u64 + '_ {
        |slot| {
            let slot = usize::try_from(slot).ok().filter(|&slot| slot < self.size.slots);
            slot.map_or(0, |slot| {
                let at = self.size.slot_at(slot) + condvar::NOTIFIED_AT;
                self.shared.words()[at].load(Ordering::Relaxed)
            })
        }
    }

    pub(crate) fn waiters(&self) -> Waiters<'_> {
        let nodes = &self.shared.words()[self.size.nodes_at()..][..self.size.nodes * node::WORDS];
        Waiters { nodes, used: self.header(header::NODES_USED) }
    }

    /// The places of the waiters for the lock in a slot. `tickets` is the word that counts its
    /// tickets.
    pub(crate) fn places<'a>(&'a self, slot: u32, tickets: &'a AtomicU64) -> Places<'a> {
        Places { table: self.all_places(), slot: slot.into(), tickets }
    }

    fn all_places(&self) -> Waiters<'_> {
        let nodes = &self.shared.words()[PLACES_AT..self.size.nodes_at()];
        Waiters { nodes, used: self.header(header::PLACES_USED) }
    }

    /// The slots that have a waiter, or had one that died in its wait.
    pub(super) fn waited_for(&self) -> BTreeSet<u64> {
        let mut slots = self.waiters().slots();
        slots.append(&mut self.all_places().slots());
        slots
    }

    /// Finds out the name of the calling process in this segment.
    pub(crate) fn find_out_me(&self) -> Process {
        let me = identity();
        let makers = [header::MAKER_PID_NAMESPACE, header::MAKER_TIME_NAMESPACE]
            .map(|word| self.header(word));
        // A process that does not know its namespace cannot check others.
        let is_foreign = me.namespaces.pid == 0
            || me.namespaces.pid != makers[0].load(Ordering::Relaxed)
            || me.namespaces.time != makers[1].load(Ordering::Relaxed);
        let is_foreign = is_foreign && rule("check/foreign-processes-are-named-so");
        self.call_me(Process::new(me.pid, me.start, is_foreign))
    }

    /// Names the calling process so in this segment, unless it has a name here already; returns its
    /// name. What one thread acquired under a name, another thread must release under the same
    /// name. Two threads may have found out different names, where the system gave one of them no
    /// answer (for want of a descriptor).
    fn call_me(&self, process: Process) -> Process {
        let name = &self.private.words()[private::NAME];
        let unknown =
            if rule("check/a-process-has-one-name") { 0 } else { name.load(Ordering::Relaxed) };
        match name.compare_exchange(unknown, process.word(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => process,
            Err(known) => Process::from_word(known),
        }
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.id[0].to_ne_bytes());
        id[8..].copy_from_slice(&self.id[1].to_ne_bytes());
        id
    }

    /// The pid of the process that made it, and its descriptor's number there.
    pub(crate) fn maker(&self) -> (u32, RawFd) {
        let number = |word| self.header(word).load(Ordering::Relaxed);
        let descriptor = i32::try_from(number(header::DESCRIPTOR)).unwrap_or(-1);
        (u32::try_from(number(header::MAKER_PID)).unwrap_or(0), descriptor)
    }

    /// Its descriptor. If other code has closed it, a new one, where the system gives one.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.shared.descriptor()
    }

    /// The same, for a process that passes it on: other processes find it by its number in the
    /// header.
    pub(super) fn descriptor_for_others(&self) -> Result<BorrowedFd<'_>, Error> {
        let descriptor = self.descriptor().ok_or(Error::DescriptorLost)?;
        let number = descriptor.as_raw_fd();
        if number != self.maker().1 && self.was_made_by_this_process() {
            let number = u64::from(number.cast_unsigned());
            self.header(header::DESCRIPTOR).store(number, Ordering::Relaxed);
        }
        Ok(descriptor)
    }

    /// Whether this process makes new objects in it. Only the maker takes slots. And the segment
    /// needs a descriptor, because without one its objects cannot be sent.
    pub(super) fn takes_objects(&self) -> bool {
        (self.was_made_by_this_process() || !rule("fork/a-child-makes-its-own-segment"))
            && (self.shared.has_descriptor() || !rule("create/where-there-is-a-descriptor"))
    }

    /// The identity of its file.
    pub(crate) fn file(&self) -> FileId {
        self.shared.file()
    }

    pub(crate) fn was_made_by_this_process(&self) -> bool {
        let me = identity();
        self.header(header::MAKER_PID).load(Ordering::Relaxed) == u64::from(me.pid)
            && self.header(header::MAKER_START).load(Ordering::Relaxed) == me.start
    }

    /// Notes that a child of its maker may have passed on an object. The child cannot notify its
    /// parent in another way.
    pub(crate) fn note_sent_on(&self) {
        self.header(header::SENT_ON).store(1, Ordering::Release);
    }

    pub(super) fn was_sent_on(&self) -> bool {
        self.header(header::SENT_ON).load(Ordering::Acquire) != 0
    }

    pub(super) fn place(self: &Arc<Self>, slot: usize) -> Option<Place> {
        Place::new(Arc::clone(self), self.size.slot_at(slot), entry_at(slot))
    }

    /// This process's name here, if it was found out before; otherwise its word is 0.
    pub(super) fn me(&self) -> Process {
        Process::from_word(self.private.words()[private::NAME].load(Ordering::Relaxed))
    }

    /// Leaves to the child that the calling thread is about to fork the locks that it may go on to
    /// hold.
    pub(super) fn leave_to_child(&self, forks: u64) -> Option<Lineage> {
        if !rule("fork/what-may-be-inherited-is-marked") {
            return None;
        }
        let me = self.me();
        // A process without a name here has acquired nothing. And no process checks whether a
        // foreign process lives.
        if !me.can_be_checked() || me.word() == 0 {
            return None;
        }
        let thread = thread::current() as u64;
        let held: Vec<_> = self
            .plain_locks_of(me)
            .filter(|&(_, owner)| {
                owner == thread || !rule("fork/only-what-the-forking-thread-holds-is-left")
            })
            .map(|(lock, _)| lock)
            .collect();
        if held.is_empty() {
            return None;
        }
        heirs::leave_to_child(&held, me, forks, self.descriptor())
    }

    /// Leaves the locks that this process holds to others, except those that its `running` threads
    /// hold.
    pub(super) fn leave_held(&self, running: &[usize]) {
        let me = self.me();
        if me.word() == 0 {
            return;
        }
        let is_cut_short = |owner: u64| {
            running.iter().any(|&thread| thread as u64 == owner)
                && rule("end/what-a-running-thread-holds-is-not-left")
        };
        for (lock, owner) in self.plain_locks_of(me) {
            if owner != 0 && !is_cut_short(owner) {
                Permit(lock.permit).leave_held(me);
            }
        }
    }

    /// The robust locks that this process holds and that another process may release, each with the
    /// thread that acquired it. A recursive lock, or a queue's, is not among them: it belongs to
    /// the thread that acquired it.
    pub(super) fn plain_locks_of(
        &self,
        me: Process,
    ) -> impl Iterator<Item = (Inheritable<'_>, u64)> {
        let mut next = 0;
        let slots = std::iter::from_fn(move || {
            let slot = next;
            (slot < self.used()).then(|| {
                // Skip a robust semaphore's permits: they are no slots of their own, even where a
                // word looks like a tag.
                next += self.tag(slot).map_or(1, Tag::slots);
                slot
            })
        });
        slots.filter_map(move |slot| {
            let words = self.shared.words()[self.size.slot_at(slot)..].first_chunk()?;
            Some((plain_lock(words, me)?, self.owner_of(slot)))
        })
    }

    /// The thread of this process that holds the lock in a slot; 0 if the entry names none.
    fn owner_of(&self, slot: usize) -> u64 {
        let entry = &self.private.words()[entry_at(slot)..];
        let depth = entry[entry::DEPTH].load(Ordering::Acquire);
        if depth > 0 { entry[entry::OWNER].load(Ordering::Relaxed) } else { 0 }
    }

    pub(super) fn tag(&self, slot: usize) -> Option<Tag> {
        let at = self.size.slot_at(slot) + TAG;
        Tag::from_word(self.shared.words()[at].load(Ordering::Acquire))
    }
}

/// The error to return where not even the smallest segment can be made.
fn name_the_limit(error: Error, smallest: Size) -> Error {
    match (error, file_size_limit()) {
        (Error::NoSharedMemory(_), Some(limit)) if limit < smallest.bytes() => {
            Error::FileSizeLimit { limit, least: smallest.bytes() }
        }
        _ => error,
    }
}

/// A slot's lock, if it is robust, another process may release it, and this process holds it.
pub(super) fn plain_lock(words: &[AtomicU64; SLOT_WORDS], me: Process) -> Option<Inheritable<'_>> {
    let tag = Tag::from_word(words[TAG].load(Ordering::Acquire))?;
    let is_plain = tag.kind == Kind::Mutex
        || tag.kind == Kind::ReentrantMutex && !rule("fork/an-rlock-has-no-heirs");
    let lock = Inheritable { permit: &words[lock::PERMIT], heirs: &words[lock::HEIRS] };
    (tag.robust && is_plain && Permit(lock.permit).is_held_by(me)).then_some(lock)
}

#[cfg(test)]
mod tests {
    use super::super::lock::{Lock, LockKind, Options};
    use super::*;
    use crate::Wait;

    #[test]
    fn a_process_keeps_the_name_that_it_acquired_a_lock_under() {
        let options =
            Options { kind: LockKind::ReentrantMutex, value: 1, maxvalue: 1, robust: true };
        let lock = Lock::new(options).unwrap();
        assert_eq!(lock.try_acquire(), Wait::Acquired);
        let me = lock.object.me();
        // The name that a thread finds out if the system gives it no answer. It had asked before
        // `me` was stored.
        let other = Process::new(me.pid(), me.start() ^ 1, true);
        assert_eq!(lock.object.segment().call_me(other), me);
        lock.release().unwrap();
        assert!(!lock.is_zero());
    }
}

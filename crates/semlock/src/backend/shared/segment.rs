//! Segments: the memory that objects live in.
//!
//! What stands where in one, and in the memory that each process keeps for itself beside it, is in
//! `layout`.
//!
//! A robust semaphore's permits, and where the free ones may be (`word::blocks`), follow its slot, as many slots as they need. So in
//! each process the entries of these are its as well: in them it notes which permits it holds.
//!
//! Only the process that made a segment takes slots of it. Slots
//! are taken one after the other. One is used again only if no other process can have the object: it was never sent, and the
//! children that were forked while it was there are gone (`reuse`). Those of a robust semaphore, which lie side by side, are
//! not used again. No count of users crosses a process boundary, so none can be lost:
//! a process unmaps a segment with the last object that it has in it (but for the one that it makes its
//! next objects in, and the one whose file it finds its children by), and the kernel frees the memory with the last process.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use super::heirs::{self, Inheritable};
use super::layout::{
    ENTRY_WORDS, FEWEST_NODES, FEWEST_SLOTS, Kind, MAGIC, MOST_SLOTS, MOST_SLOTS_OF_ONE, NODES,
    PLACES, PLACES_AT, SLOT_NUMBERS, SLOT_WORDS, Size, TAG, Tag, VERSION, condvar, entry, entry_at,
    header, lock, message, node, private,
};
use super::reuse::Reuse;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::atfork::{Forking, Registered, on_fork};
use crate::os::fork_mutex::ForkMutex;
use crate::os::lineage::Lineage;
use crate::os::mapping::{
    self, FileId, Holds, Memory, Shared, Unproven, file_size_limit, lacks_room, random,
};
use crate::os::process::{START_BITS, identity};
use crate::os::thread;
use crate::word::permit::{self, Permit, Process};
use crate::word::places::Places;
use crate::word::waiters::Waiters;
use crate::{Address, Error};

// A permit tells a start time back as the system told it.
const _: () = assert!(START_BITS <= permit::START_BITS);

impl Size {
    /// The next smaller one that has so many slots at least. First the slots become fewer: nodes are what waiters
    /// need, and a later segment has none to spare for this one's.
    fn smaller(self, least_slots: usize) -> Option<Self> {
        let slots = (self.slots / 2).max(least_slots);
        if self.slots > FEWEST_SLOTS.max(least_slots) {
            Some(Self { slots: slots.max(FEWEST_SLOTS), ..self })
        } else if self.nodes > FEWEST_NODES {
            // Slots that follow them are whole cache lines.
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
    /// A new one with so many slots; where there is no room for that, a smaller one, with the least number of slots that
    /// is asked for.
    fn create(slots: usize, least_slots: usize) -> Result<Self, Error> {
        let limit = file_size_limit().unwrap_or(u64::MAX);
        let mut size = Size { places: PLACES, nodes: NODES, slots };
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

    /// Believes nothing of what stands there before it was compared with what was expected.
    fn open(descriptor: BorrowedFd<'_>, id: [u64; 2]) -> Result<Self, Error> {
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
        let private = Memory::private_wiped_on_fork(entry_at(size.slots))?;
        Ok(Self { shared, private, id, size })
    }

    fn header(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[word]
    }

    /// Slots in use.
    fn used(&self) -> usize {
        // Shared memory: whatever stands there must not lead out of the segment.
        let used = self.header(header::SLOTS_USED).load(Ordering::Acquire);
        usize::try_from(used).map_or(self.size.slots, |used| used.min(self.size.slots))
    }

    /// So many words that follow a slot.
    pub(crate) fn words_after(&self, slot: u32, words: usize) -> &[AtomicU64] {
        let at = self.size.slot_at(slot as usize + 1);
        &self.shared.words()[at..at + words]
    }

    /// So many words of this process's that follow a slot's entry.
    pub(crate) fn private_words_after(&self, slot: u32, words: usize) -> &[AtomicU64] {
        let at = entry_at(slot as usize + 1);
        &self.private.words()[at..at + words]
    }

    /// What tells of each condition, by its slot, how many tickets there were when its last `notify`
    /// began: for one who finds a dead waiter that it has notified. 0 of a slot that there is not.
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

    /// The places of those who wait for the lock in a slot, whose tickets that word counts.
    pub(crate) fn places<'a>(&'a self, slot: u32, tickets: &'a AtomicU64) -> Places<'a> {
        Places { table: self.all_places(), slot: slot.into(), tickets }
    }

    fn all_places(&self) -> Waiters<'_> {
        let nodes = &self.shared.words()[PLACES_AT..self.size.nodes_at()];
        Waiters { nodes, used: self.header(header::PLACES_USED) }
    }

    /// The slots that somebody waits for, or waited for as it died.
    pub(super) fn waited_for(&self) -> BTreeSet<u64> {
        let mut slots = self.waiters().slots();
        slots.append(&mut self.all_places().slots());
        slots
    }

    /// How the calling process is called in this segment.
    pub(crate) fn find_out_me(&self) -> Process {
        let me = identity();
        let makers = [header::MAKER_PID_NAMESPACE, header::MAKER_TIME_NAMESPACE]
            .map(|word| self.header(word));
        // Who does not know its namespace cannot be compared with anybody.
        let stranger = me.namespaces.pid == 0
            || me.namespaces.pid != makers[0].load(Ordering::Relaxed)
            || me.namespaces.time != makers[1].load(Ordering::Relaxed);
        let stranger = stranger && rule("judge/strangers-are-named-so");
        self.call_me(Process::new(me.pid, me.start, stranger))
    }

    /// Calls the calling process so, unless it is called something already: what one thread took under a name, another has
    /// to give back under the same. They may have found out different things, where the system told one of them nothing
    /// (for want of a descriptor).
    fn call_me(&self, process: Process) -> Process {
        let name = &self.private.words()[private::NAME];
        let unknown =
            if rule("judge/a-process-has-one-name") { 0 } else { name.load(Ordering::Relaxed) };
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

    /// Its descriptor. If somebody has closed that behind our back, a new one, where the system gives one.
    pub(crate) fn descriptor(&self) -> Result<RawFd, Error> {
        let descriptor = self.shared.descriptor().ok_or(Error::DescriptorLost)?.as_raw_fd();
        if descriptor != self.maker().1 && self.was_made_by_this_process() {
            self.header(header::DESCRIPTOR)
                .store(u64::from(descriptor.cast_unsigned()), Ordering::Relaxed);
        }
        Ok(descriptor)
    }

    /// Whether this process makes new objects in it: no other may take its slots, and objects that cannot be sent, for want of
    /// a descriptor, are those of before it was closed, and no more.
    pub(super) fn takes_objects(&self) -> bool {
        (self.was_made_by_this_process() || !rule("fork/a-child-makes-its-own-segment"))
            && (self.shared.has_descriptor() || !rule("create/where-there-is-a-descriptor"))
    }

    /// What tells its file from all others.
    pub(crate) fn file(&self) -> FileId {
        self.shared.file()
    }

    pub(crate) fn was_made_by_this_process(&self) -> bool {
        let me = identity();
        self.header(header::MAKER_PID).load(Ordering::Relaxed) == u64::from(me.pid)
            && self.header(header::MAKER_START).load(Ordering::Relaxed) == me.start
    }

    /// Notes that a child of its maker, which cannot tell its parent, may have let others have what it had.
    pub(crate) fn note_sent_on(&self) {
        self.header(header::SENT_ON).store(1, Ordering::Release);
    }

    pub(super) fn was_sent_on(&self) -> bool {
        self.header(header::SENT_ON).load(Ordering::Acquire) != 0
    }

    fn place(self: &Arc<Self>, slot: usize) -> Option<Place> {
        Place::new(Arc::clone(self), self.size.slot_at(slot), entry_at(slot))
    }

    /// Its descriptor, as [`Self::descriptor`].
    pub(super) fn borrowed_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.shared.descriptor()
    }

    /// How this process is called here, if it was asked before; a word of 0 otherwise.
    fn me(&self) -> Process {
        Process::from_word(self.private.words()[private::NAME].load(Ordering::Relaxed))
    }

    /// Before the calling thread forks: leaves to the child what it may go on with.
    fn leave_to_child(&self, forks: u64) -> Option<Lineage> {
        if !rule("fork/what-may-be-inherited-is-marked") {
            return None;
        }
        let me = self.me();
        // A process that was not called anything here has taken nothing, and nobody asks whether a stranger lives.
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
        heirs::leave_to_child(&held, me, forks, self.borrowed_descriptor())
    }

    /// Leaves what this process holds to others, but for what its `running` threads do.
    fn leave_held(&self, running: &[usize]) {
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

    /// The robust locks that this process holds, and that another may release; with the thread that took each. What is recursive,
    /// or a queue's, belongs to the thread that took it.
    fn plain_locks_of(&self, me: Process) -> impl Iterator<Item = (Inheritable<'_>, u64)> {
        let mut next = 0;
        let slots = std::iter::from_fn(move || {
            let slot = next;
            (slot < self.used()).then(|| {
                // A robust semaphore's permits are no tags, whatever they look like.
                next += self.tag(slot).map_or(1, Tag::slots);
                slot
            })
        });
        slots.filter_map(move |slot| {
            let words = self.shared.words()[self.size.slot_at(slot)..].first_chunk()?;
            Some((plain_lock(words, me)?, self.owner_of(slot)))
        })
    }

    /// The thread of this process that holds the lock in a slot; 0 if it knows of none.
    fn owner_of(&self, slot: usize) -> u64 {
        let entry = &self.private.words()[entry_at(slot)..];
        let depth = entry[entry::DEPTH].load(Ordering::Acquire);
        if depth > 0 { entry[entry::OWNER].load(Ordering::Relaxed) } else { 0 }
    }

    fn tag(&self, slot: usize) -> Option<Tag> {
        let at = self.size.slot_at(slot) + TAG;
        Tag::from_word(self.shared.words()[at].load(Ordering::Acquire))
    }
}

/// What to say where not even the smallest segment can be made.
fn name_the_limit(error: Error, smallest: Size) -> Error {
    match (error, file_size_limit()) {
        (Error::NoSharedMemory(_), Some(limit)) if limit < smallest.bytes() => {
            Error::FileSizeLimit { limit, least: smallest.bytes() }
        }
        _ => error,
    }
}

/// A slot's lock, if it is robust, one that another may release, and held by this process.
fn plain_lock(words: &[AtomicU64; SLOT_WORDS], me: Process) -> Option<Inheritable<'_>> {
    let tag = Tag::from_word(words[TAG].load(Ordering::Acquire))?;
    let is_plain = tag.kind == Kind::Mutex
        || tag.kind == Kind::ReentrantMutex && !rule("fork/an-rlock-is-left-to-nobody");
    let is_queues = (1..=message::GREATEST).contains(&words[lock::MESSAGE].load(Ordering::Relaxed))
        && rule("fork/a-queues-lock-is-left-to-nobody");
    let lock = Inheritable { permit: &words[lock::PERMIT], heirs: &words[lock::HEIRS] };
    (tag.robust && is_plain && !is_queues && Permit(lock.permit).is_held_by(me)).then_some(lock)
}

/// The segments that this process has mapped.
#[derive(Debug, Default)]
struct Registry {
    segments: Vec<Weak<Segment>>,
    /// Where new objects go.
    current: Option<Arc<Segment>>,
    /// Slots of `current` that can be used again.
    free: Vec<u32>,
    /// Other segments of this process, where new objects can go when `current` is full.
    older: Vec<Older>,
    /// Slots that can be used again when some children are gone.
    reuse: Reuse,
    /// Objects made since this process last asked which children are gone.
    made_since: u32,
    /// Segments made so far.
    made: u32,
    sees_forks: bool,
    /// Those in which this process holds a lock that it has no object of any more.
    held: Vec<Arc<Segment>>,
    /// During a fork: by which the child can be found that may go on with what this process holds.
    lineages: Vec<Lineage>,
}

/// Slots of a segment that can be used again.
#[derive(Debug)]
struct Older {
    segment: Weak<Segment>,
    free: Vec<u32>,
}

impl Older {
    fn is(&self, segment: &Arc<Segment>) -> bool {
        std::ptr::eq(self.segment.as_ptr(), Arc::as_ptr(segment))
    }
}

/// A process asks which children are gone only after so many new objects, so that the answer costs each of them little.
const ASKS_AFTER: u32 = 256;

static REGISTRY: ForkMutex<Registry> = ForkMutex::new();

static FORKING: Forking = Forking::new();

/// How often this process was forked, as far as it was told.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Leaves what this process holds to others, but for what its `running` threads do.
pub(super) fn leave_held(running: &[usize]) {
    let segments: Vec<_> = REGISTRY.lock().segments.iter().filter_map(Weak::upgrade).collect();
    for segment in segments {
        segment.leave_held(running);
    }
}

/// A new object's place.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) place: Place,
    pub(crate) slot: u32,
    /// What `give_back` wants to know.
    pub(crate) forks: u64,
}

/// Takes a slot, all zero but for its tag.
pub(crate) fn take(tag: Tag) -> Result<Taken, Error> {
    let mut registry = REGISTRY.lock();
    registry.watch_forks()?;
    let slots = tag.slots();
    let forks = FORKS.load(Ordering::Relaxed);
    let (segment, slot, again) = registry.next_slots(slots)?;
    let inconsistent = Error::BadAddress("the slot lies outside of its segment");
    let place = segment.place(slot).ok_or(inconsistent)?;
    if again {
        // What is new is zero, and private memory that nobody has touched takes no room.
        for word in place.private().iter().chain(place.shared()) {
            word.store(0, Ordering::Relaxed);
        }
    }
    place.shared()[TAG].store(tag.word(), Ordering::Release);
    let slot = u32::try_from(slot).map_err(|_| inconsistent)?;
    Ok(Taken { place, slot, forks })
}

/// Gives the slot of an object back that this process did not send; tells whether nobody else can have it.
pub(crate) fn give_back(place: &Place, slot: u32, made: u64) -> bool {
    let mut registry = REGISTRY.lock();
    let segment = place.keeps();
    if !segment.was_made_by_this_process()
        || segment.tag(slot as usize).is_none_or(|tag| tag.slots() != 1)
    {
        return false;
    }
    let forks = FORKS.load(Ordering::Relaxed);
    let is_mine = forks == made || !rule("fork/no-slot-is-reused-that-a-child-may-have");
    if is_mine {
        registry.free(segment, slot);
    } else {
        registry.reuse.leave(segment, slot, made, forks);
    }
    is_mine
}

/// Keeps the segment of an object that goes, if that is a lock that this process holds and may leave to others at its end.
pub(crate) fn keep_what_is_held(place: &Place) {
    let segment = place.keeps();
    let me = Process::from_word(place.head().load(Ordering::Relaxed));
    if me.word() == 0 || plain_lock(place.shared(), me).is_none() {
        return;
    }
    let mut registry = REGISTRY.lock();
    registry.held.retain(|held| held.plain_locks_of(held.me()).next().is_some());
    if !registry.held.iter().any(|held| Arc::ptr_eq(held, segment)) {
        registry.held.push(Arc::clone(segment));
    }
}

/// The place of a slot that is in use.
pub(crate) fn place(segment: &Arc<Segment>, slot: u32) -> Option<Place> {
    let slot = usize::try_from(slot).ok().filter(|&slot| slot < segment.used())?;
    segment.place(slot)
}

/// The place at an address, in a segment that this process has, or that the descriptor is.
pub(crate) fn open(address: &Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Place, Error> {
    let mut id = [0; 2];
    for (half, bytes) in id.iter_mut().zip(address.segment.chunks_exact(8)) {
        *half = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    let mut registry = REGISTRY.lock();
    let known = registry.segments.iter().filter_map(Weak::upgrade).find(|known| known.id == id);
    let segment = match (known, descriptor) {
        (Some(known), _) => known,
        (None, None) => return Err(Error::SegmentNotMapped),
        (None, Some(descriptor)) => {
            registry.watch_forks()?;
            let segment = Arc::new(Segment::open(descriptor, id)?);
            registry.remember(&segment);
            segment
        }
    };
    drop(registry);
    let slot = address.slot as usize;
    if slot >= segment.used().min(SLOT_NUMBERS) {
        return Err(Error::BadAddress("there is no such slot"));
    }
    let tag = segment.tag(slot).filter(|tag| tag.word() == address.tag);
    let tag = tag.ok_or(Error::BadAddress("the slot holds something else"))?;
    if slot + tag.slots() > segment.size.slots {
        return Err(Error::BadAddress("it does not fit into its segment"));
    }
    segment.place(slot).ok_or(Error::BadAddress("there is no such slot"))
}

impl Registry {
    /// Slots side by side, and whether they were another object's.
    fn next_slots(&mut self, slots: usize) -> Result<(Arc<Segment>, usize, bool), Error> {
        self.made_since = self.made_since.saturating_add(1);
        self.leave_what_takes_none();
        if let Some(found) = self.slots_of_current(slots) {
            return Ok(found);
        }
        if slots == 1 {
            if !self.go_back_to_older() && self.made_since > ASKS_AFTER {
                self.made_since = 0;
                let mut reuse = std::mem::take(&mut self.reuse);
                reuse.find_free(|segment, slot| self.free(segment, slot));
                self.reuse = reuse;
                self.go_back_to_older();
            }
            if let Some(found) = self.slots_of_current(slots) {
                return Ok(found);
            }
        }
        let usual = (FEWEST_SLOTS << self.made.min(8)).min(MOST_SLOTS).max(slots);
        if usual > MOST_SLOTS_OF_ONE {
            return Err(Error::OutOfRange("a robust semaphore has 524,280 permits at most"));
        }
        let segment = Arc::new(Segment::create(usual, slots)?);
        segment.header(header::SLOTS_USED).store(slots as u64, Ordering::Release);
        self.remember(&segment);
        self.made += 1;
        self.go_to(Arc::clone(&segment), Vec::new());
        Ok((segment, 0, false))
    }

    /// A forked child makes segments of its own; and what cannot be sent any more, for want of a descriptor, gets no new objects.
    fn leave_what_takes_none(&mut self) {
        let Some(current) = &self.current else { return };
        if current.takes_objects() {
            return;
        }
        if !current.was_made_by_this_process() {
            self.older.clear();
            self.reuse = Reuse::default();
        }
        self.current = None;
        self.free.clear();
    }

    fn slots_of_current(&mut self, slots: usize) -> Option<(Arc<Segment>, usize, bool)> {
        let current = self.current.as_ref()?;
        let again = if slots == 1 { self.free.pop() } else { None };
        if let Some(slot) = again {
            return Some((Arc::clone(current), slot as usize, true));
        }
        let used = current.used();
        if used + slots > current.size.slots {
            return None;
        }
        current.header(header::SLOTS_USED).store((used + slots) as u64, Ordering::Release);
        Some((Arc::clone(current), used, false))
    }

    /// Makes the fullest of the older segments that have a free slot the current one, so that those with few objects can lose
    /// them and end; false if there is none.
    fn go_back_to_older(&mut self) -> bool {
        self.older.retain(|older| older.segment.strong_count() > 0);
        loop {
            let with_slots =
                self.older.iter().enumerate().filter(|(_, older)| !older.free.is_empty());
            let fullest = with_slots.min_by_key(|(_, older)| older.free.len());
            let Some((index, _)) = fullest else { return false };
            let Older { segment, free } = self.older.swap_remove(index);
            if let Some(segment) = segment.upgrade().filter(|segment| segment.takes_objects()) {
                self.go_to(segment, free);
                return true;
            }
        }
    }

    fn go_to(&mut self, segment: Arc<Segment>, free: Vec<u32>) {
        let free = std::mem::replace(&mut self.free, free);
        if let Some(before) = self.current.replace(segment) {
            self.older.push(Older { segment: Arc::downgrade(&before), free });
        }
    }

    /// Lets a slot be used again.
    fn free(&mut self, segment: &Arc<Segment>, slot: u32) {
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, segment)) {
            self.free.push(slot);
        } else if let Some(older) = self.older.iter_mut().find(|older| older.is(segment)) {
            older.free.push(slot);
        }
    }

    fn remember(&mut self, segment: &Arc<Segment>) {
        self.segments.retain(|known| known.strong_count() > 0);
        self.segments.push(Arc::downgrade(segment));
    }

    fn watch_forks(&mut self) -> Result<(), Error> {
        if !self.sees_forks {
            static SEEN: Registered = Registered::new();
            SEEN.once(|| on_fork(before_fork, after_fork_in_parent, after_fork_in_child))?;
            self.sees_forks = true;
        }
        Ok(())
    }
}

extern "C" fn before_fork() {
    if !FORKING.is_new() {
        return;
    }
    REGISTRY.lock_for_fork(|registry| {
        FORKING.begin();
        let forks = FORKS.fetch_add(1, Ordering::Relaxed) + 1;
        registry.reuse.before_fork(forks, registry.current.as_ref());
        let segments = registry.segments.iter().filter_map(Weak::upgrade);
        registry.lineages = segments.filter_map(|segment| segment.leave_to_child(forks)).collect();
    });
}

extern "C" fn after_fork_in_parent() {
    if FORKING.end() {
        REGISTRY.unlock_after_fork(|registry| {
            registry.reuse.after_fork_in_parent();
            registry.lineages = Vec::new();
        });
    }
}

extern "C" fn after_fork_in_child() {
    if FORKING.end() {
        REGISTRY.unlock_after_fork(|registry| {
            registry.reuse.after_fork_in_child();
            registry.lineages.drain(..).for_each(Lineage::leave_to_child);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::lock::{Lock, LockKind, Options};
    use super::*;
    use crate::Wait;

    #[test]
    fn what_one_thread_took_is_given_back_whatever_another_finds_out_about_its_process() {
        let options =
            Options { kind: LockKind::ReentrantMutex, value: 1, maxvalue: 1, robust: true };
        let lock = Lock::new(options).unwrap();
        assert_eq!(lock.try_acquire(), Wait::Acquired);
        let me = lock.object.me();
        // As one would call it whom the system told nothing, and who had begun to ask before.
        let other = Process::new(me.pid(), me.start() ^ 1, true);
        assert_eq!(lock.object.segment().call_me(other), me);
        lock.release().unwrap();
        assert!(!lock.is_zero());
    }
}

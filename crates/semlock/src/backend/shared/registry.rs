//! The segments of a process, and the slots that it gives to its objects.
//!
//! A process takes slots of segments that it made itself, one after the other. A slot is used again
//! only if no other process can have its object: the object was never sent, and the children that
//! were forked while it existed are gone (`reuse`). The slots of a robust semaphore, which lie side
//! by side, are not used again. A process keeps a segment without objects only if it makes its next
//! objects there, or finds its children by the segment's file.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use super::layout::{
    FEWEST_SLOTS, MOST_SLOTS, MOST_SLOTS_OF_ONE, NODES, PLACES, SLOT_NUMBERS, Size, TAG, TALLIES,
    TOO_MANY_PERMITS, Tag,
};
use super::reuse::Reuse;
use super::segment::{Place, Segment, plain_lock};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::atfork::{Forking, Registered, on_fork};
use crate::os::fork_mutex::ForkMutex;
use crate::os::lineage::Lineage;
use crate::word::permit::Process;
use crate::{Address, Error};

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
    /// Segments in which this process holds a lock that it no longer has an object for.
    held: Vec<Arc<Segment>>,
    /// During a fork: lineages by which other processes find the child that may go on to hold this
    /// process's locks.
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

/// A process asks which children are gone only after so many new objects. So the question costs
/// little for each object.
const ASKS_AFTER: u32 = 256;

static REGISTRY: ForkMutex<Registry> = ForkMutex::new();

static FORKING: Forking = Forking::new();

/// How often this process has forked, as far as its handlers saw.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Leaves the locks that this process holds to others, except those that its `running` threads
/// hold.
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
    /// How many forks there were: `give_back` needs it.
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
        // Only here: a new slot is zero already, and untouched private memory takes no room.
        for word in place.private().iter().chain(place.shared()) {
            word.store(0, Ordering::Relaxed);
        }
    }
    place.shared()[TAG].store(tag.word(), Ordering::Release);
    let slot = u32::try_from(slot).map_err(|_| inconsistent)?;
    Ok(Taken { place, slot, forks })
}

/// Makes a segment for one object, and takes its slots, all zero but for its tag.
pub(crate) fn take_alone(tag: Tag) -> Result<Taken, Error> {
    let mut registry = REGISTRY.lock();
    registry.watch_forks()?;
    let slots = tag.slots();
    let size = Size { places: PLACES, nodes: TALLIES, slots };
    let segment = registry.new_segment(size, slots)?;
    drop(registry);
    let place =
        segment.place(0).ok_or(Error::BadAddress("the slot lies outside of its segment"))?;
    place.shared()[TAG].store(tag.word(), Ordering::Release);
    Ok(Taken { place, slot: 0, forks: FORKS.load(Ordering::Relaxed) })
}

/// Gives back the slot of an object that this process did not send. Returns whether no other
/// process can have the object.
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

/// Keeps the segment of an object that is being dropped, if this is a lock that the process holds
/// and may leave to others at its end.
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

/// The place at an address, in a segment that this process has or that the descriptor refers to.
pub(crate) fn open(address: &Address, descriptor: Option<BorrowedFd<'_>>) -> Result<Place, Error> {
    let mut id = [0; 2];
    for (half, bytes) in id.iter_mut().zip(address.segment.chunks_exact(8)) {
        *half = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    let mut registry = REGISTRY.lock();
    let known = registry.segments.iter().filter_map(Weak::upgrade).find(|known| known.has_id(id));
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
    if slot + tag.slots() > segment.slots() {
        return Err(Error::BadAddress("it does not fit into its segment"));
    }
    segment.place(slot).ok_or(Error::BadAddress("there is no such slot"))
}

impl Registry {
    /// Takes slots side by side. Returns also whether another object had them before.
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
            return Err(Error::OutOfRange(TOO_MANY_PERMITS));
        }
        let size = Size { places: PLACES, nodes: NODES, slots: usual };
        let segment = self.new_segment(size, slots)?;
        self.made += 1;
        self.go_to(Arc::clone(&segment), Vec::new());
        Ok((segment, 0, false))
    }

    /// Makes a segment, and takes its first slots.
    fn new_segment(&mut self, size: Size, slots: usize) -> Result<Arc<Segment>, Error> {
        let segment = Arc::new(Segment::create(size, slots)?);
        segment.set_used(slots);
        self.remember(&segment);
        Ok(segment)
    }

    /// Leaves a current segment that takes no new objects: in a forked child, because a child makes
    /// its own segments, and where the descriptor is lost, because objects there cannot be sent.
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
        if used + slots > current.slots() {
            return None;
        }
        current.set_used(used + slots);
        Some((Arc::clone(current), used, false))
    }

    /// Makes one of the older segments the current one: the fullest that has a free slot. So
    /// segments with few objects can lose these and end. False if there is none.
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

//! What all objects in shared memory have in common.

use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use super::layout::{ENTRY_WORDS, Kind, TAG, Tag};
use super::registry;
use super::segment::{Place, Segment};
use crate::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::os::futex::{self, Reach};
use crate::os::mapping::FileId;
use crate::word::permit::Process;
use crate::word::places::Places;
use crate::word::waiters::{Queue, Waits};
use crate::word::{Futex, Slept, Woke};
use crate::{Address, Error};

/// The operating system's futex.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

impl Futex for Kernel {
    fn wait(&self, word: &AtomicU64, expected: u32, time: Option<Duration>) -> Slept {
        futex::wait(word, expected, time, Reach::Machine)
    }

    fn wake_one(&self, word: &AtomicU64) -> Woke {
        futex::wake_one(word, Reach::Machine)
    }

    fn wake_all(&self, word: &AtomicU64) {
        futex::wake_all(word, Reach::Machine);
    }
}

/// What every object in shared memory can do: say where it lives, so that other processes can open
/// it.
///
/// A child gets an object by fork. Any other process opens it by its [`address`](Self::address),
/// and where it has no object of the same segment yet, by a [`descriptor`](Self::descriptor) of
/// that.
pub trait Shared {
    /// What it has in common with all objects.
    #[doc(hidden)]
    fn object(&self) -> &Object;

    /// Where it lives: another process opens it by this. The call marks the object as shared: see
    /// [`mark_shared`](Self::mark_shared).
    #[must_use]
    fn address(&self) -> Address {
        self.mark_shared();
        self.peek_address()
    }

    /// Where it lives, without the mark: for a caller that passes the address to no other process.
    #[must_use]
    fn peek_address(&self) -> Address {
        self.object().address()
    }

    /// The descriptor of its segment, which is closed on exec: to be duplicated for, or sent to, a
    /// process that is to open it.
    ///
    /// # Errors
    /// [`Error::DescriptorLost`] where somebody else has closed it.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.object().segment().descriptor_for_others()
    }

    /// The pid of the process that made its segment, and the number of the segment's descriptor
    /// there. Another process of the same user can often open `/proc/<pid>/fd/<number>`.
    #[must_use]
    fn maker(&self) -> (u32, RawFd) {
        self.object().segment().maker()
    }

    /// The identity of its segment's file.
    #[must_use]
    fn file(&self) -> FileId {
        self.object().segment().file()
    }

    /// Notes that other processes may have it from now on. Then no other object gets its slot, even
    /// after this process drops it. Call this before another process learns where it lives;
    /// [`address`](Self::address) does so.
    fn mark_shared(&self) {
        self.object().mark_shared();
    }
}

/// An object's slot, as this process has it: the part that all objects have in common.
#[doc(hidden)]
#[derive(Debug)]
pub struct Object {
    place: Place,
    slot: u32,
    /// Whether another process may have it by another way than a fork.
    shared: AtomicBool,
    /// How often this process had forked when it made the object.
    forks: u64,
}

impl Object {
    pub(crate) fn new(tag: Tag) -> Result<Self, Error> {
        let registry::Taken { place, slot, forks } = registry::take(tag)?;
        Ok(Self { place, slot, shared: AtomicBool::new(false), forks })
    }

    /// Makes an object in a segment of its own.
    pub(crate) fn new_alone(tag: Tag) -> Result<Self, Error> {
        let registry::Taken { place, slot, forks } = registry::take_alone(tag)?;
        Ok(Self { place, slot, shared: AtomicBool::new(false), forks })
    }

    /// Opens the object at an address, of this process or another one. It must be of one of these
    /// kinds.
    pub(crate) fn open(
        address: &Address,
        descriptor: Option<BorrowedFd<'_>>,
        kinds: &[Kind],
    ) -> Result<(Self, Tag), Error> {
        let tag = Tag::from_word(address.tag).filter(|tag| kinds.contains(&tag.kind));
        let tag = tag.ok_or(Error::BadAddress("it is an object of another kind"))?;
        let place = registry::open(address, descriptor)?;
        let slot = address.slot;
        Ok((Self { place, slot, shared: AtomicBool::new(true), forks: 0 }, tag))
    }

    /// The object in another slot of the same segment.
    pub(crate) fn neighbour(&self, slot: u64) -> Option<Self> {
        let slot = u32::try_from(slot).ok()?;
        let place = registry::place(self.place.keeps(), slot)?;
        Some(Self { place, slot, shared: AtomicBool::new(true), forks: 0 })
    }

    /// One of the slots that follow this object's and belong to it.
    pub(crate) fn part(&self, offset: u32) -> Option<Self> {
        self.neighbour(u64::from(self.slot) + u64::from(offset))
    }

    fn address(&self) -> Address {
        let tag = self.word(TAG).load(Ordering::Relaxed);
        Address { segment: self.segment().id(), slot: self.slot, tag }
    }

    /// The tag of the object in its slot.
    pub(crate) fn tag(&self) -> Option<Tag> {
        Tag::from_word(self.word(TAG).load(Ordering::Relaxed))
    }

    pub(crate) fn segment(&self) -> &Segment {
        self.place.keeps()
    }

    fn mark_shared(&self) {
        let is_new = !self.shared.swap(true, Ordering::Relaxed);
        // The maker does not see that its forked child passes the object on: leave it a note.
        if is_new && !self.segment().was_made_by_this_process() {
            self.segment().note_sent_on();
        }
    }

    #[inline]
    pub(crate) fn word(&self, number: usize) -> &AtomicU64 {
        &self.place.shared()[number]
    }

    #[inline]
    pub(crate) fn private(&self) -> &[AtomicU64; ENTRY_WORDS] {
        self.place.private()
    }

    /// The name of this process in the object's segment.
    #[inline]
    pub(crate) fn me(&self) -> Process {
        match self.place.head().load(Ordering::Relaxed) {
            // Not found out yet, or wiped in a forked child, which has another name.
            0 => self.find_out_me(),
            word => Process::from_word(word),
        }
    }

    #[cold]
    fn find_out_me(&self) -> Process {
        self.segment().find_out_me()
    }

    /// The waiters of this object; `tickets` is the word that counts their tickets.
    pub(crate) fn queue(&self, tickets: usize, waits: Waits) -> Queue<'_> {
        Queue {
            waiters: self.segment().waiters(),
            slot: self.slot.into(),
            tickets: self.word(tickets),
            waits,
        }
    }

    /// The places of the waiters for this object, a lock; `tickets` is the word that counts their
    /// tickets.
    pub(crate) fn places(&self, tickets: usize) -> Places<'_> {
        self.segment().places(self.slot, self.word(tickets))
    }

    /// So many shared words in the slots that follow.
    pub(crate) fn words_after(&self, words: usize) -> &[AtomicU64] {
        self.segment().words_after(self.slot, words)
    }

    /// So many of this process's private words, in the entries of the slots that follow.
    pub(crate) fn private_words_after(&self, words: usize) -> &[AtomicU64] {
        self.segment().private_words_after(self.slot, words)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let is_mine = !*self.shared.get_mut();
        if !(is_mine && registry::give_back(&self.place, self.slot, self.forks)) {
            registry::keep_what_is_held(&self.place);
        }
    }
}

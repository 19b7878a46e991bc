//! The memory layout of a segment, and of the memory that each process keeps for itself beside it:
//! each word by its name.
//!
//! Nothing else in this crate, and no test, counts words. Everything is a word of 64 bits. The
//! algorithm that uses a word, in `word`, describes its bits.
//!
//! ```text
//!  segment, shared by all processes
//!  0            PLACES_AT          nodes_at()         slot_at(0)
//!  ┌────────────┬──────────────────┬──────────────────┬───────────────────────────────┐
//!  │ header     │ places           │ nodes            │ slots                         │
//!  │ 64 words   │ 2 words each:    │ 2 words each:    │ 8 words each, a cache line:   │
//!  │            │ waiters for      │ waiters for      │ an object, or the permits of  │
//!  │            │ locks            │ conditions, and  │ a robust semaphore in the     │
//!  │            │ (`word::places`) │ barrier members  │ slots before                  │
//!  │            │                  │ (`word::waiters`)│                               │
//!  └────────────┴──────────────────┴──────────────────┴───────────────────────────────┘
//!
//!  header:  0 MAGIC       1 VERSION      2 LENGTH      3 4 ID
//!           5 MAKER_PID   6 MAKER_START  7 MAKER_PID_NAMESPACE  8 MAKER_TIME_NAMESPACE
//!           9 NODES      10 SLOTS       11 SLOTS_USED  12 NODES_USED  13 DESCRIPTOR
//!          14 PLACES     15 PLACES_USED 16 SENT_ON
//!
//!  slot     lock             condvar       barrier       event      channel
//!    0      PERMIT or VALUE  TICKETS       PERMIT        FLAG       TAIL
//!    1      EVENTCOUNT       NOTIFIED_AT   EVENTCOUNT    LAST_CPU   ARRIVALS
//!    2      WATCH            WATCH         its lock's               RUNG
//!    3      LAST_CHECK       EMPTY_AT      LAST_CHECK               PARTS
//!    4      TAG              TAG           TAG           TAG        TAG
//!    5      HEIRS            LAST_CHECK    TICKETS                  MODE
//!    6      LAST_CPU         LAST_CPU      PHASE
//!    7      TICKETS                        WATCH
//!
//!  slots after that of a robust semaphore: its permits, one word each, and their hints
//!  (`word::blocks`)
//!
//!  slots after that of a channel, which is alone in its segment (`word::channel`):
//!    SENDERS, RECEIVERS, BELL_LOCK   locks, as above
//!    TAKEN                           0 HEAD    1 ROOM
//!    BACKLOG                         0 LIMIT   1 UNSENT  2 WITHOUT_NODE  3 FREED
//!                                    5 DONE_BY_OTHERS    6 LOST          7 STARVING
//!    CLAIMS, PUTTERS                 locks, as above
//!    SLOTS and more                  the ring
//!
//!  TAG   63         32 31      9    8     7     0
//!        ┌─────────────┬─────────┬────────┬───────┐  limit: greatest value, permits or parties
//!        │ limit       │ 0       │ robust │ kind  │
//!        └─────────────┴─────────┴────────┴───────┘
//!
//!  private memory of one process, which a forked child finds wiped
//!  0                  ENTRIES_AT
//!  ┌──────────────────┬──────────────────────────────────────────┐
//!  │ NAME             │ entries, 4 words each: one for each slot │
//!  └──────────────────┴──────────────────────────────────────────┘
//!
//!  entry    mutex            robust semaphore     semaphore
//!    0      OWNER            OWNER                OWNER
//!    1      DEPTH            DEPTH: permits held  BALANCE
//!    2      RECOVERED_FROM   RECOVERED_FROM       (3 words, `balance::Balance`)
//!    3                       LAST_PERMIT
//!
//!  entries after that of a robust semaphore: which permits the process holds (`word::blocks`)
//! ```
//!
//! A change here that another process can see needs a new [`VERSION`].

use crate::word::blocks::Blocks;

/// The first word of a segment.
pub const MAGIC: u64 = u64::from_be_bytes(*b"semlock\0");
/// The version of this layout. A process opens only segments of its own version.
pub const VERSION: u64 = 4;

/// Words of a slot: a cache line.
pub const SLOT_WORDS: usize = 8;
/// Words that a process keeps for a slot.
pub const ENTRY_WORDS: usize = 4;
/// Where the places begin.
pub const PLACES_AT: usize = header::WORDS;

/// Places of a segment. With the header, they take two pages.
pub const PLACES: usize = 480;
/// Nodes of a segment.
pub const NODES: usize = 4096;
/// Nodes of a channel's segment: one for each process that puts or takes messages that are counted.
pub const TALLIES: usize = 512;
/// The fewest places, and the fewest nodes, of a segment: where there is hardly any room.
pub const FEWEST_NODES: usize = 16;
/// Slots of a process's first segment; each further one has twice as many, up to `MOST_SLOTS`.
pub const FEWEST_SLOTS: usize = 1024;
/// The most slots of a segment. With it, 100,000 locks take 15 segments, and little of the last one
/// is left empty.
pub const MOST_SLOTS: usize = 8192;
/// The slot number of an object is less than this: a node can name no greater one.
pub const SLOT_NUMBERS: usize = 1 << node::SLOT_BITS;
/// The most permits of a robust semaphore. It may take more slots than there are slot numbers. Then
/// it is alone in its segment: nodes name its first slot, and never the others.
pub const MOST_PERMITS: u32 = 524_280;
/// The error for a request for more permits.
pub(crate) const TOO_MANY_PERMITS: &str = "a robust semaphore has 524,280 permits at most";
/// The slots of a semaphore with the most permits.
pub const MOST_SLOTS_OF_ONE: usize =
    Tag { kind: Kind::Semaphore, robust: true, limit: MOST_PERMITS }.slots();

/// Words of the header.
pub mod header {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: usize = 0;
    /// [`VERSION`](super::VERSION).
    pub const VERSION: usize = 1;
    /// How many words the segment has.
    pub const LENGTH: usize = 2;
    /// A random number that names the segment, of two words.
    pub const ID: usize = 3;
    /// The pid of the process that made the segment.
    pub const MAKER_PID: usize = 5;
    /// That process's start time.
    pub const MAKER_START: usize = 6;
    /// That process's pid namespace.
    pub const MAKER_PID_NAMESPACE: usize = 7;
    /// That process's time namespace.
    pub const MAKER_TIME_NAMESPACE: usize = 8;
    /// How many nodes there are.
    pub const NODES: usize = 9;
    /// How many slots there are.
    pub const SLOTS: usize = 10;
    /// How many slots were taken so far. Only the maker writes it.
    pub const SLOTS_USED: usize = 11;
    /// How many nodes were used so far.
    pub const NODES_USED: usize = 12;
    /// The number of the segment's descriptor in its maker.
    pub const DESCRIPTOR: usize = 13;
    /// How many places there are.
    pub const PLACES: usize = 14;
    /// How many places were used so far.
    pub const PLACES_USED: usize = 15;
    /// Not 0: a child of the maker may have passed an object on.
    pub const SENT_ON: usize = 16;
    /// Words from this one on are not used.
    pub const END: usize = 17;
    /// Words of the header.
    pub const WORDS: usize = 64;
}

/// A node, which is also what a place is: see `word::waiters`.
pub mod node {
    pub use crate::word::waiters::{
        BROKEN, MEMBER, NODE_WORDS as WORDS, PROCESS, SLOT_BITS, SLOT_SHIFT, STATE, STATUS,
    };
}

/// A permit: see `word::permit`.
pub mod permit {
    pub use crate::word::permit::{DIED, PID_SHIFT};
}

/// The word of a slot that says what lives there. All objects have it.
pub const TAG: usize = 4;

/// Words of the slot of a mutex, recursive mutex or semaphore.
pub mod lock {
    /// A mutex's permit.
    pub const PERMIT: usize = 0;
    /// A plain semaphore's value. (A robust semaphore has its permits in the slots that follow.)
    pub const VALUE: usize = 0;
    /// The eventcount. Waiters without a place sleep there.
    pub const EVENTCOUNT: usize = 1;
    /// The watcher of the holders.
    pub const WATCH: usize = 2;
    /// When a process last checked the holders without being the watcher.
    pub const LAST_CHECK: usize = 3;
    /// The number of the heirs that may hold it, or 0 (see `heirs`).
    pub const HEIRS: usize = 5;
    /// The processor that it was released on last, plus 1. Of a mutex: where its holder acquired
    /// it.
    pub const LAST_CPU: usize = 6;
    /// The tickets of its waiters.
    pub const TICKETS: usize = 7;
}

/// Words of the slot of a condition.
pub mod condvar {
    /// The tickets of its waiters.
    pub const TICKETS: usize = 0;
    /// How many tickets there were when the last `notify` began.
    pub const NOTIFIED_AT: usize = 1;
    /// The watcher of the waiters.
    pub const WATCH: usize = 2;
    /// How many tickets there were before the last check that found nobody waiting.
    pub const EMPTY_AT: usize = 3;
    /// When a process last checked the waiters without being the watcher.
    pub const LAST_CHECK: usize = 5;
    /// A notifier writes this before it notifies: in the low half its processor, plus 1, in the
    /// upper half its pid.
    pub const LAST_CPU: usize = 6;
}

/// Words of the slot of a barrier. The first words belong to its own lock, as in `lock`.
pub mod barrier {
    /// The permit of its own lock.
    pub const PERMIT: usize = super::lock::PERMIT;
    /// When a process last checked the members without being the watcher.
    pub const LAST_CHECK: usize = super::lock::LAST_CHECK;
    /// The tickets of its members.
    pub const TICKETS: usize = 5;
    /// The phase that it is in. Its members sleep on this word.
    pub const PHASE: usize = 6;
    /// The watcher of the members.
    pub const WATCH: usize = 7;
}

/// Words of the slot of an event.
pub mod event {
    /// Whether it is set. Its waiters sleep on this word.
    pub const FLAG: usize = 0;
    /// The processor that it was set on last, plus 1, written before it is set.
    pub const LAST_CPU: usize = 1;
}

/// Words of the slot of a channel, and the slots that follow it.
pub mod channel {
    /// What was sent: see `word::channel`.
    pub const TAIL: usize = 0;
    /// The eventcount on which receivers sleep.
    pub const ARRIVALS: usize = 1;
    /// Not 0: its bell has rung.
    pub const RUNG: usize = 2;
    /// The eventcount on which a receiver sleeps that is in the middle of a message.
    pub const PARTS: usize = 3;
    /// What is counted: bits of [`mode`].
    pub const MODE: usize = 5;

    /// The slot of the senders' lock, counted from the channel's.
    pub const SENDERS: u32 = 1;
    /// The slot of the receivers' lock.
    pub const RECEIVERS: u32 = 2;
    /// The slot with the words that receivers change: another cache line than the senders'.
    pub const TAKEN: usize = 3;
    /// The slot of the bell's lock.
    pub const BELL_LOCK: u32 = 4;
    /// The slot with the words of [`backlog`].
    pub const BACKLOG: usize = 5;
    /// The slot of the lock under which places are claimed.
    pub const CLAIMS: u32 = 6;
    /// The slot of the lock of those who wait for a place.
    pub const PUTTERS: u32 = 7;
    /// Slots before the ring.
    pub const SLOTS: usize = 8;

    /// In the slot `TAKEN`, what was taken: see `word::channel`.
    pub const HEAD: usize = 0;
    /// In the slot `TAKEN`, the eventcount on which senders sleep.
    pub const ROOM: usize = 1;

    /// Bits of the word [`MODE`].
    pub mod mode {
        /// Receivers note what they take.
        pub const NOTES: u64 = 1;
        /// Messages are counted from when they are put.
        pub const COUNTS: u64 = 2;
        /// Messages are counted until they are done.
        pub const TASKS: u64 = 4;
    }

    /// Words of the slot [`BACKLOG`]: see `counting`.
    pub mod backlog {
        /// The greatest number of messages; the greatest word: no limit.
        pub const LIMIT: usize = 0;
        /// How many messages were put and not sent.
        pub const UNSENT: usize = 1;
        /// How many of them processes without a node have put.
        pub const WITHOUT_NODE: usize = 2;
        /// The eventcount on which the first in the line sleeps that waits for a place.
        pub const FREED: usize = 3;
        /// How many messages are done by other processes than those that took them, less how many
        /// were taken by processes without a node.
        pub const DONE_BY_OTHERS: usize = 5;
        /// How many messages were lost with dead processes.
        pub const LOST: usize = 6;
        /// Not 0: the first in the line has waited for too long.
        pub const STARVING: usize = 7;
    }

    /// The fewest words of a ring.
    pub const LEAST_WORDS: usize = 64;
    /// The most words of a ring.
    pub const MOST_WORDS: usize = 1 << 19;
}

/// Where the entries begin in a process's private memory.
pub const ENTRIES_AT: usize = 4;

/// Words of a process's private memory before its entries.
pub mod private {
    /// The name of this process in the segment; 0: not known yet.
    pub const NAME: usize = 0;
}

/// Words of an entry: what a process notes for itself about the lock in a slot.
pub mod entry {
    /// The thread that acquired it last.
    pub const OWNER: usize = 0;
    /// How often the owner has acquired a mutex; how many permits of a robust semaphore the process
    /// holds.
    pub const DEPTH: usize = 1;
    /// The pid of the dead holder that it was recovered from; 0: none.
    pub const RECOVERED_FROM: usize = 2;
    /// The permit of a robust semaphore that this process changed last, plus 1.
    pub const LAST_PERMIT: usize = 3;
    /// Of a plain semaphore, the three words of a `balance::Balance`.
    pub const BALANCE: [usize; 3] = [1, 2, 3];
}

/// The kind of object in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Mutex = 1,
    ReentrantMutex = 2,
    Semaphore = 3,
    Event = 4,
    Condvar = 5,
    Barrier = 6,
    Channel = 7,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Mutex,
        Self::ReentrantMutex,
        Self::Semaphore,
        Self::Event,
        Self::Condvar,
        Self::Barrier,
        Self::Channel,
    ];
}

/// The value of the word [`TAG`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) kind: Kind,
    pub(crate) robust: bool,
    pub(crate) limit: u32,
}

impl Tag {
    pub(crate) fn word(self) -> u64 {
        u64::from(self.limit) << 32 | u64::from(self.robust) << 8 | self.kind as u64
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let kind = Kind::ALL.into_iter().find(|&kind| kind as u64 == word & 0xff)?;
        let limit = u32::try_from(word >> 32).ok()?;
        let tag = Self { kind, robust: word & 0x100 != 0, limit };
        (tag.word() == word).then_some(tag)
    }

    /// Words in the slots that follow: a robust semaphore's permits and their hints; a channel's
    /// other slots and its ring.
    const fn more_words(self) -> usize {
        let limit = self.limit as usize;
        match self.kind {
            Kind::Semaphore if self.robust => limit + Blocks::hints(limit),
            Kind::Channel => (channel::SLOTS - 1) * SLOT_WORDS + limit,
            _ => 0,
        }
    }

    /// How many slots the object takes.
    pub(crate) const fn slots(self) -> usize {
        1 + self.more_words().div_ceil(SLOT_WORDS)
    }
}

/// How many places, nodes and slots a segment has. This also says where each of them lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many places it has.
    pub places: usize,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many slots it has.
    pub slots: usize,
}

impl Size {
    /// The size in a header whose words `header` reads; `None` if no memory is that large.
    pub fn in_header(header: impl Fn(usize) -> u64) -> Option<Self> {
        let number = |word| usize::try_from(header(word)).ok();
        let [places, nodes, slots] =
            [number(header::PLACES)?, number(header::NODES)?, number(header::SLOTS)?];
        Some(Self { places, nodes, slots })
    }

    /// Words of such a segment; `None` if no memory is that large.
    #[must_use]
    pub fn words(self) -> Option<usize> {
        let nodes = self.places.checked_add(self.nodes)?.checked_mul(node::WORDS)?;
        PLACES_AT.checked_add(nodes)?.checked_add(self.slots.checked_mul(SLOT_WORDS)?)
    }

    /// Bytes of such a segment.
    pub(crate) fn bytes(self) -> u64 {
        self.words().map_or(u64::MAX, |words| (words * size_of::<u64>()) as u64)
    }

    /// Where the nodes begin.
    #[must_use]
    pub fn nodes_at(self) -> usize {
        PLACES_AT + self.places * node::WORDS
    }

    /// Where a slot begins.
    #[must_use]
    pub fn slot_at(self, slot: usize) -> usize {
        self.nodes_at() + self.nodes * node::WORDS + slot * SLOT_WORDS
    }
}

/// Where the entry of a slot begins in a process's private memory. The private memory ends where
/// the entry of the slot after the last one would begin.
pub(crate) fn entry_at(slot: usize) -> usize {
    ENTRIES_AT + slot * ENTRY_WORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_about_too_many_permits_names_the_most() {
        let digits: String = TOO_MANY_PERMITS.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits.parse(), Ok(MOST_PERMITS));
    }
}

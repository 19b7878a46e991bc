//! Slots of objects that their maker dropped, and that children of it may still have.
//!
//! A child that is forked has all objects that its parent has at that moment, and nothing tells the parent when the child
//! has dropped them. But once the child has ended, and all that it has forked, nobody has them but those to whom they were
//! sent. So forks have numbers, and each child, with those that it forks, is a lineage of its fork's number (see
//! [`Lineage`]). Numbers of other lineages (`heirs`) are larger.
//!
//! ```text
//!  forks so far      0 ──── 1 ──── 2 ──── 3 ──── 4     an object that was made after fork 1, and dropped after fork 3:
//!                              made          dropped     the children of forks 2 and 3 have it
//! ```
//!
//! What is not known is taken for the worst: where no lineage could be begun, where the system does not answer, and where
//! an heir has sent on what it had, slots are not used again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::heirs;
use super::segment::Segment;
use crate::mutation::rule;
use crate::os::lineage::{Lineage, find_left};

/// Questions to the system about all the slots there are, each of some microseconds at most.
const QUESTIONS: usize = 64;

/// Of a fork. Larger ones are those of `heirs`.
const LAST_NUMBER: u64 = heirs::FIRST_NUMBER - 1;

/// The children of a process, and what they may have of what it has dropped.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    /// By whose file the lineages are begun, and found: one of this process's own segments.
    found_by: Option<Arc<Segment>>,
    /// During a fork: the child's.
    lineage: Option<Lineage>,
    /// The last fork whose child cannot be found.
    lost: u64,
    /// By the segment's address, and how many forks there had been when they were made and when they were dropped.
    left: BTreeMap<(usize, u64, u64), Left>,
}

/// Slots of a segment that the same children may have.
#[derive(Debug)]
struct Left {
    segment: Weak<Segment>,
    slots: Vec<u32>,
}

impl Reuse {
    /// Before the fork of this number, in a process that makes its objects in that segment.
    pub(super) fn before_fork(&mut self, fork: u64, current: Option<&Arc<Segment>>) {
        if !self.found_by.as_ref().is_some_and(|segment| segment.takes_objects()) {
            // It may be its parent's. Lineages that were begun by it cannot be found any more.
            self.left.clear();
            self.lost = fork - 1;
            self.found_by = current.filter(|current| current.takes_objects()).cloned();
        }
        self.lineage = self.begin(fork);
        if self.lineage.is_none() {
            self.lost = fork;
        }
    }

    fn begin(&self, fork: u64) -> Option<Lineage> {
        if fork > LAST_NUMBER {
            return None;
        }
        let file = self.found_by.as_ref()?.descriptor()?;
        let lineage = Lineage::begin(file, &[fork])?;
        // A system that ends it with the descriptor, and not with the last mapping, would tell nothing of children.
        (find_left(file, fork, fork) == Ok(Some(fork))).then_some(lineage)
    }

    pub(super) fn after_fork_in_parent(&mut self) {
        self.lineage = None;
    }

    pub(super) fn after_fork_in_child(&mut self) {
        if let Some(lineage) = self.lineage.take() {
            lineage.leave_to_child();
        }
    }

    /// Notes the slot of an object that was made and dropped when there had been so many forks.
    pub(super) fn leave(&mut self, segment: &Arc<Segment>, slot: u32, made: u64, dropped: u64) {
        if self.lost > made && rule("fork/who-cannot-be-found-is-not-forgotten") {
            return;
        }
        let key = (Arc::as_ptr(segment) as usize, made, dropped);
        let left = self.left.entry(key);
        let new = || Left { segment: Arc::downgrade(segment), slots: Vec::new() };
        left.or_insert_with(new).slots.push(slot);
    }

    /// Gives to `free` those of the slots that nobody has any more.
    pub(super) fn find_free(&mut self, mut free: impl FnMut(&Arc<Segment>, u32)) {
        self.left.retain(|_, left| left.segment.strong_count() > 0);
        let Some(alive) = self.alive() else { return };
        let mut named = BTreeMap::new();
        self.left.retain(|&(address, made, dropped), left| {
            let may_have = alive.iter().any(|&(from, to)| made < to && from <= dropped);
            if may_have && rule("fork/heirs-that-live-keep-what-they-have") {
                return true;
            }
            let Some(segment) = left.segment.upgrade() else { return false };
            if segment.was_sent_on() && rule("fork/what-an-heir-has-sent-is-somebodys") {
                return false;
            }
            // One that died in a wait is still in a table, and would be taken for a waiter of what comes there.
            let named: &BTreeSet<u64> =
                named.entry(address).or_insert_with(|| segment.waited_for());
            let is_clean = |slot: &u32| {
                !named.contains(&u64::from(*slot))
                    || !rule("fork/who-died-in-a-wait-keeps-its-slot")
            };
            for slot in left.slots.drain(..).filter(is_clean) {
                free(&segment, slot);
            }
            false
        });
    }

    /// Ranges of forks, ends included, outside of which no child lives that might have one of the slots; `None` if there are
    /// no slots.
    fn alive(&self) -> Option<Vec<(u64, u64)>> {
        let first = self.left.keys().map(|&(_, made, _)| made + 1).min()?;
        let last = self.left.keys().map(|&(_, _, dropped)| dropped).max()?;
        let file = self.found_by.as_ref()?.descriptor()?;
        let (mut unknown, mut alive) = (vec![(first, last)], Vec::new());
        for _ in 0..QUESTIONS {
            let Some((from, to)) = unknown.pop() else { break };
            match find_left(file, from, to) {
                Ok(None) => {}
                // It is any of them, and not the first.
                Ok(Some(fork)) if (from..=to).contains(&fork) => {
                    alive.push((fork, fork));
                    let others = [(from, fork - 1), (fork + 1, to)];
                    unknown.extend(others.into_iter().filter(|(from, to)| from <= to));
                }
                _ => alive.push((from, to)),
            }
        }
        alive.append(&mut unknown);
        Some(alive)
    }
}

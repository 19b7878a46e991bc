//! Slots of objects that their maker has dropped, but that its children may still have.
//!
//! A forked child has all objects that its parent has at that moment, and the parent does not learn
//! when the child drops them. But once the child and all its descendants have ended, only processes
//! that were sent an object still have it. So forks have numbers. Each child, together with its
//! descendants, is a lineage that has the number of its fork (see [`Lineage`]). Numbers of other
//! lineages (`heirs`) are larger.
//!
//! ```text
//!  forks so far      0 ──── 1 ──── 2 ──── 3 ──── 4
//!                              made          dropped
//!
//!  An object is made after fork 1 and dropped after fork 3: the children of forks 2 and 3 have
//!  it.
//! ```
//!
//! Where the answer is unknown, slots are not used again: where no lineage could be begun, where
//! the system does not answer, and where a child has sent on what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::heirs;
use super::segment::Segment;
use crate::mutation::rule;
use crate::os::lineage::{Lineage, find_left};

/// The most questions to the system in one search. Each takes some microseconds at most.
const QUESTIONS: usize = 64;

/// The greatest number of a fork. Larger numbers are those of `heirs`.
const LAST_NUMBER: u64 = heirs::FIRST_NUMBER - 1;

/// The children of a process, and which of its dropped objects they may still have.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    /// The segment whose file is used to begin and find the lineages. It is one of this process's
    /// own.
    found_by: Option<Arc<Segment>>,
    /// During a fork: the lineage of the child.
    lineage: Option<Lineage>,
    /// The last fork whose child cannot be found.
    lost: u64,
    /// Slots by the address of their segment, the number of forks when they were made, and the
    /// number of forks when they were dropped.
    left: BTreeMap<(usize, u64, u64), Left>,
}

/// Slots of a segment that the same children may have.
#[derive(Debug)]
struct Left {
    segment: Weak<Segment>,
    slots: Vec<u32>,
}

impl Reuse {
    /// Prepares the fork of this number, in a process that makes its new objects in `current`.
    pub(super) fn before_fork(&mut self, fork: u64, current: Option<&Arc<Segment>>) {
        if !self.found_by.as_ref().is_some_and(|segment| segment.takes_objects()) {
            // The segment may be the parent's. Lineages that were begun with its file cannot be
            // found any more.
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
        // On a system where the lineage ends with the descriptor, and not with the last mapping, it
        // would not show whether the child lives.
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

    /// Notes the slot of an object. `made` and `dropped` are the numbers of forks when it was made
    /// and when it was dropped.
    pub(super) fn leave(&mut self, segment: &Arc<Segment>, slot: u32, made: u64, dropped: u64) {
        if self.lost > made && rule("fork/a-child-that-cannot-be-found-keeps-slots") {
            return;
        }
        let key = (Arc::as_ptr(segment) as usize, made, dropped);
        let left = self.left.entry(key);
        let new = || Left { segment: Arc::downgrade(segment), slots: Vec::new() };
        left.or_insert_with(new).slots.push(slot);
    }

    /// Calls `free` for each slot that no process has any more.
    pub(super) fn find_free(&mut self, mut free: impl FnMut(&Arc<Segment>, u32)) {
        self.left.retain(|_, left| left.segment.strong_count() > 0);
        let Some(alive) = self.alive() else { return };
        let mut named = BTreeMap::new();
        self.left.retain(|&(address, made, dropped), left| {
            let may_have = alive.iter().any(|&(from, to)| made < to && from <= dropped);
            if may_have && rule("fork/children-that-live-keep-their-slots") {
                return true;
            }
            let Some(segment) = left.segment.upgrade() else { return false };
            if segment.was_sent_on() && rule("fork/what-a-child-has-sent-on-is-not-reused") {
                return false;
            }
            // A waiter that died in its wait is still in a table. It would count as a waiter of the
            // next object in that slot.
            let named: &BTreeSet<u64> =
                named.entry(address).or_insert_with(|| segment.waited_for());
            let is_clean = |slot: &u32| {
                !named.contains(&u64::from(*slot))
                    || !rule("fork/a-waiter-that-died-keeps-its-slot")
            };
            for slot in left.slots.drain(..).filter(is_clean) {
                free(&segment, slot);
            }
            false
        });
    }

    /// Ranges of forks, both ends included. A child that may have one of the slots, and lives, is
    /// of a fork in one of these ranges. `None` if there are no slots, or no descriptor to ask
    /// with.
    fn alive(&self) -> Option<Vec<(u64, u64)>> {
        let first = self.left.keys().map(|&(_, made, _)| made + 1).min()?;
        let last = self.left.keys().map(|&(_, _, dropped)| dropped).max()?;
        let file = self.found_by.as_ref()?.descriptor()?;
        let (mut unknown, mut alive) = (vec![(first, last)], Vec::new());
        for _ in 0..QUESTIONS {
            let Some((from, to)) = unknown.pop() else { break };
            match find_left(file, from, to) {
                Ok(None) => {}
                // This is any one of them, and not always the first.
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

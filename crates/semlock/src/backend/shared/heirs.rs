//! Locks that a child may go on with.
//!
//! Who forks while it holds a plain lock may leave it to its child, as a daemon does: the parent ends, and the child releases the
//! lock in the end. So the parent's death alone must not free it. But most children have nothing to do with their
//! parent's locks, and execute something else or end, and the lock must not be lost to them either.
//!
//! ```text
//!  permit            heirs (`layout::lock::HEIRS`)
//!  HELD by P         anything     P holds it
//!  INHERITED from P  number of P  P holds it, or a child that it has forked since it took it, or a child of such a child, and
//!                                 so on: its heirs, which form a lineage of that number
//!  INHERITED from P  else         the same, but nobody knows who the heirs are
//! ```
//!
//! Before a fork, the thread that forks marks the locks that it holds itself: what another thread holds, the child has nobody to
//! go on with. It writes a number of its own, begins a lineage of it (see [`Lineage`]), and marks the permit. Of
//! what it has marked before, it keeps the number, and the new child is of that lineage too. After the fork the parent itself
//! leaves the lineage. From then on the kernel knows whether there is an heir: a child that ends or executes is none any more,
//! and those that it has forked before stay.
//!
//! Who checks the holder takes the lock if P is dead, *and then* finds that the word has P's number, *and then* that the lineage
//! has nobody. In this order:
//!
//! - Once P is dead, it marks nothing any more, and no new child of P comes. Each child that P has forked since it took the
//!   lock was of the lineage from its first moment: the kernel copies that with the rest of P.
//! - So the lineage can only be continued by those who are in it. If it has nobody now, it will have nobody.
//! - The number is P's. If it is not, then between P's writing it and P's marking the permit, another process released the
//!   lock, a third one took it, forked, and wrote its own. Then nobody knows, and nobody takes it.
//! - A number is used for one hold. Heirs of an earlier one, which P has released since, are of another lineage.
//!
//! Wherever P is killed in its fork, this holds. Before the mark the permit says that P holds it. After it, either there is no
//! child, and so nobody of the lineage, or there is one.
//!
//! What an heir does with the lock nobody can see. It may be one that never thinks of it (a worker that was started under the
//! lock): then the lock stays taken until that one ends too.

use std::os::fd::BorrowedFd;

use super::layout::message;
use super::liveness::LivenessCache;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::lineage::{Lineage, may_be_left};
use crate::word::permit::{Permit, Process, State};

/// In a number: `P`'s pid, so much of its start time, and so much of how often it has forked.
const START_BITS: u32 = 20;
const FORKS_BITS: u32 = 20;
/// No number is smaller, for no process has the pid 0. What is smaller numbers lineages of another kind (`reuse`).
pub(super) const FIRST_NUMBER: u64 = 1 << (START_BITS + FORKS_BITS);

/// The number of the lineage that begins with this fork. Never one of a queue's marks, and less than 2^63.
fn number(parent: Process, forks: u64) -> u64 {
    let forks = if rule("fork/each-hold-has-its-own-heirs") { forks } else { 0 };
    let (start, forks) = (parent.start() % (1 << START_BITS), forks % (1 << FORKS_BITS));
    (u64::from(parent.pid()) << START_BITS | start) << FORKS_BITS | forks
}

const _: () = assert!(message::GREATEST < 1 << FORKS_BITS);

fn is_number_of(number: u64, parent: Process) -> bool {
    number >> FORKS_BITS == self::number(parent, 0) >> FORKS_BITS
}

/// The words of a slot that matter here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inheritable<'a> {
    pub(super) permit: &'a AtomicU64,
    pub(super) heirs: &'a AtomicU64,
}

/// Before the calling thread forks: leaves these locks to the child, all of which it holds in the segment of this file.
pub(super) fn leave_to_child(
    locks: &[Inheritable<'_>],
    me: Process,
    forks: u64,
    file: Option<BorrowedFd<'_>>,
) -> Option<Lineage> {
    let new = number(me, forks);
    let numbers: Vec<_> = locks
        .iter()
        .map(|lock| match Permit(lock.permit).state() {
            State::Held(holder) if holder.parent_of_heirs() == Some(me) => {
                lock.heirs.load(Ordering::Relaxed)
            }
            _ => new,
        })
        .collect();
    // An earlier child that nobody can find stays so.
    let known = |number: &u64| is_number_of(*number, me);
    let later = |number: &u64| *number == new || rule("fork/a-later-child-is-an-heir-too");
    let found: Vec<_> = numbers.iter().copied().filter(known).filter(later).collect();
    let lineage = file.and_then(|file| Lineage::begin(file, &found));
    for (lock, number) in locks.iter().zip(numbers) {
        let number = if lineage.is_some() { number } else { 0 };
        lock.heirs.store(number, Ordering::Release);
        Permit(lock.permit).mark_inherited(me);
    }
    lineage
}

/// Whether it is certain that the holder of a lock is dead, and each heir gone. The lock has the
/// number in `heirs`, and lives in the segment of this file.
pub(super) fn is_left_by_all<'fd>(
    holder: Process,
    heirs: &AtomicU64,
    file: impl FnOnce() -> Option<BorrowedFd<'fd>>,
    liveness: &mut LivenessCache,
) -> bool {
    let Some(parent) = holder.parent_of_heirs() else { return liveness.is_dead(holder) };
    liveness.is_dead(parent) && !may_have_heirs(parent, heirs, file, liveness)
}

fn may_have_heirs<'fd>(
    parent: Process,
    heirs: &AtomicU64,
    file: impl FnOnce() -> Option<BorrowedFd<'fd>>,
    liveness: &mut LivenessCache,
) -> bool {
    if !rule("check/heirs-keep-what-they-may-hold") {
        return false;
    }
    let number = heirs.load(Ordering::Acquire);
    if !is_number_of(number, parent) && rule("check/unknown-heirs-keep-it-too") {
        return true;
    }
    let Some(file) = file() else {
        liveness.cannot_look();
        return true;
    };
    may_be_left(file, number)
}

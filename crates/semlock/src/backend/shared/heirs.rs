//! Locks that a forked child may go on to hold.
//!
//! A process that forks while it holds a plain lock may leave it to its child, as a daemon does:
//! the parent ends, and the child releases the lock later. So the parent's death alone must not
//! free the lock. But most children have nothing to do with their parent's locks: they execute
//! another program, or end. Then the lock must not stay held because of them.
//!
//! ```text
//!  permit            heirs (`layout::lock::HEIRS`)
//!  HELD by P         anything     P holds it
//!  INHERITED from P  number of P  P or one of its heirs holds it: a child that P has forked since
//!                                 it acquired the lock, a child of such a child, and so on. They
//!                                 form the lineage of that number
//!  INHERITED from P  else         the same, but the heirs are unknown
//! ```
//!
//! Before a fork, the forking thread prepares the locks that it holds itself. (No thread of the
//! child goes on with what another thread holds.) For each it writes a number of this process and
//! fork, begins a lineage of this number (see [`Lineage`]), and sets the permit to `INHERITED`. A
//! lock that is `INHERITED` already keeps its number, and the new child belongs to that lineage
//! too. After the fork the parent itself leaves the lineage. From then on the kernel knows whether
//! there is an heir: a child that ends, or executes another program, is an heir no more, but the
//! children that it has forked before remain heirs.
//!
//! A process that checks the holder recovers the lock if it finds, in this order, that P is dead,
//! *then* that the word has P's number, *then* that the lineage is empty. The reasons:
//!
//! - A dead P changes no permit and forks no child. Each child that P has forked since it acquired
//!   the lock belonged to the lineage from its first moment: the kernel copies that with the rest.
//! - So only a member of the lineage can add a member. An empty lineage stays empty.
//! - The number must be P's. It is another process's if, after P wrote its number and before P
//!   set the permit to `INHERITED`, a second process released the lock, and a third one acquired
//!   it, forked, and wrote its own number. Then the heirs are unknown, and no process recovers it.
//! - A number serves one hold. The heirs of an earlier hold, which P has released since, are of
//!   another lineage.
//!
//! This holds wherever in its fork P is killed. Before the permit is `INHERITED`, it says that P
//! holds the lock. From then on, either there is no child and the lineage is empty, or there is a
//! child and it is in the lineage.
//!
//! No process can see what an heir does with the lock. An heir may never use it (a worker that was
//! started under the lock). Then the lock stays held until that heir ends too.

use std::os::fd::BorrowedFd;

use super::liveness::LivenessCache;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::lineage::{Lineage, may_be_left};
use crate::word::permit::{Permit, Process, State};

/// A number consists of `P`'s pid, so many bits of its start time, and so many bits of its count of
/// forks.
const START_BITS: u32 = 20;
const FORKS_BITS: u32 = 20;
/// No number is smaller, because no process has the pid 0. Smaller numbers name lineages of another
/// kind (`reuse`).
pub(super) const FIRST_NUMBER: u64 = 1 << (START_BITS + FORKS_BITS);

/// The number of the lineage that begins with this fork. It is less than 2^63, and not 0.
fn number(parent: Process, forks: u64) -> u64 {
    let forks = if rule("fork/each-hold-has-its-own-heirs") { forks } else { 0 };
    let (start, forks) = (parent.start() % (1 << START_BITS), forks % (1 << FORKS_BITS));
    (u64::from(parent.pid()) << START_BITS | start) << FORKS_BITS | forks
}

fn is_number_of(number: u64, parent: Process) -> bool {
    number >> FORKS_BITS == self::number(parent, 0) >> FORKS_BITS
}

/// The words of a slot that this file uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inheritable<'a> {
    pub(super) permit: &'a AtomicU64,
    pub(super) heirs: &'a AtomicU64,
}

/// Leaves these locks to the child that the calling thread is about to fork. They are all the locks
/// that it holds in the segment of this file.
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
    // If no process can find an earlier child, this stays so.
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

/// Whether it is certain that the holder of a lock is dead and all its heirs are gone. `heirs` has
/// the lock's number; the lock lives in the segment of this file.
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
        liveness.note_no_descriptor();
        return true;
    };
    may_be_left(file, number)
}

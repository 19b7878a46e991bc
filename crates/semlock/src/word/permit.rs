//! A permit: one word that names its holder.
//!
//! ```text
//!   63                                24 23                     2 1      0
//!  ┌────────────────────────────────────┬────────────────────────┬────────┐
//!  │ start time (40 bits)               │ pid (22 bits)          │ status │
//!  └────────────────────────────────────┴────────────────────────┴────────┘
//!   0                         free
//!   process, status HELD      held by this process
//!   process, status DIED      free; this process died as the holder, and the next acquirer is told
//!   no process, status DIED   free, but reserved: 32 bits of the start time are a `Reservation`
//!   process, INHERITED        held by this process, or by a child that it has forked meanwhile:
//!                             recovered when all of them are gone
//!   process, UNCHECKED        held by this process, and never recovered: the process is foreign
//!                             (in another pid or time namespace), or it has ended well, and
//!                             another process is to free the permit
//! ```
//!
//! Each change is one compare-exchange from a state that the caller has seen. There is no moment at
//! which a permit is taken and its holder unknown. So a process can be killed between any two
//! instructions. A pid of Linux has at most 22 bits (`PID_MAX_LIMIT`), and one of another system
//! has fewer. 40 bits of start time are 348 years of uptime in Linux's ticks at 100 Hz, and 34
//! years in milliseconds.
//!
//! # Memory ordering
//! Taking is an Acquire and freeing a Release, so that a holder sees what the holder before it
//! wrote. Both are `SeqCst` on top of that, because the eventcount needs it: see there. No caller
//! uses the value that a failed exchange returns. A caller that needs the state loads it again.

use super::low;
use super::reservation::{Acquirer, Reservation};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const STATUS: u64 = 0b11;
const HELD: u64 = 0;
/// The status of a permit that is free, and whose last holder died.
pub const DIED: u64 = 1;
const INHERITED: u64 = 2;
const UNCHECKED: u64 = 3;

/// Where the pid stands in a permit.
pub const PID_SHIFT: u32 = 2;
const PID_BITS: u32 = 22;
const START_SHIFT: u32 = PID_SHIFT + PID_BITS;
pub(crate) const START_BITS: u32 = 64 - START_SHIFT;

/// A process, as a permit names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u64);

impl Process {
    /// `start` is its start time in the system's units, or 0 if that is unknown. A foreign process
    /// is in another namespace than the processes that could check it.
    pub(crate) const fn new(pid: u32, start: u64, is_foreign: bool) -> Self {
        let start = start & ((1 << START_BITS) - 1);
        let pid = pid as u64 & ((1 << PID_BITS) - 1);
        let status = if is_foreign { UNCHECKED } else { HELD };
        Self(start << START_SHIFT | pid << PID_SHIFT | status)
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub(crate) const fn word(self) -> u64 {
        self.0
    }

    #[allow(clippy::cast_possible_truncation)] // 22 bits
    pub(crate) const fn pid(self) -> u32 {
        (self.0 >> PID_SHIFT) as u32 & ((1 << PID_BITS) - 1)
    }

    pub(crate) const fn start(self) -> u64 {
        self.0 >> START_SHIFT
    }

    /// Whether other processes may check if it is dead.
    pub(crate) const fn can_be_checked(self) -> bool {
        self.0 & STATUS == HELD
    }

    /// The holder itself, which others may check, if it has forked and a child may go on with the
    /// permit as its heir. `None` for any other holder.
    pub(crate) const fn parent_of_heirs(self) -> Option<Self> {
        if self.0 & STATUS == INHERITED { Some(Self(self.0 & !STATUS | HELD)) } else { None }
    }
}

/// What a permit's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    /// Free, for one waiter.
    Reserved(Reservation),
    /// Free. Its last holder died as the holder.
    OwnerDied(Process),
    /// Held. The process carries the status.
    Held(Process),
}

impl State {
    const fn of(word: u64) -> Self {
        match word {
            0 => Self::Free,
            _ if word & ((1 << START_SHIFT) - 1) == DIED => {
                Self::Reserved(Reservation::from_bits(low(word >> START_SHIFT)))
            }
            _ if word & STATUS == DIED => Self::OwnerDied(Process(word)),
            _ => Self::Held(Process(word)),
        }
    }
}

/// The word of a free permit: for all, or reserved for one waiter.
const fn free(reserved: Option<Reservation>) -> u64 {
    match reserved {
        None => 0,
        Some(reserved) => (reserved.bits() as u64) << START_SHIFT | DIED,
    }
}

/// How a permit was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Clean,
    /// From a holder that died: what the permit protects may be half-written.
    OwnerDied(Process),
}

/// A view of the word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit<'a>(pub(crate) &'a AtomicU64);

impl Permit<'_> {
    pub(crate) fn state(self) -> State {
        State::of(self.0.load(Ordering::SeqCst))
    }

    /// Takes the permit if it is free for all, and its last holder freed it.
    #[inline]
    pub(crate) fn try_take_clean(self, me: Process) -> bool {
        self.change(0, me.0)
    }

    /// Takes the permit if it is free for this acquirer.
    pub(crate) fn try_take(self, me: Process, acquirer: Acquirer) -> Option<Taken> {
        loop {
            match self.state() {
                State::Free => {
                    if self.try_take_clean(me) {
                        return Some(Taken::Clean);
                    }
                }
                State::Reserved(reserved) => {
                    if !acquirer.may_take(reserved) {
                        return None;
                    }
                    if self.change(free(Some(reserved)), me.0) {
                        return Some(Taken::Clean);
                    }
                }
                State::OwnerDied(process) => {
                    if self.change(process.0, me.0) {
                        return Some(Taken::OwnerDied(process));
                    }
                }
                State::Held(_) => return None,
            }
        }
    }

    /// Takes the permit from a dead holder. Of several processes that try, one succeeds.
    pub(crate) fn recover(self, dead: Process, me: Process) -> bool {
        self.change(dead.0, me.0)
    }

    /// Frees the permit for all if its word is exactly `me`. (After a fork its status may be
    /// INHERITED.)
    #[inline]
    pub(crate) fn free_if_held_by(self, me: Process) -> bool {
        self.change(me.0, 0)
    }

    /// Frees the permit if its word is exactly `me`: for one waiter if `reserved` names one,
    /// otherwise for all.
    pub(crate) fn reserve_if_held_by(self, me: Process, reserved: Option<Reservation>) -> bool {
        self.change(me.0, free(reserved))
    }

    /// Reserves the permit for `next` instead, or frees it for all. False if the permit is not
    /// `reserved` any more.
    pub(crate) fn replace_reservation(
        self,
        reserved: Reservation,
        next: Option<Reservation>,
    ) -> bool {
        self.change(free(Some(reserved)), free(next))
    }

    /// Frees the permit for all if it is reserved for this ticket.
    pub(crate) fn cancel_reservation(self, ticket: u64) -> bool {
        match self.state() {
            State::Reserved(reserved) => {
                reserved.is_for(ticket) && self.replace_reservation(reserved, None)
            }
            _ => false,
        }
    }

    /// Frees the permit, whichever process holds it. False if none does.
    pub(crate) fn free(self, reserved: Option<Reservation>) -> bool {
        while let State::Held(holder) = self.state() {
            if self.change(holder.0, free(reserved)) {
                return true;
            }
            if !rule("permit/a-failed-free-is-tried-again") {
                break;
            }
        }
        false
    }

    /// Frees the permit as it was taken from a dead holder: the next acquirer is told too.
    pub(crate) fn free_as_owner_died(self, me: Process, dead: Process) -> bool {
        let died = dead.0 & !STATUS | DIED;
        // If this process has forked since it took the permit, the status is INHERITED.
        self.change(me.0, died)
            || rule("permit/an-inherited-permit-is-given-back-too")
                && self.change(me.0 & !STATUS | INHERITED, died)
    }

    /// Whether this process holds the permit. It may have forked meanwhile.
    pub(crate) fn is_held_by(self, me: Process) -> bool {
        let State::Held(holder) = self.state() else { return false };
        holder == me || holder.parent_of_heirs() == Some(me)
    }

    /// Notes that a child of the holder may go on with the permit.
    pub(crate) fn mark_inherited(self, me: Process) {
        if me.can_be_checked() {
            self.change(me.0, me.0 & !STATUS | INHERITED);
        }
    }

    /// Notes that the holder ends well, and that another process is to free the permit.
    pub(crate) fn leave_held(self, me: Process) {
        if me.can_be_checked() {
            let _held = [HELD, INHERITED]
                .into_iter()
                .any(|status| self.change(me.0 & !STATUS | status, me.0 & !STATUS | UNCHECKED));
        }
    }

    /// One compare-exchange. False if the state is not `from`.
    #[inline]
    fn change(self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ME: Process = Process::new(1 << 21, 12_345_678, false);
    const OTHER: Process = Process::new(4_194_303, (1 << 40) - 1, false);
    const NOBODY: Acquirer = Acquirer { ticket: None, clock: || 0 };

    #[test]
    fn a_process_keeps_its_pid_and_start_time() {
        assert_eq!((ME.pid(), ME.start()), (1 << 21, 12_345_678));
        assert_eq!((OTHER.pid(), OTHER.start()), (4_194_303, (1 << 40) - 1));
        let foreign = Process::new(7, 0, true);
        assert_eq!((foreign.pid(), foreign.start()), (7, 0));
        assert!(ME.can_be_checked() && !foreign.can_be_checked());
    }

    #[test]
    fn a_permit_is_held_by_one_process_and_freed_by_any() {
        let word = AtomicU64::new(0);
        let permit = Permit(&word);
        assert!(!permit.free(None));
        assert_eq!(permit.try_take(ME, NOBODY), Some(Taken::Clean));
        assert_eq!(permit.try_take(OTHER, NOBODY), None);
        assert!(!permit.free_if_held_by(OTHER));
        assert_eq!(permit.state(), State::Held(ME));
        assert!(permit.free(None));
        assert_eq!(permit.state(), State::Free);
    }

    #[test]
    fn a_dead_holders_permit_tells_each_acquirer_until_one_frees_it() {
        let word = AtomicU64::new(0);
        let permit = Permit(&word);
        assert!(permit.try_take_clean(OTHER));
        assert!(permit.recover(OTHER, ME));
        assert!(!permit.recover(OTHER, ME));
        assert!(permit.free_as_owner_died(ME, OTHER));
        assert!(!permit.try_take_clean(ME));
        assert!(!permit.free(None));
        match permit.try_take(ME, NOBODY) {
            Some(Taken::OwnerDied(dead)) => assert_eq!(dead.pid(), OTHER.pid()),
            other => panic!("{other:?}"),
        }
        assert!(permit.free_if_held_by(ME));
        assert_eq!(permit.try_take(OTHER, NOBODY), Some(Taken::Clean));
    }

    #[test]
    fn a_permit_that_may_be_inherited_still_names_its_holder() {
        let word = AtomicU64::new(0);
        let permit = Permit(&word);
        assert!(permit.try_take_clean(ME));
        permit.mark_inherited(OTHER);
        assert_eq!(permit.state(), State::Held(ME));
        permit.mark_inherited(ME);
        let State::Held(holder) = permit.state() else { panic!() };
        assert!(!holder.can_be_checked());
        assert_eq!(holder.parent_of_heirs(), Some(ME));
        assert_eq!(ME.parent_of_heirs(), None);
        assert!(permit.is_held_by(ME) && !permit.is_held_by(OTHER));
        assert_eq!(holder.pid(), ME.pid());
        assert!(permit.free(None));
    }

    #[test]
    fn a_reserved_permit_is_free_for_one_waiter_and_then_for_all() {
        let word = AtomicU64::new(0);
        let permit = Permit(&word);
        let reserved = Reservation::new(7, 0);
        assert!(permit.try_take_clean(ME));
        assert!(permit.reserve_if_held_by(ME, Some(reserved)));
        assert_eq!(permit.state(), State::Reserved(reserved));
        assert!(!permit.try_take_clean(OTHER) && !permit.free(None));
        assert_eq!(permit.try_take(OTHER, NOBODY), None);
        assert_eq!(permit.try_take(OTHER, Acquirer { ticket: Some(8), ..NOBODY }), None);
        let first = Acquirer { ticket: Some(7), ..NOBODY };
        assert_eq!(permit.try_take(OTHER, first), Some(Taken::Clean));
        assert!(permit.free(Some(reserved)));
        let late = Acquirer { clock: || 200_000_000, ..NOBODY };
        assert_eq!(permit.try_take(ME, late), Some(Taken::Clean));
        assert!(permit.free(Some(reserved)) && permit.replace_reservation(reserved, None));
        assert!(!permit.replace_reservation(reserved, None));
        assert!(permit.try_take_clean(OTHER));
    }

    #[test]
    fn a_permit_that_is_left_held_is_never_recovered_and_freed_by_any() {
        let word = AtomicU64::new(0);
        let permit = Permit(&word);
        permit.leave_held(ME);
        assert_eq!(permit.state(), State::Free);
        for has_forked in [false, true] {
            assert!(permit.try_take_clean(ME));
            if has_forked {
                permit.mark_inherited(ME);
            }
            permit.leave_held(OTHER);
            assert!(permit.is_held_by(ME));
            permit.leave_held(ME);
            let State::Held(holder) = permit.state() else { panic!() };
            assert!(!holder.can_be_checked() && holder.parent_of_heirs().is_none());
            assert_eq!((holder.pid(), holder.start()), (ME.pid(), ME.start()));
            assert_eq!(permit.try_take(OTHER, NOBODY), None);
            assert!(permit.free(None));
        }
    }
}

//! A permit: one word that names its holder.
//!
//! ```text
//!   63                                24 23                     2 1    0
//!  ┌────────────────────────────────────┬────────────────────────┬──────┐
//!  │ start time (40 bits)               │ process id (22 bits)   │ mark │
//!  └────────────────────────────────────┴────────────────────────┴──────┘
//!   0                      free
//!   process, mark HELD     held by it
//!   process, mark DIED     free; it died as the holder, and the next who takes it is told
//!   no process, mark DIED  free, but reserved: 32 bits of the start time are a `Reservation`
//!   process, INHERITED     held by it, or by a child that it forked meanwhile: recovered when all of them are gone
//!   process, UNCHECKED     held by it, and never recovered: it is in another pid or time namespace, or it has ended well, and
//!                          another is to free it
//! ```
//!
//! Each change is one compare-exchange from a state that was seen: there is no moment at which a permit is
//! taken and its holder unknown, so a process can be killed between any two instructions. A number
//! of Linux (`PID_MAX_LIMIT`) has 22 bits, and other systems' have fewer; 40 bits of Linux's ticks at 100 Hz are 348
//! years of uptime, and of milliseconds 34 years.
//!
//! # Memory ordering
//! Taking is an Acquire and freeing a Release, so that a holder sees what the one before it wrote. Both
//! are `SeqCst` on top of that, because the gate needs more of them: see there. Nobody goes by the state
//! that a failed exchange tells: who needs one looks again.

use super::low;
use super::reservation::{Acquirer, Reservation};
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;

const MARK: u64 = 0b11;
const HELD: u64 = 0;
/// The mark of a permit that is free, and whose last holder died.
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
    /// `start` is its start time in the system's units; 0 where nobody can tell. A `stranger` is
    /// in another namespace than those who could judge it.
    pub(crate) const fn new(pid: u32, start: u64, stranger: bool) -> Self {
        let start = start & ((1 << START_BITS) - 1);
        let pid = pid as u64 & ((1 << PID_BITS) - 1);
        let mark = if stranger { UNCHECKED } else { HELD };
        Self(start << START_SHIFT | pid << PID_SHIFT | mark)
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

    /// Whether others may ask if it is dead.
    pub(crate) const fn can_be_checked(self) -> bool {
        self.0 & MARK == HELD
    }

    /// Of a holder that has forked, as whose heir a child may go on: the process itself, which others may ask about.
    pub(crate) const fn parent_of_heirs(self) -> Option<Self> {
        if self.0 & MARK == INHERITED { Some(Self(self.0 & !MARK | HELD)) } else { None }
    }
}

/// What a permit's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    /// Free, for one waiter.
    Reserved(Reservation),
    /// Free, and its last holder died with it.
    OwnerDied(Process),
    /// Held; the process carries the mark.
    Held(Process),
}

impl State {
    const fn of(word: u64) -> Self {
        match word {
            0 => Self::Free,
            _ if word & ((1 << START_SHIFT) - 1) == DIED => {
                Self::Reserved(Reservation::from_bits(low(word >> START_SHIFT)))
            }
            _ if word & MARK == DIED => Self::OwnerDied(Process(word)),
            _ => Self::Held(Process(word)),
        }
    }
}

/// What a permit is that is free, for everybody or for one.
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

#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit<'a>(pub(crate) &'a AtomicU64);

impl Permit<'_> {
    pub(crate) fn state(self) -> State {
        State::of(self.0.load(Ordering::SeqCst))
    }

    /// Takes it if it is free and its last holder gave it back.
    #[inline]
    pub(crate) fn try_take_clean(self, me: Process) -> bool {
        self.change(0, me.0)
    }

    /// Takes it if it is free for this one.
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

    /// Takes it from a holder that is dead. Of several who try, one succeeds.
    pub(crate) fn recover(self, dead: Process, me: Process) -> bool {
        self.change(dead.0, me.0)
    }

    /// Frees it if this process holds it, and no more is known about it.
    #[inline]
    pub(crate) fn free_if_held_by(self, me: Process) -> bool {
        self.change(me.0, 0)
    }

    /// Frees it for one waiter if this process holds it, and no more is known about it.
    pub(crate) fn reserve_if_held_by(self, me: Process, reserved: Option<Reservation>) -> bool {
        self.change(me.0, free(reserved))
    }

    /// Reserves it for another, or frees it for all; false if it is not reserved so any more.
    pub(crate) fn replace_reservation(
        self,
        reserved: Reservation,
        next: Option<Reservation>,
    ) -> bool {
        self.change(free(Some(reserved)), free(next))
    }

    /// Frees it for all if it is reserved for this ticket.
    pub(crate) fn cancel_reservation(self, ticket: u64) -> bool {
        match self.state() {
            State::Reserved(reserved) => {
                reserved.is_for(ticket) && self.replace_reservation(reserved, None)
            }
            _ => false,
        }
    }

    /// Frees it, whoever holds it; false if nobody does.
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

    /// Gives it back as it was taken from a dead holder: the next who takes it is told too.
    pub(crate) fn free_as_owner_died(self, me: Process, dead: Process) -> bool {
        let died = dead.0 & !MARK | DIED;
        // A fork since it was taken has left its mark there.
        self.change(me.0, died)
            || rule("permit/an-inherited-permit-is-given-back-too")
                && self.change(me.0 & !MARK | INHERITED, died)
    }

    /// Whether this process holds it; perhaps it has forked meanwhile.
    pub(crate) fn is_held_by(self, me: Process) -> bool {
        let State::Held(holder) = self.state() else { return false };
        holder == me || holder.parent_of_heirs() == Some(me)
    }

    /// Notes that a child of its holder may be the one that goes on with it.
    pub(crate) fn mark_inherited(self, me: Process) {
        if me.can_be_checked() {
            self.change(me.0, me.0 & !MARK | INHERITED);
        }
    }

    /// Notes that its holder ends well, and leaves it to another to free it.
    pub(crate) fn leave_held(self, me: Process) {
        if me.can_be_checked() {
            let _held = [HELD, INHERITED]
                .into_iter()
                .any(|mark| self.change(me.0 & !MARK | mark, me.0 & !MARK | UNCHECKED));
        }
    }

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
    fn a_process_is_told_back_as_it_was_named() {
        assert_eq!((ME.pid(), ME.start()), (1 << 21, 12_345_678));
        assert_eq!((OTHER.pid(), OTHER.start()), (4_194_303, (1 << 40) - 1));
        let stranger = Process::new(7, 0, true);
        assert_eq!((stranger.pid(), stranger.start()), (7, 0));
        assert!(ME.can_be_checked() && !stranger.can_be_checked());
    }

    #[test]
    fn a_permit_is_held_by_one_and_freed_by_anyone() {
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
    fn a_dead_holders_permit_tells_each_who_takes_it_until_one_gives_it_back() {
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
    fn a_permit_that_may_be_inherited_names_its_holder_and_its_heirs() {
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
    fn a_reserved_permit_is_free_for_one_and_then_for_all() {
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
    fn a_permit_that_is_left_held_is_nobodys_to_recover_and_anyones_to_free() {
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

//! Who is next: what a lock's gate, its places and its permits do together.
//!
//! Who comes by while a permit is free may take it, though others wait: a permit that waited for a sleeper to wake would be
//! idle for as long as that takes, and that costs more than anything else. So the first of those who wait may be woken in vain,
//! time and again. A waiter that has waited for too long puts an end to it: from then on releases are *in turn*. Each
//! permit is then reserved for the first of those who wait, until one gets it that has not waited for so long.
//!
//! ```text
//!  releaser, in turn                            waiter
//!  1  finds the first place                     1  takes a permit that is free, or reserved for it
//!  2  frees the permit, reserved for it         2  gives its place up
//!  3  tells that place: GRANTED; wakes it       3  told GRANTED: frees what is still reserved for it
//!     it has left: reserves it for the next     4  told anything, and has no permit: wakes the next
//! ```
//!
//! Whoever of the two comes second sees what the other did, because the place has one state: the waiter gives it up
//! with a swap, the releaser tells it with an exchange. Killed in between, a releaser leaves a reservation that runs out, and so does
//! a waiter.
//!
//! So a waiter that runs when it is woken waits no longer than what is too long, one release more, and one turn of
//! each that came before it, whatever others do. One that is stopped, killed or late while something is reserved for it
//! delays the others by one reservation, once: it is told, and so the next release is not for it.

use super::Futex;
use super::gate::Gate;
use super::permit::Process;
use super::places::{First, Place, Places, Told};
use super::reservation::Reservation;
use crate::mutation::rule;

/// How a permit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    ToAll,
    /// It is reserved.
    ToOne,
}

/// What a lock has to give.
pub(crate) trait Permits {
    /// That it has nothing to give.
    type Refused;

    /// Frees one, for all or for one.
    fn give(&self, next: Option<Reservation>) -> Result<Given, Self::Refused>;

    /// Reserves it for another, or frees it for all; false if it is not reserved so any more.
    fn reserve_again(&self, reserved: Reservation, next: Option<Reservation>) -> bool;

    /// Frees for all what is reserved for this ticket; false if nothing is.
    fn give_up(&self, ticket: u64) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns<'a> {
    pub(crate) gate: Gate<'a>,
    /// None of what nobody waits for in a place.
    pub(crate) places: Option<Places<'a>>,
}

impl Turns<'_> {
    /// Wakes the first of those who wait; `other` is the caller's own place.
    #[inline]
    pub(crate) fn wake_one(self, futex: &impl Futex, other: Option<&Place>) {
        self.gate.wake_one(futex, || self.wake_first(futex, other));
    }

    /// Wakes the first of those who have a place, for one who has seen that somebody may wait; false if there is none.
    pub(crate) fn wake_first(self, futex: &impl Futex, other: Option<&Place>) -> bool {
        self.places.is_some_and(|places| places.wake_first(futex, other))
    }

    /// Frees a permit for the first of those who wait.
    pub(crate) fn release<P: Permits>(
        self,
        futex: &impl Futex,
        permits: &P,
        clock: fn() -> u64,
        me: Process,
        is_dead: &mut impl FnMut(Process) -> bool,
    ) -> Result<(), P::Refused> {
        let mut next = self.next(clock);
        if permits.give(next.map(|next| next.reserved))? == Given::ToAll {
            next = None;
        }
        while let Some(Next { places, first, reserved }) = next {
            if places.grant(futex, first, me, is_dead) {
                return Ok(());
            }
            // It has left, or died; or it has only woken, and is the first again.
            next = if rule("turns/who-has-left-is-followed-by-the-next") {
                self.next(clock)
            } else {
                return Ok(());
            };
            if !permits.reserve_again(reserved, next.map(|next| next.reserved)) {
                // It has taken it before it left.
                return Ok(());
            }
        }
        self.wake_one(futex, None);
        Ok(())
    }

    fn next(&self, clock: fn() -> u64) -> Option<Next<'_>> {
        let places = self.places?;
        let first = places.first()?;
        Some(Next { places, first, reserved: Reservation::new(first.ticket(), clock()) })
    }

    /// Ends a wait. `is_hungry`: it took too long.
    pub(crate) fn leave(
        self,
        futex: &impl Futex,
        permits: &impl Permits,
        place: &Place,
        acquired: bool,
        is_hungry: bool,
    ) {
        let Some(places) = self.places else { return };
        let told = places.leave(place);
        let gave_up = told == Told::Granted
            && rule("turns/who-leaves-gives-up-what-is-reserved")
            && permits.give_up(place.ticket());
        if acquired && told == Told::Granted && !is_hungry {
            // All others came later, and have not waited for too long either.
            self.gate.end_turns();
        }
        let in_vain = told != Told::Nothing && !acquired;
        if gave_up || in_vain && rule("turns/who-leaves-passes-its-wake-up-on") {
            self.wake_one(futex, None);
        }
    }
}

/// For whom a permit is to be reserved.
#[derive(Clone, Copy)]
struct Next<'a> {
    places: Places<'a>,
    first: First,
    reserved: Reservation,
}

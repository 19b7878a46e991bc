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
use super::eventcount::EventCount;
use super::permit::Process;
use super::places::{First, Place, Places, Wakeup};
use super::reservation::Reservation;
use crate::mutation::rule;

/// How a permit was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    ForAll,
    /// It is reserved.
    ForOne,
}

/// What a lock has to give.
pub(crate) trait Permits {
    /// That it has nothing to give.
    type Refused;

    /// Frees one, for all or for one.
    fn free(&self, next: Option<Reservation>) -> Result<Freed, Self::Refused>;

    /// Reserves it for another, or frees it for all; false if it is not reserved so any more.
    fn replace_reservation(&self, reserved: Reservation, next: Option<Reservation>) -> bool;

    /// Frees for all what is reserved for this ticket; false if nothing is.
    fn cancel_reservation(&self, ticket: u64) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns<'a> {
    pub(crate) eventcount: EventCount<'a>,
    /// None of what nobody waits for in a place.
    pub(crate) places: Option<Places<'a>>,
}

impl Turns<'_> {
    /// Wakes the first of those who wait; `other` is the caller's own place.
    #[inline]
    pub(crate) fn wake_one(self, futex: &impl Futex, other: Option<&Place>) {
        self.eventcount.wake_one(futex, || self.wake_first(futex, other));
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
        let seen = self.eventcount.snapshot();
        let mut next = self.next(clock);
        if next.is_none() {
            self.eventcount.end_turns(seen);
        }
        if permits.free(next.map(|next| next.reserved))? == Freed::ForAll {
            next = None;
        }
        while let Some(Next { places, first, reserved }) = next {
            if places.grant(futex, first, me, is_dead) {
                return Ok(());
            }
            // It has left, or died; or it has only woken, and is the first again.
            next = if rule("turns/the-next-waiter-follows-one-that-has-left") {
                self.next(clock)
            } else {
                return Ok(());
            };
            if !permits.replace_reservation(reserved, next.map(|next| next.reserved)) {
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

    /// Ends a wait. `is_starving`: it took too long.
    pub(crate) fn leave(
        self,
        futex: &impl Futex,
        permits: &impl Permits,
        place: &Place,
        acquired: bool,
        is_starving: bool,
    ) {
        let Some(places) = self.places else { return };
        let seen = self.eventcount.snapshot();
        let told = places.leave(place);
        let gave_up = told == Wakeup::Granted
            && rule("turns/a-leaving-waiter-cancels-its-reservation")
            && permits.cancel_reservation(place.ticket());
        if acquired && told == Wakeup::Granted && !is_starving {
            // All others came later, and have not waited for too long either.
            self.eventcount.end_turns(seen);
        }
        let in_vain = told != Wakeup::None && !acquired;
        if gave_up || in_vain && rule("turns/a-leaving-waiter-passes-its-wake-up-on") {
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;
    use crate::atomic::{AtomicU64, Ordering};
    use crate::word::eventcount::WaiterFlags;
    use crate::word::waiters::{NODE_WORDS, Waiters};
    use crate::word::{Slept, Woke};

    const NODES: usize = 4;

    #[derive(Default)]
    struct Words {
        eventcount: AtomicU64,
        tickets: AtomicU64,
        nodes: [AtomicU64; NODES * NODE_WORDS],
        used: AtomicU64,
    }

    impl Words {
        fn turns(&self) -> Turns<'_> {
            let table = Waiters { nodes: &self.nodes, used: &self.used };
            let places = Places { table, slot: 1, tickets: &self.tickets };
            Turns { eventcount: EventCount(&self.eventcount), places: Some(places) }
        }
    }

    /// Waiters none of whom sleeps: who is told to try finds that another was faster, and waits again at once.
    struct Awake<'a> {
        turns: Turns<'a>,
        places: Vec<Place>,
        told: RefCell<Vec<u64>>,
    }

    impl<'a> Awake<'a> {
        fn new(turns: Turns<'a>, is_starving: bool) -> Self {
            let enter = || {
                let place = turns.places.unwrap().enter(Process::new(7, 1, false)).unwrap();
                turns.eventcount.prepare_wait(WaiterFlags { has_place: true, is_starving }, None);
                place
            };
            let places = (0..NODES).map(|_| enter()).collect();
            Self { turns, places, told: RefCell::default() }
        }
    }

    impl Futex for Awake<'_> {
        fn wait(&self, _: &AtomicU64, _: u32, _: Option<Duration>) -> Slept {
            unreachable!("nobody sleeps")
        }

        fn wake_one(&self, word: &AtomicU64) -> Woke {
            let places = self.turns.places.unwrap();
            let told = |place: &&Place| {
                let before = word.load(Ordering::Relaxed);
                places.wait_again(place);
                word.load(Ordering::Relaxed) != before
            };
            let told = self.places.iter().find(told).expect("somebody was told");
            self.told.borrow_mut().push(told.ticket());
            assert!(self.told.borrow().len() <= NODES, "somebody is told twice");
            Woke::Nobody
        }

        fn wake_all(&self, _: &AtomicU64) {
            unreachable!("all have places")
        }
    }

    #[test]
    fn one_wake_up_tells_each_of_those_who_are_awake_once() {
        let words = Words::default();
        let awake = Awake::new(words.turns(), false);
        words.turns().wake_one(&awake, None);
        assert_eq!(*awake.told.borrow(), [0, 1, 2, 3]);
    }

    #[test]
    fn it_goes_in_turn_also_while_all_who_wait_are_awake() {
        let words = Words::default();
        let awake = Awake::new(words.turns(), true);
        words.turns().wake_one(&awake, None);
        assert!(words.turns().eventcount.is_in_turn());
    }
}

//! Which waiter is served next: how a lock's eventcount, places and permits work together.
//!
//! An acquirer that comes by while a permit is free may take it, though others wait. Otherwise the
//! permit would be idle until a sleeper wakes, and that costs more than anything else. So a
//! releaser may wake the first waiter and leave it no permit, again and again. A waiter that has
//! waited for too long is *starving* and ends that: from then on releases are *in turn*. A releaser
//! in turn reserves the permit for the first waiter. That goes on until a permit goes to a waiter
//! that is not starving.
//!
//! ```text
//!  releaser, in turn                      waiter
//!  1  finds the first place               1  takes a permit that is free, or reserved for it
//!  2  frees the permit, reserved for      2  leaves its place
//!     that place's ticket                 3  if the place was GRANTED:
//!  3  sets the place to GRANTED and          frees what is still reserved for it
//!     wakes the waiter; if the waiter     4  if the place was WOKEN or GRANTED, and it has
//!     has left: reserves the permit          no permit: wakes the next waiter
//!     for the next one
//! ```
//!
//! The waiter leaves its place with a swap of the place's state, and the releaser grants with a
//! compare-exchange of the same state. So the one that comes second sees what the first did. A
//! releaser or a waiter that is killed in between leaves a reservation, and that expires.
//!
//! So waiting has a bound. A waiter that runs when it is woken waits no longer than the time after
//! which it is starving, one more release, and one turn of each waiter that came before it,
//! whatever other processes do. A waiter that is stopped, killed or late while a permit is reserved
//! for it delays the others by one reservation, once: its place is GRANTED, and so the next release
//! is not for it.

use super::Futex;
use super::eventcount::EventCount;
use super::permit::Process;
use super::places::{Place, Places, SeenPlace, Wakeup};
use super::reservation::Reservation;
use crate::mutation::rule;

/// For whom a permit was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freed {
    ForAll,
    /// For one waiter: it is reserved.
    ForOne,
}

/// The permits of a lock.
pub(crate) trait Permits {
    /// Why there is no permit to free.
    type Refused;

    /// Frees a permit. Without `next`, it is free for all. With `next`, it may be reserved: the
    /// result says so.
    fn free(&self, next: Option<Reservation>) -> Result<Freed, Self::Refused>;

    /// Reserves the permit for `next` instead, or frees it for all. False if the permit is not
    /// `reserved` any more.
    fn replace_reservation(&self, reserved: Reservation, next: Option<Reservation>) -> bool;

    /// Frees for all the permit that is reserved for this ticket. False if none is.
    fn cancel_reservation(&self, ticket: u64) -> bool;
}

/// A lock's eventcount and places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns<'a> {
    pub(crate) eventcount: EventCount<'a>,
    /// `None` for a lock whose waiters have no places.
    pub(crate) places: Option<Places<'a>>,
}

impl Turns<'_> {
    /// Wakes the first waiter, but never `own`, the caller's place.
    #[inline]
    pub(crate) fn wake_one(self, futex: &impl Futex, own: Option<&Place>) {
        self.eventcount.wake_one(futex, || self.wake_first(futex, own));
    }

    /// Wakes the first waiter that has a place, for a caller that has seen `WAITERS`. False if
    /// there is none.
    pub(crate) fn wake_first(self, futex: &impl Futex, own: Option<&Place>) -> bool {
        self.places.is_some_and(|places| places.wake_first(futex, own))
    }

    /// Frees a permit for the first waiter.
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
            // The waiter has left or died. Or its state has only changed, and it still is the
            // first.
            next = if rule("turns/the-next-waiter-follows-one-that-has-left") {
                self.next(clock)
            } else {
                return Ok(());
            };
            if !permits.replace_reservation(reserved, next.map(|next| next.reserved)) {
                // The waiter took the permit before it left.
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

    /// Ends a wait: leaves the place, and passes on what the waiter does not use. `is_starving`:
    /// the wait took too long.
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
        let wakeup = places.leave(place);
        let cancelled = wakeup == Wakeup::Granted
            && rule("turns/a-leaving-waiter-cancels-its-reservation")
            && permits.cancel_reservation(place.ticket());
        if acquired && wakeup == Wakeup::Granted && !is_starving {
            // All other waiters came later, so none of them is starving either.
            self.eventcount.end_turns(seen);
        }
        let is_unused = wakeup != Wakeup::None && !acquired;
        if cancelled || is_unused && rule("turns/a-leaving-waiter-passes-its-wake-up-on") {
            self.wake_one(futex, None);
        }
    }
}

/// The waiter that a permit is to be reserved for.
#[derive(Clone, Copy)]
struct Next<'a> {
    places: Places<'a>,
    first: SeenPlace,
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

    /// Waiters that are all awake. A waiter that is woken finds that another acquirer was faster,
    /// and waits again at once.
    struct Awake<'a> {
        turns: Turns<'a>,
        places: Vec<Place>,
        /// Their tickets, in the order in which they were woken.
        woken: RefCell<Vec<u64>>,
    }

    impl<'a> Awake<'a> {
        fn new(turns: Turns<'a>, is_starving: bool) -> Self {
            let enter = || {
                let place = turns.places.unwrap().enter(Process::new(7, 1, false)).unwrap();
                turns.eventcount.prepare_wait(WaiterFlags { has_place: true, is_starving }, None);
                place
            };
            let places = (0..NODES).map(|_| enter()).collect();
            Self { turns, places, woken: RefCell::default() }
        }
    }

    impl Futex for Awake<'_> {
        fn wait(&self, _: &AtomicU64, _: u32, _: Option<Duration>) -> Slept {
            unreachable!("nobody sleeps")
        }

        fn wake_one(&self, word: &AtomicU64) -> Woke {
            let places = self.turns.places.unwrap();
            let is_woken = |place: &&Place| {
                let before = word.load(Ordering::Relaxed);
                places.wait_again(place);
                word.load(Ordering::Relaxed) != before
            };
            let woken = self.places.iter().find(is_woken).expect("a waiter was woken");
            self.woken.borrow_mut().push(woken.ticket());
            assert!(self.woken.borrow().len() <= NODES, "a waiter was woken twice");
            Woke::Nobody
        }

        fn wake_all(&self, _: &AtomicU64) {
            unreachable!("all have places")
        }
    }

    #[test]
    fn one_wake_up_reaches_each_waiter_that_is_awake_once() {
        let words = Words::default();
        let awake = Awake::new(words.turns(), false);
        words.turns().wake_one(&awake, None);
        assert_eq!(*awake.woken.borrow(), [0, 1, 2, 3]);
    }

    #[test]
    fn releases_stay_in_turn_while_all_waiters_are_awake() {
        let words = Words::default();
        let awake = Awake::new(words.turns(), true);
        words.turns().wake_one(&awake, None);
        assert!(words.turns().eventcount.is_in_turn());
    }
}

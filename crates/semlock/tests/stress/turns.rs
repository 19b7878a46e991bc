//! Whether each waiter gets its turn in time.
//!
//! Other acquirers may pass a waiter for a while, and no longer once it is starving. So a wait
//! lasts at most the sum of these times:
//!
//! * the holds of all waiters that came earlier, and the time to wake each of them;
//! * the holds of acquirers that came soon after and were faster, until the waiter is starving and
//!   releases are in turn;
//! * for each process that dies meanwhile, the time until its death is found.
//!
//! All that with room, because the machine has few processors and may be busy. Time in which some
//! process was stopped does not count: that process may be the holder, or the waiter itself.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::arena::{Arena, Coming, PROCESSES, THREADS, Thread, now};
use crate::objects::Object;

/// All who can be before one: the other threads, and the parent.
const OTHERS: u64 = (PROCESSES * THREADS) as u64;
/// What it takes from a release until the next one runs, where one processor is for many.
const LATENCY: Duration = Duration::from_millis(5);
/// After so long a waiter is not passed over any more.
const HUNGER: Duration = Duration::from_millis(50);
/// A dead one is found after that at the latest.
const DEATH: Duration = Duration::from_secs(2);
/// So many times as long as that, on a busy machine, which once may also have something else to do
/// for so long.
const ROOM: u32 = 2;
const STALL: Duration = Duration::from_secs(1);

/// What is wrong with one that has waited for this object since then, if it has waited too long.
pub fn is_late(arena: Arena, object: Object, coming: &Coming) -> Option<String> {
    let at = match coming.at.load(SeqCst) {
        0 => return None,
        at => at,
    };
    let place = arena.place(object);
    let time = now().saturating_sub(at);
    place.longest_wait.fetch_max(time, SeqCst);
    let time = Duration::from_nanos(time);
    if time <= STALL {
        return None;
    }
    let hold = Duration::from_nanos(arena.longest_hold(object));
    let hungry = at + u64::try_from(HUNGER.as_nanos()).expect("short");
    let faster = place.arrivals(coming.arrived.load(SeqCst), hungry).unwrap_or(OTHERS);
    let before = (coming.before.load(SeqCst) + faster).min(OTHERS);
    let turns = u32::try_from((before + 1).div_ceil(object.permits())).expect("few");
    let in_turn = (turns * (hold + LATENCY) + HUNGER) * ROOM + STALL;
    if time <= in_turn {
        return None;
    }
    let stopped = arena.stopped_time().saturating_sub(coming.stopped.load(SeqCst));
    let stopped = Duration::from_nanos(stopped);
    // Of those who died a while before it came it may find one too.
    let since = at.saturating_sub(u64::try_from((DEATH * ROOM).as_nanos()).expect("short"));
    let deaths = arena.lives().filter(|(_, life)| life.died() > since).count();
    let deaths = u32::try_from(deaths).expect("few");
    let most = in_turn + stopped + DEATH * ROOM * deaths;
    // Or it has got in just now, and waits for another turn already.
    let waits_still = coming.at.load(SeqCst) == at;
    (time > most && waits_still).then(|| {
        let passed_over = place.entries.load(SeqCst) - coming.entries.load(SeqCst);
        format!(
            "has waited {time:.1?} for its turn, and {most:.1?} is the most: \
             of {before} who were there before or soon after, each has it for {hold:.1?} at most, \
             {deaths} died meanwhile or just before, and some were stopped for {stopped:.1?}; \
             {passed_over} got in meanwhile"
        )
    })
}

/// What is wrong with one of those who wait just now.
pub fn check(arena: Arena) -> Option<String> {
    let late = |thread: &Thread| {
        let waits = Object::ALL.iter().zip(&thread.coming);
        waits.into_iter().find_map(|(&object, coming)| {
            is_late(arena, object, coming).map(|what| format!("{object:?}: one {what}"))
        })
    };
    arena.living_threads().find_map(late)
}

/// The longest wait that there was, and for what.
pub fn longest(arena: Arena) -> (Duration, Object) {
    let waits = Object::ALL.iter().map(|&object| {
        (Duration::from_nanos(arena.place(object).longest_wait.load(SeqCst)), object)
    });
    waits.max_by_key(|&(time, _)| time).expect("there are objects")
}

//! Whether a holder is dead: when it is time to check, and how to check.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::mutation::rule;
use crate::os::clock;
use crate::os::process::is_dead;
use crate::word::permit::Process;
use crate::word::watch::LastCheck;

/// The time between two checks by acquirers that only try, or by waiters that signals wake all the
/// time. All of them share this interval.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Whether it is time to check, for an acquirer that does not sleep.
pub(crate) fn is_due(last_check: &AtomicU64, me: Process) -> bool {
    rule("check/by-acquirers-that-only-try") && is_my_turn(last_check, me)
}

/// Whether it is time to check, for a waiter whose sleep a signal has ended. Where signals come all
/// the time, no waiter sleeps for long enough to check as a watcher.
pub(crate) fn is_due_between_signals(last_check: &AtomicU64, me: Process) -> bool {
    rule("check/between-signals") && is_my_turn(last_check, me)
}

/// Never true for a foreign process: its turn would be lost to the processes that can check.
fn is_my_turn(last_check: &AtomicU64, me: Process) -> bool {
    me.can_be_checked() && LastCheck(last_check).is_due(clock::about_now(), PAUSE)
}

/// How long, in nanoseconds, a pid is taken to belong to the process that had it at the last check.
/// A check that also identifies the process costs several times as much.
const BELIEVED: u64 = 1_000_000_000;
/// The most processes that a cache remembers as identified.
const MOST_BELIEVED: usize = 8;

/// What one thread remembers from one wait to the next of a process that it has seen alive.
#[derive(Clone, Copy)]
struct Seen {
    process: u64,
    /// When it was identified, and when it was last alive, in nanoseconds of the clock.
    identified: u64,
    alive: u64,
}

thread_local! {
    /// The processes that this thread saw alive, the last one first.
    static SEEN: Cell<[Seen; MOST_BELIEVED]> =
        const { Cell::new([Seen { process: 0, identified: 0, alive: 0 }; MOST_BELIEVED]) };
}

/// Finds out, for one wait, which processes are dead.
pub(crate) struct LivenessCache {
    /// The process that asks.
    me: Process,
    /// The processes that it has identified, and until when each answer counts, in nanoseconds of
    /// the clock.
    believed: Vec<(Process, u64)>,
    /// A check was not possible, because this process had no descriptor left for it.
    no_descriptor: bool,
}

impl LivenessCache {
    pub(crate) fn new(me: Process) -> Self {
        Self { me, believed: Vec::new(), no_descriptor: false }
    }

    /// The same as `is_dead`, but it checks each process once: for a caller that goes through many
    /// permits or places.
    pub(crate) fn each_once(&mut self) -> impl FnMut(Process) -> bool + '_ {
        // Mostly there is one process, or the permits of each lie side by side. For one process,
        // nothing is allocated.
        let mut last: Option<(u64, bool)> = None;
        let mut others = BTreeMap::new();
        move |process| {
            let word = process.word();
            if let Some((_, dead)) = last.filter(|&(last, _)| last == word) {
                return dead;
            }
            let known = others.get(&word).copied();
            let dead = known.unwrap_or_else(|| self.is_dead(process));
            if let Some((word, dead)) = last.replace((word, dead)) {
                others.insert(word, dead);
            }
            dead
        }
    }

    /// Notes that a check was not possible, because there was no descriptor for it.
    pub(crate) fn note_no_descriptor(&mut self) {
        self.no_descriptor = true;
    }

    /// Whether a check was not possible since the last call, because there was no descriptor.
    pub(crate) fn take_no_descriptor(&mut self) -> bool {
        std::mem::take(&mut self.no_descriptor)
    }

    /// Whether it is certain that this process is dead, for a caller that asks about the same
    /// processes all the time, and can do with an answer that is `age` nanoseconds old. It
    /// remembers from one wait to the next what this thread found out: a check with identification
    /// reads several files of `/proc`, and takes longer than a wake-up.
    pub(crate) fn is_dead_or_not_seen(&mut self, process: Process, age: u64) -> bool {
        // The calling process lives.
        if process == self.me {
            return false;
        }
        let now = clock::now();
        let mut seen = SEEN.get();
        let at = seen.iter().position(|seen| seen.process == process.word());
        let known = at.map(|at| seen[at]).filter(|seen| now < seen.identified + BELIEVED);
        if known.is_some_and(|seen| now < seen.alive + age) {
            return false;
        }
        if let Some(known) = known {
            self.believed.push((process, known.identified + BELIEVED));
        }
        let dead = self.is_dead(process);
        if !dead {
            let identified = known.map_or(now, |known| known.identified);
            seen[..=at.unwrap_or(MOST_BELIEVED - 1)].rotate_right(1);
            seen[0] = Seen { process: process.word(), identified, alive: now };
            SEEN.set(seen);
        }
        dead
    }

    /// Whether it is certain that this process is dead.
    pub(crate) fn is_dead(&mut self, process: Process) -> bool {
        // In another pid namespace, pids name other processes: so a foreign process checks nobody.
        if !self.me.can_be_checked() && rule("check/not-by-foreign-processes") {
            return false;
        }
        if !process.can_be_checked() && rule("check/no-foreign-processes") {
            return false;
        }
        if process.word() == 0 {
            return false;
        }
        let now = clock::now();
        self.believed.retain(|&(_, until)| now < until);
        let identifies = !self.believed.iter().any(|&(known, _)| known.word() == process.word());
        let dead = is_dead(process.pid(), process.start(), identifies, &mut self.no_descriptor);
        if !dead && identifies && self.believed.len() < MOST_BELIEVED {
            self.believed.push((process, now + BELIEVED));
        }
        dead
    }
}

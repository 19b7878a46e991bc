//! What has to be true whenever a thread comes in or goes out.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use rustix::thread::futex;

use crate::arena::{ALIVE, Arena, DEAD, DOOMED, Deed, Life, Phase, Thread, now};
use crate::objects::Object;
use crate::turns;

/// How something was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Clean,
    /// From a holder of this pid, which died.
    OwnerDied(u32),
}

/// A thread of one of the processes, as the arena knows it.
#[derive(Clone, Copy)]
pub struct Member {
    pub arena: Arena,
    pub life: u32,
    pub number: usize,
}

impl Member {
    pub fn new(arena: Arena, life: u32, number: usize) -> Self {
        Self { arena, life, number }
    }

    pub fn thread(&self) -> &'static Thread {
        &self.arena.life(self.life).threads[self.number]
    }

    fn stamp(&self) -> u64 {
        u64::from(self.life) << 8 | (self.number as u64 + 1)
    }

    /// Notes a failure, and does nothing more.
    pub fn fail(&self, object: Object, what: &str) -> ! {
        let (life, thread) = (self.life, self.number);
        self.arena
            .note_failure(&format!("{object:?}: {what} (seen by thread {thread} of life {life})"));
        stand_still()
    }

    pub fn note(&self, object: Object, deed: Deed) {
        self.thread().note(object, deed);
    }

    pub fn set_phase(&self, object: Object, phase: Phase) {
        self.thread().set_phase(object, phase);
    }

    /// Begins to want it.
    pub fn comes(&self, object: Object) {
        if object.is_taken_in_turn() {
            self.thread().coming[object as usize].begin(self.arena, object);
        }
        self.set_phase(object, Phase::Comes);
        self.note(object, Deed::Comes);
    }

    /// Came into what one alone can hold.
    pub fn enter_alone(&self, object: Object, taken: Taken) {
        let stamp = &self.arena.place(object).stamps[0];
        match taken {
            Taken::Clean => {
                if let Err(other) = stamp.compare_exchange(0, self.stamp(), SeqCst, SeqCst) {
                    let other = self.describe(other);
                    self.fail(object, &format!("{other} is inside, whose death was not reported"));
                }
            }
            Taken::OwnerDied(pid) => {
                self.note_report(object, pid);
                let dead = stamp.load(SeqCst);
                // It may have died before it left a stamp, or after it took it away.
                if dead != 0 && self.state_of(dead) < DOOMED {
                    let (other, pid) = (self.describe(dead), pid);
                    self.fail(object, &format!("{other} is inside and lives; {pid} was reported"));
                }
                if let Err(other) = stamp.compare_exchange(dead, self.stamp(), SeqCst, SeqCst) {
                    let (dead, other) = (self.describe(dead), self.describe(other));
                    self.fail(object, &format!("{other} came in as {dead} was replaced"));
                }
            }
        }
        self.begin_change(object, taken);
        self.has_entered(object, taken);
    }

    /// About to leave what one alone can hold.
    pub fn leave_alone(&self, object: Object) {
        self.end_change(object);
        self.has_held(object);
        let place = self.arena.place(object);
        self.set_phase(object, Phase::Goes);
        place.exits.fetch_add(1, SeqCst);
        if let Err(other) = place.stamps[0].compare_exchange(self.stamp(), 0, SeqCst, SeqCst) {
            let other = self.describe(other);
            self.fail(object, &format!("{other} came in while it was held"));
        }
    }

    /// Took one of several permits.
    pub fn enter_among(&self, object: Object, permits: u32, taken: Taken) {
        if let Taken::OwnerDied(pid) = taken {
            self.note_report(object, pid);
        }
        let stamps = &self.arena.place(object).stamps[..permits as usize];
        while !stamps.iter().any(|stamp| self.takes_stamp(stamp, taken)) {
            self.check_for_one_too_many(object, stamps);
            // Others came and went, or one that is being killed just now is in the way.
            std::thread::yield_now();
        }
        self.has_entered(object, taken);
    }

    /// Whether all these are inside together, beside this thread.
    ///
    /// A thread that leaves takes its stamp away, counts its exit and releases the permit, in that
    /// order. So if no exit was counted while all stamps were read, each thread that was seen early
    /// still had its permit when the last one was seen, unless it died: then it is not alive any
    /// more when that is asked.
    fn check_for_one_too_many(&self, object: Object, stamps: &[AtomicU64]) {
        let exits = &self.arena.place(object).exits;
        let before = exits.load(SeqCst);
        let inside: Vec<_> = stamps.iter().map(|stamp| stamp.load(SeqCst)).collect();
        if exits.load(SeqCst) == before
            && inside.iter().all(|&stamp| stamp != 0 && self.state_of(stamp) == ALIVE)
        {
            let inside: Vec<_> = inside.into_iter().map(|stamp| self.describe(stamp)).collect();
            self.fail(object, &format!("one too many: inside are {}", inside.join("; ")));
        }
    }

    fn takes_stamp(&self, stamp: &AtomicU64, taken: Taken) -> bool {
        let seen = stamp.load(SeqCst);
        let is_ours = match (seen, taken) {
            (0, _) => true,
            (_, Taken::OwnerDied(pid)) if self.life_of(seen).pid.load(SeqCst) == pid => {
                self.state_of(seen) >= DOOMED
            }
            _ => self.state_of(seen) == DEAD,
        };
        is_ours && stamp.compare_exchange(seen, self.stamp(), SeqCst, SeqCst).is_ok()
    }

    /// About to give one of several permits back.
    pub fn leave_among(&self, object: Object, permits: u32) {
        self.has_held(object);
        self.set_phase(object, Phase::Goes);
        let stamps = &self.arena.place(object).stamps[..permits as usize];
        let mine =
            |stamp: &AtomicU64| stamp.compare_exchange(self.stamp(), 0, SeqCst, SeqCst).is_ok();
        if !stamps.iter().any(mine) {
            self.fail(object, "somebody took its place while it was held");
        }
        self.arena.place(object).exits.fetch_add(1, SeqCst);
    }

    /// Before anybody can have waited for its release.
    fn has_held(&self, object: Object) {
        let entered = self.thread().entered[object as usize].load(SeqCst);
        self.arena.place(object).longest_hold.fetch_max(now() - entered, SeqCst);
    }

    fn has_entered(&self, object: Object, taken: Taken) {
        let thread = self.thread();
        let coming = &thread.coming[object as usize];
        if let Some(what) = turns::is_late(self.arena, object, coming) {
            self.fail(object, &what);
        }
        coming.end();
        thread.entered[object as usize].store(now(), SeqCst);
        self.arena.place(object).entries.fetch_add(1, SeqCst);
        self.set_phase(object, Phase::Inside);
        self.note(
            object,
            match taken {
                Taken::Clean => Deed::Enters,
                Taken::OwnerDied(_) => Deed::EntersAfterDeath,
            },
        );
    }

    /// Has left: the operation is at its end.
    pub fn is_away(&self, object: Object) {
        self.set_phase(object, Phase::Away);
        self.arena.place(object).passes.fetch_add(1, SeqCst);
        self.note(object, Deed::Leaves);
    }

    /// Has got nothing.
    pub fn is_refused(&self, object: Object) {
        self.thread().coming[object as usize].end();
        self.set_phase(object, Phase::Away);
        self.note(object, Deed::IsRefused);
    }

    /// What only a death can leave half-done has begun.
    fn begin_change(&self, object: Object, taken: Taken) {
        let place = self.arena.place(object);
        let (before, after) = (place.before.load(SeqCst), place.after.load(SeqCst));
        if before != after {
            if taken == Taken::Clean {
                let what = format!("half-written ({before}, {after}), and no death was reported");
                self.fail(object, &what);
            }
            place.half_written.fetch_add(1, SeqCst);
            place.after.store(before, SeqCst);
        }
        place.before.store(before + 1, SeqCst);
    }

    fn end_change(&self, object: Object) {
        let place = self.arena.place(object);
        let after = place.after.load(SeqCst) + 1;
        place.after.store(after, SeqCst);
        let before = place.before.load(SeqCst);
        if before != after {
            let what = format!("somebody else wrote ({before}, {after}) while it was held");
            self.fail(object, &what);
        }
    }

    /// A death was reported: of one who was killed, who may have died there, and once for each
    /// of its threads that did.
    fn note_report(&self, object: Object, pid: u32) {
        if !self.is_possible_report(object, pid) {
            self.fail(
                object,
                &format!(
                    "the death of {pid} was reported, which lives, or was not there, \
                 or was reported before"
                ),
            );
        }
        self.arena.place(object).reports.fetch_add(1, SeqCst);
    }

    fn is_possible_report(&self, object: Object, pid: u32) -> bool {
        self.killed_as(pid).any(|life| {
            let possible = may_hold(life, object);
            let count = |reports| (reports < possible).then_some(reports + 1);
            life.reports[object as usize].fetch_update(SeqCst, SeqCst, count).is_ok()
        })
    }

    /// A death was reported, and is left to be reported to another.
    pub fn leave_report(&self, object: Object, pid: u32) {
        self.note_report(object, pid);
        let one_less = |reports: u8| reports.checked_sub(1);
        let taken_back = self.killed_as(pid).any(|life| {
            life.reports[object as usize].fetch_update(SeqCst, SeqCst, one_less).is_ok()
        });
        assert!(taken_back, "it was noted just now");
        self.arena.place(object).reports.fetch_sub(1, SeqCst);
    }

    /// The processes that had this pid when they were killed: usually one.
    fn killed_as(&self, pid: u32) -> impl Iterator<Item = &'static Life> {
        let lives = self.arena.lives().rev().map(|(_, life)| life);
        lives.filter(move |life| life.pid.load(SeqCst) == pid && life.state.load(SeqCst) >= DOOMED)
    }

    fn life_of(&self, stamp: u64) -> &'static Life {
        self.arena.life(u32::try_from(stamp >> 8).expect("a stamp"))
    }

    /// ALIVE for an empty place.
    fn state_of(&self, stamp: u64) -> u32 {
        if stamp == 0 { ALIVE } else { self.life_of(stamp).state.load(SeqCst) }
    }

    fn describe(&self, stamp: u64) -> String {
        if stamp == 0 {
            return "nobody".to_owned();
        }
        let (life, thread) = (self.life_of(stamp), (stamp & 0xff) - 1);
        let state = ["unborn", "alive", "doomed", "dead"][life.state.load(SeqCst) as usize];
        format!("thread {thread} of life {} (pid {:?}, {state})", stamp >> 8, life.pid)
    }
}

/// How many threads of one who does not run any more may have held something when it died.
fn may_hold(life: &Life, object: Object) -> u8 {
    let holds = |thread: &&Thread| thread.phase(object) != Phase::Away;
    u8::try_from(life.threads.iter().filter(holds).count()).expect("few threads")
}

/// Until the process is killed.
pub fn stand_still() -> ! {
    let nothing = std::sync::atomic::AtomicU32::new(0);
    loop {
        let _ = futex::wait(&nothing, futex::Flags::PRIVATE, 0, None);
    }
}

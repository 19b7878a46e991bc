//! Whether a holder is dead: when it is time to check, and how that is found out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::mutation::rule;
use crate::os::clock;
use crate::os::process::is_dead;
use crate::word::permit::Process;
use crate::word::watch::LastCheck;

/// Those who only try, and those whom signals wake all the time, look so often, all together.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// Whether it is time to judge, for one who does not sleep.
pub(crate) fn is_due(last_check: &AtomicU64, me: Process) -> bool {
    rule("check/by-those-who-try") && is_ones_turn(last_check, me)
}

/// Whether it is time to judge, for one whose sleep a signal has ended: where signals come all the time, nobody sleeps for
/// long enough to be a watcher.
pub(crate) fn is_due_between_signals(last_check: &AtomicU64, me: Process) -> bool {
    rule("check/between-signals") && is_ones_turn(last_check, me)
}

/// Never a stranger's, whose turn would be lost for those who can judge.
fn is_ones_turn(last_check: &AtomicU64, me: Process) -> bool {
    me.can_be_checked() && LastCheck(last_check).is_due(clock::about_now(), PAUSE)
}

/// So long it is believed that a number is still the process's that had it: a look that finds that out costs several times as much.
const BELIEVED: u64 = 1_000_000_000;
/// And of so many at most.
const MOST_BELIEVED: usize = 8;

/// How the deaths that matter to a wait are found out.
pub(crate) struct LivenessCache {
    /// Who asks.
    me: Process,
    /// Whom it has identified, and until when that is believed.
    believed: Vec<(Process, u64)>,
    /// There was no descriptor to look with.
    in_vain: bool,
}

impl LivenessCache {
    pub(crate) fn new(me: Process) -> Self {
        Self { me, believed: Vec::new(), in_vain: false }
    }

    /// The same, but each process is asked for once: for who looks through many permits or places.
    pub(crate) fn each_once(&mut self) -> impl FnMut(Process) -> bool + '_ {
        // Mostly there is one process, or its permits lie side by side; of one, nothing is allocated.
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

    /// Notes that something could not be checked, because there was no descriptor to check it with.
    pub(crate) fn cannot_look(&mut self) {
        self.in_vain = true;
    }

    /// Whether that was so since this was asked last.
    pub(crate) fn looked_in_vain(&mut self) -> bool {
        std::mem::take(&mut self.in_vain)
    }

    /// Whether it is certain that this process is dead.
    pub(crate) fn is_dead(&mut self, process: Process) -> bool {
        // In another namespace numbers mean others: who is a stranger there judges nobody.
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
        let dead = is_dead(process.pid(), process.start(), identifies, &mut self.in_vain);
        if !dead && identifies && self.believed.len() < MOST_BELIEVED {
            self.believed.push((process, now + BELIEVED));
        }
        dead
    }
}

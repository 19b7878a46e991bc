//! Trying for a while before sleeping.
//!
//! Where the one who will give runs on another processor, what is waited for may come sooner than the
//! kernel could put this thread to sleep and wake it again. Where it runs on *this* processor, or not at
//! all, trying keeps it from running. So who gives leaves the number of its processor (see `LastCpu`), and
//! a waiter that finds its own there sleeps at once.
//!
//! What that cannot tell is whether the other one still runs. So tries that did not pay make the next ones shorter,
//! down to none; then one in many finds out whether that has changed.

use std::hint::spin_loop;

use crate::atomic::{AtomicU64, Ordering};
use crate::os::{clock, cpu};

/// About what going to sleep and being woken costs where a processor has to be woken too, in
/// nanoseconds: on virtual machines several times what it costs where none has.
const LONGEST: u64 = 50_000;
/// Below this a try is not worth its while.
const SHORTEST: u64 = 2_000;
/// While tries do not pay, one in so many is made. It is as long as can be: where both sides sleep, the
/// answer to it comes only after a sleeper was woken.
const PROBE: u64 = 1_024;

/// How long this process tries, in nanoseconds; below `SHORTEST` it counts waits until the next probe.
/// Threads that write it at once lose nothing but a step.
static BUDGET: AtomicU64 = AtomicU64::new(LONGEST);

/// The processor that an object was last given on, plus 1; 0: none yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCpu<'a>(pub(crate) &'a AtomicU64);

impl LastCpu<'_> {
    /// Leaves the number of the processor that the calling thread runs on.
    #[inline]
    pub(crate) fn take(self) {
        if let Some(cpu) = cpu::current() {
            self.0.store(u64::from(cpu) + 1, Ordering::Relaxed);
        }
    }

    fn is_another(self) -> bool {
        let last_cpu = self.0.load(Ordering::Relaxed);
        // Where nobody can tell, trying tells.
        cpu::current().is_none_or(|cpu| last_cpu != 0 && last_cpu != u64::from(cpu) + 1)
    }
}

/// Tries again and again, if that may pay. Without a `last_cpu`, it is unknown where the releaser
/// runs.
pub(crate) fn try_for_a_while<T>(
    last_cpu: Option<LastCpu<'_>>,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let may_pay = || last_cpu.is_none_or(LastCpu::is_another);
    if !cpu::are_several() || !may_pay() {
        return None;
    }
    let budget = BUDGET.load(Ordering::Relaxed);
    if budget < SHORTEST {
        let next = if budget + 1 < PROBE { budget + 1 } else { LONGEST };
        BUDGET.store(next, Ordering::Relaxed);
        return None;
    }
    let end = clock::now() + budget;
    loop {
        for _ in 0..8 {
            spin_loop();
            if let Some(got) = attempt() {
                BUDGET.store(LONGEST, Ordering::Relaxed);
                return Some(got);
            }
        }
        // Who moves to this processor cannot run before we sleep.
        if clock::now() >= end || !may_pay() {
            let less = budget / 4;
            BUDGET.store(if less < SHORTEST { 0 } else { less }, Ordering::Relaxed);
            return None;
        }
    }
}

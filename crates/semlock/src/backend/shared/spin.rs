//! Trying for a while before sleeping.
//!
//! Where the releaser runs on another processor, it may release sooner than the kernel could put
//! the waiter to sleep and wake it again. Where the releaser runs on *this* processor, or not at
//! all, trying keeps it from running. So the releaser stores the number of its processor (see
//! `LastCpu`), and a waiter that finds the number of its own processor there sleeps at once.
//!
//! The number does not say whether the releaser still runs. So each try that did not pay makes the
//! next one shorter, until there is none. Then one wait in many tries again, to find out whether
//! trying pays again.

use std::hint::spin_loop;

use crate::atomic::{AtomicU64, Ordering};
use crate::os::{clock, cpu, thread};
use crate::word::low;
use crate::word::permit::Process;
use crate::{Deadline, Wait};

/// About what a sleep and a wake-up cost where a processor has to be woken too, in nanoseconds. On
/// virtual machines this is several times the cost without that.
const LONGEST: u64 = 50_000;
/// A shorter try does not pay, in nanoseconds.
const SHORTEST: u64 = 2_000;

/// How long this process tries when it waits for one kind of thing.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In nanoseconds. Below `SHORTEST` it counts the waits since the last try. Threads that write
    /// it at the same time lose one step at most.
    now: AtomicU64,
    /// While tries do not pay, one wait in so many tries. It tries for the longest time: where both
    /// sides sleep, the releaser can answer only after it was woken.
    probe: u64,
}

impl Budget {
    const fn new(probe: u64) -> Self {
        Self { now: AtomicU64::new(LONGEST), probe }
    }
}

/// For locks.
pub(crate) static LOCKS: Budget = Budget::new(1_024);
/// For a channel's messages, and room for them. Whoever waits for these has often waited for long
/// in vain, because nobody sent anything, and then they come one after the other: so it tries again
/// soon.
pub(crate) static MESSAGES: Budget = Budget::new(64);
/// For events. Whoever waits for one has often waited for long in vain, and then it is set again
/// and again: so it tries again soon.
pub(crate) static EVENTS: Budget = Budget::new(64);
/// For notifications of conditions: as for events.
pub(crate) static CONDITIONS: Budget = Budget::new(64);
/// For the other members of a barrier: as for events.
pub(crate) static BARRIERS: Budget = Budget::new(64);
/// For a barrier's own lock, which is held for moments.
pub(crate) static BARRIER_LOCKS: Budget = Budget::new(64);

/// The processor that an object was released on last, plus 1; 0: none yet. For a mutex it is the
/// processor that the holder acquired it on. An event is
/// released when it is set, a condition when it is notified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCpu<'a>(pub(crate) &'a AtomicU64);

impl LastCpu<'_> {
    /// Stores the number of the processor that the calling thread runs on.
    #[inline]
    pub(crate) fn take(self) {
        if let Some(cpu) = cpu::current() {
            self.0.store(u64::from(cpu) + 1, Ordering::Relaxed);
        }
    }

    /// The same, with the calling process's pid in the upper half.
    pub(crate) fn take_as(self, me: Process) {
        if let Some(cpu) = cpu::current() {
            self.0.store(u64::from(me.pid()) << 32 | (u64::from(cpu) + 1), Ordering::Relaxed);
        }
    }

    /// `None` if the calling process was the last releaser. It waits for another one, which may run
    /// anywhere.
    pub(crate) fn of_another(self, me: Process) -> Option<Self> {
        (self.0.load(Ordering::Relaxed) >> 32 != u64::from(me.pid())).then_some(self)
    }

    fn is_another(self) -> bool {
        let last_cpu = low(self.0.load(Ordering::Relaxed));
        // Where the processor is unknown, trying shows whether it pays.
        cpu::current().is_none_or(|cpu| last_cpu != 0 && last_cpu != cpu + 1)
    }
}

/// Tries again and again, if that may pay. Without a `last_cpu`, it is unknown where the releaser
/// runs.
pub(crate) fn try_for_a_while<T>(
    budget: &Budget,
    last_cpu: Option<LastCpu<'_>>,
    mut attempt: impl FnMut() -> Option<T>,
) -> Option<T> {
    let may_pay = || last_cpu.is_none_or(LastCpu::is_another);
    if cpu::count() == 1 || !may_pay() {
        return None;
    }
    let Budget { now, probe } = budget;
    let time = now.load(Ordering::Relaxed);
    if time < SHORTEST {
        now.store(if time + 1 < *probe { time + 1 } else { LONGEST }, Ordering::Relaxed);
        return None;
    }
    let end = clock::now() + time;
    loop {
        for _ in 0..8 {
            spin_loop();
            if let Some(got) = attempt() {
                now.store(LONGEST, Ordering::Relaxed);
                return Some(got);
            }
        }
        // If the releaser has moved to this processor, it cannot run before this thread sleeps.
        if clock::now() >= end || !may_pay() {
            let less = time / 4;
            now.store(if less < SHORTEST { 0 } else { less }, Ordering::Relaxed);
            return None;
        }
    }
}

/// Tries before the first sleep of a wait whose caller has to run signals' handlers. `None`: the
/// caller sleeps now. [`Wait::Interrupted`]: it tried in vain, in the process's first thread. A
/// signal that arrived meanwhile interrupts no sleep, so the caller runs the handlers first.
pub(crate) fn try_before_a_sleep(
    budget: &Budget,
    last_cpu: Option<LastCpu<'_>>,
    deadline: Deadline,
    is_over: impl Fn() -> bool,
) -> Option<Wait> {
    // A wait that is as short as this ends on time.
    if deadline.remaining().is_some_and(|left| left.as_nanos() < u128::from(LONGEST)) {
        return None;
    }
    let mut tried = false;
    let over = try_for_a_while(budget, last_cpu, || {
        tried = true;
        is_over().then_some(())
    });
    match over {
        Some(()) => Some(Wait::Acquired),
        None => (tried && thread::is_first()).then_some(Wait::Interrupted),
    }
}

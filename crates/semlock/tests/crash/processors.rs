//! Processors: a waiter that has two spins before it sleeps.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Those that this process may run on.
pub fn allowed() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("sched_getaffinity");
    (0..CpuSet::MAX_CPU).filter(|&it| allowed.is_set(it)).collect()
}

/// Makes this process, and those that it forks, run on these alone.
pub fn stay_on(processors: &[usize]) {
    let mut these = CpuSet::new();
    for &processor in processors {
        these.set(processor);
    }
    sched_setaffinity(None, &these).expect("sched_setaffinity");
}

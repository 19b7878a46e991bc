//! Processors.

use std::num::NonZeroUsize;

use once_cell::race::OnceNonZeroUsize;
use rustix::thread::{sched_getaffinity, sched_getcpu};

/// The processor that the calling thread runs on, counted from 0.
///
/// The kernel keeps it in an area of each thread that the C library registers (`rseq(2)`; glibc
/// since 2.35). Reading it is one load. Without that area this calls `getcpu(2)`, which takes ten
/// times as long.
#[inline]
pub(crate) fn current() -> Option<u32> {
    #[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
    {
        let offset = rseq_offset();
        if offset != 0 {
            let cpu: u32;
            // SAFETY: reads `cpu_id` of this thread's `struct rseq`, which lies at that distance
            // from the thread pointer (`__rseq_offset(3)`), and touches nothing else.
            unsafe {
                std::arch::asm!(
                    "mov {0:e}, dword ptr fs:[{1} + 4]",
                    out(reg) cpu,
                    in(reg) offset,
                    options(readonly, nostack, preserves_flags)
                );
            }
            // A negative number means that the area is not registered.
            if cpu < NOT_REGISTERED {
                return Some(cpu);
            }
        }
    }
    ask()
}

#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
const NOT_REGISTERED: u32 = u32::MAX - 1;

#[cold]
fn ask() -> Option<u32> {
    u32::try_from(sched_getcpu()).ok()
}

/// How far from the thread pointer `struct rseq` lies; 0 where there is none.
#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(miri)))]
#[inline]
fn rseq_offset() -> isize {
    use crate::atomic::{AtomicIsize, Ordering};
    use crate::os::posix::symbol::symbol;

    /// 1: not looked up yet. (An offset is a multiple of 32.)
    static OFFSET: AtomicIsize = AtomicIsize::new(1);

    #[cold]
    fn look_up() -> isize {
        let offset = match (symbol(c"__rseq_offset"), symbol(c"__rseq_size")) {
            (Some(offset), Some(size)) => {
                // SAFETY: both are objects of these types where they exist. They are set before any
                // code of ours runs, and never after.
                let (offset, size) =
                    unsafe { (*offset.cast().as_ref(), *size.cast::<u32>().as_ref()) };
                // A size of 0 means that it is not registered.
                if size == 0 { 0 } else { offset }
            }
            _ => 0,
        };
        OFFSET.store(offset, Ordering::Relaxed);
        offset
    }

    match OFFSET.load(Ordering::Relaxed) {
        1 => look_up(),
        offset => offset,
    }
}

/// On how many processors this process may run.
pub(crate) fn count() -> usize {
    static COUNT: OnceNonZeroUsize = OnceNonZeroUsize::new();
    let ask = || {
        let count = sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
    };
    COUNT.get_or_init(ask).get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::{CpuSet, sched_setaffinity};

    #[test]
    fn a_thread_that_is_bound_to_a_processor_runs_there() {
        std::thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(8) {
                let mut one = CpuSet::new();
                one.set(cpu);
                sched_setaffinity(None, &one).unwrap();
                let cpu = u32::try_from(cpu).ok();
                assert_eq!((current(), ask()), (cpu, cpu));
            }
        })
        .join()
        .unwrap();
    }
}

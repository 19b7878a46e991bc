//! The identity of this process, and whether another process is dead.

use once_cell::race::OnceBox;
use rustix::process::{Pid, getpid};

use super::mapping::Memory;
use crate::atomic::{AtomicU64, Ordering};
use crate::mutation::rule;
use crate::os::system::process::{self, read_identity};

/// What names a process, and where its name means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// When it began, in the system's units, of which these are the lowest [`START_BITS`]; 0 where
    /// that is unknown.
    pub(crate) start: u64,
    pub(crate) namespaces: Namespaces,
}

/// So many bits of a start time are kept and compared.
pub(crate) const START_BITS: u32 = 40;

/// The namespaces in which pids and times mean something: all who share one have the same number. A
/// pid namespace of 0 is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Namespaces {
    pub(crate) pid: u64,
    pub(crate) time: u64,
}

/// The calling process. It is read once in each process, because a forked child finds this page
/// wiped. Where the kernel wipes nothing, the pid is checked each time: a child may call this
/// before the handler that wipes runs (see `wipe_on_fork`).
///
/// Several threads may read it at the same time, and differ: one may have no descriptor left to
/// read with. The first answer that is noted stays. Until then, each thread uses its own.
pub(crate) fn identity() -> Identity {
    // Not a `OnceLock`: a child that is forked while a thread is initialising it waits forever.
    static PAGE: OnceBox<Option<Memory>> = OnceBox::new();
    let page = PAGE.get_or_init(|| Box::new(Memory::wipe_on_fork(NOTED_WORDS).ok()));
    let Some(noted) = page.as_ref().and_then(|page| Noted::in_words(page.words())) else {
        return read_identity();
    };
    let wiped = page.as_ref().is_some_and(Memory::is_wiped_by_the_kernel);
    let me = || getpid().as_raw_pid().cast_unsigned();
    match noted.get() {
        Some(known) if wiped || known.pid == me() => return known,
        // It is the parent's.
        Some(_) => noted.forget(),
        None => {}
    }
    let found = read_identity();
    noted.note(found);
    found
}

/// Where an identity is noted.
///
/// ```text
///  word 0      0: nothing is noted   1: a thread is writing   2: all is noted
///       1      pid
///       2      start
///       3, 4   namespaces
/// ```
#[derive(Clone, Copy, Debug)]
struct Noted<'a> {
    state: &'a AtomicU64,
    fields: [&'a AtomicU64; 4],
}

const NOTED_WORDS: usize = 5;

impl<'a> Noted<'a> {
    const NOTHING: u64 = 0;
    const WRITING: u64 = 1;
    const ALL: u64 = 2;

    fn in_words(words: &'a [AtomicU64]) -> Option<Self> {
        let [state, fields @ ..] = words.first_chunk::<NOTED_WORDS>()?;
        Some(Self { state, fields: fields.each_ref() })
    }

    fn get(self) -> Option<Identity> {
        if self.state.load(Ordering::Acquire) != Self::ALL {
            return None;
        }
        let [pid, start, pid_namespace, time_namespace] =
            self.fields.map(|field| field.load(Ordering::Relaxed));
        let namespaces = Namespaces { pid: pid_namespace, time: time_namespace };
        Some(Identity { pid: u32::try_from(pid).unwrap_or(0), start, namespaces })
    }

    /// Notes an identity, if none is noted. No thread waits for the one that writes: a child that
    /// is forked meanwhile, where the kernel does not wipe this, might wait forever.
    fn note(self, found: Identity) {
        let (nothing, writing) = (Self::NOTHING, Self::WRITING);
        let claimed =
            self.state.compare_exchange(nothing, writing, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_ok() {
            let Namespaces { pid, time } = found.namespaces;
            let values = [found.pid.into(), found.start, pid, time];
            for (field, value) in self.fields.iter().zip(values) {
                field.store(value, Ordering::Relaxed);
            }
            self.state.store(Self::ALL, Ordering::Release);
        }
    }

    fn forget(self) {
        let (all, nothing) = (Self::ALL, Self::NOTHING);
        let _ = self.state.compare_exchange(all, nothing, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether the process with this pid and start time, in the caller's namespaces, is certainly dead.
/// A start of 0 is unknown.
///
/// Unless the caller `identifies` the process, this may take any process that has the pid for it,
/// if that is less work. A process whose state is unknown counts as alive. `no_descriptor` becomes
/// true if the state is unknown because the caller has no descriptor left to check with.
pub(crate) fn is_dead(pid: u32, start: u64, identifies: bool, no_descriptor: &mut bool) -> bool {
    let me = identity();
    if pid == me.pid {
        // If its pid is mine, it is dead.
        return rule("check/my-own-pid") && start != 0 && me.start != 0 && start != me.start;
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| process::is_dead(pid, start, identifies, no_descriptor))
}

/// What the system says about the process that has a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // each system gives its own answers
pub(crate) enum ProcessState {
    /// No process has this pid.
    NoSuchProcess,
    /// It has ended, and its parent has not waited for it yet.
    Zombie,
    /// It lives, and began then; 0 where that is unknown.
    Alive { start: u64 },
    /// The answer proves nothing.
    Unknown,
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::Barrier;
    use std::thread;

    use super::super::pids::is_dead_by_pid;
    use super::*;
    use crate::os::system::process::query;

    /// When the process with this pid began.
    fn start_of(pid: u32) -> u64 {
        match query(Pid::from_raw(pid.cast_signed()).unwrap()) {
            ProcessState::Alive { start } if start != 0 => start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_process_has_the_identity_that_others_see() {
        let me = identity();
        assert_eq!((me.pid, me.start), (std::process::id(), start_of(std::process::id())));
        assert!(me.start < 1 << START_BITS && me.namespaces.pid != 0);
    }

    /// What `identity` needs of it: a forked child must not wait for a thread of its parent.
    #[test]
    fn two_threads_that_initialise_a_once_box_agree_and_neither_waits() {
        static CELL: OnceBox<u32> = OnceBox::new();
        let (begun, initialised) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let late = CELL.get_or_init(|| {
                    begun.wait();
                    initialised.wait();
                    Box::new(1)
                });
                assert_eq!(*late, 2);
            });
            begun.wait();
            assert_eq!(*CELL.get_or_init(|| Box::new(2)), 2);
            initialised.wait();
        });
        assert_eq!(*CELL.get_or_init(|| Box::new(3)), 2);
    }

    #[test]
    fn of_several_answers_about_a_process_the_first_stays() {
        let words = [const { AtomicU64::new(0) }; NOTED_WORDS];
        let noted = Noted::in_words(&words).unwrap();
        let first = Identity { start: 0, ..identity() };
        assert_eq!(noted.get(), None);
        noted.note(first);
        noted.note(Identity { start: 5, ..first });
        assert_eq!(noted.get(), Some(first));
        noted.forget();
        assert_eq!(noted.get(), None);
        noted.note(Identity { start: 5, ..first });
        assert_eq!(noted.get().map(|noted| noted.start), Some(5));
    }

    #[test]
    fn a_process_that_ended_is_dead_before_and_after_somebody_waits_for_it() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let (pid, start) = (child.id(), start_of(child.id()));
        let child_pid = Pid::from_child(&child);
        let is_dead = |pid, start| super::is_dead(pid, start, true, &mut false);
        assert!(!is_dead(pid, start) && !is_dead_by_pid(child_pid, start));
        child.kill().unwrap();
        // It stays a zombie.
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(child_pid), options).unwrap();
        assert!(is_dead(pid, start));
        assert!(is_dead_by_pid(child_pid, start));
        child.wait().unwrap();
        assert!(is_dead(pid, start));
        assert!(is_dead_by_pid(child_pid, start));
    }

    #[test]
    fn a_process_whose_pid_another_process_has_is_dead() {
        let me = identity();
        let is_dead = |pid, start| super::is_dead(pid, start, true, &mut false);
        assert!(!is_dead(me.pid, me.start));
        assert!(is_dead(me.pid, me.start + 1));
        // The system is asked about the parent.
        let parent = std::os::unix::process::parent_id();
        let start = start_of(parent);
        assert!(!is_dead(parent, start));
        assert!(is_dead(parent, start - 1));
        assert!(!is_dead(parent, 0));
        let pid = Pid::from_raw(parent.cast_signed()).unwrap();
        assert!(!is_dead_by_pid(pid, start));
        assert!(is_dead_by_pid(pid, start - 1));
        assert!(!is_dead_by_pid(pid, 0));
    }
}

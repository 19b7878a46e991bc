//! The scenarios: a call, the peers that are there when it is made, and what has to hold
//! afterwards.

mod barrier;
mod channel;
mod condvar;
mod counting;
mod event;
mod forked;
mod memory;
mod mutex;
mod semaphore;
mod spinning;
mod stopped;

use std::fmt;
use std::time::Duration;

use semlock::{Acquired, Deadline, Wait};

use crate::tracer::Tracer;

#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub end: End,
    /// Its call spins before it sleeps, because the holder is on another processor.
    pub spins: bool,
    pub play: fn(&Tracer),
}

/// What happens to the tracee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Killed,
    Stopped,
    Forked,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Killed => "kill points",
            Self::Stopped => "stops",
            Self::Forked => "forks",
        })
    }
}

pub fn all() -> Vec<Scenario> {
    let killed = [
        mutex::SCENARIOS,
        semaphore::SCENARIOS,
        condvar::SCENARIOS,
        event::SCENARIOS,
        barrier::SCENARIOS,
        channel::SCENARIOS,
        counting::SCENARIOS,
        memory::SCENARIOS,
    ]
    .concat();
    let of = |scenarios: &[Named], end, spins| {
        let scenario = |&(name, play)| Scenario { name, end, spins, play };
        scenarios.iter().map(scenario).collect::<Vec<_>>()
    };
    [
        of(&killed, End::Killed, false),
        of(spinning::KILLED, End::Killed, true),
        of(stopped::SCENARIOS, End::Stopped, false),
        of(spinning::STOPPED, End::Stopped, true),
        of(forked::SCENARIOS, End::Forked, false),
    ]
    .concat()
}

type Named = (&'static str, fn(&Tracer));

/// What an acquirer was told: 0, or the pid of the owner that died.
type Told = u32;

fn told<G>(acquired: &Acquired<G>) -> Told {
    match acquired {
        Acquired::Clean(_) => 0,
        Acquired::OwnerDied(_, pid) => *pid,
    }
}

fn told_by(wait: Wait) -> Option<Told> {
    match wait {
        Wait::Acquired => Some(0),
        Wait::OwnerDied(pid) => Some(pid),
        Wait::TimedOut | Wait::Interrupted => None,
    }
}

/// A deadline that passes while the tracee is stepped.
fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(2))
}

/// A deadline that does not: the tracer ends before.
fn in_an_hour() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

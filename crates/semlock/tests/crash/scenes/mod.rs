//! What is played: a call, those who are there when it is made, and what has to be so afterwards.

mod barrier;
mod condvar;
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

use crate::stage::Stage;

#[derive(Clone, Copy)]
pub struct Scene {
    pub name: &'static str,
    pub end: End,
    /// Its call tries for a while before it sleeps, because who holds what it wants is on another processor.
    pub spins: bool,
    pub play: fn(&Stage),
}

/// What happens to the one whose call it is.
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

pub fn all() -> Vec<Scene> {
    let killed = [
        mutex::SCENES,
        semaphore::SCENES,
        condvar::SCENES,
        event::SCENES,
        barrier::SCENES,
        memory::SCENES,
    ]
    .concat();
    let of = |scenes: &[Named], end, spins| {
        let scene = |&(name, play)| Scene { name, end, spins, play };
        scenes.iter().map(scene).collect::<Vec<_>>()
    };
    [
        of(&killed, End::Killed, false),
        of(spinning::KILLED, End::Killed, true),
        of(stopped::SCENES, End::Stopped, false),
        of(spinning::STOPPED, End::Stopped, true),
        of(forked::SCENES, End::Forked, false),
    ]
    .concat()
}

type Named = (&'static str, fn(&Stage));

/// What one who took a permit was told: 0, or the pid of the owner that died.
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

/// A deadline that passes while the one who waits is stepped.
fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(2))
}

/// A deadline that does not: the stage ends before.
fn in_an_hour() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

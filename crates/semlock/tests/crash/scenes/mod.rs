//! What is played: a call, those who are there when it is made, and what has to be so afterwards.

mod barrier;
mod condvar;
mod event;
mod memory;
mod mutex;
mod semaphore;

use std::time::Duration;

use semlock::{Acquired, Deadline, Wait};

use crate::stage::Stage;

pub struct Scene {
    pub name: &'static str,
    pub play: fn(&Stage),
}

pub fn all() -> Vec<Scene> {
    [
        mutex::SCENES,
        semaphore::SCENES,
        condvar::SCENES,
        event::SCENES,
        barrier::SCENES,
        memory::SCENES,
    ]
    .concat()
    .into_iter()
    .map(|(name, play)| Scene { name, play })
    .collect()
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

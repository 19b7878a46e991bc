//! Stress: 16 processes of three threads each use a handful of objects of every kind. They are
//! stopped and killed at random, and a fresh process takes the place of each dead one. A checker in
//! memory that all of them share checks everything that they get, and a watchdog what they do not
//! get.
//!
//! What has to hold, whoever dies where:
//!
//! * What one alone can hold, one alone holds. A stamp is there from the entry to the exit. A
//!   thread that finds another's stamp was told of a death, and the other was killed. What is
//!   changed inside is never found half-written without such a report.
//! * A death is reported to one that comes next, and only a death is: of a process that was killed,
//!   once for each of its threads that may have been inside. Between taking and stamping, and
//!   between taking the stamp away and giving back, both are right.
//! * A robust semaphore never has more or fewer permits than it was made with. Of a plain one those
//!   of the dead are lost, and no others.
//! * A notification reaches one of those that waited when it was given, as long as one of them
//!   lives, and it wakes no more than it says. A thread that waited when the event was set gets
//!   through. At the barrier all get through together or none does, and none waits for the dead.
//! * A message is received once at most, whole, and after all that its sender sent before, as far
//!   as one receiver sees them. Those that were sent are received, but for one for each thread that
//!   died in a call of the channel.
//! * Every thread gets on, and every object.
//! * Every waiter gets its turn in time: a wait ends within what follows from how many can be
//!   before it and how long they hold, and from how many died meanwhile. (See `turns`.)
//!
//! The last one says little where things are held for microseconds and processes die all the time.
//! So there is a second test, in which all hold things for long and wait for long: first none dies,
//! then one now and then. None is stopped there.
//!
//! Half of those that are to die are told at which object and after how many microseconds, and die
//! by a timer, at whatever instruction they have come to. The others are killed from outside,
//! wherever they are.
//!
//! The seed decides which processes the parent stops and kills and after how many operations, and
//! what each thread does. How the kernel mixes these does not repeat: the same seed makes the same
//! choices, and not the same run.
//!
//! ```text
//! cargo test -p semlock --test stress -- [--seed N] [--kills N] [--seconds N] [--full] [NAME]
//! ```
#![allow(unsafe_code)]
#![cfg_attr(not(target_os = "linux"), allow(unused))]

#[cfg(target_os = "linux")]
mod arena;
#[cfg(target_os = "linux")]
mod checker;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // other tests use other parts of it
#[path = "../forked/mod.rs"]
mod forked;
#[path = "../harness/mod.rs"]
#[allow(dead_code)] // other tests use other parts of it
mod harness;
#[cfg(target_os = "linux")]
mod messages;
#[cfg(target_os = "linux")]
mod objects;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod turns;
#[cfg(target_os = "linux")]
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::harness::Harness;

/// Kills and stops processes at random, with a checker in their midst.
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    harness: Harness,
    /// The choices of another run again [default: at random]
    #[arg(long, value_name = "N", value_parser = number)]
    seed: Option<u64>,
    /// How many processes are killed [default: 200, or 10,000 with --full]
    #[arg(long, value_name = "N", value_parser = number)]
    kills: Option<u64>,
    /// How long each half of the second test takes [default: 8, or 60 with --full]
    #[arg(long, value_name = "N", value_parser = number)]
    seconds: Option<u64>,
    /// For long, and not a sample.
    #[arg(long)]
    full: bool,
}

fn number(text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "").parse().map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use crate::harness::Notes;

    let CommandLine { harness, seed, kills, seconds, full } = CommandLine::parse();
    // Short enough to be typed again.
    let seed = seed.unwrap_or_else(|| fastrand::u32(..).into());
    let kills = kills.unwrap_or(if full { 10_000 } else { 200 });
    let seconds = seconds.unwrap_or(if full { 60 } else { 8 });
    let notes = Notes::default();
    let code = harness.run_without_threads(run::tests(seed, kills, seconds, &notes));
    notes.print();
    code
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    CommandLine::parse().harness.run_without_threads(Vec::new())
}

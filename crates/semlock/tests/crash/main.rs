//! Kills, stops or forks a process after each instruction of a call, and sees that the others get
//! on.
//!
//! A *scenario* is a call, and the processes that are there when it is made. For each scenario and
//! each k a *tracer* is forked: a process that makes the objects, lets peers hold them or sleep on
//! them, and forks the *tracee*, which is to die. The tracee stops before its call, is
//! single-stepped (`ptrace(2)`) through k instructions of it, and is killed. Every other tracee is
//! reaped; the rest stay zombies. After that, fresh processes see that everything works: the
//! scenario says what has to hold. A scenario ends when the call has returned for several k in a
//! row, after as many as it took when nobody was killed.
//!
//! In other scenarios the tracee is not killed, but stays stopped until the others have done
//! something, and then goes on. Nobody is dead then, so nobody may be left behind, and all have to
//! agree on what has happened.
//!
//! In further ones another thread of the tracee forks while it is stopped. The child works as any
//! process does, and its parent's call ends as if there were no child. (Where the tracee has a lock
//! of the C library's allocator, which the fork waits for, it goes on until there is the child.)
//!
//! A system call is one step. One that sleeps is left to sleep, and then there are two deaths: one
//! asleep and one just after (or two stops, or forks). What lets it go on is part of the scenario.
//!
//! ```text
//! cargo test --test crash                        a sample: before and after each atomic change and
//!                                                system call, and some between
//! cargo test --release --test crash -- --full    every one
//! cargo test --test crash -- acquire/ --at 317   one, as a failure named it
//! ```
//!
//! (The number of instructions differs from build to build, and a little from run to run, because
//! some of them read the clock. To keep the difference small, each tracer has one processor,
//! because a waiter that has two spins before it sleeps. There are scenarios for spinning too, in
//! which the holder is on a second processor; where there is none, they are left out.)

// Forks and ptrace.
#![allow(unsafe_code)]
#![cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(unused))]

#[allow(dead_code)] // other tests use other parts of it
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../forked/mod.rs"]
mod forked;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod forker;
#[path = "../harness/mod.rs"]
#[allow(dead_code)] // other tests use other parts of it
mod harness;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod outcomes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod peer;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod processors;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod run;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod scenarios;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer;

use std::process::ExitCode;

use clap::Parser;

use crate::harness::Harness;

/// Kills, stops or forks a process after each instruction of a call.
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    harness: Harness,
    /// Every instruction, and not a sample of them.
    #[arg(long)]
    full: bool,
    /// Only after so many instructions.
    #[arg(long, value_name = "K")]
    at: Option<u64>,
    /// With `--at`, where that instruction sleeps: after it.
    #[arg(long, requires = "at")]
    past: bool,
    /// How many tracers run at once. Most of the time they wait.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    use std::sync::{Arc, OnceLock};

    use libtest_mimic::{Completion, Trial};

    use crate::outcomes::Outcomes;
    use crate::run::Choice;
    use crate::scenarios::Scenario;
    use crate::tracer::Until;

    let arguments = CommandLine::parse();
    let choice = match arguments.at {
        Some(at) if arguments.past => Choice::One(Until::Past(at)),
        Some(at) => Choice::One(Until::After(at)),
        None if arguments.full => Choice::All,
        None => Choice::Sample,
    };
    let can_spin = processors::allowed().len() > 1;
    let can_play = |scenario: &Scenario| can_spin || !scenario.spins;
    let outcomes: Arc<OnceLock<Outcomes>> = Arc::default();
    let test = |scenario: Scenario| {
        let outcomes = Arc::clone(&outcomes);
        let can_play = can_play(&scenario);
        let test = move || {
            if !can_play {
                return Ok(Completion::ignored_with("it needs a second processor"));
            }
            let outcomes = outcomes.get().expect("it was started with this scenario");
            outcomes.wait_for(scenario.name).map(|()| Completion::Completed)
        };
        (scenario, Trial::ignorable_test(scenario.name, test))
    };
    let tests: Vec<_> = scenarios::all().into_iter().map(test).collect();
    let played = tests.iter().filter(|(scenario, test)| {
        !arguments.harness.lists() && can_play(scenario) && arguments.harness.selects(test)
    });
    let played: Vec<_> = played.map(|&(scenario, _)| scenario).collect();
    if !played.is_empty() {
        let jobs = usize::try_from(arguments.jobs).unwrap_or(1);
        let _ = outcomes.set(Outcomes::start(played, &choice, jobs));
    }
    let tests = tests.into_iter().map(|(_, test)| test).collect();
    let code = arguments.harness.run_on_threads(tests);
    if let Some(outcomes) = outcomes.get() {
        outcomes.print_totals();
    }
    code
}

/// Only Linux on x86-64 can single-step a call.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    CommandLine::parse().harness.run_on_threads(Vec::new())
}

//! Kills, stops or forks a process after each instruction of a call, and sees that the others get on.
//!
//! A *scenario* is a call, and the processes that are there when it is made. For each scenario and each
//! k a *tracer* is forked: a process that makes the objects, lets peers hold them or sleep on them, and
//! forks the *tracee*, which is to die. The tracee stops before its call, is single-stepped
//! (`ptrace(2)`) through k instructions of it, and is killed. Every other tracee is reaped; the rest
//! stay zombies. After that, fresh processes see that everything works: the scenario says what has to
//! hold. A scenario ends when the call has returned for several k in a row, after as many as it took
//! when nobody was killed.
//!
//! In other scenarios the tracee is not killed, but stays stopped until the others have done something,
//! and then goes on. Nobody is dead then, so nobody may be left behind, and all have to agree on what
//! has happened.
//!
//! In further ones another thread of the tracee forks while it is stopped. The child works as any
//! process does, and its parent's call ends as if there were no child. (Where the tracee has a lock of
//! the C library's allocator, which the fork waits for, it goes on until there is the child.)
//!
//! A system call is one step. One that sleeps is left to sleep, and then there are two deaths: one
//! asleep and one just after (or two stops, or forks). What lets it go on is part of the scenario.
//!
//! ```text
//! cargo test --test crash                        a sample: before and after each atomic change and system call, and some between
//! cargo test --release --test crash -- --full    every one
//! cargo test --test crash -- acquire/ --at 317   one, as a failure named it
//! ```
//!
//! (The number of instructions differs from build to build, and a little from run to run, because some
//! of them read the clock. To keep the difference small, each tracer has one processor, because a
//! waiter that has two spins before it sleeps. There are scenarios for spinning too, in which the
//! holder is on a second processor; where there is none, they are left out.)

// Forks and ptrace.
#![allow(unsafe_code)]
#![cfg_attr(not(all(target_os = "linux", target_arch = "x86_64")), allow(unused))]

#[allow(dead_code)] // other tests use other parts of it
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../forked/mod.rs"]
mod forked;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod forker;
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

/// Kills, stops or forks a process after each instruction of a call.
#[derive(Parser)]
struct Arguments {
    /// Only scenarios whose names contain this.
    only: Option<String>,
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
    /// Prints the scenarios' names.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    _as_any_test: AsAnyTest,
}

/// What `cargo test` hands to every test program, and means nothing here.
#[derive(clap::Args)]
struct AsAnyTest {
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    format: Option<String>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let only = arguments.only.as_deref().unwrap_or("");
    let scenarios: Vec<_> =
        scenarios::all().into_iter().filter(|scenario| scenario.name.contains(only)).collect();
    if arguments.list {
        for scenario in scenarios {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    let choice = match arguments.at {
        Some(at) if arguments.past => run::Choice::One(tracer::Until::Past(at)),
        Some(at) => run::Choice::One(tracer::Until::After(at)),
        None if arguments.full => run::Choice::All,
        None => run::Choice::Sample,
    };
    run::run(scenarios, &choice, usize::try_from(arguments.jobs).unwrap_or(1))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    Arguments::parse();
    println!("kill points: only on Linux on x86-64, where a call can be single-stepped");
    ExitCode::SUCCESS
}

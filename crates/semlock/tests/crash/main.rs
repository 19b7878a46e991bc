//! Kills, stops or forks a process after each instruction of a call, and sees that the others get on.
//!
//! For each scene (a call, and those who are there when it is made) and each k there is a *stage*: a process
//! that makes the objects, has others hold them or sleep on them, and forks the one that is to die. That one stops
//! before its call, is single-stepped (`ptrace(2)`) through k instructions of it, and is killed; every other one is
//! reaped, the others stay zombies. After that, fresh processes see that everything works: the scene says what has to be so.
//! It ends when the call has returned for several k in a row, after as many as it took when nobody was killed.
//!
//! In other scenes it is not killed, but left stopped until the others have done something, and then goes on: nobody is
//! dead then, so that nobody may be left behind, and all have to agree on what has happened.
//!
//! And in others another thread of it forks while it is stopped: the child is somebody else, and works as any process does, and
//! its parent's call ends as if there were no child. (Where the one that is stopped has a lock of the C library's allocator, which
//! the fork waits for, it goes on until there is the child.)
//!
//! A system call is one step. One that sleeps is left to sleep, and then there are two deaths: one
//! asleep and one just after (or two stops, or forks). What lets it go on is part of the scene.
//!
//! ```text
//! cargo test --test crash                        a sample: before and after each atomic change and system call, and some between
//! cargo test --release --test crash -- --full    every one
//! cargo test --test crash -- acquire/ --at 317   one, as a failure named it
//! ```
//!
//! (The number of instructions differs from build to build, and a little from run to run, because some of them
//! look at the clock. So that it is a little only, each stage has one processor: who has several tries for a while before
//! it sleeps. There are scenes for that too, in which who holds what the other wants is on a second processor; where there is
//! none, they are left out.)

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
mod scenes;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stage;

use std::process::ExitCode;

use clap::Parser;

/// Kills, stops or forks a process after each instruction of a call.
#[derive(Parser)]
struct Arguments {
    /// Only scenes whose names contain this.
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
    /// How many stages are there at once. Most of the time they wait.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..))]
    jobs: u64,
    /// Prints the scenes' names.
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
    let scenes: Vec<_> =
        scenes::all().into_iter().filter(|scene| scene.name.contains(only)).collect();
    if arguments.list {
        for scene in scenes {
            println!("{}: test", scene.name);
        }
        return ExitCode::SUCCESS;
    }
    let choice = match arguments.at {
        Some(at) if arguments.past => run::Choice::One(stage::Until::Past(at)),
        Some(at) => run::Choice::One(stage::Until::After(at)),
        None if arguments.full => run::Choice::All,
        None => run::Choice::Sample,
    };
    run::run(scenes, &choice, usize::try_from(arguments.jobs).unwrap_or(1))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> ExitCode {
    Arguments::parse();
    println!("kill points: only on Linux on x86-64, where a call can be single-stepped");
    ExitCode::SUCCESS
}

//! Fuzzing: whatever addresses, segments, names and handles say, nothing crashes, hangs or leaks.
//!
//! An input is some bytes, which a target understands in its own way. proptest makes them, out of
//! the inputs in `corpus/<target>/` and out of nothing. Those of the corpus come first in every
//! run.
//!
//! ```sh
//! cargo test --test fuzz                                                # a second each
//! SEMLOCK_FUZZ_SECONDS=600 cargo test --test fuzz -- segments           # for so long, that one
//! SEMLOCK_FUZZ_SEED=5 cargo test --test fuzz                            # the same inputs again
//! ```
//!
//! An input that fails is written to a file: once it is in the corpus, every run plays it.

// Forking wants it: see `forked`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod addresses;
#[cfg(target_os = "linux")]
mod driver;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // other tests use other parts of it
#[path = "../forked/mod.rs"]
mod forked;
#[cfg(target_os = "linux")]
mod handles;
#[path = "../harness/mod.rs"]
#[allow(dead_code)] // other tests use other parts of it
mod harness;
#[cfg(target_os = "linux")]
mod input;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod objects;
#[cfg(target_os = "linux")]
mod segments;

use std::process::ExitCode;

use clap::Parser;

use crate::harness::Harness;

/// Plays made-up inputs, in children.
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    harness: Harness,
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use crate::harness::Notes;

    let CommandLine { harness } = CommandLine::parse();
    let notes = Notes::default();
    let targets = [addresses::TARGET, segments::TARGET, names::TARGET, handles::TARGET];
    let tests = targets.into_iter().map(|target| target.test(&notes)).collect();
    let code = harness.run_without_threads(tests);
    notes.print();
    code
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    CommandLine::parse().harness.run_without_threads(Vec::new())
}

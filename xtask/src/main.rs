//! What developers type: `cargo xtask demo | test | check | bench | soak | mutants | sanitize`.
//!
//! Each command sets up what it needs: a virtual environment with the tools in `.venv`, and the
//! release wheel in it.

mod command;
mod cross;
mod mutants;
mod protocol;
mod python;
mod sanitize;
mod sources;
mod tasks;
mod tools;
mod windows;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Parser, Subcommand};

use crate::python::Others;

/// Builds, shows, tests and measures semlock.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows what semlock does, on a real program.
    Demo(Python),
    /// Runs every test.
    Test {
        #[command(flatten)]
        python: Python,
        /// Leaves out CPython's own suites and all interpreters but one.
        #[arg(long)]
        quick: bool,
        /// Runs on each version of CPython that can be found (pyenv's, those on PATH,
        /// `semlock/python*` in the user's cache, and what --also and `$SEMLOCK_PYTHONS` name), and
        /// on free-threaded ones; not only on the oldest and the newest.
        #[arg(long, conflicts_with = "quick")]
        all_pythons: bool,
        /// One more interpreter, or the folder that it is installed in. Can be repeated.
        #[arg(long, value_name = "PATH", conflicts_with = "quick")]
        also: Vec<PathBuf>,
        /// Kills, stops and forks at every instruction and not only at a sample of them, and kills
        /// ten thousand times at random. With `--windows`: runs all of CPython's suite, and not
        /// only its tests of locks.
        #[arg(long, conflicts_with = "quick")]
        full: bool,
        /// Tests Windows instead, under Wine, with the tools in this folder [default:
        /// `$SEMLOCK_WINDOWS`, or `semlock/windows` in the user's cache folder, if they are there]
        #[arg(
            long,
            value_name = "FOLDER",
            num_args = 0..=1,
            conflicts_with_all = ["quick", "all_pythons", "also"]
        )]
        #[expect(
            clippy::option_option,
            reason = "clap's way to tell a value that may be left out"
        )]
        windows: Option<Option<PathBuf>>,
    },
    /// Checks formats, lints, types and stubs, and that it compiles for other systems.
    Check {
        #[command(flatten)]
        python: Python,
        /// The folder of a compiler that builds the standard library for other systems, with an
        /// `env.sh` [default: `$SEMLOCK_WINDOWS`, or semlock/windows in the user's cache, if it is
        /// there]
        #[arg(long, value_name = "FOLDER")]
        cross: Option<PathBuf>,
    },
    /// Measures semlock beside the stdlib and other rivals.
    Bench {
        #[command(flatten)]
        python: Python,
        /// Arguments for `python benches`: after `--`, for instance `-- --rounds 1`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Runs everything at once for a while, and watches that nothing grows. On Linux.
    Soak {
        #[command(flatten)]
        python: Python,
        /// How long; fractions are allowed [default: 10]
        #[arg(long, value_name = "N")]
        minutes: Option<f64>,
        /// More arguments for `python soak`: after `--`, for instance `-- --seed 3`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Breaks one thing at a time, and checks that a test fails.
    Mutants {
        /// Only those of this suite [default: all].
        suite: Option<Suite>,
        /// Only orderings whose line contains this text (a file's name or `Relaxed`, for instance),
        /// and rules whose name contains it.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// How many to try at a time, where they do not disturb each other.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[command(flatten)]
        python: Python,
    },
    /// Runs the Rust tests under Miri and the compiler's sanitizers, as far as a nightly toolchain
    /// has them.
    Sanitize,
}

/// What can be broken.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Suite {
    /// The algorithms on shared words, which models check.
    Models,
    /// The rules that let the others survive a death or a fork.
    Protocol,
}

#[derive(clap::Args)]
struct Python {
    /// The interpreter to use: CPython 3.10 or newer [default: the first one found on PATH; to
    /// measure, pyenv's newest, if that is newer]
    #[arg(long = "python", value_name = "PATH")]
    path: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(python) => tasks::demo(python.path.as_deref()),
        Task::Test { python, full, windows: Some(folder), .. } => {
            windows::test(folder.as_deref(), python.path.as_deref(), full)
        }
        Task::Test { python, quick, all_pythons, also, full, windows: None } => {
            let others = match (quick, all_pythons) {
                (true, _) => Others::None,
                (_, true) => Others::All,
                _ => Others::OldestAndNewest,
            };
            tasks::test(python.path.as_deref(), others, &also, full)
        }
        Task::Check { python, cross } => tasks::check(python.path.as_deref(), cross.as_deref()),
        Task::Soak { python, minutes, arguments } => {
            tasks::soak(python.path.as_deref(), minutes, &arguments)
        }
        Task::Mutants { suite, only, jobs, python } => {
            let (only, python) = (only.as_deref(), python.path.as_deref());
            let models = || mutants::mutants(only, jobs);
            let protocol = || protocol::mutants(python, only);
            let tried = match suite {
                Some(Suite::Models) => models(),
                Some(Suite::Protocol) => protocol(),
                None => models().and_then(|tried| Ok(tried + protocol()?)),
            };
            tried.and_then(|tried| {
                ensure!(tried > 0, "no mutant has such a name");
                Ok(())
            })
        }
        Task::Sanitize => sanitize::sanitize(),
        Task::Bench { python, arguments } => tasks::bench(python.path.as_deref(), &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

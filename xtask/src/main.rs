//! What developers type: `cargo xtask demo | test | check | bench`.
//!
//! Each command sets up what it needs: a virtual environment with the tools in `.venv`, and the
//! release wheel in it.

mod command;
mod python;
mod tasks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    },
    /// Checks formats, lints, types and stubs.
    Check(Python),
    /// Measures semlock beside the interpreter's own module.
    Bench(Python),
}

#[derive(clap::Args)]
struct Python {
    /// The interpreter to use: CPython 3.10 or newer [default: the first one found on PATH]
    #[arg(long = "python", value_name = "PATH")]
    path: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(python) => tasks::demo(python.path.as_deref()),
        Task::Test { python, quick } => tasks::test(python.path.as_deref(), quick),
        Task::Check(python) => tasks::check(python.path.as_deref()),
        Task::Bench(python) => tasks::bench(python.path.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

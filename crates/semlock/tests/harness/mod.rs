//! The command line of the test programs that have a `main` of their own, and what they print.
//!
//! Such a program forks, and so has one thread when it does. The built-in harness runs each test on
//! a thread of its own; `libtest-mimic` understands the same arguments, and leaves threads to us.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Trial};

/// What every test program understands.
#[derive(clap::Args)]
pub struct Harness {
    #[command(flatten)]
    arguments: Arguments,
    /// More filters: a test runs if it passes one of them.
    #[arg(value_name = "FILTER")]
    more_filters: Vec<String>,
    /// What newer versions of the built-in harness call --nocapture.
    #[arg(long, hide = true)]
    no_capture: bool,
}

impl Harness {
    /// Whether the tests are only listed.
    pub fn lists(&self) -> bool {
        self.arguments.list
    }

    /// Whether this test runs.
    pub fn selects(&self, test: &Trial) -> bool {
        let passes = |filter: &String| {
            let arguments = Arguments { filter: Some(filter.clone()), ..self.arguments.clone() };
            !arguments.is_filtered_out(test)
        };
        !self.arguments.is_filtered_out(test) || self.more_filters.iter().any(passes)
    }

    /// Runs the tests in the order given, in the main thread, which is the only one.
    pub fn run_without_threads(self, tests: Vec<Trial>) -> ExitCode {
        self.run_with(1, tests)
    }

    /// Runs the tests on two threads. So libtest-mimic prints whole lines, whatever else is printed
    /// meanwhile; with one thread it leaves a line open while a test runs.
    pub fn run_on_threads(self, tests: Vec<Trial>) -> ExitCode {
        self.run_with(2, tests)
    }

    fn run_with(mut self, threads: usize, mut tests: Vec<Trial>) -> ExitCode {
        self.arguments.test_threads = Some(threads);
        if !self.more_filters.is_empty() {
            tests.retain(|test| self.selects(test));
            self.arguments.filter = None;
        }
        libtest_mimic::run(&self.arguments, tests).exit_code()
    }
}

/// What tests that passed have found, for who reads the output. It is printed after the last of
/// them.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, note: String) {
        self.0.lock().expect("nobody panics with it").push(note);
    }

    pub fn print(&self) {
        for note in self.0.lock().expect("nobody panics with it").iter() {
            println!("{note}");
        }
    }
}

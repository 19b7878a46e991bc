//! What came of the scenarios, for the tests that ask for it.
//!
//! The tests run on threads, and no tracer may inherit any: a forked child has one thread, and what
//! the others were doing stays half-done in it. So a child plays the scenarios that is forked
//! before there are threads. It tells what came of each by a pipe.

use std::collections::HashMap;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::sync::Mutex;
use std::time::Duration;

use libtest_mimic::Failed;

use crate::forked::Forked;
use crate::run::{self, Choice};
use crate::scenarios::{End, Scenario};

/// What came of one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Its place among all that are played.
    pub scenario: usize,
    /// At how many instructions the tracee was killed, stopped or forked.
    pub points: u32,
    pub failures: u32,
    pub longest_recovery: Duration,
}

const WORDS: usize = 4;
const LENGTH: usize = WORDS * size_of::<u64>();

impl Outcome {
    fn to_bytes(self) -> [u8; LENGTH] {
        let time = u64::try_from(self.longest_recovery.as_micros()).expect("short");
        let words = [self.scenario as u64, self.points.into(), self.failures.into(), time];
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(words.map(u64::to_ne_bytes).as_flattened());
        bytes
    }

    fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        let word = |at: usize| {
            let word = bytes[at * size_of::<u64>()..][..size_of::<u64>()].try_into();
            u64::from_ne_bytes(word.expect("a word"))
        };
        let number = |at| u32::try_from(word(at)).expect("a small number");
        Self {
            scenario: usize::try_from(word(0)).expect("a small number"),
            points: number(1),
            failures: number(2),
            longest_recovery: Duration::from_micros(word(3)),
        }
    }
}

/// Where the child tells what came of each scenario.
pub struct Teller(PipeWriter);

impl Teller {
    pub fn tell(&self, outcome: Outcome) {
        // So short a message is written whole.
        (&self.0).write_all(&outcome.to_bytes()).expect("the parent listens");
    }
}

/// The child that plays the scenarios, and what it has told.
pub struct Outcomes {
    scenarios: Vec<Scenario>,
    told: Mutex<Told>,
}

struct Told {
    player: Forked,
    from: PipeReader,
    known: HashMap<usize, Outcome>,
}

impl Outcomes {
    /// Forks a child that plays these. The process has one thread yet.
    pub fn start(scenarios: Vec<Scenario>, choice: &Choice, jobs: usize) -> Self {
        let (from, to) = pipe().expect("pipe");
        let teller = Teller(to);
        let player = Forked::run(|| run::play(scenarios.clone(), choice, jobs, &teller));
        Self { scenarios, told: Mutex::new(Told { player, from, known: HashMap::new() }) }
    }

    /// Waits for what comes of the scenario of this name.
    pub fn wait_for(&self, name: &str) -> Result<(), Failed> {
        let scenario = self.scenarios.iter().position(|it| it.name == name).expect("it is played");
        let mut told = self.told.lock().expect("nobody panics with it");
        while !told.known.contains_key(&scenario) {
            let mut bytes = [0; LENGTH];
            if told.from.read_exact(&mut bytes).is_err() {
                let how = told.player.wait_for_death();
                return Err(format!("the process that plays the scenarios ended: {how:?}").into());
            }
            let outcome = Outcome::from_bytes(bytes);
            told.known.insert(outcome.scenario, outcome);
        }
        match told.known[&scenario].failures {
            0 => Ok(()),
            failures => Err(format!("{failures} failures, which stand above").into()),
        }
    }

    /// Prints what came of all of them together, for each end of the tracee.
    pub fn print_totals(&self) {
        let told = self.told.lock().expect("nobody panics with it");
        for end in [End::Killed, End::Stopped, End::Forked] {
            let all = || told.known.values().filter(|it| self.scenarios[it.scenario].end == end);
            if all().next().is_none() {
                continue;
            }
            let points: u32 = all().map(|it| it.points).sum();
            let failures: u32 = all().map(|it| it.failures).sum();
            let longest = all().map(|it| it.longest_recovery).max().unwrap_or_default();
            println!(
                "{end}: {points} in {} scenarios, {failures} failures; all got on within {:.3} s",
                all().count(),
                longest.as_secs_f64()
            );
        }
    }
}

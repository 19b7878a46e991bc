//! The arguments: the storm's own, and those that `cargo test` and its like pass to every test program.

use std::env;

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Kills,
    Turns,
}

impl Test {
    const ALL: [Self; 2] = [Self::Kills, Self::Turns];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kills => "storm_of_kills_breaks_no_promise",
            Self::Turns => "everyone_gets_a_turn_in_time_whether_or_not_somebody_dies",
        }
    }
}

const KILLS: u64 = 200;
const FULL: u64 = 10_000;
/// For each half of the second test.
const SECONDS: u64 = 8;
const FULL_SECONDS: u64 = 60;

/// What is to be done.
pub enum Order {
    /// Say which of these there are; `terse` in the format that programs read.
    List {
        tests: Vec<Test>,
        terse: bool,
    },
    Run {
        tests: Vec<Test>,
        seed: u64,
        kills: u64,
        seconds: u64,
    },
}

impl Order {
    /// # Errors
    /// For a number that is none.
    pub fn of_arguments() -> Result<Self, String> {
        let (mut lists, mut terse, mut ignored, mut exact) = (false, false, false, false);
        let (mut filters, mut skipped) = (Vec::new(), Vec::new());
        let (mut seed, mut kills, mut seconds) = (None, KILLS, SECONDS);
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            let mut value = || value.clone().or_else(|| arguments.next()).unwrap_or_default();
            match name {
                "--list" => lists = true,
                "--ignored" => ignored = true,
                "--exact" => exact = true,
                "--full" => (kills, seconds) = (FULL, FULL_SECONDS),
                "--seed" => seed = Some(number(&value())?),
                "--kills" => kills = number(&value())?,
                "--seconds" => seconds = number(&value())?,
                "--format" => terse = value() == "terse",
                "--skip" => skipped.push(value()),
                "--color" | "--logfile" | "--test-threads" | "--shuffle-seed" | "-Z" => {
                    value();
                }
                // Of the rest none matters to a program with two tests.
                option if option.starts_with('-') => {}
                filter => filters.push(filter.to_owned()),
            }
        }
        let is_meant = |test: &Test| {
            let name = test.name();
            let matches =
                |filter: &String| if exact { name == filter } else { name.contains(filter) };
            !ignored
                && (filters.is_empty() || filters.iter().any(matches))
                && !skipped.iter().any(matches)
        };
        let tests = Test::ALL.into_iter().filter(is_meant).collect();
        if lists {
            return Ok(Self::List { tests, terse });
        }
        // Short enough to be typed again.
        let seed = seed.unwrap_or_else(|| fastrand::u32(..).into());
        Ok(Self::Run { tests, seed, kills, seconds })
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "").parse().map_err(|error| format!("{text:?}: {error}"))
}

//! The arguments: the storm's own, and those that `cargo test` and its like pass to every test program.

use std::env;

/// The only test's name.
pub const TEST: &str = "storm_of_kills_breaks_no_promise";

const KILLS: u64 = 200;
const FULL: u64 = 10_000;

/// What is to be done.
pub enum Order {
    /// Say which tests there are; `terse` in the format that programs read.
    List {
        terse: bool,
    },
    /// The test was not asked for.
    Nothing,
    Storm {
        seed: u64,
        kills: u64,
    },
}

impl Order {
    /// # Errors
    /// For a number that is none.
    pub fn of_arguments() -> Result<Self, String> {
        let (mut lists, mut terse, mut ignored, mut exact) = (false, false, false, false);
        let (mut filters, mut skipped) = (Vec::new(), Vec::new());
        let (mut seed, mut kills) = (None, KILLS);
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
                "--full" => kills = FULL,
                "--seed" => seed = Some(number(&value())?),
                "--kills" => kills = number(&value())?,
                "--format" => terse = value() == "terse",
                "--skip" => skipped.push(value()),
                "--color" | "--logfile" | "--test-threads" | "--shuffle-seed" | "-Z" => {
                    value();
                }
                // Of the rest none matters to a program with one test.
                option if option.starts_with('-') => {}
                filter => filters.push(filter.to_owned()),
            }
        }
        let matches = |filter: &String| if exact { TEST == filter } else { TEST.contains(filter) };
        let is_meant = !ignored
            && (filters.is_empty() || filters.iter().any(matches))
            && !skipped.iter().any(matches);
        Ok(match (is_meant, lists) {
            (false, _) => Self::Nothing,
            (true, true) => Self::List { terse },
            (true, false) => {
                // Short enough to be typed again.
                let seed = seed.unwrap_or_else(|| fastrand::u32(..).into());
                Self::Storm { seed, kills }
            }
        })
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.replace(['_', ','], "").parse().map_err(|error| format!("{text:?}: {error}"))
}

//! Runs what the arguments ask for, and says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use crate::arena::Arena;
use crate::arguments::{Order, Test};
use crate::objects::{Crowd, OBJECTS, Objects};
use crate::parent::{Storm, Summary};
use crate::{report, turns};

/// The whole program.
pub fn run() -> ExitCode {
    match Order::of_arguments() {
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
        Ok(Order::List { tests, terse }) => {
            for test in &tests {
                println!("{}: test", test.name());
            }
            if !terse {
                println!("\n{} tests, 0 benchmarks", tests.len());
            }
            ExitCode::SUCCESS
        }
        Ok(Order::Run { tests, seed, kills, seconds }) => {
            let passed = tests.into_iter().map(|test| {
                let passed = match test {
                    Test::Kills => storm(seed, kills),
                    Test::Turns => turns(seed, seconds),
                };
                println!("test {} ... {}", test.name(), if passed { "ok" } else { "FAILED" });
                passed
            });
            // All of them, whatever the first comes to.
            let passed: Vec<_> = passed.collect();
            if passed.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

fn storm(seed: u64, kills: u64) -> bool {
    let again = format!("--seed {seed} --kills {kills} {}", Test::Kills.name());
    play(kills, seed, &again, |storm| storm.run(kills)).is_some_and(|(summary, _)| {
        println!("{}", describe(&summary, seed));
        true
    })
}

/// Without deaths, and with so many that after each there are some seconds without another.
fn turns(seed: u64, seconds: u64) -> bool {
    let again = format!("--seed {seed} --seconds {seconds} {}", Test::Turns.name());
    let time = Duration::from_secs(seconds);
    let deaths = (seconds / SECONDS_FOR_A_DEATH).max(1);
    [0, deaths].into_iter().all(|kills| {
        let played = play(kills, seed, &again, |storm| storm.run_slowly(time, kills));
        played.is_some_and(|(summary, arena)| {
            let (time, object) = turns::longest(arena);
            println!(
                "turns: {} operations, {} kills, nobody waited for longer than {time:.3?} ({object:?}), 0 failures (seed {seed})",
                grouped(summary.operations),
                grouped(summary.kills),
            );
            true
        })
    })
}

const SECONDS_FOR_A_DEATH: u64 = 3;

/// Plays one; `None` if it failed, which it has said then.
fn play(
    kills: u64,
    seed: u64,
    again: &str,
    play: impl FnOnce(&mut Storm<'_>) -> Result<Summary, String>,
) -> Option<(Summary, Arena)> {
    let arena = Arena::new(Storm::lives(kills));
    let objects = Objects::new().expect("shared memory");
    let _crowd = Crowd::new().expect("room for waiters");
    let mut storm = Storm::new(arena, &objects, seed);
    match play(&mut storm) {
        Ok(summary) => Some((summary, arena)),
        Err(failure) => {
            eprintln!("storm: seed {seed}");
            eprintln!("{failure}");
            report::print(arena, &objects, &storm);
            eprintln!("storm: seed {seed}: {failure}");
            eprintln!("the same choices again: cargo test -p semlock --test storm -- {again}");
            None
        }
    }
}

fn describe(summary: &Summary, seed: u64) -> String {
    format!(
        "storm: {} kills ({} at a chosen place), {} stops, {} operations on {} objects by {} processes, {} deaths inside, {} reported, \
         {} half-written, 0 failures (seed {seed})",
        grouped(summary.kills),
        grouped(summary.by_order),
        grouped(summary.stops),
        grouped(summary.operations),
        OBJECTS,
        grouped(summary.processes),
        grouped(summary.deaths_inside),
        grouped(summary.reports),
        grouped(summary.half_written),
    )
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

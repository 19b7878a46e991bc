//! Runs what the arguments ask for, and says what came of it.

use std::process::ExitCode;

use crate::arena::Arena;
use crate::arguments::{Order, TEST};
use crate::objects::{Crowd, OBJECTS, Objects};
use crate::parent::{Storm, Summary};
use crate::report;

/// The whole program.
pub fn run() -> ExitCode {
    match Order::of_arguments() {
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
        Ok(Order::List { terse }) => {
            println!("{TEST}: test");
            if !terse {
                println!("\n1 test, 0 benchmarks");
            }
            ExitCode::SUCCESS
        }
        Ok(Order::Nothing) => ExitCode::SUCCESS,
        Ok(Order::Storm { seed, kills }) => storm(seed, kills),
    }
}

fn storm(seed: u64, kills: u64) -> ExitCode {
    let arena = Arena::new(Storm::lives(kills));
    let objects = Objects::new().expect("shared memory");
    let _crowd = Crowd::new().expect("room for waiters");
    let mut storm = Storm::new(arena, &objects, seed);
    match storm.run(kills) {
        Ok(summary) => {
            println!("{}", describe(&summary, seed));
            println!("test {TEST} ... ok");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("storm: seed {seed}");
            eprintln!("{failure}");
            report::print(arena, &objects, &storm);
            eprintln!("storm: seed {seed}: {failure}");
            eprintln!(
                "the same choices again: cargo test -p semlock --test storm -- --seed {seed} --kills {kills}"
            );
            println!("test {TEST} ... FAILED");
            ExitCode::FAILURE
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

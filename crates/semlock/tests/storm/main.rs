//! A storm: 16 processes of three threads each go over a handful of objects of every kind, and are stopped and
//! killed at random, a fresh process for each dead one. A checker in memory that all of them share looks
//! at everything that they are given, and a watchdog at what they are not.
//!
//! What has to hold, whoever dies where:
//!
//! * What one alone can hold, one alone holds: a stamp is there from the entry to the exit, and whoever
//!   finds another's was told of a death, and that one was killed. What is changed inside is never found
//!   half-written without such a report, and a queue's message never torn without its mark.
//! * A death is reported to one who comes next, and only a death is: of a process that was killed, once for each
//!   of its threads that may have been inside. Between taking and stamping, and between taking
//!   the stamp away and giving back, both are right.
//! * A robust semaphore never has more or fewer permits than it was made with. Of a plain one those of the dead
//!   are lost, and no others.
//! * A notification reaches one of those who waited when it was given, as long as one of them lives, and wakes no more than
//!   it says; who waited when the event was set gets through; at the barrier all get through together or
//!   nobody does, and nobody waits for the dead.
//! * Every thread gets on, and every object.
//!
//! The seed decides whom the parent stops and kills and after how many operations, and what each thread does. How
//! the kernel mixes these is not to be had again: the same seed makes the same choices, and not the same storm.
//!
//! ```text
//! cargo test -p semlock --test storm -- [--seed N] [--kills N | --full]
//! ```
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

mod arena;
mod arguments;
mod checker;
#[allow(dead_code)] // other tests use other parts of it
#[path = "../forked/mod.rs"]
mod forked;
mod objects;
mod parent;
mod report;
mod worker;

use std::process::ExitCode;

use arena::Arena;
use arguments::{Order, TEST};
use objects::{Crowd, Objects};
use parent::{Storm, Summary};

fn main() -> ExitCode {
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
        "storm: {} kills, {} stops, {} operations on {} objects by {} processes, {} deaths inside, {} reported, \
         {} half-written, 0 failures (seed {seed})",
        grouped(summary.kills),
        grouped(summary.stops),
        grouped(summary.operations),
        objects::OBJECTS,
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

//! The two tests, and what came of them.

use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::arena::Arena;
use crate::harness::Notes;
use crate::objects::{Crowd, OBJECTS, Objects};
use crate::parent::{Stress, Summary};
use crate::{report, turns};

const KILLS: &str = "processes_killed_at_random_break_no_promise";
const TURNS: &str = "every_waiter_gets_its_turn_in_time_whether_or_not_some_die";

pub fn tests(seed: u64, kills: u64, seconds: u64, notes: &Notes) -> Vec<Trial> {
    let for_kills = notes.clone();
    let for_turns = notes.clone();
    vec![
        Trial::test(KILLS, move || kill(seed, kills, &for_kills)),
        Trial::test(TURNS, move || take_turns(seed, seconds, &for_turns)),
    ]
}

fn kill(seed: u64, kills: u64, notes: &Notes) -> Result<(), Failed> {
    let again = format!("--seed {seed} --kills {kills} {KILLS}");
    let (summary, _) = play(kills, seed, &again, |stress| stress.run(kills))?;
    notes.add(describe(&summary, seed));
    Ok(())
}

/// Without deaths, and with so many that after each there are some seconds without another.
fn take_turns(seed: u64, seconds: u64, notes: &Notes) -> Result<(), Failed> {
    let again = format!("--seed {seed} --seconds {seconds} {TURNS}");
    let time = Duration::from_secs(seconds);
    let deaths = (seconds / SECONDS_FOR_A_DEATH).max(1);
    for kills in [0, deaths] {
        let (summary, arena) = play(kills, seed, &again, |stress| stress.run_slowly(time, kills))?;
        let (time, object) = turns::longest(arena);
        notes.add(format!(
            "turns: {} operations, {} kills, \
             nobody waited for longer than {time:.3?} ({object:?}), 0 failures (seed {seed})",
            grouped(summary.operations),
            grouped(summary.kills),
        ));
    }
    Ok(())
}

const SECONDS_FOR_A_DEATH: u64 = 3;

/// Plays one; where it fails, says what everybody was doing.
fn play(
    kills: u64,
    seed: u64,
    again: &str,
    play: impl FnOnce(&mut Stress<'_>) -> Result<Summary, String>,
) -> Result<(Summary, Arena), Failed> {
    let arena = Arena::new(Stress::lives(kills));
    let objects = Objects::new().expect("shared memory");
    let _crowd = Crowd::new().expect("room for waiters");
    let mut stress = Stress::new(arena, &objects, seed);
    play(&mut stress).map(|summary| (summary, arena)).map_err(|failure| {
        eprintln!("stress: seed {seed}");
        eprintln!("{failure}");
        report::print(arena, &objects, &stress);
        let again =
            format!("the same choices again: cargo test -p semlock --test stress -- {again}");
        format!("seed {seed}: {failure}\n{again}").into()
    })
}

fn describe(summary: &Summary, seed: u64) -> String {
    format!(
        "stress: {} kills ({} at a chosen place), {} stops, \
         {} operations on {} objects by {} processes, {} deaths inside, {} reported, \
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

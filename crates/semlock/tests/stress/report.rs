//! The report of a failure: where each thread was, and which words the objects had.

use std::sync::atomic::Ordering::SeqCst;

use crate::arena::{Arena, Phase, Thread};
use crate::objects::{Object, Objects};
use crate::parent::Stress;

/// Writes it to stderr.
pub fn print(arena: Arena, objects: &Objects, stress: &Stress<'_>) {
    eprintln!("so far: {:?}", stress.so_far());
    for &object in Object::ALL {
        let words: Vec<_> = objects.words(object).iter().map(|word| format!("{word:x}")).collect();
        eprintln!("{object:?}: words {}", words.join(" "));
        eprintln!("    {}", describe_place(arena, object));
    }
    let condition = &arena.condition;
    eprintln!(
        "tokens {:?}, asked {:?}, tickets {:?}, of the batch {:?}; \
         made {:?}, consumed {:?}, forfeited {:?}, extra {:?} of {:?}",
        condition.tokens,
        condition.asked,
        condition.sequence,
        condition.batch,
        condition.made,
        condition.consumed,
        condition.forfeited,
        condition.extra,
        condition.extra_allowed
    );
    let generations = &arena.barrier;
    eprintln!("actions {:?}, passed as {:?}", generations.actions, generations.passed_as);
    for (life, stopped) in stress.living() {
        let state = if stopped { ", stopped" } else { "" };
        eprintln!("life {life}, pid {:?}{state}", arena.life(life).pid);
        for (number, thread) in arena.life(life).threads.iter().enumerate() {
            print_thread(number, thread);
        }
    }
    let dead = arena.lives().rev().filter(|(_, life)| life.state.load(SeqCst) > 1).take(8);
    for (number, life) in dead {
        eprintln!("life {number}, pid {:?}, dead", life.pid);
        for (number, thread) in life.threads.iter().enumerate() {
            print_thread(number, thread);
        }
    }
}

fn describe_place(arena: Arena, object: Object) -> String {
    let place = arena.place(object);
    let stamps: Vec<_> = place
        .stamps
        .iter()
        .map(|stamp| stamp.load(SeqCst))
        .filter(|&stamp| stamp != 0)
        .map(|stamp| format!("thread {} of life {}", (stamp & 0xff) - 1, stamp >> 8))
        .collect();
    format!(
        "inside: [{}]; {:?} entries, {:?} exits, {:?} passes, {:?} reports, \
         {:?} half-written, {:?} owed",
        stamps.join(", "),
        place.entries,
        place.exits,
        place.passes,
        place.reports,
        place.half_written,
        place.owed
    )
}

fn print_thread(number: usize, thread: &Thread) {
    let phases: Vec<_> = Object::ALL
        .iter()
        .filter(|&&object| thread.phase(object) != Phase::Away)
        .map(|&object| format!("{:?} {object:?}", thread.phase(object)))
        .collect();
    eprintln!(
        "  thread {number}: step {:?}, ticket {:?}, epoch {:?}, [{}]",
        thread.steps,
        thread.ticket,
        thread.epoch,
        phases.join(", ")
    );
    for (time, object, deed) in thread.noted() {
        eprintln!("    {}.{:06} {object:?} {deed:?}", time / 1_000_000, time % 1_000_000);
    }
}

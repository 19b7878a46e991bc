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
//! * Everyone gets a turn in time: a wait ends within what follows from those who can be before it and how long they hold, and
//!   from those who died meanwhile. (See `turns`.)
//!
//! That last one says little where things are held for microseconds and somebody dies all the time. So there is a second test, in
//! which all hold things for long and wait for long: first nobody dies, then somebody now and then. Nobody is stopped there.
//!
//! Half of those that are to die are told at which object and after how many microseconds, and die by a timer, at whatever
//! instruction they have come to; the others are killed from outside, wherever they are.
//!
//! The seed decides whom the parent stops and kills and after how many operations, and what each thread does. How
//! the kernel mixes these is not to be had again: the same seed makes the same choices, and not the same storm.
//!
//! ```text
//! cargo test -p semlock --test storm -- [--seed N] [--kills N] [--seconds N] [--full] [NAME]
//! ```
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod arena;
#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod checker;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // other tests use other parts of it
#[path = "../forked/mod.rs"]
mod forked;
#[cfg(target_os = "linux")]
mod objects;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod turns;
#[cfg(target_os = "linux")]
mod worker;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    run::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

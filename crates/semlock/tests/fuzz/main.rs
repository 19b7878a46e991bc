//! Fuzzing: whatever addresses, segments, names and handles say, nothing crashes, hangs or leaks.
//!
//! An input is some bytes, which a target understands in its own way. proptest makes them, out of the inputs in
//! `corpus/<target>/` and out of nothing; those of the corpus come first in every run.
//!
//! ```sh
//! cargo test --test fuzz                                                # a second each
//! SEMLOCK_FUZZ_SECONDS=600 cargo test --test fuzz -- segments           # for so long, that one
//! SEMLOCK_FUZZ_SEED=5 cargo test --test fuzz                            # the same inputs again
//! ```
//!
//! Where something is found, the input is written to a file: once it is in the corpus, every run looks at it.

// Forking wants it: see `forked`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod addresses;
#[cfg(target_os = "linux")]
mod driver;
#[cfg(target_os = "linux")]
#[allow(dead_code)] // other tests use other parts of it
#[path = "../forked/mod.rs"]
mod forked;
#[cfg(target_os = "linux")]
mod handles;
#[cfg(target_os = "linux")]
mod input;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod objects;
#[cfg(target_os = "linux")]
mod segments;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    driver::main(&[addresses::TARGET, segments::TARGET, names::TARGET, handles::TARGET])
}

#[cfg(not(target_os = "linux"))]
fn main() {}

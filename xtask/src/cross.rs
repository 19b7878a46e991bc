//! Compiles semlock for systems that are not at hand, as far as a compiler without their libraries can: `cargo check`, with
//! a standard library that it builds itself. What is for musl is linked statically and run, where the usual compiler has
//! its library.

use std::path::Path;

use anyhow::Result;

use crate::command::{cargo, output, run, say};
use crate::tools::Tools;

const MUSL: &str = "x86_64-unknown-linux-musl";
/// NetBSD for all Unixes that semlock has nothing of their own for.
const CHECKED: [&str; 5] = [
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
    "x86_64-unknown-netbsd",
    MUSL,
    "aarch64-unknown-linux-gnu",
];

pub fn cross(folder: Option<&Path>) -> Result<()> {
    if let Some(tools) = Tools::find(folder, "Other systems")? {
        say(&format!("compiled, not run: {}", CHECKED.join(", ")));
        // What is for users: these tasks need the Linux that they run on. All at once, because a standard library is mostly
        // compiled one part after the other.
        let check = ["check", "--package=semlock", "--package=semlock-python", "--quiet"];
        // An extension is a shared library, which musl's target makes only if it is told to.
        let shared = format!("--config=target.{MUSL}.rustflags=['-Ctarget-feature=-crt-static']");
        tools.cargo(&[&check[..], &[&*shared]].concat(), &CHECKED, "target/cross")?;
    }
    linked_statically()
}

fn linked_statically() -> Result<()> {
    let libraries = output("rustc".as_ref(), &["--print=target-libdir", "--target", MUSL]);
    if !libraries.is_some_and(|folder| Path::new(&folder).is_dir()) {
        println!("\n{MUSL}: not run, for its library is absent: rustup target add {MUSL}");
        return Ok(());
    }
    say(&format!("{MUSL}: linked statically, and run"));
    let test = ["test", "--package=semlock", "--lib", "--test=shared", "--test=contract"];
    let target = ["--test=process", "--target", MUSL, "--target-dir=target/cross", "--quiet"];
    run(&cargo(), test.iter().chain(&target))
}

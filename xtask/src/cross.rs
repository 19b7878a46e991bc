//! Compiles semlock for other systems, as far as a compiler without their libraries can: by `cargo
//! check`, with a standard library that it builds itself. The musl build is linked statically and
//! run, where the usual compiler has musl's library.

use std::path::Path;

use anyhow::Result;

use crate::command::{cargo, output, run, say};
use crate::tools::Tools;

const MUSL: &str = "x86_64-unknown-linux-musl";
/// NetBSD stands for all Unixes that have no folder of their own in `os/`.
const CHECKED: [&str; 4] = [
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
    "x86_64-unknown-netbsd",
    "aarch64-unknown-linux-gnu",
];
/// Only the packages for users: xtask itself needs Linux.
const CHECK: [&str; 3] = ["check", "--package=semlock", "--package=semlock-python"];
const FOLDER: &str = "target/cross";
/// An extension is a shared library. The target for musl makes one only with this flag.
const SHARED_LIBRARIES: &str = "-Ctarget-feature=-crt-static";

pub fn cross(folder: Option<&Path>) -> Result<()> {
    let musl_is_here = output("rustc".as_ref(), &["--print=target-libdir", "--target", MUSL])
        .is_some_and(|folder| Path::new(&folder).is_dir());
    if let Some(tools) = Tools::find(folder, "Other systems")? {
        let targets = CHECKED.into_iter().chain((!musl_is_here).then_some(MUSL));
        let targets: Vec<_> = targets.collect();
        say(&format!("compiled, not run: {}", targets.join(", ")));
        // All at once, because a standard library is mostly compiled one part after the other.
        let shared = format!("--config=target.{MUSL}.rustflags=['{SHARED_LIBRARIES}']");
        tools.cargo(&[&CHECK[..], &["--quiet", &shared]].concat(), &targets, FOLDER)?;
    }
    if !musl_is_here {
        println!("\n{MUSL}: not run, for its library is absent: rustup target add {MUSL}");
        return Ok(());
    }
    say(&format!("{MUSL}: linked statically, and run"));
    let test = ["test", "--package=semlock", "--lib", "--test=shared", "--test=contract"];
    let target = ["--test=process", "--target", MUSL, "--target-dir", FOLDER, "--quiet"];
    run(&cargo(), test.iter().chain(&target))?;
    say(&format!("{MUSL}: compiled, not run: the extension"));
    let flags = format!("--config=target.{MUSL}.rustflags=['{SHARED_LIBRARIES}', '-Dwarnings']");
    let target = ["--target", MUSL, "--target-dir", FOLDER, "--quiet", &flags];
    run(&cargo(), CHECK.iter().chain(&target))
}

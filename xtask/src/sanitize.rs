//! Runs the Rust tests where undefined behaviour is an error: under Miri, the tests that make no
//! system calls; with the compiler's sanitizers, the tests that need one process only.

use anyhow::{Context, Result, bail};

use crate::command::{output, run, say};
use crate::tools::Tools;

/// Modules without system calls, and tests of the shared backend among threads.
const UNDER_MIRI: [&str; 4] = ["word::", "address::", "count::", "deadline::"];
const SANITIZED: [&str; 6] = ["--lib", "--test", "shared", "--test", "contract", "--quiet"];

pub fn sanitize() -> Result<()> {
    let rustup = "rustup".as_ref();
    let Some(installed) =
        output(rustup, &["component", "list", "--toolchain=nightly", "--installed"])
    else {
        println!(
            "sanitize: skipped, for it needs a nightly toolchain: rustup toolchain install nightly"
        );
        return Ok(());
    };
    let Some(host) = output(rustup, &["run", "nightly", "rustc", "--print=host-tuple"]) else {
        bail!("the nightly toolchain does not say for what it compiles");
    };
    if has(&installed, "miri") {
        say("Miri: what makes no system calls");
        let test = ["run", "nightly", "cargo", "miri", "test", "--package=semlock", "--lib"];
        let elsewhere = ["--target-dir=target/miri", "--quiet", "--"];
        run(rustup, test.iter().chain(&elsewhere).chain(&UNDER_MIRI))?;
    } else {
        println!("Miri: skipped, for it is absent: rustup component add miri --toolchain nightly");
    }
    sanitized("address", &host, &[])?;
    // It has to see what the standard library does, too.
    if has(&installed, "rust-src") {
        sanitized("thread", &host, &["-Zbuild-std"])?;
    } else if let Some(tools) = Tools::find(None, "ThreadSanitizer")? {
        thread_sanitized_with(&tools, &host)?;
    } else {
        println!("(or: rustup component add rust-src --toolchain nightly)");
    }
    Ok(())
}

fn has(installed: &str, component: &str) -> bool {
    installed.lines().any(|line| line.starts_with(component))
}

/// With another compiler, which has the library's source, and the nightly toolchain's sanitizer and
/// linker.
fn thread_sanitized_with(tools: &Tools, host: &str) -> Result<()> {
    begin("thread");
    let libraries =
        output("rustup".as_ref(), &["run", "nightly", "rustc", "--print=target-libdir"])
            .context("the nightly toolchain does not say where its libraries are")?;
    let flags = [
        "-Zsanitizer=thread".to_owned(),
        "-Zexternal-clangrt".to_owned(),
        format!(
            "-Clink-arg=-Wl,--whole-archive,{libraries}/librustc-nightly_rt.tsan.a,\
             --no-whole-archive"
        ),
        "-Clink-arg=-lm".to_owned(),
        "-Clink-arg=-lc".to_owned(),
        format!("-Clink-arg=-B{libraries}/../bin/gcc-ld"),
        "-Clink-arg=-fuse-ld=lld".to_owned(),
    ];
    let flags = format!("--config=build.rustflags=['{}']", flags.join("', '"));
    let test = ["test", "--package=semlock", &*flags].into_iter().chain(SANITIZED);
    tools.cargo(&test.collect::<Vec<_>>(), &[host], "target/sanitize-thread")
}

fn begin(sanitizer: &str) {
    say(&format!("{sanitizer} sanitizer: threads of one process, and what they map"));
}

fn sanitized(sanitizer: &str, host: &str, more: &[&str]) -> Result<()> {
    begin(sanitizer);
    // What runs while building is not to be sanitized: hence a target, even if it is the host.
    let (target, elsewhere) =
        (format!("--target={host}"), format!("--target-dir=target/sanitize-{sanitizer}"));
    let flags = format!("--config=build.rustflags=['-Zsanitizer={sanitizer}']");
    let test = ["run", "nightly", "cargo", "test", "--package=semlock"];
    let all = test.iter().chain(more).copied();
    run("rustup".as_ref(), all.chain([&*target, &*elsewhere, &*flags]).chain(SANITIZED))
}

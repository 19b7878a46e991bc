//! Compiles semlock for systems that are not at hand, as far as a compiler without their libraries can: `cargo check`, with
//! a standard library that it builds itself. What is for musl is linked statically and run, where the usual compiler has
//! its library.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{cargo, output, run, say};

const MUSL: &str = "x86_64-unknown-linux-musl";
const CHECKED: [&str; 4] =
    ["aarch64-apple-darwin", "x86_64-unknown-freebsd", MUSL, "aarch64-unknown-linux-gnu"];

/// A compiler that builds the standard library for other systems: `env.sh` of its folder has cargo use it.
struct Toolchain {
    environment: PathBuf,
}

/// The one of this folder, or of `$SEMLOCK_WINDOWS`, or of `semlock/windows` in the user's cache; `None` where nobody
/// has named one and there is none.
fn toolchain(folder: Option<&Path>) -> Result<Option<Toolchain>> {
    let of_variable = || std::env::var_os("SEMLOCK_WINDOWS").map(PathBuf::from);
    let of_cache = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("semlock/windows"))
    };
    let named = folder.map(Path::to_owned).or_else(of_variable);
    let Some(folder) = named.clone().or_else(of_cache) else { return Ok(None) };
    let environment = folder.join("env.sh");
    match (environment.is_file(), named) {
        (true, _) => Ok(Some(Toolchain { environment: std::path::absolute(environment)? })),
        (false, Some(named)) => bail!("there is no env.sh in {}", named.display()),
        (false, None) => Ok(None),
    }
}

impl Toolchain {
    fn cargo(&self, arguments: &[&str]) -> Result<()> {
        let (environment, cargo) = (self.environment.to_string_lossy(), cargo());
        let cargo = cargo.to_string_lossy();
        let sourced = ["-c", r#". "$0" && exec "$@""#, &environment, &cargo];
        run("sh".as_ref(), sourced.iter().chain(arguments))
    }
}

pub fn cross(folder: Option<&Path>) -> Result<()> {
    match toolchain(folder)? {
        Some(toolchain) => checked(&toolchain)?,
        None => println!(
            "\nOther systems: skipped, for there is no compiler that builds the standard library for them: name its \
             folder with --cross"
        ),
    }
    linked_statically()
}

fn checked(toolchain: &Toolchain) -> Result<()> {
    for target in CHECKED {
        say(&format!("{target}: compiled, not run"));
        // What is for users: this task itself needs the Linux that it runs on.
        let check = [
            "check",
            "--package=semlock",
            "--package=semlock-python",
            "--quiet",
            "--target",
            target,
        ];
        let library = ["-Zbuild-std=std,panic_unwind", "--target-dir=target/cross"];
        let strict = ["-Zwarnings", "--config=build.warnings='deny'"];
        // An extension is a shared library, which musl's target makes only if it is told to.
        let shared = "--config=build.rustflags=['-Ctarget-feature=-crt-static']";
        let shared: &[&str] = if target == MUSL { &[shared] } else { &[] };
        toolchain.cargo(&[&check[..], &library, &strict, shared].concat())?;
    }
    Ok(())
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

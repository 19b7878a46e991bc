//! The tasks themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{QUICKLY_LINKED, cargo, refusal, root, run, run_for, run_with};
use crate::cross::cross;
use crate::python::{Environment, Interpreter, Others, set_up};
use crate::{mutants, protocol, sources};

pub fn demo(python: Option<&Path>) -> Result<()> {
    let environments = set_up(python, Others::None, &[])?;
    environments[0].run(["demo/demo.py"])
}

pub fn test(
    python: Option<&Path>,
    others: Others,
    also: &[PathBuf],
    every_death: bool,
) -> Result<()> {
    // Not the benchmarks, which criterion would have to be built for.
    run(&cargo(), ["test"])?;
    portable()?;
    models()?;
    if every_death {
        deaths()?;
    }
    let environments = set_up(python, others, also)?;
    let versions = environments.iter().map(|environment| environment.interpreter.version);
    let ends = [versions.clone().min(), versions.max()];
    let is_end = |environment: &&Environment| ends.contains(&Some(environment.interpreter.version));
    // By default the oldest and the newest are tested. The interpreter that the tasks themselves
    // run on is neither, perhaps: then it is tested only if `--python` names it.
    let tested: Vec<_> = environments
        .iter()
        .filter(|it| others != Others::OldestAndNewest || python.is_some() || is_end(it))
        .collect();
    for environment in &tested {
        environment.run(["-m", "pytest"])?;
    }
    if others != Others::None {
        let runs = |environment: &&Environment| others == Others::All || is_end(environment);
        let pythons: Vec<_> =
            tested.iter().copied().filter(runs).map(Environment::python).collect();
        let runner = [PathBuf::from("tests/cpython/run.py")];
        environments[0].run(runner.iter().chain(&pythons))?;
    }
    let versions = tested.iter().map(|environment| environment.interpreter.to_string());
    println!("\nAll passed, on CPython {}.", versions.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// Tests, on Linux, the code that other systems use. Another flag needs another folder.
const PORTABLE: [&str; 2] =
    ["--target-dir=target/portable", "--config=build.rustflags=['--cfg', 'semlock_portable']"];

fn portable() -> Result<()> {
    let test = ["test", "--package=semlock", "--lib", "--test=shared", "--test=contract"];
    run(&cargo(), test.iter().chain(&["--test=process"]).chain(&PORTABLE))
}

/// Runs the models. Other flags need another folder. Only the code that runs for minutes is
/// optimised.
fn models() -> Result<()> {
    let elsewhere = ["--target-dir=target/loom", "--config=build.rustflags=['--cfg', 'loom']"];
    let optimised = [
        "--config=profile.dev.package.generator.opt-level=3",
        "--config=profile.dev.package.loom.opt-level=3",
        "--config=profile.dev.package.semlock.opt-level=3",
    ];
    let test = ["test", "--package=semlock", "--lib"];
    run(&cargo(), test.iter().chain(&optimised).chain(&elsewhere))
}

/// Tries every death, stop and fork of which the ordinary tests try a sample. The code is
/// optimised, as users have it.
fn deaths() -> Result<()> {
    for test in ["crash", "stress"] {
        let test = ["test", "--package=semlock", "--test", test];
        run(&cargo(), test.iter().chain(&QUICKLY_LINKED).chain(&["--", "--full"]))?;
    }
    // No sleep is endless, so a lost wake-up is only a delay. Without that rule it is a hang, which
    // the test notices.
    let test = ["test", "--package=semlock", "--test=crash"];
    let build = ["--target-dir", protocol::FOLDER, protocol::FLAGS];
    let build = test.iter().chain(&build).chain(&QUICKLY_LINKED);
    let arguments = build.chain(&["--", "--full", "stopped/"]);
    run_with(&cargo(), arguments, &[("SEMLOCK_MUTATION".into(), "sleep/is-bounded".into())])
}

pub fn check(python: Option<&Path>, other_systems: Option<&Path>) -> Result<()> {
    check_atomics()?;
    check_safety()?;
    protocol::check()?;
    mutants::check()?;
    run(&cargo(), ["fmt", "--all", "--check"])?;
    let strict = ["--", "--deny", "warnings"];
    run(&cargo(), ["clippy", "--workspace", "--all-targets"].iter().chain(&strict))?;
    run(&cargo(), ["clippy", "--package=semlock", "--lib"].iter().chain(&PORTABLE).chain(&strict))?;
    run(&cargo(), ["doc", "--package", "semlock", "--no-deps", "--quiet"])?;
    check_abi3t()?;
    let environments = set_up(python, Others::None, &[])?;
    let python = &environments[0];
    python.run(["-m", "ruff", "check"])?;
    python.run(["-m", "ruff", "format", "--check"])?;
    python.run(["-m", "mypy", "python", "tests/typing"])?;
    python.run(["-m", "mypy.stubtest", "semlock"])?;
    cross(other_systems)?;
    println!("\nAll checks passed.");
    Ok(())
}

/// The extension does not compile for the stable ABI of interpreters without the GIL, and says why.
/// No such interpreter is needed to see that.
fn check_abi3t() -> Result<()> {
    const FOLDER: &str = "target/abi3t";
    const INTERPRETER: &str = "implementation=CPython\nversion=3.15\n\
                               target_abi=CPython-abi3t-3.15\n\
                               suppress_build_script_link_lines=true\n";
    let folder = root().join(FOLDER);
    let config = folder.join("interpreter.txt");
    // If the file is new, cargo compiles everything anew.
    if !fs::read_to_string(&config).is_ok_and(|found| found == INTERPRETER) {
        fs::create_dir_all(&folder)?;
        fs::write(&config, INTERPRETER)?;
    }
    let check = ["check", "--package=semlock-python", "--features=pyo3/abi3t-py315", "--quiet"];
    let check = [&check[..], &["--target-dir", FOLDER]].concat();
    let said = refusal(&cargo(), &check, &[("PYO3_CONFIG_FILE".into(), config.into())])?;
    if !said.contains("semlock cannot be built for abi3t") {
        bail!(
            "the extension fails to compile for abi3t, but not because it cannot work there:\n\
             {said}"
        );
    }
    Ok(())
}

pub fn bench(python: Option<&Path>, arguments: &[String]) -> Result<()> {
    let main = Environment::main(Interpreter::choose(python)?)?;
    let wheel = main.build_wheel()?;
    // Measured on the newest of pyenv's, unless one was named.
    let newest = Interpreter::newest_of_pyenv()
        .filter(|newest| python.is_none() && newest.version > main.interpreter.version);
    let environment = Environment::bench(newest.unwrap_or(main.interpreter))?;
    environment.install(&wheel)?;
    environment.run(["benches"].into_iter().chain(arguments.iter().map(String::as_str)))
}

pub fn soak(python: Option<&Path>, minutes: Option<f64>, arguments: &[String]) -> Result<()> {
    let environments = set_up(python, Others::None, &[])?;
    let time = Duration::try_from_secs_f64(minutes.unwrap_or_default() * 60.0)
        .context("minutes are not negative")?;
    let minutes = minutes.map(|minutes| format!("--minutes={minutes}"));
    let minutes = minutes.as_deref();
    let arguments = arguments.iter().map(String::as_str);
    let soak = ["soak"].into_iter().chain(minutes).chain(arguments);
    run_for(time, &environments[0].python(), soak)
}

/// Checks that the core takes its atomics from `atomic.rs`, so that a model checker can replace
/// them. (Clippy's `disallowed-types` sees through re-exports, and would forbid `atomic.rs`'s too.)
/// An `Ordering` alone is no atomic, and `mutation.rs`, which `atomic.rs` uses, needs it.
fn check_atomics() -> Result<()> {
    let mut found = Vec::new();
    for path in sources::files(&root().join("crates/semlock/src"), "rs")? {
        let source = fs::read_to_string(&path)?.replace("std::sync::atomic::Ordering;", "");
        if !path.ends_with("atomic.rs") && source.contains("sync::atomic") {
            found.push(path.display().to_string());
        }
    }
    if !found.is_empty() {
        bail!("atomics have to come through crate::atomic, and do not in {}", found.join(", "));
    }
    Ok(())
}

/// Checks that the tests that `SAFETY.md` names exist.
fn check_safety() -> Result<()> {
    let mut sources = String::new();
    for (folder, extension) in [("crates/semlock", "rs"), ("tests", "py"), ("soak", "py")] {
        for path in sources::files(&root().join(folder), extension)? {
            sources.push_str(&fs::read_to_string(path)?);
        }
    }
    let page = fs::read_to_string(root().join("SAFETY.md"))?;
    let code = page.split('`').skip(1).step_by(2);
    let tests = code.filter_map(|name| match name.split_once(": ") {
        Some(("crash", scenario)) if scenario.contains('/') => {
            Some((name, format!("(\"{scenario}\"")))
        }
        Some(("fuzz", target)) if target != "NAME" => Some((name, format!("name: \"{target}\""))),
        Some(("word", model)) if model.contains('_') => Some((name, format!("fn {model}("))),
        None if name.starts_with("test_") => Some((name, format!("def {name}("))),
        // Names of tests are sentences.
        None if name.matches('_').count() > 4 => Some((name, format!("fn {name}("))),
        _ => None,
    });
    let missing: Vec<_> =
        tests.filter(|(_, source)| !sources.contains(source)).map(|(name, _)| name).collect();
    if !missing.is_empty() {
        bail!("SAFETY.md names tests that there are not: {}", missing.join(", "));
    }
    Ok(())
}

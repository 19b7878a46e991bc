//! The tasks themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{cargo, root, run};
use crate::python::{Environment, Interpreter, set_up};

pub fn demo(python: Option<&Path>) -> Result<()> {
    let environments = set_up(python, false)?;
    environments[0].run(["demo/demo.py"])
}

pub fn test(python: Option<&Path>, quick: bool) -> Result<()> {
    run(&cargo(), ["test", "--workspace"])?;
    let environments = set_up(python, !quick)?;
    for environment in &environments {
        environment.run(["-m", "pytest"])?;
    }
    if !quick {
        let pythons: Vec<_> = environments.iter().map(Environment::python).collect();
        let runner = [PathBuf::from("tests/cpython/run.py")];
        environments[0].run(runner.iter().chain(&pythons))?;
    }
    let versions = environments.iter().map(|environment| {
        let (major, minor, micro) = environment.interpreter.version;
        format!("{major}.{minor}.{micro}")
    });
    println!("\nAll passed, on CPython {}.", versions.collect::<Vec<_>>().join(", "));
    Ok(())
}

pub fn check(python: Option<&Path>) -> Result<()> {
    check_atomics()?;
    run(&cargo(), ["fmt", "--all", "--check"])?;
    run(&cargo(), ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    run(&cargo(), ["doc", "--package", "semlock", "--no-deps", "--quiet"])?;
    let environments = set_up(python, false)?;
    let python = &environments[0];
    python.run(["-m", "ruff", "check"])?;
    python.run(["-m", "ruff", "format", "--check"])?;
    python.run(["-m", "mypy", "python"])?;
    python.run(["-m", "mypy.stubtest", "semlock"])?;
    println!("\nAll checks passed.");
    Ok(())
}

pub fn bench(python: Option<&Path>) -> Result<()> {
    let main = Environment::main(Interpreter::choose(python)?)?;
    let wheel = main.build_wheel()?;
    // Measured on the newest that is there, unless one was named.
    let newest = Interpreter::pyenv()
        .pop()
        .filter(|newest| python.is_none() && newest.version > main.interpreter.version);
    let environment = newest.map_or(Ok(main), Environment::other)?;
    environment.install(&wheel)?;
    environment.run(["benches/side_by_side.py"])
}

/// The core takes its atomics from one place, so that a model checker can take std's. (Clippy's
/// `disallowed-types` sees through re-exports, and would forbid that place's too.)
fn check_atomics() -> Result<()> {
    fn visit(folder: &Path, found: &mut Vec<String>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                visit(&path, found)?;
            } else if path.file_name().is_some_and(|name| name != "atomic.rs")
                && fs::read_to_string(&path)?.contains("sync::atomic")
            {
                found.push(path.display().to_string());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(&root().join("crates/semlock/src"), &mut found)?;
    if !found.is_empty() {
        bail!("atomics have to come through crate::atomic, and do not in {}", found.join(", "));
    }
    Ok(())
}

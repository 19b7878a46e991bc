//! Windows, on another system: the Rust tests and the extension are compiled for it, and run by
//! Wine.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{root, run, run_with, say};
use crate::python::{Environment, Interpreter};
use crate::tools::Tools;

const TARGET: &str = "x86_64-pc-windows-gnu";
const FOLDER: &str = "target/windows";

/// Runs the tests that make sense on Windows, and CPython's suite for spawn: of that, if not all is
/// wanted, locks, semaphores, conditions and events.
pub fn test(folder: Option<&Path>, python: Option<&Path>, all: bool) -> Result<()> {
    let Some(tools) = Tools::find(folder, "Windows")? else { return Ok(()) };
    say("Windows: the Rust tests");
    let tests = ["test", "--package=semlock", "--lib", "--tests"];
    tools.cargo(&tests, &[TARGET], FOLDER)?;

    say("Windows: the extension, in a Windows CPython");
    tools.cargo(&["build", "--package=semlock-python"], &[TARGET], FOLDER)?;
    let site = lay_out()?;
    let environment = Environment::main(Interpreter::choose(python)?)?;
    let pytest = install_pytest(&environment)?;
    let path = format!("{};{}", on_drive(&site), on_drive(&pytest));
    let variables = [("PYTHONPATH", path.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")]
        .map(|(name, value)| (name.into(), value.into()));
    let check = ["-m", "pytest", "--override-ini=addopts=", "-ra", "-p", "no:cacheprovider"];
    let tests = ["--confcutdir=tests/windows", "tests/windows"];
    run_with(&tools.python(), check.into_iter().chain(tests), &variables)?;

    say("Windows: CPython's own tests, on the stock module and on semlock");
    let program = ["tests/cpython/windows.py"].into_iter().chain(all.then_some("--full"));
    let program = program.map(OsString::from);
    run(&environment.python(), program.chain([tools.python().into(), site.into()]))?;
    println!("\nAll passed, on Windows.");
    Ok(())
}

/// The package and the extension, as they would be installed.
fn lay_out() -> Result<PathBuf> {
    let site = root().join(FOLDER).join("site");
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    let package = site.join("semlock");
    fs::create_dir_all(&package)?;
    for entry in fs::read_dir(root().join("python/semlock"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "py") {
            fs::copy(&path, package.join(path.file_name().context("a file's name")?))?;
        }
    }
    let built = root().join(FOLDER).join(TARGET).join("debug/_native.dll");
    fs::copy(&built, package.join("_native.pyd"))
        .with_context(|| format!("{} cannot be copied", built.display()))?;
    Ok(site)
}

/// pytest for the Windows interpreter, once.
fn install_pytest(environment: &Environment) -> Result<PathBuf> {
    let folder = root().join(FOLDER).join("pytest");
    let whole = folder.join("whole");
    if !whole.exists() {
        let there = folder.to_string_lossy();
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade"];
        let kind = ["--platform=win_amd64", "--python-version=3.11", "--only-binary=:all:"];
        let what = ["--target", &there, "pytest>=8.3,<10", "pytest-timeout>=2.3,<3", "colorama"];
        environment.run(pip.into_iter().chain(kind).chain(what))?;
        fs::write(whole, "")?;
    }
    Ok(folder)
}

/// A path as a Windows program under Wine has it.
fn on_drive(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}

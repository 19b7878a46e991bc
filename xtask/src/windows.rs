//! Windows, on another system: the Rust tests and the extension are compiled for it, and run by Wine.
//!
//! What that takes lies in a folder: `env.sh` sets a compiler that has the standard library's source, and a program that
//! runs what it makes; `bin/wine-python` is a Windows CPython.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{cargo, root, run, run_with, say};
use crate::python::{Environment, Interpreter};

const TARGET: &str = "x86_64-pc-windows-gnu";
const FOLDER: &str = "target/windows";

/// The tools' folder.
#[derive(Debug)]
pub struct Tools {
    folder: PathBuf,
    /// What `env.sh` sets.
    variables: Vec<(OsString, OsString)>,
}

impl Tools {
    /// In this folder, where it must be.
    pub fn at(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let script = folder.join("env.sh");
        ensure!(
            script.is_file(),
            "{} has no env.sh: it is no folder with the tools for Windows",
            folder.display()
        );
        let show = ["-c", ". \"$0\" && env -0"];
        let output = Command::new("bash").args(show).arg(&script).output()?;
        ensure!(output.status.success(), "{} fails: {}", script.display(), output.status);
        let pairs = output.stdout.split(|byte| *byte == 0).filter_map(|line| {
            let equals = line.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&line[..equals], &line[equals + 1..]);
            Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()))
        });
        let variables = pairs
            .filter(|(name, value)| name != "_" && std::env::var_os(name).as_ref() != Some(value))
            .collect();
        Ok(Self { folder, variables })
    }

    /// Where they are by default: `$SEMLOCK_WINDOWS`, or `semlock/windows` in the user's cache folder. `None` if
    /// they are not there, which it says.
    pub fn find() -> Result<Option<Self>> {
        let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let cache = || {
            let cache = variable("XDG_CACHE_HOME");
            let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
            cache.map(|cache| cache.join("semlock/windows"))
        };
        let folder = variable("SEMLOCK_WINDOWS").or_else(cache);
        let folder = folder.context("there is no home folder: set SEMLOCK_WINDOWS")?;
        if !folder.join("env.sh").is_file() {
            println!(
                "Windows: skipped, for {} has no tools to compile and run for it: set SEMLOCK_WINDOWS",
                folder.display()
            );
            return Ok(None);
        }
        Self::at(&folder).map(Some)
    }

    /// Runs cargo with the cross compiler, which builds the standard library as well.
    pub fn cargo(&self, arguments: &[&str], target: &str, folder: &str) -> Result<()> {
        let (task, arguments) = arguments.split_first().context("no task for cargo")?;
        let common = ["-Zbuild-std=std,panic_unwind", "--target", target, "--target-dir", folder];
        // A warning is an error in what is ours.
        let strict = ["-Zwarnings", "--config=build.warnings='deny'"];
        let all = [*task].into_iter().chain(common).chain(strict).chain(arguments.iter().copied());
        run_with(&cargo(), all, &self.variables)
    }

    fn python(&self) -> PathBuf {
        self.folder.join("bin/wine-python")
    }
}

/// Runs the tests that make sense on Windows, and CPython's suite for spawn: of that, if not all is wanted, locks, semaphores,
/// conditions and events.
pub fn test(folder: Option<&Path>, python: Option<&Path>, all: bool) -> Result<()> {
    let tools = match folder {
        Some(folder) => Tools::at(folder)?,
        None => match Tools::find()? {
            Some(tools) => tools,
            None => return Ok(()),
        },
    };
    say("Windows: the Rust tests");
    let tests = ["test", "--package=semlock", "--lib", "--tests"];
    tools.cargo(&tests, TARGET, FOLDER)?;

    say("Windows: the extension, in a Windows CPython");
    tools.cargo(&["build", "--package=semlock-python"], TARGET, FOLDER)?;
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

/// What Wine calls a path.
fn on_drive(path: &Path) -> String {
    format!("Z:{}", path.display()).replace('/', "\\")
}

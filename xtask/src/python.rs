//! Interpreters, virtual environments, and the wheel in them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{output, root, run};

const OLDEST: Version = (3, 10, 0);

type Version = (u32, u32, u32);

/// A CPython that semlock runs on.
#[derive(Clone, Debug)]
pub struct Interpreter {
    pub version: Version,
    path: PathBuf,
    /// Where it is installed: the same for all its names and virtual environments.
    home: PathBuf,
}

impl Interpreter {
    /// The interpreter at a path; `None` if that is no CPython of 3.10 or newer.
    fn at(path: &Path) -> Option<Self> {
        const ASK: &str = "import sys, sysconfig; \
                           print(sys.implementation.name, *sys.version_info[:3], \
                           sysconfig.get_config_var('Py_GIL_DISABLED') or 0, sys.base_prefix, \
                           sep='\\n')";
        let answer = output(path, &["-c", ASK])?;
        let [name, major, minor, micro, free_threaded, home] =
            answer.lines().collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let version = (major.parse().ok()?, minor.parse().ok()?, micro.parse().ok()?);
        // The wheel is for the stable ABI, which free-threaded builds do not have.
        let suits = name == "cpython" && version >= OLDEST && free_threaded == "0";
        suits.then(|| Self { version, path: path.to_owned(), home: home.into() })
    }

    /// The one that was asked for, or the first on PATH that will do, or pyenv's newest.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if let Some(path) = wanted {
            // A name is looked up on PATH; a path is meant from here, not from the root.
            let named = path.components().count() == 1;
            let path = if named { path.to_owned() } else { std::path::absolute(path)? };
            return Self::at(&path).with_context(|| {
                format!("{} is no CPython of 3.10 or newer, with the GIL", path.display())
            });
        }
        let names = ["python3", "python"].map(str::to_owned).into_iter();
        let numbered = (OLDEST.1..OLDEST.1 + 10).rev().map(|minor| format!("python3.{minor}"));
        names
            .chain(numbered)
            .find_map(|name| Self::at(Path::new(&name)))
            .or_else(|| Self::pyenv().pop())
            .context("no CPython of 3.10 or newer is on PATH: name one with --python")
    }

    /// Those that pyenv has installed, oldest first, one of each version.
    pub fn pyenv() -> Vec<Self> {
        let folder = std::env::var_os("PYENV_ROOT")
            .map(PathBuf::from)
            .or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
        let versions = folder.and_then(|folder| fs::read_dir(folder.join("versions")).ok());
        let mut found: Vec<_> = versions
            .into_iter()
            .flatten()
            .filter_map(|entry| Self::at(&entry.ok()?.path().join("bin").join("python")))
            .collect();
        found.sort_by_key(|interpreter| interpreter.version);
        found.dedup_by_key(|interpreter| interpreter.version);
        found
    }

    pub fn is(&self, other: &Self) -> bool {
        self.home == other.home && self.version == other.version
    }
}

/// A virtual environment with the project's tools.
#[derive(Debug)]
pub struct Environment {
    pub interpreter: Interpreter,
    folder: PathBuf,
}

impl Environment {
    /// `.venv`, with everything that developing needs.
    pub fn main(interpreter: Interpreter) -> Result<Self> {
        Self::new(interpreter, root().join(".venv"), "requirements-dev.txt")
    }

    /// A folder below `target`, with what running the tests needs.
    pub fn other(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv", "requirements-test.txt")
    }

    /// A folder below `target`, with what measuring needs.
    pub fn bench(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv-bench", "requirements-bench.txt")
    }

    /// A folder below `target`, with what running the tests needs, for a wheel whose rules can be taken out.
    pub fn mutation(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv-mutation", "requirements-test.txt")
    }

    fn below_target(interpreter: Interpreter, kind: &str, requirements: &str) -> Result<Self> {
        let (major, minor, micro) = interpreter.version;
        let folder = root().join("target").join(format!("{kind}-{major}.{minor}.{micro}"));
        Self::new(interpreter, folder, requirements)
    }

    fn new(interpreter: Interpreter, folder: PathBuf, requirements: &str) -> Result<Self> {
        let new = Self { interpreter, folder };
        // What it was set up from; it is set up anew where that has changed.
        let made_of = ["requirements-test.txt", requirements]
            .iter()
            .map(|file| fs::read_to_string(root().join(file)).map_err(Into::into))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let Interpreter { version, home, .. } = &new.interpreter;
        let made_of = format!("{version:?} {}\n{made_of}", home.display());
        let note = new.folder.join("set-up-from.txt");
        if fs::read_to_string(&note).is_ok_and(|noted| noted == made_of) {
            return Ok(new);
        }
        run(&new.interpreter.path, ["-m", "venv", "--clear", &new.folder.to_string_lossy()])
            .context(
                "making a virtual environment failed: the interpreter needs its venv and ensurepip \
                 modules (Debian has them in a package of their own, python3-venv)",
            )?;
        new.pip(["--requirement", requirements])?;
        fs::write(note, made_of)?;
        Ok(new)
    }

    pub fn python(&self) -> PathBuf {
        self.folder.join(if cfg!(windows) { "Scripts" } else { "bin" }).join("python")
    }

    fn pip<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(&self.python(), pip.into_iter().chain(arguments))
    }

    /// Runs the interpreter of this environment.
    pub fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Result<()> {
        run(&self.python(), arguments)
    }

    /// Builds the release wheel with this environment's maturin.
    pub fn build_wheel(&self) -> Result<PathBuf> {
        self.build_wheel_in("target", &[])
    }

    /// Builds such a wheel with more arguments, into `wheels` of a folder.
    pub fn build_wheel_in(&self, folder: &str, arguments: &[&str]) -> Result<PathBuf> {
        let folder = root().join(folder).join("wheels");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let folder = folder.to_string_lossy();
        let maturin = ["-m", "maturin", "build", "--release", "--out", &folder, "--interpreter"];
        let python = self.python();
        let python = python.to_string_lossy();
        self.run(maturin.into_iter().chain([&*python]).chain(arguments.iter().copied()))?;
        let wheels = fs::read_dir(&*folder)?.collect::<Result<Vec<_>, _>>()?;
        match &wheels[..] {
            [wheel] => Ok(wheel.path()),
            _ => bail!("maturin made {} wheels in {folder}", wheels.len()),
        }
    }

    /// Installs a wheel, also over one of the same version.
    pub fn install(&self, wheel: &Path) -> Result<()> {
        self.pip(["--force-reinstall", "--no-deps", &wheel.to_string_lossy()])
    }
}

/// Which of the interpreters that pyenv has are wanted beside the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    None,
    OldestAndNewest,
    All,
}

/// Builds the wheel, and installs it in `.venv` and one environment for each other interpreter that
/// is wanted.
pub fn set_up(wanted: Option<&Path>, others: Others) -> Result<Vec<Environment>> {
    let main = Interpreter::choose(wanted)?;
    let mut interpreters = Interpreter::pyenv();
    let last = interpreters.len().saturating_sub(1);
    let mut index = 0..;
    interpreters.retain(|_| match (others, index.next()) {
        (Others::None, _) => false,
        (Others::OldestAndNewest, Some(index)) => index == 0 || index == last,
        _ => true,
    });
    interpreters.retain(|other| !other.is(&main));
    let main = Environment::main(main)?;
    let wheel = main.build_wheel()?;
    let mut environments = vec![main];
    for interpreter in interpreters {
        environments.push(Environment::other(interpreter)?);
    }
    for environment in &environments {
        environment.install(&wheel)?;
    }
    Ok(environments)
}

//! Interpreters, virtual environments, and the wheel in them.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{cache, output, root, run, say};

const OLDEST: Version = (3, 10, 0);

/// The oldest without the GIL that `PyO3` builds for, unless `PYO3_UNCHECKED` is 1.
const OLDEST_FREE_THREADED: Version = (3, 14, 0);
const OLDEST_FREE_THREADED_UNCHECKED: Version = (3, 13, 0);
const PYO3_UNCHECKED: &str = "UNSAFE_PYO3_SKIP_VERSION_CHECK";

/// More interpreters, or folders that they are installed in: a list as PATH is one.
const MORE: &str = "SEMLOCK_PYTHONS";

/// A package that has to be compiled, so that some machines cannot install it. The benchmarks say
/// that they lack it.
const NOT_EVERYWHERE: &str = "faster-fifo";

type Version = (u32, u32, u32);

/// A CPython that semlock runs on.
#[derive(Clone, Debug)]
pub struct Interpreter {
    pub version: Version,
    /// Whether it is built without the GIL. It has no part in the stable ABI then, and needs a
    /// wheel of its own.
    is_free_threaded: bool,
    path: PathBuf,
    /// Where it is installed: the same for all its names and virtual environments.
    home: PathBuf,
}

impl Interpreter {
    /// The interpreter at a path; `None` if that is no CPython that semlock runs on.
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
        let is_free_threaded = free_threaded == "1";
        let oldest = match std::env::var(PYO3_UNCHECKED) {
            _ if !is_free_threaded => OLDEST,
            Ok(unchecked) if unchecked == "1" => OLDEST_FREE_THREADED_UNCHECKED,
            _ => OLDEST_FREE_THREADED,
        };
        let suits = name == "cpython" && version >= oldest;
        suits.then(|| Self { version, is_free_threaded, path: path.to_owned(), home: home.into() })
    }

    /// The interpreter that was asked for, or the first usable one on PATH, or pyenv's newest.
    pub fn choose(wanted: Option<&Path>) -> Result<Self> {
        if let Some(path) = wanted {
            // A name is looked up on PATH; a path is meant from here, not from the root.
            let named = path.components().count() == 1;
            let path = if named { path.to_owned() } else { std::path::absolute(path)? };
            return Self::at(&path).with_context(|| {
                format!(
                    "{} is no CPython of 3.10 or newer, or of 3.14 or newer without the GIL",
                    path.display()
                )
            });
        }
        let names = ["python3", "python"].map(str::to_owned).into_iter();
        names
            .chain(numbered().rev())
            .filter_map(|name| Self::at(Path::new(&name)))
            .find(|found| !found.is_free_threaded)
            .or_else(Self::newest_of_pyenv)
            .context("no CPython of 3.10 or newer is on PATH: name one with --python")
    }

    /// The newest with the GIL that pyenv has installed.
    pub fn newest_of_pyenv() -> Option<Self> {
        let installed = pyenv().into_iter().filter_map(|path| Self::at(&path));
        installed.filter(|found| !found.is_free_threaded).max_by_key(|found| found.version)
    }

    /// All that can be found, oldest first, the newest of each minor version: pyenv's, those on
    /// PATH, those in semlock's folder of the user's cache, and those that are named here or by
    /// `$SEMLOCK_PYTHONS`.
    pub fn all(also: &[PathBuf]) -> Result<Vec<Self>> {
        let mut found: Vec<_> = numbered()
            .map(PathBuf::from)
            .chain(pyenv())
            .chain(cached())
            .filter_map(|path| Self::at(&path))
            .filter(Self::is_whole)
            .collect();
        let more = std::env::var_os(MORE).unwrap_or_default();
        for named in std::env::split_paths(&more).chain(also.iter().cloned()) {
            if named.as_os_str().is_empty() {
                continue;
            }
            let path = std::path::absolute(&named)?;
            let path = if path.is_dir() { in_folder(&path) } else { path };
            let interpreter = Self::at(&path);
            found.push(interpreter.with_context(|| format!("{} does not suit", path.display()))?);
        }
        // Newest first: those of one kind are side by side, and the first of them stays.
        found.sort_by_key(|interpreter| Reverse((interpreter.kind(), interpreter.version)));
        found.dedup_by_key(|interpreter| interpreter.kind());
        found.reverse();
        Ok(found)
    }

    /// Whether it has the modules that the tests need. (Debian has them in packages of their own.)
    fn is_whole(&self) -> bool {
        const ASK: &str = "import importlib.util, ensurepip; \
                           assert importlib.util.find_spec('test._test_multiprocessing')";
        let is_whole = output(&self.path, &["-c", ASK]).is_some();
        if !is_whole {
            say(&format!(
                "Leaves out CPython {self} at {}, which has not its own tests, or no ensurepip",
                self.path.display()
            ));
        }
        is_whole
    }

    /// Interpreters of one kind do not differ for semlock.
    fn kind(&self) -> ((u32, u32), bool) {
        let (major, minor, _) = self.version;
        ((major, minor), self.is_free_threaded)
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, micro) = self.version;
        let suffix = if self.is_free_threaded { "t" } else { "" };
        write!(formatter, "{major}.{minor}.{micro}{suffix}")
    }
}

/// The names of interpreters on PATH, oldest first.
fn numbered() -> impl DoubleEndedIterator<Item = String> {
    let minors = OLDEST.1..OLDEST.1 + 10;
    minors.flat_map(|minor| ["", "t"].map(|suffix| format!("python3.{minor}{suffix}")))
}

/// Where an installation has its interpreter.
fn in_folder(folder: &Path) -> PathBuf {
    folder.join("bin").join("python3")
}

/// The interpreters that pyenv has installed, of all versions.
fn pyenv() -> Vec<PathBuf> {
    let folder = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
    folder.map_or_else(Vec::new, |folder| installed(&folder.join("versions"), ""))
}

/// The interpreters in the user's cache that are kept for testing, such as `semlock/python3.14`.
fn cached() -> Vec<PathBuf> {
    cache().map_or_else(Vec::new, |folder| installed(&folder, "python"))
}

/// The interpreters of the installations in a folder whose names begin with this.
fn installed(side_by_side: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(side_by_side).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| in_folder(&entry.path()))
        .filter(|path| path.exists())
        .collect()
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

    /// A folder below `target`, with the packages that the tests need.
    pub fn other(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv", "requirements-test.txt")
    }

    /// A folder below `target`, with the packages that the benchmarks need.
    pub fn bench(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv-bench", "requirements-bench.txt")
    }

    /// A folder below `target`, with the packages that the tests need, for a wheel whose rules can
    /// be left out.
    pub fn mutation(interpreter: Interpreter) -> Result<Self> {
        Self::below_target(interpreter, "venv-mutation", "requirements-test.txt")
    }

    fn below_target(interpreter: Interpreter, kind: &str, requirements: &str) -> Result<Self> {
        let folder = root().join("target").join(format!("{kind}-{interpreter}"));
        Self::new(interpreter, folder, requirements)
    }

    fn new(interpreter: Interpreter, folder: PathBuf, requirements: &str) -> Result<Self> {
        let new = Self { interpreter, folder };
        // The note says what it was set up from. If that has changed, it is set up anew.
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
        new.install_required(requirements)?;
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

    /// Installs what a file asks for. If that fails, it may be the package that is not everywhere:
    /// then it installs the others.
    fn install_required(&self, requirements: &str) -> Result<()> {
        let Err(error) = self.pip(["--requirement", requirements]) else {
            return Ok(());
        };
        let asked = fs::read_to_string(root().join(requirements))?;
        let is_everywhere = |line: &&str| !line.starts_with(NOT_EVERYWHERE);
        let lines = asked.lines().filter(|line| !line.starts_with('#'));
        let others: Vec<_> = lines.clone().filter(is_everywhere).collect();
        if others.len() == lines.count() {
            return Err(error);
        }
        say(&format!("Without {NOT_EVERYWHERE}, which may need a compiler:"));
        self.pip(others)
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
        self.build_wheel_for(self, folder, arguments)
    }

    /// The same for another environment's interpreter.
    fn build_wheel_for(&self, other: &Self, folder: &str, arguments: &[&str]) -> Result<PathBuf> {
        let folder = root().join(folder).join("wheels");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let folder = folder.to_string_lossy();
        let maturin = ["-m", "maturin", "build", "--release", "--out", &folder, "--interpreter"];
        let python = other.python();
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

/// Which interpreters are wanted beside the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    None,
    /// Of those with the GIL.
    OldestAndNewest,
    All,
}

/// Builds the wheel, and installs it in `.venv` and one environment for each other interpreter that
/// is wanted; `also` names more interpreters. All those with the GIL share one wheel, and each of
/// those without has its own.
pub fn set_up(wanted: Option<&Path>, others: Others, also: &[PathBuf]) -> Result<Vec<Environment>> {
    let main = Interpreter::choose(wanted)?;
    let mut interpreters = match others {
        Others::None => Vec::new(),
        _ => Interpreter::all(also)?,
    };
    if others == Others::OldestAndNewest {
        interpreters.retain(|found| !found.is_free_threaded);
        if let [oldest, .., newest] = &interpreters[..] {
            interpreters = vec![oldest.clone(), newest.clone()];
        }
    }
    interpreters.retain(|other| other.kind() != main.kind());
    let mut environments = vec![Environment::main(main)?];
    for interpreter in interpreters {
        environments.push(Environment::other(interpreter)?);
    }
    let main = &environments[0];
    let mut with_gil = None;
    for environment in &environments {
        let wheel = match &with_gil {
            _ if environment.interpreter.is_free_threaded => {
                let folder = format!("target/{}", environment.interpreter);
                main.build_wheel_for(environment, &folder, &[])?
            }
            Some(wheel) => PathBuf::clone(wheel),
            None => with_gil.insert(main.build_wheel_for(environment, "target", &[])?).clone(),
        };
        environment.install(&wheel)?;
    }
    Ok(environments)
}

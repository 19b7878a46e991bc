//! A folder of tools for other systems. Its `env.sh` sets a compiler that has the standard
//! library's source, and so can compile for any of them, and a program that runs what it makes for
//! Windows; `bin/wine-python` is a Windows CPython.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{cache, cargo, folder_in, run_with};

#[derive(Debug)]
pub struct Tools {
    folder: PathBuf,
    /// The environment variables that `env.sh` sets.
    variables: Vec<(OsString, OsString)>,
}

impl Tools {
    /// Finds the tools in this folder, where they must be. Without a folder, it finds them in
    /// `$SEMLOCK_WINDOWS`, or else in `semlock/windows` in the user's cache. If they are not there,
    /// it prints that and returns `None`.
    pub fn find(folder: Option<&Path>, what_for: &str) -> Result<Option<Self>> {
        if let Some(folder) = folder {
            return Self::at(folder).map(Some);
        }
        let of_cache = || cache().map(|cache| cache.join("windows"));
        let folder = folder_in("SEMLOCK_WINDOWS").or_else(of_cache);
        let folder = folder.context("there is no home folder: set SEMLOCK_WINDOWS")?;
        if !script(&folder).is_file() {
            println!(
                "\n{what_for}: skipped, for {} has no tools for that: set SEMLOCK_WINDOWS",
                folder.display()
            );
            return Ok(None);
        }
        Self::at(&folder).map(Some)
    }

    fn at(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let script = script(&folder);
        ensure!(
            script.is_file(),
            "{} has no env.sh: it is no folder of tools for other systems",
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

    /// Runs cargo with this compiler, which builds the standard library as well, for such systems,
    /// into a folder below `target`.
    pub fn cargo(&self, arguments: &[&str], targets: &[&str], folder: &str) -> Result<()> {
        let (task, arguments) = arguments.split_first().context("no task for cargo")?;
        let common = ["-Zbuild-std=std,panic_unwind", "--target-dir", folder];
        let targets = targets.iter().flat_map(|target| ["--target", target]);
        // A warning in our packages is an error.
        let strict = ["-Zwarnings", "--config=build.warnings='deny'"];
        let own = arguments.iter().copied();
        let all = [*task].into_iter().chain(common).chain(targets).chain(strict).chain(own);
        run_with(&cargo(), all, &self.variables)
    }

    /// The Windows CPython.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/wine-python")
    }
}

fn script(folder: &Path) -> PathBuf {
    folder.join("env.sh")
}

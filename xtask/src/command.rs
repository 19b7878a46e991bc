//! Runs other programs, shows which, and ends those that take too long.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wait_timeout::ChildExt;

/// No program that a task runs takes longer than it was told to, unless it hangs.
const LIMIT: Duration = Duration::from_secs(80 * 60);

/// A release build in which linking does not take longer than running.
pub const QUICKLY_LINKED: [&str; 3] = [
    "--release",
    "--config=profile.release.lto='off'",
    "--config=profile.release.codegen-units=16",
];

/// The workspace's root, which every program runs in.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the workspace").to_owned()
}

/// A folder that an environment variable names.
pub fn folder_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|it| !it.is_empty()).map(PathBuf::from)
}

/// semlock's folder in the user's cache: tools and interpreters for testing it lie there.
pub fn cache() -> Option<PathBuf> {
    let cache = folder_in("XDG_CACHE_HOME");
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    cache.map(|cache| cache.join("semlock"))
}

/// The cargo that runs this task.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Runs a program with this terminal, says so and how long it took, and fails unless it succeeds.
pub fn run<I: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = I>) -> Result<()> {
    run_within(LIMIT, program, arguments, &[])
}

/// The same, with more environment variables.
pub fn run_with<I: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = I>,
    variables: &[(OsString, OsString)],
) -> Result<()> {
    run_within(LIMIT, program, arguments, variables)
}

/// The same, for a program that was told to run for this long.
pub fn run_for<I: AsRef<OsStr>>(
    time: Duration,
    program: &Path,
    arguments: impl IntoIterator<Item = I>,
) -> Result<()> {
    run_within(time + LIMIT, program, arguments, &[])
}

fn run_within<I: AsRef<OsStr>>(
    limit: Duration,
    program: &Path,
    arguments: impl IntoIterator<Item = I>,
    variables: &[(OsString, OsString)],
) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    println!("\n$ {}", shown(&command));
    let began = Instant::now();
    let mut child =
        command.spawn().with_context(|| format!("{} cannot be started", shown(&command)))?;
    let Some(status) = child.wait_timeout(limit)? else {
        child.kill()?;
        child.wait()?;
        bail!("{} was ended after {} minutes", shown(&command), limit.as_secs() / 60);
    };
    if !status.success() {
        bail!("{} failed: {status}", shown(&command));
    }
    println!("({} s)", began.elapsed().as_secs());
    Ok(())
}

/// Says what comes next.
pub fn say(what: &str) {
    println!("\n# {what}");
}

/// What a short program prints; `None` if it cannot be started or fails.
pub fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The standard error of a program that has to fail.
pub fn refusal(
    program: &Path,
    arguments: &[&str],
    variables: &[(OsString, OsString)],
) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    println!("\n$ {} (has to fail)", shown(&command));
    let done =
        command.output().with_context(|| format!("{} cannot be started", shown(&command)))?;
    if done.status.success() {
        bail!("{} did not fail", shown(&command));
    }
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

fn shown(command: &Command) -> String {
    let root = root();
    let short = |word: &OsStr| {
        let path = Path::new(word);
        path.strip_prefix(&root).unwrap_or(path).display().to_string()
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(short).collect::<Vec<_>>().join(" ")
}

//! Breaks one thing at a time, and checks that a test fails.
//!
//! A *mutant* is a memory ordering that is weaker than what the code says, or a rule (see
//! `mutation.rs`) that is not kept. The tests are built once; the environment tells them what to
//! break. First each test runs unbroken, and notes what it meets; then each mutant runs against the
//! tests that meet it, the quickest first, until one fails. One that does not end in many times its
//! usual time has failed.
//!
//! What no test notices has to be explained beside the code, in the comment directly above it:
//!
//! ```text
//! // No test needs more than Acquire here: <why>
//! // No test needs more than Relaxed on failure: <why>
//! // No test needs this rule: <why>
//! ```
//!
//! (An exchange has two orderings; "on failure" means the second.) An explanation of something that
//! a test does notice fails too.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wait_timeout::ChildExt;

use crate::command::{QUICKLY_LINKED, cargo, root, say};
use crate::sources;

/// Where the code is that the models check.
const SOURCES: &str = "crates/semlock/src/word";
/// Only the tests whose names begin with this.
const MODELS: &str = "word::loom::";
const FOLDER: &str = "target/loom-mutants";

struct Mutant {
    /// `word/eventcount.rs:57`
    place: String,
    what: String,
    /// What a test that meets it notes.
    meets: String,
    /// What the environment says to break it.
    breaks: String,
    explanation: Option<String>,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22} {:<58}", self.place, self.what)
    }
}

enum Outcome {
    Caught {
        by: String,
        in_time: bool,
    },
    Survived,
    /// No test reaches it.
    Unmet,
}

struct Test {
    program: PathBuf,
    name: String,
    time: Duration,
    meets: HashSet<String>,
}

/// There are models, and each comment that explains a mutant stands above one. (Which rules there
/// are is read from the code: no table can miss one.)
pub fn check() -> Result<()> {
    let mut mutants = Vec::new();
    for file in files()? {
        read(&file, &mut mutants)?;
    }
    let is_model = |name: &String| name.starts_with(MODELS);
    ensure!(sources::unit_tests()?.iter().any(is_model), "there are no tests {MODELS}…");
    Ok(())
}

/// Tries all mutants, or those whose line contains `only`; returns how many.
pub fn mutants(only: Option<&str>, jobs: usize) -> Result<usize> {
    let mut mutants = Vec::new();
    for file in files()? {
        read(&file, &mut mutants)?;
    }
    ensure!(!mutants.is_empty(), "nothing to break was found in {SOURCES}");
    mutants.retain(|mutant| only.is_none_or(|part| mutant.to_string().contains(part)));
    if mutants.is_empty() {
        return Ok(0);
    }

    let programs = build()?;
    say("models: running them unbroken");
    let tests = tests(&programs, jobs)?;
    say(&format!("models: {} tests, {} mutants", tests.len(), mutants.len()));

    let outcomes = in_parallel(jobs, &mutants, |mutant| {
        let outcome = try_mutant(mutant, &tests)?;
        let verdict = match (&outcome, &mutant.explanation) {
            (Outcome::Caught { by, in_time: true }, None) => format!("caught by {by}"),
            (Outcome::Caught { by, in_time: false }, None) => format!("never ends: {by}"),
            (Outcome::Caught { by, .. }, Some(_)) => {
                format!("EXPLAINED, BUT CAUGHT by {by}")
            }
            (_, Some(why)) => format!("survives: {why}"),
            (Outcome::Survived, None) => "SURVIVES".to_owned(),
            (Outcome::Unmet, None) => "NO TEST COMES HERE".to_owned(),
        };
        println!("{mutant} {verdict}");
        Ok((outcome, verdict))
    })?;

    let (mut caught, mut explained, mut failures) = (0, 0, Vec::new());
    for (mutant, (outcome, verdict)) in mutants.iter().zip(outcomes) {
        match (outcome, &mutant.explanation) {
            (Outcome::Caught { .. }, None) => caught += 1,
            (Outcome::Survived | Outcome::Unmet, Some(_)) => explained += 1,
            _ => failures.push(format!("{mutant} {verdict}")),
        }
    }
    println!(
        "models: {} mutants, {caught} caught, \
         {explained} survive with an explanation, {} unexplained",
        mutants.len(),
        failures.len(),
    );
    if !failures.is_empty() {
        bail!("not as it should be:\n  {}", failures.join("\n  "));
    }
    Ok(mutants.len())
}

fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(SOURCES))? {
        let path = entry?.path();
        // The models test the algorithms, and not themselves.
        if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("loom.rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Finds everything in a file that can be broken.
fn read(path: &Path, mutants: &mut Vec<Mutant>) -> Result<()> {
    let source = fs::read_to_string(path)?;
    // A file's own tests stand at its end.
    let source = source.split("\n#[cfg(all(test").next().unwrap_or_default();
    let file = path.strip_prefix(root().join("crates/semlock/src"))?.display().to_string();
    let before = mutants.len();
    let mut explained = HashSet::new();
    for (offset, _) in source.match_indices("rule(\"") {
        let name = source[offset..].split('"').nth(1).context("a rule's name")?;
        let (line, _) = line_and_column(source, offset);
        let explanation = explanation(source, line, "this rule", &mut explained);
        mutants.push(Mutant {
            place: format!("{file}:{line}"),
            what: format!("without {}", name.split_once('/').map_or(name, |(_, it)| it)),
            meets: name.to_owned(),
            breaks: name.to_owned(),
            explanation,
        });
    }
    for access in accesses(source)? {
        let (line, column) = line_and_column(source, access.offset);
        for (part, order) in access.orderings {
            let site = format!("{file}:{line}:{column}/{part}");
            let is_failure = if part == "failure" { "on failure" } else { "here" };
            for weaker in weaker(part, &order) {
                let than = format!("more than {weaker} {is_failure}");
                mutants.push(Mutant {
                    place: format!("{file}:{line}"),
                    what: format!("{} {part} {order} → {weaker}", access.called),
                    meets: site.clone(),
                    breaks: format!("{site}/{weaker}"),
                    explanation: explanation(source, line, &than, &mut explained),
                });
            }
        }
    }
    mutants[before..].sort_by_key(|mutant| {
        mutant.place.rsplit_once(':').and_then(|(_, line)| line.parse::<u32>().ok())
    });
    // A comment that explains no mutant belongs to code that is gone.
    for (number, line) in source.lines().enumerate() {
        let line = line.trim_start();
        ensure!(
            !line.starts_with(MARKER) || explained.contains(line),
            "{file}:{}: this comment stands above nothing that it explains",
            number + 1
        );
    }
    Ok(())
}

/// Builds the tests; returns their programs.
fn build() -> Result<Vec<PathBuf>> {
    let mut command = Command::new(cargo());
    command
        .args(["test", "--package=semlock", "--lib", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .args(["--target-dir", FOLDER])
        .arg("--config=build.rustflags=['--cfg', 'loom', '--cfg', 'semlock_mutation']")
        .args(QUICKLY_LINKED)
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    say("models: building");
    let output = command.output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "the models cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<_> = messages
        .split("\"executable\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next().map(PathBuf::from))
        .collect();
    ensure!(!programs.is_empty(), "cargo built no models");
    Ok(programs)
}

/// Runs each test unbroken, to find out how long it takes and what it meets; quickest first.
fn tests(programs: &[PathBuf], jobs: usize) -> Result<Vec<Test>> {
    let mut names = Vec::new();
    for program in programs {
        let list = Command::new(program).args(["--list", "--format=terse"]).output()?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        names.extend(
            list.lines()
                .filter_map(|line| line.strip_suffix(": test"))
                .filter(|name| name.starts_with(MODELS))
                .map(|name| (program, name.to_owned())),
        );
    }
    ensure!(!names.is_empty(), "there are no tests {MODELS}…");
    let notes = root().join(FOLDER).join("seen");
    fs::create_dir_all(&notes)?;
    let mut tests = in_parallel(jobs, &names, |(program, name)| {
        let note = notes.join(name.replace("::", "-"));
        let _ = fs::remove_file(&note);
        let mut test = Test {
            program: (*program).clone(),
            name: name.clone(),
            time: LONGEST / MANY,
            meets: HashSet::new(),
        };
        let began = Instant::now();
        let end = test.run("SEMLOCK_MUTATION_SEEN", &note.to_string_lossy())?;
        ensure!(end == End::Passed, "{name} fails with nothing broken ({end:?})");
        test.time = began.elapsed();
        let seen = fs::read_to_string(&note).unwrap_or_default();
        test.meets = seen.lines().map(str::to_owned).collect();
        Ok(test)
    })?;
    tests.sort_by_key(|test| test.time);
    Ok(tests)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// Many times its usual time was not enough.
    Never,
}

/// No test takes longer, unless it is broken.
const LONGEST: Duration = Duration::from_secs(600);
/// So many times as long as usual may be a noisy machine.
const MANY: u32 = 20;

impl Test {
    fn run(&self, variable: &str, value: &str) -> Result<End> {
        let mut command = Command::new(&self.program);
        command
            .args(["--exact", &self.name, "--test-threads=1"])
            .env_remove("SEMLOCK_MUTATION")
            .env(variable, value)
            .env("RUST_BACKTRACE", "0")
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let time = (self.time * MANY).clamp(LONGEST / MANY, LONGEST);
        let Some(status) = child.wait_timeout(time)? else {
            child.kill()?;
            child.wait()?;
            return Ok(End::Never);
        };
        Ok(if status.success() { End::Passed } else { End::Failed })
    }
}

fn try_mutant(mutant: &Mutant, tests: &[Test]) -> Result<Outcome> {
    let mut is_met = false;
    for test in tests.iter().filter(|test| test.meets.contains(&mutant.meets)) {
        is_met = true;
        let end = test.run("SEMLOCK_MUTATION", &mutant.breaks)?;
        if end != End::Passed {
            let by = test.name.rsplit("::").next().unwrap_or_default().to_owned();
            return Ok(Outcome::Caught { by, in_time: end == End::Failed });
        }
    }
    Ok(if is_met { Outcome::Survived } else { Outcome::Unmet })
}

/// Calls a function for each item, so many at a time, and returns the results.
fn in_parallel<T: Sync, R: Send>(
    jobs: usize,
    all: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(item) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    all.get(index).map(|item| (index, item))
                } {
                    let result = work(item.1);
                    if result.is_err() {
                        // The other threads can stop.
                        next.store(all.len(), Ordering::Relaxed);
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(item.0, result);
                }
            });
        }
    });
    let mut done: Vec<_> =
        done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
    done.sort_by_key(|&(index, _)| index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// An access to an atomic.
struct Access {
    /// Of the method's name, which is what the compiler calls its place.
    offset: usize,
    called: &'static str,
    /// As the facade calls them.
    orderings: Vec<(&'static str, String)>,
}

const METHODS: [&str; 6] = ["load", "store", "swap", "compare_exchange", "fetch_add", "fetch_max"];

/// Finds each access of an atomic in a source, and fails on an ordering that it cannot place.
fn accesses(source: &str) -> Result<Vec<Access>> {
    let mut found = Vec::new();
    for method in METHODS {
        for (offset, called) in source.match_indices(&format!(".{method}(")) {
            let arguments = enclosed(&source[offset + called.len()..]);
            let orders: Vec<_> = arguments
                .match_indices("Ordering::")
                .map(|(at, path)| &arguments[at + path.len()..])
                .map(|rest| rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>())
                .collect();
            let parts: &[_] = match orders.len() {
                0 => continue,
                1 => &[method],
                2 => &["success", "failure"],
                _ => bail!("{method} with more than two orderings: {arguments}"),
            };
            let orderings = parts.iter().copied().zip(orders).collect();
            found.push(Access { offset: offset + 1, called: method, orderings });
        }
    }
    let placed: usize = found.iter().map(|access| access.orderings.len()).sum();
    // (Those of comments have no path.)
    let all = source.matches("Ordering::").count();
    ensure!(placed == all, "{placed} of {all} memory orderings are an argument of an access");
    Ok(found)
}

/// Everything up to the parenthesis that closes.
fn enclosed(source: &str) -> &str {
    let mut depth = 0;
    let end = source.find(|letter| {
        depth += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth < 0
    });
    &source[..end.unwrap_or(source.len())]
}

fn line_and_column(source: &str, offset: usize) -> (usize, usize) {
    let before = &source[..offset];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

fn weaker(part: &str, order: &str) -> &'static [&'static str] {
    match (part, order) {
        ("load" | "failure", "SeqCst") => &["Acquire", "Relaxed"],
        ("store", "SeqCst") => &["Release", "Relaxed"],
        (_, "SeqCst") => &["AcqRel", "Acquire", "Release", "Relaxed"],
        (_, "AcqRel") => &["Acquire", "Release", "Relaxed"],
        (_, "Acquire" | "Release") => &["Relaxed"],
        _ => &[],
    }
}

const MARKER: &str = "// No test needs ";

/// The explanation, in the comment directly above a statement, of something in that statement.
fn explanation(
    source: &str,
    line: usize,
    of_what: &str,
    explained: &mut HashSet<String>,
) -> Option<String> {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    // Up to where the statement begins, then through the comment.
    let is_comment = |line: &str| line.starts_with("//");
    let mut first = line - 1;
    while first > 0 && !is_comment(lines[first - 1]) && !ends_statement(lines[first - 1]) {
        first -= 1;
    }
    let end = first;
    while first > 0 && is_comment(lines[first - 1]) {
        first -= 1;
    }
    let comment = &lines[first..end];
    let wanted = format!("{MARKER}{of_what}: ");
    let begin = comment.iter().position(|line| line.starts_with(&wanted))?;
    explained.insert(comment[begin].to_owned());
    let rest = comment[begin + 1..].iter().take_while(|line| !line.starts_with(MARKER));
    let words = std::iter::once(&comment[begin][wanted.len()..])
        .chain(rest.map(|line| line.trim_start_matches('/').trim()));
    Some(words.collect::<Vec<_>>().join(" "))
}

fn ends_statement(line: &str) -> bool {
    line.is_empty() || line.ends_with([';', '{', '}', ','])
}

//! Leaves out one rule of the crash protocol at a time, and checks that a test fails.
//!
//! A rule is what the code asks `rule("area/name")` about (see `mutation.rs` of the core). The
//! models test those of `word/`; for each other one the table below names the test. That test runs
//! twice. With nothing taken out it has to pass. Without the rule it has to fail, or not to end in
//! many times its usual time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, waitpid,
};
use wait_timeout::ChildExt;

use crate::command::{cargo, root};
use crate::python::{Environment, Interpreter};
use crate::sources;

/// The test that fails if a rule is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    /// A unit test of the core, by its path.
    Unit(&'static str),
    /// A test of `crates/semlock/tests/shared.rs`.
    Shared(&'static str),
    /// A scenario of `crates/semlock/tests/crash`.
    Crash(&'static str),
    /// A Python test: its file in `tests/`, and its name.
    Pytest(&'static str, &'static str),
}

use Test::{Crash, Pytest, Shared, Unit};

const WAITERS: &str = "test_condition_event_barrier.py";
const BAD_INPUT: &str = "test_shared_bad_input.py";
const ENDS: &str = "test_ends.py";
const FORKS: &str = "test_forks.py";
const HEIRS: &str = "test_heirs.py";
const OWNERS: &str = "test_owner_died.py";
const SIGNALS: &str = "test_signals.py";
const WATCH: &str = "test_watch.py";

const ENDED: Test = Unit(
    "os::posix::process::tests::a_process_that_ended_is_dead_before_and_after_somebody_waits_for_it",
);
const RECYCLED: Test =
    Unit("os::posix::process::tests::a_process_whose_pid_another_process_has_is_dead");
const THREAD: Test = Unit("os::linux::process::tests::a_process_whose_pid_a_thread_has_is_dead");
const FOREIGN: Test = Unit(
    "backend::shared::wait_schedule::tests::a_foreign_process_leaves_watching_and_checking_to_others",
);
const HALF_A_BARRIER: Test =
    Shared("a_member_killed_when_half_of_a_barrier_is_through_leaves_no_member_waiting");
const PASSED_ON: Test =
    Pytest(WAITERS, "test_a_waiter_that_dies_after_it_was_notified_passes_it_on");
const REPLACED: Test = Pytest(OWNERS, "test_a_killed_holder_is_replaced_by_exactly_one_waiter");
const DAEMON: Test = Pytest(
    OWNERS,
    "test_a_daemon_that_forked_while_it_held_a_lock_holds_it_after_its_parent_ended",
);
const NO_HEIR: Test = Pytest(HEIRS, "test_a_lock_is_recovered_though_its_holder_had_a_child_that");
const HELD_MUTEX: Test =
    Unit("os::posix::fork_mutex::tests::a_forked_child_finds_a_held_mutex_free_and_its_value_new");

const RULES: &[(&str, Test)] = &[
    ("barrier/its-own-lock-is-watched", HALF_A_BARRIER),
    (
        "barrier/members-are-watched",
        Pytest(WAITERS, "test_a_member_that_dies_while_it_waits_breaks_the_barrier"),
    ),
    (
        "barrier/the-dead-are-no-members-for-ever",
        Pytest(WAITERS, "test_the_nodes_of_members_that_all_died_are_used_again"),
    ),
    (
        "barrier/the-last-checks-the-others",
        Shared("the_last_member_checks_whether_the_earlier_ones_live"),
    ),
    ("barrier/what-is-half-done-breaks-it", HALF_A_BARRIER),
    (
        "barrier/leaving-the-action-breaks-it",
        Shared("a_member_that_leaves_instead_of_running_the_action_breaks_the_barrier"),
    ),
    (
        "condition/empty-only-without-waiters",
        Shared("notify_wakes_exactly_so_many_and_the_oldest_first"),
    ),
    (
        "condition/reclaims-nodes-of-the-dead",
        Pytest(WAITERS, "test_the_nodes_of_dead_waiters_are_used_again"),
    ),
    ("condition/the-watcher-passes-on", PASSED_ON),
    ("condition/later-waiters-get-nothing", PASSED_ON),
    (
        "create/where-there-is-a-descriptor",
        Pytest(BAD_INPUT, "test_what_is_made_after_all_descriptors_were_closed_reaches_children"),
    ),
    (
        "end/a-status-says-whether-it-is-good",
        Pytest(
            ENDS,
            "test_a_process_that_a_program_forks_leaves_its_plain_lock_held_if_it_ends_well",
        ),
    ),
    (
        "end/what-a-running-thread-holds-is-not-left",
        Pytest(
            ENDS,
            "test_a_program_that_ends_well_leaves_what_all_threads_but_daemons_have_acquired",
        ),
    ),
    (
        "end/what-is-held-at-a-good-end-is-left",
        Pytest(ENDS, "test_a_child_leaves_its_plain_lock_held_if_it_ends_well_and_only_then"),
    ),
    (
        "fork/a-child-does-not-wait-for-its-parent",
        Pytest(
            WAITERS,
            "test_a_fork_in_a_handler_that_interrupted_a_wait_leaves_the_wait_to_its_parent",
        ),
    ),
    (
        "fork/a-child-is-no-member-for-its-parent",
        Pytest(FORKS, "test_a_fork_in_a_handler_leaves_its_parents_place_at_a_barrier_alone"),
    ),
    (
        "fork/a-child-makes-its-own-segment",
        Pytest(FORKS, "test_what_a_child_makes_lies_in_a_segment_of_its_own"),
    ),
    (
        "fork/a-later-child-is-an-heir-too",
        Pytest(HEIRS, "test_a_child_that_is_forked_later_is_an_heir_too"),
    ),
    ("fork/a-mutex-of-another-process-is-free", HELD_MUTEX),
    (
        "fork/an-rlock-has-no-heirs",
        Pytest(HEIRS, "test_an_rlock_is_recovered_though_its_holder_has_a_child"),
    ),
    (
        "fork/each-hold-has-its-own-heirs",
        Pytest(HEIRS, "test_a_child_that_was_forked_under_an_earlier_hold_is_no_heir"),
    ),
    (
        "fork/children-that-live-keep-their-slots",
        Pytest(FORKS, "test_what_a_child_has_is_never_anothers_however_many_are_made"),
    ),
    (
        "fork/no-slot-is-reused-that-a-child-may-have",
        Pytest(FORKS, "test_a_lock_that_a_child_uses_is_never_anothers_in_the_parent"),
    ),
    (
        "fork/private-memory-is-wiped",
        Unit("os::posix::mapping::tests::a_forked_child_finds_private_memory_wiped"),
    ),
    ("fork/only-what-the-forking-thread-holds-is-left", NO_HEIR),
    (
        "fork/what-a-child-has-sent-on-is-not-reused",
        Pytest(FORKS, "test_what_a_child_has_sent_on_is_its_receivers_when_the_child_is_gone"),
    ),
    ("fork/a-half-changed-value-is-replaced", HELD_MUTEX),
    ("fork/what-may-be-inherited-is-marked", DAEMON),
    (
        "fork/a-child-that-cannot-be-found-keeps-slots",
        Pytest(FORKS, "test_what_a_child_has_is_never_anothers_however_many_are_made"),
    ),
    (
        "fork/a-waiter-that-died-keeps-its-slot",
        Pytest(FORKS, "test_a_child_that_was_killed_in_a_wait_waits_nowhere_else"),
    ),
    (
        "channel/a-receiver-notices-that-its-sender-died",
        Shared("a_receiver_in_the_middle_of_a_message_notices_that_its_sender_gave_up"),
    ),
    ("counting/counts-are-made-right", Crash("counting/claim-and-send")),
    ("counting/the-dead-keep-no-places", Crash("counting/claim-and-send")),
    ("counting/no-more-than-the-limit", Shared("no_more_messages_than_the_limit_are_put")),
    (
        "counting/the-starving-come-first",
        Shared("whoever_has_waited_for_a_place_for_long_gets_the_next_one"),
    ),
    (
        "check/a-process-has-one-name",
        Unit(
            "backend::shared::segment::tests::a_process_keeps_the_name_that_it_acquired_a_lock_under",
        ),
    ),
    (
        "check/a-refusal-is-no-answer",
        Pytest(
            OWNERS,
            "test_where_pidfd_open_is_denied_the_living_keep_their_locks_and_the_dead_do_not",
        ),
    ),
    ("check/a-threads-pid", THREAD),
    ("check/an-unknown-start-proves-nothing", RECYCLED),
    (
        "check/between-signals",
        Pytest(SIGNALS, "test_signals_all_the_time_do_not_keep_a_dead_owner_from_being_found"),
    ),
    ("check/by-acquirers-that-only-try", FOREIGN),
    ("check/my-own-pid", RECYCLED),
    ("check/heirs-keep-what-they-may-hold", DAEMON),
    (
        "check/no-foreign-processes",
        Pytest(
            OWNERS,
            "test_a_holder_in_another_pid_namespace_is_foreign_and_never_recovered_from",
        ),
    ),
    ("check/no-such-process", ENDED),
    ("check/no-such-process-without-pidfd", ENDED),
    (
        "check/not-by-foreign-processes",
        Pytest(OWNERS, "test_a_process_in_another_pid_namespace_checks_nobody"),
    ),
    (
        "check/once-more-at-the-deadline",
        Shared("a_short_wait_checks_the_holder_once_more_at_its_deadline"),
    ),
    (
        "check/other-threads-without-pidfd",
        Pytest(
            OWNERS,
            "test_where_pidfd_open_is_denied_a_process_whose_main_thread_has_ended_lives",
        ),
    ),
    (
        "check/proc-agrees-with-pidfd",
        Pytest(OWNERS, "test_a_pid_that_means_another_process_in_a_foreign_proc_takes_no_lock"),
    ),
    (
        "check/proc-of-my-namespace",
        Pytest(
            OWNERS,
            "test_the_proc_of_another_pid_namespace_without_pidfd_open_takes_nothing_from_the_living",
        ),
    ),
    ("check/readable-pidfd", ENDED),
    ("check/start-time", RECYCLED),
    ("check/start-time-without-pidfd", RECYCLED),
    (
        "check/foreign-processes-are-named-so",
        Pytest(
            OWNERS,
            "test_a_holder_in_another_pid_namespace_is_foreign_and_never_recovered_from",
        ),
    ),
    (
        "check/the-next-holder-is-told-too",
        Pytest(OWNERS, "test_if_the_warning_is_an_error_the_next_holder_is_told_too"),
    ),
    (
        "check/a-process-that-proc-hides-lives",
        Pytest(OWNERS, "test_where_proc_hides_the_processes_of_others_the_living_keep_their_locks"),
    ),
    (
        "check/proc-overrules-a-readable-pidfd",
        Unit("os::linux::process::tests::a_pidfd_whose_number_was_reused_proves_nothing"),
    ),
    (
        "check/a-clean-acquire-forgets-the-death",
        Pytest(OWNERS, "test_a_recovered_lock_that_another_released_tells_of_no_death_any_more"),
    ),
    (
        "check/unknown-heirs-keep-it-too",
        Pytest(
            HEIRS,
            "test_where_the_system_tells_of_no_heirs_a_lock_that_was_held_at_a_fork_is_kept",
        ),
    ),
    ("check/zombie-without-pidfd", ENDED),
    (
        "places/a-full-table-reclaims-dead-places",
        Shared("places_of_waiters_that_died_are_used_again"),
    ),
    (
        "places/a-waiter-without-a-place-tries-again-soon",
        Unit(
            "backend::shared::wait_schedule::tests::a_waiter_without_a_place_tries_again_soon_and_then_less_often",
        ),
    ),
    ("places/a-waiter-keeps-its-place", Shared("a_waiter_keeps_its_place_when_it_wakes_to_check")),
    (
        "sleep/gives-a-turn",
        Pytest(SIGNALS, "test_a_signal_that_interrupts_no_sleep_is_handled_soon"),
    ),
    ("sleep/is-bounded", REPLACED),
    ("watch/is-handed-over", Pytest(WATCH, "test_a_watcher_that_gives_up_wakes_another_to_watch")),
    ("watch/checks", REPLACED),
    ("watch/not-by-foreign-processes", FOREIGN),
    (
        "watch/not-without-a-descriptor",
        Pytest(WATCH, "test_a_watcher_without_a_descriptor_left_hands_the_watch_over"),
    ),
];

/// The flags and the folder for builds whose rules can be left out. Maturin passes the flags on to
/// cargo.
pub const FLAGS: &str = "--config=build.rustflags=['--cfg', 'semlock_mutation']";
pub const FOLDER: &str = "target/mutation";

/// Tries all rules, or those whose name contains `only`; returns how many.
pub fn mutants(python: Option<&Path>, only: Option<&str>) -> Result<usize> {
    let began = Instant::now();
    check()?;
    let rules: Vec<_> =
        RULES.iter().filter(|(rule, _)| only.is_none_or(|only| rule.contains(only))).collect();
    if rules.is_empty() {
        return Ok(0);
    }
    // What a test leaves behind becomes this process's child, which ends it.
    set_child_subreaper(Some(rustix::process::getpid()))?;

    let any = |is_python| rules.iter().any(|(_, test)| matches!(test, Pytest(..)) == is_python);
    let programs = Programs {
        rust: if any(false) { build()? } else { BTreeMap::new() },
        python: any(true).then(|| set_up(python)).transpose()?,
    };
    fs::create_dir_all(root().join(FOLDER))?;
    let mut usual = BTreeMap::new();
    for test in rules.iter().map(|(_, test)| *test).collect::<BTreeSet<_>>() {
        let began = Instant::now();
        match programs.run(test, None, LONGEST)? {
            End::Passed => usual.insert(test, began.elapsed()),
            end => bail!("with nothing taken out, {test} {end}"),
        };
    }
    let mut survive = 0;
    for (rule, test) in &rules {
        let time = (usual[test] * MANY).clamp(LEAST, LONGEST);
        let end = programs.run(*test, Some(rule), time)?;
        if end == End::Passed {
            survive += 1;
            println!("{rule:<46} SURVIVES {test}");
        } else {
            println!("{rule:<46} caught by {test}, which {end}");
        }
    }
    println!(
        "protocol: {} rules, {} caught, {survive} survive ({} s)",
        rules.len(),
        rules.len() - survive,
        began.elapsed().as_secs()
    );
    ensure!(survive == 0, "{survive} rules are kept for no test's sake");
    Ok(rules.len())
}

/// The table names each rule of the code once, and nothing else; and the tests that it names exist.
pub fn check() -> Result<()> {
    ensure_table_is_whole()?;
    ensure_tests_exist()
}

fn ensure_table_is_whole() -> Result<()> {
    let source = root().join("crates/semlock/src");
    let (word, mutation) = (source.join("word"), source.join("mutation.rs"));
    let mut named = BTreeSet::new();
    for path in sources::files(&source, "rs")? {
        // The models test what is in `word`; the other one says what a rule is.
        if !path.starts_with(&word) && path != mutation {
            named.extend(rules_in(&fs::read_to_string(path)?)?);
        }
    }
    let listed: BTreeSet<_> = RULES.iter().map(|&(rule, _)| rule.to_owned()).collect();
    ensure!(listed.len() == RULES.len(), "the table names a rule twice");
    let missing: Vec<_> = named.difference(&listed).cloned().collect();
    ensure!(missing.is_empty(), "no test is named for {}", missing.join(", "));
    let gone: Vec<_> = listed.difference(&named).cloned().collect();
    ensure!(gone.is_empty(), "the table has what is no rule: {}", gone.join(", "));
    Ok(())
}

/// The names of the rules in a source.
fn rules_in(source: &str) -> Result<Vec<String>> {
    let asked = source.split("rule(\"").skip(1);
    asked.map(|rest| Ok(rest.split_once('"').context("a rule's name")?.0.to_owned())).collect()
}

fn ensure_tests_exist() -> Result<()> {
    let (unit, shared) = (sources::unit_tests()?, sources::tests_of("shared")?);
    let mut crash = String::new();
    for path in sources::files(&root().join("crates/semlock/tests/crash"), "rs")? {
        crash.push_str(&fs::read_to_string(path)?);
    }
    let mut python = BTreeMap::new();
    let mut missing = BTreeSet::new();
    for &(_, test) in RULES {
        let exists = match test {
            Unit(name) => unit.iter().any(|known| is_called(known, name)),
            Shared(name) => shared.contains(name),
            Crash(name) => crash.contains(&format!("(\"{name}\"")),
            Pytest(file, name) => {
                if !python.contains_key(file) {
                    python.insert(file, sources::pytests_in(file)?);
                }
                python[file].contains(name)
            }
        };
        if !exists {
            missing.insert(test.to_string());
        }
    }
    let missing: Vec<_> = missing.into_iter().collect();
    ensure!(missing.is_empty(), "the table names tests that do not exist: {}", missing.join(", "));
    Ok(())
}

/// Whether a unit test has this name. `os::system` in a name means the folder of the system that
/// this is.
fn is_called(known: &str, name: &str) -> bool {
    let (known, name) = (known.split("::"), name.split("::"));
    known.clone().count() == name.clone().count()
        && known.zip(name).all(|(known, name)| known == name || name == "system")
}

/// Builds the Rust tests; returns their programs by the targets' names.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let mut command = Command::new(cargo());
    command
        .args(["test", "--package=semlock", "--no-run", "--lib", "--test=shared", "--test=crash"])
        .arg("--message-format=json-render-diagnostics")
        .args(["--target-dir", FOLDER, FLAGS])
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    println!("\n# building the Rust tests with rules that can be taken out");
    let output = command.output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = BTreeMap::new();
    for rest in messages.split("\"executable\":\"").skip(1) {
        let path = PathBuf::from(rest.split('"').next().unwrap_or_default());
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.split('-').next().unwrap_or_default().to_owned();
        programs.insert(name, path);
    }
    Ok(programs)
}

/// An environment of its own with such a wheel.
fn set_up(python: Option<&Path>) -> Result<Environment> {
    let main = Environment::main(Interpreter::choose(python)?)?;
    let wheel = main.build_wheel_in(FOLDER, &["--target-dir", FOLDER, FLAGS])?;
    let environment = Environment::mutation(main.interpreter)?;
    environment.install(&wheel)?;
    Ok(environment)
}

struct Programs {
    rust: BTreeMap<String, PathBuf>,
    python: Option<Environment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed(String),
    /// Many times its usual time was not enough.
    Never,
}

/// No test takes longer, unless it hangs.
const LONGEST: Duration = Duration::from_secs(180);
/// However short it usually is, it may take so long on a noisy machine.
const LEAST: Duration = Duration::from_secs(20);
/// Otherwise so many times as long.
const MANY: u32 = 10;

impl Programs {
    fn run(&self, test: Test, without: Option<&str>, time: Duration) -> Result<End> {
        let mut command = self.command(test)?;
        let said_in = root().join(FOLDER).join("said.txt");
        let said = File::create(&said_in)?;
        command
            .env_remove("SEMLOCK_MUTATION")
            .envs(without.map(|rule| ("SEMLOCK_MUTATION", rule)))
            .env("RUST_BACKTRACE", "0")
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("{test} cannot be started"))?;
        let group = Pid::from_child(&child);
        let status = child.wait_timeout(time)?;
        if status.is_none() {
            // Until it is waited for, nobody else has its number.
            kill_process_group(group, Signal::KILL)?;
            child.wait()?;
        }
        end_orphans()?;
        remove_names(child.id())?;
        let Some(status) = status else { return Ok(End::Never) };
        test.end(status, &fs::read_to_string(said_in)?)
    }

    fn command(&self, test: Test) -> Result<Command> {
        let rust = |program: &str, name| -> Result<Command> {
            let path = self.rust.get(program).context("cargo has built no such test")?;
            let mut command = Command::new(path);
            command.args(["--exact", name, "--test-threads=1"]);
            Ok(command)
        };
        match test {
            Unit(name) => rust("semlock", name),
            Shared(name) => rust("shared", name),
            Crash(name) => rust("crash", name),
            Pytest(file, name) => {
                let python = self.python.as_ref().context("no environment was set up")?.python();
                let mut command = Command::new(python);
                command
                    .args(["-m", "pytest", "--numprocesses=0", "--exitfirst", "--quiet"])
                    .args(["-p", "no:cacheprovider"])
                    .arg(format!("tests/{file}::{name}"));
                Ok(command)
            }
        }
    }
}

impl Test {
    /// How it ended; an error if it did not run.
    fn end(self, status: ExitStatus, said: &str) -> Result<End> {
        let failed = match self {
            Unit(_) | Shared(_) | Crash(_) => 101,
            Pytest(..) => 1,
        };
        match (status.code(), status.signal()) {
            (Some(0), _) => {
                // A name that no test has passes too, and so does what is skipped.
                let ran = match self {
                    Unit(_) | Shared(_) | Crash(_) => {
                        said.contains("; 0 failed;") && said.contains(" 1 passed")
                    }
                    Pytest(..) => said.contains(" passed") && !said.contains(" skipped"),
                };
                ensure!(ran, "{self} did not run here:\n{said}");
                Ok(End::Passed)
            }
            (Some(code), _) if code == failed => Ok(End::Failed("fails".into())),
            // Its own watchdog, or what a broken rule did to it.
            (None, Some(signal)) => Ok(End::Failed(format!("ends by signal {signal}"))),
            _ => bail!("{self} could not be run ({status}):\n{said}"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Unit(name) => name.to_owned(),
            Shared(name) => format!("tests/shared.rs {name}"),
            Crash(name) => format!("tests/crash {name}"),
            Pytest(file, name) => format!("tests/{file}::{name}"),
        };
        f.pad(&name)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passes"),
            Self::Failed(how) => f.write_str(how),
            Self::Never => f.write_str("does not end"),
        }
    }
}

/// Ends what the test has left behind, in whatever session: all of that is this process's child by
/// now, or becomes it when its own parent ends.
fn end_orphans() -> Result<()> {
    loop {
        let mut found = false;
        for pid in children()? {
            found = true;
            // It is this process's child, and so nobody else's number.
            kill_process(pid, Signal::KILL)?;
            waitpid(Some(pid), WaitOptions::empty())?;
        }
        if !found {
            return Ok(());
        }
    }
}

fn children() -> Result<Vec<Pid>> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has just ended has no such file.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&*me) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// Unlinks the semaphores of a test that could not do it: their names bear its number.
fn remove_names(pid: u32) -> Result<()> {
    let number = pid.to_string();
    for entry in fs::read_dir("/dev/shm")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("semlock") && name.split('-').any(|part| part == number) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

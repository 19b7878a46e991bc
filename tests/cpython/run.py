"""CPython's own suites of multiprocessing, on semlock's two backends.

Usage: python run.py [--jobs N] PYTHON ...

On `kernel`, semlock's `_multiprocessing` replaces the interpreter's in every process. On `shared`,
the program that runs the tests calls `semlock.install()` first, as do the programs that the tests
start. `install()` reaches their children as it reaches a user's.

semlock must be installed in each interpreter that is given. The program runs all that its own
`test._test_multiprocessing` defines, for fork, spawn and forkserver, and
`test.test_multiprocessing_main_handling`. A test that fails runs again alone, several times. If it
fails again, it runs alone as often on the stock module, the interpreter's own: only if it passes
there is it a failure of ours. The program also runs the skipped tests on the stock module, to show
that we skip only what the interpreter skips itself. And it counts the SemLocks of every process, to
show that our module was in use. (The few processes that tests start with -I, -E or -S get neither
our module nor the counting.)
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The longest first.
SUITES = ("spawn", "forkserver", "fork", "main_handling")
BACKENDS = ("shared", "kernel")
# The interpreter's own module, to compare with.
STOCK = "stock"

# CPython's own division: some tests leave another start method behind, and must run last.
PARTS = {
    "processes": {"only_type": "processes"},
    "threads": {"only_type": "threads"},
    "manager": {"only_type": "manager"},
    "misc": {"exclude_types": True},
}
# 3.11 and older do not divide it.
WHOLE = {"whole": {}}

MODULE = """\
from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), {method!r}, **{part!r})
"""

ASK = """\
import inspect, platform, sysconfig
from test import _test_multiprocessing
parameters = inspect.signature(_test_multiprocessing.install_tests_in_module_dict).parameters
free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(platform.python_version() + free_threaded, "only_type" in parameters)
"""
# Tests that demand what users of the shared backend do not want. tests/test_cpython_exceptions.py
# tests the opposite of each.
EXCEPTIONS = {
    # There is no resource tracker to start or to kill.
    "TestResourceTracker.test_resource_tracker_sigkill",
    # A fork context's lock works in a spawned child.
    "TestStartMethod.test_mixed_startmethod",
}

# Seconds of a watchdog: a suite takes one to two minutes, and some seven if a test waits for its
# time-out. First one.py prints where it hangs, then it is ended.
SECONDS = 1200
# How often a test that has failed once must pass alone.
RERUNS = 5
# Running process groups, which this program ends if it is ended.
GROUPS = set()


class Interpreter:
    """An interpreter with semlock installed in it."""

    # Tests that do not run on it with the shared backend.
    exceptions = EXCEPTIONS

    def __init__(self, path):
        # Not resolved: a virtual environment's path is a link.
        self.path = os.path.abspath(path)
        command = [self.path, "-c", ASK]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.version, divides = answer.stdout.split()
        self.parts = PARTS if divides == "True" else WHOLE

    def named(self, path):
        """How the interpreter names a path of this system."""
        return str(path)

    def joined(self, paths):
        """A PYTHONPATH for the interpreter."""
        return os.pathsep.join(map(self.named, paths))

    def write_modules(self, suite, folder):
        """Writes the modules of a suite, for its processes to import; returns their names."""
        if suite == "main_handling":
            return ["test.test_multiprocessing_main_handling"]
        names = []
        for name, part in self.parts.items():
            names.append(f"{suite}_{name}")
            source = MODULE.format(method=suite, part=part)
            Path(folder, f"{names[-1]}.py").write_text(source)
        return names


class Run:
    """One run of a suite, or of some of its tests (`[]`: none, only to list them all)."""

    def __init__(self, interpreter, suite, backend, tests=None, seconds=SECONDS):
        with tempfile.TemporaryDirectory(prefix="semlock-cpython-") as folder:
            result, notes = Path(folder, "result.json"), Path(folder, "notes")
            notes.touch()
            work, modules = Path(folder, "work"), Path(folder, "modules")
            work.mkdir()
            modules.mkdir()
            names = interpreter.write_modules(suite, modules)
            replacement = [HERE / "replacement"] if backend == "kernel" else []
            path = [HERE / "notes", modules, *replacement]
            environment = dict(
                os.environ,
                PYTHONPATH=interpreter.joined(path),
                PYTHONDONTWRITEBYTECODE="1",
                SEMLOCK_NOTES=interpreter.named(notes),
                TMPDIR=str(work),
            )
            is_shared = backend == "shared"
            if is_shared:
                environment["SEMLOCK_INSTALL"] = backend
            request = {
                "modules": names,
                "tests": tests,
                "exceptions": sorted(interpreter.exceptions) if is_shared else [],
                "seconds": seconds,
                "result": interpreter.named(result),
            }
            program = interpreter.named(HERE / "one.py")
            command = [interpreter.path, program, json.dumps(request)]
            with open(Path(folder, "output"), "w+", errors="replace") as output:
                exit_code = self.run(seconds, command, cwd=work, env=environment, stdout=output)
                output.seek(0)
                self.output = output.read()
            if not result.exists():
                raise RuntimeError(
                    f"{suite} ended with exit code {exit_code} before it had a result:\n"
                    f"{self.output[-8000:]}"
                )
            outcome = json.loads(result.read_text())
            self.notes = collections.Counter()
            self.processes = collections.Counter()
            for line in notes.read_text().splitlines():
                pid, how, module = line.split()
                self.notes[how, module] += 1
                self.processes[pid] += 1
        self.all = set(outcome["all"])
        self.count = outcome["count"]
        self.skipped = outcome["skipped"]
        self.excepted = set(outcome["excepted"])
        self.bad = outcome["bad"]

    def run(self, seconds, command, **options):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
        GROUPS.add(process.pid)
        try:
            return process.wait(seconds + 60)
        finally:
            # End whatever it left running: its children are in its group.
            self.end_group(process.pid)
            process.wait()
            GROUPS.discard(process.pid)

    @staticmethod
    def end_group(group):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def at_the_same_time(jobs):
    """Threads for several runs. Whatever still runs when the block ends is ended."""
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for group in list(GROUPS):
            Run.end_group(group)


def loadable(test):
    """The name that loads a test: fixtures that fail or skip are named `setUpClass (class)`."""
    return test.partition("(")[2].rstrip(")") or test


def fails_alone(interpreter, suite, backend, test):
    """Whether a test fails in one of RERUNS runs alone."""
    for _ in range(RERUNS):
        run = Run(interpreter, suite, backend, tests=[loadable(test)])
        if test in run.bad:
            return True
        if not run.count:
            raise RuntimeError(f"{test} cannot be run alone:\n{run.output}")
    return False


def check(interpreter, suite, backend):
    """Runs a suite; returns a line for people, what is wrong, and what is worth a remark."""
    start = time.monotonic()
    ours = Run(interpreter, suite, backend)
    wrong, remarks = [], []
    for test, traceback in sorted(ours.bad.items()):
        if not fails_alone(interpreter, suite, backend, test):
            remarks.append(f"{test} failed, and passed {RERUNS} times when run alone:\n{traceback}")
        elif fails_alone(interpreter, suite, STOCK, test):
            remarks.append(f"{test} fails on the stock module too:\n{traceback}")
        else:
            wrong.append(
                f"{test} fails, and passes {RERUNS} times on the stock module:\n{traceback}"
            )

    stock = Run(interpreter, suite, STOCK, tests=sorted(map(loadable, ours.skipped)))
    if stock.skipped != ours.skipped:
        # Some tests skip because of what earlier tests left: then all have to run.
        stock = Run(interpreter, suite, STOCK)
    if stock.all != ours.all:
        wrong.append(f"tests that only one of the modules has: {sorted(stock.all ^ ours.all)}")
    for test, reason in ours.skipped.items():
        if stock.skipped.get(test) != reason:
            wrong.append(f"{test} is skipped ({reason}), and is not on the stock module")

    made, rebuilt = ours.notes["made", "semlock"], ours.notes["rebuilt", "semlock"]
    foreign = ours.notes.total() - made - rebuilt
    if foreign:
        wrong.append(f"{foreign} locks were the interpreter's own")
    if not (made and (suite == "fork" or (rebuilt and len(ours.processes) > 1))):
        wrong.append("too few locks to show that semlock was in use in parents and children")
    line = (
        f"CPython {interpreter.version} {suite} on {backend}: {ours.count} tests run, "
        f"{len(ours.skipped)} skipped (the same on the stock module), {len(ours.excepted)} "
        f"excepted, {len(ours.bad)} failed at first, {len(wrong)} wrong; {made} locks of semlock "
        f"made and {rebuilt} rebuilt, {foreign} of stock, in {len(ours.processes)} processes (per "
        f"process: {shortened(ours.processes)}); {time.monotonic() - start:.0f} s"
    )
    return line, wrong, remarks


def semaphores():
    """The files of this user's named semaphores of multiprocessing, where they are files."""
    found = set()
    for file in Path("/dev/shm").glob("sem.mp-*"):
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_uid == os.getuid():
                found.add(file)
    return found


def unlink_orphans(files):
    """Unlinks the files that no process has open; returns them."""
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            used.update(maps.read_text().split())
    orphans = [file for file in files if str(file) not in used]
    for file in orphans:
        file.unlink(missing_ok=True)
    return orphans


def shortened(processes):
    groups = collections.Counter(sorted(processes.values(), reverse=True))
    return ", ".join(f"{count} x{n}" if n > 1 else str(count) for count, n in groups.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=5, help="suites to run at the same time")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="only this one")
    parser.add_argument("python", nargs="+")
    arguments = parser.parse_args()
    # A shell's background jobs ignore SIGINT, and so do all processes that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interpreters = [Interpreter(path) for path in arguments.python]
    failed, before = 0, semaphores()
    with at_the_same_time(arguments.jobs) as pool:
        runs = {
            pool.submit(check, interpreter, suite, backend): (
                f"CPython {interpreter.version} {suite} on {backend}"
            )
            # One run of each suite at a time: some compute, and some mostly wait.
            for backend in arguments.backend or BACKENDS
            for interpreter in interpreters
            for suite in arguments.suite or SUITES
        }
        for run in concurrent.futures.as_completed(runs):
            try:
                line, wrong, remarks = run.result()
            except (RuntimeError, subprocess.SubprocessError) as error:
                line, wrong, remarks = runs[run], [str(error)], []
            print(line, *(f"  note: {remark}" for remark in remarks), sep="\n", flush=True)
            for problem in wrong:
                print(f"  WRONG: {problem}", flush=True)
            failed += bool(wrong)
    # Some of CPython's tests kill a process and its resource tracker.
    if orphans := unlink_orphans(semaphores() - before):
        print(f"note: unlinked {len(orphans)} semaphores that tests had left behind")
    total = len(runs)
    print(f"CPython's suites: {total - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

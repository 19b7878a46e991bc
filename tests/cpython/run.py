"""CPython's own suites of multiprocessing, with `_multiprocessing` replaced by semlock's.

Usage: python run.py [--jobs N] PYTHON ...

For each interpreter that is given (semlock has to be installed in it), runs what its own
`test._test_multiprocessing` defines, whole, for fork, spawn and forkserver, and
`test.test_multiprocessing_main_handling`. A test that fails is run again alone; if it fails again,
it is run alone on the stock module, the interpreter's own, and only what passes there is held
against us. That we skip only what the interpreter skips unaided is shown by running the skipped
tests on the stock module, and that our module was the one in use, by counting the SemLocks of
every process.
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITES = ("fork", "spawn", "forkserver", "main_handling")

# CPython's own division: some tests leave another start method behind, and belong at the end.
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
import inspect, platform
from test import _test_multiprocessing
parameters = inspect.signature(_test_multiprocessing.install_tests_in_module_dict).parameters
print(platform.python_version(), "only_type" in parameters)
"""
# More than the suite's own watchdog, which says where it hangs.
SECONDS = 1260


class Interpreter:
    """An interpreter with semlock installed in it."""

    def __init__(self, path):
        # Not resolved: a virtual environment's is a link.
        self.path = os.path.abspath(path)
        command = [self.path, "-c", ASK]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.version, divides = answer.stdout.split()
        self.parts = PARTS if divides == "True" else WHOLE

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
    """One run of a suite, or of some of its tests."""

    def __init__(self, interpreter, suite, stock=False, tests=()):
        with tempfile.TemporaryDirectory(prefix="semlock-cpython-") as folder:
            result, notes = Path(folder, "result.json"), Path(folder, "notes")
            notes.touch()
            replacement = HERE / "replacement"
            if stock:
                # The notes, without the module.
                replacement = Path(folder, "stock")
                replacement.mkdir()
                (replacement / "sitecustomize.py").symlink_to(
                    HERE / "replacement" / "sitecustomize.py"
                )
            work, modules = Path(folder, "work"), Path(folder, "modules")
            work.mkdir()
            modules.mkdir()
            names = ",".join(interpreter.write_modules(suite, modules))
            environment = dict(
                os.environ,
                PYTHONPATH=os.pathsep.join([str(replacement), str(modules)]),
                PYTHONDONTWRITEBYTECODE="1",
                SEMLOCK_NOTES=str(notes),
                TMPDIR=str(work),
            )
            command = [interpreter.path, str(HERE / "one.py"), str(result), names, *tests]
            with open(Path(folder, "output"), "w+") as output:
                process = subprocess.Popen(
                    command,
                    cwd=work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                try:
                    process.wait(SECONDS)
                finally:
                    # Whatever it left running: its children are in its group.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                output.seek(0)
                self.output = output.read()
            if not result.exists():
                raise SystemExit(
                    f"{interpreter.path}: {suite} ended with exit code {process.returncode} "
                    f"before it had a result:\n{self.output[-8000:]}"
                )
            outcome = json.loads(result.read_text())
            self.notes = collections.Counter()
            self.processes = collections.defaultdict(collections.Counter)
            for line in notes.read_text().splitlines():
                pid, how, module = line.split()
                self.notes[how, module] += 1
                self.processes[pid][how] += 1
        self.all = set(outcome["all"])
        self.ran = outcome["run"]
        self.skipped = outcome["skipped"]
        self.bad = outcome["bad"]
        self.bad.update(dict.fromkeys(outcome["unexpected"], "unexpected success"))


def loadable(test_id):
    """What a test is loaded by: fixtures that fail or skip are named `setUpClass (class)`."""
    return test_id.partition("(")[2].rstrip(")") or test_id


def check(interpreter, suite):
    """Runs a suite; returns a line for people, and what is wrong."""
    ours = Run(interpreter, suite)
    wrong, remarks = [], []
    for test in sorted(ours.bad):
        again = Run(interpreter, suite, tests=[loadable(test)])
        if not again.bad:
            remarks.append(f"{test} failed once and passed when run again:\n{ours.bad[test]}")
        elif Run(interpreter, suite, stock=True, tests=[loadable(test)]).bad:
            remarks.append(f"{test} fails on the stock module too:\n{ours.bad[test]}")
        else:
            wrong.append(
                f"{test} fails, and passes on the interpreter's own module:\n{ours.output}"
            )

    skipped = sorted(map(loadable, ours.skipped))
    stock = Run(interpreter, suite, stock=True, tests=skipped or ["unittest"])
    if stock.skipped != ours.skipped:
        # Some tests skip by what those before them left: then all have to run.
        stock = Run(interpreter, suite, stock=True)
    if stock.all != ours.all:
        wrong.append(f"tests that only one of the modules has: {sorted(stock.all ^ ours.all)}")
    for test, reason in ours.skipped.items():
        if stock.skipped.get(test) != reason:
            wrong.append(f"{test} is skipped ({reason}), and is not on the stock module")
    made, rebuilt = ours.notes["made", "semlock"], ours.notes["rebuilt", "semlock"]
    foreign = sum(count for (_, module), count in ours.notes.items() if module == "stock")
    if foreign:
        wrong.append(f"{foreign} SemLocks were the interpreter's own")
    children = len(ours.processes) - 1
    if suite != "main_handling" and not (made and children > 0 and (rebuilt or suite == "fork")):
        wrong.append(
            f"too few SemLocks to show that semlock was in use: {made} made, {rebuilt} rebuilt, "
            f"in {len(ours.processes)} processes"
        )
    per_process = sorted((sum(count.values()) for count in ours.processes.values()), reverse=True)
    line = (
        f"CPython {interpreter.version} {suite}: {ours.ran} tests run, {len(ours.skipped)} skipped "
        f"(the same on the stock module), {len(wrong)} wrong; "
        f"{made} SemLocks made and {rebuilt} rebuilt, all of them semlock's, in "
        f"{len(per_process)} processes (per process: {shortened(per_process)})"
    )
    return line, wrong, remarks


def semaphores():
    """The files of multiprocessing's named semaphores, where they are files."""
    return set(Path("/dev/shm").glob("sem.mp-*"))


def unlink_orphans(files):
    """Unlinks those that no process has open; returns them."""
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            used.update(maps.read_text().split())
    orphans = [file for file in files if str(file) not in used]
    for file in orphans:
        file.unlink(missing_ok=True)
    return orphans


def shortened(counts):
    groups = collections.Counter(counts)
    return ", ".join(f"{count} x{n}" if n > 1 else str(count) for count, n in groups.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=3, help="suites to run at the same time")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one")
    parser.add_argument("python", nargs="+")
    arguments = parser.parse_args()
    interpreters = [Interpreter(path) for path in arguments.python]
    failed, before = 0, semaphores()
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            pool.submit(check, interpreter, suite): f"CPython {interpreter.version} {suite}"
            # The longest first.
            for suite in arguments.suite or ("spawn", "forkserver", "fork", "main_handling")
            for interpreter in interpreters
        }
        for run in concurrent.futures.as_completed(runs):
            try:
                line, wrong, remarks = run.result()
            except (SystemExit, subprocess.SubprocessError) as error:
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

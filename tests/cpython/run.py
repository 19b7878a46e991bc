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
# More than the suite's own watchdog, which says where it hangs.
SECONDS = 1260


class Run:
    """One run of a suite, or of some of its tests."""

    def __init__(self, python, suite, stock=False, tests=()):
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
            work = Path(folder, "work")
            work.mkdir()
            environment = dict(
                os.environ,
                PYTHONPATH=os.pathsep.join([str(replacement), str(HERE)]),
                PYTHONDONTWRITEBYTECODE="1",
                SEMLOCK_NOTES=str(notes),
                TMPDIR=str(work),
            )
            arguments = [python, str(HERE / "one.py"), f"suite_{suite}", str(result), *tests]
            with open(Path(folder, "output"), "w+") as output:
                process = subprocess.Popen(
                    arguments,
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
                    f"{python}: suite {suite} ended with exit code {process.returncode} "
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


def check(python, suite):
    """Runs a suite; returns a line for people, and what is wrong."""
    ours = Run(python, suite)
    wrong, remarks = [], []
    for test in sorted(ours.bad):
        again = Run(python, suite, tests=[loadable(test)])
        if not again.bad:
            remarks.append(f"{test} failed once and passed when run again:\n{ours.bad[test]}")
        elif Run(python, suite, stock=True, tests=[loadable(test)]).bad:
            remarks.append(f"{test} fails on the stock module too:\n{ours.bad[test]}")
        else:
            wrong.append(
                f"{test} fails, and passes on the interpreter's own module:\n{ours.output}"
            )

    skipped = sorted(map(loadable, ours.skipped))
    stock = Run(python, suite, stock=True, tests=skipped or ["one"])
    if stock.skipped != ours.skipped:
        # Some tests skip by what those before them left: then all have to run.
        stock = Run(python, suite, stock=True)
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
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    line = (
        f"CPython {version} {suite}: {ours.ran} tests run, {len(ours.skipped)} skipped "
        f"(the same on the stock module), {len(wrong)} wrong; "
        f"{made} SemLocks made and {rebuilt} rebuilt, all of them semlock's, in "
        f"{len(per_process)} processes (per process: {shortened(per_process)})"
    )
    return line, wrong, remarks


def shortened(counts):
    groups = collections.Counter(counts)
    return ", ".join(f"{count} x{n}" if n > 1 else str(count) for count, n in groups.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=3, help="suites to run at the same time")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one")
    parser.add_argument("python", nargs="+")
    arguments = parser.parse_args()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            pool.submit(check, python, suite): (python, suite)
            # The longest first.
            for suite in arguments.suite or ("spawn", "forkserver", "fork", "main_handling")
            for python in map(os.path.abspath, arguments.python)
        }
        for run in concurrent.futures.as_completed(runs):
            try:
                line, wrong, remarks = run.result()
            except (SystemExit, subprocess.SubprocessError) as error:
                line, wrong, remarks = "CPython: {} {}".format(*runs[run]), [str(error)], []
            print(line, *(f"  note: {remark}" for remark in remarks), sep="\n", flush=True)
            for problem in wrong:
                print(f"  WRONG: {problem}", flush=True)
            failed += bool(wrong)
    total = len(runs)
    print(f"CPython's suites: {total - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

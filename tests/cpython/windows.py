"""CPython's own suite of multiprocessing on a Windows CPython that Wine runs.

Usage: python windows.py [--full] [--jobs N] PYTHON SITE

PYTHON is a program of this system that runs the Windows interpreter, and SITE the folder that has
semlock for it. The tests that the suite defines for spawn run on the interpreter's own module, on
semlock's `_multiprocessing` in its place, and with `semlock.install()`. Without --full, only the
classes of locks, semaphores, conditions and events run. A test that passes on the stock module must
have the same outcome on semlock. One that has not runs alone, several times on either, before it
counts as a failure of ours.
"""

import argparse
import collections
import os
import subprocess
import sys

import run
from run import STOCK, Run, at_the_same_time, loadable

OURS = ("kernel", "shared")
SHOWN = {STOCK: "stock", "kernel": "semlock._multiprocessing", "shared": "semlock.install()"}
MINIMUM = [f"WithProcessesTest{name}" for name in ("Lock", "Semaphore", "Condition", "Event")]
# A watchdog for the tests of one class.
SECONDS = 600
RERUNS = 3


class Windows(run.Interpreter):
    """A Windows interpreter that Wine runs. It sees this system's files on a drive."""

    # There the classes are multiprocessing's own.
    exceptions = frozenset()

    def __init__(self, path, site):
        super().__init__(path)
        self.site = os.path.abspath(site)

    def named(self, path):
        return "Z:" + str(path).replace("/", "\\")

    def joined(self, paths):
        return ";".join(map(self.named, [*paths, self.site]))


def outcomes(interpreter, backend, tests):
    """The outcome of each test, of one class or a few; and whose the locks were."""
    try:
        ran = Run(interpreter, "spawn", backend, tests=tests, seconds=SECONDS)
    except (RuntimeError, subprocess.SubprocessError) as error:
        return dict.fromkeys(tests, ("hung", str(error))), collections.Counter()
    found = dict.fromkeys(tests, ("passed", ""))
    for test in tests:
        class_of_it = test.rpartition(".")[0]
        for reason, marked in (("skipped", ran.skipped), ("failed", ran.bad)):
            for name, text in marked.items():
                if loadable(name) in (test, class_of_it):
                    found[test] = (reason, text)
    whose = collections.Counter()
    for (_how, module), count in ran.notes.items():
        whose[module] += count
    return found, whose


def passes_alone(interpreter, backend, test):
    """How many of RERUNS runs alone a test passes."""
    runs = (outcomes(interpreter, backend, [test])[0][test][0] for _ in range(RERUNS))
    return sum(outcome == "passed" for outcome in runs)


def compared(interpreter, backend, test, outcome):
    """Whether a test that passed on the stock module fails on ours, and what there is to say."""
    line = f"{test} passed on the stock module, and {outcome[0]} on {SHOWN[backend]}"
    ours = passes_alone(interpreter, backend, test)
    if ours == RERUNS:
        return False, f"note: {line}, and passed {RERUNS} times when run alone:\n{outcome[1]}"
    stock = passes_alone(interpreter, STOCK, test)
    counts = f"alone, it passed {stock} times of {RERUNS} on the stock module and {ours} on ours"
    if stock < RERUNS and ours >= stock:
        return False, f"note: {line}; {counts}:\n{outcome[1]}"
    return True, f"WRONG: {line}; {counts}:\n{outcome[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all of the suite")
    parser.add_argument("--jobs", type=int, default=3, help="classes to run at the same time")
    parser.add_argument("python")
    parser.add_argument("site")
    arguments = parser.parse_args()
    interpreter = Windows(arguments.python, arguments.site)
    everything = sorted(Run(interpreter, "spawn", STOCK, tests=[]).all)
    groups = collections.defaultdict(list)
    for test in everything:
        *_, name, _method = test.split(".")
        if arguments.full:
            groups[name].append(test)
        elif name in MINIMUM:
            groups["the minimum"].append(test)
    found = {backend: {} for backend in SHOWN}
    whose = {backend: collections.Counter() for backend in SHOWN}
    with at_the_same_time(arguments.jobs) as pool:
        runs = {
            (name, backend): pool.submit(outcomes, interpreter, backend, tests)
            for name, tests in groups.items()
            for backend in SHOWN
        }
        for name in groups:
            line = []
            for backend in SHOWN:
                of_these, locks = runs[name, backend].result()
                found[backend].update(of_these)
                whose[backend].update(locks)
                line.append(f"{SHOWN[backend]}: {counted(of_these)}")
            print(f"  {name}: {'; '.join(line)}", flush=True)

    wrong = 0
    for test in [test for tests in groups.values() for test in tests]:
        stock = found[STOCK][test][0]
        for backend in OURS:
            outcome = found[backend][test]
            if stock == "passed" and outcome[0] != "passed":
                is_wrong, line = compared(interpreter, backend, test, outcome)
                wrong += is_wrong
                print(f"  {line}")
            elif stock != outcome[0]:
                print(f"  note: {test} {stock} on stock, and {outcome[0]} on {SHOWN[backend]}")
    for backend in OURS:
        if whose[backend]["stock"] or not whose[backend]["semlock"]:
            print(f"  WRONG: of the locks of {SHOWN[backend]}, {dict(whose[backend])}")
            wrong += 1
    if not groups:
        print("  WRONG: no tests were found")
        wrong += 1
    for backend, shown in SHOWN.items():
        counts = counted(found[backend])
        print(f"CPython {interpreter.version} on Windows, spawn, {shown}: {counts}")
    return 1 if wrong else 0


def counted(outcomes):
    counts = collections.Counter(outcome for outcome, _ in outcomes.values())
    hung = f", {counts['hung']} without a result" if counts["hung"] else ""
    shown = (f"{counts[how]} {how}" for how in ("passed", "failed", "skipped"))
    return ", ".join(shown) + hung


if __name__ == "__main__":
    sys.exit(main())

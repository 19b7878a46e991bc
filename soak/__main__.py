"""A long run: everything at once, and nothing may grow. `cargo xtask soak`.

A driver for each kind of context runs rounds of workloads, which check their results themselves.
After each round, when all that it made is gone, the soak takes a sample of the driver and its
processes. The first rounds are a warm-up: they fill what the interpreter imports and caches once.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Any

from growth import FEWEST, NAMELESS, PERSISTENT, Growth, more, trend
from interpreters import unfit
from leaks import LEAKS
from watch import Sample, sample

DRIVER = Path(__file__).resolve().parent / "driver.py"
KINDS = "fork", "spawn", "forkserver", "installed", "kernel-fork", "kernel-spawn"
MINUTES = 10.0
# Rounds of each workload before anything is compared.
WARM_UP = 2
# Seconds. A round takes some of them; a round that takes this long hangs.
HANGS = 180
# Seconds. A joined thread or process stays visible for a moment: a driver gets this long to settle.
SETTLE = 5.0
PROGRESS = 10.0


class DriverError(Exception):
    pass


@dataclass
class Driver:
    """One driver, and the samples that were taken of it."""

    kind: str
    seed: int
    leaks: Sequence[str]
    rounds: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    baseline: Sample | None = None
    first_checked: int = 0
    last: Sample | None = None
    growths: list[Growth] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)
    failure: str | None = None

    def start(self) -> None:
        self.prefix = f"semlock-soak-{os.getpid()}-{self.kind}"
        command = [sys.executable, str(DRIVER), self.kind, f"--seed={self.seed}"]
        command += [f"--prefix={self.prefix}", *(f"--leak={leak}" for leak in self.leaks)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # so that all its processes can be found, and ended
            # A driver that hangs prints where. And with one arena, a thread uses what another has
            # freed: several arenas would fill up one after the other.
            env={**os.environ, "PYTHONFAULTHANDLER": "1", "MALLOC_ARENA_MAX": "1"},
        )
        self._unread = b""
        hello = self._hear()
        self.roles = {hello["pid"]: "driver", hello["resident"]: "resident"}
        self.shares = hello["shares"]

    def _say(self, what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        give_up = time.monotonic() + HANGS
        while b"\n" not in self._unread:
            ready, _, _ = select.select([out], [], [], max(give_up - time.monotonic(), 0))
            if not ready:
                # Each of its processes prints where its threads are.
                os.killpg(self.process.pid, signal.SIGABRT)
                raise DriverError(f"hangs in round {self.rounds + 1}")
            piece = os.read(out, 65536)
            if not piece:
                raise DriverError(f"ended with {self.process.wait()} in round {self.rounds + 1}")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        if "failed" in said:
            raise DriverError(f"in round {self.rounds + 1}:\n{said['failed']}")
        return said

    def run_round(self) -> None:
        self._say(self.rounds)
        said = self._hear()
        self.rounds += 1
        self.operations.update(said["operations"])
        self.last = self._at_rest(said["threads"])
        if self.rounds < WARM_UP * self.shares:
            return
        if self.baseline is None:
            self.baseline, self.first_checked = self.last, self.rounds
        memory = self.last.memory()
        for role, figures in ("driver", said["figures"]), ("resident", said["residents_figures"]):
            memory |= {f"{role}: {name}": value for name, value in figures.items()}
        for what, value in memory.items():
            self.memory.setdefault(what, []).append(value)
        grown = self._grown(self.last)
        self._in_a_row = self._in_a_row + 1 if grown else 0

    _in_a_row = 0

    @property
    def has_grown(self) -> bool:
        return self._in_a_row >= PERSISTENT

    def _grown(self, now: Sample) -> dict[str, int]:
        if self.baseline is None:
            return {}
        return {
            **more(self.baseline.things(), now.things()),
            **more(self.baseline.nameless_mappings(), now.nameless_mappings(), NAMELESS),
        }

    def _at_rest(self, threads: int) -> Sample:
        """Takes a sample when all that ended is gone. `threads` is how many the driver knows."""
        # What was there after the last round will not go away.
        give_up = time.monotonic() + (SETTLE if self._in_a_row == 0 else 0)
        pause = 0.01
        while True:
            now = sample(self.process.pid, self.roles, self.prefix)
            things = now.things()
            has_ended = "child: processes" not in things and things["driver: threads"] == threads
            if (has_ended and not self._grown(now)) or time.monotonic() > give_up:
                return now
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def find_growths(self) -> list[Growth]:
        """What has grown, from the rest after the warm-up to the last."""
        if self.baseline is None or self.last is None:
            return []
        found = []
        before = self.baseline.things() | self.baseline.nameless_mappings()
        were, are = self.baseline.details(), self.last.details()
        for what, count in self._grown(self.last).items():
            new = tuple(sorted(set(are.get(what, ())) - set(were.get(what, ()))))
            rounds = self.rounds - self.first_checked
            found.append(Growth(what, before.get(what, 0), count, rounds, new))
        trends = (trend(what, values) for what, values in self.memory.items())
        return found + [growth for growth in trends if growth is not None]

    def end(self) -> None:
        """Ends it in the regular way, and checks that nothing is left."""
        self._say(None)
        status = self.process.wait(HANGS)
        if status:
            raise DriverError(f"ended with {status}")
        give_up = time.monotonic() + SETTLE
        while (left := sample(self.process.pid, {}, self.prefix)).processes or left.shm:
            if time.monotonic() > give_up:
                pids = [process.pid for process in left.processes]
                raise DriverError(f"left behind: processes {pids}, in /dev/shm {sorted(left.shm)}")
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ends all its processes, whatever they do. Its thread then finds the driver gone."""
        if hasattr(self, "process") and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in self.process.stdin, self.process.stdout:
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()
        for name in sample(self.process.pid, {}, self.prefix).shm:
            with suppress(FileNotFoundError):
                os.unlink(f"/dev/shm/{name}")

    def run(self, enough: Any) -> None:
        """Runs rounds until `enough` says that there were enough."""
        try:
            self.start()
            while not enough(self) and not self.has_grown:
                self.run_round()
            self.growths = self.find_growths()
            if not self.growths:
                self.end()
        except (DriverError, OSError, subprocess.SubprocessError) as error:
            self.failure = str(error) or repr(error)
        finally:
            if hasattr(self, "process"):
                self.kill()


# ---- The report ----


def amount(what: str, value: float) -> str:
    in_bytes = what.endswith(("memory", "heap"))
    return f"{value / 1024:,.1f} KiB" if in_bytes else f"{value:,.6g}"


def table_of_growths(driver: Driver) -> str:
    lines = ["| what | from | to | per round |", "|---|---:|---:|---:|"]
    for growth in driver.growths:
        cells = (growth.before, growth.after, growth.per_round)
        shown = " | ".join(amount(growth.what, value) for value in cells)
        lines.append(f"| {growth.what} | {shown} |")
    for growth in driver.growths:
        if growth.new:
            lines.append(f"\nnew, {growth.what}:")
            lines += [f"    {name}" for name in growth.new[:20]]
            lines += [f"    and {len(growth.new) - 20} more"] * (len(growth.new) > 20)
    return "\n".join(lines)


def table(drivers: list[Driver]) -> str:
    """A table of each driver's processes together: after the warm-up, and at the end."""
    lines = [
        "| on | rounds | operations | RSS, MiB | PSS, MiB | heap, KiB | descriptors | mappings "
        "| threads | segments |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for driver in drivers:
        first, last = driver.baseline, driver.last
        if first is None or last is None:
            lines.append(f"| {driver.kind} | {driver.rounds} |" + " |" * 8)
            continue
        heap = driver.memory.get("driver: heap", [0])

        def pair(figure: Any, *samples: Any) -> str:
            return " → ".join(f"{figure(one):,.10g}" for one in samples)

        cells = [
            pair(lambda one: round(one.total("rss") / 2**20, 1), first, last),
            pair(lambda one: round(one.total("pss") / 2**20, 1), first, last),
            pair(lambda value: round(value / 1024), heap[0], heap[-1]),
            pair(lambda one: one.total("descriptors"), first, last),
            pair(
                lambda one: one.total("mappings") + one.total("nameless_mappings"),
                first,
                last,
            ),
            pair(lambda one: one.total("threads"), first, last),
            pair(lambda one: one.things()["all: segments"], first, last),
        ]
        operations = driver.operations.total()
        lines.append(f"| {driver.kind} | {driver.rounds} | {operations:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"a fraction will do (default {MINUTES:g})"
    )
    how_long.add_argument(
        "--rounds", type=int, help=f"of each driver, after its warm-up; at least {FEWEST}"
    )
    parser.add_argument("--seed", type=int, help="what chance decides is decided by it")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument(
        "--leak",
        nargs="+",
        choices=LEAKS,
        default=(),
        help="leaks on purpose: that has to be found",
    )
    chosen = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("soak: this looks at processes through Linux's /proc, which is not here")
    if reason := unfit():
        sys.exit(f"soak: {reason}")
    if chosen.rounds is not None and chosen.rounds < FEWEST:
        parser.error(f"fewer than {FEWEST} rounds show no trend")
    if not 0 < chosen.minutes < float("inf"):
        parser.error("minutes are more than 0")
    seed = SystemRandom().randrange(1 << 32) if chosen.seed is None else chosen.seed
    print(f"soak on {', '.join(chosen.only)}; seed {seed}", flush=True)

    begin = time.monotonic()
    # Ctrl-C and kill end the drivers too: they have sessions of their own.
    stopped = threading.Event()

    def stop(*_: object) -> None:
        stopped.set()
        for driver in drivers:
            driver.interrupt()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)

    def enough(driver: Driver) -> bool:
        if stopped.is_set():
            raise DriverError("stopped")
        if chosen.rounds is not None:
            return driver.rounds >= WARM_UP * driver.shares + chosen.rounds
        return time.monotonic() - begin >= chosen.minutes * 60

    drivers = [Driver(kind, seed, chosen.leak) for kind in chosen.only]
    ended: queue.Queue[Driver] = queue.Queue()

    def run(driver: Driver) -> None:
        try:
            driver.run(enough)
        finally:
            ended.put(driver)

    for driver in drivers:
        threading.Thread(target=run, args=(driver,)).start()
    running = set(chosen.only)
    while running:
        with suppress(queue.Empty):
            driver = ended.get(timeout=PROGRESS)
            running.discard(driver.kind)
            if driver.failure is not None or driver.growths:
                print(f"{driver.kind} is given up after {driver.rounds} rounds", flush=True)
            continue
        rounds = ", ".join(f"{driver.kind} {driver.rounds}" for driver in drivers)
        operations = sum(driver.operations.total() for driver in drivers)
        seconds = time.monotonic() - begin
        print(f"{seconds:6.0f} s  {operations:,} operations; rounds: {rounds}", flush=True)

    print(f"\n{table(drivers)}")
    is_good = True
    for driver in drivers:
        if driver.failure is not None:
            is_good = False
            print(f"\n{driver.kind} failed: {driver.failure}")
        if driver.growths:
            is_good = False
            print(f"\n{driver.kind} grows:\n\n{table_of_growths(driver)}")
        checked = max(map(len, driver.memory.values()), default=0)
        if driver.failure is None and not driver.growths and checked < FEWEST:
            print(f"\n{driver.kind} had too few rounds to show whether memory grows.")
    if not is_good:
        sys.exit(f"\nsoak: not everything is well; seed {seed}")
    print("\nNothing grows, and everything came out right.")


if __name__ == "__main__":
    main()

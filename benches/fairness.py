"""Processes that take turns with a lock: how long each of them waits for its turn.

Each process acquires the lock, holds it for a while, releases it, and pauses. It sleeps while it
holds the lock. If every process gets its turn, a wait lasts about as long as all the others hold
the lock together. If a process starves, its wait has no such bound. A wait that has not ended at
the end of the measurement counts with the time that it has lasted.

One turn of 32 processes that hold the lock for 200 ms each lasts 6.4 s. Holders that sleep leave
the processors to others. So all contests with the same number of processes run at the same time,
until the slowest of them has given every process some turns. Only the contests of 1 ms run alone,
because they would disturb each other.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import semlock
from children import Numbers, forked
from rounds import Row, Table, interleaved, row_of

PROCESSES = 3, 8, 16, 32
HOLDS = 0.001, 0.02, 0.2
PAUSE = 0.005
# Contests with a shorter hold than this, in seconds, run alone.
BESIDE_OTHERS = 0.02
# How many turns each process gets at least, if all get the same number.
TURNS = 4
# One round only shows that everything can be measured. So it is a part of a turn, of few processes.
TURNS_OF_ONE_ROUND = 0.25
PROCESSES_OF_ONE_ROUND = 3, 8
# In seconds. Shorter turns are measured for the same time, so there are more of them.
LEAST_TURN = 0.125
# In seconds. Shorter timeouts would say more about the machine than about the lock.
LEAST_TIMEOUT = 0.1

LONGEST_BOUND = 1.5
P99_BOUND = 1.2

# A process reports the nanoseconds of its waits, and these two numbers. No wait lasts so long.
FAILED = 2**64 - 2
ENDED = 2**64 - 1


@dataclass(frozen=True)
class Contest:
    """Processes that want one lock."""

    kind: str
    processes: int
    hold: float
    # The timeout of each acquire, in seconds; None if it has none.
    timeout: float | None = None

    @property
    def name(self) -> str:
        limit = "" if self.timeout is None else f", timeout {1000 * self.timeout:g} ms"
        return f"{self.kind}, {self.processes} × {1000 * self.hold:g} ms{limit}"

    def seconds(self, turns: float) -> float:
        return turns * max(LEAST_TURN, self.processes * self.hold)


@dataclass(frozen=True)
class Outcome:
    # Milliseconds.
    waits: list[float]
    failed: int

    @property
    def longest(self) -> float:
        return max(self.waits)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.waits, n=100, method="inclusive")[-1]


# What a process does. It reports its waits, and ends soon after the given moment. It waits at least
# once.
Work = Callable[[int, Callable[[int], None]], None]


def take_turns(acquire: Callable[[], bool], release: Callable[[], object], hold: float) -> Work:
    def work(end: int, report: Callable[[int], None]) -> None:
        now = time.monotonic_ns
        over = False
        while not over:
            since = now()
            while not acquire():
                report(FAILED)
            report(now() - since)
            # At the end, all processes that still wait acquire the lock one after the other.
            over = now() >= end
            if not over:
                time.sleep(hold)
            release()
            time.sleep(PAUSE)

    return work


def turns_of(lock: Any, contest: Contest, _seconds: float) -> list[Work]:
    acquire = lock.acquire
    if contest.timeout is not None:
        acquire = partial(lock.acquire, timeout=contest.timeout)
    return [take_turns(acquire, lock.release, contest.hold)] * contest.processes


def turns_after_wait(condition: Any, contest: Contest, seconds: float) -> list[Work]:
    """Half of the processes wait for a notification. The others acquire the lock and notify all.

    A wait is measured from the notification until the waiter has acquired the lock again.
    """
    now = time.monotonic_ns
    takers = contest.processes // 2
    waiters = contest.processes - takers
    # How many waiters have come, how often they were notified, and the moment of each notification.
    # A taker notifies all waiters each time that it has held the lock.
    most = int(seconds / contest.hold) + takers
    words = memoryview(mmap.mmap(-1, 8 * (2 + most))).cast("q")
    came, notified, moments = words[0:1], words[1:2], words[2:]

    def wait(end: int, report: Callable[[int], None]) -> None:
        waited = 0
        while True:
            with condition:
                if waited and now() >= end:
                    return
                came[0] += not waited
                number = notified[0]
                condition.wait()
                if notified[0] == number:
                    return  # This wake-up only says that the contest is over.
                report(now() - moments[number])
                waited += 1
                if now() < end:
                    time.sleep(contest.hold)
            time.sleep(PAUSE)

    def take(end: int, _report: Callable[[int], None]) -> None:
        over = False
        while not over:
            with condition:
                # It begins when all wait, so that each of them waits at least once.
                if came[0] == waiters:
                    over = notified[0] > 0 and now() >= end
                    if not over:
                        time.sleep(contest.hold)
                        moments[notified[0]] = now()
                        notified[0] += 1
                    condition.notify_all()
            time.sleep(PAUSE)

    return [wait] * waiters + [take] * takers


STOCK = multiprocessing.get_context("fork")
TIMED = "`Lock`, timed"
# For each kind: what makes the stdlib's object, what makes semlock's, and what processes do with
# it.
KINDS: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[..., list[Work]]]] = {
    "`Lock`": (STOCK.Lock, semlock.Lock, turns_of),
    "`RLock`": (STOCK.RLock, semlock.RLock, turns_of),
    "`Semaphore(1)`": (partial(STOCK.Semaphore, 1), partial(semlock.Semaphore, 1), turns_of),
    "`Semaphore(1, robust=True)`": (
        partial(STOCK.Semaphore, 1),
        partial(semlock.Semaphore, 1, robust=True),
        turns_of,
    ),
    "`Condition`, after `wait()`": (STOCK.Condition, semlock.Condition, turns_after_wait),
    TIMED: (STOCK.Lock, semlock.Lock, turns_of),
}
THEIRS, OURS = 0, 1


def all_contests(numbers: Sequence[int]) -> Iterator[Contest]:
    for processes in numbers:
        for hold in HOLDS:
            for kind in KINDS:
                timeout = max(LEAST_TIMEOUT, 2 * processes * hold) if kind == TIMED else None
                yield Contest(kind, processes, hold, timeout)
    # This timeout is twelve times as long as a turn of all processes.
    yield Contest(TIMED, 8, 0.02, timeout=2)


def groups(numbers: Sequence[int]) -> Iterator[list[Contest]]:
    """All contests with these numbers of processes, in groups that run at the same time."""
    every = list(all_contests(numbers))
    for contest in every:
        if contest.hold < BESIDE_OTHERS:
            yield [contest]
    for processes in numbers:
        yield [it for it in every if it.processes == processes and it.hold >= BESIDE_OTHERS]


def run(contests: list[Contest], side: int, turns: float) -> list[Outcome]:
    """Runs contests that begin and end together, and returns their results."""
    seconds = max(contest.seconds(turns) for contest in contests)
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(Numbers())
        reports = [stack.enter_context(Numbers()) for _ in contests]

        def life(work: Work, to: Numbers) -> None:
            found: list[int] = []
            work(ends.get(), found.append)
            # Each number in a write of its own, so that it is written whole. The parent reads them
            # when the contests are over.
            for number in [*found, ENDED]:
                to.put(number)

        lives = []
        for contest, to in zip(contests, reports, strict=True):
            *makes, works_of = KINDS[contest.kind]
            works = works_of(makes[side](), contest, seconds)
            lives += [partial(life, work, to) for work in works]
        stack.enter_context(forked(*lives))
        end = time.monotonic_ns() + int(seconds * 1e9)
        for _ in lives:
            ends.put(end)
        return [
            outcome(read(report, contest.processes))
            for contest, report in zip(contests, reports, strict=True)
        ]


def read(report: Numbers, processes: int) -> Iterator[int]:
    while processes:
        number = report.get()
        if number == ENDED:
            processes -= 1
        else:
            yield number


def outcome(numbers: Sequence[int]) -> Outcome:
    found = list(numbers)
    waits = [number / 1e6 for number in found if number != FAILED]
    return Outcome(waits, found.count(FAILED))


def rows_of(contest: Contest, theirs: list[Outcome], ours: list[Outcome]) -> list[Row]:
    def row(work: str, figure: Callable[[Outcome], float], bound: float) -> Row:
        sides = [list(map(figure, side)) for side in (theirs, ours)]
        group = f"{contest.kind}: {work}"
        return row_of(f"{contest.name}: {work}", *sides, "ms", bound=bound, group=group)

    rows = [
        row("longest wait", lambda it: it.longest, LONGEST_BOUND),
        row("p99 of waits", lambda it: it.p99, P99_BOUND),
    ]
    if contest.timeout is not None:
        failed = [sum(it.failed for it in side) for side in (theirs, ours)]
        work = "timeouts that ended in vain"
        rows.append(
            Row(
                f"{contest.name}: {work}",
                "",
                failed[OURS],
                failed[THEIRS],
                bound=failed[THEIRS],
                group=work,
            )
        )
    return rows


def table(rounds: int) -> Table:
    several = rounds > 1
    turns = TURNS if several else TURNS_OF_ONE_ROUND
    sides = THEIRS, OURS
    together = list(groups(PROCESSES if several else PROCESSES_OF_ONE_ROUND))
    measures = [partial(run, group, side, turns) for group in together for side in sides]
    results = iter(interleaved(measures, max(1, rounds // 10)))
    found: dict[Contest, list[Row]] = {}
    for group, theirs, ours in zip(together, results, results, strict=True):
        for index, contest in enumerate(group):
            of_both = ([outcomes[index] for outcomes in side] for side in (theirs, ours))
            found[contest] = rows_of(contest, *of_both)
    rows = [row for contest in sorted_by_kind(found) for row in found[contest]]
    return Table("Waiting for one's turn", "multiprocessing", rows)


def sorted_by_kind(contests: Iterable[Contest]) -> list[Contest]:
    kinds = list(KINDS)
    return sorted(contests, key=lambda it: (kinds.index(it.kind), it.processes, it.hold))

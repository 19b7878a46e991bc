"""Many processes that acquire and release one lock all the time.

It measures how often they acquire it, how evenly, and how much processor time that costs.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import semlock
from children import Numbers, forked
from rounds import Row, Table, interleaved, row_of

PROCESSES = 1, 2, 4, 8, 32
NANOSECONDS = 400_000_000


@dataclass(frozen=True)
class Contest:
    # How often all processes together acquire and release the lock, in a second.
    turns: float
    # The smallest and the largest share that a process has of all turns.
    least_lucky: float
    luckiest: float
    # The processor time of all processes together, in nanoseconds for each turn.
    cost: float


def contest(make: Callable[[], Any], processes: int) -> Contest:
    lock = make()
    with Numbers() as ends, Numbers() as counts, Numbers() as costs:

        def compete() -> None:
            acquire, release, now = lock.acquire, lock.release, time.monotonic_ns
            end = ends.get()
            turns = 0
            before = time.process_time_ns()
            while now() < end:
                acquire()
                release()
                turns += 1
            costs.put(time.process_time_ns() - before)
            counts.put(turns)

        with forked(*[compete] * processes):
            # All of them have been forked: they start and end together.
            ends.put(*[time.monotonic_ns() + NANOSECONDS] * processes)
            turns = [counts.get() for _ in range(processes)]
            cost = sum(costs.get() for _ in range(processes))
    total = sum(turns)
    seconds = NANOSECONDS / 1e9
    return Contest(total / seconds, min(turns) / total, max(turns) / total, cost / total)


def rows_of(processes: int, theirs: list[Contest], ours: list[Contest]) -> list[Row]:
    who = f"{processes} process{'es' * (processes > 1)}"

    def row(work: str, figure: Callable[[Contest], float], unit: str, better: Any) -> Row:
        sides = [list(map(figure, side)) for side in (theirs, ours)]
        return row_of(f"{who}: {work}", *sides, unit, better=better)

    rows = [
        row("turns", lambda it: it.turns / 1000, "1000/s", "higher"),
        row("processor time a turn", lambda it: it.cost, "ns", "lower"),
    ]
    if processes > 1:
        rows += [
            row("turns of the least lucky", lambda it: it.least_lucky * 100, "%", "higher"),
            row("turns of the luckiest", lambda it: it.luckiest * 100, "%", "lower"),
        ]
    return rows


def table(rounds: int) -> Table:
    stock = multiprocessing.get_context("fork")
    makes = stock.Lock, semlock.Lock
    measures = [partial(contest, make, processes) for processes in PROCESSES for make in makes]
    results = iter(interleaved(measures, max(1, rounds // 3)))
    rows = [
        row
        for processes, theirs, ours in zip(PROCESSES, results, results, strict=True)
        for row in rows_of(processes, theirs, ours)
    ]
    return Table("One `Lock`, taken all the time", "multiprocessing", rows)

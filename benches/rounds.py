"""Measuring side by side: rounds in which measures take turns, and the rows of results.

What disturbs a machine for a while disturbs all that is measured in that while. So measures take
turns, each figure is the median over the rounds, and each ratio the median of the rounds' ratios.
"""

from __future__ import annotations

import signal
import statistics
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from children import PATIENCE

T = TypeVar("T")

# How often something that takes some nanoseconds is done in a row.
CALLS = 50_000


@dataclass(frozen=True)
class Row:
    """One line of a table: what was measured, the results, and the bound."""

    work: str
    unit: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    better: Literal["lower", "higher"] = "lower"
    # The greatest ratio that passes; without a ratio, our greatest figure that does.
    bound: float | None = None
    # Of the rows of one group the chart shows only the worst.
    group: str | None = None

    @property
    def judged(self) -> float:
        """The figure that the bound is for."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def passed(self) -> bool | None:
        return None if self.bound is None else self.judged <= self.bound


@dataclass(frozen=True)
class Table:
    title: str
    rivals: str
    rows: list[Row]


@dataclass(frozen=True)
class Pair:
    """A piece of work, measured on theirs and on ours."""

    work: str
    theirs: Callable[[], float]
    ours: Callable[[], float]
    bound: float | None = None
    unit: str = "ns"


def interleaved(measures: Sequence[Callable[[], T]], rounds: int) -> list[list[T]]:
    """The results of each measure, in rounds in which they take turns.

    Every second round runs backwards, so that none has the same one before it each time. A
    measure that hangs is ended by SIGALRM.
    """
    results: list[list[T]] = [[] for _ in measures]
    order = list(range(len(measures)))
    for _ in range(rounds):
        for index in order:
            signal.alarm(PATIENCE)
            results[index].append(measures[index]())
            signal.alarm(0)
        order.reverse()
    return results


def row_of(
    work: str, theirs: Sequence[float], ours: Sequence[float], unit: str = "ns", **more: object
) -> Row:
    """A row of two sides' figures, those of one round at the same place in each.

    There is no ratio if one of theirs is 0.
    """
    ratio = None
    if all(theirs):
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return Row(work, unit, statistics.median(ours), statistics.median(theirs), ratio, **more)


def compare(pairs: Sequence[Pair], rounds: int) -> list[Row]:
    measures = [measure for pair in pairs for measure in (pair.theirs, pair.ours)]
    results = iter(interleaved(measures, rounds))
    return [
        row_of(pair.work, theirs, ours, pair.unit, bound=pair.bound)
        for pair, theirs, ours in zip(pairs, results, results, strict=True)
    ]


def timed(statement: str, calls: int = CALLS, **names: object) -> float:
    """Nanoseconds that a statement takes.

    It is compiled anew each time (as `timeit` does it): the interpreter adapts code to what it
    meets there first, and shared code would be adapted to one side.
    """
    timer = timeit.Timer(statement, timer=time.perf_counter_ns, globals=names)
    return timer.timeit(calls) / calls

"""Measures side by side, in rounds in which the measures take turns.

If something disturbs the machine for a while, it disturbs all measures of that time. So the
measures take turns. Each figure is the median over the rounds, and each ratio is the median of the
rounds' ratios.
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

# How often a call that takes some nanoseconds is repeated for one measurement.
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
    # The greatest ratio that passes. Without a ratio, the greatest figure of semlock's that passes.
    bound: float | None = None
    # The chart shows only the worst row of each group.
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
    # What is not installed, so that some rows are missing.
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Pair:
    """A piece of work, measured with the rival's object and with semlock's."""

    work: str
    theirs: Callable[[], float]
    ours: Callable[[], float]
    bound: float | None = None
    unit: str = "ns"


def interleaved(measures: Sequence[Callable[[], T]], rounds: int) -> list[list[T]]:
    """The results of each measure. In each round, each measure runs once.

    Every second round runs backwards, so that a measure does not always follow the same one.
    SIGALRM ends a measure that hangs.
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
    """Makes a row of both sides' figures. The figures of one round have the same index.

    There is no ratio if a figure of the rival's is 0.
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

    Each call compiles the statement again, as `timeit` does. The interpreter adapts code to the
    objects that it meets first, so shared code would be adapted to one of the two sides.
    """
    timer = timeit.Timer(statement, timer=time.perf_counter_ns, globals=names)
    return timer.timeit(calls) / calls

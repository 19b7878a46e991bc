"""What counts as growth.

*Things* are counted exactly: there must not be more of them at rest than at the rest after the
warm-up, for `PERSISTENT` rounds in a row or at the end. Nameless mappings are the exception:
allocators make them as they like (an arena for each processor and thread, a few cached stacks), so
`NAMELESS` more are allowed.

*Memory* must show no trend. Two tests together show one, over the second half of the rounds (over
all rounds if a half has fewer than `ENOUGH`). The test of Mann and Kendall says that the figure
rises, with one chance in a hundred to be wrong. And the least-squares line rises, over these
rounds, by more than the figure's allowance. Noise does not reach the allowance. It holds for the
whole run, so a long run finds a smaller leak: 100 bytes an operation are some 70 KiB a round, which
a handful of rounds show; an hour shows a few bytes a round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PERSISTENT = 3
NAMELESS = 64
ENOUGH = 8
# Fewer rounds than this cannot show a trend.
FEWEST = 6
# The limit of Mann and Kendall's z, one-sided.
RISES = 2.33

MIB = 1 << 20
# Allowances, by the end of the figure's name.
ALLOWANCES = {
    # Pages of every allocator: fragments, arenas of threads that ran at the same time by chance.
    "anonymous memory": 4 * MIB,
    # Bytes that malloc has given out: the interpreter's tables, which double as they fill.
    "heap": MIB // 4,
    # Objects: caches and free lists.
    "blocks": 2_000,
}


@dataclass(frozen=True)
class Growth:
    what: str
    before: float
    after: float
    rounds: int
    new: tuple[str, ...] = ()

    @property
    def per_round(self) -> float:
        return (self.after - self.before) / max(self.rounds, 1)


def more(baseline: dict[str, int], now: dict[str, int], allowance: int = 0) -> dict[str, int]:
    """Which things there are more of than at the baseline, and how many more."""
    return {what: count for what, count in now.items() if count > baseline.get(what, 0) + allowance}


def checked(values: Sequence[float]) -> Sequence[float]:
    half = values[len(values) // 2 :]
    return half if len(half) >= ENOUGH else values


def slope(values: Sequence[float]) -> float:
    """The slope of the least-squares line, per value."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    across = sum((index - middle) * (value - mean) for index, value in enumerate(values))
    return across / sum((index - middle) ** 2 for index in range(len(values)))


def mann_kendall(values: Sequence[float]) -> float:
    """The z of a trend: how surely values rise or fall, whatever their distribution.

    Mann 1945, Kendall 1975; the variance is corrected for ties.
    """
    n = len(values)
    s = sum(
        (later > earlier) - (later < earlier)
        for index, earlier in enumerate(values)
        for later in values[index + 1 :]
    )
    ties = [list(values).count(value) for value in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    return 0.0 if s == 0 or variance == 0 else (s - math.copysign(1, s)) / math.sqrt(variance)


def trend(what: str, values: Sequence[float]) -> Growth | None:
    """The growth of a memory figure, or None if it shows no trend."""
    allowance = next(bytes_ for end, bytes_ in ALLOWANCES.items() if what.endswith(end))
    window = checked(values)
    if len(window) < FEWEST or mann_kendall(window) < RISES:
        return None
    rises = slope(window) * (len(window) - 1)
    if rises <= allowance:
        return None
    return Growth(what, window[0], window[-1], len(window) - 1)

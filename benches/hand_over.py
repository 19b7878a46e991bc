"""Processes that wait for each other in turn: what it costs to wake another process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import semlock
from children import forked
from machine import processors
from rounds import Pair, Table, compare

# A measure lasts for this time, however long one exchange takes. If there are more processes than
# processors, an exchange takes a thousand times longer than otherwise.
NANOSECONDS = 100_000_000
# The clock is read once for so many exchanges, so that its cost does not matter.
BATCH = 16


def repeated(exchange: Callable[[], object]) -> float:
    """Nanoseconds for an exchange. One exchange comes first, until all other processes run."""
    exchange()
    exchanges = 0
    now = start = time.monotonic_ns()
    while now - start < NANOSECONDS:
        for _ in range(BATCH):
            exchange()
        exchanges += BATCH
        now = time.monotonic_ns()
    return (now - start) / exchanges


def forever(step: Callable[[], object]) -> None:
    while True:
        step()


def circulate(
    takes: Sequence[Callable[[], object]], gives: Sequence[Callable[[], object]]
) -> float:
    """Nanoseconds that a token takes from one process to the next.

    Each process has a call that waits until it has the token, and one that gives the token to it.
    """

    def pass_on(take: Callable[[], object], give: Callable[[], object]) -> None:
        take()
        give()

    def send_round() -> None:
        gives[1]()
        takes[0]()

    following = [*gives[2:], gives[0]]
    others = [
        partial(forever, partial(pass_on, take, give))
        for take, give in zip(takes[1:], following, strict=True)
    ]
    with forked(*others):
        return repeated(send_round) / len(takes)


def ring(make: Callable[[], Any], members: int) -> float:
    """Nanoseconds that a permit takes from one process to the next.

    `make` makes a lock or semaphore that has no free permit.
    """
    permits = [make() for _ in range(members)]
    return circulate([it.acquire for it in permits], [it.release for it in permits])


def hand_over(make: Callable[[], Any]) -> float:
    """Nanoseconds that a token takes to another process and back."""
    return 2 * ring(make, 2)


def event_round_trip(make: Callable[[], Any]) -> float:
    there, back = make(), make()

    def answer() -> None:
        there.wait()
        there.clear()
        back.set()

    def ask() -> None:
        there.set()
        back.wait()
        back.clear()

    with forked(partial(forever, answer)):
        return repeated(ask)


def condition_round_trip(make: Callable[[], Any]) -> float:
    """Two take turns under one lock, which each gives up only while it waits."""
    condition, is_held = make(), multiprocessing.Event()

    def answer() -> None:
        condition.wait()
        condition.notify()

    def ask() -> None:
        condition.notify()
        condition.wait()

    def wait_and_answer() -> None:
        is_held.wait()
        with condition:
            condition.notify()
            forever(answer)

    with forked(wait_and_answer), condition:
        is_held.set()
        condition.wait()
        return repeated(ask)


def barrier(make: Callable[[int], Any], members: int) -> float:
    meeting = make(members)
    with forked(*[partial(forever, meeting.wait)] * (members - 1)):
        return repeated(meeting.wait)


def spin() -> None:
    while True:
        pass


def crowded(measure: Callable[[], float]) -> float:
    """Measures while there is a process for each processor that never waits."""
    with forked(*[spin] * processors()):
        return measure()


def table(rounds: int) -> Table:
    stock = multiprocessing.get_context("fork")

    def taken(make: Callable[[], Any]) -> Any:
        lock = make()
        lock.acquire()
        return lock

    def sides(measure: Callable[..., float], name: str, *more: Any) -> list[Any]:
        return [partial(measure, getattr(module, name), *more) for module in (stock, semlock)]

    semaphores = [partial(module.Semaphore, 0) for module in (stock, semlock)]
    locks = [partial(taken, module.Lock) for module in (stock, semlock)]
    by_semaphores = [partial(hand_over, make) for make in semaphores]
    by_locks = [partial(hand_over, make) for make in locks]
    events = sides(event_round_trip, "Event")
    many = 4 * processors()
    pairs = [
        Pair("token to and fro, by `Semaphore`s", *by_semaphores, 0.2),
        Pair("token to and fro, by `Lock`s", *by_locks, 0.2),
        Pair("`Event` round trip", *events, 0.05),
        Pair("`Condition` round trip", *sides(condition_round_trip, "Condition"), 0.05),
        Pair("`Barrier` of 2", *sides(barrier, "Barrier", 2), 0.05),
        Pair("`Barrier` of 4", *sides(barrier, "Barrier", 4), 0.5),
        Pair(
            f"token to and fro, {processors()} busy processes beside",
            *[partial(crowded, measure) for measure in by_semaphores],
            1.1,
        ),
        Pair(
            f"the same, by `Lock`s, {processors()} busy processes beside",
            *[partial(crowded, measure) for measure in by_locks],
            1.1,
        ),
        Pair(
            f"`Event` round trip, {processors()} busy processes beside",
            *[partial(crowded, measure) for measure in events],
            1.1,
        ),
        Pair(
            f"token round {many} processes, a hop",
            *[partial(ring, make, many) for make in semaphores],
            1.1,
        ),
    ]
    return Table("Hand-over between processes", "multiprocessing", compare(pairs, rounds))

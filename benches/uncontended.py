"""One process alone: what a lock costs when no other process wants it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import semlock
from rounds import CALLS, Pair, Table, compare, timed


def acquire_release(lock: Any) -> float:
    return timed("acquire(); release()", acquire=lock.acquire, release=lock.release)


def acquire_timeout(lock: Any) -> float:
    return timed("acquire(timeout=1); release()", acquire=lock.acquire, release=lock.release)


def acquire_taken(lock: Any) -> float:
    """Nanoseconds of `acquire(False)` on a lock that is held."""
    with lock:
        return timed("acquire(False)", acquire=lock.acquire)


def with_lock(lock: AbstractContextManager[Any], calls: int = CALLS) -> float:
    return timed("with lock: pass", calls, lock=lock)


def notify(condition: Any) -> float:
    with condition:
        return timed("notify()", notify=condition.notify)


def create(make: Callable[[], object], calls: int = 1_000) -> float:
    """Nanoseconds to make an object. All of them live until the clock has been read."""
    start = time.perf_counter_ns()
    made = [make() for _ in range(calls)]
    taken = time.perf_counter_ns() - start
    del made
    return taken / calls


def table(rounds: int) -> Table:
    stock = multiprocessing.get_context("fork")

    def pair(work: str, measure: Callable[[Any], float], kind: str, bound: float | None) -> Pair:
        theirs, ours = (getattr(module, kind)() for module in (stock, semlock))
        return Pair(work, partial(measure, theirs), partial(measure, ours), bound)

    events = stock.Event(), semlock.Event()
    events_set = stock.Event(), semlock.Event()
    for event in events_set:
        event.set()

    def event_pair(work: str, method: str, pair_of: tuple[Any, Any], bound: float) -> Pair:
        theirs, ours = (partial(timed, "call()", call=getattr(event, method)) for event in pair_of)
        return Pair(work, theirs, ours, bound)

    pairs = [
        pair("`Lock`: `acquire(); release()`", acquire_release, "Lock", 0.85),
        pair("`with lock:`", with_lock, "Lock", 0.45),
        pair("`Lock`: `acquire(timeout=1); release()`", acquire_timeout, "Lock", None),
        pair("`Lock`: `acquire(False)` on a taken one", acquire_taken, "Lock", None),
        pair("`with rlock:`", with_lock, "RLock", None),
        pair("`with semaphore:`", with_lock, "Semaphore", None),
        event_pair("`Event.is_set()`", "is_set", events, 0.08),
        event_pair("`Event.wait()` when set", "wait", events_set, 0.08),
        event_pair("`Event.set()`, nobody waiting", "set", events, 0.15),
        pair("`Condition.notify()`, nobody waiting", notify, "Condition", 0.15),
        Pair("`Lock()`", partial(create, stock.Lock), partial(create, semlock.Lock), 0.03),
    ]
    return Table("Uncontended", "multiprocessing", compare(pairs, rounds))

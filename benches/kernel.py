"""The exact port beside CPython's own: raw SemLock objects, method by method."""

from __future__ import annotations

import _multiprocessing as stock
import os
import time
from functools import partial
from typing import Any

import semlock._multiprocessing as ours
from hand_over import hand_over
from rounds import Pair, Table, compare, timed
from uncontended import acquire_release, acquire_taken, acquire_timeout, create, with_lock

NAME = f"/semlock-bench-{os.getpid()}"
BOUND = 1.0


def create_named(module: Any, calls: int = 1_000) -> float:
    make, unlink = module.SemLock, module.sem_unlink
    start = time.perf_counter_ns()
    for _ in range(calls):
        make(1, 1, 1, NAME, False)
        unlink(NAME)
    return (time.perf_counter_ns() - start) / calls


def table(rounds: int) -> Table:
    modules = stock, ours

    def pair(work: str, measure: Any, *subjects: Any) -> Pair:
        theirs, mine = (partial(measure, subject) for subject in subjects)
        return Pair(work, theirs, mine, BOUND)

    locks = [module.SemLock(1, 1, 1, NAME, True) for module in modules]
    mutexes = [module.SemLock(0, 1, 1, NAME, True) for module in modules]
    unlinked = [partial(module.SemLock, 1, 1, 1, NAME, True) for module in modules]
    permits = [partial(module.SemLock, 1, 0, 1, NAME, True) for module in modules]
    pairs = [
        pair("`acquire(); release()`", acquire_release, *locks),
        pair("`acquire(); release()`, recursive mutex", acquire_release, *mutexes),
        pair("`with`", with_lock, *locks),
        pair("`acquire(timeout=1); release()`", acquire_timeout, *locks),
        pair("`acquire(False)` on a taken one", acquire_taken, *locks),
        pair("`_is_zero()`", lambda lock: timed("call()", call=lock._is_zero), *locks),
        pair("`_get_value()`", lambda lock: timed("call()", call=lock._get_value), *locks),
        pair("creation, `unlink=True` (ours has no file)", create, *unlinked),
        pair("creation, `unlink=False`, and `sem_unlink`", create_named, *modules),
        pair("hand-over to another process and back", hand_over, *permits),
    ]
    return Table("Raw `SemLock`, backend `kernel`", "_multiprocessing", compare(pairs, rounds))

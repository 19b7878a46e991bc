"""Pools and executors: what a task costs that does nearly nothing, and what an idle pool costs.

There is a worker for each processor. Each worker ends after a while at the latest, as all children
of a measurement do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from children import bounded
from machine import processors
from recovery import processor_time

TASKS = 2_000


@contextlib.contextmanager
def open_pool(context: Any, workers: int) -> Iterator[Any]:
    with context.Pool(workers, bounded) as pool:
        # It begins when the workers run.
        pool.map(abs, range(workers), 1)
        yield pool
    pool.join()


@contextlib.contextmanager
def open_executor(context: Any, workers: int) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(workers, context, bounded) as executor:
        list(executor.map(abs, range(workers)))
        yield executor


def by_map(pool: Any) -> None:
    pool.map(abs, range(TASKS), 1)


def by_imap_unordered(pool: Any) -> None:
    for _ in pool.imap_unordered(abs, range(TASKS)):
        pass


def by_apply(pool: Any) -> None:
    for number in range(TASKS):
        pool.apply(abs, (number,))


def by_executors_map(executor: ProcessPoolExecutor) -> None:
    for _ in executor.map(abs, range(TASKS), chunksize=1):
        pass


def microseconds_a_task(opened: Any, context: Any, work: Callable[[Any], None]) -> float:
    with opened(context, processors()) as pool:
        start = time.perf_counter_ns()
        work(pool)
        return (time.perf_counter_ns() - start) / TASKS / 1000


def idle(context: Any, workers: int, seconds: float) -> float:
    """% of a processor that a pool without tasks takes: its workers and the pool's own threads."""
    with open_pool(context, workers):
        pids = [worker.pid for worker in multiprocessing.active_children() if worker.pid]
        assert len(pids) == workers

        def busy() -> int:
            return sum(map(processor_time, pids)) + time.process_time_ns()

        # After this, all of them sleep.
        time.sleep(0.5)
        before, start = busy(), time.monotonic_ns()
        time.sleep(seconds)
        return (busy() - before) / (time.monotonic_ns() - start) * 100

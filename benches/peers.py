"""Other locks between processes that Python programs use: `with lock:`, uncontended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from multiprocessing.managers import SyncManager
from typing import Any

import fasteners
import filelock
import posix_ipc
import semlock
import sysv_ipc
from children import PATIENCE
from rounds import Table, interleaved, row_of
from uncontended import with_lock

# semlock is at least 8 times faster.
BOUND = 1 / 8
# In seconds. This is longer than all rounds take.
SERVERS_PATIENCE = 10 * PATIENCE


@contextlib.contextmanager
def posix_semaphore() -> Iterator[Any]:
    name = f"/semlock-bench-{os.getpid()}"
    semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX, initial_value=1)
    semaphore.unlink()
    try:
        yield semaphore
    finally:
        semaphore.close()


@contextlib.contextmanager
def sysv_semaphore() -> Iterator[Any]:
    semaphore = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX, initial_value=1)
    semaphore.undo = True
    try:
        yield semaphore
    finally:
        semaphore.remove()


@contextlib.contextmanager
def managers_lock() -> Iterator[Any]:
    manager = SyncManager(ctx=multiprocessing.get_context("fork"))
    # The manager's process gets an alarm: otherwise it would live on if this process were killed.
    manager.start(signal.alarm, (SERVERS_PATIENCE,))
    with manager:
        yield manager.Lock()


def table(rounds: int) -> Table:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # The name, the lock, the number of calls that take some milliseconds, and the bound. Locks
        # that people choose for their crash safety have a bound.
        peers = [
            ("posix_ipc, not crash-safe", stack.enter_context(posix_semaphore()), 20_000, None),
            ("sysv_ipc, SEM_UNDO", stack.enter_context(sysv_semaphore()), 5_000, BOUND),
            ("filelock", filelock.FileLock(f"{folder}/filelock"), 500, BOUND),
            ("fasteners", fasteners.InterProcessLock(f"{folder}/fasteners"), 500, BOUND),
            ("a Manager's lock", stack.enter_context(managers_lock()), 100, BOUND),
        ]
        ours = semlock.Lock()
        measures = [partial(with_lock, lock, calls) for _, lock, calls, _ in peers]
        *theirs, mine = interleaved([*measures, partial(with_lock, ours)], rounds)
    rows = [
        row_of(f"`with lock:` beside {name}", figures, mine, bound=bound)
        for (name, _, _, bound), figures in zip(peers, theirs, strict=True)
    ]
    return Table("Python's other locks", "the peer", rows)

"""The classes under test, and multiprocessing's classes, which show what is right."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import semlock
from children import Child, Line, forked

# Of the fork context: what its classes make has no names, and starts no resource tracker.
STOCK = multiprocessing.get_context("fork")
# multiprocessing keeps the memory of its first barrier, and a descriptor of it.
STOCK.Barrier(1)

both = pytest.mark.parametrize("family", [STOCK, semlock], ids=["stock", "semlock"])
both_locks = pytest.mark.parametrize("kind", ["Lock", "RLock"])
robust_locks = pytest.mark.parametrize("make", [semlock.Lock, semlock.RLock])

# Long enough for a lock's watcher (50 to 100 ms) to check the holder several times.
SEVERAL_LOOKS = 0.35


@dataclass(frozen=True)
class Taken:
    """The outcome of an acquire: which dead owner it was told of, and how often."""

    got: bool
    recovered: int | None = None
    warnings: int = 0


def take(lock: Any, *arguments: Any) -> Taken:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = lock.acquire(*arguments)
    assert all(warning.category is semlock.OwnerDiedWarning for warning in caught), [
        str(warning) for warning in caught
    ]
    return Taken(got, lock.recovered if got else None, len(caught))


def recovered_from(pid: int) -> Taken:
    return Taken(True, pid, 1)


NOT_TAKEN, TAKEN = Taken(False), Taken(True)


@contextmanager
def holder(lock: Any, times: int = 1) -> Iterator[Child]:
    """A child that holds the lock and, once it hears something, releases it."""

    def hold(line: Line) -> None:
        for _ in range(times):
            lock.acquire()
        line.say("held")
        line.hear()
        for _ in range(times):
            lock.release()

    with forked(hold) as child:
        assert child.hear() == "held"
        yield child


def waiter(lock: Any) -> Callable[[Line], None]:
    """Waits for the lock without end, says what came of it, and releases it when told."""

    def wait(line: Line) -> None:
        line.say("waiting")
        line.say(take(lock))
        line.hear()
        lock.release()

    return wait


def is_kept(lock: Any) -> bool:
    """Whether nobody gets the lock or is told anything, by polling, a short or a long wait."""
    give_up = time.monotonic() + SEVERAL_LOOKS
    while time.monotonic() < give_up:
        for arguments in ((False,), (True, 0.001), (True, 0.02), (False,), (True, 0.12)):
            if take(lock, *arguments) != NOT_TAKEN:
                return False
    return True


def let_go(child: Child) -> None:
    child.say()
    child.result()


def die(child: Child) -> int:
    """Kills and reaps a child. Returns the pid that it had."""
    child.kill()
    child.reap()
    return child.pid


def shared_by_forks(kind: Any) -> Any:
    """A ctypes object in memory that forked children share."""
    return kind.from_buffer(mmap.mmap(-1, ctypes.sizeof(kind)))

"""What all tests share: names for semaphores, and the proof that nothing is left behind."""

from __future__ import annotations

import _multiprocessing as stock
import ctypes
import gc
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import PREFIX, wait_until
from hypothesis import settings

# A shell's background jobs ignore SIGINT, and so do all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomized: whether a run passes depends on the code, and not on chance.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
# pytest --hypothesis-profile=explore: to search for failures.
settings.register_profile("explore", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile("default")

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(scope="session", autouse=True)
def _orphans_come_to_us() -> None:
    """A child whose parent ends becomes our child, so that the tests find it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session", autouse=True)
def _what_is_there_already_is_no_garbage() -> None:
    """The collection after each test skips pytest's own objects: they take a third of the time."""
    gc.collect()
    gc.freeze()


def semaphores() -> set[str]:
    directory = Path("/dev/shm")
    return {path.name for path in directory.glob("*" + PREFIX.lstrip("/") + "*")}


def descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of listdir itself
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def has_no_children() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(_orphans_come_to_us: None) -> Iterator[None]:
    before = semaphores(), descriptors()
    yield
    # A fork server and a resource tracker end soon after the process that started them.
    wait_until(has_no_children, "all child processes have ended")
    gc.collect()
    after = semaphores(), descriptors()
    for left in after[0] - before[0]:  # it is told once, by the test that left it
        stock.sem_unlink(left.removeprefix("sem."))
    assert after == before


@pytest.fixture(scope="session")
def a_segment() -> Iterator[None]:
    """Keeps the segment that this process makes its locks in, so that tests open none anew."""
    import semlock

    kept = semlock.Lock()
    yield
    del kept


@pytest.fixture
def new_name() -> Iterator[Callable[[], str]]:
    """Makes names that no semaphore has, and unlinks the semaphores that were made under them."""
    made = []
    counter = itertools.count()

    def new() -> str:
        made.append(f"{PREFIX}-{next(counter)}")
        return made[-1]

    yield new
    for name in made:
        with suppress(FileNotFoundError):
            stock.sem_unlink(name)


@pytest.fixture
def name(new_name: Callable[[], str]) -> str:
    """A name that no semaphore has, unlinked after the test."""
    return new_name()


@pytest.fixture
def switches_threads_only_where_they_wait() -> Iterator[None]:
    """A thread keeps the GIL until it waits for something: other threads run only then."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)

"""A call leaves nothing in memory, whether it succeeds or fails."""

import gc
import itertools
import pickle
import sys

import pytest
from semlock._multiprocessing import SemLock, sem_unlink

CALLS = 5_000
# Blocks that the interpreter itself may keep: caches that fill up, free lists.
BLOCKS = CALLS // 10


def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (AssertionError, OSError, OverflowError, TypeError, ValueError):
        return
    raise AssertionError("it was accepted")


class Subclass(SemLock):
    pass


def calls(lock, mutex, named):
    """Calls that leave everything as it was, by what they do."""
    return {
        "acquire and release": lambda: (lock.acquire(), lock.release()),
        "acquire with keywords": lambda: (lock.acquire(block=True, timeout=1), lock.release()),
        "with": lambda: (lock.__enter__(), lock.__exit__(None, None, None)),
        "a recursive mutex": lambda: (
            mutex.acquire(),
            mutex.acquire(),
            mutex.release(),
            mutex.release(),
        ),
        "questions": lambda: (lock._count(), lock._get_value(), lock._is_zero(), lock._is_mine()),
        "attributes": lambda: (named.name, named.handle, named.kind, named.maxvalue),
        "creation": lambda: SemLock(1, 1, 1, named.name + "-new", True),
        "creation of a subclass": lambda: Subclass(1, 1, 1, named.name + "-new", True),
        "opening by name": lambda: SemLock._rebuild(0, 1, 1, named.name),
        "opening by handle": lambda: SemLock._rebuild(named.handle, 1, 1, None),
        "pickling": lambda: pickle.loads(pickle.dumps(named)),
        "a release too many": lambda: refused(lock.release),
        "a release by nobody": lambda: refused(mutex.release),
        "NaN": lambda: refused(lock.acquire, True, float("nan")),
        "no number": lambda: refused(lock.acquire, True, "soon"),
        "an unknown keyword": lambda: refused(lock.acquire, when="soon"),
        "too many arguments": lambda: refused(lock.__exit__, 1, 2, 3, 4),
        "a taken name": lambda: refused(SemLock, 1, 1, 1, named.name, True),
        "no name": lambda: refused(SemLock, 1, 1, 1, 5, True),
        "an impossible name": lambda: refused(SemLock, 1, 1, 1, "/a/b", False),
        "a NUL in a name": lambda: refused(sem_unlink, "a\0b"),
        "an unknown kind": lambda: refused(SemLock, 7, 1, 1, named.name + "-new", True),
        "a large number": lambda: refused(SemLock, 1 << 40, 1, 1, named.name + "-new", True),
        "an unknown name": lambda: refused(sem_unlink, named.name + "-unknown"),
        "an unknown handle": lambda: refused(SemLock._rebuild, 5, 1, 1, None),
        "pickling without a name": lambda: refused(pickle.dumps, lock),
    }


KEPT = (None, True, False, SemLock, Subclass, ValueError, TypeError, OSError, AssertionError)


def held():
    """References to what every call touches, and blocks of memory."""
    gc.collect()
    # Immortal objects have a meaningless reference count.
    counts = [sys.getrefcount(kept) if sys.version_info < (3, 12) else 0 for kept in KEPT[:3]]
    counts += [sys.getrefcount(kept) for kept in KEPT[3:]]
    return counts, sys.getallocatedblocks()


@pytest.mark.parametrize("what", calls(None, None, None))
def test_a_call_leaves_nothing_in_memory(what, name):
    named = SemLock(1, 1, 1, name, False)
    lock, mutex = (SemLock(kind, 1, 1, f"{name}-unnamed", True) for kind in (1, 0))
    call = calls(lock, mutex, named)[what]
    for _ in itertools.repeat(None, 100):
        call()
    counts, blocks = held()
    for _ in itertools.repeat(None, CALLS):
        call()
    counts_after, blocks_after = held()
    # One leaked reference a call would be thousands.
    assert all(after - before < BLOCKS for before, after in zip(counts, counts_after, strict=True))
    assert blocks_after - blocks < BLOCKS

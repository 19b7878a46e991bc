"""Deliberate leaks, which the soak has to find: one call leaks once."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import threading
from collections.abc import Callable

# Where the soak has few of a kind, losing one now and then is enough.
SELDOM = 400


def seldom(leak: Callable[[], object]) -> Callable[[], None]:
    calls = itertools.count()

    def maybe() -> None:
        if next(calls) % SELDOM == 0:
            leak()

    return maybe


def descriptors(_: str) -> Callable[[], None]:
    return seldom(lambda: os.open("/dev/null", os.O_RDONLY))


def mapping(_: str) -> Callable[[], None]:
    kept: list[mmap.mmap] = []
    return seldom(lambda: kept.append(mmap.mmap(-1, mmap.PAGESIZE)))


def memory(_: str) -> Callable[[], None]:
    """100 bytes of the C heap, as an extension would lose them."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p

    def leak() -> None:
        ctypes.memset(malloc(100), 1, 100)

    return leak


def objects(_: str) -> Callable[[], None]:
    kept: list[object] = []
    return lambda: kept.append(object())


def thread(_: str) -> Callable[[], None]:
    never = threading.Event()

    def leak() -> None:
        threading.Thread(target=never.wait, daemon=True).start()

    return seldom(leak)


def shm(prefix: str) -> Callable[[], None]:
    numbers = itertools.count()

    def leak() -> None:
        path = f"/dev/shm/{prefix}-leak-{next(numbers)}"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    return seldom(leak)


LEAKS: dict[str, Callable[[str], Callable[[], None]]] = {
    leak.__name__: leak for leak in (descriptors, mapping, memory, objects, thread, shm)
}

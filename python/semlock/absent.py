"""What stands in the place of semlock's own classes where the operating system's part is missing.

They live in memory that processes share, of which semlock knows Linux's only. Elsewhere the exact
port is all there is: ``semlock._multiprocessing``, and ``semlock.install("kernel")``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["check_shared", "fill_in"]

_CLASSES = (
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "SemLock",
    "Semaphore",
)


class _Absent:
    """A class of which no instance can be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse(f"semlock.{type(self).__name__}")


def fill_in(native: ModuleType) -> None:
    """Adds the classes that a build of ``semlock._native`` does not have."""
    for name in _CLASSES:
        if not hasattr(native, name):
            setattr(native, name, type(name, (_Absent,), {"__module__": "semlock"}))


def check_shared(native: ModuleType) -> None:
    """Raises ``NotImplementedError`` where the classes are absent."""
    if issubclass(vars(native)["Lock"], _Absent):
        _refuse('install("shared")')


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} is not available on {sys.platform}: semlock's own locks need memory and sleeping "
        'that it knows of Linux only. semlock.install("kernel") has multiprocessing use the '
        "operating system's semaphores, which are not robust"
    )

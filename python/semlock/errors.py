"""What semlock's own warnings and exceptions are."""

import sys
import warnings

__all__ = ["OwnerDiedWarning", "QueueBrokenError"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock was recovered from a process that died holding it.

    What the lock protects may be half-written. ``warnings.simplefilter("error",
    OwnerDiedWarning)`` makes it an exception; the lock is then not taken, and whoever comes next is
    told too. Who waited for a condition has its lock all the same, as always after a wait.
    """


class QueueBrokenError(RuntimeError):
    """A process died, or was interrupted, while it moved a message through a queue's pipe.

    What is left in the pipe begins in the middle of a message, so nobody can read it, and nothing
    can be written behind it. The queue stays so: make a new one.
    """


def warn_that_owner_died(pid: int, name: str) -> None:
    warnings.warn(
        f"process {pid} died while it held this {name}: what the {name} protects may be "
        "half-written, so check or restore it before you rely on it. (`recovered` is the dead "
        'process until release; one made with on_owner_died="ignore" does not warn.)',
        OwnerDiedWarning,
        level_of_caller(),
    )


def level_of_caller() -> int:
    """The stack level, for ``warnings.warn`` in the function that asks, of who called semlock.

    What ``multiprocessing.sharedctypes`` generates runs in a namespace without a name.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "semlock").split(".")[0] in _PACKAGES:
        level, frame = level + 1, frame.f_back
    return level


_PACKAGES = ("multiprocessing", "semlock")

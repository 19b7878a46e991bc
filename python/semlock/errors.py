"""What semlock's own warnings and exceptions are."""

import sys
import warnings

__all__ = ["OwnerDiedWarning", "QueueBrokenError", "WorkerDied"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock was recovered from a process that died holding it.

    What the lock protects may be half-written. ``warnings.simplefilter("error",
    OwnerDiedWarning)`` makes it an exception; the lock is then not taken, and whoever comes next is
    told too. Who waited for a condition has its lock all the same, as always after a wait.

    A hook of the warning runs while the lock is held, and may take the lock itself.
    """


class QueueBrokenError(RuntimeError):
    """A process died, or was interrupted, while it moved a message through a queue's pipe.

    What is left in the pipe begins in the middle of a message, so nobody can read it, and nothing
    can be written behind it. The queue stays so: make a new one.
    """


class WorkerDied(RuntimeError):  # noqa: N818
    """A process ended that held tasks of a ``JoinableQueue``, which nobody is going to do.

    ``JoinableQueue.join()`` raises it as soon as it finds out, wherever it is called at that
    moment, and counts these tasks as done. The queue goes on: put again what is still to be done,
    start another worker, and call ``join()`` again.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.tasks = tasks
        """How many tasks were lost."""

    def __str__(self) -> str:
        lost = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return (
            f"{lost} of this queue can never be done: a process ended that had taken, but not done "
            "them, or put, but not sent them. (They count as done now: put again what is to be "
            "done, and join again.)"
        )


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

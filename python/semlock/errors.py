"""semlock's own warnings and exceptions."""

import sys
import warnings

__all__ = ["OwnerDiedWarning", "QueueBrokenError", "WorkerDied"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock, or a permit of a robust semaphore, was acquired from a process that died.

    The data that it protects may be half-written: check it, or restore it, before you use it.
    ``recovered`` is the pid of the dead process until the release.

    ``warnings.simplefilter("error", OwnerDiedWarning)`` makes it an exception. Then the lock is not
    acquired, and the next one that acquires it is warned too. After the ``wait`` of a condition the
    lock is held all the same.

    Code that the warning runs (a log handler) runs while the lock is held. It may acquire the same
    lock, and must not wait for another thread that waits for that lock.

    >>> import warnings, semlock
    >>> context = semlock.get_context("spawn")
    >>> lock = context.RLock()
    >>> worker = context.Process(target=lock.acquire)  # and ends with it
    >>> worker.start()
    >>> worker.join()
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", semlock.OwnerDiedWarning)
    ...     try:
    ...         lock.acquire()
    ...     except semlock.OwnerDiedWarning:
    ...         print("its owner died")
    its owner died
    """


class QueueBrokenError(RuntimeError):
    """Nothing raises this: no death breaks a queue. It is there for programs that name it.

    >>> import semlock
    >>> issubclass(semlock.QueueBrokenError, RuntimeError)
    True
    """


class WorkerDied(RuntimeError):  # noqa: N818
    """A process died with a task that it had taken.

    * A ``Pool`` fails the task of a worker that died with it; all other tasks go on. ``pid``,
      ``exitcode`` (as a ``Process`` has it: a negative number is a signal's) and ``task`` (the
      function's name) say which.
    * ``JoinableQueue.join()`` raises it in each process that is in it at that moment. The lost
      tasks count as done from then on. Put again what is still to be done, start another worker,
      and call ``join()`` again.

    :param tasks: how many tasks were lost.
    :param pid: the pid of the worker, if that is known.
    :param exitcode: its exit code, if that is known.
    :param task: the name of the function that it called, if that is known.

    >>> import os, semlock
    >>> with semlock.get_context("fork").Pool(1) as pool:
    ...     try:
    ...         pool.apply(os._exit, (3,))
    ...     except semlock.WorkerDied as error:
    ...         print(error.tasks, error.exitcode, error.task)
    1 3 _exit
    """

    def __init__(
        self,
        tasks: int,
        *,
        pid: int | None = None,
        exitcode: int | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__(tasks)
        self.tasks = tasks
        """How many tasks were lost."""
        self.pid = pid
        """The pid of the worker that died; None if that is unknown."""
        self.exitcode = exitcode
        """Its exit code; None if that is unknown."""
        self.task = task
        """The name of the function that it called; None if that is unknown."""

    def __str__(self) -> str:
        if self.pid is not None:
            code = self.exitcode or 0
            how = f"killed by signal {-code}" if code < 0 else f"with exit code {code}"
            return (
                f"the worker {self.pid} died ({how}) with a task that it had taken, {self.task}: "
                "what the task did until then is unknown. (The pool goes on with another worker. "
                "Submit the task again, or make the pool with retry=1, if it can be done twice.)"
            )
        lost = "1 task" if self.tasks == 1 else f"{self.tasks} tasks"
        return (
            f"{lost} of this queue can never be done: a process ended after it had taken tasks and "
            "before it had done them, or after it had put tasks and before it had sent them. (They "
            "count as done now: put again what is to be done, and join again.)"
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
    """Returns the stack level of the code that called semlock.

    It is meant for ``warnings.warn`` in the function that calls this one. A namespace without a
    ``__name__`` counts as semlock's: code that ``multiprocessing.sharedctypes`` generates runs in
    such a one.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "semlock").split(".")[0] in _PACKAGES:
        level, frame = level + 1, frame.f_back
    return level


_PACKAGES = ("multiprocessing", "semlock")

"""Whether this process ends well, or dies while it holds locks.

A process ends well if its target or its main module returns, or if it calls ``sys.exit(0)``. The
plain locks that it holds then stay held, because the stdlib allows another process to release them.
Every other end is a death: an exception, a status that is not 0, a signal, or ``os._exit``.

A process ends in one of two ways:

* A process that ``multiprocessing`` forks ends by ``os._exit``, and nothing else in it learns the
  status. So semlock watches the ``run`` of such a process, and leaves its locks held when
  ``multiprocessing`` has run its last finalizer.
* Every other process, children by spawn included, ends by C's ``exit``. That knows the status,
  which accounts for everything that happened before: an uncaught exception, a ``SystemExit``, or
  standard output that could not be flushed. semlock leaves the locks held at that point, after all
  of Python.

A thread that still runs then (a daemon) is still using the locks that it holds, and the end of the
process interrupts it. So those locks are recovered.
"""

from __future__ import annotations

import atexit
import sys
import threading
from multiprocessing import process, util

from . import _native

__all__ = ["watch"]

# multiprocessing runs its finalizers in the order of their priorities. This one is the last.
_LAST = -sys.maxsize


def watch() -> None:
    """Watch how this process ends, and how the processes end that it forks."""
    atexit.register(_leave_held_at_exit)
    # multiprocessing calls this in each child that it starts, before the child runs.
    util.register_after_fork(_native, _watch_run)


def _leave_held_at_exit() -> None:
    _native._leave_held_at_exit(_running())


def _watch_run(_: object) -> None:
    child = process.current_process()
    run = _native._Run(child.run)
    child.run = run  # type: ignore[method-assign]
    util.Finalize(None, _leave_held, (run,), exitpriority=_LAST)


def _leave_held(run: _native._Run) -> None:
    if run.ended_well:
        # It waits until all threads that are no daemons have ended. multiprocessing calls it next
        # or, since Python 3.13, has called it already.
        threading._shutdown()  # type: ignore[attr-defined]
        _native._leave_held(_running())


def _running() -> list[int]:
    """The other threads of this process."""
    return [thread for thread in sys._current_frames() if thread != threading.get_ident()]

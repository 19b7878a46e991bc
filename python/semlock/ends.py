"""Whether this process ends well, or dies with what it holds.

A process ends well if its target or its main module returns, or by ``sys.exit(0)``. Then another is
perhaps to release the plain locks that it holds, as the stdlib allows: they stay held. Every other
end is a death: by an exception, a status that is not 0, a signal, or ``os._exit``.

Two ways lead to the end:

* What ``multiprocessing`` forks ends by ``os._exit``, with a status that nothing else is told. So
  the ``run`` of such a process is watched, and the locks are left when ``multiprocessing`` has run
  its last finalizer.
* Everything else, children by spawn among them, ends by C's ``exit``. It tells its status, which is
  right whatever happened on the way there: an exception that nobody caught, a ``SystemExit``, or
  standard output that could not be flushed. The locks are left then, after all of Python.

What a thread holds that still runs by then (a daemon) is in use, and the end cuts that short: those
locks are recovered.
"""

from __future__ import annotations

import atexit
import sys
import threading
from multiprocessing import process, util

from . import _native

__all__ = ["watch"]

# multiprocessing finalizes in the order of priorities, and then nothing more.
_LAST = -sys.maxsize


def watch() -> None:
    """Watch how this process ends, and those that are forked from it."""
    atexit.register(_leave_held_at_exit)
    # Called in each child that multiprocessing starts, before it runs.
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
        # What multiprocessing calls next, or, since Python 3.13, has called: threads that are no
        # daemons come to their ends.
        threading._shutdown()  # type: ignore[attr-defined]
        _native._leave_held(_running())


def _running() -> list[int]:
    """The other threads of this process."""
    return [thread for thread in sys._current_frames() if thread != threading.get_ident()]

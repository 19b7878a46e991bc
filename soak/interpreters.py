"""Interpreters that the soak cannot run on: they fail without semlock too."""

from __future__ import annotations

import sys
import sysconfig


def unfit() -> str | None:
    """The reason why this interpreter cannot be soaked, or None."""
    if sys.version_info < (3, 11):
        # A thread that starts a process fails if another thread closes one: `_cleanup` of
        # multiprocessing.process asks a closed process whether it has ended. 3.11 does not.
        return "CPython 3.10 does not stand threads that start processes"
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
        # If one of a dozen threads forks, one child of some thousand hangs with the stdlib alone.
        # It waits for a lock inside CPython: as it flushes its output, or in its first code.
        return "free-threaded CPython 3.13 does not stand threads that fork"
    return None

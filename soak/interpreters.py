"""Interpreters that cannot be soaked, because of what they do without semlock too."""

from __future__ import annotations

import sys
import sysconfig


def unfit() -> str | None:
    """Why this one cannot be, if so."""
    if sys.version_info < (3, 11):
        # One thread that starts a process trips over another that closes one: `_cleanup` of
        # multiprocessing.process asks a closed one whether it has ended. 3.11 does not.
        return "CPython 3.10 does not stand threads that start processes"
    if sysconfig.get_config_var("Py_GIL_DISABLED") and sys.version_info < (3, 14):
        # Of some thousand forks in one of a dozen threads, with the stdlib alone, one child hangs
        # on a lock inside of CPython: as it flushes its output, or in its first Python code.
        return "free-threaded CPython 3.13 does not stand threads that fork"
    return None

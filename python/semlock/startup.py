"""Starting an interpreter on semlock, whatever modules lie beside the program.

``python -m semlock``, and a fresh child, import semlock before the program's own modules. At that
moment the current directory is first on ``sys.path``, and semlock imports modules of the standard
library. The program may have modules of the same names (``queue.py``, ``random.py``). So two things
happen:

* While semlock is imported, ``sys.path`` begins with the standard library.
* Afterwards the interpreter forgets each module that the program has one of its own for. (semlock
  keeps what it has imported.)

Python imports this module of semlock first. It imports only modules that are always there.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

__all__ = ["StandardLibraryFirst", "before_standard_library", "forget_shadowed"]

_known = frozenset(sys.modules)
# A frozen program may have no standard library on its path, or have it in several places. It has
# nothing of its own before that.
_STANDARD_LIBRARY = (
    None if hasattr(sys, "frozen") else os.path.dirname(getattr(os, "__file__", "")) or None
)
# On Windows this folder is a part of the standard library, and comes before the rest of it.
_EXTENSIONS = os.path.join(sys.base_exec_prefix, "DLLs")
# The program runs on these packages.
_NEVER_FORGOTTEN = ("multiprocessing", "semlock")


class StandardLibraryFirst:
    """A context in which, if ``wanted``, nothing comes before the standard library."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        self._path = sys.path[:]
        if self._wanted:
            own = before_standard_library(sys.path)
            sys.path[:] = [entry for entry in sys.path if entry not in own]

    def __exit__(self, *_: object) -> None:
        sys.path[:] = self._path


def before_standard_library(path: list[str]) -> list[str]:
    """Returns the entries of a ``sys.path`` that come before the standard library."""
    if _STANDARD_LIBRARY not in path:
        return []
    before = path[: path.index(_STANDARD_LIBRARY)]
    return [entry for entry in before if entry != _EXTENSIONS]


def forget_shadowed(own: list[str]) -> None:
    """Forgets each module imported since semlock that these folders have another one of."""
    new = {name for name in sys.modules.keys() - _known if "." not in name}
    for name in new.difference(_NEVER_FORGOTTEN):
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or not spec.has_location:
            continue  # A module that is built in or frozen comes before any folder.
        shadowing = PathFinder.find_spec(name, own)
        # A spec without a loader is a folder without an __init__. Python takes such a folder last.
        if shadowing is None or shadowing.loader is None:
            continue
        # If it is the same file, a fork server has imported it for its children: keep it.
        if shadowing.origin != spec.origin:
            for module in [it for it in sys.modules if it.split(".")[0] == name]:
                del sys.modules[module]

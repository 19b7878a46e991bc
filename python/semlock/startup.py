"""Starting an interpreter on semlock, whatever modules lie beside the program.

A program that is run by ``python -m semlock``, and a fresh child, import semlock before anything
of their own: with the current directory first on ``sys.path``, and with modules of the standard
library that the program may never import, and have others of the same name for (``queue.py``,
``random.py``). So meanwhile ``sys.path`` begins with the standard library, and what the program
has others for is forgotten again. (semlock keeps what it has imported.)

This is the first of semlock's modules to be imported, and imports only what is always there.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

__all__ = ["StandardLibraryFirst", "before_standard_library", "forget_shadowed"]

_known = frozenset(sys.modules)
# A frozen program may have none, or have it in several places, with nothing of its own before it.
_STANDARD_LIBRARY = (
    None if hasattr(sys, "frozen") else os.path.dirname(getattr(os, "__file__", "")) or None
)
# On Windows a part of it, and before it.
_EXTENSIONS = os.path.join(sys.base_exec_prefix, "DLLs")
# These are what the program is to run on.
_NEVER_FORGOTTEN = ("multiprocessing", "semlock")


class StandardLibraryFirst:
    """While it is entered, if it is ``wanted``, nothing comes before the standard library."""

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
    """What comes before the standard library on a ``sys.path``."""
    if _STANDARD_LIBRARY not in path:
        return []
    before = path[: path.index(_STANDARD_LIBRARY)]
    return [entry for entry in before if entry != _EXTENSIONS]


def forget_shadowed(own: list[str]) -> None:
    """Forgets what was imported since semlock and is there, another one, in these folders too."""
    new = {name for name in sys.modules.keys() - _known if "." not in name}
    for name in new.difference(_NEVER_FORGOTTEN):
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or not spec.has_location:
            continue  # What is built in or frozen comes before any folder.
        shadowing = PathFinder.find_spec(name, own)
        # Without a loader it is a folder without an __init__, which comes last.
        if shadowing is None or shadowing.loader is None:
            continue
        # The same is what a fork server has imported for its children.
        if shadowing.origin != spec.origin:
            for module in [it for it in sys.modules if it.split(".")[0] == name]:
                del sys.modules[module]

"""Cross-process semaphores and locks: a drop-in for what ``multiprocessing`` stands on.

* ``semlock._multiprocessing`` has the names of CPython's ``_multiprocessing``.
* :func:`install` puts it in that module's place, in this process and in every child that
  ``multiprocessing`` starts from it; :func:`uninstall` undoes that.
* ``python -m semlock script.py ...`` runs an unmodified program so.
"""

import copyreg
from typing import Any

from ._multiprocessing import SemLock as _SemLock
from .install import install, uninstall

__all__ = ["install", "uninstall"]


def _rebuild_semlock(handle: int, kind: int, maxvalue: int, name: str) -> _SemLock:
    """What a pickled ``SemLock`` unpickles by, whichever ``_multiprocessing`` is in place."""
    return _SemLock._rebuild(handle, kind, maxvalue, name)


def _reduce_semlock(lock: _SemLock) -> tuple[Any, ...]:
    """``SemLock.__reduce__``: by name, with what a subclass has added."""
    cls = type(lock)
    if lock.name is None:
        name = "_multiprocessing.SemLock" if cls is _SemLock else cls.__name__
        raise TypeError(f"cannot pickle {name!r} object")
    state: Any = getattr(lock, "__dict__", None) or None
    slots = {
        name: getattr(lock, name)
        for name in copyreg._slotnames(cls)  # type: ignore[attr-defined]
        if hasattr(lock, name)
    }
    if slots:
        state = state, slots
    rebuild = _rebuild_semlock if cls is _SemLock else cls._rebuild
    return rebuild, (lock.handle, lock.kind, lock.maxvalue, lock.name), state


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("semlock")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Cross-process semaphores and locks: a drop-in for what ``multiprocessing`` stands on.

* :class:`Lock` and its siblings have the interface of ``multiprocessing``'s, and can be sent
  wherever a pickle goes. A lock whose holder dies is recovered.
* :func:`get_context` gives a ``multiprocessing`` context that runs on them.
* :func:`install` puts them in the place of ``multiprocessing``'s, in this process and in every
  child that ``multiprocessing`` starts from it; :func:`uninstall` undoes that.
* ``python -m semlock script.py ...`` runs an unmodified program so.
* ``semlock._multiprocessing`` has the names of CPython's ``_multiprocessing``.
"""

from typing import Any

from ._native import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

# isort: split
# _native has made this module.
from ._multiprocessing import SemLock as _SemLock
from .context import get_context
from .errors import OwnerDiedWarning, QueueBrokenError
from .install import install, uninstall

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "OwnerDiedWarning",
    "QueueBrokenError",
    "RLock",
    "Semaphore",
    "get_context",
    "install",
    "uninstall",
]


def _rebuild_semlock(handle: int, kind: int, maxvalue: int, name: str) -> _SemLock:
    """What a pickled ``SemLock`` unpickles by, whichever ``_multiprocessing`` is in place."""
    return _SemLock._rebuild(handle, kind, maxvalue, name)


def _reduce_semlock(lock: _SemLock) -> tuple[Any, ...]:
    """``SemLock.__reduce__``: by name, with what a subclass has added."""
    cls = type(lock)
    if lock.name is None:
        name = "_multiprocessing.SemLock" if cls is _SemLock else cls.__name__
        raise TypeError(f"cannot pickle {name!r} object")
    from .sharing import added_state

    rebuild = _rebuild_semlock if cls is _SemLock else cls._rebuild
    return rebuild, (lock.handle, lock.kind, lock.maxvalue, lock.name), added_state(lock)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("semlock")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

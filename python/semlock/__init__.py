"""Cross-process semaphores and locks: a drop-in replacement for those of ``multiprocessing``.

* :class:`Lock` and the other classes have the interface of ``multiprocessing``'s. They can be sent
  in any pickle. A lock whose holder dies is recovered.
* :func:`get_context` returns a ``multiprocessing`` context that uses these classes.
* :func:`install` replaces the classes of ``multiprocessing`` with these, in this process and in
  every child that ``multiprocessing`` starts from it; :func:`uninstall` undoes that.
* ``python -m semlock script.py ...`` runs an unmodified program on semlock.
* ``semlock._multiprocessing`` has the names of CPython's ``_multiprocessing``.
"""

import sys

from .startup import StandardLibraryFirst

# sys.argv begins with "-m" while `python -m` looks for the module that it runs.
with StandardLibraryFirst(sys.argv[:1] == ["-m"]):
    from typing import TYPE_CHECKING, Any

    from . import _native

    # isort: split
    # Importing _native has made this module.
    from ._multiprocessing import SemLock as _SemLock
    from .context import get_context
    from .errors import OwnerDiedWarning, QueueBrokenError, WorkerDied
    from .install import install, uninstall

    if _native.HAS_SHARED:
        from . import ends
        from ._native import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

        ends.watch()

__version__: str

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
    "WorkerDied",
    "get_context",
    "install",
    "uninstall",
]


def _rebuild_semlock(handle: int, kind: int, maxvalue: int, name: str | None) -> _SemLock:
    """Unpickles a ``SemLock``, whichever ``_multiprocessing`` is installed."""
    return _SemLock._rebuild(handle, kind, maxvalue, name)


def _reduce_semlock(lock: _SemLock) -> tuple[Any, ...]:
    """``SemLock.__reduce__``: pickles the name, and the state that a subclass has added.

    On Windows it pickles a handle instead, which a child gets while it is started.
    """
    cls = type(lock)
    handle = lock.handle
    if sys.platform == "win32":
        from multiprocessing.context import get_spawning_popen

        popen = get_spawning_popen()
        can_be_sent = popen is not None
        if popen is not None:
            handle = popen.duplicate_for_child(handle)
    else:
        can_be_sent = lock.name is not None
    if not can_be_sent:
        name = "_multiprocessing.SemLock" if cls is _SemLock else cls.__name__
        raise TypeError(f"cannot pickle {name!r} object")
    from .sharing import added_state

    rebuild = _rebuild_semlock if cls is _SemLock else cls._rebuild
    return rebuild, (handle, lock.kind, lock.maxvalue, lock.name), added_state(lock)


if not TYPE_CHECKING:  # a type checker that sees __getattr__ accepts every name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib import metadata

            try:
                return metadata.version("semlock")
            except metadata.PackageNotFoundError as error:
                # The package is importable, but was never installed.
                raise AttributeError(f"semlock has no version here: {error}") from None
        if name in __all__:
            # The classes of `kernel` are imported at their first use. (_native alone would import
            # them too, but then the tools that freeze programs would not see the import.)
            from . import kernel  # noqa: F401

            return getattr(_native, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

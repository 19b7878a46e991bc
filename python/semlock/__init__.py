"""Cross-process semaphores and locks: a drop-in for what ``multiprocessing`` stands on.

* :class:`Lock` and its siblings have the interface of ``multiprocessing``'s, and can be sent
  wherever a pickle goes. A lock whose holder dies is recovered.
* :func:`get_context` gives a ``multiprocessing`` context that runs on them.
* :func:`install` puts them in the place of ``multiprocessing``'s, in this process and in every
  child that ``multiprocessing`` starts from it; :func:`uninstall` undoes that.
* ``python -m semlock script.py ...`` runs an unmodified program so.
* ``semlock._multiprocessing`` has the names of CPython's ``_multiprocessing``.
"""

import sys

from .startup import StandardLibraryFirst

# sys.argv begins so while `python -m` looks for what it is to run.
with StandardLibraryFirst(sys.argv[:1] == ["-m"]):
    from typing import TYPE_CHECKING, Any

    from . import _native

    # isort: split
    # _native has made this module.
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
    """What a pickled ``SemLock`` unpickles by, whichever ``_multiprocessing`` is in place."""
    return _SemLock._rebuild(handle, kind, maxvalue, name)


def _reduce_semlock(lock: _SemLock) -> tuple[Any, ...]:
    """``SemLock.__reduce__``: by name, with what a subclass has added.

    On Windows by a handle, which a child gets while it is started.
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


if not TYPE_CHECKING:  # which takes whatever is asked for to be there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib import metadata

            try:
                return metadata.version("semlock")
            except metadata.PackageNotFoundError as error:
                # It lies somewhere without having been installed.
                raise AttributeError(f"semlock has no version here: {error}") from None
        if name in __all__:
            # What stands in for semlock's own classes is imported when it is asked for. (_native
            # would do that alone, where no tool sees it that freezes programs.)
            from . import kernel  # noqa: F401

            return getattr(_native, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

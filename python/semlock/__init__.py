"""Cross-process semaphores and locks: a drop-in for what ``multiprocessing`` stands on.

* ``semlock._multiprocessing`` has the names of CPython's ``_multiprocessing``.
* :func:`install` puts it in that module's place, in this process and in every child that
  ``multiprocessing`` starts from it; :func:`uninstall` undoes that.
* ``python -m semlock script.py ...`` runs an unmodified program so.
"""

from ._multiprocessing import SemLock as _SemLock
from .install import install, uninstall

__all__ = ["install", "uninstall"]


def _rebuild_semlock(handle: int, kind: int, maxvalue: int, name: str) -> _SemLock:
    """What a pickled ``SemLock`` unpickles by."""
    return _SemLock._rebuild(handle, kind, maxvalue, name)


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("semlock")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

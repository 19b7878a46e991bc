"""Putting semlock in the place of CPython's ``_multiprocessing``, here and in every child.

In this process: ``sys.modules`` and the modules that have already imported ``_multiprocessing``
are pointed at ``semlock._multiprocessing``. Children by fork inherit that. Children by spawn and
forkserver are fresh interpreters, and two things reach them:

* The *preparation data*, which a child unpickles first of all. One entry is added to it, whose
  unpickling installs. It is made of builtins alone, because the child's ``sys.path`` is not set up
  yet by then.
* A fork server imports ``__main__`` before it sees any preparation data, so its command line is
  made to install first. It may outlive an ``uninstall()``: a child whose preparation data lacks the
  entry undoes what it inherited.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import spawn, util
from types import ModuleType
from typing import Any, NamedTuple

from . import _multiprocessing as _ours

__all__ = ["install", "uninstall"]

_BACKENDS = ("kernel",)

# What other modules import, or import from, under these names.
_NAMES = ("SemLock", "sem_unlink", "flags")

# The key in the preparation data.
_KEY = "semlock"

# Run in a fresh interpreter. It loads this very package by its place, because nothing is on
# `sys.path` yet, and a child that cannot have it still works, on the interpreter's own module.
_BOOTSTRAP = """\
import importlib.util, sys
try:
    if "semlock" not in sys.modules:
        spec = importlib.util.spec_from_file_location("semlock", {init!r})
        sys.modules["semlock"] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["semlock"]
            raise
    from semlock.install import {function}
    {function}({backend!r})
except Exception as error:
    import warnings
    warnings.warn(
        f"semlock is not installed in this child process, which goes on with the interpreter's "
        f"own semaphores: {{type(error).__name__}}: {{error}}",
        RuntimeWarning,
    )
"""


class _Change(NamedTuple):
    """A global that was made to name something else."""

    namespace: dict[str, Any]
    name: str
    before: object
    after: object

    def make(self) -> None:
        self.namespace[self.name] = self.after

    def undo(self) -> None:
        # Somebody may have put something else there meanwhile: then that stays.
        if self.namespace.get(self.name) is self.after:
            self.namespace[self.name] = self.before


# Held while anything changes, and across a fork, so that a child finds everything whole. A signal
# handler that installs or forks can come in between in the same thread, and must not wait for it.
_lock = threading.RLock()
os.register_at_fork(
    before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
)


def install(backend: str = "kernel") -> None:
    """Make ``multiprocessing`` use semlock, in this process and in every child it starts from now.

    ``backend="kernel"`` is the operating system's semaphores, as in CPython; ``_multiprocessing``
    alone is replaced. Locks that exist already go on as what they are, and named ones can be shared
    with processes that use CPython's own module. Calling it again changes nothing.

    Raises ``ValueError`` for an unknown backend.
    """
    global _installation
    if backend not in _BACKENDS:
        known = ", ".join(map(repr, _BACKENDS))
        raise ValueError(f"unknown backend {backend!r}: this version of semlock has {known}")
    try:
        stock: ModuleType | None = importlib.import_module("_multiprocessing")
    except ImportError:
        # An interpreter that was built without.
        stock = None
    with _lock:
        if _installation is None:
            _installation = _Installation(backend, stock)
            _installation.make()


def uninstall() -> None:
    """Undo :func:`install`, here and for the children started from now.

    Locks that were made in between go on as what they are. Calling it again changes nothing.
    """
    global _installation
    with _lock:
        installation, _installation = _installation, None
        if installation is not None:
            installation.undo()


class _Installation:
    """All that one install() has changed."""

    def __init__(self, backend: str, stock: ModuleType | None) -> None:
        self.backend = backend
        self.stock = stock
        self.active = True
        # All that is to be changed is known before anything is.
        self.changes = _globals_that_name(stock, _ours, list(sys.modules.values()))
        self.changes += [
            self.wrapped(spawn, "get_preparation_data", self.get_preparation_data),
            self.wrapped(util, "spawnv_passfds", self.spawnv_passfds),
        ]

    def make(self) -> None:
        sys.modules["_multiprocessing"] = _ours
        for change in self.changes:
            change.make()

    def undo(self) -> None:
        # Parts of multiprocessing that were imported since are changed too. (Of other modules
        # nobody knows which of the two they meant to have.)
        since = [
            module
            for name, module in list(sys.modules.items())
            if isinstance(name, str) and name.split(".")[0] == "multiprocessing"
        ]
        changes = _globals_that_name(_ours, self.stock, since)
        self.active = False
        if sys.modules.get("_multiprocessing") is _ours:
            del sys.modules["_multiprocessing"]
            if self.stock is not None:
                sys.modules["_multiprocessing"] = self.stock
        for change in changes:
            change.make()
        for change in self.changes:
            change.undo()

    def wrapped(self, module: ModuleType, name: str, wrapper: Callable[..., Any]) -> _Change:
        """Has a function called through one of the methods below.

        If somebody wraps that in turn, it stays in use after uninstall(), and then only passes on.
        """
        before = getattr(module, name)

        @functools.wraps(before)
        def wrapping(*args: Any, **kwargs: Any) -> Any:
            if not self.active:
                return before(*args, **kwargs)
            return wrapper(before, *args, **kwargs)

        return _Change(vars(module), name, before, wrapping)

    def get_preparation_data(self, before: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        data = before(*args, **kwargs)
        data[_KEY] = _InstallsWhenUnpickled(self.backend)
        return data

    def spawnv_passfds(
        self, before: Callable[..., Any], path: Any, args: Sequence[Any], passfds: Any
    ) -> Any:
        first = f"exec({_bootstrap(_install_in_fork_server, self.backend)!r}, {{}}); "
        args = [
            first + arg
            if option == "-c" and "from multiprocessing.forkserver import main" in arg
            else arg
            for option, arg in zip([None, *args], args, strict=False)
        ]
        return before(path, args, passfds)


_installation: _Installation | None = None


def _globals_that_name(
    old: ModuleType | None, new: ModuleType | None, modules: Iterable[object]
) -> list[_Change]:
    """The globals of these modules that name ``old`` or something of its.

    Modules can be lazy or anything else: their namespaces are read without running their code.
    """
    if old is None or new is None:
        return []
    replacements: list[tuple[str, object, object]] = [("_multiprocessing", old, new)]
    replacements += [(name, vars(old).get(name), vars(new).get(name)) for name in _NAMES]
    changes = []
    for module in modules:
        if module is old or module is new or not issubclass(type(module), ModuleType):
            continue
        namespace = _namespace_of(module)
        for name, before, after in replacements:
            if before is not None and after is not None and namespace.get(name) is before:
                changes.append(_Change(namespace, name, before, after))
    return changes


def _namespace_of(module: object) -> dict[str, Any]:
    descriptor: Any = vars(ModuleType)["__dict__"]
    return descriptor.__get__(module) or {}


# ---- In children ----


class _InstallsWhenUnpickled:
    """Something to pickle that installs where it is unpickled, and is ``None`` there."""

    def __init__(self, backend: str) -> None:
        self.code = _bootstrap(install, backend)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str, dict[str, Any]]]:
        # A namespace of its own, or the code would run in that of whoever unpickles it.
        return exec, (self.code, {})


# Absolute, whatever becomes the current directory.
_INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__init__.py")


def _bootstrap(function: Callable[[str], None], backend: str) -> str:
    return _BOOTSTRAP.format(init=_INIT, function=function.__name__, backend=backend)


def _install_in_fork_server(backend: str) -> None:
    install(backend)
    prepare = spawn.prepare

    def prepare_in_its_child(data: Mapping[str, Any]) -> None:
        if _KEY not in data:
            # The process that this one works for is not installed any more.
            uninstall()
        prepare(data)

    spawn.prepare = prepare_in_its_child

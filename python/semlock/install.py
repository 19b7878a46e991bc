"""Makes ``multiprocessing`` use semlock, in this process and in every child.

In this process, ``install()`` puts ``semlock._multiprocessing`` into ``sys.modules``, and into each
module that has already imported ``_multiprocessing``. With ``backend="shared"`` it also replaces
the classes of ``multiprocessing.synchronize`` and ``multiprocessing.queues`` in each module that
has them: in these two modules first of all, where ``multiprocessing.Lock()`` and the like look them
up at each call. Forked children inherit all of that. Children by spawn and forkserver are fresh
interpreters. semlock reaches them in two ways:

* A child first unpickles its *preparation data*. ``install()`` adds one entry, which installs when
  it is unpickled. The entry consists of builtins alone, because the child's ``sys.path`` is not set
  up yet.
* A fork server imports ``__main__`` before it gets any preparation data. So ``install()`` changes
  its command line, which then installs first. The server may outlive an ``uninstall()``: a child
  whose preparation data lacks the entry uninstalls what it inherited.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import reduction, spawn, util
from types import ModuleType
from typing import Any, NamedTuple

from . import _multiprocessing as _ours
from .startup import before_standard_library
from .stdlib import over_our_semlock

__all__ = ["install", "uninstall"]

_BACKENDS = ("shared", "kernel")

# The names under which other modules may have imported what is replaced.
_NAMES = ("SemLock", "sem_unlink", "flags")
_NAMES_OF_QUEUES = ("Queue", "JoinableQueue", "SimpleQueue")

# The key of our entry in the preparation data.
_KEY = "semlock"

# A fork server's program begins with this, on all versions; on some, another import comes before
# it. Our code goes behind it, because a frozen program knows by it that it starts as a fork server.
_FORK_SERVER = "from multiprocessing.forkserver import main; "

# A fresh interpreter runs this. It loads this package from its file, because `sys.path` has nothing
# but the current directory yet, whose modules are the program's (see `startup`). In a frozen
# program the package has no file, and is imported. A child that cannot load the package goes on
# with the interpreter's own module.
_BOOTSTRAP = """\
import importlib.util, sys
path = sys.path[:]
try:
    sys.path[:] = [entry for entry in path if entry and entry not in {own!r}]
    if {init!r} and "semlock" not in sys.modules:
        spec = importlib.util.spec_from_file_location("semlock", {init!r})
        sys.modules["semlock"] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["semlock"]
            raise
    from semlock.install import {function}
    {function}({backend!r})
    from semlock.startup import forget_shadowed
    forget_shadowed({own!r})
except Exception as error:
    import warnings
    warnings.warn(
        f"semlock is not installed in this child process, which goes on with the interpreter's "
        f"own semaphores: {{type(error).__name__}}: {{error}}",
        RuntimeWarning,
    )
finally:
    sys.path[:] = path
"""


class _Change(NamedTuple):
    """The replacement of a global of a module."""

    namespace: dict[str, Any]
    name: str
    before: object
    after: object

    def make(self) -> None:
        self.namespace[self.name] = self.after

    def undo(self) -> None:
        # If other code has replaced it meanwhile, that stays.
        if self.namespace.get(self.name) is self.after:
            self.namespace[self.name] = self.before


class _MethodChange(NamedTuple):
    """The replacement of a method of a class."""

    owner: type
    name: str
    before: object
    after: object

    def make(self) -> None:
        setattr(self.owner, self.name, self.after)

    def undo(self) -> None:
        if vars(self.owner).get(self.name) is self.after:
            setattr(self.owner, self.name, self.before)


class _ReducerChange(NamedTuple):
    """A reducer that pickles the instances of a replaced class for children.

    Pickle does not find such a class under its name any more. Its instances can be sent all the
    same.
    """

    cls: type

    def make(self) -> None:
        reducers = vars(reduction.ForkingPickler)["_extra_reducers"]
        reducers.setdefault(self.cls, _reduce_stocks)

    def undo(self) -> None:
        reducers = vars(reduction.ForkingPickler)["_extra_reducers"]
        if reducers.get(self.cls) is _reduce_stocks:
            del reducers[self.cls]


class _Replacement(NamedTuple):
    """Puts ``after`` in each global of this name that is ``before``."""

    name: str
    before: object
    after: object


# Held while anything changes, and across a fork, so that a child finds every change complete. It is
# reentrant, because a signal handler that installs or forks can interrupt the thread that holds it.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def install(backend: str = "shared") -> None:
    """Make ``multiprocessing`` use semlock, in this process and in every child it starts from now.

    Call it first: locks and queues that exist already go on as what they are. A second call
    changes nothing; with the other backend it is as if :func:`uninstall` had been called in
    between. Processes that ``multiprocessing`` does not start call it themselves. A child that
    cannot install semlock goes on with the interpreter's own locks, with a ``RuntimeWarning``.

    On Windows, where semlock has no locks of its own, ``"shared"`` puts its classes on the
    operating system's semaphores, and ``multiprocessing``'s queues on those classes.

    :param backend: ``"shared"`` replaces the locks, queues and pools of ``multiprocessing``, and
        lends ``Value`` and ``Array`` memory where they have none. ``"kernel"`` replaces
        ``_multiprocessing`` alone, by the operating system's semaphores: these are not robust, and
        can be shared by name with processes that use CPython's own module.
    :raises ValueError: there is no such backend.

    >>> import multiprocessing, semlock
    >>> semlock.install()
    >>> multiprocessing.Lock().holder() is None
    True
    >>> semlock.uninstall()
    """
    global _installation
    if backend not in _BACKENDS:
        known = ", ".join(map(repr, _BACKENDS))
        raise ValueError(f"unknown backend {backend!r}: this version of semlock has {known}")
    with _lock:
        if _installation is not None and _installation.backend != backend:
            uninstall()
        if _installation is None:
            try:
                stock: ModuleType | None = importlib.import_module("_multiprocessing")
            except ImportError:
                # The interpreter was built without it.
                stock = None
            _installation = _Installation(backend, stock)
            _installation.make()


def uninstall() -> None:
    """Undo :func:`install`, in this process and for the children that it starts from now.

    What was made in between stays what it is. A second call changes nothing.
    """
    global _installation
    with _lock:
        installation, _installation = _installation, None
        if installation is not None:
            installation.undo()


class _Installation:
    """Everything that one install() has changed."""

    def __init__(self, backend: str, stock: ModuleType | None) -> None:
        self.backend = backend
        self.stock = stock
        self.active = True
        if stock is None:
            # Without it, multiprocessing's own modules could not be imported below.
            sys.modules["_multiprocessing"] = _ours
        # All changes are known before the first is made. So the copies of the stdlib's functions
        # keep the globals that it has now.
        self.replacements = _replacements(backend, stock)
        self.changes: list[_Change | _MethodChange | _ReducerChange] = [
            *_changes_of_connections(backend),
            *(self.redirected(method) for method in _methods(backend)),
            *_globals_to_replace(self.replacements, list(sys.modules.values())),
            *(_ReducerChange(cls) for cls in self.stocks_classes().values()),
            self.wrapped(spawn, "get_preparation_data", self.get_preparation_data),
            self.wrapped(util, "spawnv_passfds", self.spawnv_passfds),
        ]

    def stocks_classes(self) -> dict[tuple[str, str], type]:
        """Returns the classes of multiprocessing that are replaced under their names."""
        return {
            (before.__module__, name): before
            for name, before, _ in self.replacements
            if isinstance(before, type) and before.__module__.startswith("multiprocessing.")
        }

    def make(self) -> None:
        sys.modules["_multiprocessing"] = _ours
        for change in self.changes:
            change.make()

    def undo(self) -> None:
        # Modules of multiprocessing that were imported since install() are changed back too. (A
        # module of other code may have imported ours on purpose.)
        since = [
            module
            for name, module in list(sys.modules.items())
            if isinstance(name, str) and name.split(".")[0] == "multiprocessing"
        ]
        back = [_Replacement(name, after, before) for name, before, after in self.replacements]
        changes = _globals_to_replace(back, since)
        if sys.modules.get("_multiprocessing") is _ours:
            del sys.modules["_multiprocessing"]
            if self.stock is not None:
                sys.modules["_multiprocessing"] = self.stock
        for since_then in reversed(changes):
            since_then.make()
        for change in reversed(self.changes):
            change.undo()
        self.active = False

    def wrapped(self, module: ModuleType, name: str, wrapper: Callable[..., Any]) -> _Change:
        """Makes the calls of a function go through one of the methods below."""
        before = getattr(module, name)
        after = self.while_active(functools.partial(wrapper, before), before)
        return _Change(vars(module), name, before, after)

    def redirected(self, method: _Replacement) -> _MethodChange:
        """Makes a method of a class do what the method of another class does."""
        owner: Any = method.before
        ours: Any = method.after
        before = vars(owner)[method.name]
        after: Any = self.while_active(getattr(ours, method.name), getattr(owner, method.name))
        if isinstance(before, staticmethod):
            after = staticmethod(after)
        return _MethodChange(owner, method.name, before, after)

    def while_active(
        self, function: Callable[..., Any], otherwise: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Returns a function that calls ``function``, and ``otherwise`` after uninstall().

        If other code wraps it in turn, it stays in use after uninstall().
        """

        @functools.wraps(otherwise)
        def wrapping(*args: Any, **kwargs: Any) -> Any:
            return (function if self.active else otherwise)(*args, **kwargs)

        return wrapping

    def get_preparation_data(self, before: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        data = before(*args, **kwargs)
        data[_KEY] = _InstallsWhenUnpickled(self.backend, data.get("sys_path", []))
        return data

    def spawnv_passfds(
        self, before: Callable[..., Any], path: Any, args: Sequence[Any], passfds: Any
    ) -> Any:
        code = _bootstrap(_install_in_fork_server, self.backend, sys.path)
        begins = f"{_FORK_SERVER}exec({code!r}, {{}}); "
        args = [
            arg.replace(_FORK_SERVER, begins, 1) if option == "-c" else arg
            for option, arg in zip([None, *args], args, strict=False)
        ]
        return before(path, args, passfds)


_installation: _Installation | None = None


def _replacements(backend: str, stock: ModuleType | None) -> list[_Replacement]:
    """Returns everything that a backend replaces."""
    found = []
    if stock is not None:
        found.append(_Replacement("_multiprocessing", stock, _ours))
        found += _renamed(_NAMES, stock, _ours)
    if backend == "shared":
        from multiprocessing import queues as stocks_queues
        from multiprocessing import synchronize

        from . import _native

        found += _renamed(_native._NAMES_OF_SYNCHRONIZE, synchronize, _native)
        if _native.HAS_SHARED:
            from . import connections, queues

            found += _renamed(_NAMES_OF_QUEUES, stocks_queues, queues)
            found += itertools.starmap(_Replacement, connections.functions())
    return found


def _renamed(names: Iterable[str], before: ModuleType, after: ModuleType) -> Iterable[_Replacement]:
    for name in names:
        if name in vars(before) and hasattr(after, name):
            yield _Replacement(name, vars(before)[name], getattr(after, name))


def _methods(backend: str) -> list[_Replacement]:
    """Returns the methods of the stdlib's classes that install() replaces.

    Other code may have defined subclasses of the stdlib's queues already (``ProcessPoolExecutor``
    does). Their instances would get robust locks without marks, and a process would then read on
    where another was killed. Our ``__init__`` gives them everything that they need. The same is
    true of pools.

    Subclasses of the stdlib's locks stay what they are.
    """
    if backend != "shared":
        return []
    from multiprocessing import synchronize

    from . import _native

    methods = [*_methods_of_queues(), *_methods_of_heap()] if _native.HAS_SHARED else []
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "SemLock"):
        stocks_lock: Any = vars(synchronize)[name]
        for method in ("__init__", "_make_name") if name == "SemLock" else ("__init__",):
            same = staticmethod(over_our_semlock(getattr(stocks_lock, method)))
            methods.append(_Replacement(method, stocks_lock, type(name, (), {method: same})))
    return [method for method in methods if method.name in vars(method.before)]


def _changes_of_connections(backend: str) -> list[_MethodChange]:
    from . import _native

    if backend != "shared" or not _native.HAS_SHARED:
        return []
    from . import connections

    return [
        _MethodChange(cls, name, vars(cls)[name], after)
        for name, cls, after in connections.methods()
    ]


def _methods_of_queues() -> list[_Replacement]:
    from multiprocessing import pool as stocks_pool
    from multiprocessing import queues as stocks_queues

    from . import pool, queues

    names = "Queue", "SimpleQueue", "JoinableQueue"
    classes = ((vars(stocks_queues)[name], vars(queues)[name]) for name in names)
    methods = [_Replacement("__init__", stocks, ours) for stocks, ours in classes]
    stocks_queue: Any = vars(stocks_queues)["Queue"]
    for name in ("_reset", "put", "get", "close", "_start_thread", "_feed"):
        methods.append(_Replacement(name, stocks_queue, queues.Queue))
    # The stdlib's `join` would wait for ever for the tasks of a dead process.
    stocks_joinable: Any = vars(stocks_queues)["JoinableQueue"]
    for name in ("put", "join"):
        methods.append(_Replacement(name, stocks_joinable, queues.JoinableQueue))
    for name in ("_repopulate_pool", "_help_stuff_finish"):
        methods.append(_Replacement(name, stocks_pool.Pool, pool.Pool))
    return methods


def _methods_of_heap() -> list[_Replacement]:
    # A method of the stdlib's class changes, not the class, so that the stdlib can send the arenas
    # to children.
    from multiprocessing import heap as stocks_heap

    from . import heap

    return [_Replacement("__init__", stocks_heap.Arena, heap.Arena)]


def _globals_to_replace(
    replacements: Sequence[_Replacement], modules: Iterable[object]
) -> list[_Change]:
    """Returns the changes of those globals of these modules that are to be replaced.

    A module can be lazy, or of any subclass: its namespace is read without running its code.
    """
    # Both modules `_multiprocessing` keep their own globals.
    ends = [end for _, *both in replacements for end in both if isinstance(end, ModuleType)]
    changes = []
    for module in modules:
        if any(module is end for end in ends) or not issubclass(type(module), ModuleType):
            continue
        namespace = _namespace_of(module)
        for name, before, after in replacements:
            if namespace.get(name) is before:
                changes.append(_Change(namespace, name, before, after))
    return changes


def _namespace_of(module: object) -> dict[str, Any]:
    descriptor: Any = vars(ModuleType)["__dict__"]
    return descriptor.__get__(module) or {}


# ---- Instances of multiprocessing's own classes, made before install() ----


def _reduce_stocks(made: object) -> tuple[Any, ...]:
    cls = type(made)
    reduced: Any = made.__reduce_ex__(2)
    state = reduced[2]
    return _new_of_stocks, (cls.__module__, cls.__name__), state


def _new_of_stocks(module: str, name: str) -> object:
    """Makes an empty instance of a class of multiprocessing, whether or not it is replaced here."""
    with _lock:
        replaced = {} if _installation is None else _installation.stocks_classes()
    cls: Any = replaced.get((module, name)) or getattr(importlib.import_module(module), name)
    return cls.__new__(cls)


# ---- In children ----


class _InstallsWhenUnpickled:
    """An object that installs semlock where it is unpickled, and becomes ``None`` there."""

    def __init__(self, backend: str, path: Sequence[str]) -> None:
        self.code = _bootstrap(install, backend, path)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str, dict[str, Any]]]:
        # The code gets a namespace of its own, or it would run in that of the unpickling code.
        return exec, (self.code, {})


# The file of the package: an absolute path, because the current directory may change. It is a .pyc
# where there is no source. It is None in a frozen program, which contains the package.
_PLACE = os.path.abspath(vars(sys.modules[__package__])["__file__"])
_INIT = _PLACE if os.path.exists(_PLACE) else None


def _bootstrap(function: Callable[[str], None], backend: str, path: Sequence[str]) -> str:
    own = [entry for entry in before_standard_library([*path]) if type(entry) is str]
    return _BOOTSTRAP.format(init=_INIT, function=function.__name__, backend=backend, own=own)


def _install_in_fork_server(backend: str) -> None:
    install(backend)
    prepare = spawn.prepare

    def prepare_in_its_child(data: Mapping[str, Any]) -> None:
        if _KEY not in data:
            # The process that asks for this child has called uninstall().
            uninstall()
        prepare(data)

    spawn.prepare = prepare_in_its_child

"""``multiprocessing`` contexts whose locks and queues are semlock's."""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable, Iterable
from multiprocessing import context
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from . import _native

if TYPE_CHECKING:
    from . import pool, queues

__all__ = ["get_context"]


def get_context(method: str | None = None) -> Context:
    """A ``multiprocessing`` context, for use wherever one is, that runs on semlock.

    What it makes can be sent to any process, whatever context that was started from; and processes
    that are started from it are ordinary ones: neither they nor this process have anything
    replaced. ``method`` is a start method; without one it is that of ``multiprocessing``, which is
    settled by this call as by ``multiprocessing.get_context()``.

    Raises ``ValueError`` for a start method that there is not.
    """
    if method is None:
        method = multiprocessing.get_start_method()
    try:
        found = _contexts[method]
    except KeyError:
        raise ValueError(f"cannot find context for {method!r}") from None
    found._check_available()
    return found


class Context(context.BaseContext):
    """What semlock's contexts have in common."""

    if TYPE_CHECKING:
        # Each has one of its own.
        Process: ClassVar[type[Any]]

    def __reduce__(self) -> tuple[Callable[[str], Context], tuple[str]]:
        return get_context, (self.get_start_method(),)

    def get_context(self, method: str | None = None) -> Any:
        return self if method is None else get_context(method)

    def Lock(  # noqa: N802
        self, *, robust: bool | None = None, on_owner_died: Literal["warn", "ignore"] = "warn"
    ) -> _native.Lock:
        """A lock that is recovered if its holder dies, unless ``robust`` is false."""
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__") == "multiprocessing.queues":
            # A queue of the stdlib's own class is being made: it asks for its two locks.
            if _native.HAS_SHARED:
                from .executor import lock_for

                return lock_for(caller.f_locals["self"], self)
            robust = False
        return _native.Lock(ctx=self, on_owner_died=on_owner_died, **_given(robust))

    def RLock(  # noqa: N802
        self, *, robust: bool | None = None, on_owner_died: Literal["warn", "ignore"] = "warn"
    ) -> _native.RLock:
        """A reentrant lock that is recovered if its holder dies, unless ``robust`` is false."""
        return _native.RLock(ctx=self, on_owner_died=on_owner_died, **_given(robust))

    def Semaphore(  # noqa: N802
        self,
        value: int = 1,
        *,
        robust: bool = False,
        on_owner_died: Literal["warn", "ignore"] = "warn",
    ) -> _native.Semaphore:
        """A semaphore; with ``robust``, permits of a process that dies are recovered."""
        return _native.Semaphore(value, ctx=self, robust=robust, on_owner_died=on_owner_died)

    def BoundedSemaphore(  # noqa: N802
        self,
        value: int = 1,
        *,
        robust: bool = False,
        on_owner_died: Literal["warn", "ignore"] = "warn",
    ) -> _native.BoundedSemaphore:
        """A bounded semaphore; with ``robust``, permits of a process that dies are recovered."""
        return _native.BoundedSemaphore(value, ctx=self, robust=robust, on_owner_died=on_owner_died)

    def Condition(self, lock: Any = None) -> _native.Condition:  # noqa: N802
        """A condition variable."""
        return _native.Condition(lock, ctx=self)

    def Event(self) -> _native.Event:  # noqa: N802
        """An event."""
        return _native.Event(ctx=self)

    def Barrier(  # noqa: N802
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> _native.Barrier:
        """A barrier."""
        return _native.Barrier(parties, action, timeout, ctx=self)

    # These are the stdlib's, in its heap, which gets memory of ours where it has none.

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:  # noqa: N802
        """A ctypes object in shared memory."""
        from multiprocessing.sharedctypes import RawValue

        make = functools.partial(RawValue, typecode_or_type, *args)
        return _in_heap(make, typecode_or_type, 1)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:  # noqa: N802
        """A ctypes array in shared memory."""
        from multiprocessing.sharedctypes import RawArray

        make = functools.partial(RawArray, typecode_or_type, size_or_initializer)
        return _in_heap(make, typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:  # noqa: N802
        """A ctypes object in shared memory, with a lock."""
        from multiprocessing.sharedctypes import Value

        make = functools.partial(Value, typecode_or_type, *args, lock=lock, ctx=self)
        return _in_heap(make, typecode_or_type, 1)

    def Array(  # noqa: N802
        self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True
    ) -> Any:
        """A ctypes array in shared memory, with a lock."""
        from multiprocessing.sharedctypes import Array

        make = functools.partial(Array, typecode_or_type, size_or_initializer, lock=lock, ctx=self)
        return _in_heap(make, typecode_or_type, size_or_initializer)

    # Queues and pools are imported where they are made, as in the stdlib: many programs need none.
    # Where no lock is robust, nobody goes on where another was killed, and they are the stdlib's.

    def Queue(self, maxsize: int = 0) -> queues.Queue:  # noqa: N802
        """A queue."""
        if not _native.HAS_SHARED:
            return super().Queue(maxsize)  # type: ignore[return-value]
        from .queues import Queue

        return Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue:  # noqa: N802
        """A queue that can be waited for until its tasks are done, or a process died with some."""
        if not _native.HAS_SHARED:
            return super().JoinableQueue(maxsize)  # type: ignore[return-value]
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self)

    def SimpleQueue(self) -> queues.SimpleQueue:  # noqa: N802
        """A pipe with a lock at either end."""
        if not _native.HAS_SHARED:
            return super().SimpleQueue()  # type: ignore[return-value]
        from .queues import SimpleQueue

        return SimpleQueue(ctx=self)

    def Pool(  # noqa: N802
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool:
        """A pool of worker processes."""
        if not _native.HAS_SHARED:
            return super().Pool(processes, initializer, initargs, maxtasksperchild)  # type: ignore[return-value]
        from .pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())


def _in_heap(make: Callable[[], Any], typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """What the stdlib makes in its heap, which is lent memory of ours as long as it has none."""
    while True:
        try:
            return make()
        except OSError as error:
            if not _native.HAS_SHARED:
                raise
            from .heap import lend_if_short

            # Not twice, unless another thread was quicker to use it.
            if not lend_if_short(error, typecode_or_type, size_or_initializer):
                raise


def _given(robust: bool | None) -> dict[str, bool]:
    """What a class has as its default where nobody has said."""
    return {} if robust is None else {"robust": robust}


class SpawnContext(Context, context.SpawnContext):
    """For children that are fresh interpreters."""


_contexts: dict[str, Context] = {"spawn": SpawnContext()}

if sys.platform != "win32":

    class ForkContext(Context, context.ForkContext):
        """For children that are forked."""

    class ForkServerContext(Context, context.ForkServerContext):
        """For children that a server forks."""

    _contexts |= {"fork": ForkContext(), "forkserver": ForkServerContext()}

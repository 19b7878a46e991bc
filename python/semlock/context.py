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
    """Return a ``multiprocessing`` context that runs on semlock.

    Use it wherever a context can be used. Nothing is replaced, neither in this process nor in its
    children. What the context makes can be sent to every process, whatever context that process was
    started from.

    :param method: the start method: ``"fork"``, ``"spawn"`` or ``"forkserver"``. None means that of
        ``multiprocessing``, which this call fixes, as ``multiprocessing.get_context()`` does.
    :raises ValueError: there is no such start method.

    >>> import semlock
    >>> context = semlock.get_context("spawn")
    >>> done = context.Semaphore(0)
    >>> worker = context.Process(target=done.release)
    >>> worker.start()
    >>> done.acquire()
    True
    >>> worker.join()
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
    """A ``multiprocessing`` context that runs on semlock: see :func:`get_context`.

    It has everything that the stdlib's contexts have. Locks, values, arrays, queues and pools are
    described here, because they differ.
    """

    if TYPE_CHECKING:
        # Each subclass has a Process class of its own.
        Process: ClassVar[type[Any]]

    def __reduce__(self) -> tuple[Callable[[str], Context], tuple[str]]:
        return get_context, (self.get_start_method(),)

    def get_context(self, method: str | None = None) -> Any:
        """Return this context, or semlock's context for another start method.

        :param method: the start method: ``"fork"``, ``"spawn"`` or ``"forkserver"``.
        :raises ValueError: there is no such start method.
        """
        return self if method is None else get_context(method)

    def Lock(  # noqa: N802
        self, *, robust: bool | None = None, on_owner_died: Literal["warn", "ignore"] = "warn"
    ) -> _native.Lock:
        """Make a :class:`semlock.Lock`, which one thread of one process holds at a time.

        :param robust: whether the lock comes back when its holder dies. None means the default:
            that it does where the system allows it.
        :param on_owner_died: ``"warn"`` makes the next holder get an ``OwnerDiedWarning``. With
            ``"ignore"`` it gets none, and finds the death in ``recovered``.
        :raises OSError: the system has no memory to share.
        :raises ValueError: another value of ``on_owner_died``.
        """
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__") == "multiprocessing.queues":
            # The __init__ of a queue of the stdlib's own class makes its two locks by this call.
            if _native.HAS_SHARED:
                from .queues import adopted_lock

                names = caller.f_locals
                return adopted_lock(names["self"], names.get("maxsize", 0), self)  # type: ignore[no-any-return]
            robust = False
        return _native.Lock(ctx=self, on_owner_died=on_owner_died, **_given(robust))

    def RLock(  # noqa: N802
        self, *, robust: bool | None = None, on_owner_died: Literal["warn", "ignore"] = "warn"
    ) -> _native.RLock:
        """Make a :class:`semlock.RLock`, which its holder can acquire again.

        :param robust: whether the lock comes back when its holder dies. None means the default:
            that it does where the system allows it.
        :param on_owner_died: ``"warn"`` makes the next holder get an ``OwnerDiedWarning``. With
            ``"ignore"`` it gets none, and finds the death in ``recovered``.
        :raises OSError: the system has no memory to share.
        :raises ValueError: another value of ``on_owner_died``.
        """
        return _native.RLock(ctx=self, on_owner_died=on_owner_died, **_given(robust))

    def Semaphore(  # noqa: N802
        self,
        value: int = 1,
        *,
        robust: bool = False,
        on_owner_died: Literal["warn", "ignore"] = "warn",
    ) -> _native.Semaphore:
        """Make a :class:`semlock.Semaphore`, a number of permits.

        :param value: the permits at the beginning, from 0 to 2,147,483,647; of a robust one to
            524,280.
        :param robust: whether permits come back when their holder dies.
        :param on_owner_died: of a robust one: ``"warn"`` makes the next holder of such a permit
            get an ``OwnerDiedWarning``. With ``"ignore"`` it gets none, and finds the death in
            ``recovered``.
        :raises OSError: a negative ``value``, or the system has no memory to share.
        :raises OverflowError: a ``value`` that no C ``int`` can hold.
        :raises ValueError: too many permits of a robust one, or another value of ``on_owner_died``.
        """
        return _native.Semaphore(value, ctx=self, robust=robust, on_owner_died=on_owner_died)

    def BoundedSemaphore(  # noqa: N802
        self,
        value: int = 1,
        *,
        robust: bool = False,
        on_owner_died: Literal["warn", "ignore"] = "warn",
    ) -> _native.BoundedSemaphore:
        """Make a :class:`semlock.BoundedSemaphore`, which never has more than ``value`` permits.

        :param value: the permits at the beginning, from 0 to 2,147,483,647; of a robust one to
            524,280.
        :param robust: whether permits come back when their holder dies.
        :param on_owner_died: of a robust one: ``"warn"`` makes the next holder of such a permit
            get an ``OwnerDiedWarning``. With ``"ignore"`` it gets none, and finds the death in
            ``recovered``.
        :raises OSError: a negative ``value``, or the system has no memory to share.
        :raises OverflowError: a ``value`` that no C ``int`` can hold.
        :raises ValueError: too many permits of a robust one, or another value of ``on_owner_died``.
        """
        caller = sys._getframe(1)
        if caller.f_globals.get("__name__") == "multiprocessing.queues" and _native.HAS_SHARED:
            # As for locks.
            from .queues import adopted_semaphore

            return adopted_semaphore(caller.f_locals["self"])  # type: ignore[no-any-return]
        return _native.BoundedSemaphore(value, ctx=self, robust=robust, on_owner_died=on_owner_died)

    def Condition(self, lock: Any = None) -> _native.Condition:  # noqa: N802
        """Make a :class:`semlock.Condition`, where processes wait until another one notifies them.

        :param lock: a ``semlock.Lock`` or ``semlock.RLock``, or None for a new ``RLock``.
        :raises TypeError: another lock.
        :raises OSError: the system has no memory to share.
        """
        return _native.Condition(lock, ctx=self)

    def Event(self) -> _native.Event:  # noqa: N802
        """Make a :class:`semlock.Event`, a flag that processes can wait for.

        :raises OSError: the system has no memory to share.
        """
        return _native.Event(ctx=self)

    def Barrier(  # noqa: N802
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> _native.Barrier:
        """Make a :class:`semlock.Barrier`, where processes wait until so many of them have come.

        :param parties: how many have to come, from 1 to 4,294,967,295.
        :param action: a function without arguments that the last one calls before any gets through.
        :param timeout: the seconds that ``wait`` takes if it is given none. None means no limit.
        :raises ValueError: ``parties`` out of their range.
        :raises OSError: the system has no memory to share.
        """
        return _native.Barrier(parties, action, timeout, ctx=self)

    # These four make the stdlib's objects in the stdlib's heap. Where that has no memory, semlock
    # lends it some.

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:  # noqa: N802
        """Make a ctypes object in shared memory, without a lock.

        :param typecode_or_type: a typecode as in ``array``, or a ctypes type.
        :param args: what the type takes to make it; none makes it zero.
        :raises OSError: the system has no memory to share.
        """
        from multiprocessing.sharedctypes import RawValue

        make = functools.partial(RawValue, typecode_or_type, *args)
        return _in_heap(make, typecode_or_type, 1)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:  # noqa: N802
        """Make a ctypes array in shared memory, without a lock.

        :param typecode_or_type: a typecode as in ``array``, or a ctypes type.
        :param size_or_initializer: the number of its elements, which are zero then, or its
            elements.
        :raises OSError: the system has no memory to share.
        """
        from multiprocessing.sharedctypes import RawArray

        make = functools.partial(RawArray, typecode_or_type, size_or_initializer)
        return _in_heap(make, typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:  # noqa: N802
        """Make a ctypes object in shared memory, with a lock.

        :param typecode_or_type: a typecode as in ``array``, or a ctypes type.
        :param args: what the type takes to make it; none makes it zero.
        :param lock: True makes an ``RLock`` of this context, False makes the bare object. A lock is
            used as it is.
        :raises OSError: the system has no memory to share.
        """
        from multiprocessing.sharedctypes import Value

        make = functools.partial(Value, typecode_or_type, *args, lock=lock, ctx=self)
        return _in_heap(make, typecode_or_type, 1)

    def Array(  # noqa: N802
        self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True
    ) -> Any:
        """Make a ctypes array in shared memory, with a lock.

        :param typecode_or_type: a typecode as in ``array``, or a ctypes type.
        :param size_or_initializer: the number of its elements, which are zero then, or its
            elements.
        :param lock: True makes an ``RLock`` of this context, False makes the bare object. A lock is
            used as it is.
        :raises OSError: the system has no memory to share.
        """
        from multiprocessing.sharedctypes import Array

        make = functools.partial(Array, typecode_or_type, size_or_initializer, lock=lock, ctx=self)
        return _in_heap(make, typecode_or_type, size_or_initializer)

    # Queues and pools are imported where they are made, as in the stdlib: many programs need none.
    # Without HAS_SHARED they are the stdlib's: no lock is robust there, so no process reads on
    # where another was killed.

    def Queue(self, maxsize: int = 0) -> queues.Queue:  # noqa: N802
        """Make a queue with the stdlib's methods: see :class:`semlock.queues.Queue`.

        :param maxsize: the greatest number of messages; 0 means no limit.
        :raises OSError: the system has no memory to share, or no pipe.
        """
        if not _native.HAS_SHARED:
            return super().Queue(maxsize)  # type: ignore[return-value]
        from .queues import Queue

        return Queue(maxsize, ctx=self)

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue:  # noqa: N802
        """Make a queue whose ``join`` waits until all tasks are done, or a process ended with some.

        See :class:`semlock.queues.JoinableQueue`.

        :param maxsize: the greatest number of messages; 0 means no limit.
        :raises OSError: the system has no memory to share, or no pipe.
        """
        if not _native.HAS_SHARED:
            return super().JoinableQueue(maxsize)  # type: ignore[return-value]
        from .queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self)

    def SimpleQueue(self) -> queues.SimpleQueue:  # noqa: N802
        """Make a queue that writes and reads without a thread, and that no death breaks.

        See :class:`semlock.queues.SimpleQueue`.

        :raises OSError: the system has no memory to share, or no pipe.
        """
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
        *,
        retry: int = 0,
    ) -> pool.Pool:
        """Make a pool of worker processes, with the stdlib's methods, on semlock's queues.

        If a worker dies with a task, that task fails with :class:`~semlock.WorkerDied`. All others
        go on, and another worker takes the place of the dead one.

        :param processes: how many workers; None means one for each processor.
        :param initializer: a function that each worker calls first.
        :param initargs: the arguments of ``initializer``.
        :param maxtasksperchild: after how many tasks another worker takes the place of one; None
            means never.
        :param retry: how often a task whose worker died is tried again before it fails. Only for
            tasks that may be done twice.
        :raises ValueError: less than one worker, less than one task for each, or a negative
            ``retry``; any ``retry`` but 0 where semlock has no shared memory.
        """
        if not _native.HAS_SHARED:
            if retry:
                raise ValueError("retry needs semlock's shared memory, which this system has not")
            return super().Pool(processes, initializer, initargs, maxtasksperchild)  # type: ignore[return-value]
        from .pool import Pool

        arguments = processes, initializer, initargs, maxtasksperchild
        return Pool(*arguments, context=self.get_context(), retry=retry)


def _in_heap(make: Callable[[], Any], typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Calls ``make``, and lends the stdlib's heap memory of ours as long as it has none."""
    while True:
        try:
            return make()
        except OSError as error:
            if not _native.HAS_SHARED:
                raise
            from .heap import lend_if_short

            # It ends after one round, unless another thread is quicker to use the lent memory.
            if not lend_if_short(error, typecode_or_type, size_or_initializer):
                raise


def _given(robust: bool | None) -> dict[str, bool]:
    """Returns ``robust`` as a keyword argument, or none, so that the class's default applies."""
    return {} if robust is None else {"robust": robust}


class SpawnContext(Context, context.SpawnContext):
    """Starts children as fresh interpreters."""


_contexts: dict[str, Context] = {"spawn": SpawnContext()}

if sys.platform != "win32":

    class ForkContext(Context, context.ForkContext):
        """Forks children."""

    class ForkServerContext(Context, context.ForkServerContext):
        """Makes a server fork children."""

    _contexts |= {"fork": ForkContext(), "forkserver": ForkServerContext()}

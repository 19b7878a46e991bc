"""The classes that replace semlock's own where there is no shared backend, as on Windows.

They are ``multiprocessing``'s classes over semlock's ``SemLock``, with the attributes that only
semlock's classes have. They behave as the stdlib's do. If a process dies, its permits are lost. An
object can be sent only to a child process, while that child is started. The first object that would
be robust on another system warns that it is not robust here.

``robust=True`` works only for ``RLock``, and only on Windows. There it is a mutex of the system,
which belongs to a thread. When that thread ends, the next owner recovers the mutex. Any thread may
release the other locks, and the system's mutexes do not allow that.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from multiprocessing import context, process, synchronize
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from . import _multiprocessing, _native
from .errors import OwnerDiedWarning, level_of_caller
from .stdlib import over_our_semlock

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "SemLock",
    "Semaphore",
]

_RECURSIVE_MUTEX, _SEMAPHORE = 0, 1

if TYPE_CHECKING:
    from typing import Literal

    _OnOwnerDied = Literal["warn", "ignore"]

# These names are our own, because install() replaces the stdlib's classes with ours.
_StockSemLock: Any = synchronize.SemLock
_StockLock: Any = synchronize.Lock
_StockRLock: Any = synchronize.RLock
_StockSemaphore: Any = synchronize.Semaphore
_StockCondition: Any = synchronize.Condition
_StockEvent: Any = synchronize.Event
_StockBarrier: Any = synchronize.Barrier

# Unwrapped, because install() may have replaced the stdlib's own functions.
_init: Any = over_our_semlock(inspect.unwrap(_StockSemLock.__init__))
_set_state: Any = over_our_semlock(inspect.unwrap(_StockSemLock.__setstate__))


class SemLock(_StockSemLock):  # type: ignore[misc]
    """The base class of the locks and semaphores.

    :param kind: 0 for a recursive mutex, 1 for a semaphore.
    :param value: the permits at the beginning.
    :param maxvalue: the most permits that there can be.
    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :raises ValueError: another kind.
    :raises OSError: a value that is negative or too large (EINVAL), or the system has no semaphore
        left.
    :raises OverflowError: a number that no C int can hold.
    """

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any = None) -> None:
        _init(self, kind, value, maxvalue, ctx=ctx)

    def __setstate__(self, state: Any) -> None:
        _set_state(self, state)

    def locked(self) -> bool:
        """Return whether some thread holds the lock, or no permit of the semaphore is free."""
        return bool(self._semlock._is_zero())

    @property
    def recovered(self) -> int | None:
        """The pid of the dead process that held this before, or None: here it is always None.

        The system does not tell when a holder dies.
        """
        return None


class Lock(SemLock, _StockLock):  # type: ignore[misc]
    """A lock that one thread of one process holds at a time: ``multiprocessing.Lock``.

    It stays held when the process that holds it dies. It is not recursive: a thread that acquires
    it twice waits for itself. Any thread of any process may release it.

    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :param robust: True is not available. None means the default: the lock is not robust, and the
        first one made so warns with a RuntimeWarning. False does not warn.
    :param on_owner_died: "warn" or "ignore". It has no effect, because the system does not tell of
        deaths.
    :raises NotImplementedError: robust=True.
    :raises OSError: the system has no semaphore left.
    :raises ValueError: another value of on_owner_died.
    :raises TypeError: an on_owner_died that is no string.

    >>> import semlock
    >>> lock = semlock.Lock(robust=False)
    >>> lock.acquire(timeout=0.5)  # seconds
    True
    >>> lock.acquire(block=False)
    False
    >>> lock.release()
    """

    def __init__(
        self,
        *,
        ctx: Any = None,
        robust: bool | None = None,
        on_owner_died: _OnOwnerDied = "warn",
    ) -> None:
        _check(self, robust, on_owner_died)
        super().__init__(_SEMAPHORE, 1, 1, ctx=ctx)

    def holder(self) -> int | None:
        """Return None: the system does not tell which process holds the lock."""
        return None


class RLock(SemLock, _StockRLock):  # type: ignore[misc]
    """A recursive lock: ``multiprocessing.RLock``.

    The thread that holds it can acquire it again, and only that thread can release it. It becomes
    free when the thread has released it as often as it has acquired it.

    On Windows, a lock made with robust=True is recovered when the thread that holds it ends: the
    next one that acquires it gets it, with an OwnerDiedWarning.

    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :param robust: whether the lock is recovered when its holder ends. True is available only on
        Windows. None means the default: the lock is not robust, and the first one made so warns
        with a RuntimeWarning. False does not warn.
    :param on_owner_died: "warn" makes the next holder of a robust lock get an OwnerDiedWarning.
        With "ignore" it gets none, and finds the death in `recovered`.
    :raises NotImplementedError: robust=True on another system than Windows.
    :raises OSError: the system has no semaphore or mutex left.
    :raises ValueError: another value of on_owner_died.
    :raises TypeError: an on_owner_died that is no string.

    >>> import os, semlock
    >>> lock = semlock.RLock(robust=False)
    >>> with lock, lock:
    ...     lock.holder() == os.getpid()
    True
    >>> lock.locked()
    False
    """

    def __init__(
        self,
        *,
        ctx: Any = None,
        robust: bool | None = None,
        on_owner_died: _OnOwnerDied = "warn",
    ) -> None:
        if robust and sys.platform == "win32":
            ignores_dead_owners = _native._ignores_dead_owners(on_owner_died)
            self._semlock = _RecoveredMutex()
            self._semlock.ignores_dead_owners = ignores_dead_owners
            self._make_methods()
            return
        _check(self, robust, on_owner_died)
        super().__init__(_RECURSIVE_MUTEX, 1, 1, ctx=ctx)

    def holder(self) -> int | None:
        """Return the pid of this process if it holds the lock, else None.

        The system does not tell which other process holds the lock. Of a robust lock, it does not
        even tell whether another thread of this process holds it: that is None, too.
        """
        return os.getpid() if self._semlock._count() > 0 else None

    @property
    def recovered(self) -> int | None:
        """0 if the thread that held this robust lock before has ended, else None.

        It would be the pid of the dead process, but the system does not tell that. It is set from
        the acquire that got the lock to the release, in the process that acquired it. Of a lock
        that is not robust it is always None.
        """
        return 0 if getattr(self._semlock, "recovered", False) else None

    if sys.platform == "win32":

        def __getstate__(self) -> Any:
            if not isinstance(self._semlock, _RecoveredMutex):
                return super().__getstate__()
            context.assert_spawning(self)
            duplicate = context.get_spawning_popen().duplicate_for_child  # type: ignore[union-attr]
            mutex = self._semlock
            return duplicate(mutex.handle), duplicate(mutex._died), mutex.ignores_dead_owners

        def __setstate__(self, state: Any) -> None:
            if len(state) != 3:
                super().__setstate__(state)
                return
            *handles, ignores_dead_owners = state
            self._semlock = _RecoveredMutex(*handles)
            self._semlock.ignores_dead_owners = ignores_dead_owners
            self._make_methods()


class Semaphore(SemLock, _StockSemaphore):  # type: ignore[misc]
    """A number of permits: ``multiprocessing.Semaphore``.

    An acquire takes a permit, and a release gives one back. A permit has no holder: any process may
    release, also more often than it acquired. What a dead process acquired stays taken.

    :param value: the permits at the beginning, from 0 to 2147483647.
    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :param robust: True is not available.
    :param on_owner_died: "warn" or "ignore". It has no effect, because the system does not tell of
        deaths.
    :raises NotImplementedError: robust=True.
    :raises OSError: a negative value (EINVAL), or the system has no semaphore left.
    :raises OverflowError: a value that no C int can hold.
    :raises ValueError: another value of on_owner_died.
    :raises TypeError: an on_owner_died that is no string.

    >>> import semlock
    >>> semaphore = semlock.Semaphore(1)
    >>> semaphore.acquire(timeout=0.5)  # seconds
    True
    >>> semaphore.locked()
    True
    >>> semaphore.release()
    """

    def __init__(
        self,
        value: int = 1,
        *,
        ctx: Any = None,
        robust: bool = False,
        on_owner_died: _OnOwnerDied = "warn",
    ) -> None:
        _check(self, robust, on_owner_died)
        super().__init__(_SEMAPHORE, value, self._greatest(value), ctx=ctx)

    def _greatest(self, value: int) -> int:
        return _multiprocessing.SemLock.SEM_VALUE_MAX


class BoundedSemaphore(Semaphore, synchronize.BoundedSemaphore):
    """A Semaphore that never has more than `value` permits: ``multiprocessing.BoundedSemaphore``.

    One release too many is a ValueError. Everything else is as for Semaphore.

    :param value: the permits at the beginning, and the most that there can be: from 0 to
        2147483647.
    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :param robust: True is not available.
    :param on_owner_died: "warn" or "ignore". It has no effect, because the system does not tell of
        deaths.
    :raises NotImplementedError: robust=True.
    :raises OSError: a negative value (EINVAL), or the system has no semaphore left.
    :raises OverflowError: a value that no C int can hold.
    :raises ValueError: another value of on_owner_died.
    :raises TypeError: an on_owner_died that is no string.

    >>> import semlock
    >>> slots = semlock.BoundedSemaphore(1)
    >>> slots.release()
    Traceback (most recent call last):
    ValueError: semaphore or lock released too many times
    """

    def _greatest(self, value: int) -> int:
        return value


class _Parts:
    """Makes what the stdlib's classes consist of. They take it for their context."""

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx

    def Lock(self) -> Lock:  # noqa: N802
        return Lock(ctx=self._ctx)

    def RLock(self) -> RLock:  # noqa: N802
        return RLock(ctx=self._ctx)

    def Semaphore(self, value: int) -> Semaphore:  # noqa: N802
        return Semaphore(value, ctx=self._ctx)

    def Condition(self, lock: Any = None) -> Condition:  # noqa: N802
        return Condition(lock, ctx=self._ctx)


class Condition(_StockCondition):  # type: ignore[misc]
    """A place where processes wait until another one notifies them: ``multiprocessing.Condition``.

    Its lock protects what they wait for.

    :param lock: a semlock.Lock or semlock.RLock, or None for a new RLock. Several conditions may
        share one.
    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :raises OSError: the system has no semaphore left.

    >>> import semlock
    >>> condition = semlock.Condition(semlock.RLock(robust=False))
    >>> with condition:
    ...     condition.notify()  # nobody waits
    ...     condition.wait(timeout=0.01)  # seconds
    False
    """

    def __init__(self, lock: Any = None, *, ctx: Any = None) -> None:
        super().__init__(lock, ctx=_Parts(ctx))

    if sys.platform == "win32":

        def wait(self, timeout: float | None = None) -> bool:
            """Release the lock, wait for a notification, and acquire the lock again.

            When this ends, the caller holds the lock, also when it raises. So it may take longer
            than the timeout.

            :param timeout: the seconds to wait at most for a notification. None means no limit.
            :returns: True if it was notified, False if the timeout passed.
            :raises AssertionError: the caller does not hold the lock.
            :raises OwnerDiedWarning: only if a warning filter makes it an error.
            """
            mutex = self._lock._semlock
            if not isinstance(mutex, _RecoveredMutex):
                return bool(super().wait(timeout))
            held = mutex._count()
            try:
                return bool(super().wait(timeout))
            except OwnerDiedWarning:
                # The caller of wait() holds the lock again, whatever wait() raises: it is going to
                # release the lock as often as it has acquired it.
                while mutex._count() < held:
                    mutex._acquire(True, None)
                raise


class Event(_StockEvent):  # type: ignore[misc]
    """A flag that processes can wait for: ``multiprocessing.Event``.

    It is not set at the beginning. If a process dies in one of its methods, the event may hang.

    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :raises OSError: the system has no semaphore left.

    >>> import semlock
    >>> event = semlock.Event()
    >>> event.wait(timeout=0.01)  # seconds
    False
    >>> event.set()
    >>> event.wait()
    True
    """

    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(ctx=_Parts(ctx))


class Barrier(_StockBarrier):  # type: ignore[misc]
    """A point where processes wait until a fixed number have come: ``multiprocessing.Barrier``.

    Each thread that waits is a member. If a member dies, the others wait until their timeout.

    :param parties: how many members have to come, at least 1.
    :param action: a function without arguments. The last member to come calls it before any gets
        through.
    :param timeout: the timeout of a `wait` that is given none, in seconds. None means no limit.
    :param ctx: the multiprocessing context whose children get it. None means the default one.
    :raises OSError: the system has no semaphore left.

    >>> import semlock
    >>> barrier = semlock.Barrier(1, action=lambda: print("all are here"))
    >>> barrier.wait(timeout=60)  # seconds
    all are here
    0
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: Any = None,
    ) -> None:
        super().__init__(parties, action, timeout, ctx=_Parts(ctx))


if sys.platform == "win32":

    class _RecoveredMutex(_native._RobustMutex):
        """A mutex of the system, with the interface of a ``SemLock``.

        It warns a thread that acquires the mutex from a dead owner.
        """

        ignores_dead_owners: bool

        def acquire(self, block: object = True, timeout: Any = None) -> bool:
            owner_died = super()._acquire(bool(block), timeout)
            if owner_died and not self.ignores_dead_owners:
                try:
                    warnings.warn(_OWNER_DIED, OwnerDiedWarning, level_of_caller())
                except BaseException:
                    self._let_go()
                    raise
            return owner_died is not None

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(
            self,
            exc_type: type[BaseException] | None = None,
            exc_value: BaseException | None = None,
            exc_tb: TracebackType | None = None,
            /,
        ) -> None:
            self.release()


_OWNER_DIED = (
    "a thread or process died while it held this RLock: what the RLock protects may be "
    "half-written, so check or restore it before you rely on it. (`recovered` is 0 until release, "
    'because the system does not tell which one it was; one made with on_owner_died="ignore" does '
    "not warn.)"
)


def _check(lock: object, robust: bool | None, on_owner_died: _OnOwnerDied) -> None:
    """Raises or warns if this system cannot give the lock what the caller asks for."""
    _native._ignores_dead_owners(on_owner_died)
    if robust:
        _refuse(lock)
    if robust is None:
        _say_once()


def _refuse(lock: object) -> NoReturn:
    name = next(cls.__name__ for cls in type(lock).__mro__ if cls.__module__ == __name__)
    why = "the system's semaphores know no owners"
    instead = f"for a {name} as in multiprocessing, leave it out"
    if sys.platform == "win32":
        why = (
            f"any thread or process may release a {name}, and the system recovers nothing but "
            "mutexes, which only their owners can release"
        )
        instead = f"RLock(robust=True) is recovered when its owner dies; {instead}"
    raise NotImplementedError(
        f"{name}(robust=True) is not available on {sys.platform}: {why}. ({instead}.)"
    )


_has_said = False


def _say_once() -> None:
    """Warns once that locks are not robust, and only in the program's first process."""
    global _has_said
    # A child that still imports the main module, or unpickles its target, has no parent yet.
    is_child = getattr(process.current_process(), "_inheriting", False)
    if _has_said or is_child or process.parent_process() is not None:
        return
    _has_said = True
    warnings.warn(
        f"semlock's locks are not robust on {sys.platform}, where they are the operating system's "
        "semaphores: a process that dies while it holds one leaves it taken, as in "
        "multiprocessing. (Made with robust=False, they do not warn.)",
        RuntimeWarning,
        level_of_caller(),
    )

"""The classes that stand for semlock's own where there is no shared memory for these.

They are ``multiprocessing``'s own classes over semlock's ``SemLock``, with the attributes that only
semlock's have. They do as the stdlib's do: the permits of a process that dies are lost, and an
object can be sent only to a child, while that is started. The first object that would be robust on
another system warns that it is not.

``robust=True`` works for ``RLock`` alone, and only on Windows: a mutex there belongs to a thread,
and the next owner recovers it when that thread ends. Any thread may release the other locks, so no
mutex can stand for them.
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
    """The base class of the locks and semaphores."""

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any = None) -> None:
        _init(self, kind, value, maxvalue, ctx=ctx)

    def __setstate__(self, state: Any) -> None:
        _set_state(self, state)

    def locked(self) -> bool:
        """Whether no permit is free."""
        return bool(self._semlock._is_zero())

    @property
    def recovered(self) -> int | None:
        """The dead process that this one has it from; 0 where the system does not tell which."""
        return None


class Lock(SemLock, _StockLock):  # type: ignore[misc]
    """``multiprocessing.Lock``."""

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
        """None: the system does not tell."""
        return None


class RLock(SemLock, _StockRLock):  # type: ignore[misc]
    """``multiprocessing.RLock``. With ``robust=True`` it is recovered when its owner dies."""

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
        """The pid of this process if it holds the lock; else None: the system tells no other.

        With ``robust=True`` it is None while another thread of this process holds the lock, too.
        """
        return os.getpid() if self._semlock._count() > 0 else None

    @property
    def recovered(self) -> int | None:
        """The dead process that this one has it from; 0, for the system does not tell which."""
        return 0 if getattr(self._semlock, "recovered", False) else None

    if sys.platform == "win32":

        def __getstate__(self) -> Any:
            if not isinstance(self._semlock, _RecoveredMutex):
                return super().__getstate__()
            context.assert_spawning(self)
            duplicate = context.get_spawning_popen().duplicate_for_child  # type: ignore[union-attr]
            mutex = self._semlock
            return duplicate(mutex.handle), duplicate(mutex._mark), mutex.ignores_dead_owners

        def __setstate__(self, state: Any) -> None:
            if len(state) != 3:
                super().__setstate__(state)
                return
            *handles, ignores_dead_owners = state
            self._semlock = _RecoveredMutex(*handles)
            self._semlock.ignores_dead_owners = ignores_dead_owners
            self._make_methods()


class Semaphore(SemLock, _StockSemaphore):  # type: ignore[misc]
    """``multiprocessing.Semaphore``."""

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
    """``multiprocessing.BoundedSemaphore``."""

    def _greatest(self, value: int) -> int:
        return value


class _Parts:
    """Makes the parts of the stdlib's classes, which take it for their context."""

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
    """``multiprocessing.Condition``."""

    def __init__(self, lock: Any = None, *, ctx: Any = None) -> None:
        super().__init__(lock, ctx=_Parts(ctx))

    if sys.platform == "win32":

        def wait(self, timeout: float | None = None) -> bool:
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
    """``multiprocessing.Event``."""

    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(ctx=_Parts(ctx))


class Barrier(_StockBarrier):  # type: ignore[misc]
    """``multiprocessing.Barrier``."""

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
        """A mutex with a ``SemLock``'s interface. It warns who acquires it from a dead owner."""

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

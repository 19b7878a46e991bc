"""`semlock._multiprocessing` is `_multiprocessing`: its surface, its semantics, its messages."""

from __future__ import annotations

import _multiprocessing as stock
import copy
import inspect
import itertools
import math
import pickle
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from children import forked, output
from semlock import _multiprocessing as ours

SemLock = ours.SemLock
MUTEX, SEMAPHORE = SemLock.RECURSIVE_MUTEX, SemLock.SEMAPHORE

NewName = Callable[[], str]


class Named(SemLock):
    """A subclass that a pickle can find."""


@pytest.fixture
def new(new_name: NewName) -> Callable[..., Any]:
    """Makes an unnamed semaphore or mutex."""

    def new(kind: int = SEMAPHORE, value: int = 1, maxvalue: int = 1) -> Any:
        return SemLock(kind, value, maxvalue, new_name(), True)

    return new


def in_another_thread(call: Callable[[], Any]) -> Any:
    """What a call returns or raises in another thread."""
    results = []

    def body() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return results[0]


@contextmanager
def released_by_a_thread_that_runs_once_we_wait(lock: Any) -> Any:
    """For tests under `switches_threads_only_where_they_wait`."""
    started, go = threading.Event(), threading.Event()

    def body() -> None:
        started.set()
        go.wait()
        lock.release()

    thread = threading.Thread(target=body)
    thread.start()
    started.wait()
    try:
        go.set()
        yield
    finally:
        thread.join()


# ---- The surface ----


def public(namespace: Any) -> set[str]:
    return {name for name in vars(namespace) if not name.startswith("__")}


def test_the_module_has_the_names_of_stocks_and_no_others() -> None:
    assert public(ours) == public(stock)


def test_the_flags_are_stocks() -> None:
    assert ours.flags == stock.flags


def test_sem_unlink_is_described_as_stocks() -> None:
    for attribute in ("__doc__", "__text_signature__", "__name__", "__qualname__", "__module__"):
        assert getattr(ours.sem_unlink, attribute) == getattr(stock.sem_unlink, attribute)
    assert type(ours.sem_unlink) is type(stock.sem_unlink)


def test_the_type_has_the_attributes_of_stocks_and_three_more() -> None:
    extras = {"RECURSIVE_MUTEX", "SEMAPHORE"}
    assert public(ours.SemLock) - public(stock.SemLock) == extras
    assert not public(stock.SemLock) - public(ours.SemLock)
    assert "__reduce__" in vars(ours.SemLock)


@pytest.mark.parametrize("attribute", ["__doc__", "__module__", "__name__", "__qualname__"])
def test_the_type_is_described_as_stocks(attribute: str) -> None:
    assert getattr(ours.SemLock, attribute) == getattr(stock.SemLock, attribute)


@pytest.mark.parametrize("attribute", sorted(set(vars(stock.SemLock)) - {"__doc__", "__module__"}))
def test_every_attribute_is_described_as_stocks(attribute: str) -> None:
    mine, theirs = (inspect.getattr_static(m.SemLock, attribute) for m in (ours, stock))
    assert type(mine) is type(theirs)
    assert mine.__doc__ == theirs.__doc__
    names = ("__text_signature__", "__name__")
    assert [getattr(mine, n, None) for n in names] == [getattr(theirs, n, None) for n in names]
    if isinstance(theirs, int):
        assert mine == theirs


def test_the_kinds_are_those_of_multiprocessing() -> None:
    from multiprocessing import synchronize

    assert (synchronize.RECURSIVE_MUTEX, synchronize.SEMAPHORE) == (MUTEX, SEMAPHORE)


# ---- Every call's result and exception, beside stock's ----

# `lock` and `mutex` are unnamed and free. This thread holds the mutex `held`. `zero` has no permit.
# `taken` is the name of a semaphore; `fresh` and `gone` name none. Names end in `fresh`'s digits,
# so that lengths are the same for both modules.
CALLS = """\
S()
S(1, 1, 1, fresh)
S(1, 1, 1, fresh, 1, 2)
S(1, 1, 1, fresh, True, unlink=True)
S(1, 1, 1, fresh, True, foo=1)
S(kind=1, value=1, maxvalue=1, name=fresh, unlink=True)
S(kind=1, value=1, maxvalue=1, nam=fresh, unlink=True)
S(unlink=True, name=fresh, maxvalue=1, value=1, kind=1)
S(*[1, 1, 1], **{'name': fresh, 'unlink\\0': True})
S(7, 1, 1, fresh, True)
S(-1, 1, 1, fresh, True)
S(True, 1, 1, fresh, True)
S(2**40, 1, 1, fresh, True)
S('x', 1, 1, fresh, True)
S(None, 1, 1, fresh, True)
S(1.0, 1, 1, fresh, True)
S(Index(1), 1, 1, fresh, True)
S(Raising(), 1, 1, fresh, True)
S(1, 20, 10, fresh, True)._get_value()
S(1, 0, 0, fresh, True)._get_value()
S(1, 2**31 - 1, 1, fresh, True)._get_value()
S(1, 2**31, 1, fresh, True)
S(1, 2**32 + 1, 1, fresh, True)
S(1, 2**80, 1, fresh, True)
S(1, -2**80, 1, fresh, True)
S(1, -1, 1, fresh, True)
S(1, -1, 1, fresh, False)
S(1, -2**31, 1, fresh, True)
S(1, None, 1, fresh, True)
S(1, Raising(), 1, fresh, True)
S(1, 1, -1, fresh, True).maxvalue
S(1, 1, -1, fresh, True).release()
S(1, 1, 2**31, fresh, True)
S(1, 1, 2**80, fresh, True)
S(1, 1, 'x', fresh, True)
S(1, 1, 1, '', True)
S(1, 1, 1, '', False)
S(1, 1, 1, '/', True)
S(1, 1, 1, '//', True)
S(1, 1, 1, '/' + fresh, True).name
S(1, 1, 1, fresh + '/b', True)
S(1, 1, 1, fresh + '/b', False)
S(1, 1, 1, fresh + '/', True)
S(1, 1, 1, fresh.lstrip('/'), True).name
S(1, 1, 1, fresh.lstrip('/'), False).name
S(1, 1, 1, fresh + 'é', True).name
S(1, 1, 1, fresh + '\\0b', True)
S(1, 1, 1, fresh + '\\0b', False)
S(1, 1, 1, '\\0', True)
S(1, 1, 1, fresh + '\\udc80', True)
S(1, 1, 1, fresh.ljust(251, 'a'), True).name
S(1, 1, 1, fresh.ljust(252, 'a'), True).name
S(1, 1, 1, fresh.ljust(253, 'a'), True).name
S(1, 1, 1, fresh.ljust(300, 'a'), True)
S(1, 1, 1, fresh.ljust(5000, 'a'), True)
S(1, 1, 1, fresh.ljust(5000, 'a'), False)
S(1, 1, 1, fresh.encode(), True)
S(1, 1, 1, None, True)
S(1, 1, 1, 1, True)
S(1, 1, 1, Str(fresh), True).name
S(1, 1, 1, taken, True)
S(1, 1, 1, taken, False)
S(1, 1, 1, taken.lstrip('/'), True)
S(7, 1, 1, taken, True)
S(1, -1, 1, taken, True)
S(1, 1, 1, fresh, 'x').name
S(1, 1, 1, fresh, '').name is None
S(1, 1, 1, fresh, None).name is None
S(1, 1, 1, fresh, [0]).name
S(1, 1, 1, fresh, 2).name
S(1, 1, 1, fresh, 2**70)
S(1, 1, 1, fresh, 1.5)
S(1, 1, 1, fresh, Raising())
S.__new__(S)
S.__new__()
S.__new__(int)
object.__new__(S)
copyreg.__newobj__(S)
S._rebuild()
S._rebuild(1, 1, 1)
S._rebuild(1, 1, 1, gone, 1)
S._rebuild(1, 1, 1, name=gone)
S._rebuild(1, 1, 1, gone)
S._rebuild(1, 1, 1, '')
S._rebuild(1, 1, 1, '/')
S._rebuild(1, 1, 1, taken).name
S._rebuild(1, 1, 1, taken).kind
S._rebuild(1, 7, 1, taken).kind
S._rebuild(1, -7, -1, taken).maxvalue
S._rebuild(0, 0, 5, taken).maxvalue
S._rebuild(1, 1, 1, taken)._get_value()
S._rebuild(1, 1, 1, b'x')
S._rebuild(1, 1, 1, 1)
S._rebuild(1, 1, 1, gone + '\\0')
S._rebuild(1, 1, 1, '\\udc80')
S._rebuild('x', 1, 1, gone)
S._rebuild(1.5, 1, 1, gone)
S._rebuild(Index(1), 1, 1, gone)
S._rebuild(Raising(), 1, 1, gone)
S._rebuild(2**64, 1, 1, gone)
S._rebuild(2**70, 1, 1, gone)
S._rebuild(-1, 1, 1, gone)
S._rebuild(1, 2**40, 1, gone)
S._rebuild(1, 1, 2**40, gone)
S._rebuild(1, 'x', 1, gone)
S._rebuild(1, 1, Raising(), gone)
lock._rebuild(1, 1, 1, gone)
m.sem_unlink()
m.sem_unlink(gone)
m.sem_unlink('')
m.sem_unlink('/')
m.sem_unlink('a/b')
m.sem_unlink('a\\0')
m.sem_unlink('\\udc80')
m.sem_unlink('a' * 5000)
m.sem_unlink(b'a')
m.sem_unlink(None)
m.sem_unlink(Str(gone))
m.sem_unlink(name=gone)
m.sem_unlink(gone, gone)
m.sem_unlink(taken)
(m.sem_unlink(taken), m.sem_unlink(taken))
lock.acquire()
lock.acquire(True)
lock.acquire(1)
lock.acquire(0)
lock.acquire(None)
lock.acquire('x')
lock.acquire([])
lock.acquire({})
lock.acquire(1.5)
lock.acquire(2**40)
lock.acquire(2**70)
lock.acquire(Index(0))
lock.acquire(Raising())
lock.acquire(True, 'x')
lock.acquire(True, [])
lock.acquire(True, 1j)
lock.acquire(True, Index(1))
lock.acquire(True, Raising())
lock.acquire(False, 'x')
lock.acquire(False, Raising())
lock.acquire(True, 10**400)
lock.acquire(True, math.inf)
lock.acquire(True, -math.inf)
lock.acquire(True, -1)
lock.acquire(True, None)
lock.acquire(block=True)
lock.acquire(block=False, timeout=None)
lock.acquire(timeout=-1, block=1)
lock.acquire(timeout=1)
lock.acquire(False, timeout=5)
lock.acquire(1, 2, 3)
lock.acquire(1, block=2)
lock.acquire(1, 1, timeout=2)
lock.acquire(1, 1, foo=2)
lock.acquire(foo=2)
lock.acquire(1, foo=2)
lock.acquire(**{'block': 1, 'time\\0out': 3})
lock.acquire(**{'blocK': 1})
lock.acquire(**{'\\udc80': 1})
zero.acquire(False)
zero.acquire(0)
zero.acquire(False, 60)
zero.acquire(False, None)
zero.acquire(block=False)
zero.acquire(True, 0)
zero.acquire(True, 0.0)
zero.acquire(True, -0.0)
zero.acquire(True, -1)
zero.acquire(True, -1e300)
zero.acquire(True, -math.inf)
zero.acquire(True, 1e-9)
zero.acquire(True, 0.001)
zero.acquire(timeout=0)
zero.acquire(True, False)
zero.acquire(True, Fraction(1, 1000))
zero.acquire(True, 'x')
zero.acquire(True, 10**400)
zero.acquire(True, Raising())
zero.acquire(False, 'x')
held.acquire()
held.acquire(False)
held.acquire(True, 'x')
held.acquire(True, math.inf)
held.acquire(Raising())
held.__enter__()
(held.acquire(), held._count(), held.release(), held._count(), held.release(), held._count())
(held.release(), held._count(), held._is_mine(), held._get_value(), held._is_zero())
(held.release(), held.release())
held._after_fork()
(held._after_fork(), held._count(), held._is_mine(), held._get_value())
(held._after_fork(), held.release())
(held._after_fork(), held.acquire(False))
(held._count(), held._is_mine(), held._get_value(), held._is_zero())
mutex.release()
mutex.__exit__()
(mutex._count(), mutex._is_mine(), mutex._get_value(), mutex._is_zero())
lock.release()
lock.release(1)
lock.release(x=1)
lock.__enter__()
lock.__enter__(True)
lock.__enter__(block=False)
lock.__exit__()
lock.__exit__(1, 2, 3, 4)
lock.__exit__(a=1)
(lock.acquire(), lock.__exit__())
(lock.acquire(), lock.__exit__(1))
(lock.acquire(), lock.__exit__(None, None, None), lock._get_value())
(lock.acquire(), lock._count(), lock._is_mine(), lock._is_zero(), lock._get_value())
(lock.acquire(), lock._after_fork(), lock._count(), lock._is_mine(), lock.release(), lock._count())
(zero.release(), zero._count(), zero._is_mine(), zero._get_value())
(zero.release(), zero.release())
lock._count(1)
lock._count(x=1)
lock._is_mine(1)
lock._is_zero(1)
lock._get_value(1)
lock._after_fork(1)
(lock.kind, lock.maxvalue, lock.name)
(mutex.kind, mutex.maxvalue, mutex.name)
isinstance(lock.handle, int) and lock.handle > 0
lock.handle == zero.handle
setattr(lock, 'name', 'x')
setattr(lock, 'handle', 1)
setattr(lock, 'kind', 1)
setattr(lock, 'maxvalue', 1)
setattr(lock, 'foo', 'x')
setattr(lock, 'acquire', 'x')
setattr(lock, '__class__', Index)
delattr(lock, 'name')
delattr(lock, 'foo')
lock.foo
lock.__dict__
lock.SEM_VALUE_MAX
lock == lock
lock == zero
lock < lock
hash(lock) == hash(lock)
bool(lock)
len(lock)
repr(lock)
str(lock)
format(lock, 'x')
lock()
weakref.ref(lock)
pickle.dumps(lock)
pickle.dumps(lock, 2)
copy.copy(lock)
copy.deepcopy(lock)
lock.__reduce_ex__(2)
lock.__init__()
lock.__init__(1)
lock.__init__(1, 2, 3, 4, 5)._get_value()
type(lock).__mro__
type('x', (S,), {})
type('x', (S, int), {})
type('x', (S,), {'__slots__': ()})
setattr(S, 'foo', 1)
setattr(S, 'acquire', 1)
setattr(S, 'SEM_VALUE_MAX', 1)
delattr(S, 'acquire')
S.foo
S.acquire()
S.acquire(3)
S.release(zero)
S.handle
S.name.__get__(3)
S._count(None)
S == S
S | int
S[int]
""".splitlines()


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Raising:
    def fail(self, *_: Any) -> Any:
        raise ZeroDivisionError("on purpose")

    __index__ = __float__ = __bool__ = __int__ = __str__ = __len__ = fail


class Str(str):
    pass


def outcome(module: Any, call: str, new_name: NewName) -> Any:
    """What an expression gives on a module: a result's type and text, or the exception."""
    import copyreg
    from fractions import Fraction

    taken, fresh, gone = new_name(), new_name(), new_name()
    keeper = stock.SemLock(1, 3, 5, taken, False)

    def unnamed(kind: int, value: int) -> Any:
        return module.SemLock(kind, value, 1, new_name(), True)

    namespace = {
        "m": module,
        "S": module.SemLock,
        "taken": taken,
        "fresh": fresh,
        "gone": gone,
        "keeper": keeper,
        "lock": unnamed(1, 1),
        "zero": unnamed(1, 0),
        "mutex": unnamed(0, 1),
        "held": unnamed(0, 1),
        "Fraction": Fraction,
        **{c.__name__: c for c in (Index, Raising, Str)},
        **{m.__name__: m for m in (copy, copyreg, math, pickle, weakref)},
    }
    namespace["held"].acquire()
    try:
        result = eval(call, namespace)
    except Exception as error:
        described = type(error), str(error), getattr(error, "errno", None)
    else:
        described = type(result).__name__, str(result), None
    kind, text, errno = described
    text = re.sub(r"0x[0-9a-f]+", "<address>", text)
    for name, meaning in ((taken, "<taken>"), (fresh, "<fresh>"), (gone, "<gone>")):
        text = text.replace(name, meaning).replace(name.lstrip("/"), meaning)
    return kind, text, errno


@pytest.mark.parametrize("call", CALLS)
def test_a_call_gives_what_it_gives_on_stock(call: str, new_name: NewName) -> None:
    expected = outcome(stock, call, new_name)
    assert outcome(ours, call, new_name) == expected


# ---- Kinds, owners, counts ----


def test_a_semaphore_gives_as_many_permits_as_it_has(new: Callable[..., Any]) -> None:
    lock = new(value=3, maxvalue=5)
    assert [lock.acquire(False) for _ in range(4)] == [True, True, True, False]
    assert (lock._count(), lock._get_value(), lock._is_zero()) == (3, 0, True)


def test_a_semaphore_is_not_released_above_its_maximum(new: Callable[..., Any]) -> None:
    lock = new(value=1, maxvalue=2)
    lock.release()
    with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
        lock.release()
    assert (lock._get_value(), lock._count()) == (2, -1)


def test_a_value_above_the_maximum_is_accepted_and_only_goes_down(new: Callable[..., Any]) -> None:
    lock = new(value=20, maxvalue=10)
    assert (lock._get_value(), lock.maxvalue) == (20, 10)
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()
    for _ in range(11):
        lock.acquire()
    lock.release()
    with pytest.raises(ValueError, match="released too many times"):
        lock.release()


def test_a_semaphore_can_be_released_by_another_thread(new: Callable[..., Any]) -> None:
    lock = new()
    lock.acquire()
    assert in_another_thread(lock.release) is None
    assert lock.acquire(False)


def test_a_mutex_is_taken_again_by_its_thread_and_by_no_other(new: Callable[..., Any]) -> None:
    lock = new(MUTEX)
    assert [lock.acquire(), lock.acquire(False), lock.acquire(True, 0)] == [True] * 3
    assert (lock._count(), lock._is_mine(), lock._is_zero()) == (3, True, True)
    assert in_another_thread(lambda: lock.acquire(False)) is False
    assert in_another_thread(lock._is_mine) is False
    for left in (2, 1, 0):
        lock.release()
        assert lock._count() == left
    assert in_another_thread(lambda: lock.acquire(False)) is True


def test_a_mutex_is_released_by_no_other_thread(new: Callable[..., Any]) -> None:
    lock = new(MUTEX)
    lock.acquire()
    error = in_another_thread(lock.release)
    assert type(error) is AssertionError
    assert str(error) == "attempt to release recursive lock not owned by thread"
    assert (lock._count(), lock._is_mine(), lock._get_value()) == (1, True, 0)


def test_a_mutex_that_nobody_holds_cannot_be_released(new: Callable[..., Any]) -> None:
    lock = new(MUTEX)
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()
    assert lock._get_value() == 1


def test_the_thread_that_acquired_last_owns_a_semaphore(new: Callable[..., Any]) -> None:
    lock = new(value=2, maxvalue=2)
    assert not lock._is_mine()
    lock.acquire()
    assert lock._is_mine()
    assert in_another_thread(lambda: (lock._is_mine(), lock.acquire(), lock._is_mine())) == (
        False,
        True,
        True,
    )
    assert not lock._is_mine()
    assert lock._count() == 2


@pytest.mark.parametrize("kind", [MUTEX, SEMAPHORE])
def test_after_a_fork_nothing_is_mine_and_the_permit_stays_taken(
    kind: int, new: Callable[..., Any]
) -> None:
    lock = new(kind)
    lock.acquire()
    lock._after_fork()
    assert (lock._count(), lock._is_mine(), lock._get_value()) == (0, False, 0)
    assert lock.acquire(False) is False


def test_an_unnamed_semaphore_is_shared_with_forked_children(name: str) -> None:
    lock = SemLock(SEMAPHORE, 0, 1, name, True)
    with forked(lambda _: lock.release()) as child:
        assert lock.acquire() is True
        child.result()


@pytest.mark.parametrize("kind", [MUTEX, SEMAPHORE])
def test_a_with_block_holds_the_lock_and_releases_it_also_when_it_raises(
    kind: int, new: Callable[..., Any]
) -> None:
    lock = new(kind)
    with lock as entered:
        assert entered is True
        assert lock._is_zero()
    assert lock._get_value() == 1
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert (lock._get_value(), lock._count()) == (1, 0)


def test_many_threads_exclude_each_other_and_the_count_comes_out_even(
    new: Callable[..., Any],
) -> None:
    for lock in (new(SEMAPHORE), new(MUTEX)):
        inside, most, rounds = 0, 0, 0

        def hammer(lock: Any = lock) -> None:
            nonlocal inside, most, rounds
            for turn in range(2000):
                if turn % 4 == 0:
                    while not lock.acquire(turn % 8 == 0, 0.001):
                        pass
                else:
                    lock.acquire()
                inside += 1
                most = max(most, inside)
                rounds += 1
                inside -= 1
                lock.release()

        threads = [threading.Thread(target=hammer) for _ in range(4)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert (most, inside, rounds) == (1, 0, 4 * 2000)
        assert (lock._count(), lock._get_value()) == (0, 1)


# ---- Waiting ----


@pytest.mark.parametrize("kind", [MUTEX, SEMAPHORE])
@pytest.mark.usefixtures("switches_threads_only_where_they_wait")
@pytest.mark.parametrize(
    "arguments",
    [(), (True,), (True, None), (True, 60), (True, math.inf), (True, 1e10), (True, 1e30),
     (True, 2**62), (True, 2**63), (True, 2**64), (True, sys.float_info.max)],
    ids=str,
)  # fmt: skip
def test_a_wait_lets_other_threads_run_and_ends_when_one_of_them_releases(
    arguments: tuple[Any, ...], kind: int, new: Callable[..., Any], name: str
) -> None:
    lock = new(kind, value=0)
    # Only the holder releases a mutex, but a second lock on its semaphore can release that.
    key = lock if kind == SEMAPHORE else SemLock._rebuild(lock.handle, SEMAPHORE, 1, None)
    with released_by_a_thread_that_runs_once_we_wait(key):
        assert lock.acquire(*arguments) is True
    assert lock._is_zero()


@pytest.mark.usefixtures("switches_threads_only_where_they_wait")
def test_a_with_block_waits_too(new: Callable[..., Any]) -> None:
    lock = new(value=0)
    with released_by_a_thread_that_runs_once_we_wait(lock), lock:
        assert lock._is_zero()


@pytest.mark.parametrize("timeout", [0.01, 0.2, 0.55])
def test_a_wait_does_not_end_before_its_deadline(timeout: float, new: Callable[..., Any]) -> None:
    lock = new(value=0)
    start = time.monotonic()
    assert lock.acquire(True, timeout) is False
    assert time.monotonic() - start >= timeout
    assert lock._count() == 0


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, -1, -1e300, -math.inf])
def test_a_timeout_that_is_over_takes_what_is_there_and_does_not_wait(
    timeout: float, new: Callable[..., Any]
) -> None:
    lock = new()
    assert [lock.acquire(True, timeout) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("block", [True, False])
def test_nan_is_no_timeout(value: int, block: bool, new: Callable[..., Any]) -> None:
    lock = new(value=value)
    with pytest.raises(ValueError, match="NaN"):
        lock.acquire(block, math.nan)
    assert (lock._get_value(), lock._count()) == (value, 0)


# ---- Names ----


def test_a_named_semaphore_keeps_its_name_until_it_is_unlinked(name: str) -> None:
    lock = SemLock(SEMAPHORE, 1, 1, name, False)
    assert lock.name == name
    del lock
    lock = SemLock._rebuild(0, SEMAPHORE, 1, name)
    ours.sem_unlink(name)
    with pytest.raises(FileNotFoundError):
        SemLock._rebuild(0, SEMAPHORE, 1, name)
    assert lock.acquire(False)


def test_an_unlinked_semaphore_has_no_name_and_leaves_the_name_free(name: str) -> None:
    locks = [SemLock(SEMAPHORE, 1, 1, name, True) for _ in range(2)]
    assert [lock.name for lock in locks] == [None, None]
    assert locks[0].handle != locks[1].handle
    with pytest.raises(FileNotFoundError):
        ours.sem_unlink(name)


def test_a_name_needs_no_slash(name: str) -> None:
    bare = name.lstrip("/")
    lock = SemLock(SEMAPHORE, 0, 1, bare, False)
    assert lock.name == bare
    SemLock._rebuild(0, SEMAPHORE, 1, name).release()
    assert lock.acquire(False)


@pytest.mark.parametrize("unlink", [True, False])
def test_a_taken_name_is_refused_and_left_alone(unlink: bool, name: str) -> None:
    lock = SemLock(SEMAPHORE, 3, 5, name, False)
    with pytest.raises(FileExistsError):
        SemLock(SEMAPHORE, 1, 1, name, unlink)
    assert SemLock._rebuild(0, SEMAPHORE, 5, name)._get_value() == lock._get_value() == 3


# ---- Rebuilding ----


def test_what_is_rebuilt_by_name_is_the_same_semaphore_with_its_own_count(name: str) -> None:
    lock = SemLock(SEMAPHORE, 2, 2, name, False)
    lock.acquire()
    again = SemLock._rebuild(lock.handle, SEMAPHORE, 2, name)
    assert (again.kind, again.maxvalue, again.name) == (SEMAPHORE, 2, name)
    assert (again._count(), again._get_value()) == (0, 1)
    assert again.acquire(False)
    assert (lock._get_value(), lock._count(), again._count()) == (0, 1, 1)


def test_what_is_rebuilt_by_handle_is_the_same_semaphore(new: Callable[..., Any]) -> None:
    lock = new(value=0)
    again = SemLock._rebuild(lock.handle, SEMAPHORE, 1, None)
    assert (again.handle, again.name) == (lock.handle, None)
    lock.release()
    assert again.acquire(False)
    assert lock._is_zero()


@pytest.mark.parametrize("unlink", [True, False])
def test_what_is_rebuilt_by_handle_stays_valid_when_the_original_is_gone(
    unlink: bool, name: str
) -> None:
    lock = SemLock(SEMAPHORE, 1, 1, name, unlink)
    again = SemLock._rebuild(lock.handle, SEMAPHORE, 1, None)
    del lock
    assert [again.acquire(False), again.acquire(False)] == [True, False]
    again.release()
    assert again._get_value() == 1


@pytest.mark.parametrize("unlink", [True, False])
def test_a_handle_that_is_closed_is_refused(unlink: bool, name: str) -> None:
    lock = SemLock(SEMAPHORE, 1, 1, name, unlink)
    again = SemLock._rebuild(lock.handle, SEMAPHORE, 1, None)
    handle = lock.handle
    del lock, again
    with pytest.raises(ValueError, match="no such object with handle"):
        SemLock._rebuild(handle, SEMAPHORE, 1, None)


@pytest.mark.parametrize("handle", [0, 1, 2**32, 2**47, 2**63, 2**64 - 1, -1])
def test_a_handle_that_never_was_is_refused(handle: int) -> None:
    with pytest.raises(ValueError, match="no such object with handle"):
        SemLock._rebuild(handle, SEMAPHORE, 1, None)


def test_a_handle_is_known_to_a_forked_child(name: str) -> None:
    lock = SemLock(SEMAPHORE, 0, 1, name, True)
    with forked(lambda _: SemLock._rebuild(lock.handle, SEMAPHORE, 1, None).release()) as child:
        assert lock.acquire() is True
        child.result()


def test_thousands_of_semaphores_are_closed_again(new_name: NewName) -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as file:
            return sum(1 for _ in file)

    name = new_name()
    before = mappings()
    for _, unlink in itertools.product(range(1000), (True, False)):
        lock = SemLock(SEMAPHORE, 1, 1, name, unlink)
        SemLock._rebuild(lock.handle, SEMAPHORE, 1, None)
        if not unlink:
            ours.sem_unlink(name)
    del lock
    assert mappings() < before + 100


# ---- Subclasses ----


def test_a_subclass_has_attributes_weak_references_and_its_own_methods(name: str) -> None:
    class Sub(SemLock):
        def acquire(self, *args: Any) -> Any:
            self.asked = True
            return super().acquire(*args)

    lock = Sub(SEMAPHORE, 1, 1, name, True)
    reference = weakref.ref(lock)
    assert lock.acquire()
    assert lock.asked
    assert isinstance(lock, SemLock)
    lock.other = lock  # a cycle
    del lock.other
    del lock
    assert reference() is None


def test_a_subclass_is_collected_from_a_cycle(name: str) -> None:
    import gc

    class Sub(SemLock):
        pass

    lock = Sub(SEMAPHORE, 1, 1, name, True)
    lock.itself = lock
    reference = weakref.ref(lock)
    del lock
    gc.collect()
    assert reference() is None


def test_a_subclass_is_rebuilt_as_itself(name: str) -> None:
    lock = Named(SEMAPHORE, 1, 1, name, False)
    assert type(Named._rebuild(lock.handle, SEMAPHORE, 1, name)) is Named
    assert type(Named._rebuild(lock.handle, SEMAPHORE, 1, None)) is Named


def test_the_subclasses_of_a_type_are_freed_with_their_instances(name: str) -> None:
    # In a process of its own: free-threaded CPython 3.13 frees no class that it has seen since a
    # thread was started.
    script = """if True:
        import gc, sys, weakref
        from semlock._multiprocessing import SemLock

        class Sub(SemLock):
            pass

        Sub(1, 1, 1, sys.argv[1], True)
        reference = weakref.ref(Sub)
        del Sub
        gc.collect()
        print(reference())
    """
    assert output("-c", script, name) == "None\n"


# ---- Pickling ----

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_named_semaphore_pickles_to_a_process_that_has_not_installed(
    protocol: int, name: str
) -> None:
    lock = SemLock(SEMAPHORE, 0, 3, name, False)
    script = """if True:
        import pickle, sys
        lock = pickle.loads(bytes.fromhex(sys.argv[1]))
        lock.release()
        import semlock._multiprocessing, _multiprocessing
        print(type(lock) is semlock._multiprocessing.SemLock, _multiprocessing.__name__)
        print(lock.kind, lock.maxvalue, lock.name)
    """
    expected = f"True _multiprocessing\n1 3 {name}\n"
    assert output("-c", script, pickle.dumps(lock, protocol).hex()) == expected
    assert lock.acquire(False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_subclass_of_a_named_semaphore_pickles_as_itself(protocol: int, name: str) -> None:
    lock = Named(MUTEX, 1, 1, name, False)
    lock.colour = "blue"
    again = pickle.loads(pickle.dumps(lock, protocol))
    assert (type(again), again.colour, again.kind) == (Named, "blue", MUTEX)
    again.acquire()
    assert lock._is_zero()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_named_semaphore_is_the_same_semaphore(
    duplicate: Callable[[Any], Any], name: str
) -> None:
    lock = SemLock(SEMAPHORE, 0, 1, name, False)
    again = duplicate(lock)
    again.release()
    assert lock.acquire(False)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_has_no_name_cannot_be_pickled_or_copied_and_says_so_as_stock(
    duplicate: Callable[[Any], Any], new_name: NewName
) -> None:
    messages = []
    for module in (ours, stock):
        lock = module.SemLock(SEMAPHORE, 1, 1, new_name(), True)
        with pytest.raises(TypeError) as caught:
            duplicate(lock)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_a_pickle_whose_semaphore_is_gone_says_so(name: str) -> None:
    pickled = pickle.dumps(SemLock(SEMAPHORE, 0, 1, name, False))
    ours.sem_unlink(name)
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickled)

"""semlock's classes are used like those of multiprocessing.synchronize, which are the oracle."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import multiprocessing
import os
import pickle
import re
import shutil
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from multiprocessing import process, synchronize
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import semlock
from children import Line, forked, in_a_child, output, wait_until
from families import STOCK, both, both_locks, die, holder, let_go, recovered_from, take

pytestmark = pytest.mark.usefixtures("a_segment")

LOCKS = ["Lock", "RLock"]
SEMAPHORES = ["Semaphore", "BoundedSemaphore"]
CLASSES = [*LOCKS, *SEMAPHORES, "Condition", "Event", "Barrier"]

classes = pytest.mark.parametrize("name", CLASSES)
locks_and_semaphores = pytest.mark.parametrize("name", LOCKS + SEMAPHORES)

SEM_VALUE_MAX = synchronize.SEM_VALUE_MAX


def make(family: Any, name: str, **options: Any) -> Any:
    arguments = [2] if name == "Barrier" else []
    return getattr(family, name)(*arguments, **options)


# ---- Every call's result and exception, beside stock's ----

# The calls are made on a family of objects, by name: `lock`, `rlock`, `condition` and `event` are
# new. This thread holds `held` and `rheld`, and `twice` two times. Another thread holds `alien`.
CALLS = """\
lock.acquire()
lock.acquire(True)
lock.acquire(False)
lock.acquire(True, 0)
lock.acquire(True, None)
lock.acquire(True, -1)
lock.acquire(True, -math.inf)
lock.acquire(True, math.inf)
lock.acquire(True, 10**10)
lock.acquire(block=True)
lock.acquire(block=False, timeout=5)
lock.acquire(timeout=5)
lock.acquire(None)
lock.acquire([])
lock.acquire('x')
lock.acquire(2**70)
lock.acquire(True, 'x')
lock.acquire(True, 1j)
lock.acquire(True, 10**400)
lock.acquire(1, 2, 3)
lock.acquire(blocking=True)
lock.acquire(1, block=True)
(lock.acquire(), lock.acquire(False), lock.acquire(True, 0), lock.acquire(True, 0.01))
(lock.acquire(), lock.release(), lock.acquire(False))
lock.release()
lock.release(1)
lock.__enter__()
lock.__exit__()
lock.__exit__(None, None, None)
(lock.__enter__(), lock.__exit__(None, None, None), lock.acquire(False))
(lock.__enter__(), lock.__exit__(), lock.acquire(False))
held.acquire(False)
held.acquire(True, 0.01)
held.acquire(True, -1)
held.acquire(True, 'x')
held.acquire(False, 'x')
held.release()
(held.release(), held.release())
held.__exit__(None, None, None)
(held._semlock._is_mine(), held._semlock._count(), held._semlock._get_value())
(lock._semlock._is_mine(), lock._semlock._count(), lock._semlock._get_value())
(lock._semlock._is_zero(), held._semlock._is_zero())
(lock._semlock.kind, lock._semlock.maxvalue)
(lock._semlock.acquire(), lock._semlock.acquire(False), lock._semlock.release())
lock._semlock.__enter__()
held._semlock.__exit__(None, None, None)
type(lock._semlock.handle)
held._semlock._after_fork()
rlock.acquire()
(rlock.acquire(), rlock.acquire(), rlock.acquire(False), rlock.acquire(True, 0))
(rlock.acquire(), rlock.acquire(), rlock._semlock._count(), rlock.release(), rlock.release())
(rheld.release(), rheld.release())
rlock.release()
rlock.__enter__()
rlock.__exit__(None, None, None)
(rlock.__enter__(), rlock.__enter__(), rlock.__exit__(), rlock._semlock._count())
(rheld._semlock._is_mine(), rheld._semlock._count(), rheld._semlock._get_value())
(rlock._semlock._is_mine(), rlock._semlock._count(), rlock._semlock._get_value())
(rlock._semlock._is_zero(), rheld._semlock._is_zero())
(rlock._semlock.kind, rlock._semlock.maxvalue)
(twice.release(), twice._semlock._count(), twice.release(), twice._semlock._count())
(twice._semlock._is_mine(), twice._semlock._is_zero())
alien.acquire(False)
alien.acquire(True, 0.01)
alien.release()
(alien._semlock._is_mine(), alien._semlock._count() > 0, alien._semlock._is_zero())
rheld.acquire(True, 'x')
rheld.acquire(1, 2, 3)
Semaphore().get_value()
Semaphore(0).get_value()
Semaphore(5).get_value()
Semaphore(value=5).get_value()
Semaphore(True).get_value()
Semaphore(-1)
Semaphore(2**31 - 1).get_value()
Semaphore(2**31)
Semaphore(2**70)
Semaphore('x')
Semaphore(None)
Semaphore(1.5)
Semaphore(1, 2)
Semaphore(count=1)
Semaphore(3)._semlock.maxvalue
Semaphore(3)._semlock.kind
Semaphore(0).acquire(False)
Semaphore(0).acquire(True, 0.01)
Semaphore(0).acquire(True, -5)
(semaphore.acquire(), semaphore.acquire(False), semaphore.acquire(False), semaphore.get_value())
(semaphore.release(), semaphore.release(), semaphore.get_value())
(semaphore.acquire(), semaphore._semlock._is_mine(), semaphore._semlock._count())
(semaphore.release(), semaphore._semlock._count())
(semaphore.__enter__(), semaphore.__exit__(None, None, None), semaphore.get_value())
Semaphore(2**31 - 1).release()
Semaphore(2**31 - 2).release()
BoundedSemaphore().get_value()
BoundedSemaphore(0).get_value()
BoundedSemaphore(0).release()
BoundedSemaphore(5).get_value()
BoundedSemaphore(value=5)._semlock.maxvalue
BoundedSemaphore(-1)
BoundedSemaphore(2**31)
BoundedSemaphore('x')
BoundedSemaphore(2**31 - 1).get_value()
BoundedSemaphore(2).release()
(bounded.acquire(), bounded.release(), bounded.release())
(bounded.acquire(), bounded.acquire(), bounded.acquire(False), bounded.get_value())
Lock(1)
Lock(5, 6)
Lock(foo=1)
RLock(1)
Event(1)
Event(foo=1)
Condition(1, 2)
Condition(foo=1)
Barrier()
Barrier(1, 2, 3, 4)
Barrier(foo=1)
condition.acquire()
condition.acquire(False)
condition.acquire(block=False)
condition.acquire(True, 0.1)
condition.release()
(condition.acquire(), condition.acquire(), condition.release(), condition.release())
condition.__enter__()
condition.__exit__()
(condition.__enter__(), condition.__exit__(None, None, None))
condition.wait()
condition.wait(0)
condition.notify()
condition.notify(5)
condition.notify_all()
condition.wait_for(lambda: True)
condition.wait_for(lambda: 5)
condition.wait_for(lambda: False)
condition.wait_for(lambda: False, 0)
condition.wait_for(lambda: 0, -1)
condition.wait_for(lambda: False, 0.01)
condition.wait_for(lambda: 1 / 0)
condition.wait_for()
condition.wait_for(5)
condition.wait_for(predicate=lambda: 7, timeout=None)
owned.wait(0)
owned.wait(-1)
owned.wait(0.01)
owned.wait(timeout=0.01)
owned.wait('x')
owned.wait(1, 2)
owned.notify()
owned.notify(0)
owned.notify(-1)
owned.notify(n=3)
owned.notify('x')
owned.notify(2**31)
owned.notify(sys.maxsize)
owned.notify_all()
owned.notify_all(1)
owned.wait_for(lambda: False, 0)
owned.wait_for(lambda: [], 0.01)
owned.wait_for(lambda: '', -1)
owned.wait_for(lambda: 'yes', 0.01)
owned.wait_for(lambda: 'yes', 'x')
owned.wait_for(lambda: 1 / 0, 0.01)
(owned.wait(0.001), owned._lock._semlock._count(), owned._lock._semlock._is_mine())
(owned.acquire(), owned.wait(0.001), owned._lock._semlock._count())
(owned.release(), owned.notify())
owned.release()
Condition(lock).wait(0)
Condition(held).wait(0.001)
Condition(held).notify()
Condition(rheld).wait(0.001)
Condition(twice).wait(0.001)
Condition(lock=twice).notify_all()
Condition(alien).wait(0)
Condition(alien).notify()
Condition(None).acquire()
Condition(lock)._lock is lock
type(Condition()._lock).__name__
Condition(lock).acquire() and lock.acquire(False)
Condition(rlock).acquire() and rlock._semlock._count()
[s.get_value() for s in (condition._sleeping_count, condition._woken_count)]
condition._wait_semaphore.get_value()
event.is_set()
event.set()
event.clear()
(event.set(), event.is_set(), event.set(), event.is_set(), event.clear(), event.is_set())
event.wait(0)
event.wait(0.01)
event.wait(-1)
event.wait(timeout=0.01)
event.wait('x')
event.wait(1, 2)
(event.set(), event.wait(), event.wait(0), event.wait(-1), event.wait(None))
event.set(1)
event.is_set(1)
Barrier(1).wait()
Barrier(1).wait(5)
Barrier(1).wait(timeout=None)
(barrier.parties, barrier.n_waiting, barrier.broken)
barrier.wait(0.01)
barrier.wait(0)
barrier.wait(-1)
(barrier.reset(), barrier.broken)
(barrier.abort(), barrier.broken, barrier.n_waiting)
(barrier.abort(), barrier.wait())
(barrier.abort(), barrier.reset(), barrier.broken)
(barrier.abort(), barrier.abort(), barrier.broken)
Barrier(1, lambda: 1 / 0).wait()
Barrier(1, lambda: called.append(1)).wait() or called
(Barrier(1, action=None, timeout=1).wait(), Barrier(parties=1).parties)
Barrier(2, timeout=0.01).wait()
Barrier(2, None, 0.01).wait()
[alone.wait() for _ in range(3)]
repr(lock)
repr(held)
repr(rlock)
repr(rheld)
repr(twice)
repr(alien)
repr(semaphore)
repr(Semaphore(0))
repr(Semaphore(77))
repr(bounded)
repr(BoundedSemaphore(9))
repr(condition)
repr(owned)
repr(Condition(lock))
repr(Condition(held))
[hasattr(o, '__dict__') for o in (Sub(),)]
""".splitlines()
if sys.version_info >= (3, 11):  # before, the stdlib's barriers said nothing of themselves
    CALLS += ["repr(barrier)", "(barrier.abort(), repr(barrier))"]
if sys.version_info >= (3, 12):
    CALLS += ["repr(event)", "(event.set(), repr(event))"]
if sys.version_info >= (3, 14):
    CALLS += [
        "(lock.locked(), held.locked(), rlock.locked(), rheld.locked(), alien.locked())",
        "(semaphore.locked(), Semaphore(0).locked(), bounded.locked())",
        "lock.locked(1)",
    ]


def outcome(family: Any, call: str) -> Any:
    """The outcome of a call: its value, or its exception."""
    kit = {name: getattr(family, name) for name in CLASSES}
    kit |= {
        "math": math,
        "sys": sys,
        "called": [],
        "lock": family.Lock(),
        "held": family.Lock(),
        "rlock": family.RLock(),
        "rheld": family.RLock(),
        "twice": family.RLock(),
        "alien": family.RLock(),
        "semaphore": family.Semaphore(2),
        "bounded": family.BoundedSemaphore(2),
        "condition": family.Condition(),
        "owned": family.Condition(),
        "event": family.Event(),
        "barrier": family.Barrier(2),
        "alone": family.Barrier(1),
        "Sub": type("Sub", (type(family.Lock()),), {"__init__": lambda self: None}),
    }
    for name in ("held", "rheld", "twice", "twice", "owned"):
        kit[name].acquire()
    in_another_thread(kit["alien"].acquire)
    try:
        value = eval(call, kit)
    except Exception as error:
        # The interpreter words the errors of arguments itself; all other messages are ours.
        said = "" if isinstance(error, TypeError | OverflowError) else plain(str(error))
        return type(error), said
    return plain(repr(value))


def plain(text: str) -> str:
    text = re.sub(r"\b(multiprocessing\.synchronize|semlock(\._\w+)?)\.", "", text)
    return re.sub(r"0x[0-9a-f]+", "0x…", text)


def in_another_thread(call: Callable[[], Any]) -> Any:
    """What a call returns or raises in another thread."""
    results = []

    def body() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=body, name="another")
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("call", CALLS)
def test_a_call_gives_what_it_gives_on_stock(call: str) -> None:
    expected = outcome(STOCK, call)
    assert outcome(semlock, call) == expected


@locks_and_semaphores
@pytest.mark.parametrize("block", [True, False])
def test_nan_is_no_timeout(name: str, block: bool) -> None:
    lock = make(semlock, name)
    with pytest.raises(ValueError, match="NaN"):
        lock.acquire(block, math.nan)
    assert lock._semlock._get_value() == 1


def test_nan_is_no_timeout_for_those_that_wait_for_others() -> None:
    condition, event, barrier = semlock.Condition(), semlock.Event(), semlock.Barrier(2)
    with condition:
        with pytest.raises(ValueError, match="NaN"):
            condition.wait(math.nan)
        assert condition._lock._semlock._count() == 1
        assert condition._sleeping_count.get_value() == 0
    with pytest.raises(ValueError, match="NaN"):
        event.wait(math.nan)
    with pytest.raises(ValueError, match="NaN"):
        barrier.wait(math.nan)


# ---- The surface ----


@classes
def test_a_class_has_all_that_stocks_has(name: str) -> None:
    ours, stocks = getattr(semlock, name), getattr(synchronize, name)
    missing = {
        attribute
        for attribute in dir(stocks)
        if not attribute.startswith("_") and not hasattr(ours, attribute)
    }
    assert not missing
    instance, theirs = make(semlock, name), make(STOCK, name)
    missing = {
        attribute
        for attribute in dir(theirs)
        if not attribute.startswith("_") and not hasattr(instance, attribute)
    }
    assert not missing


@classes
def test_a_class_is_called_as_stocks_and_lives_in_semlock(name: str) -> None:
    ours = getattr(semlock, name)
    assert (ours.__name__, ours.__qualname__) == (name, name)
    assert ours.__module__.split(".")[0] == "semlock"
    assert ours.__doc__


@pytest.mark.parametrize("name", ["SemLock", *CLASSES])
def test_a_class_derives_from_stocks_and_stocks_not_from_ours(name: str) -> None:
    ours, stocks = getattr(semlock._native, name), getattr(synchronize, name)
    assert issubclass(ours, stocks)
    assert not issubclass(stocks, ours)
    other = synchronize.Event if name != "Event" else synchronize.Lock
    assert not issubclass(ours, other)


@classes
def test_an_instance_is_one_of_stocks_class_and_says_that_it_is_ours(name: str) -> None:
    ours, stocks = getattr(semlock, name), getattr(synchronize, name)
    context = semlock.get_context("fork")
    for instance in (make(semlock, name), make(context, name), make(Special, name)):
        assert isinstance(instance, stocks)
        assert isinstance(instance, ours)
        assert instance.__class__ is type(instance)
        assert type(through_a_pickle(instance)) is type(instance)
    assert type(make(context, name)) is ours
    assert not isinstance(make(STOCK, name), ours)
    if name == "Barrier":
        assert isinstance(make(context, name), threading.Barrier)
    if name in LOCKS + SEMAPHORES:
        assert isinstance(make(context, name), synchronize.SemLock)


@pytest.mark.parametrize("name", ["SemLock", *CLASSES])
def test_what_stocks_class_does_ours_does_itself(name: str) -> None:
    ours, stocks = getattr(semlock._native, name), getattr(synchronize, name)
    used = {
        attribute
        for owner in stocks.__mro__
        if owner is not object
        for attribute, value in vars(owner).items()
        if callable(value) or isinstance(value, property | staticmethod | classmethod)
        if not attribute.startswith("_") or attribute.endswith("__")
        if inspect.getattr_static(ours, attribute) is value
    }
    assert not used


@classes
def test_every_public_method_says_what_it_does(name: str) -> None:
    ours = getattr(semlock, name)
    silent = [
        attribute
        for attribute, value in inspect.getmembers(ours)
        if not attribute.startswith("_") and not inspect.getdoc(value)
    ]
    assert not silent


@classes
def test_a_context_can_be_given(name: str) -> None:
    for context in (None, STOCK, multiprocessing.get_context("spawn")):
        assert type(make(semlock, name, ctx=context)) is getattr(semlock, name)


def test_locks_and_semaphores_share_one_base() -> None:
    bases = [set(getattr(semlock, name).__mro__) - {object} for name in LOCKS + SEMAPHORES]
    assert set.intersection(*bases)
    assert not issubclass(semlock.RLock, semlock.Lock)


@locks_and_semaphores
def test_a_private_name_is_a_name_without_a_slash(name: str) -> None:
    lock = make(semlock, name)
    assert isinstance(lock._semlock.name, str)
    assert lock._semlock.name
    assert "/" not in lock._semlock.name
    assert isinstance(lock._semlock.handle, int)


def test_make_name_is_stocks() -> None:
    prefix = process.current_process()._config["semprefix"]
    for maker in (semlock.Lock, semlock.Lock()):
        assert maker._make_name().startswith(prefix + "-")
        assert maker._make_name() != maker._make_name()


@both
def test_a_condition_lends_the_methods_of_its_lock(family: Any) -> None:
    lock = family.Lock()
    condition = family.Condition(lock)
    with condition:
        assert lock._semlock._is_mine()
        assert not lock.acquire(False)
    assert condition.acquire(True, 1)
    condition.release()
    assert lock.acquire(False)


@pytest.mark.parametrize("wrong", [5, "lock", [1], threading.Lock()])
def test_a_condition_takes_no_other_locks(wrong: Any) -> None:
    with pytest.raises(TypeError):
        semlock.Condition(wrong)


def test_two_conditions_may_have_one_lock() -> None:
    lock = semlock.Lock()
    first, second = semlock.Condition(lock), semlock.Condition(lock)
    with first:
        second.notify()
        assert first.wait(0.001) is False
        assert second.wait(0.001) is False
    assert lock.acquire(False)


# ---- Reprs that name the holder ----


@both
@both_locks
def test_the_repr_names_the_process_and_the_thread_that_hold(family: Any, kind: str) -> None:
    lock = getattr(family, kind)()
    rlock = kind == "RLock"

    def expected(owner: str, count: Any) -> str:
        return f"<RLock({owner}, {count})>" if rlock else f"<Lock(owner={owner})>"

    assert repr(lock) == expected("None", 0)
    with lock:
        assert repr(lock) == expected(process.current_process().name, 1)
        assert in_another_thread(lambda: repr(lock)) == expected("SomeOtherThread", "nonzero")
    in_another_thread(lock.acquire)
    assert repr(lock) == expected("SomeOtherThread", "nonzero")


@both
@both_locks
def test_the_repr_in_another_thread_names_it(family: Any, kind: str) -> None:
    lock = getattr(family, kind)()

    def shown() -> str:
        with lock:
            return repr(lock)

    name = f"{process.current_process().name}|another"
    assert name in in_another_thread(shown)


@both
@both_locks
def test_the_repr_knows_that_another_process_holds(family: Any, kind: str) -> None:
    lock = getattr(family, kind)()
    with holder(lock) as child:
        assert "SomeOtherProcess" in repr(lock)
        let_go(child)
    assert "None" in repr(lock)


@classes
def test_the_repr_of_a_subclass_bears_its_name(name: str) -> None:
    class Special(getattr(semlock, name)):
        pass

    special = Special(2) if name == "Barrier" else Special()
    assert "Special" in repr(special)


# ---- Locks and threads ----


@both
@pytest.mark.parametrize("name", LOCKS + SEMAPHORES)
def test_a_wait_ends_when_another_thread_releases(family: Any, name: str) -> None:
    lock = make(family, name)
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert lock.acquire(False) is False
    assert lock.acquire(True, 0.001) is False
    go.set()
    assert lock.acquire(True, 60) is True
    thread.join()
    lock.release()
    assert lock.acquire() is True


@both
@pytest.mark.parametrize("name", LOCKS + SEMAPHORES)
@pytest.mark.parametrize("timeout", [0.01, 0.2])
def test_a_wait_does_not_end_before_its_deadline(family: Any, name: str, timeout: float) -> None:
    lock = make(family, name)
    in_another_thread(lock.acquire)
    start = time.monotonic()
    assert lock.acquire(True, timeout) is False
    assert time.monotonic() - start >= timeout


@both
@pytest.mark.parametrize("name", LOCKS + SEMAPHORES)
def test_many_threads_exclude_each_other(family: Any, name: str) -> None:
    lock = make(family, name)
    inside, most, rounds = 0, 0, 0

    def hammer() -> None:
        nonlocal inside, most, rounds
        for turn in range(500):
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
    assert (most, inside, rounds) == (1, 0, 4 * 500)
    assert (lock._semlock._count(), lock._semlock._get_value()) == (0, 1)


@both
@pytest.mark.parametrize("name", LOCKS + SEMAPHORES)
def test_many_processes_exclude_each_other(family: Any, name: str) -> None:
    lock = make(family, name)
    reading, writing = os.pipe()
    os.write(writing, b"0000")

    def hammer(_: Line) -> None:
        for _ in range(300):
            with lock:
                number = int(os.read(reading, 4))
                os.write(writing, b"%04d" % (number + 1))

    try:
        with forked(hammer) as one, forked(hammer) as two, forked(hammer) as three:
            for child in (one, two, three):
                child.result()
        assert os.read(reading, 4) == b"0900"
    finally:
        os.close(reading)
        os.close(writing)


def test_a_lock_released_by_another_thread_or_process_is_free() -> None:
    lock = semlock.Lock()
    lock.acquire()
    assert in_another_thread(lock.release) is None
    assert lock.acquire(False)
    in_a_child(lock.release)
    assert lock.acquire(False)
    assert not lock.acquire(False)


@pytest.mark.parametrize("name", LOCKS)
def test_locked_and_holder_say_what_is(name: str) -> None:
    lock = make(semlock, name)
    assert (lock.locked(), lock.holder()) == (False, None)
    with lock:
        assert (lock.locked(), lock.holder()) == (True, os.getpid())
        assert in_another_thread(lock.locked) is True
        assert in_a_child(lock.locked) is True
    assert (lock.locked(), lock.holder()) == (False, None)


@pytest.mark.parametrize("name", SEMAPHORES)
def test_a_semaphore_is_locked_when_it_has_no_permit_left(name: str) -> None:
    semaphore = getattr(semlock, name)(2)
    assert not semaphore.locked()
    semaphore.acquire()
    assert not semaphore.locked()
    semaphore.acquire()
    assert semaphore.locked()


@both
def test_wait_for_waits_until_the_predicate_holds(family: Any) -> None:
    condition = family.Condition()
    value = 0

    def count() -> None:
        nonlocal value
        for _ in range(4):
            with condition:
                value += 1
                condition.notify()

    with condition:
        thread = threading.Thread(target=count)
        thread.start()
        assert condition.wait_for(lambda: value == 4 and "four") == "four"
        start = time.monotonic()
        assert condition.wait_for(lambda: value == 5, 0.05) is False
        assert time.monotonic() - start >= 0.05
    thread.join()


@both
def test_an_event_wakes_threads_and_processes(family: Any) -> None:
    event = family.Event()
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(event.wait()))
    thread.start()
    with forked(lambda _: event.set()) as child:
        child.result()
    thread.join()
    assert results == [True]
    assert event.is_set()


@both
def test_the_threads_of_a_barrier_get_different_indices(family: Any) -> None:
    barrier = family.Barrier(4)
    for _ in range(5):
        indices: list[int] = []
        threads = [
            threading.Thread(target=lambda: indices.append(barrier.wait()))  # noqa: B023
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(indices) == [0, 1, 2, 3]


@both
def test_the_number_of_those_that_wait_can_be_asked(family: Any) -> None:
    barrier = family.Barrier(3)
    threads = []
    for expected in (1, 2):
        threads.append(threading.Thread(target=barrier.wait))
        threads[-1].start()
        wait_until(lambda: barrier.n_waiting == expected, "it waits")  # noqa: B023
        if family.Barrier is semlock.Barrier or sys.version_info >= (3, 11):
            assert f"waiters={expected}/3" in repr(barrier)
    assert barrier.parties == 3
    barrier.wait()
    for thread in threads:
        thread.join()
    wait_until(lambda: barrier.n_waiting == 0, "all have left")


# ---- Subclasses, weak references, attributes ----


@classes
def test_a_weak_reference_ends_with_its_object(name: str) -> None:
    lock = make(semlock, name)
    reference = weakref.ref(lock)
    assert reference() is lock
    del lock
    gc.collect()
    assert reference() is None


@classes
def test_a_subclass_has_attributes_and_its_own_constructor(name: str) -> None:
    base = getattr(semlock, name)

    class Special(base):
        def __init__(self, colour: str, *arguments: Any, size: int) -> None:
            super().__init__(*arguments)
            self.colour = colour
            self.size = size

    special = Special("blue", *([2] if name == "Barrier" else []), size=3)
    special.other = 5
    assert (special.colour, special.size, special.other) == ("blue", 3, 5)
    assert isinstance(special, base)
    if name in LOCKS + SEMAPHORES:
        with special:
            assert special._semlock._is_zero()
        assert special._semlock._get_value() == 1


@locks_and_semaphores
def test_a_subclass_may_replace_methods(name: str) -> None:
    class Counting(getattr(semlock, name)):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def acquire(self, *arguments: Any, **options: Any) -> bool:
            self.calls.append("acquire")
            return super().acquire(*arguments, **options)

        def release(self) -> None:
            self.calls.append("release")
            super().release()

    lock = Counting()
    assert lock.acquire(False)
    assert lock.acquire(block=False) is (name == "RLock")
    lock.release()
    assert lock.calls == ["acquire", "acquire", "release"]


@classes
def test_a_subclass_is_collected_from_a_cycle(name: str) -> None:
    class Special(getattr(semlock, name)):
        pass

    special = Special(2) if name == "Barrier" else Special()
    special.itself = special
    reference = weakref.ref(special)
    del special
    gc.collect()
    assert reference() is None


def test_a_barrier_is_collected_from_a_cycle_with_its_action() -> None:
    class Action:
        def __call__(self) -> None:
            pass

    action = Action()
    action.barrier = semlock.Barrier(2, action)
    reference = weakref.ref(action)
    del action
    gc.collect()
    assert reference() is None


def test_a_condition_is_collected_from_a_cycle_with_its_lock() -> None:
    class Special(semlock.Lock):
        pass

    lock = Special()
    lock.condition = semlock.Condition(lock)
    reference = weakref.ref(lock)
    del lock
    gc.collect()
    assert reference() is None


# ---- Attributes ----


@classes
def test_an_instance_takes_attributes_as_stocks_does(name: str) -> None:
    for family in (STOCK, semlock):
        instance = make(family, name)
        assert not hasattr(instance, "label")
        instance.label = "x"
        vars(instance)["other"] = 5
        assert (instance.label, instance.other) == ("x", 5)
        del instance.label
        assert not hasattr(instance, "label")
        object.__setattr__(instance, "label", "y")
        assert vars(instance)["label"] == "y"


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, "acquire") for name in LOCKS + SEMAPHORES]
    + [("Condition", "notify"), ("Event", "wait"), ("Barrier", "wait")],
)
def test_a_method_can_be_replaced_on_an_instance_for_a_while(name: str, method: str) -> None:
    for family in (STOCK, semlock):
        instance = make(family, name)
        with mock.patch.object(instance, method, side_effect=["replaced"]):
            assert getattr(instance, method)() == "replaced"
        assert callable(getattr(instance, method))
        assert getattr(make(family, name), method) is not getattr(instance, method)
        with pytest.raises(AttributeError):
            mock.patch.object(instance, "nonsense").start()


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_method_can_be_replaced_on_a_queue_for_a_while(name: str) -> None:
    queue = getattr(semlock.get_context("fork"), name)()
    queue.label = "x"
    with mock.patch.object(queue, "get", side_effect=["replaced"]):
        assert (queue.get(), queue.label) == ("replaced", "x")
    assert queue.empty()
    queue.close()


@locks_and_semaphores
def test_with_calls_no_replaced_methods_as_on_stock(name: str) -> None:
    for family in (STOCK, semlock):
        instance = make(family, name)
        replaced = [mock.patch.object(instance, it) for it in ("acquire", "release", "__enter__")]
        with ExitStack() as stack:
            calls = [stack.enter_context(it) for it in replaced]
            with instance:
                assert instance._semlock._is_zero()
            assert not any(it.called for it in calls)
        assert instance.acquire(False)


@both
@both_locks
def test_a_condition_calls_what_was_replaced_on_its_lock_before(family: Any, kind: str) -> None:
    lock = make(family, kind)
    lock.acquire = mock.Mock(return_value="replaced")
    condition = family.Condition(lock)
    assert condition.acquire() == "replaced"
    with condition:
        assert lock._semlock._is_mine()
        condition.notify()


def test_wait_for_calls_the_wait_that_was_set() -> None:
    for family in (STOCK, semlock):
        condition = family.Condition()
        with condition, mock.patch.object(condition, "wait") as wait:
            assert condition.wait_for(mock.Mock(side_effect=[False, True]))
            wait.assert_called_once()


@classes
def test_an_instance_is_collected_from_a_cycle_through_an_attribute(name: str) -> None:
    instance = make(semlock, name)
    instance.itself = [instance]
    reference = weakref.ref(instance)
    del instance
    gc.collect()
    assert reference() is None


@classes
def test_what_is_set_on_an_instance_ends_with_it(name: str) -> None:
    instance = make(semlock, name)
    instance.label = type("Label", (), {})()
    reference = weakref.ref(instance.label)
    del instance
    assert reference() is None


@classes
def test_attributes_keep_nothing_from_being_sent(name: str) -> None:
    instance = make(semlock, name)
    instance.cannot_be_pickled = lambda: None
    if name == "Event":  # stock's carries all that is set on it
        with pytest.raises((AttributeError, pickle.PicklingError)):
            through_a_pickle(instance)
        del instance.cannot_be_pickled
        instance.label = "x"
    other = through_a_pickle(instance)
    assert other is not instance
    assert vars(other) == ({"label": "x"} if name == "Event" else {})
    assert other._address() == instance._address()


@locks_and_semaphores
def test_new_accepts_anything(name: str) -> None:
    kind = getattr(semlock, name)
    for arguments, options in (((), {}), ((1, 2, 3), {}), ((), {"colour": "blue"})):
        assert type(kind.__new__(kind, *arguments, **options)) is kind


METHODS = {
    "Lock": ["acquire", "release", "locked", "holder", "__enter__", "__exit__"],
    "RLock": ["acquire", "release", "locked", "holder", "__enter__", "__exit__"],
    "Semaphore": ["acquire", "release", "locked", "get_value", "__enter__", "__exit__"],
    "BoundedSemaphore": ["acquire", "release", "locked", "get_value", "__enter__", "__exit__"],
    "Condition": ["acquire", "release", "wait", "notify", "notify_all", "__enter__", "__exit__"],
    "Event": ["is_set", "set", "clear", "wait"],
    "Barrier": ["wait", "reset", "abort"],
}


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in METHODS for method in METHODS[name]]
)
def test_what_was_never_initialised_says_so(name: str, method: str) -> None:
    kind = getattr(semlock, name)

    class Forgetful(kind):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        getattr(Forgetful(), method)()


@classes
@pytest.mark.parametrize(
    "use",
    [repr, hash, pickle.dumps, copy.copy, copy.deepcopy, lambda lock: lock._semlock,
     lambda lock: lock._semlock._count(), lambda lock: lock._address(), lambda lock: lock.recovered,
     lambda lock: lock._descriptor(), lambda lock: lock._maker(), lambda lock: lock._mark_shared(),
     lambda lock: lock._file(),
     lambda lock: (lock.parties, lock.broken, lock.n_waiting), lambda lock: lock._sleeping_count,
     gc.get_referents],
    ids=lambda use: getattr(use, "__name__", "use"),
)  # fmt: skip
def test_what_was_never_initialised_never_crashes(name: str, use: Callable[[Any], Any]) -> None:
    kind = getattr(semlock, name)
    try:
        use(kind.__new__(kind))
    except (RuntimeError, AttributeError, TypeError, pickle.PicklingError):
        return


@locks_and_semaphores
def test_initialising_again_never_crashes(name: str) -> None:
    lock = make(semlock, name)
    lock.acquire()
    try:
        lock.__init__()
    except RuntimeError:
        lock.release()
    assert lock.acquire(False)


@pytest.mark.parametrize("name", ["Condition", "Event"])
def test_initialising_those_that_wait_again_never_crashes(name: str) -> None:
    thing = make(semlock, name)
    with suppress(RuntimeError):
        thing.__init__()
    assert repr(thing)


# ---- Copies and pickles in one process ----


@classes
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda lock: copy.deepcopy({"nested": [lock]})]
)
def test_a_copy_is_the_same_object(name: str, duplicate: Callable[[Any], Any]) -> None:
    lock = make(semlock, name)
    again = duplicate(lock)
    if isinstance(again, dict):
        again = again["nested"][0]
    assert again is lock


PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def through_a_pickle(lock: Any, protocol: int = 4) -> Any:
    return pickle.loads(pickle.dumps(lock, protocol))


@locks_and_semaphores
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_unpickled_where_it_was_pickled_is_the_same_lock(name: str, protocol: int) -> None:
    lock = make(semlock, name)
    before = set(os.listdir("/proc/self/fd"))
    again = through_a_pickle(lock, protocol)
    assert set(os.listdir("/proc/self/fd")) == before  # it opens nothing
    assert type(again) is type(lock)
    assert again._address() == lock._address()
    assert again.acquire()
    assert lock._semlock._is_zero()
    lock.release()
    assert lock.acquire(False)


def test_two_unpickled_copies_of_an_rlock_in_one_thread_are_one_lock() -> None:
    # On the stdlib they dead-lock: each has its own count.
    lock = semlock.RLock()
    pickled = pickle.dumps(lock)
    one, two = pickle.loads(pickled), pickle.loads(pickled)
    with one, two, lock:
        assert [each._semlock._count() for each in (one, two, lock)] == [3, 3, 3]
        assert all(each._semlock._is_mine() for each in (one, two, lock))
        assert in_another_thread(lambda: two.acquire(False)) is False
    assert [each._semlock._count() for each in (one, two, lock)] == [0, 0, 0]
    assert in_another_thread(lambda: two.acquire(False)) is True


def among_many_others(lock: Any) -> bool:
    """Whether this lock is none of many new ones."""
    address = lock._address()
    others = [semlock.Lock() for _ in range(1000)]
    return not any(other.locked() or other._address() == address for other in others)


def test_what_all_locks_are_can_be_sent_as_itself() -> None:
    lock = semlock._native.SemLock(1, 1, 1)
    again = through_a_pickle(lock)
    assert type(again) is type(lock)
    assert lock.acquire()
    assert again.locked()


def test_a_lock_lives_as_long_as_any_of_its_copies() -> None:
    def body() -> None:
        locks = [semlock.Lock()]
        again = through_a_pickle(locks[0])
        locks[0].acquire()
        locks.clear()
        gc.collect()
        assert among_many_others(again)
        assert again.locked()

    in_a_child(body)


def test_the_slot_of_a_pickled_lock_is_not_used_again_before_it_is_unpickled() -> None:
    def body() -> None:
        locks = [semlock.Lock(), semlock.Lock()]  # the second keeps the segment
        locks[0].acquire()
        pickled = pickle.dumps(locks[0])
        del locks[0]
        gc.collect()
        others = [semlock.Lock() for _ in range(1000)]
        again = pickle.loads(pickled)
        assert again.locked()
        assert not any(it.locked() or it._address() == again._address() for it in others)

    in_a_child(body)


def test_a_slot_that_was_never_shared_is_used_again() -> None:
    addresses = set()
    for _ in range(1000):
        lock = semlock.Lock()
        addresses.add(lock._address())
        lock.acquire()
        del lock
    assert len(addresses) < 1000
    assert not semlock.Lock().locked()


@pytest.mark.parametrize("name", LOCKS)
def test_what_to_do_about_dead_owners_goes_with_a_pickle(name: str) -> None:
    lock = through_a_pickle(make(semlock, name, on_owner_died="ignore"))
    with holder(lock) as child:
        child.kill()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert lock.acquire()
        assert lock.recovered == child.pid


def test_an_event_and_a_barrier_are_pickled_with_all_they_have() -> None:
    event = semlock.Event()
    again = through_a_pickle(event)
    event.set()
    assert again.is_set()
    barrier = semlock.Barrier(2, len, 5)
    again = through_a_pickle(barrier)
    assert (again.parties, again._action, again._timeout) == (2, len, 5)
    barrier.abort()
    assert again.broken


@both_locks
def test_a_condition_is_pickled_with_its_lock(kind: str) -> None:
    lock = getattr(semlock, kind)()
    condition = semlock.Condition(lock)
    again = through_a_pickle(condition)
    assert again._lock._address() == lock._address()
    with again:
        assert lock._semlock._is_mine()
        condition.notify()
    both = through_a_pickle((lock, condition))
    assert both[1]._lock is both[0]


@classes
def test_a_subclass_is_pickled_as_itself(name: str) -> None:
    kind = SUBCLASSES[name]
    special = kind(2) if name == "Barrier" else kind()
    special.colour = "blue"
    again = through_a_pickle(special)
    assert type(again) is kind
    assert again.colour == "blue"
    assert again._address() == special._address()


@classes
def test_a_subclass_may_say_itself_what_is_pickled(name: str) -> None:
    instance = make(Talking, name)
    instance.label = "x"
    other = through_a_pickle(instance)
    assert vars(other) == {"label": "x", "heard": ["said"]}


def _says(self: Any) -> Any:
    return "said", super(type(self), self).__getstate__()


def _hears(self: Any, state: Any) -> None:
    *self.heard, added = state
    super(type(self), self).__setstate__(added)


def _subclasses(prefix: str, **methods: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in CLASSES:
        made[name] = type(f"{prefix}{name}", (getattr(semlock, name),), dict(methods))
        made[name].__module__ = __name__
        globals()[f"{prefix}{name}"] = made[name]
    return made


SUBCLASSES = _subclasses("Special")
Special = types.SimpleNamespace(**SUBCLASSES)
Talking = types.SimpleNamespace(**_subclasses("Talking", __getstate__=_says, __setstate__=_hears))


# ---- Private, but agreed between the package and the extension ----


@classes
def test_an_object_knows_its_address_its_descriptor_and_its_maker(name: str) -> None:
    thing = make(semlock, name)
    segment, slot, tag = thing._address()
    assert isinstance(segment, bytes)
    assert len(segment) == 16
    assert isinstance(slot, int)
    assert isinstance(tag, int)
    descriptor = thing._descriptor()
    assert os.fstat(descriptor).st_size > 0
    assert not os.get_inheritable(descriptor)
    assert thing._maker() == (os.getpid(), descriptor)
    assert in_a_child(thing._maker) == (os.getpid(), descriptor)
    status = os.fstat(descriptor)
    told = status.st_dev, status.st_ino, status.st_mode, status.st_nlink, status.st_size
    assert thing._file()[:-1] == told
    assert thing._file() == semlock._native._file_id(descriptor)
    assert thing._mark_shared() is None


def test_objects_of_one_segment_have_different_slots() -> None:
    things = [make(semlock, name) for name in CLASSES * 20]
    addresses = [thing._address()[:2] for thing in things]
    assert len(set(addresses)) == len(addresses)


def test_many_locks_cost_few_descriptors() -> None:
    def body() -> None:
        before = len(os.listdir("/proc/self/fd"))
        locks = [semlock.Lock() for _ in range(20_000)]
        assert len(os.listdir("/proc/self/fd")) - before <= 16
        assert len({lock._address() for lock in locks}) == 20_000
        with locks[0], locks[-1], locks[10_000]:
            assert [lock.locked() for lock in locks].count(True) == 3
        locks.clear()
        gc.collect()
        # Of all the segments, one may be kept for later locks.
        assert len(os.listdir("/proc/self/fd")) - before <= 1

    in_a_child(body)


def test_robust_is_what_the_class_is_by_default_where_it_is_none() -> None:
    for name in LOCKS:
        lock = getattr(semlock, name)(robust=None)
        with holder(lock) as child:
            pid = die(child)
        assert take(lock) == recovered_from(pid)
        lock.release()
    semaphore = semlock.Semaphore(robust=None)
    # Only a process that has a permit of a robust semaphore can release it.
    semaphore.release()
    assert semaphore.get_value() == 2


def test_a_package_that_was_not_installed_has_no_version(tmp_path: Path) -> None:
    package = tmp_path / "semlock"
    shutil.copytree(Path(semlock.__file__).parent, package)
    script = "import semlock; print(semlock.__path__, getattr(semlock, '__version__', 'none'))"
    path = {"PYTHONPATH": str(tmp_path)}
    alone = output("-S", "-c", script, env=path)
    assert alone == f"[{str(package)!r}] none\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", semlock.__version__)

"""Condition, Event and Barrier: nobody waits for a sleeper, and a dead process takes nothing along.

Where multiprocessing's own classes can do the same, the tests run on them as well.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import semlock
from children import (
    PATIENCE,
    Child,
    Line,
    forked,
    in_a_child,
    in_a_fresh_interpreter,
    output,
    wait_until,
    wait_until_asleep,
)
from families import (
    SEVERAL_LOOKS,
    both,
    both_locks,
    die,
    holder,
    let_go,
    recovered_from,
    shared_by_forks,
    take,
)
from words import LAYOUT

pytestmark = pytest.mark.usefixtures("a_segment")

Body = Callable[[Line], Any]

# ---- Conditions ----


def waiting(condition: Any, *timeout: float) -> Body:
    """The body of a child that waits once, says the outcome and ends when it is told to."""

    def body(line: Line) -> None:
        with condition:
            line.say("waiting")  # it waits when another process gets the lock
            result = condition.wait(*timeout)
        line.say(result)
        line.hear()

    return body


@contextmanager
def waiters(condition: Any, count: int, *timeout: float) -> Iterator[list[Child]]:
    """Children that wait, the oldest first."""
    with ExitStack() as stack:
        children = []
        for _ in range(count):
            children.append(stack.enter_context(forked(waiting(condition, *timeout))))
            assert children[-1].hear() == "waiting"
            with condition:
                pass
        yield children


def number_of_waiters(condition: Any) -> int:
    with condition:
        return (
            condition._sleeping_count.get_value()
            - condition._woken_count.get_value()
            - condition._wait_semaphore.get_value()
        )


def notify(condition: Any, count: int | None = 1) -> None:
    with condition:
        if count is None:
            condition.notify_all()
        else:
            condition.notify(count)


def nobody_woke(children: list[Child]) -> bool:
    """Whether all of them still sleep, in waits without a deadline."""
    for child in children:
        wait_until_asleep(child)
    return not any(child.says_something() for child in children)


@both
@both_locks
def test_notify_wakes_exactly_as_many_as_it_says(family: Any, kind: str) -> None:
    condition = family.Condition(getattr(family, kind)())
    with waiters(condition, 5) as children:
        left = set(children)
        for count in (2, 0, 1):
            notify(condition, count)
            for _ in range(count):
                wait_until(lambda: any(child.says_something() for child in left), "one wakes")
                woken = next(child for child in left if child.says_something())
                assert woken.hear() is True
                left.remove(woken)
            assert nobody_woke(list(left))
            assert number_of_waiters(condition) == len(left)
        notify(condition, 100)
        assert [child.hear() for child in left] == [True, True]
        assert number_of_waiters(condition) == 0


@both_locks
def test_notify_wakes_the_oldest_first(kind: str) -> None:
    condition = semlock.Condition(getattr(semlock, kind)())
    with waiters(condition, 6) as children:
        for count in (1, 2, 1):
            woken, children = children[:count], children[count:]
            notify(condition, count)
            assert [child.hear() for child in woken] == [True] * count
            assert nobody_woke(children)
        notify(condition, None)
        assert [child.hear() for child in children] == [True] * 2


@both
def test_notify_all_wakes_all_and_none_that_comes_later(family: Any) -> None:
    condition = family.Condition()
    with waiters(condition, 3) as children:
        notify(condition, None)
        assert [child.hear() for child in children] == [True] * 3
        with waiters(condition, 2) as late:
            assert nobody_woke(late)
            notify(condition, None)
            assert [child.hear() for child in late] == [True] * 2


@both
def test_a_notification_without_waiters_is_lost(family: Any) -> None:
    condition = family.Condition()
    notify(condition, 3)
    notify(condition, None)
    with condition:
        start = time.monotonic()
        assert condition.wait(0.05) is False
        assert time.monotonic() - start >= 0.05


@both
def test_a_wait_that_timed_out_leaves_nothing_behind(family: Any) -> None:
    condition = family.Condition()
    for _ in range(20):
        with condition:
            assert condition.wait(0.001) is False
    with waiters(condition, 1) as children:
        assert number_of_waiters(condition) == 1
        notify(condition)
        assert children[0].hear() is True


@both
def test_a_wait_gives_back_the_whole_depth_of_its_rlock(family: Any) -> None:
    condition = family.Condition()

    def body(line: Line) -> None:
        with condition, condition, condition:
            line.say("waiting")
            assert condition.wait() is True
            assert condition._lock._semlock._count() == 3
            assert condition.wait(0.001) is False
            assert condition._lock._semlock._count() == 3
        assert not condition._lock._semlock._is_mine()

    with forked(body) as child:
        assert child.hear() == "waiting"
        notify(condition)
        child.result()


@both_locks
@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_a_waiter_that_died_is_not_notified(kind: str, reaped: bool) -> None:
    condition = semlock.Condition(getattr(semlock, kind)())
    with waiters(condition, 4) as children:
        for child in children[:3]:
            child.kill()
            if reaped:
                child.reap()
        notify(condition)
        assert children[3].hear() is True
        notify(condition)
        with waiters(condition, 1) as later:
            assert nobody_woke(later)


@both_locks
@pytest.mark.parametrize("stopped", [False, True], ids=["awake", "stopped"])
def test_a_waiter_that_dies_after_it_was_notified_passes_it_on(kind: str, stopped: bool) -> None:
    # It has not taken the lock again: it is stopped, or the lock is held.
    condition = semlock.Condition(getattr(semlock, kind)())
    with waiters(condition, 3) as children:
        oldest, second, third = children
        with condition:
            if stopped:
                oldest.stop()
            condition.notify()
            if not stopped:
                oldest.kill()
        if stopped:
            oldest.kill()
        # Nobody calls the condition again.
        assert second.hear() is True
        assert nobody_woke([third])
        notify(condition)
        assert third.hear() is True


def test_notified_waiters_that_die_one_after_the_other_lose_nothing() -> None:
    condition = semlock.Condition()
    with waiters(condition, 6) as children:
        for child in children[:5]:
            child.stop()
        notify(condition)
        for child in children[:5]:
            child.kill()
        assert children[5].hear() is True


def test_two_notifications_of_the_dead_go_to_two_of_the_living() -> None:
    condition = semlock.Condition()
    with waiters(condition, 5) as children:
        for child in children[:2]:
            child.stop()
        notify(condition, 2)
        for child in children[:2]:
            child.kill()
        assert [child.hear() for child in children[2:4]] == [True, True]
        assert nobody_woke(children[4:])
        notify(condition)
        assert children[4].hear() is True


def test_a_waiter_that_dies_holding_the_lock_it_took_again_is_recovered_from() -> None:
    condition = semlock.Condition()

    def body(line: Line) -> None:
        with condition:
            line.say("waiting")
            condition.wait()
            line.say("held")
            line.hear()

    with forked(body) as child:
        assert child.hear() == "waiting"
        notify(condition)
        assert child.hear() == "held"
        child.kill()
        assert take(condition._lock) == recovered_from(child.pid)


def test_a_waiter_that_finds_the_holder_dead_when_it_wakes_is_told_and_not_lost() -> None:
    condition = semlock.Condition()

    def body(line: Line) -> None:
        with condition, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            line.say("waiting")
            result = condition.wait()
            line.say((result, len(caught), condition._lock.recovered))
        assert condition._lock.recovered is None

    def notifies_and_dies(line: Line) -> None:
        condition.acquire()
        condition.notify()
        line.say("notified")
        line.hear()

    with forked(body) as child:
        assert child.hear() == "waiting"
        with condition:
            pass
        with forked(notifies_and_dies) as notifier:
            assert notifier.hear() == "notified"
            pid = die(notifier)
        assert child.hear() == (True, 1, pid)
        child.result()


def test_notify_waits_for_no_sleeper() -> None:
    condition = semlock.Condition()
    with waiters(condition, 2) as children:
        for child in children:
            child.stop()
        notify(condition)
        notify(condition)
        notify(condition, None)
        for child in children:
            assert not child.says_something()
            child.resume()
        assert [child.hear() for child in children] == [True, True]


def test_a_timeout_that_crosses_a_notify_returns_true_and_loses_nothing() -> None:
    condition = semlock.Condition()
    with waiters(condition, 1, 0.1) as early, waiters(condition, 1) as late:
        deadline = time.monotonic() + 0.1
        early[0].stop()
        if early[0].says_something():
            pytest.skip("this machine is too busy to stop a child within 0.1 s")
        wait_until(lambda: time.monotonic() > deadline, "the deadline has passed")
        notify(condition)
        early[0].resume()
        assert early[0].hear() is True
        assert nobody_woke(late)
        assert number_of_waiters(condition) == 1
        notify(condition)
        assert late[0].hear() is True


def test_timeouts_and_notifications_at_the_same_time_lose_nothing() -> None:
    # A waiter that is notified between releasing the lock and acquiring it again has been notified;
    # a timeout in between does not matter.
    condition = semlock.Condition()
    state = shared_by_forks(ctypes.c_int64)

    def body(line: Line) -> int:
        woken = 0
        generator = random.Random(7)
        for _ in range(300):
            with condition:
                state.value = 1
                woken += condition.wait(generator.uniform(0, 0.002))
                state.value = 0
        line.say("done")
        return woken

    with forked(body) as child:
        notified = 0
        while not child.says_something():
            with condition:
                if state.value == 1:
                    state.value = 2
                    condition.notify()
                    notified += 1
        assert child.hear() == "done"
        assert child.result() == notified


def test_an_exception_that_crosses_a_notify_passes_it_on() -> None:
    condition = semlock.Condition()

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            raise LookupError

        signal.signal(signal.SIGUSR1, handler)
        with condition:
            line.say("waiting")
            try:
                result = condition.wait()
            except LookupError:
                result = "raised"
            assert condition._lock._semlock._count() == 1
        line.say(result)
        line.hear()

    with forked(body) as oldest:
        assert oldest.hear() == "waiting"
        with condition:
            pass
        with waiters(condition, 1) as (second,):
            oldest.stop()
            notify(condition)
            os.kill(oldest.pid, signal.SIGUSR1)
            oldest.resume()
            if oldest.hear() == "raised":
                assert second.hear() is True
            else:
                assert nobody_woke([second])


@pytest.mark.usefixtures("switches_threads_only_where_they_wait")
def test_a_signal_that_comes_as_the_wait_is_notified_passes_it_on() -> None:
    if hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled():
        pytest.skip("it takes the GIL to have both come at once")
    condition = semlock.Condition()

    def handler(*_: Any) -> None:
        raise LookupError

    def wait_when_told(line: Line) -> None:
        line.hear()
        waiting(condition)(line)

    def notify_and_interrupt() -> None:
        with condition:
            pass  # the main thread waits
        younger.say()
        assert younger.hear() == "waiting"
        notify(condition)
        # The notification woke it. It waits for the GIL, which this thread still has.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    with forked(wait_when_told) as younger:
        before = signal.signal(signal.SIGUSR1, handler)
        thread = threading.Thread(target=notify_and_interrupt)
        try:
            with condition:
                thread.start()
                with pytest.raises(LookupError):
                    condition.wait()
        finally:
            signal.signal(signal.SIGUSR1, before)
        thread.join()
        assert younger.hear() is True
        younger.say()


@both
def test_an_exception_ends_a_wait_with_the_lock_held_again(family: Any) -> None:
    condition = family.Condition()

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            raise LookupError

        signal.signal(signal.SIGUSR1, handler)
        with condition, condition:
            line.say("waiting")
            with pytest.raises(LookupError):
                condition.wait()
            assert condition._lock._semlock._count() == 2

    with forked(body) as child:
        assert child.hear() == "waiting"
        with condition:
            pass
        wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR1)
        child.result()
    assert number_of_waiters(condition) == 0


def test_a_fork_in_a_handler_that_interrupted_a_wait_leaves_the_wait_to_its_parent() -> None:
    condition = semlock.Condition()

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            pid = os.fork()
            if not pid:
                # It leaves a wait that is not its own.
                raise SystemExit
            os.waitpid(pid, 0)
            line.say("forked")

        signal.signal(signal.SIGUSR1, handler)
        try:
            with condition:
                line.say("waiting")
                line.say(condition.wait(PATIENCE / 2))
        except SystemExit:
            os._exit(0)

    with forked(body) as child:
        assert child.hear() == "waiting"
        with condition:
            pass
        wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR1)
        assert child.hear() == "forked"
        assert number_of_waiters(condition) == 1
        notify(condition)
        assert child.hear() is True
        child.result()


def test_a_fork_while_another_thread_waits_on_a_condition_notifies_that_thread() -> None:
    condition = semlock.Condition()

    def body() -> None:
        def wait() -> None:
            with condition:
                ready.set()
                results.append(condition.wait())

        ready, results = threading.Event(), []
        thread = threading.Thread(target=wait)
        thread.start()
        ready.wait()
        with condition:
            pass

        def of_the_fork() -> None:
            assert condition.acquire()
            condition.notify()
            condition.release()
            with condition:
                assert condition.wait(0.001) is False

        in_a_child(of_the_fork)
        thread.join()
        assert results == [True]

    in_a_child(body)


def more_waiters_than_nodes(least: int, most: int) -> None:
    condition = semlock.Condition()
    lock = threading.Lock()
    refused, woken = [], []

    def wait() -> None:
        with condition:
            try:
                result = condition.wait()
            except RuntimeError as error:
                assert condition._lock._semlock._count() == 1
                with lock:
                    refused.append(str(error))
            else:
                with lock:
                    woken.append(result)

    threading.stack_size(128 * 1024)
    threads: list[threading.Thread] = []
    while not refused and len(threads) < most:
        for _ in range(256):
            threads.append(threading.Thread(target=wait))
            threads[-1].start()

        def settled() -> bool:
            with condition:
                count = condition._sleeping_count.get_value()
            return count + len(refused) == len(threads)

        wait_until(settled, "all wait or were refused")
    assert least <= len(threads) - len(refused)
    assert refused
    assert all("wait" in message for message in refused), set(refused)
    waiting = len(threads) - len(refused)
    with condition:
        condition.notify(10)
    wait_until(lambda: len(woken) == 10, "ten have woken")
    # Where there was no room, there is room again.
    with condition:
        assert condition.wait(0.001) is False
        condition.notify_all()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert woken == [True] * waiting


def test_more_waiters_than_there_are_nodes_is_a_clear_error_and_nothing_is_lost() -> None:
    in_a_fresh_interpreter(more_waiters_than_nodes, LAYOUT["NODES"], 20_000)


def test_the_nodes_of_dead_waiters_are_used_again() -> None:
    condition = semlock.Condition()

    def body(line: Line) -> None:
        threading.stack_size(128 * 1024)

        def wait() -> None:
            with condition:
                condition.wait()

        for _ in range(600):
            threading.Thread(target=wait, daemon=True).start()

        def all_wait() -> bool:
            with condition:
                return condition._sleeping_count.get_value() >= 600

        wait_until(all_wait, "all wait")
        line.say("waiting")
        line.hear()

    for _ in range(8):
        with forked(body) as child:
            assert child.hear() == "waiting"
            die(child)
    with waiters(condition, 2) as children:
        notify(condition)
        assert children[0].hear() is True
        notify(condition)
        assert children[1].hear() is True


def many_that_wait(count: int, wait: Callable[[], object], say: Callable[[], int]) -> Body:
    """A child with as many threads that wait."""

    def body(line: Line) -> None:
        threading.stack_size(128 * 1024)
        for _ in range(count):
            threading.Thread(target=wait, daemon=True).start()
        wait_until(lambda: say() >= count, "all wait")
        line.say("waiting")
        line.hear()

    return body


def test_the_nodes_of_notified_waiters_that_all_died_are_used_again() -> None:
    for _ in range(8):
        condition = semlock.Condition()

        def wait(condition: Any = condition) -> None:
            with condition:
                condition.wait()

        def waiting(condition: Any = condition) -> int:
            with condition:
                return int(condition._sleeping_count.get_value())

        with forked(many_that_wait(600, wait, waiting)) as child:
            assert child.hear() == "waiting"
            with condition:
                condition.notify_all()
                die(child)
    another = semlock.Condition()
    with another:
        assert another.wait(0.001) is False


def test_the_nodes_of_members_that_all_died_are_used_again() -> None:
    barriers = [semlock.Barrier(1000) for _ in range(8)]
    for barrier in barriers:
        body = many_that_wait(600, barrier.wait, lambda barrier=barrier: barrier.n_waiting)  # type: ignore[misc]
        with forked(body) as child:
            assert child.hear() == "waiting"
            die(child)
    condition = semlock.Condition()
    with condition:
        assert condition.wait(0.001) is False
    # For a member that comes later, the barrier is broken.
    with pytest.raises(threading.BrokenBarrierError):
        barriers[0].wait(PATIENCE)


# ---- Events ----


def awaits(event: Any, *timeout: float) -> Body:
    def body(line: Line) -> None:
        line.say("waiting")
        line.say(event.wait(*timeout))
        line.hear()

    return body


@contextmanager
def awaiting(event: Any, count: int, *timeout: float) -> Iterator[list[Child]]:
    """Children that wait for the event."""
    with ExitStack() as stack:
        children = [stack.enter_context(forked(awaits(event, *timeout))) for _ in range(count)]
        for child in children:
            assert child.hear() == "waiting"
            wait_until_asleep(child)
        yield children


@both
def test_set_wakes_all_waiters_and_lets_later_ones_through(family: Any) -> None:
    event = family.Event()
    assert event.wait(0.001) is False
    with awaiting(event, 3) as children:
        event.set()
        assert [child.hear() for child in children] == [True] * 3
    assert event.wait() is True
    event.set()
    assert event.is_set()
    event.clear()
    assert not event.is_set()
    assert event.wait(0) is False


def test_set_and_then_clear_wakes_all_earlier_waiters() -> None:
    event = semlock.Event()
    for _ in range(20):
        with awaiting(event, 2) as children:
            event.set()
            event.clear()
            assert [child.hear() for child in children] == [True] * 2
    assert not event.is_set()


def test_set_and_then_clear_wakes_even_a_stopped_waiter() -> None:
    event = semlock.Event()
    with awaiting(event, 2) as children:
        for child in children:
            child.stop()
        for _ in range(3):
            event.set()
            event.clear()
        for child in children:
            assert not child.says_something()
            child.resume()
        assert [child.hear() for child in children] == [True] * 2


def test_a_timeout_that_crosses_set_and_clear_returns_true() -> None:
    event = semlock.Event()
    with forked(awaits(event, 0.2)) as child:
        assert child.hear() == "waiting"
        wait_until_asleep(child)
        deadline = time.monotonic() + 0.2
        child.stop()
        if child.says_something():
            pytest.skip("this machine is too busy to stop a child within 0.2 s")
        event.set()
        event.clear()
        wait_until(lambda: time.monotonic() > deadline, "the deadline has passed")
        child.resume()
        assert child.hear() is True


def test_killed_waiters_do_not_hinder_an_event() -> None:
    event = semlock.Event()
    with awaiting(event, 4) as children:
        for child in children[:2]:
            child.kill()
        die(children[2])
        event.set()
        assert children[3].hear() is True
    event.clear()
    with awaiting(event, 1) as children:
        event.set()
        assert children[0].hear() is True


def test_stopped_waiters_do_not_hinder_an_event() -> None:
    event = semlock.Event()
    with awaiting(event, 2) as children:
        children[0].stop()
        event.set()
        assert children[1].hear() is True
        assert event.is_set()
        event.clear()
        children[0].resume()
        assert children[0].hear() is True


@both
def test_an_event_that_comes_and_goes_loses_no_round(family: Any) -> None:
    there, back = family.Event(), family.Event()

    def body(_: Line) -> None:
        for _ in range(200):
            assert there.wait()
            there.clear()
            back.set()

    with forked(body) as child:
        for _ in range(200):
            there.set()
            assert back.wait(PATIENCE)
            back.clear()
        child.result()


# ---- Signal handlers that use what they interrupted ----

TICK = 0.0005


@contextmanager
def many_signals(handler: Callable[[], Any]) -> Iterator[list[int]]:
    """Calls the handler often, wherever the main thread is. Counts the calls."""
    calls = [0]
    handling = False

    def handle(*_: Any) -> None:
        nonlocal handling
        if handling:  # it is not to interrupt itself, on and on where it is slow
            return
        handling = True
        try:
            calls[0] += 1
            handler()
        finally:
            handling = False

    signal.signal(signal.SIGALRM, handle)
    # Often, because a signal that comes right before a system call does not end it.
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield calls
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


SIGNALS = 500


@pytest.mark.parametrize("what", ["set", "clear", "is_set", "wait(0)", "all"])
def test_an_event_may_be_set_in_a_signal_handler_that_interrupted_it(what: str) -> None:
    # cpython#126434: stock's set() waits for itself.
    event = semlock.Event()
    calls: dict[str, Callable[[], Any]] = {
        "set": event.set,
        "clear": event.clear,
        "is_set": event.is_set,
        "wait(0)": lambda: event.wait(0),
        "all": lambda: (event.set(), event.clear(), event.is_set(), event.wait(0)),
    }

    def body() -> None:
        with many_signals(event.set) as count:
            while count[0] < SIGNALS:
                calls[what]()
        event.clear()
        assert not event.is_set()
        event.set()
        assert event.wait()

    in_a_child(body)


def test_an_event_may_be_set_in_a_signal_handler_that_interrupted_a_wait() -> None:
    event = semlock.Event()

    def body() -> None:
        with many_signals(event.set) as count:
            while count[0] < SIGNALS:
                assert event.wait() is True
                event.clear()

    in_a_child(body)


def test_an_event_that_is_set_and_cleared_in_a_handler_ends_the_wait_it_interrupted() -> None:
    event = semlock.Event()

    def body() -> None:
        with many_signals(lambda: (event.set(), event.clear())) as count:
            while count[0] < SIGNALS:
                assert event.wait(PATIENCE) is True

    in_a_child(body)


@both
def test_a_handler_may_release_the_lock_that_it_interrupted_the_wait_for(family: Any) -> None:
    lock = family.Lock()

    def body() -> None:
        lock.acquire()

        def release() -> None:
            if lock.locked() if family is semlock else lock._semlock._is_zero():
                lock.release()

        with many_signals(release) as count:
            while count[0] < SIGNALS:
                assert lock.acquire() is True

    in_a_child(body)


@both
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_a_handler_may_try_the_lock_that_it_interrupted(family: Any, kind: str) -> None:
    lock = getattr(family, kind)()

    def body() -> None:
        def try_it() -> None:
            if lock.acquire(False):
                assert lock._semlock._is_mine()
                lock.release()

        with many_signals(try_it) as count:
            while count[0] < SIGNALS:
                with lock:
                    assert lock._semlock._is_mine()
                assert lock.acquire(False)
                lock.release()
                assert lock.acquire(True, 60)
                lock.release()
        assert (lock._semlock._count(), lock._semlock._get_value()) == (0, 1)

    in_a_child(body)


@both
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_handler_may_try_the_lock_whose_wait_it_interrupted(family: Any, kind: str) -> None:
    lock = getattr(family, kind)()

    def body(line: Line) -> None:
        def try_it() -> None:
            assert not lock.acquire(False)
            assert not lock.acquire(True, TICK / 10)

        with many_signals(try_it) as count:
            while count[0] < SIGNALS:
                assert not lock.acquire(True, 0.002)
        line.say("tried")
        assert lock.acquire(True, PATIENCE)
        lock.release()

    with holder(lock) as other, forked(body) as child:
        assert child.hear() == "tried"
        let_go(other)
        child.result()


def test_a_handler_may_use_robust_permits_that_it_interrupted() -> None:
    semaphore = semlock.Semaphore(3, robust=True)

    def body() -> None:
        def try_it() -> None:
            if semaphore.acquire(False):
                semaphore.release()

        with many_signals(try_it) as count:
            while count[0] < SIGNALS:
                with semaphore, semaphore:
                    pass
        assert semaphore.get_value() == 3

    in_a_child(body)


def test_a_handler_may_notify_the_condition_whose_wait_it_interrupted() -> None:
    condition = semlock.Condition()

    def body() -> None:
        def handle() -> None:
            if condition.acquire(False):
                condition.notify()
                condition.release()

        with many_signals(handle) as count:
            while count[0] < SIGNALS:
                with condition:
                    assert condition.wait(PATIENCE) is True
        assert number_of_waiters(condition) == 0

    in_a_child(body)


# ---- Barriers ----


def meets(barrier: Any, *timeout: float) -> Body:
    """Waits at a barrier; says its index, or that the barrier is broken."""

    def body(line: Line) -> None:
        line.say("waiting")
        try:
            result = barrier.wait(*timeout)
        except threading.BrokenBarrierError:
            result = "broken"
        line.say(result)
        line.hear()

    return body


@contextmanager
def members(barrier: Any, count: int, *timeout: float) -> Iterator[list[Child]]:
    """Children that wait at the barrier, which must miss one more member at least."""
    with ExitStack() as stack:
        children = []
        for _ in range(count):
            children.append(stack.enter_context(forked(meets(barrier, *timeout))))
            assert children[-1].hear() == "waiting"
            expected = len(children)
            wait_until(lambda: barrier.n_waiting == expected, "it waits")  # noqa: B023
        yield children


@both
def test_a_barrier_lets_all_through_at_once_each_with_another_index(family: Any) -> None:
    barrier = family.Barrier(3)
    for _ in range(3):
        with members(barrier, 2) as children:
            indices = [barrier.wait()]
            indices += [child.hear() for child in children]
            assert sorted(indices) == [0, 1, 2]
        assert (barrier.n_waiting, barrier.broken) == (0, False)


@both
def test_one_member_runs_the_action_before_any_goes_on(family: Any) -> None:
    actions = shared_by_forks(ctypes.c_int64)

    def action() -> None:
        actions.value += 1

    barrier = family.Barrier(3, action)

    def body(_: Line) -> int:
        barrier.wait()
        return actions.value

    with ExitStack() as stack:
        children = [stack.enter_context(forked(body)) for _ in range(3)]
        assert [child.result() for child in children] == [1, 1, 1]


@both
def test_an_action_that_raises_breaks_the_barrier_for_the_others(family: Any) -> None:
    barrier = family.Barrier(3, lambda: 1 / 0)
    with members(barrier, 2) as children:
        with pytest.raises(ZeroDivisionError):
            barrier.wait()
        assert [child.hear() for child in children] == ["broken"] * 2
    assert barrier.broken


@both
def test_a_member_that_waits_too_long_breaks_the_barrier(family: Any) -> None:
    barrier = family.Barrier(3)
    with members(barrier, 1) as children:
        start = time.monotonic()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.05)
        assert time.monotonic() - start >= 0.05
        assert children[0].hear() == "broken"
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()


@both
def test_a_barrier_has_a_timeout_of_its_own(family: Any) -> None:
    barrier = family.Barrier(2, timeout=0.05)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    with members(barrier, 1, PATIENCE) as children:
        assert {barrier.wait(PATIENCE), children[0].hear()} == {0, 1}


@both
def test_abort_breaks_a_barrier_until_it_is_reset(family: Any) -> None:
    barrier = family.Barrier(3)
    with members(barrier, 2) as children:
        barrier.abort()
        assert [child.hear() for child in children] == ["broken"] * 2
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0)
    wait_until(lambda: barrier.n_waiting == 0, "all have left")
    barrier.reset()
    assert not barrier.broken
    with members(barrier, 2) as children:
        assert sorted([barrier.wait(), *(child.hear() for child in children)]) == [0, 1, 2]


@both
def test_reset_breaks_the_waits_of_members_and_keeps_the_barrier_whole(family: Any) -> None:
    barrier = family.Barrier(3)
    with members(barrier, 2) as children:
        barrier.reset()
        assert [child.hear() for child in children] == ["broken"] * 2
    wait_until(lambda: barrier.n_waiting == 0, "all have left")
    assert not barrier.broken
    with members(barrier, 2) as children:
        assert sorted([barrier.wait(), *(child.hear() for child in children)]) == [0, 1, 2]


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_a_member_that_dies_while_it_waits_breaks_the_barrier(reaped: bool) -> None:
    barrier = semlock.Barrier(4)
    with members(barrier, 3) as children:
        children[0].kill()
        if reaped:
            children[0].reap()
        # The fourth never comes.
        assert [child.hear() for child in children[1:]] == ["broken"] * 2
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    with members(barrier, 3) as children:
        indices = [barrier.wait(), *(child.hear() for child in children)]
        assert sorted(indices) == [0, 1, 2, 3]


def test_a_member_that_died_breaks_the_barrier_for_later_members() -> None:
    barrier = semlock.Barrier(3)
    with members(barrier, 1) as (first,):
        die(first)
        for _ in range(2):
            with forked(meets(barrier)) as child:
                assert child.hear() == "waiting"
                assert child.hear() == "broken"


def test_a_member_that_dies_in_the_action_breaks_the_barrier() -> None:
    reading, writing = os.pipe()

    def action() -> None:
        os.write(writing, b".")
        signal.pause()

    barrier = semlock.Barrier(3, action)
    try:
        with members(barrier, 2) as children, forked(meets(barrier)) as last:
            assert last.hear() == "waiting"
            os.read(reading, 1)
            assert nobody_woke(children)
            last.kill()
            assert [child.hear() for child in children] == ["broken"] * 2
        assert barrier.broken
    finally:
        os.close(reading)
        os.close(writing)


def test_a_member_that_is_stopped_breaks_nothing() -> None:
    barrier = semlock.Barrier(3)
    with members(barrier, 2) as (stopped, other):
        stopped.stop()
        assert not stopped.says_something()
        assert other.connection.poll(SEVERAL_LOOKS) is False
        assert not barrier.broken
        indices = {barrier.wait(PATIENCE), other.hear()}
        # A member that was let through need not be there for the next round.
        stopped.resume()
        assert indices | {stopped.hear()} == {0, 1, 2}


def test_a_member_that_dies_after_it_was_let_through_breaks_nothing() -> None:
    barrier = semlock.Barrier(3)
    with members(barrier, 2) as (stopped, other):
        stopped.stop()
        indices = {barrier.wait(PATIENCE), other.hear()}
        assert len(indices) == 2
        stopped.kill()
        assert not barrier.broken
        with members(barrier, 2) as children:
            assert sorted([barrier.wait(), *(child.hear() for child in children)]) == [0, 1, 2]


@both
def test_an_exception_in_a_wait_leaves_the_barrier_to_the_others(family: Any) -> None:
    barrier = family.Barrier(3)

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            raise LookupError

        signal.signal(signal.SIGUSR1, handler)
        line.say("waiting")
        with pytest.raises(LookupError):
            barrier.wait()

    with members(barrier, 1) as (other,), forked(body) as child:
        assert child.hear() == "waiting"
        wait_until(lambda: barrier.n_waiting == 2, "it waits")
        wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR1)
        child.result()
        assert (barrier.n_waiting, barrier.broken) == (1, False)
        with forked(meets(barrier)) as another:
            assert another.hear() == "waiting"
            assert sorted([barrier.wait(), other.hear(), another.hear()]) == [0, 1, 2]


@both
@pytest.mark.parametrize("parties", [1, 2, 5])
def test_rounds_at_a_barrier_never_mix(family: Any, parties: int) -> None:
    barrier = family.Barrier(parties)
    rounds = 50
    places = shared_by_forks(ctypes.c_int64 * parties)

    def body(place: int) -> Body:
        def meet(_: Line) -> None:
            for turn in range(1, rounds + 1):
                places[place] = turn
                barrier.wait(PATIENCE)
                assert all(turn <= other <= turn + 1 for other in places)

        return meet

    with ExitStack() as stack:
        children = [stack.enter_context(forked(body(place))) for place in range(parties)]
        for child in children:
            child.result()
    assert list(places) == [rounds] * parties


# ---- The interpreter's exit ----

BLOCKED = {
    "Lock": "lock.acquire()",
    "Lock, timed": "lock.acquire(True, 60)",
    "Lock, with": "lock.__enter__()",
    "Lock, short": "lock.acquire(True, 0.0005)",
    "RLock": "rlock.acquire()",
    "Semaphore": "semaphore.acquire()",
    "robust Semaphore": "robust.acquire()",
    "Condition": "wait_on(condition)",
    "Condition, timed": "wait_on(condition, 60)",
    "Condition, short": "wait_on(condition, 0.0005)",
    "Event": "event.wait()",
    "Event, timed": "event.wait(60)",
    "Event, short": "event.wait(0.0005)",
    "Barrier": "barrier.wait()",
    "Barrier, timed": "barrier.wait(60)",
}


@pytest.mark.parametrize("wait", BLOCKED.values(), ids=BLOCKED)
def test_an_interpreter_ends_although_daemon_threads_wait(wait: str) -> None:
    script = f"""if True:
        import os, threading, time
        import semlock

        lock, rlock = semlock.Lock(), semlock.RLock()
        semaphore, robust = semlock.Semaphore(0), semlock.Semaphore(1, robust=True)
        condition, event, barrier = semlock.Condition(), semlock.Event(), semlock.Barrier(100)
        lock.acquire(), rlock.acquire(), robust.acquire()

        def wait_on(condition, *timeout):
            with condition:
                condition.wait(*timeout)

        started = threading.Barrier(9)

        def wait():
            started.wait()
            while True:
                {wait}

        for _ in range(8):
            threading.Thread(target=wait, daemon=True).start()

        class Late:
            # Lives in a global, so it goes when the interpreter has nearly ended.
            def __del__(self, sleep=time.sleep):
                sleep(0.05)

        late = Late()
        started.wait()
        print("end")
    """
    assert output("-c", script) == "end\n"


def test_an_interpreter_ends_with_daemon_threads_that_get_what_they_wait_for_in_the_end() -> None:
    script = """if True:
        import atexit, threading
        import semlock

        lock, event, condition = semlock.Lock(), semlock.Event(), semlock.Condition()
        lock.acquire()

        def wait():
            with condition:
                condition.wait()

        for target in [lock.acquire, event.wait, wait] * 3:
            threading.Thread(target=target, daemon=True).start()

        # Without the GIL, other globals have gone before `late`.
        def give(lock=lock, event=event, condition=condition):
            if lock.locked():
                lock.release()
            event.set()
            if condition.acquire(False):
                condition.notify()
                condition.release()

        class Late:
            def __del__(self, give=give):
                give()

        late = Late()
        atexit.register(give)
        print("end")
    """
    assert output("-c", script) == "end\n"


def test_a_process_that_exits_with_waiters_blocked_leaves_nothing_to_the_others() -> None:
    condition, event, barrier = semlock.Condition(), semlock.Event(), semlock.Barrier(2)
    lock = semlock.Lock()

    def body(line: Line) -> None:
        def wait() -> None:
            with condition:
                condition.wait()

        for target in (wait, event.wait, lock.acquire):
            threading.Thread(target=target, daemon=True).start()
        wait_until(lambda: number_of_waiters(condition) == 1, "it waits")
        line.say("waiting")

    with lock, forked(body) as child:
        assert child.hear() == "waiting"
        child.result()
    assert take(lock, False).got
    with waiters(condition, 1) as children:
        notify(condition)
        assert children[0].hear() is True
    event.set()
    assert event.wait()
    with members(barrier, 1) as children:
        assert {barrier.wait(), children[0].hear()} == {0, 1}


@both
def test_a_lock_that_a_signal_handler_acquires_during_a_wait_stays_acquired(family: Any) -> None:
    condition = family.Condition()

    def waits(line: Line) -> list[int]:
        handled = threading.Event()

        def handler(*_: Any) -> None:
            condition.acquire()
            handled.set()

        def sends() -> None:
            wait_until(lambda: condition._sleeping_count.get_value() == 1, "it waits")
            os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, handler)
        with condition:
            thread = threading.Thread(target=sends)
            thread.start()
            while not handled.is_set():
                condition.wait(0.2)
            counts = [condition._lock._semlock._count()]
            thread.join()
        counts.append(condition._lock._semlock._count())
        condition.release()
        counts.append(condition._lock._semlock._count())
        return counts

    with forked(waits) as child:
        assert child.result() == [2, 1, 0]


# ---- Spinning ----


def test_a_waiter_for_which_nothing_comes_sleeps_after_a_moment_of_spinning() -> None:
    event, condition, barrier = semlock.Event(), semlock.Condition(), semlock.Barrier(2)

    def use_once(_: Line) -> None:
        """What a waiter spins for has been there before, mostly from another processor."""
        event.set()
        with condition:
            condition.notify()
        barrier.wait()

    def wait_for_notification() -> object:
        with condition:
            return condition.wait(0.3)

    def wait_for_member() -> object:
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.3)
        return False

    with condition, forked(use_once) as child:
        assert condition.wait(PATIENCE)
        barrier.wait()
        child.result()
    event.clear()
    for wait in (lambda: event.wait(0.3), wait_for_notification, wait_for_member):
        began = time.thread_time()
        assert wait() is False
        assert time.thread_time() - began < 0.1, "seconds of processor time"

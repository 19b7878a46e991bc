"""Signals during a wait: Ctrl-C ends it, a handler that returns does not, and no permit is lost.

Each program runs on semlock and on the interpreter's own module. Both must behave the same.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import semlock
from children import PATIENCE, Line, forked, started, wait_until, wait_until_asleep
from families import Taken, die, holder, recovered_from, take

# A child of one thread. It says "waiting" before it waits, and ends when told.
HEAD = """if True:
    import os, signal, sys, time
    from {module} import SemLock

    NAME = {name!r}
    lock = SemLock(1, 0, 5, NAME, True)

    def say(text):
        os.write(1, (text + "\\n").encode())

    def account():
        # A permit that was lost or doubled shows here.
        before = lock._get_value()
        lock.release()
        return f"{{before}} {{lock.acquire(False)}} {{lock.acquire(False)}}"
"""

Child = subprocess.Popen
Start = Callable[[str], AbstractContextManager["Child[str]"]]


@pytest.fixture(params=["semlock._multiprocessing", "_multiprocessing"])
def waiting(request: pytest.FixtureRequest, name: str) -> Start:
    """Starts a child, and returns when it sleeps in a wait."""

    @contextmanager
    def waiting(body: str) -> Iterator[Child[str]]:
        script = HEAD.format(module=request.param, name=name) + body
        with started("-c", script, stdin=subprocess.PIPE, bufsize=1) as child:
            assert heard(child) == "waiting"
            wait_until_asleep(child)
            yield child
            assert child.stdin is not None
            assert child.stderr is not None
            child.stdin.close()
            assert (child.wait(PATIENCE), child.stderr.read()) == (0, "")

    return waiting


def heard(child: Child[str]) -> str:
    """The child's next line."""
    assert child.stdout is not None
    readable, _, _ = select.select([child.stdout], [], [], PATIENCE)
    assert readable, "the child says nothing"
    return os.read(child.stdout.fileno(), 1000).decode().rstrip("\n")


WAITS = {
    "untimed": "lock.acquire()",
    "timed": "lock.acquire(True, 60)",
    "endless": "lock.acquire(timeout=1e9)",
    "with": "lock.__enter__()",
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_ctrl_c_ends_a_wait_and_takes_no_permit(wait: str, waiting: Start) -> None:
    body = f"""
    say("waiting")
    try:
        {wait}
    except KeyboardInterrupt:
        say(f"KeyboardInterrupt {{lock._count()}} {{account()}}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        os.kill(child.pid, signal.SIGINT)
        assert heard(child) == "KeyboardInterrupt 0 0 True False"


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_a_handler_raises_comes_through_and_takes_no_permit(wait: str, waiting: Start) -> None:
    body = f"""
    def handler(*_):
        raise LookupError("by the handler")

    signal.signal(signal.SIGUSR1, handler)
    say("waiting")
    try:
        {wait}
    except LookupError as error:
        say(f"{{error}}: {{lock._count()}} {{account()}}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        os.kill(child.pid, signal.SIGUSR1)
        assert heard(child) == "by the handler: 0 0 True False"


def test_a_handler_that_returns_lets_the_wait_go_on_to_the_same_deadline(waiting: Start) -> None:
    body = """
    handled = 0

    def handler(*_):
        global handled
        handled += 1

    signal.signal(signal.SIGUSR1, handler)
    start = time.monotonic()
    say("waiting")
    result = lock.acquire(True, 1)
    in_time = handled
    say(f"{result} {time.monotonic() - start >= 1} {in_time > 0} {lock._count()} {account()}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        # If each signal started the second anew, it would never be over.
        give_up = time.monotonic() + PATIENCE
        while not select.select([child.stdout], [], [], 0.02)[0]:
            assert time.monotonic() < give_up, "the deadline moves away"
            os.kill(child.pid, signal.SIGUSR1)
        assert heard(child) == "False True True 0 0 True False"


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_wait_that_handlers_interrupted_still_gets_the_permit(wait: str, waiting: Start) -> None:
    body = f"""
    signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
    signal.signal(signal.SIGUSR2, lambda *_: lock.release())
    say("waiting")
    result = {wait}
    say(f"{{result}} {{account()}}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        for _ in range(20):
            wait_until_asleep(child)
            os.kill(child.pid, signal.SIGUSR1)
            assert heard(child) == "handled"
        wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR2)
        assert heard(child) == "True 0 True False"


def test_a_handler_may_take_and_give_back_other_permits_during_a_wait(waiting: Start) -> None:
    body = """
    other = SemLock(0, 1, 1, NAME, True)

    def handler(*_):
        with other, other:
            say(f"handled {other._count()} {lock.acquire(False)} {lock.acquire(True, 0.001)}")

    signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR2, lambda *_: lock.release())
    say("waiting")
    result = lock.acquire()
    say(f"{result} {account()}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        for _ in range(3):
            wait_until_asleep(child)
            os.kill(child.pid, signal.SIGUSR1)
            assert heard(child) == "handled 2 False False"
        os.kill(child.pid, signal.SIGUSR2)
        assert heard(child) == "True 0 True False"


def test_a_stop_and_a_continue_do_not_end_a_wait(waiting: Start) -> None:
    body = """
    signal.signal(signal.SIGUSR2, lambda *_: lock.release())
    say("waiting")
    result = lock.acquire(True, 60)
    say(f"{result} {account()}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        for _ in range(3):
            os.kill(child.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
            os.kill(child.pid, signal.SIGCONT)
            os.waitid(os.P_PID, child.pid, os.WCONTINUED)
            wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR2)
        assert heard(child) == "True 0 True False"


def test_a_signal_that_comes_while_another_thread_waits_is_handled_by_the_main_thread(
    waiting: Start,
) -> None:
    body = """
    import threading

    results = []
    thread = threading.Thread(target=lambda: results.append(lock.acquire(True, 60)))
    signal.signal(signal.SIGUSR1, lambda *_: say("handled"))
    thread.start()
    say("waiting")
    sys.stdin.readline()
    lock.release()
    thread.join()
    say(f"{results} {account()}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        for _ in range(5):
            os.kill(child.pid, signal.SIGUSR1)
            assert heard(child) == "handled"
        assert child.stdin is not None
        child.stdin.write("\n")
        assert heard(child) == "[True] 0 True False"


def test_a_signal_at_any_moment_loses_no_permit(waiting: Start) -> None:
    # Many releases and signals at once. For every release, one acquire returns True.
    body = """
    acquired = 0

    def handler(*_):
        global armed
        if armed:
            armed = False
            raise LookupError

    armed = False
    signal.signal(signal.SIGUSR1, handler)
    say("waiting")
    sys.stdin.readline()
    other = os.fork()
    if not other:
        for _ in range(300):
            while lock._get_value() >= 5:
                os.sched_yield()
            lock.release()
            os.kill(os.getppid(), signal.SIGUSR1)
        os._exit(0)
    while acquired + lock._get_value() < 300:
        try:
            armed = True
            lock.acquire(True, 0.0005)
            armed = False
        except LookupError:
            pass
        counted = lock._count()
        assert counted - acquired in (0, 1), (counted, acquired)
        acquired = counted
        os.sched_yield()
    os.waitpid(other, 0)
    say(f"{acquired + lock._get_value()} {lock._count() == acquired}")
    sys.stdin.read()
    """
    with waiting(body) as child:
        assert child.stdin is not None
        child.stdin.write("\n")
        assert heard(child) == "300 True"


def waits_for_a_lock() -> None:
    lock = semlock.Lock()
    lock.acquire()
    lock.acquire()


def waits_for_a_notification() -> None:
    with (condition := semlock.Condition()):
        condition.wait()


def waits_for_the_lock_of_a_condition() -> None:
    condition = semlock.Condition()

    def hold() -> None:
        condition.acquire()
        condition.notify()
        threading.Event().wait()

    with condition:
        threading.Thread(target=hold, daemon=True).start()
        condition.wait()


CLASSES = {
    "lock": waits_for_a_lock,
    "semaphore": lambda: semlock.Semaphore(0).acquire(timeout=1e6),
    "plain": lambda: semlock.Semaphore(0, robust=False).acquire(),
    "notification": waits_for_a_notification,
    "condition": waits_for_the_lock_of_a_condition,
    "event": lambda: semlock.Event().wait(),
    "barrier": lambda: semlock.Barrier(2).wait(),
}


@pytest.mark.parametrize("wait", CLASSES.values(), ids=CLASSES)
def test_a_signal_that_interrupts_no_sleep_is_handled_soon(wait: Callable[[], None]) -> None:
    # So does one that arrives just before the sleep: Python knows of it, the sleep does not.
    def body(line: Line) -> None:
        def interrupt() -> None:
            line.hear()
            _thread.interrupt_main(signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda *_: line.say("handled"))
        threading.Thread(target=interrupt).start()
        line.say("waiting")
        wait()

    with forked(body) as child:
        assert child.hear() == "waiting"
        wait_until_asleep(child)
        child.say()
        assert child.hear() == "handled"


# ---- Signals that come more often than a watcher checks ----


def be_interrupted_all_the_time() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)


@pytest.mark.usefixtures("a_segment")
@pytest.mark.parametrize(
    "make",
    [semlock.Lock, semlock.RLock, lambda: semlock.Semaphore(robust=True)],
    ids=["Lock", "RLock", "Semaphore"],
)
def test_signals_all_the_time_do_not_keep_a_dead_owner_from_being_found(
    make: Callable[[], Any],
) -> None:
    lock = make()

    def wait(line: Line) -> Taken:
        be_interrupted_all_the_time()
        line.say("waiting")
        return take(lock)

    with holder(lock) as owner, forked(wait) as waiter:
        assert waiter.hear() == "waiting"
        wait_until_asleep(waiter)
        pid = die(owner)
        assert waiter.result() == recovered_from(pid)


@pytest.mark.usefixtures("a_segment")
def test_signals_all_the_time_do_not_keep_a_dead_waiters_notification_from_the_next() -> None:
    condition = semlock.Condition()

    def wait(line: Line) -> bool:
        with condition:
            line.say("waiting")
            return condition.wait()

    def wait_between_signals(line: Line) -> bool:
        be_interrupted_all_the_time()
        return wait(line)

    with forked(wait) as first:
        assert first.hear() == "waiting"
        with condition:
            pass
        with forked(wait_between_signals) as second:
            assert second.hear() == "waiting"
            first.stop()
            with condition:
                condition.notify()
            first.kill()
            assert second.result() is True


@pytest.mark.usefixtures("a_segment")
def test_signals_all_the_time_do_not_keep_a_barrier_with_a_dead_member_from_breaking() -> None:
    barrier = semlock.Barrier(3)

    def wait_between_signals(line: Line) -> None:
        be_interrupted_all_the_time()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()

    with forked(lambda _: barrier.wait()) as first, forked(wait_between_signals) as second:
        wait_until(lambda: barrier.n_waiting == 2, "both wait")
        first.kill()
        second.result()

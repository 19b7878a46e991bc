"""What is special on Windows. `cargo xtask test --windows` runs it, under Wine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import synchronize
from pathlib import Path
from typing import Any

import pytest
import semlock
from semlock import _multiprocessing as ours
from semlock import kernel

if sys.platform != "win32":
    pytest.skip("Windows only: cargo xtask test --windows", allow_module_level=True)

import _multiprocessing as stock

SemLock = ours.SemLock
# If the failure would be to hang, so that it prints where.
LONG = 60
spawn = semlock.get_context("spawn")


@pytest.fixture(autouse=True)
def _nothing_is_said() -> Iterator[None]:
    """One test is about the warning that locks are not robust. The others ignore it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="semlock's locks are not robust")
        yield


def outcome(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[object, str]:
    try:
        return "returns", repr(function(*args, **kwargs))
    except Exception as error:
        return type(error), str(error)


# ---- The exact port ----


def test_the_module_has_the_names_of_stocks() -> None:
    def names(thing: object) -> set[str]:
        return set(dir(thing)) - {"__file__", "__module__"}

    assert names(ours) == names(stock)
    assert names(SemLock) - {"RECURSIVE_MUTEX", "SEMAPHORE"} == names(stock.SemLock)
    assert ours.flags == stock.flags
    assert stock.SemLock.SEM_VALUE_MAX == SemLock.SEM_VALUE_MAX


@pytest.mark.parametrize(
    "arguments",
    [
        (1, 2, 1, "x", True),
        (1, -1, 1, "x", True),
        (1, 0, 0, "x", True),
        (1, 1, -1, "x", True),
        (2, 0, 1, "x", True),
        (1, 1, 1, None, True),
        (1, 1),
    ],
)
def test_what_cannot_be_made_is_refused_as_by_stock(arguments: tuple[Any, ...]) -> None:
    assert outcome(SemLock, *arguments) == outcome(stock.SemLock, *arguments)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    "timeout", [(True, 1e9), (True, 2147483.6475), (True, 2147483.6474, "x"), (True, "x")]
)
@pytest.mark.parametrize("block", [True, False, 1, 0])
def test_a_timeout_is_read_as_by_stock(kind: int, timeout: Any, block: object) -> None:
    _, *seconds = timeout
    results = []
    for cls in (SemLock, stock.SemLock):
        lock = cls(kind, 1, 1, "x", True)
        # Also for a thread that has the lock already, and one that could get it without waiting.
        results.append([outcome(lock.acquire, block, *seconds) for _ in range(2 - kind)])
    assert results[0] == results[1]


def test_a_timeout_that_is_too_large_is_an_overflow_and_acquires_nothing() -> None:
    lock = SemLock(1, 1, 1, "x", True)
    with pytest.raises(OverflowError, match=r"^timeout is too large$"):
        lock.acquire(timeout=25 * 24 * 60 * 60)
    assert lock._get_value() == 1
    assert lock.acquire(timeout=24 * 24 * 60 * 60)


def test_a_release_too_many_raises_and_leaves_the_value() -> None:
    lock = SemLock(1, 2, 3, "x", True)
    lock.release()
    with pytest.raises(ValueError, match=r"^semaphore or lock released too many times$"):
        lock.release()
    assert (lock._get_value(), lock._count()) == (3, -1)


def test_a_lock_that_has_a_name_remembers_it_and_others_do_not_find_it() -> None:
    lock, other = (SemLock(1, 1, 1, "the name", False) for _ in range(2))
    assert lock.name == other.name == "the name"
    assert lock.acquire(False)
    assert other.acquire(False)
    assert ours.sem_unlink("the name") is None


def test_numbers_that_are_no_handles_are_refused() -> None:
    lock = SemLock(1, 1, 1, "x", True)
    for handle in (0, 1, 2**64 - 1, 2**31, lock.handle + 4000):
        with pytest.raises(ValueError, match="handle"):
            SemLock._rebuild(handle, 1, 1, None)
    again = SemLock._rebuild(lock.handle, 1, 1, None)
    assert lock.acquire(False)
    assert not again.acquire(False)


def acquire_in_child(lock: Any, pipe: Any) -> None:
    pipe.send(lock.acquire(False))
    pipe.send(lock.acquire(True, LONG))
    lock.release()


@pytest.mark.parametrize("make", [lambda: SemLock(1, 1, 1, "x", False), spawn.Lock])
def test_a_lock_goes_to_a_child_as_a_handle_that_is_duplicated(make: Callable[[], Any]) -> None:
    lock = make()
    lock.acquire()
    here, there = multiprocessing.Pipe()
    child = spawn.Process(target=acquire_in_child, args=(lock, there))
    child.start()
    try:
        there.close()
        assert here.recv() is False
        lock.release()
        assert here.recv() is True
        child.join(LONG)
        assert child.exitcode == 0
        assert lock.acquire(True, LONG)
    finally:
        child.kill()
        child.join()


def test_a_lock_goes_nowhere_else() -> None:
    with pytest.raises(TypeError, match=r"^cannot pickle '_multiprocessing.SemLock' object$"):
        pickle.dumps(SemLock(1, 1, 1, "x", False))
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(semlock.Lock())


@pytest.mark.parametrize(
    "make", [lambda: SemLock(1, 1, 1, "x", True), kernel.Lock, lambda: kernel.RLock(robust=True)]
)
def test_ctrl_c_ends_a_long_wait_in_the_main_thread(make: Callable[[], Any]) -> None:
    lock, is_held, is_over = make(), threading.Event(), threading.Event()
    handled = threading.Semaphore(0)
    calls = []

    def hold() -> None:
        with lock:
            is_held.set()
            is_over.wait()

    def handler(number: int, frame: object) -> None:
        calls.append(number)
        handled.release()
        # The first signal can come before the wait, the last cannot.
        if len(calls) == 1000:
            raise KeyboardInterrupt

    def press() -> None:
        # Also between a handler and the next wait.
        for _ in range(1000):
            # The same as Ctrl-C's own thread does.
            signal.raise_signal(signal.SIGINT)
            handled.acquire()

    before = signal.signal(signal.SIGINT, handler)
    threads = [threading.Thread(target=hold), threading.Thread(target=press)]
    try:
        threads[0].start()
        is_held.wait()
        threads[1].start()
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    finally:
        signal.signal(signal.SIGINT, before)
        is_over.set()
        for thread in threads:
            thread.join()
    assert len(calls) == 1000


def test_a_module_called_multiprocessing_may_stand_for_semlocks_in_any_import_order(
    tmp_path: Path,
) -> None:
    shim = "import sys, semlock._multiprocessing as it; sys.modules[__name__] = it"
    (tmp_path / "_multiprocessing.py").write_text(shim)
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    for first in ("multiprocessing.synchronize", "_multiprocessing", "semlock"):
        program = f"""if 1:
            import {first}
            import multiprocessing, semlock, _multiprocessing
            assert _multiprocessing is semlock._multiprocessing
            lock = multiprocessing.Lock()
            assert type(lock._semlock) is semlock._multiprocessing.SemLock
            assert issubclass(semlock.Lock, type(lock))
            with lock, semlock.Lock():
                print("works")
        """
        command = [sys.executable, "-W", "ignore", "-c", program]
        environment = {**os.environ, "PYTHONPATH": path}
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=environment)
        assert (ran.stdout, ran.stderr) == ("works\n", "")


# ---- Sockets ----


def test_sockets_send_and_receive() -> None:
    one, other = socket.socketpair()
    with one, other:
        for data in (b"bytes", bytearray(b"array"), memoryview(b"-view-")[1:-1]):
            assert ours.send(one.fileno(), data) == len(data)
            assert ours.recv(other.fileno(), 100) == bytes(data)
        ours.send(one.fileno(), b"123456")
        assert ours.recv(other.fileno(), 4) == b"1234"
        assert ours.recv(other.fileno(), 4) == b"56"
        assert ours.closesocket(one.detach()) is None
        assert ours.recv(other.fileno(), 4) == b""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("closesocket", (99999,)),
        ("closesocket", (1.5,)),
        ("recv", (99999, 3)),
        ("recv", (99999, -3)),
        ("recv", (5,)),
        ("recv", (1, 2**40)),
        ("send", (99999, b"x")),
        ("send", (99999, "x")),
        ("send", (99999, memoryview(b"abcd")[::2])),
        ("send", (99999, memoryview(bytes(8)).cast("d"))),
        ("send", ()),
    ],
)
def test_what_sockets_refuse_is_what_stocks_refuse(name: str, arguments: tuple[Any, ...]) -> None:
    # Either needs winsock to be started.
    assert socket.socket
    results = [outcome(getattr(module, name), *arguments) for module in (ours, stock)]
    assert results[0] == results[1]


# ---- The classes ----


def test_the_classes_are_multiprocessings_over_our_semlock() -> None:
    made = [
        semlock.Lock(),
        semlock.RLock(),
        semlock.Semaphore(2),
        semlock.BoundedSemaphore(2),
        semlock.Condition(),
        semlock.Event(),
        semlock.Barrier(2),
    ]
    for thing in made:
        assert isinstance(thing, getattr(synchronize, type(thing).__name__))
        arguments = [2] if thing is made[-1] else []
        assert type(getattr(spawn, type(thing).__name__)(*arguments)) is type(thing)
    for lock in made[:4]:
        assert type(lock._semlock) is SemLock
        assert not lock.locked()
        assert lock.recovered is None
    assert made[1].holder() is None
    with made[1]:
        assert made[1].holder() == os.getpid()


@pytest.mark.parametrize("name", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_what_cannot_be_robust_says_so_and_what_is(name: str) -> None:
    for make in (getattr(semlock, name), getattr(spawn, name)):
        with pytest.raises(NotImplementedError, match=rf"^{name}\(robust=True\).*RLock\(robust="):
            make(robust=True)


PROGRAM = """\
import multiprocessing, concurrent.futures, sys

# Children make one too, as they import this.
mine = multiprocessing.Lock()

def work(number):
    with lock:
        return number * number

def begin(given):
    global lock
    lock = given

if __name__ == "__main__":
    lock = multiprocessing.Lock()
    print(type(lock).__module__, type(multiprocessing.Queue()._rlock).__module__)
    with multiprocessing.Pool(2, begin, (lock,)) as pool:
        print(pool.map(work, range(5)))
    with concurrent.futures.ProcessPoolExecutor(1, initializer=begin, initargs=(lock,)) as pool:
        print(list(pool.map(work, range(3))))
"""


def test_an_unmodified_program_runs_on_it_and_is_told_once_that_it_is_not_robust(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "semlock", str(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LONG * 2)
    assert ran.returncode == 0, ran.stderr
    expected = ["semlock.kernel semlock.kernel", "[0, 1, 4, 9, 16]", "[0, 1, 4]"]
    assert ran.stdout.splitlines() == expected
    assert ran.stderr.count("RuntimeWarning: semlock's locks are not robust on win32") == 1
    assert str(program) in ran.stderr


def put_and_set(queue: Any, simple: Any, event: Any, condition: Any, barrier: Any) -> None:
    queue.put("put")
    simple.put("simple")
    barrier.wait()
    with condition:
        condition.notify()
    assert event.wait(LONG)


def test_what_a_context_makes_works_between_processes() -> None:
    made = spawn.JoinableQueue(), spawn.SimpleQueue(), spawn.Event(), spawn.Condition()
    queue, simple, event, condition = made
    barrier = spawn.Barrier(2)
    child = spawn.Process(target=put_and_set, args=(*made, barrier))
    with condition:
        child.start()
        try:
            assert queue.get(timeout=LONG) == "put"
            assert simple.get() == "simple"
            barrier.wait(LONG)
            assert condition.wait(LONG)
            event.set()
            child.join(LONG)
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()


# ---- A lock that is recovered ----


def hold(lock: Any, pipe: Any) -> None:
    lock.acquire()
    lock.acquire()
    pipe.send("held")
    pipe.recv()


@pytest.fixture
def abandoned() -> Callable[..., Any]:
    """Makes a robust RLock whose holder was killed."""

    def make(**options: Any) -> Any:
        lock = semlock.RLock(robust=True, **options)
        here, there = multiprocessing.Pipe()
        child = spawn.Process(target=hold, args=(lock, there))
        child.start()
        try:
            assert here.recv() == "held"
            assert not lock.acquire(False)
            assert lock.locked()
        finally:
            child.kill()
            child.join()
        return lock

    return make


def test_a_killed_owners_lock_goes_to_the_next_acquirer_which_is_told(
    abandoned: Callable[..., Any],
) -> None:
    lock = abandoned()
    with pytest.warns(semlock.OwnerDiedWarning, match="half-written") as caught:
        assert lock.acquire(True, LONG)
    assert caught[0].filename == __file__
    assert (lock.recovered, lock.holder()) == (0, os.getpid())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lock.acquire()
        lock.release()
        assert lock.recovered == 0
        lock.release()
        assert lock.recovered is None
        with lock:
            assert lock.recovered is None


def test_if_the_warning_is_an_error_the_next_acquirer_gets_the_lock_and_the_warning(
    abandoned: Callable[..., Any],
) -> None:
    lock = abandoned()
    with warnings.catch_warnings():
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        for _ in range(2):
            with pytest.raises(semlock.OwnerDiedWarning):
                lock.acquire()
            assert not lock.locked()
    with pytest.warns(semlock.OwnerDiedWarning), lock:
        assert lock.recovered == 0


def test_a_lock_that_ignores_dead_owners_does_not_warn(abandoned: Callable[..., Any]) -> None:
    lock = abandoned(on_owner_died="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with lock:
            assert lock.recovered == 0


def test_a_waiter_is_woken_by_its_owners_death() -> None:
    lock = semlock.RLock(robust=True, on_owner_died="ignore")
    here, there = multiprocessing.Pipe()
    child = spawn.Process(target=hold, args=(lock, there))
    child.start()
    recovered = []

    def wait() -> None:
        with lock:
            recovered.append(lock.recovered)

    waiter = threading.Thread(target=wait)
    try:
        assert here.recv() == "held"
        waiter.start()
    finally:
        child.kill()
        child.join()
    waiter.join(LONG)
    assert recovered == [0]


def test_it_is_its_threads_and_recursive_as_the_stdlibs() -> None:
    lock = semlock.RLock(robust=True)
    assert isinstance(lock, synchronize.RLock)
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()
    results: list[object] = []
    with lock, lock:
        assert "MainProcess" in repr(lock)
        other = threading.Thread(target=lambda: results.append(lock.acquire(False)))
        other.start()
        other.join()
        other = threading.Thread(target=lambda: results.append(outcome(lock.release)[0]))
        other.start()
        other.join()
    assert results == [False, AssertionError]
    assert not lock.locked()
    with pytest.raises(OverflowError, match=r"^timeout is too large$"):
        lock.acquire(timeout=1e9)


def notify(condition: Any) -> None:
    with condition:
        condition.notify_all()


def test_a_condition_waits_on_it() -> None:
    condition = semlock.Condition(semlock.RLock(robust=True))
    child = spawn.Process(target=notify, args=(condition,))
    with condition:
        child.start()
        try:
            assert condition.wait(LONG)
            child.join(LONG)
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()


def notify_and_die(condition: Any) -> None:
    with condition:
        condition.notify_all()
        os.kill(os.getpid(), signal.SIGTERM)  # TerminateProcess


def test_if_the_warning_is_an_error_a_waiter_of_a_condition_still_gets_its_lock() -> None:
    lock = semlock.RLock(robust=True)
    condition = semlock.Condition(lock)
    child = spawn.Process(target=notify_and_die, args=(condition,))
    with condition, condition, warnings.catch_warnings():
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        child.start()
        try:
            with pytest.raises(semlock.OwnerDiedWarning):
                condition.wait(LONG)
            assert (lock._semlock._count(), lock.recovered) == (2, 0)
        finally:
            child.kill()
            child.join()
    assert not lock.locked()

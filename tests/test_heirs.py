"""If a lock is held at a fork, an heir holds it too, for as long as the child may go on with it.

Children live until the test closes a pipe, whatever program they run by then.
"""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import Child, Line, fork, forked, in_a_child, wait_until, wait_until_gone
from families import TAKEN, die, is_kept, let_go, recovered_from, take, waiter
from kernel_features import Denied, deny, needs_seccomp

pytestmark = [
    pytest.mark.usefixtures("a_segment"),
    # Python warns like this at each fork beside a thread.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Until:
    """A pipe: children live until the test closes it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def end(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def wait(self) -> None:
        os.read(self.reading, 1)

    def becomes_a_program(self) -> None:
        os.dup2(self.reading, 0)
        os.execvp("cat", ["cat"])


@pytest.fixture
def until() -> Iterator[Until]:
    until = Until()
    yield until
    until.end()
    os.close(until.reading)


def fork_one_that_executes(until: Until) -> None:
    reading, writing = os.pipe()
    fork(until.becomes_a_program)
    os.close(writing)
    # When it executes another program, this is closed.
    os.read(reading, 1)
    os.close(reading)


def start(until: Until, **options: Any) -> None:
    # This returns when the child has executed the other program.
    subprocess.Popen(["cat"], stdin=until.reading, **options)


def fork_in_a_terminal(until: Until) -> None:
    reading, writing = os.pipe()
    if not pty.fork()[0]:
        until.becomes_a_program()
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)


def fork_and_wait(life: Callable[[], Any]) -> None:
    os.waitpid(fork(life), 0)


def in_another_thread(function: Callable[[], Any]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@contextmanager
def holder_that(lock: Any, until: Until, does: Callable[[Line], Any]) -> Iterator[Child]:
    """A child that acquires the lock, calls a function, and goes on."""

    def body(line: Line) -> None:
        until.end()
        lock.acquire()
        does(line)
        line.say("held")
        line.hear()
        lock.release()

    with forked(body) as child:
        yield child


CHILDREN_THAT_ARE_NO_HEIRS: dict[str, Callable[[Until], Any]] = {
    "has ended": lambda until: fork_and_wait(lambda: None),
    "has been killed": lambda until: fork_and_wait(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "has executed": fork_one_that_executes,
    "is a subprocess with preexec_fn": lambda until: start(until, preexec_fn=lambda: None),
    "is a subprocess of a user": lambda until: start(until, user=os.getuid()),
    "has executed in a terminal": fork_in_a_terminal,
    "was forked by another thread": lambda until: in_another_thread(lambda: fork(until.wait)),
    "had a child, and both have ended": lambda until: fork_and_wait(
        lambda: fork_and_wait(lambda: None)
    ),
}


@pytest.mark.parametrize(
    "has_children", CHILDREN_THAT_ARE_NO_HEIRS.values(), ids=CHILDREN_THAT_ARE_NO_HEIRS
)
def test_a_lock_is_recovered_though_its_holder_had_a_child_that(
    until: Until, has_children: Callable[[Until], Any]
) -> None:
    lock = semlock.Lock()
    with holder_that(lock, until, lambda _: has_children(until)) as child:
        assert child.hear() == "held"
        with forked(waiter(lock)) as next_one:
            assert next_one.hear() == "waiting"
            child.kill()
            assert next_one.hear() == recovered_from(child.pid)
            let_go(next_one)
    assert take(lock, False) == TAKEN


def daemonize(line: Line, until: Until) -> None:
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    # As daemons do, it closes all descriptors. The kernel gives the line its number back.
    kept = {line.connection.fileno(), until.reading}
    for number in range(3, max(kept)):
        if number not in kept:
            os.closerange(number, number + 1)
    os.closerange(max(kept) + 1, 1024)


HEIRS: dict[str, Callable[[Line, Until], Any]] = {
    "a child": lambda line, until: os.fork() and os._exit(0),
    "a daemon": daemonize,
}


@pytest.mark.parametrize("becomes", HEIRS.values(), ids=HEIRS)
@pytest.mark.parametrize("is_killed", [False, True], ids=["releases it", "is killed"])
def test_an_heir_keeps_the_lock_of_a_parent_that_ended_until_it(
    until: Until, becomes: Callable[[Line, Until], Any], is_killed: bool
) -> None:
    lock = semlock.Lock()

    def does(line: Line) -> None:
        becomes(line, until)
        line.say(os.getpid())

    with holder_that(lock, until, does) as child:
        daemon = child.hear()
        assert child.hear() == "held"
        assert daemon != child.pid
        wait_until(lambda: child.poll() is not None, "the parent has ended")
        child.reap()
        try:
            assert is_kept(lock)
            assert (lock.locked(), lock.holder()) == (True, child.pid)
            if is_killed:
                with forked(waiter(lock)) as next_one:
                    assert next_one.hear() == "waiting"
                    os.kill(daemon, signal.SIGKILL)
                    # The process whose pid held it.
                    assert next_one.hear() == recovered_from(child.pid)
                    let_go(next_one)
            else:
                child.say()
                assert child.expect("ended") is None
        finally:
            with suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGKILL)
            wait_until_gone(daemon)
        assert take(lock) == TAKEN


def test_an_rlock_is_recovered_though_its_holder_has_a_child(until: Until) -> None:
    # Only the thread that acquired it could release it, and the child has no such thread.
    lock = semlock.RLock()
    with holder_that(lock, until, lambda _: fork(until.wait)) as child:
        assert child.hear() == "held"
        die(child)
        assert take(lock) == recovered_from(child.pid)


def test_a_child_that_is_forked_later_is_an_heir_too(until: Until) -> None:
    lock = semlock.Lock()

    def does(_: Line) -> None:
        fork_and_wait(lambda: None)
        fork(until.wait)

    with holder_that(lock, until, does) as child:
        assert child.hear() == "held"
        die(child)
        assert is_kept(lock)
        until.end()
        assert take(lock) == recovered_from(child.pid)


def test_a_child_that_was_forked_under_an_earlier_hold_is_no_heir(until: Until) -> None:
    lock = semlock.Lock()

    def does(_: Line) -> None:
        fork(until.wait)
        lock.release()
        lock.acquire()
        fork_and_wait(lambda: None)

    with holder_that(lock, until, does) as child:
        assert child.hear() == "held"
        die(child)
        assert take(lock) == recovered_from(child.pid)


def test_of_several_locks_each_has_its_own_heirs(until: Until) -> None:
    first, second, third = (semlock.Lock() for _ in range(3))

    def does(_: Line) -> None:
        fork_and_wait(lambda: None)
        second.acquire()
        fork(until.wait)
        third.acquire()
        fork_and_wait(lambda: None)

    with holder_that(first, until, does) as child:
        assert child.hear() == "held"
        die(child)
        assert take(third) == recovered_from(child.pid)
        assert is_kept(first)
        assert is_kept(second)
        until.end()
        assert take(first) == take(second) == recovered_from(child.pid)


F_OFD_SETLK_BIT = 0x20  # of no other command that is used here


@needs_seccomp
def test_where_the_system_tells_of_no_heirs_a_lock_that_was_held_at_a_fork_is_kept(
    until: Until,
) -> None:
    lock = semlock.Lock()

    def does(_: Line) -> None:
        deny(Denied("fcntl", errno.EINVAL, 1, F_OFD_SETLK_BIT))
        fork_and_wait(lambda: None)

    with holder_that(lock, until, does) as child:
        assert child.hear() == "held"
        die(child)
        assert is_kept(lock)
    # A program that knows better can release it.
    lock.release()
    assert take(lock, False) == TAKEN


def test_a_parent_keeps_nothing_of_the_forks_of_a_lock_that_it_holds() -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("/memfd:semlock")

    def body() -> tuple[int, int]:
        lock = semlock.Lock()
        with lock:
            before = mapped()
            for _ in range(3):
                in_a_child(lambda: None)
        return before, mapped()

    before, after = in_a_child(body)
    assert before == after > 0

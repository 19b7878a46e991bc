"""Children: how the workloads start, kill and reap them, and what a workload is given."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import process as executors
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, popen_forkserver
from multiprocessing.popen_fork import Popen
from pathlib import Path
from random import Random
from typing import Any

import semlock

# The tests' own helpers.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from children import PATIENCE, state_of, wait_until  # noqa: F401

# At import, so that all children do it too, however they are started. Python must not record
# ignored warnings either: it remembers a warning by its text, which has a pid in it, for ever.
warnings.simplefilter("ignore", semlock.OwnerDiedWarning)
# The workloads fork from threads on purpose.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)


# A child that ends wakes the threads of the executors that it knows. They are its parent's: if a
# thread held the lock of one at the fork, nobody in the child releases it.
os.register_at_fork(after_in_child=executors._threads_wakeups.clear)  # type: ignore[attr-defined]

FORKING, POLLING = threading.Lock(), threading.Lock()
os.register_at_fork(after_in_child=FORKING._at_fork_reinit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=POLLING._at_fork_reinit)  # type: ignore[attr-defined]


def fork_one_at_a_time() -> None:
    """Lets only one thread of this process fork at a time.

    The end of a pipe tells the parent that a child has ended. CPython lets another child, which is
    forked at the same time, inherit that pipe: then the parent sees the first child's end only when
    the second ends.
    """
    launch = Popen._launch

    def launch_alone(self: Any, process: Any) -> None:
        with FORKING:
            launch(self, process)

    Popen._launch = launch_alone


def poll_one_at_a_time() -> None:
    """Lets only one thread of this process ask for a fork server's children at a time.

    Two threads can ask for the same child, since each start asks for all of them. If both see
    its end, only one finds the exit code; CPython gives 255 to the other (gh-130895).
    """
    poll = popen_forkserver.Popen.poll

    def poll_alone(self: Any, flag: int = os.WNOHANG) -> Any:
        if flag != os.WNOHANG and self.returncode is None:
            connection.wait([self.sentinel])
        with POLLING:
            return poll(self, flag)

    popen_forkserver.Popen.poll = poll_alone  # type: ignore[method-assign]


@dataclass
class World:
    """What a workload is given: a context, a process to talk to, and what both can do."""

    context: Any
    # Whether locks survive their holders and can be sent anywhere, as those of `shared` can.
    is_robust: bool
    resident: Any = None
    # How much a workload with deaths does: 1 in each round of the soak, more where it runs alone.
    amount: int = 1
    # Each operation calls this, so that a deliberate leak leaks with each.
    leaks: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_alone(self) -> bool:
        return self.amount > 1

    def leak(self) -> None:
        for leak in self.leaks:
            leak()


Workload = Callable[[World, Random], int]


def check(condition: object, *what: object) -> None:
    """An assertion that `python -O` keeps."""
    if not condition:
        raise AssertionError(*what)


def equal(found: object, expected: object) -> None:
    check(found == expected, f"{found!r} instead of {expected!r}")


def reap(process: Any, expected: int | None = 0) -> int:
    """Waits for a child's end, and returns its exit code, which must be `expected` if not None."""
    give_up = time.monotonic() + PATIENCE
    process.join(PATIENCE)
    # Another thread that starts a child may have reaped this one, and be about to say so.
    while process.exitcode is None:
        if time.monotonic() > give_up:
            with suppress(ProcessLookupError):
                # With PYTHONFAULTHANDLER it prints where its threads are.
                os.kill(process.pid, signal.SIGABRT)
            raise AssertionError(f"{process} does not end")
        time.sleep(0.001)
    code: int = process.exitcode
    if expected is not None:
        equal(code, expected)
    process.close()
    return code


@contextmanager
def running(world: World, *bodies: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Children that each run a function with arguments. Each must end by itself, with code 0."""
    processes = [world.context.Process(target=body[0], args=body[1:]) for body in bodies]
    started = []
    try:
        for process in processes:
            process.start()
            started.append(process)
        yield processes
    except BaseException:
        for process in started:
            with suppress(ValueError):  # it is reaped
                process.kill()
                reap(process, None)
        raise
    for process in processes:
        reap(process)


@contextmanager
def killed_at_the_end(world: World, function: Any, *arguments: Any) -> Iterator[Any]:
    """A child that is killed when the block ends, whatever it does then."""
    process = world.context.Process(target=function, args=arguments)
    process.start()
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        reap(process, -signal.SIGKILL)


class Crew:
    """A process at each of some places. Each can be killed at any moment; another takes over.

    `body` says what the process at a place does: a function and its arguments. It is
    called with the place, and with the number of the process among all that were ever started.
    """

    def __init__(self, world: World, places: int, body: Callable[[int, int], tuple[Any, ...]]):
        self._world, self._body, self._hired = world, body, 0
        self.processes: dict[int, Any] = {}
        for place in range(places):
            self.hire(place)

    def hire(self, place: int) -> None:
        function, *arguments = self._body(place, self._hired)
        self._hired += 1
        process = self._world.context.Process(target=function, args=arguments)
        process.start()
        self.processes[place] = process

    def kill(self, place: int) -> None:
        """Kills the process at a place, unless it has ended by itself."""
        process = self.processes.pop(place)
        process.kill()
        reap(process, None)

    def replace(self, place: int) -> None:
        """Kills the process at a place, and starts another there."""
        self.kill(place)
        self.hire(place)

    def ended(self) -> set[int]:
        """The exit codes of those that have ended by themselves."""
        codes = (process.exitcode for process in self.processes.values())
        return {code for code in codes if code is not None}

    def codes(self) -> set[int]:
        """The exit codes of all, once they have ended by themselves."""
        codes = {reap(process, None) for process in self.processes.values()}
        self.processes.clear()
        return codes

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for place in list(self.processes):
            self.kill(place)

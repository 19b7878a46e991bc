"""A long-lived process that runs rounds of workloads, all at once, each in a thread of its own.

`__main__.py` starts one of each kind, and talks with it in lines of JSON. Between rounds it rests:
what the round made is gone, and `__main__.py` counts from outside what is still there.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import current_process
from pathlib import Path
from random import Random
from typing import Any

import deaths
import semlock
from installs import installs
from leaks import LEAKS
from locks import counters, exceptions, expired, made_and_dropped, meetings, signals
from messages import executors, pools, queues, sent
from processes import (
    PATIENCE,
    Workload,
    World,
    check,
    fork_one_at_a_time,
    poll_one_at_a_time,
    reap,
)

WORKLOADS: tuple[Workload, ...] = (
    counters,
    queues,
    meetings,
    made_and_dropped,
    pools,
    expired,
    exceptions,
    executors,
    signals,
    sent,
    installs,
)
# What each kind runs on: the backend, a context or an installation, the start method.
KINDS = {
    "fork": (None, "fork"),
    "spawn": (None, "spawn"),
    "forkserver": (None, "forkserver"),
    "installed": ("shared", "fork"),
    "kernel-fork": ("kernel", "fork"),
    "kernel-spawn": ("kernel", "spawn"),
}
# Where a child takes long to start, a round is every third workload, in turns.
SLOW = "spawn", "kernel-spawn"
SHARES = 3

# Modules that are imported only where they are needed, also in the interpreter's own threads.
IMPORTED = (
    "concurrent.futures.process",
    "multiprocessing.heap",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_forkserver",
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.resource_sharer",
    "multiprocessing.sharedctypes",
    "semlock.descriptors",
    "semlock.heap",
    "semlock.install",
    "semlock.pool",
    "semlock.queues",
    "semlock.sharing",
)

# Enough locks for the next segment to be no larger: segments have 1024, 2048, 4096, 8192 slots.
SEGMENTS_FULL = 1024 + 2048 + 4096 + 8192 + 1

# Seconds: far longer than a round takes, and longer than the watchdogs of its waits.
HANGS = 240

# Seconds between two signals, which come while everything runs.
TICK = 0.005


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


if hasattr(LIBC, "mallinfo2"):  # glibc 2.33
    LIBC.mallinfo2.restype = Mallinfo2


def figures() -> dict[str, int]:
    """What this process has allocated, to the byte: without the noise of pages."""
    gc.collect()
    found = {"blocks": sys.getallocatedblocks()}
    if hasattr(LIBC, "mallinfo2"):
        info = LIBC.mallinfo2()
        found["heap"] = info.uordblks + info.hblkhd
    return found


def fill_segments() -> None:
    """From now on, this process makes segments of one size, and so has as many at each rest."""
    kept = [semlock.Lock() for _ in range(SEGMENTS_FULL)]
    del kept


# ---- A process that lives as long as the driver, and gets things sent ----


def reside(connection: Any, queue: Any) -> None:
    faulthandler.enable()
    fill_segments()
    while True:
        what, things = connection.recv()
        if what == "end":
            return
        if what == "figures":
            connection.send(figures())
            continue
        if things is None:
            things = queue.get()
        taken = [thing.acquire(False) for thing in things]
        for thing, was_taken in zip(things, taken, strict=True):
            if was_taken:
                thing.release()
        del thing, things
        connection.send(taken)


class Resident:
    """The resident process, as its parent sees it."""

    def __init__(self, context: Any) -> None:
        self._connection, theirs = context.Pipe()
        self._queue = context.SimpleQueue()
        self._process = context.Process(target=reside, args=(theirs, self._queue))
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    def ask(self, what: str, things: Any = None, way: str = "connection") -> Any:
        through_queue = way == "queue"
        if through_queue:
            self._queue.put(things)
        self._connection.send((what, None if through_queue else things))
        check(self._connection.poll(PATIENCE), "the resident does not answer")
        return self._connection.recv()

    def end(self) -> None:
        self._connection.send(("end", None))
        reap(self._process)
        self._connection.close()
        self._queue.close()


# ---- Rounds ----


def tell_where_everybody_is() -> None:
    """Prints where the threads of this process and of its children are, and ends them all.

    The round has failed.
    """
    faulthandler.dump_traceback()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                ends = [f"{end.name} -> {os.readlink(end)}" for end in (folder / "fd").iterdir()]
                print(f"child {folder.name}: {ends}", file=sys.stderr, flush=True)
                os.kill(int(folder.name), signal.SIGABRT)


def run_round(
    world: World, workloads: list[Workload], seed: str, one_at_a_time: bool
) -> dict[str, int]:
    """Runs workloads, each in a thread. Returns how many operations each did."""
    operations: dict[str, int] = {}
    failed: list[str] = []

    def run(workload: Workload) -> None:
        name = workload.__name__
        try:
            operations[name] = workload(world, Random(f"{seed}/{name}"))
        except BaseException:
            failed.append(f"{name}: {traceback.format_exc()}")
            if len(failed) == 1:
                tell_where_everybody_is()

    threads = [threading.Thread(target=run, args=(workload,)) for workload in workloads]
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    for thread in threads:
        thread.start()
        if one_at_a_time:
            thread.join()
    for thread in threads:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)
    multiprocessing.active_children()  # reaps
    if failed:
        raise AssertionError("\n".join(failed))
    return operations


def serve(world: World, kind: str, seed: int, commands: Any, say: Callable[..., None]) -> None:
    workloads = [*WORKLOADS, *(deaths.WORKLOADS if world.is_robust else ())]
    shares = SHARES if kind in SLOW else 1
    resident = world.resident
    say(pid=os.getpid(), resident=resident.pid, shares=shares)
    for line in commands:
        number = json.loads(line)
        if number is None:
            break
        chosen = workloads[number % shares :: shares]
        random = Random(f"{seed}/{kind}/{number}")
        random.shuffle(chosen)
        # Also where nobody waits for this driver any more.
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            # At first one by one, for the imports that happen where they are needed: if a thread
            # imports a module while another forks, CPython leaves the lock of that module
            # locked in the child for ever.
            is_first = number < shares
            operations = run_round(world, chosen, f"{seed}/{kind}/{number}", is_first)
            theirs = resident.ask("figures")
            say(
                operations=operations,
                figures=figures(),
                residents_figures=theirs,
                threads=threading.active_count(),
            )
        except AssertionError as error:
            say(failed=str(error))
        finally:
            faulthandler.cancel_dump_traceback_later()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--leak", action="append", choices=LEAKS, default=[])
    parser.add_argument("--prefix", required=True)
    chosen = parser.parse_args()

    # Nobody else ends this driver: it has a session of its own.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Children must not write among the driver's lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    commands = os.fdopen(os.dup(0))
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def say(**what: Any) -> None:
        lines.write(json.dumps(what) + "\n")

    # So that the soak can tell what it left in /dev/shm from what other programs have there.
    current_process()._config["semprefix"] = "/" + chosen.prefix
    backend, method = KINDS[chosen.kind]
    if backend is None:
        context = semlock.get_context(method)
    else:
        semlock.install(backend)
        context = multiprocessing.get_context(method)
    for name in IMPORTED:
        importlib.import_module(name)
    fork_one_at_a_time()
    poll_one_at_a_time()
    fill_segments()
    world = World(context, is_robust=backend != "kernel")
    world.leaks += [LEAKS[leak](chosen.prefix) for leak in chosen.leak]
    world.resident = Resident(context)
    # The resident's queue keeps the segment that it was made in. What is made from now on lies in
    # another, so that there are two at each rest.
    fill_segments()
    signal.signal(signal.SIGALRM, lambda *_: None)
    serve(world, chosen.kind, chosen.seed, commands, say)
    world.resident.end()


if __name__ == "__main__":
    main()

"""Semaphores of very many permits: no look through them all keeps other threads from running.

Each program has a process of its own, because the segment of so large a semaphore stays.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="holders are forked")

HOLDER = """
import os, signal, sys, threading, time
import semlock

def held_by_another(semaphore, permits):
    reader, writer = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            os.close(reader)
            for _ in range(permits):
                semaphore.acquire()
            os.write(writer, b"h")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"h"
    return holder

def end(holder):
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
"""

# The other thread gets the interpreter's lock only when it is given up: a switch by force comes
# after an hour.
RUNS_MEANWHILE = (
    HOLDER
    + """
def body():
    call = sys.argv[1]
    semaphore = semlock.Semaphore(100_000, robust=True)
    holder = held_by_another(semaphore, 100_000)
    look = getattr(semaphore, call)
    ends, turns = False, 0

    def count():
        nonlocal turns
        while not ends:
            turns += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    sys.setswitchinterval(3600)
    try:
        counter.start()
        before = turns
        last = time.monotonic() + 20
        while turns == before and time.monotonic() < last:
            look()
        return turns > before
    finally:
        ends = True
        counter.join()
        end(holder)
"""
)

ALL_ONCE = (
    HOLDER
    + """
def body():
    semaphore = semlock.Semaphore(10_000, robust=True, on_owner_died="ignore")
    holder = held_by_another(semaphore, 7_000)
    taken = 0
    while semaphore.acquire(False):
        taken += 1
    full = [taken, semaphore.get_value(), semaphore.locked()]
    for _ in range(taken):
        semaphore.release()
    try:
        semaphore.release()
    except ValueError:
        full.append("none is left to release")
    full.append(semaphore.get_value())
    end(holder)
    last = time.monotonic() + 20
    while semaphore.get_value() < 10_000 and time.monotonic() < last:
        semaphore._free_those_of_the_dead()
    again = 0
    while semaphore.acquire(False):
        again += 1
    return [*full, again]
"""
)


@pytest.mark.parametrize("call", ["get_value", "locked", "_free_those_of_the_dead"])
def test_a_look_through_all_permits_lets_other_threads_run(tmp_path: Path, call: str) -> None:
    assert run_program(tmp_path, RUNS_MEANWHILE, call) is True


def test_all_of_many_permits_are_taken_once_and_come_back(tmp_path: Path) -> None:
    expected = [3_000, 0, True, "none is left to release", 3_000, 10_000]
    assert run_program(tmp_path, ALL_ONCE) == expected

"""Semaphores of very many permits: a scan of all permits does not keep other threads from running.

Each program has a process of its own, because the segment of so large a semaphore stays.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="holders are forked")

HOLDER = """
from children import forked

def held_by_another(semaphore, permits):
    def hold(line):
        for _ in range(permits):
            semaphore.acquire()
        line.say("held")
        line.hear()
    return forked(hold)
"""

# The other thread gets the GIL only when this one gives it up: a forced switch comes after an hour.
RUNS_MEANWHILE = (
    HOLDER
    + """
def body():
    call = sys.argv[1]
    semaphore = semlock.Semaphore(100_000, robust=True)
    look = getattr(semaphore, call)
    ends, turns = False, 0

    def count():
        nonlocal turns
        while not ends:
            turns += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    with held_by_another(semaphore, 100_000) as holder:
        assert holder.hear() == "held"
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
"""
)

ALL_ONCE = (
    HOLDER
    + """
def body():
    semaphore = semlock.Semaphore(10_000, robust=True, on_owner_died="ignore")
    with held_by_another(semaphore, 7_000) as holder:
        assert holder.hear() == "held"
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
def test_a_scan_of_all_permits_lets_other_threads_run(tmp_path: Path, call: str) -> None:
    assert run_program(tmp_path, RUNS_MEANWHILE, call) is True


def test_all_of_many_permits_are_taken_once_and_come_back(tmp_path: Path) -> None:
    expected = [3_000, 0, True, "none is left to release", 3_000, 10_000]
    assert run_program(tmp_path, ALL_ONCE) == expected

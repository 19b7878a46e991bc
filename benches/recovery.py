"""A holder that is killed: how soon a waiter holds the lock.

It also measures what waiters cost while the holder lives.
"""

from __future__ import annotations

import os
import random
import select
import signal
import statistics
import time
from functools import partial
from pathlib import Path

import semlock
from children import Numbers, forked
from rounds import Row, Table, interleaved

MANY = 16
DEATHS_A_ROUND = 4
# In seconds.
LONGEST_IDLE = 10


def die(pid: int) -> int:
    """Kills a child. Returns the moment at which its death is visible, in nanoseconds."""
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        readable = select.poll()
        readable.register(pidfd, select.POLLIN)
        readable.poll()
        return time.monotonic_ns()
    finally:
        os.close(pidfd)


def recoveries(waiters: int, chance: random.Random) -> list[float]:
    """Milliseconds from the moment a death is visible until the first waiter holds the lock."""
    lock = semlock.Lock(on_owner_died="ignore")
    with Numbers() as start, Numbers() as held, Numbers() as owned:

        def hold() -> None:
            lock.acquire()
            held.put(1)
            signal.pause()

        def wait() -> None:
            while start.get():
                lock.acquire()
                moment = time.monotonic_ns()
                lock.release()
                owned.put(moment)

        def kill_a_holder() -> float:
            # The dead holder is reaped only afterwards: a zombie is the harder case.
            with forked(hold) as [holder]:
                held.get()
                start.put(*[1] * waiters)
                # After this, all waiters sleep. The time is random, so that the death comes at any
                # point of the watcher's sleep.
                time.sleep(chance.uniform(0.05, 0.15))
                dead = die(holder)
                return (min(owned.get() for _ in range(waiters)) - dead) / 1e6

        with forked(*[wait] * waiters):
            return [kill_a_holder() for _ in range(DEATHS_A_ROUND)]


def idle(waiters: int, seconds: float) -> tuple[float, float]:
    """What all waiters together cost while the holder lives.

    Returns wake-ups a second, and % of a processor.
    """
    lock = semlock.Lock()
    with Numbers() as held:

        def hold() -> None:
            lock.acquire()
            held.put(1)
            signal.pause()

        with forked(hold):
            held.get()
            with forked(*[lock.acquire] * waiters) as pids:
                # After this, all of them sleep.
                time.sleep(0.5)
                wakes, busy = (sum(map(read, pids)) for read in (switches, processor_time))
                start = time.monotonic()
                time.sleep(seconds)
                wakes = sum(map(switches, pids)) - wakes
                busy = sum(map(processor_time, pids)) - busy
                taken = time.monotonic() - start
    return wakes / taken, busy / 1e9 / taken * 100


def switches(pid: int) -> int:
    """How often a process went to sleep, which is as often as it was woken."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [count] = [line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches:")]
    return int(count)


def processor_time(pid: int) -> int:
    """Nanoseconds that a process with one thread has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def table(rounds: int) -> Table:
    rows = []
    # Seeded, so that each run waits for the same times.
    chance = random.Random(1)
    few_and_many = 1, MANY
    measures = [partial(recoveries, waiters, chance) for waiters in few_and_many]
    for waiters, batches in zip(few_and_many, interleaved(measures, rounds), strict=True):
        taken = [milliseconds for batch in batches for milliseconds in batch]
        work = f"death to next owner, {waiters} waiter{'s' * (waiters > 1)}"
        p99 = statistics.quantiles(taken, n=100, method="inclusive")[-1]
        rows.append(Row(f"{work}: median of {len(taken)}", "ms", statistics.median(taken)))
        rows.append(Row(f"{work}: p99 of {len(taken)}", "ms", p99, bound=150))
    seconds = min(rounds, LONGEST_IDLE)
    [[(wakes, busy)]] = interleaved([partial(idle, MANY, seconds)], 1)
    rows.append(Row(f"{MANY} idle waiters: wake-ups", "/s", wakes, bound=30))
    rows.append(Row(f"{MANY} idle waiters: of a processor", "%", busy, bound=0.1))
    return Table("A holder that dies", "", rows)

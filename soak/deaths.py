"""Workloads whose processes are killed, wherever they are. Of `shared` alone: it survives that."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from random import Random
from typing import Any

from messages import message, opened, square
from processes import PATIENCE, World, check, equal, killed_at_the_end
from semlock import QueueBrokenError

MESSAGES = 30


def hold(locks: list[Any], held: Any) -> None:
    for lock in locks:
        lock.acquire()
    held.set()
    signal.pause()


def wait_for(lock: Any, begun: Any) -> None:
    begun.set()
    lock.acquire()
    signal.pause()


def killed_holders(world: World, _: Random) -> int:
    context = world.context
    locks = [context.Lock(), context.RLock()]
    for _ in range(2):
        held = context.Event()
        with killed_at_the_end(world, hold, locks, held) as holder:
            check(held.wait(PATIENCE), "nobody holds it")
            pid = holder.pid
            equal(locks[0].holder(), pid)
        for lock in locks:
            check(lock.acquire(timeout=PATIENCE), "a dead holder's lock is not to be had")
            equal(lock.recovered, pid)
            lock.release()
            # Exactly one is told.
            check(lock.acquire(timeout=PATIENCE), "a free lock is not to be had")
            equal(lock.recovered, None)
            lock.release()
    return 8


def killed_waiters(world: World, _: Random) -> int:
    """Whether they still waited, or had just got it, the lock is to be had afterwards."""
    context = world.context
    lock = context.Lock()
    for is_released_first in False, True:
        begun = context.Event()
        lock.acquire()
        with killed_at_the_end(world, wait_for, lock, begun):
            check(begun.wait(PATIENCE), "nobody waits")
            if is_released_first:
                lock.release()
        if not is_released_first:
            lock.release()
        check(lock.acquire(timeout=PATIENCE), "a killed waiter took the lock along")
        lock.release()
    return 4


# ---- In conditions and barriers ----


def wait_on(condition: Any, ready: Any) -> None:
    with condition:
        ready.set()
        condition.wait()
    signal.pause()


def enter(barrier: Any, ready: Any) -> None:
    ready.set()
    barrier.wait()
    signal.pause()


def killed_in_meetings(world: World, _: Random) -> int:
    context = world.context
    condition, ready = context.Condition(), context.Event()
    with killed_at_the_end(world, wait_on, condition, ready):
        check(ready.wait(PATIENCE), "nobody waits")
        with condition:
            # It waits, since the lock is free; and then it is dead, and in nobody's way.
            condition.notify()
    with condition:
        condition.notify_all()
        check(not condition.wait(0.01), "nobody is there to notify")

    barrier, ready = context.Barrier(3), context.Event()
    with killed_at_the_end(world, enter, barrier, ready):
        check(ready.wait(PATIENCE), "nobody comes")
        while not barrier.n_waiting:
            os.sched_yield()
    try:
        barrier.wait(PATIENCE)
    except threading.BrokenBarrierError:
        check(barrier.broken, "it says that it is whole")
    else:
        raise AssertionError("it let through two of three")
    return 4


# ---- In queues ----


def put_for_ever(queue: Any, sender: int) -> None:
    # The thread that feeds a Queue prints what it finds: that another's death has broken it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    number = 0
    with suppress(QueueBrokenError):
        while True:
            queue.put(message(sender, number))
            number += 1
    signal.pause()


def get_for_ever(queue: Any, heard: Any) -> None:
    with suppress(QueueBrokenError):
        while True:
            heard.send(opened(queue.get()))
    heard.send(None)
    signal.pause()


def killed_writers(world: World, random: Random) -> int:
    """Messages are whole, in their order, none twice; or the queue says that it is broken."""
    queue = random.choice([world.context.SimpleQueue, world.context.Queue])()
    received = 0
    last: dict[int, int] = {}
    try:
        for sender in range(3):
            with killed_at_the_end(world, put_for_ever, queue, sender):
                for _ in range(random.randint(1, MESSAGES)):
                    who, number = opened(queue.get())
                    equal(number, last.get(who, -1) + 1)
                    last[who] = number
                    received += 1
    except QueueBrokenError:
        pass
    queue.close()
    return received


def killed_readers(world: World, random: Random) -> int:
    context = world.context
    queue = context.SimpleQueue()
    seen: list[tuple[int, int]] = []
    number = 0
    try:
        for _ in range(2):
            ours, theirs = context.Pipe()
            with ours, theirs, killed_at_the_end(world, get_for_ever, queue, theirs):
                # Few and small enough for the pipe: what a killed one had read is lost.
                for _ in range(random.randint(2, 7)):
                    queue.put(message(0, number))
                    number += 1
                check(ours.poll(PATIENCE), "nothing is read")
                if (heard := ours.recv()) is not None:
                    seen.append(heard)
    except QueueBrokenError:
        pass
    equal(len(set(seen)), len(seen))
    queue.close()
    return number


# ---- In pools ----


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_pools(world: World, random: Random) -> int:
    """A pool gets new workers, or says that its queues are broken."""
    with world.context.Pool(2) as pool:
        equal(pool.map(square, range(10)), [n * n for n in range(10)])
        if random.random() < 0.5:
            pool.apply_async(die, (0,))  # that job is lost, as in the stdlib
        else:
            os.kill(random.choice(pool._pool).pid, signal.SIGKILL)
        with suppress(QueueBrokenError):
            equal(pool.map_async(square, range(10)).get(PATIENCE), [n * n for n in range(10)])
        pool.terminate()
        pool.join()
    return 21


def killed_executors(world: World, _: Random) -> int:
    with ProcessPoolExecutor(2, mp_context=world.context) as executor:
        equal(executor.submit(square, 3).result(PATIENCE), 9)
        check(
            isinstance(executor.submit(die, 0).exception(PATIENCE), BrokenProcessPool),
            "a killed worker was not noticed",
        )
    return 2

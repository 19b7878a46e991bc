"""Workloads on locks and the other classes in which nobody is killed."""

from __future__ import annotations

import copy
import gc
import pickle
import queue
import signal
import threading
import time
from multiprocessing.reduction import ForkingPickler
from random import Random
from typing import Any

from processes import PATIENCE, World, check, equal, running

TURNS = 100
THREADS = 2
# Seconds of a timeout: long enough to sleep through, short enough to do often.
SHORT = 0.005


# ---- Counting under every kind of lock ----


def count(locks: list[Any], counters: list[Any]) -> None:
    """Counts in several threads: each lock protects one counter."""
    failed: list[BaseException] = []

    def turns() -> None:
        try:
            for _ in range(TURNS):
                for lock, counter in zip(locks, counters, strict=True):
                    with lock:
                        counter.value += 1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=turns) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def counters(world: World, _: Random) -> int:
    context = world.context
    locks = [
        context.Lock(),
        context.RLock(),
        context.Semaphore(1),
        context.BoundedSemaphore(1),
        context.Condition(),
    ]
    values = [context.RawValue("l", 0) for _ in locks]
    with running(world, (count, locks, values), (count, locks, values)):
        count(locks, values)
    expected = 3 * THREADS * TURNS
    equal([value.value for value in values], [expected] * len(locks))
    world.leak()
    return expected * len(locks)


# ---- Meeting ----


def meet(barrier: Any, there: Any, back: Any, condition: Any, turn: Any) -> None:
    for _ in range(TURNS // 10):
        barrier.wait(PATIENCE)
        check(there.wait(PATIENCE), "no event")
        there.clear()
        back.set()
    for number in range(1, TURNS // 10, 2):
        with condition:
            check(condition.wait_for(lambda n=number: turn.value == n, PATIENCE), "no notification")
            turn.value += 1
            condition.notify_all()


def meetings(world: World, _: Random) -> int:
    context = world.context
    barrier, there, back = context.Barrier(2), context.Event(), context.Event()
    condition, turn = context.Condition(), context.RawValue("l", 0)
    with running(world, (meet, barrier, there, back, condition, turn)):
        for _ in range(TURNS // 10):
            barrier.wait(PATIENCE)
            there.set()
            check(back.wait(PATIENCE), "no event")
            back.clear()
        for number in range(0, TURNS // 10, 2):
            with condition:
                check(
                    condition.wait_for(lambda n=number: turn.value == n, PATIENCE),
                    "no notification",
                )
                turn.value += 1
                condition.notify_all()
    equal(turn.value, TURNS // 10)
    return 3 * (TURNS // 10)


# ---- Made and dropped ----


def made_and_dropped(world: World, _: Random) -> int:
    """Makes objects that no other process has, and pickles that nobody unpickles."""
    context = world.context
    for number in range(TURNS):
        made = [
            context.Lock(),
            context.RLock(),
            context.Semaphore(3),
            context.BoundedSemaphore(2),
            context.Condition(),
        ]
        for thing in made:
            with thing:
                pass
        event, barrier = context.Event(), context.Barrier(1)
        event.set()
        check(event.wait(0) and event.is_set(), "a set event is not set")
        barrier.wait(PATIENCE)
        if world.is_robust:
            made += [event, barrier]
            check(ForkingPickler.dumps(made), "no bytes")
            if number % 10 == 0:
                lock = made[0]
                same = pickle.loads(ForkingPickler.dumps(lock))
                with copy.copy(lock):
                    check(not same.acquire(False), "a copy is another lock")
        for _ in made:
            world.leak()
        if number % 10 == 0:
            # A cycle, which only the collector frees.
            made.append(made)
    gc.collect()
    return TURNS * 7


# ---- Timeouts and errors ----


def expired(world: World, _: Random) -> int:
    context = world.context
    lock, semaphore = context.Lock(), context.Semaphore(0)
    condition, event, barrier = context.Condition(), context.Event(), context.Barrier(2)
    messages = context.Queue()
    with lock:
        for _ in range(5):
            check(not lock.acquire(timeout=SHORT), "a held lock was taken")
            check(not lock.acquire(False), "a held lock was taken")
            check(not semaphore.acquire(True, SHORT), "there was no permit")
            check(not event.wait(SHORT), "nobody set it")
            with condition:
                check(not condition.wait(SHORT), "nobody notified")
            try:
                barrier.wait(SHORT)
            except threading.BrokenBarrierError:
                barrier.reset()
            else:
                raise AssertionError("nobody else came")
            try:
                messages.get(timeout=SHORT)
            except queue.Empty:
                pass
            else:
                raise AssertionError("nobody put anything")
    messages.close()
    messages.join_thread()
    return 5 * 7


class ExpectedError(Exception):
    pass


def exceptions(world: World, _: Random) -> int:
    """Exceptions in with-blocks release the lock, and wrong calls change nothing."""
    context = world.context
    lock, recursive = context.Lock(), context.RLock()
    bounded, condition = context.BoundedSemaphore(1), context.Condition()
    for _ in range(TURNS):
        for thing in lock, recursive, bounded, condition:
            try:
                with thing:
                    raise ExpectedError
            except ExpectedError:
                pass
            check(thing.acquire(timeout=PATIENCE), "an exception took a permit along")
            thing.release()
        for wrong, error in (
            (lock.release, ValueError),
            (recursive.release, AssertionError),
            (bounded.release, ValueError),
            (condition.notify, AssertionError),
        ):
            try:
                wrong()
            except error:
                continue
            raise AssertionError(f"{wrong} was accepted")
    return TURNS * 8


# ---- Signals ----


def be_interrupted(lock: Any, semaphore: Any, counter: Any) -> None:
    """Runs in a child, in its main thread: handlers run there alone."""
    seen = []

    def raises(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise ExpectedError

    signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    begin = time.monotonic()
    check(not semaphore.acquire(timeout=0.03), "there was no permit")
    check(time.monotonic() - begin >= 0.03, "a signal ended a wait")
    for _ in range(TURNS):
        with lock:
            counter.value += 1
    # If another thread than its parent's first has forked a child, CPython 3.13 and later run no
    # handlers in the child while nothing waits.
    while not seen:
        check(not semaphore.acquire(timeout=0.03), "there was no permit")
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, raises)
    for _ in range(3):
        try:
            # More than once: one that comes just before the system call does not interrupt it.
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.1)
            semaphore.acquire()
        except ExpectedError:
            pass
        else:
            raise AssertionError("there was no permit")


def signals(world: World, _: Random) -> int:
    context = world.context
    lock, semaphore, counter = context.Lock(), context.Semaphore(0), context.RawValue("l", 0)
    with running(world, (be_interrupted, lock, semaphore, counter)):
        for _ in range(TURNS):
            with lock:
                counter.value += 1
    equal(counter.value, 2 * TURNS)
    equal(semaphore.get_value(), 0)
    return 2 * TURNS + 4

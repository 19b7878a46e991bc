"""Workloads whose processes are killed while they use locks, conditions, events and barriers."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import semlock
from processes import (
    PATIENCE,
    Crew,
    World,
    check,
    equal,
    killed_at_the_end,
    state_of,
    wait_until,
)

# ---- Holders and waiters ----


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
            # Exactly one process is told.
            check(lock.acquire(timeout=PATIENCE), "a free lock is not to be had")
            equal(lock.recovered, None)
            lock.release()
    return 8


def killed_waiters(world: World, _: Random) -> int:
    """Whether they still waited or had just acquired the lock, it can be acquired afterwards."""
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


# ---- Users of everything at once ----

USERS = 8
PERMITS = 3


class Shared(ctypes.Structure):
    """What the users share beside the locks. The locks protect it."""

    _fields_ = (
        ("inside", ctypes.c_int64),  # the pid that is in the lock, or 0
        ("entries", ctypes.c_int64),  # two copies, so that a torn update shows
        ("entries_again", ctypes.c_int64),
        ("items", ctypes.c_int64),  # what consumers wait for
        ("ended", ctypes.c_int64),
        ("violations", ctypes.c_int64),
        ("permits", ctypes.c_int64 * USERS),  # by place: the pid that has one, or 0
        ("steps", ctypes.c_int64 * USERS),
    )


class User:
    """Uses a condition, its lock, a robust semaphore and an event, and checks what it gets."""

    def __init__(self, condition: Any, lock: Any, semaphore: Any, event: Any, shared: Any):
        self.condition, self.lock, self.semaphore = condition, lock, semaphore
        self.event, self.shared = event, shared

    def enter(self) -> None:
        """To be called when the lock was acquired, also by a wait that came back."""
        shared = self.shared
        # More holders may have died behind this one, before they could write that they were in.
        if shared.inside and self.lock.recovered is None:
            shared.violations += 1
        shared.inside = os.getpid()
        if self.lock.recovered is not None:
            # Mend what the dead process began, and send the notification that it may not have sent.
            shared.entries_again = shared.entries
            self.condition.notify_all()
        if shared.entries != shared.entries_again:
            shared.violations += 1
        shared.entries += 1
        shared.entries_again += 1

    def leave(self) -> None:
        if self.shared.inside != os.getpid():
            self.shared.violations += 1
        self.shared.inside = 0

    def produce(self, _: Random, __: int) -> None:
        with self.condition:
            self.enter()
            self.shared.items += 1
            self.condition.notify()
            self.leave()

    def consume(self, random: Random, _: int) -> None:
        shared = self.shared
        with self.condition:
            self.enter()
            while not shared.items and not shared.ended:
                self.leave()
                self.condition.wait(*random.choice([(), (), (0.001,), (0.02,)]))
                self.enter()
            if shared.items:
                shared.items -= 1
            self.leave()

    def use_the_lock(self, random: Random, _: int) -> None:
        if self.lock.acquire(*random.choice([(), (False,), (True, 0.001)])):
            self.enter()
            self.leave()
            self.lock.release()

    def use_a_permit(self, random: Random, place: int) -> None:
        shared = self.shared
        if self.semaphore.acquire(*random.choice([(), (False,), (True, 0.001)])):
            with self.condition:
                self.enter()
                shared.permits[place] = os.getpid()
                if sum(pid and state_of(pid) not in "ZX" for pid in shared.permits) > PERMITS:
                    shared.violations += 1
                self.leave()
            with self.condition:
                self.enter()
                shared.permits[place] = 0
                self.leave()
            self.semaphore.release()

    def use_the_event(self, random: Random, _: int) -> None:
        self.event.wait(0.001) if random.random() < 0.7 else self.event.set()
        if random.random() < 0.3:
            self.event.clear()

    def work(self, place: int, random: Random) -> None:
        # More is produced than is consumed, and some users never wait: so no wait lasts for ever.
        ways: list[Callable[[Random, int], None]] = [self.produce, self.produce]
        ways += [self.use_the_lock, self.use_a_permit, self.use_the_event]
        if place >= 2:
            ways.append(self.consume)
        while not self.shared.ended:
            random.choice(ways)(random, place)
            self.shared.steps[place] += 1


def use(place: int, seed: str, *things: Any) -> None:
    User(*things).work(place, Random(seed))


def killed_users(world: World, random: Random) -> int:
    """Only one process at a time holds a lock; nothing is lost, and the others go on."""
    kinds = [world.context.Lock, world.context.RLock]
    for make in kinds if world.is_alone else [random.choice(kinds)]:
        use_and_be_killed(world, random, make())
    return 4 * world.amount


def use_and_be_killed(world: World, random: Random, lock: Any) -> None:
    condition, event = world.context.Condition(lock), world.context.Event()
    semaphore = semlock.Semaphore(PERMITS, robust=True)
    shared, seed = world.context.RawValue(Shared), random.random()
    things = condition, lock, semaphore, event, shared
    with Crew(
        world, USERS, lambda place, number: (use, place, f"{seed}/{number}", *things)
    ) as crew:
        for _ in range(4 * world.amount):
            equal(crew.ended(), set())
            time.sleep(random.uniform(0, 0.02))  # at random: this is the test
            place = random.randrange(USERS)
            crew.kill(place)
            shared.permits[place] = 0
            crew.hire(place)
            others_get_on(shared)
        parent = User(*things)
        with condition:
            parent.enter()
            shared.ended = 1
            parent.leave()
            condition.notify_all()
        equal(crew.codes(), {0})
    # Every item that is left can still be consumed, and nothing else is left.
    equal(shared.violations, 0)
    equal(shared.entries, shared.entries_again)
    with condition:
        waiting = condition._sleeping_count.get_value() - condition._woken_count.get_value()
        equal(waiting, condition._wait_semaphore.get_value())
    equal([semaphore.acquire(True, 1) for _ in range(PERMITS)], [True] * PERMITS)
    check(not semaphore.acquire(False), "there is a permit too many")
    check(lock.acquire(False), "nobody holds it, and it is not to be had")
    lock.release()


def others_get_on(shared: Any) -> None:
    before = sum(shared.steps)
    wait_until(lambda: sum(shared.steps) > before + 3, "somebody gets on")


def consume_all(condition: Any, lock: Any, numbers: Any) -> None:
    while True:
        with condition:
            tell_others(condition, lock)
            while not numbers[0] and not numbers[1]:
                condition.wait()
                tell_others(condition, lock)
            if numbers[1]:
                return
            numbers[0] -= 1


def tell_others(condition: Any, lock: Any) -> None:
    """What every user of a condition must do after it recovered the lock."""
    if lock.recovered is not None:
        condition.notify_all()


def killed_consumers(world: World, random: Random) -> int:
    """All that a living producer has produced is consumed, whoever is killed."""
    lock = world.context.Lock()
    condition, numbers = world.context.Condition(lock), world.context.RawArray("l", 2)

    def produce(count: int) -> None:
        with condition:
            tell_others(condition, lock)
            numbers[0] += count
            condition.notify(count)

    with Crew(world, 4, lambda *_: (consume_all, condition, lock, numbers)) as crew:
        for _ in range(2 * world.amount):
            produce(random.randrange(1, 4))
            crew.replace(random.randrange(4))
            produce(1)
            wait_until(lambda: numbers[0] == 0, "all is consumed")
        with condition:
            numbers[1] = 1
            condition.notify_all()
        equal(crew.codes(), {0})
    return 2 * world.amount


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
            # It waits, since the lock is free. Then it is dead, and hinders nobody.
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

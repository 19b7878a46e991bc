"""Workloads that move things between processes: queues, pools, and locks that are sent."""

from __future__ import annotations

import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.reduction import ForkingPickler
from random import Random
from typing import Any

from processes import PATIENCE, World, check, equal, running

MESSAGES = 60


def message(sender: int, number: int, large: int = 20) -> tuple[int, int, bytes, int]:
    """One message in `large` is larger than a pipe. Its content shows if it arrived whole."""
    size = 100_000 if number % large == 2 else 10 + number
    body = bytes([sender & 255, number & 255]) * size
    return sender, number, body, zlib.crc32(body)


def opened(received: tuple[int, int, bytes, int]) -> tuple[int, int]:
    sender, number, body, checksum = received
    check(zlib.crc32(body) == checksum, "a message is not whole")
    return sender, number


# ---- Queues ----


def put_all(queue: Any, sender: int) -> None:
    for number in range(MESSAGES):
        queue.put(message(sender, number))


def pass_on(queue: Any, results: Any) -> None:
    is_joinable = hasattr(queue, "task_done")
    while (received := queue.get()) is not None:
        results.put(opened(received))
        if is_joinable:
            queue.task_done()
    if is_joinable:
        queue.task_done()


def queues(world: World, random: Random) -> int:
    """Two processes put, two pass on; everything arrives once."""
    context = world.context
    for make in (
        lambda: context.Queue(random.choice([0, 4])),
        context.JoinableQueue,
        context.SimpleQueue,
    ):
        queue, results = make(), context.SimpleQueue()
        readers = [(pass_on, queue, results)] * 2
        with running(world, *readers):
            with running(world, (put_all, queue, 0)):
                put_all(queue, 1)
                seen = [results.get() for _ in range(2 * MESSAGES)]
            for _ in readers:
                queue.put(None)
        equal(sorted(seen), [(sender, n) for sender in (0, 1) for n in range(MESSAGES)])
        if hasattr(queue, "join"):
            queue.join()
        queue.close()
        if hasattr(queue, "join_thread"):
            queue.join_thread()
        results.close()
    return 3 * 2 * MESSAGES * 2


# ---- Pools ----


def square(number: int) -> int:
    return number * number


def fail(number: int) -> None:
    raise KeyError(number)


def take(lock: Any) -> bool:
    with lock:
        return True


def pools(world: World, random: Random) -> int:
    with world.context.Pool(2, maxtasksperchild=random.choice([None, 4])) as pool:
        equal(pool.map(square, range(50), 5), [n * n for n in range(50)])
        results = [pool.apply_async(square, (number,)) for number in range(20)]
        equal([result.get(PATIENCE) for result in results], [n * n for n in range(20)])
        equal(sorted(pool.imap_unordered(square, range(20))), [n * n for n in range(20)])
        try:
            pool.apply(fail, (3,))
        except KeyError:
            pass
        else:
            raise AssertionError("nothing was raised")
        if world.is_robust:
            lock = world.context.Lock()
            check(all(pool.map(take, [lock] * 4)), "a lock was not taken")
        if random.random() < 0.5:
            pool.close()
        else:
            pool.terminate()
        pool.join()
    return 95


def executors(world: World, _: Random) -> int:
    with ProcessPoolExecutor(2, mp_context=world.context) as executor:
        equal(list(executor.map(square, range(30), chunksize=3)), [n * n for n in range(30)])
        check(isinstance(executor.submit(fail, 1).exception(PATIENCE), KeyError), "not raised")
    return 31


# ---- Sending locks ----


def use(things: list[Any], counters: Any) -> None:
    # A counter for each: two processes may use different things at the same time.
    for index, thing in enumerate(things):
        with thing:
            counters[index] += 1


def sent(world: World, _: Random) -> int:
    """Sends things as arguments of a process, and to a running one, which drops them again."""
    context = world.context
    operations = 0
    for _ in range(3):
        things = [context.Lock(), context.RLock(), context.Semaphore(1), context.Condition()]
        counters = context.RawArray("l", len(things))
        with running(world, (use, things, counters)):
            use(things, counters)
        equal(list(counters), [2] * len(things))
        operations += 2 * len(things)
        # A resident of the fork context can get what was made after it by messages alone.
        if world.is_robust:
            for way in "connection", "queue":
                with things[0]:
                    # It is the same lock there: held.
                    equal(world.resident.ask("try", things, way), [False, True, True, True])
                equal(world.resident.ask("try", things, way), [True] * len(things))
                operations += 2 * len(things)
            check(ForkingPickler.dumps(things), "no bytes")
    return operations

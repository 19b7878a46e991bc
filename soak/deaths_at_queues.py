"""Workloads whose processes are killed while they use queues, pools and executors."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from random import Random
from typing import Any

from messages import message, opened, square
from processes import PATIENCE, Crew, World, check, equal, killed_at_the_end, wait_until
from semlock import WorkerDied
from semlock.context import Context


def hide_errors() -> None:
    """Feeder threads, and workers that are not killed, print what ends them: another's death."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)


# ---- In queues ----

KINDS = "SimpleQueue", "Queue", "JoinableQueue"
MESSAGES = 30


def put_for_ever(queue: Any, sender: int) -> None:
    hide_errors()
    number = 0
    while True:
        queue.put(message(sender, number))
        number += 1


def get_for_ever(queue: Any, heard: Any) -> None:
    while True:
        heard.send(opened(queue.get()))


def killed_writers(world: World, random: Random) -> int:
    """Messages are whole, in order, and none comes twice."""
    # A writer that is never waited for fills the memory of its process with messages.
    queue = random.choice([world.context.SimpleQueue, lambda: world.context.Queue(20)])()
    received = 0
    last: dict[int, int] = {}
    for sender in range(3):
        with killed_at_the_end(world, put_for_ever, queue, sender):
            for _ in range(random.randint(1, MESSAGES)):
                writer, number = opened(queue.get())
                equal(number, last.get(writer, -1) + 1)
                last[writer] = number
                received += 1
    queue.close()
    return received


def killed_readers(world: World, random: Random) -> int:
    context = world.context
    queue = random.choice([context.SimpleQueue, context.Queue, context.JoinableQueue])()
    seen: list[tuple[int, int]] = []
    number = 0
    for _ in range(2):
        ours, theirs = context.Pipe()
        with ours, theirs, killed_at_the_end(world, get_for_ever, queue, theirs):
            # Few and small enough for the ring: what a killed reader had read is lost.
            for _ in range(random.randint(2, 7)):
                queue.put(message(0, number))
                number += 1
            check(ours.poll(PATIENCE), "nothing is read")
            seen.append(ours.recv())
    equal(len(set(seen)), len(seen))
    queue.close()
    if hasattr(queue, "join_thread"):
        # Nobody reads what a reader that was killed has left.
        queue.cancel_join_thread()
    return number


def send_for_ever(queue: Any, sender: int) -> None:
    hide_errors()
    number = 0
    while True:
        queue.put(message(sender, number, large=5))
        number += 1


def receive_for_ever(queue: Any, received: Any) -> None:
    last: dict[int, int] = {}
    while True:
        sender, number = opened(queue.get())
        check(number > last.get(sender, -1), "a message came twice, or out of its turn")
        last[sender] = number
        received.release()


def killed_at_both_ends(world: World, random: Random) -> int:
    """Messages are whole and keep coming, wherever processes are killed."""
    kills = 0
    while kills < 4 * world.amount:
        kills += use_and_kill(world, random, max(4 * world.amount - kills, 4))
    return kills


def use_and_kill(world: World, random: Random, most: int) -> int:
    kind, size = random.choice(KINDS), random.choice([1, 2, 5])
    queue = getattr(world.context, kind)(*([size] if kind != "SimpleQueue" else []))
    received = world.context.Semaphore(0)

    def body(place: int, number: int) -> tuple[Any, ...]:
        if place % 2:
            return receive_for_ever, queue, received
        return send_for_ever, queue, number

    kills = 0
    with Crew(world, 6, body) as crew:
        while kills < most:
            for _ in range(random.randrange(20)):
                check(received.acquire(timeout=PATIENCE), "nothing moves")
            time.sleep(random.uniform(0, 0.02))
            crew.replace(random.randrange(6))
            kills += 1
        equal(crew.ended(), set())
    queue.close()
    return kills


# ---- With tasks ----


def do_tasks(queue: Any, done: Any) -> None:
    while True:
        queue.get()
        sum(range(50_000))  # so that most of them die here
        with done.get_lock():
            done.value += 1
        queue.task_done()


def lost(queue: Any) -> int:
    """How many tasks were not done, as join() says."""
    try:
        queue.join()
    except WorkerDied as error:
        return error.tasks
    return 0


def killed_with_tasks(world: World, random: Random) -> int:
    """Each task is done, or lost with its worker."""
    tasks = 200 if world.is_alone else 40
    for _ in range(world.amount):
        use_tasks(world, random, tasks)
    return tasks * world.amount


def use_tasks(world: World, random: Random, tasks: int) -> None:
    queue, done = world.context.JoinableQueue(), world.context.Value("i", 0)
    deaths = not_done = 0
    with Crew(world, 3, lambda *_: (do_tasks, queue, done)) as crew:
        for task in range(tasks):
            queue.put(task)
            if random.random() < 0.05:
                time.sleep(random.random() / 100)
                crew.replace(random.randrange(3))
                deaths += 1
        while gone := lost(queue):
            not_done += gone
        # A worker that dies between counting a task and marking it as done has done both.
        check(tasks <= done.value + not_done <= tasks + deaths, done.value, not_done, deaths)
        equal(queue._unfinished_tasks.get_value(), 0)
    queue.close()
    queue.join_thread()


# ---- In pools ----


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def echo(received: bytes) -> bytes:
    return received


# Some are larger than a pipe.
SIZES = 1, 5_000, 100_000


def kill_workers(pool: Any, random: Random, done: threading.Event) -> None:
    while not done.wait(random.random() * 0.05):
        # The worker may be about to start, or may have been joined.
        with suppress(AttributeError, IndexError, ValueError):
            random.choice(list(pool._pool)).kill()


def killed_workers(world: World, random: Random) -> int:
    """Every task of a pool ends: with its result, or as one whose worker died."""
    results = died = 0
    # A small one in the soak, where memory that is used once looks like a trend.
    jobs, count, sizes = (10, 30, SIZES) if world.is_alone else (3, 6, SIZES[:2])
    # What install() changes has the stdlib's parameters.
    has_retry = isinstance(world.context, Context)
    for _ in range(world.amount):
        options = {"retry": random.randrange(2)} if has_retry else {}
        pool, done = world.context.Pool(3, **options), threading.Event()
        arguments = pool, Random(random.random()), done
        killer = threading.Thread(target=kill_workers, args=arguments)
        try:
            for number in range(jobs):
                if number == 1:
                    killer.start()
                messages = [bytes([i]) * random.choice(sizes) for i in range(count)]
                tasks = [pool.apply_async(echo, (each,)) for each in messages]
                deadly = pool.apply_async(die, (0,)) if number == 1 else None
                for task, expected in zip(tasks, messages, strict=True):
                    try:
                        equal(task.get(PATIENCE), expected)
                        results += 1
                    except WorkerDied as error:
                        equal((error.tasks, error.task), (1, "echo"))
                        died += 1
                if deadly is None:
                    continue
                try:
                    check(False, "what killed its worker has a result", deadly.get(PATIENCE))
                except WorkerDied as error:
                    equal((error.tasks, error.task), (1, "die"))
                    died += 1
        finally:
            done.set()
            if killer.ident is not None:
                killer.join()
            pool.terminate()
            pool.join()
    check(results >= world.amount * count, "too few tasks had a result")
    return results + died


def killed_pools(world: World, random: Random) -> int:
    """A pool gets new workers, and only the task of a worker that died fails."""
    with world.context.Pool(2) as pool:
        equal(pool.map(square, range(10)), [n * n for n in range(10)])
        if random.random() < 0.5:
            deadly = pool.apply_async(die, (0,))
            equal(pool.map_async(square, range(10)).get(PATIENCE), [n * n for n in range(10)])
            try:
                deadly.get(PATIENCE)
            except WorkerDied as error:
                equal((error.task, error.exitcode), ("die", -signal.SIGKILL))
            else:
                check(False, "a task of a killed worker has a result")
        else:
            # It is idle, or has just begun to wait.
            os.kill(random.choice(pool._pool).pid, signal.SIGKILL)
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


def outcome(future: Any) -> Any:
    try:
        return future.result(PATIENCE)
    except (BrokenProcessPool, CancelledError) as error:
        return type(error)


def kill_one(workers: list[Any], random: Random, delay: float) -> None:
    time.sleep(delay)
    random.choice(workers).kill()


def killed_while_submitting(world: World, random: Random) -> int:
    """Whenever a worker is killed, the executor ends, and each of its futures is done."""
    for _ in range(world.amount):
        use_an_executor(world, random)
    return 10 * world.amount


def use_an_executor(world: World, random: Random) -> None:
    context = world.context
    # Few and small in the soak, where memory that is used once looks like a trend.
    counts, possible = ((0, 3, 30), SIZES) if world.is_alone else ((0, 3), SIZES[:2])
    is_forking = context.get_start_method() == "fork"
    limit = random.choice((None, 1)) if sys.version_info >= (3, 11) and not is_forking else None
    limits = {} if limit is None else {"max_tasks_per_child": limit}
    executor = ProcessPoolExecutor(3, mp_context=context, initializer=hide_errors, **limits)
    sizes = [random.choice(possible) for _ in range(random.choice(counts))]
    first = [executor.submit(abs, -number) for number in range(3)]
    if random.random() < 0.5:
        equal([future.result(PATIENCE) for future in first], [0, 1, 2])
    workers = list(executor._processes.values())
    manager: Any = executor._executor_manager_thread
    arguments = workers, Random(random.random()), random.random() * 0.02
    killer = threading.Thread(target=kill_one, args=arguments)
    futures = []
    # Before CPython 3.12, an executor can miss a task that is submitted just as it breaks.
    is_safe = sys.version_info >= (3, 12)
    if is_safe:
        killer.start()
    with suppress(BrokenProcessPool):
        for size in sizes:
            futures.append((executor.submit(echo, bytes(size)), bytes(size)))
    if not is_safe:
        killer.start()
    if random.random() < 0.5:
        killer.join()
    # With a limit of tasks, CPython's executors fail if nobody waits for them.
    wait = limit is not None or random.random() < 0.5
    executor.shutdown(wait=wait, cancel_futures=random.random() < 0.3)
    manager.join()
    killer.join()
    for future, expected in futures:
        found = outcome(future)
        check(found in (expected, BrokenProcessPool, CancelledError), f"a future is {found!r}")
    for worker in workers:
        wait_until(lambda worker=worker: worker.exitcode is not None, "the worker has ended")

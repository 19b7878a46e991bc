"""A program's uses of semlock. `cargo xtask check` lets mypy check them, and nobody runs them.

mypy must find a misspelt name: if it does not, the comment at that name is one too many.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.pool
import multiprocessing.synchronize
from concurrent.futures import ProcessPoolExecutor

import semlock
from semlock import Lokc  # type: ignore[attr-defined]  # noqa: F401
from semlock._multiprocessing import SemLock


def count(lock: semlock.Lock) -> None:
    with lock:
        pass


class Named(semlock.Lock):
    def __init__(self, name: str) -> None:
        super().__init__(on_owner_died="ignore")
        self.name = name


class Worker(multiprocessing.Process):
    def __init__(self, lock: semlock.RLock) -> None:
        super().__init__()
        self.lock = lock

    def run(self) -> None:
        if self.lock.acquire(timeout=1.5):
            self.lock.release()


def uses_of_a_context() -> None:
    context = semlock.get_context()
    base: multiprocessing.context.BaseContext = context
    lock = base.Lock()
    own: semlock.Lock = context.Lock(robust=None)
    same: multiprocessing.synchronize.Lock = own
    event: multiprocessing.synchronize.Event = context.Event()
    print(same, event)
    worker = context.Process(target=count, args=(lock,))
    worker.start()
    worker.join()
    value, array = context.Value("i", lock=own), context.Array("i", 3, lock=own)
    print(value.value, array[:])
    with context.Condition(own) as held, context.Pool(2) as pool:
        stocks: multiprocessing.pool.Pool = pool
        print(held, stocks.map(abs, [1, 2]))
    queue = context.Queue(3)
    try:
        print(queue.get_nowait())
    except semlock.QueueBrokenError as error:
        print(error)
    tasks = context.JoinableQueue()
    try:
        tasks.join()
    except semlock.WorkerDied as died:
        print(died.tasks + 1)
    tasks.task_done()
    context.SimpleQueue().put(1)
    with ProcessPoolExecutor(mp_context=context) as executor:
        executor.submit(abs, 1)
    semlock.get_context("spawn").Process(target=print).start()
    index: int = context.Barrier(2, None, 3).wait()
    done: bool = context.Event().wait(timeout=index)
    print(done)


def uses_of_the_package() -> None:
    semlock.install("kernel")
    version: str = semlock.__version__
    permits: semlock.Semaphore = semlock.Semaphore(3, robust=True)
    holder: int | None = semlock.Lock().holder()
    print(version, permits, holder, SemLock(SemLock.SEMAPHORE, 1, 1, "/name", unlink=True))
    semlock.instal()  # type: ignore[attr-defined]

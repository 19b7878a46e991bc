"""``ProcessPoolExecutor`` on semlock: whenever a worker is killed, the executor breaks or ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import KILLS, METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, EXECUTORS + source, *arguments)


WAYS = ["context", "install"]

EXECUTORS = (
    KILLS
    + '''
import select
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool


def context():
    """One that runs on semlock."""
    if sys.argv[2] == "install":
        semlock.install()
        return multiprocessing.get_context(method())
    return semlock.get_context(method())


def idle_worker(executor):
    """The worker that waits in the call queue, for which the others wait."""
    lock = executor._call_queue._rlock
    wait_until(lambda: lock.holder() in executor._processes and is_asleep(lock.holder()))
    return lock.holder()


def hide_errors():
    """Workers that are not killed show the QueueBrokenError that ends them."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def echo(message):
    return message


def outcome(future):
    try:
        return future.result()
    except (BrokenProcessPool, CancelledError) as error:
        return type(error).__name__


'''
)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_shutdown_ends_when_an_idle_worker_was_killed_just_before(
    method: str, way: str, program: Program
) -> None:
    source = """
def body():
    ctx = context()
    tries = 30 if method() == "fork" else 3
    for number in range(tries):
        executor = ProcessPoolExecutor(3, mp_context=ctx)
        assert list(executor.map(abs, range(10))) == list(range(10))
        manager, workers = executor._executor_manager_thread, list(executor._processes.values())
        os.kill(idle_worker(executor), signal.SIGKILL)
        executor.shutdown(wait=number % 2 == 0, cancel_futures=number % 3 == 0)
        manager.join()
        assert all(worker.exitcode is not None for worker in workers)
    return tries
"""
    assert program(source, method, way) == (30 if method == "fork" else 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("moment", ["reads", "has read", "answers"])
def test_shutdown_ends_when_workers_are_killed_as_they_are_told_to_end(
    moment: str, method: str, way: str, program: Program
) -> None:
    source = """
def die_at_the_end(barrier, moment):
    barrier.wait()  # so that each worker has one of these tasks
    if moment == "reads":
        from multiprocessing.connection import Connection

        Connection._recv = after_calls(1, Connection._recv, die)
    # The result of this task comes first.
    elif moment == "has read":
        ours.SimpleQueue.put = after_calls(1, ours.SimpleQueue.put, die)
    else:
        import semlock.channels

        # What its answer to that begins with.
        semlock.channels.dumps = after_calls(1, semlock.channels.dumps, die)


def body():
    hide_errors()
    ctx = context()
    executor = ProcessPoolExecutor(3, mp_context=ctx)
    barrier = semlock.get_context(method()).Barrier(3)
    tasks = [executor.submit(die_at_the_end, barrier, sys.argv[3]) for _ in range(3)]
    done = [task.result() for task in tasks]
    workers = list(executor._processes.values())
    executor.shutdown()
    return done, any(killed(worker) for worker in workers)
"""
    assert program(source, method, way, moment) == [[None] * 3, True]


@pytest.mark.parametrize("way", WAYS)
def test_an_executor_breaks_though_another_process_keeps_its_pipe_open(
    way: str, program: Program
) -> None:
    source = """
def keep(reader):
    reader.poll(None)


def body():
    ctx = context()
    executor = ProcessPoolExecutor(1, mp_context=ctx)
    started, never = ctx.Event(), ctx.Event()
    futures = [executor.submit(set_and_wait, started, never)]
    started.wait()
    # More than the pipe takes, and nobody reads.
    futures.append(executor.submit(echo, LARGE))
    writer = executor._call_queue._writer
    wait_until(lambda: not select.select([], [writer], [], 0)[1])
    reader, end = ctx.Pipe(False)
    keeper = ctx.Process(target=keep, args=(reader,))
    keeper.start()
    (worker,) = executor._processes
    os.kill(worker, signal.SIGKILL)
    said = [outcome(future) for future in futures]
    executor.shutdown()
    end.send(None)
    keeper.join()
    return said


def set_and_wait(started, never):
    started.set()
    never.wait()
"""
    assert program(source, "fork", way) == ["BrokenProcessPool"] * 2

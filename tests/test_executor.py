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
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import semlock.channels as channels

HUGE = b"y" * 3_000_000  # larger than all that a queue holds


def context():
    """One that runs on semlock."""
    if sys.argv[2] == "install":
        semlock.install()
        return multiprocessing.get_context(method())
    return semlock.get_context(method())


def idle_worker(executor):
    """A worker that waits in the call queue."""
    workers = list(executor._processes)
    wait_until(lambda: all(map(is_asleep, workers)))
    return workers[0]


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
@pytest.mark.parametrize("moment", ["reads", "has read", "has answered", "answers"])
def test_shutdown_ends_when_workers_are_killed_as_they_are_told_to_end(
    moment: str, method: str, way: str, program: Program
) -> None:
    source = """
def die_at_the_end(barrier, moment):
    barrier.wait()  # so that each worker has one of these tasks
    # The result of this task comes first.
    receive = channels.ReadingEnd._receive
    if moment == "reads":

        def wait_and_die(end, *arguments, **keywords):
            end._channel.poll(None)
            die()

        channels.ReadingEnd._receive = wait_and_die
    elif moment == "has read":

        def receive_and_die(*arguments, **keywords):
            receive(*arguments, **keywords)
            die()

        channels.ReadingEnd._receive = receive_and_die
    elif moment == "has answered":
        ours.SimpleQueue.put = after_calls(1, ours.SimpleQueue.put, die)
    else:
        # What its answer to that begins with.
        channels.dumps = after_calls(1, channels.dumps, die)


def body():
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
def test_an_executor_breaks_though_another_process_keeps_its_queue_open(
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
    # More than the queue takes, and nobody reads.
    futures.append(executor.submit(echo, HUGE))
    calls = executor._call_queue._reader._channel
    wait_until(lambda: not calls.is_empty())
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_calls_and_results_of_all_sizes_come_through_in_order(
    method: str, way: str, program: Program
) -> None:
    source = """
def body():
    with ProcessPoolExecutor(2, mp_context=context()) as executor:
        messages = [b"a", LARGE, HUGE, b"b" * 100_000] * 5 + [bytes([i]) for i in range(50)]
        said = [list(executor.map(echo, messages)) == messages]
        # Many calls that fill the queue, while no worker takes any.
        calls = [executor.submit(echo, bytes([i]) * 100_000) for i in range(100)]
        said.append([call.result() for call in calls] == [bytes([i]) * 100_000 for i in range(100)])
    return said
"""
    assert program(source, method, way) == [True, True]


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_sent_for_long_arrives(way: str, program: Program) -> None:
    source = """
def sleep_a_little():
    time.sleep(0.4)


def body():
    with ProcessPoolExecutor(1, mp_context=context()) as executor:
        first = executor.submit(sleep_a_little)
        # Its sending begins while nobody reads.
        large = executor.submit(len, bytes(20_000_000))
        said = [first.result(), large.result()]
        (worker,) = executor._processes
        huge = executor.submit(len, bytes(60_000_000))
        calls = executor._call_queue._reader._channel
        while not huge.done():
            # A worker that gets no processor now and then.
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.15)
            os.kill(worker, signal.SIGCONT)
            time.sleep(0.005)
            parts.append(calls.count())
        said.append(huge.result())
    return said


parts = []
"""
    assert program(source, "fork", way) == [None, 20_000_000, 60_000_000]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_whenever_a_worker_is_killed_each_future_is_done(
    method: str, way: str, program: Program
) -> None:
    source = """
import random


def body():
    ctx = context()
    random.seed(11)
    said = set()
    for number in range(20 if method() == "fork" else 3):
        executor = ProcessPoolExecutor(2, mp_context=ctx)
        assert executor.submit(abs, -1).result() == 1
        workers = list(executor._processes.values())
        manager = executor._executor_manager_thread
        delay = random.random() * 0.02
        futures = []
        for size in random.choices((1, 5_000, 300_000, 3_000_000), k=12):
            futures.append((executor.submit(echo, bytes(size)), bytes(size)))
        killer = threading.Timer(delay, random.choice(workers).kill)
        killer.start()
        if number % 2:
            killer.join()
        executor.shutdown(wait=number % 3 != 0, cancel_futures=number % 5 == 0)
        manager.join()
        killer.join()
        for future, expected in futures:
            found = outcome(future)
            assert found in (expected, "BrokenProcessPool", "CancelledError"), found
        assert all(worker.exitcode is not None for worker in workers)
    return True
"""
    assert program(source, method, way) is True


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_cannot_be_pickled_fails_alone(way: str, program: Program) -> None:
    source = """
class Fails:
    def __reduce__(self):
        raise LookupError


def body():
    with ProcessPoolExecutor(2, mp_context=context()) as executor:
        said = []
        for _ in range(20):
            futures = [executor.submit(echo, each) for each in (1, Fails(), 2)]
            said.append([raised(future.result) for future in futures])
        said.append(executor.submit(echo, 3).result())
    return said
"""
    each = ["nothing", "LookupError", "nothing"]
    assert program(source, "fork", way) == [*[each] * 20, 3]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_an_executor_breaks_when_a_worker_is_killed_in_the_middle_of_a_large_result(
    method: str, way: str, program: Program
) -> None:
    source = """
def die_in_the_middle():
    def put(queue, result):
        queue._writer._channel.send(bytes(100_000_000), 0)
        die()

    ours.SimpleQueue.put = put


def body():
    executor = ProcessPoolExecutor(2, mp_context=context())
    tasks = [executor.submit(die_in_the_middle), executor.submit(echo, 1)]
    broken = outcome(tasks[0])
    executor.shutdown()
    return broken, outcome(tasks[1]) in (1, "BrokenProcessPool")
"""
    assert program(source, method, way) == ["BrokenProcessPool", True]

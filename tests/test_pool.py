"""A `Pool` never hangs when a worker is killed in the middle of a message."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import KILLS, METHODS, Program, run_program

ENTRANCES = ["get_context", "install"]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


HEAD = (
    KILLS
    + '''
import semlock.pool


def context():
    if sys.argv[2] == "get_context":
        return semlock.get_context(method())
    semlock.install()
    return multiprocessing.get_context(method())


def die_in_the_result(_):
    ours.os = System(write=after_calls(1, os.write, die))
    return LARGE


def die_in_the_next_task(_):
    ours.os = System(read=after_calls(1, os.read, die))


FATAL = {"result": die_in_the_result, "task": die_in_the_next_task}


def square(x):
    return x * x


def busy(*_):
    signal.pause()


def break_pipes(pool):
    pool._inqueue._reader._stream.broken.set()


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return type(error).__name__


def send_fatal(pool):
    """Kills a worker in the middle of a message, past whatever waits to be handed out."""
    for _ in range(2):
        # The second is the next task, if nothing else is.
        try:
            pool._inqueue._writer.send((-1, 0, FATAL[sys.argv[3]], (0,), {}))
        except QueueBrokenError:
            pass


def broken_pool(processes):
    pool = context().Pool(processes)
    results = pool.imap_unordered(square, iter(int, 1))
    send_fatal(pool)
    try:
        for _ in results:
            pass
    except QueueBrokenError:
        return pool


'''
)

SIDES = ["task", "result"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_all_pending_jobs_fail_when_a_worker_is_killed_in_the_middle_of_a_message(
    method: str, entrance: str, side: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(2)
    told, started = [], threading.Event()

    def tasks():
        started.set()
        # Would go on for ever, as long as it is asked.
        while True:
            yield 3

    endless = pool.imap_unordered(square, tasks())
    started.wait()
    # Behind that, they are never handed out.
    pending = [
        pool.apply_async(square, (2,), error_callback=lambda error: told.append(error)),
        pool.map_async(square, range(20), error_callback=lambda error: 1 / 0),
        pool.starmap_async(square, [(1,)]),
    ]
    items = [pool.imap(square, [1, 2]), pool.imap(square, range(9), 3)]
    # What callbacks raise is shown.
    sys.stderr = open(os.devnull, "w")
    send_fatal(pool)
    said = [outcome(job.get) for job in pending]
    said += [outcome(next, item) for item in items]
    said.append(outcome(list, endless))
    said.append([type(error).__name__ for error in told])
    pool.close()
    pool.join()
    return said
"""
    )
    broken = "QueueBrokenError"
    assert program(source, method, entrance, side) == [broken] * 6 + [[broken]]


@pytest.mark.parametrize("side", SIDES)
def test_an_iterable_of_tasks_that_waits_for_results_does_not_keep_jobs_from_failing(
    side: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(1)
    wanted = threading.Semaphore(2)

    def tasks():
        while True:
            wanted.acquire()
            yield 3

    results = pool.imap(square, tasks())
    said = [next(results), next(results)]
    send_fatal(pool)
    said += [outcome(next, results), outcome(next, results)]
    wanted.release()
    pool.terminate()
    pool.join()
    return said
"""
    )
    expected = [9, 9, "QueueBrokenError", "StopIteration"]
    assert program(source, "fork", "get_context", side) == expected


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_broken_pool_refuses_work_and_ends_in_every_way(
    entrance: str, side: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def ways_to_submit(pool):
    return [
        raised(pool.apply, square, (1,)),
        raised(pool.apply_async, square, (1,)),
        raised(pool.map, square, [1]),
        raised(pool.map, square, []),
        raised(pool.starmap_async, square, [(1,)]),
        raised(pool.imap, square, [1]),
        raised(pool.imap, square, [1], 2),
        raised(pool.imap_unordered, square, [1]),
    ]


def close(pool):
    pool.close()


def terminate(pool):
    pool.terminate()


def leave(pool):
    pool.__exit__(None, None, None)


def body():
    said = set()
    for end in (close, terminate, leave):
        pool = broken_pool(2)
        workers = list(pool._pool)
        said.update(ways_to_submit(pool))
        end(pool)
        pool.join()
        assert not multiprocessing.active_children(), end
        assert raised(pool.apply, square, (1,)) == "ValueError"
    return sorted(said)
"""
    )
    assert program(source, "fork", entrance, side) == ["QueueBrokenError"]


@pytest.mark.parametrize("entrance", [*ENTRANCES, "uninstalled"])
def test_a_pool_that_is_closed_while_it_breaks_ends(entrance: str, program: Program) -> None:
    source = (
        HEAD
        + """
started = os.pipe()


def wait_to_be_ended():
    os.write(started[1], b".")
    signal.pause()


def body():
    pool = context().Pool(1)
    if sys.argv[2] == "uninstalled":
        semlock.uninstall()
    job = pool.apply_async(wait_to_be_ended)
    os.read(started[0], 1)
    put = pool._change_notifier.put

    def close_first(what):
        # Called to say that the pool's other threads have been told to end.
        pool._change_notifier.put = put
        pool.close()
        put(what)

    pool._change_notifier.put = close_first
    # Its only worker is busy, and does not find out.
    break_pipes(pool)
    said = outcome(job.get)
    pool._result_handler.join()
    pool.join()
    return said
"""
    )
    assert program(source, "fork", entrance) == "QueueBrokenError"


def test_a_pool_that_breaks_after_uninstall_refuses_work_and_ends(program: Program) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(1)
    semlock.uninstall()
    break_pipes(pool)
    pool._result_handler.join()
    # As the thread does that looks after them, if it is not told to end before it finds out.
    for worker in pool._pool:
        worker.join()
    pool._pool.clear()
    said = [outcome(pool.apply, square, (1,)), outcome(pool.map, square, [1])]
    with pool:
        pass
    pool.join()
    return [*said, multiprocessing.active_children()]
"""
    )
    assert program(source, "fork", "install") == ["QueueBrokenError"] * 2 + [[]]


def test_a_pool_that_breaks_while_it_is_made_is_a_broken_pool(program: Program) -> None:
    source = (
        HEAD
        + """
class Breaks(semlock.pool.Pool):
    def _repopulate_pool(self):
        break_pipes(self)
        super()._repopulate_pool()


def body():
    pool = Breaks(2, context=context())
    said = outcome(pool.apply, square, (1,))
    pool.terminate()
    pool.join()
    return [said, multiprocessing.active_children()]
"""
    )
    assert program(source, "fork", "get_context") == ["QueueBrokenError", []]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_map_whose_items_are_long_in_coming_is_refused_when_no_worker_is_left(
    entrance: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(1)
    worker = pool._pool[0]

    def items():
        break_pipes(pool)
        worker.kill()
        pool._worker_handler.join()
        # As that thread does, if it is not told to end before it finds out.
        pool._pool.clear()
        yield 1

    def divided():
        yield 1 / 0

    said = [outcome(pool.map, square, items()), outcome(pool.map, square, [1])]
    pool.terminate()
    pool.join()
    with context().Pool(1) as pool:
        # An error of the items' own.
        return [*said, outcome(pool.map, square, divided())]
"""
    )
    expected = ["QueueBrokenError", "QueueBrokenError", "ZeroDivisionError"]
    assert program(source, "fork", entrance) == expected


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_job_that_is_refused_while_the_pool_is_terminated_does_not_keep_it_from_ending(
    entrance: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(1)
    submits, submit, terminates, terminate = (threading.Event() for _ in range(4))
    said = {}

    def items():
        submits.set()
        submit.wait()
        yield 1

    class WaitsToo:
        def acquire(self):
            terminates.set()
            terminate.wait()

    def say(what, *arguments):
        said[what] = outcome(*arguments)

    pool._inqueue._rlock = WaitsToo()
    threads = [
        threading.Thread(target=say, args=("map", pool.map, square, items())),
        threading.Thread(target=say, args=("terminate", pool.terminate)),
    ]
    threads[0].start()
    submits.wait()
    threads[1].start()
    terminates.wait()
    break_pipes(pool)
    pool._result_handler.join()
    submit.set()
    threads[0].join()
    terminate.set()
    threads[1].join()
    return [said["map"], said["terminate"], multiprocessing.active_children()]
"""
    )
    assert program(source, "fork", entrance) == ["QueueBrokenError", None, []]


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_an_iterator_that_has_failed_ends_whatever_its_length_turns_out_to_be(
    kind: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def busy_but_once(x):
    if x > 0:
        busy()
    return x


def body():
    said = []
    for count in (2, 4):
        pool = context().Pool(1)
        handed_out, told = threading.Event(), threading.Event()

        def tasks():
            yield from range(count)
            handed_out.set()
            told.wait()

        results = getattr(pool, sys.argv[3])(busy_but_once, tasks())
        said.append(next(results))
        handed_out.wait()
        break_pipes(pool)
        said.append(outcome(next, results))
        told.set()
        pool._task_handler.join()
        said.append(outcome(next, results))
        pool.terminate()
        pool.join()
    return said
"""
    )
    expected = [0, "QueueBrokenError", "StopIteration"] * 2
    assert program(source, "fork", "get_context", kind) == expected


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_an_iterable_of_tasks_can_terminate_a_broken_pool(entrance: str, program: Program) -> None:
    source = (
        HEAD
        + """
def body():
    pool = context().Pool(1)
    told = threading.Event()

    def tasks():
        yield 3
        told.wait()
        pool.terminate()

    results = pool.imap(square, tasks())
    said = [next(results)]
    break_pipes(pool)
    said.append(outcome(next, results))
    told.set()
    pool._task_handler.join()
    pool.terminate()
    pool.join()
    return [*said, multiprocessing.active_children()]
"""
    )
    assert program(source, "fork", entrance) == [9, "QueueBrokenError", []]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_terminate_ends_a_pool_that_breaks_while_tasks_are_taken_away(
    entrance: str, program: Program
) -> None:
    source = (
        HEAD
        + """
started = os.pipe()


def wait_to_be_ended(_):
    os.write(started[1], b".")
    signal.pause()


def body():
    pool = context().Pool(1)
    broken = threading.Event()

    def tasks():
        yield from range(2)
        # So long, tasks are taken away.
        broken.wait()

    pool.imap(wait_to_be_ended, tasks())
    os.read(started[0], 1)
    reader = pool._inqueue._reader
    poll, said = reader.poll, []
    # The second task, for which there is no worker.
    poll(None)

    def poll_and_break():
        said.append(poll())
        break_pipes(pool)
        broken.set()
        return said[-1]

    reader.poll = poll_and_break
    pool.terminate()
    pool.join()
    return [said[0], multiprocessing.active_children()]
"""
    )
    assert program(source, "fork", entrance) == [True, []]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_second_terminate_returns_where_the_first_was_interrupted(
    entrance: str, program: Program
) -> None:
    source = (
        HEAD
        + """
class Interrupted:
    def acquire(self):
        raise KeyboardInterrupt


def body():
    pool = context().Pool(1)
    pool.apply_async(busy)
    pool._inqueue._rlock = Interrupted()
    try:
        pool.terminate()
    except KeyboardInterrupt:
        said = "interrupted"
    pool.terminate()
    pool._worker_handler.join()
    for worker in pool._pool:
        worker.kill()
        worker.join()
    return said
"""
    )
    assert program(source, "fork", entrance) == "interrupted"


@pytest.mark.parametrize(
    ("entrance", "kind"), [("get_context", "Pool"), ("install", "Pool"), ("install", "ThreadPool")]
)
def test_a_pool_ends_when_its_close_is_interrupted(
    entrance: str, kind: str, program: Program
) -> None:
    source = (
        HEAD
        + """
from multiprocessing.pool import ThreadPool


def write_and_interrupt(*arguments):
    count = os.write(*arguments)
    if threading.current_thread() is threading.main_thread():
        os.kill(os.getpid(), signal.SIGINT)
    return count


def body():
    ctx = context()
    pool = ThreadPool(1) if sys.argv[3] == "ThreadPool" else ctx.Pool(1)
    said = pool.map(square, [3])
    ours.os = semlock.pool.os = System(write=write_and_interrupt)
    try:
        pool.close()
    except KeyboardInterrupt:
        said.append("interrupted")
    ours.os = semlock.pool.os = os
    pool.join()
    return said
"""
    )
    assert program(source, "fork", entrance, kind) == [9, "interrupted"]


def test_a_failed_job_that_is_kept_does_not_keep_its_pool(program: Program) -> None:
    source = (
        HEAD
        + """
import weakref


def body():
    pool = context().Pool(1)
    job = pool.apply_async(busy)
    break_pipes(pool)
    try:
        job.get()
    except QueueBrokenError as error:
        kept = error
    pool.terminate()
    pool.join()
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    return [reference() is None, job.ready(), type(kept).__name__]
"""
    )
    assert program(source, "fork", "get_context") == [True, True, "QueueBrokenError"]


def test_how_many_jobs_wait_is_told_as_by_the_stdlib(program: Program) -> None:
    source = (
        HEAD
        + """
def body():
    with context().Pool(1) as pool:
        pool.map(square, [1])
        return [pool._taskqueue.qsize(), pool._taskqueue.empty()]
"""
    )
    assert program(source, "fork", "get_context") == [0, True]


@pytest.mark.parametrize("side", SIDES)
def test_workers_of_a_broken_pool_are_not_replaced(side: str, program: Program) -> None:
    source = (
        HEAD
        + """
def body():
    pool = broken_pool(3)
    pool._result_handler.join()
    # They are all numbered.
    number = multiprocessing.Process().name.rpartition("-")[2]
    pool.terminate()
    pool.join()
    return int(number)
"""
    )
    # Three, perhaps one more each before the pool was known to be broken, and the one asked for.
    assert program(source, "fork", "get_context", side) <= 3 + 3 + 1


def test_a_thread_pool_and_pools_of_the_stdlib_are_left_alone(program: Program) -> None:
    source = (
        HEAD
        + """
from multiprocessing.pool import Pool, ThreadPool


class Before(Pool):
    pass


def body():
    stocks, said = Pool(2), []
    context()
    with ThreadPool(2) as pool, Before(2) as subclass:
        said += [pool.map(square, [1, 2]), subclass.map(square, [1, 2])]
        said.append(type(subclass._taskqueue).__name__)
        said.append(type(pool._taskqueue).__name__)
    semlock.uninstall()
    with stocks, Before(2) as subclass:
        said += [stocks.map(square, [3]), type(subclass._taskqueue).__name__]
    return said
"""
    )
    assert program(source, "fork", "install") == [
        [1, 4], [1, 4], "_Submitted", "SimpleQueue", [9], "SimpleQueue",
    ]  # fmt: skip

"""Queues bring whole messages, and go on, whoever is killed while using them."""

from __future__ import annotations

from pathlib import Path

import programs
import pytest
from programs import METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


KILLS = (
    programs.KILLS
    + """
from children import state_of

KINDS = ("SimpleQueue", "Queue", "JoinableQueue")
HUGE = b"y" * 3_000_000  # goes in parts: larger than all that a queue holds


def channel(queue):
    return queue._reader._channel


def put_and_wait(queue, *messages):
    for message in messages:
        queue.put(message)
    signal.pause()


def is_in_the_middle_of_its_message(process, queue):
    # The beginning of what is larger than the queue's memory was sent, and nobody reads.
    return not channel(queue).is_empty() and sleeping(process)


def get_and_wait(queue):
    queue.get()
    signal.pause()


def stop(process):
    os.kill(process.pid, signal.SIGSTOP)
    # It can be a fork server's child.
    threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
    wait_until(lambda: all(state_of(process.pid, thread) == "T" for thread in threads))


def resume(process):
    os.kill(process.pid, signal.SIGCONT)


def kill(process):
    process.kill()
    return killed(process)


def run(context, target, *arguments):
    child = context.Process(target=target, args=arguments)
    child.start()
    return child


def sleeping(process):
    return is_asleep(process.pid)


def done_with(*queues):
    for queue in queues:
        if hasattr(queue, "join_thread"):
            queue.close()
            queue.join_thread()


"""
)


# ---- As the stdlib's ----


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_messages_of_every_size_arrive_in_order(method: str, kind: str, program: Program) -> None:
    source = """
SIZES = [0, 1, 100, 4087, 4092, 4096, 16384, 16385, 65532, 65536, 65537, 300_000, 3_000_000]


def send(queue):
    for size in SIZES:
        queue.put(bytes([size % 251]) * size)
    queue.put("äöü")
    queue.put({"nested": [1, 2, (3,)]})


def body():
    context = semlock.get_context(method())
    queue = getattr(context, sys.argv[2])()
    before = descriptors()
    child = context.Process(target=send, args=(queue,))
    child.start()
    said = [queue.get() == bytes([size % 251]) * size for size in SIZES]
    said += [queue.get(), queue.get(), queue.empty()]
    child.join()
    return [all(said[:len(SIZES)]), *said[len(SIZES):]]
"""
    assert program(source, method, kind) == [True, "äöü", {"nested": [1, 2, [3]]}, True]


@pytest.mark.parametrize("method", METHODS)
def test_each_of_many_messages_arrives_once_at_many_readers(method: str, program: Program) -> None:
    source = """
COUNT = 300


def send(queue, number):
    for i in range(COUNT):
        queue.put((number, i, bytes([i % 256]) * (i * 97 % 20_000)))


def receive(queue, results):
    received = []
    while (message := queue.get()) is not None:
        number, i, content = message
        assert content == bytes([i % 256]) * (i * 97 % 20_000)
        received.append((number, i))
    results.put(received)


def body():
    context = semlock.get_context(method())
    queue, results = context.Queue(7), context.SimpleQueue()
    writers = [context.Process(target=send, args=(queue, n)) for n in range(3)]
    readers = [context.Process(target=receive, args=(queue, results)) for _ in range(3)]
    for child in writers + readers:
        child.start()
    for child in writers:
        child.join()
    for _ in readers:
        queue.put(None)
    lists = [results.get() for _ in readers]
    for child in readers:
        child.join()
    queue.close()
    queue.join_thread()
    received = [tuple(each) for some in lists for each in some]
    in_order = all(
        [i for n, i in some if n == number] == sorted(i for n, i in some if n == number)
        for some in lists for number in range(3)
    )
    return [in_order, sorted(received) == [(n, i) for n in range(3) for i in range(COUNT)]]
"""
    assert program(source, method) == [True, True]


def test_full_and_empty_and_closed_are_told_as_by_the_stdlib(program: Program) -> None:
    source = """
def ways(context):
    said = []
    queue = context.Queue(2)
    said.append([queue.empty(), queue.full(), queue.qsize()])
    said.append([raised(queue.get, False), raised(queue.get, True, 0.01), raised(queue.get_nowait)])
    said.append(raised(queue.get, timeout=-1))
    queue.put(1)
    queue.put(2, timeout=1)
    said.append([queue.full(), queue.qsize()])
    said.append([raised(queue.put, 3, False), raised(queue.put, 3, True, 0.01)])
    said.append([raised(queue.put_nowait, 3), raised(queue.put, 3, timeout=-1)])
    said.append([queue.get(), queue.get(timeout=60), queue.qsize(), queue.full()])
    queue.close()
    said.append([raised(queue.put, 1), raised(queue.get)])
    queue.join_thread()
    joinable = context.JoinableQueue()
    joinable.join()
    joinable.put(1)
    joinable.get()
    joinable.task_done()
    joinable.join()
    said.append(raised(joinable.task_done))
    joinable.close()
    joinable.join_thread()
    simple = context.SimpleQueue()
    said.append([simple.empty(), simple.put(1), simple.empty(), simple.get()])
    for each in queue, joinable, simple:
        said.append(raised(pickle.dumps, each))
    simple.close()
    said.append(raised(simple.get))
    return said


def body():
    return [ways(multiprocessing.get_context("fork")), ways(semlock.get_context("fork"))]
"""
    stocks, ours = program(source)
    assert ours == stocks


def test_a_putter_may_wait_for_a_getter_with_a_timeout(program: Program) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue(1)
    queue.put(1)
    start = time.monotonic()
    said = [raised(queue.put, 2, True, 0.2), time.monotonic() - start >= 0.2]
    start = time.monotonic()
    queue.get()
    said += [raised(queue.get, True, 0.2), time.monotonic() - start >= 0.2]
    thread = threading.Timer(0.1, queue.put, ("late",))
    thread.start()
    said.append(queue.get(timeout=60))
    thread.join()
    queue.close()
    queue.join_thread()
    return said
"""
    assert program(source) == ["Full", True, "Empty", True, "late"]


@pytest.mark.parametrize("method", METHODS)
def test_a_bounded_queue_goes_on_when_its_putter_has_exited(method: str, program: Program) -> None:
    source = """
def put_one(queue, i):
    queue.put(i)


def body():
    context = semlock.get_context(method())
    queue = context.Queue(1)
    said = []
    for i in range(4):
        child = context.Process(target=put_one, args=(queue, i))
        child.start()
        child.join()
        said.append(queue.get())
    return said
"""
    assert program(source, method) == [0, 1, 2, 3]


def test_queues_keep_no_descriptor_open_that_the_stdlibs_do_not(program: Program) -> None:
    source = """
def pipes():
    return [kept for kept in descriptors() if "pipe" in kept[1]]


def body():
    context = semlock.get_context("fork")
    before = pipes()
    for kind in ("SimpleQueue", "Queue", "JoinableQueue"):
        queue = getattr(context, kind)()
        queue.put(1)
        queue.get()
        queue.close()
        if kind != "SimpleQueue":
            queue.join_thread()
        del queue
    gc.collect()
    return pipes() == before
"""
    assert program(source) is True


# ---- Killed while nothing moves: nothing happens ----


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_a_reader_killed_while_it_waits_is_followed_by_the_next(
    method: str, kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
def wait(queue, ready):
    ready.set()
    queue.get()


def body():
    context = semlock.get_context(method())
    queue, ready = getattr(context, sys.argv[2])(), context.Event()
    child = run(context, wait, queue, ready)
    ready.wait()
    wait_until(lambda: sleeping(child))
    child.kill()
    child.join()
    queue.put("for the next")
    said = queue.get()
    done_with(queue)
    return said
"""
    )
    assert program(source, method, kind) == "for the next"


def test_a_writer_killed_while_it_waits_for_room_is_followed_by_the_next(program: Program) -> None:
    source = (
        KILLS
        + """
def fill(queue):
    while True:
        queue.put(b"x" * 1000)


def body():
    context = semlock.get_context("fork")
    queue = context.SimpleQueue()
    child = run(context, fill, queue)
    wait_until(lambda: queue._reader._channel.count() > 200 and sleeping(child))
    child.kill()
    child.join()
    count = 0
    while not queue.empty():
        assert queue.get() == b"x" * 1000
        count += 1
    queue.put("the next")
    return [count > 200, queue.get()]
"""
    )
    assert program(source) == [True, "the next"]


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_goes_on_when_an_idle_worker_is_killed(method: str, program: Program) -> None:
    source = (
        KILLS
        + """
def square(x):
    return x * x


def body():
    context = semlock.get_context(method())
    said = []
    with context.Pool(2) as pool:
        for _ in range(3):
            said.append(pool.map(square, range(4)))
            # One of them waits in get(), and the other for the lock that it holds.
            killed = list(pool._pool)
            wait_until(lambda: all(map(sleeping, killed)))
            for worker in killed:
                worker.kill()
            for worker in killed:
                worker.join()
            wait_until(lambda: len(pool._pool) == 2 and not set(killed) & set(pool._pool))
        said.append(pool.map(square, range(4)))
        pool.close()
        pool.join()
    return said
"""
    )
    assert program(source, method) == [[0, 1, 4, 9]] * 4


# ---- Killed in the middle of a message ----


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_a_reader_killed_in_the_middle_costs_that_message_and_no_other(
    method: str, kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context(method())
    queue = getattr(context, sys.argv[2])()
    writer = run(context, put_and_wait, queue, HUGE, "second", LARGE)
    wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
    stop(writer)
    reader = run(context, get_and_wait, queue)
    # It has read what there is, and waits for more.
    wait_until(lambda: channel(queue).is_empty() and sleeping(reader))
    said = [kill(reader)]
    resume(writer)
    said += [queue.get(), queue.get() == LARGE, queue.empty()]
    queue.put("third")
    said += [queue.get(), kill(writer)]
    done_with(queue)
    return said
"""
    )
    assert program(source, method, kind) == [True, "second", True, True, "third", True]


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_a_writer_killed_in_the_middle_costs_its_own_messages_and_no_other(
    method: str, kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
def put(queue):
    queue.put("of the next")
    done_with(queue)


def body():
    context = semlock.get_context(method())
    queue = getattr(context, sys.argv[2])()
    said = []
    for _ in range(2):
        writer = run(context, put_and_wait, queue, "before", HUGE, "lost")
        wait_until(lambda: not queue.empty())
        said.append(queue.get())
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        said.append(kill(writer))
        child = run(context, put, queue)
        said.append(queue.get())
        child.join()
        said += [child.exitcode, queue.empty()]
    done_with(queue)
    return said
"""
    )
    assert program(source, method, kind) == ["before", True, "of the next", 0, True] * 2


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
def test_a_reader_in_the_middle_of_a_message_finds_out_that_its_writer_was_killed(
    kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
def get(queue, results):
    results.send(queue.get())


def body():
    context = semlock.get_context("fork")
    queue = getattr(context, sys.argv[1])()
    writer = run(context, put_and_wait, queue, HUGE)
    wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
    stop(writer)
    hears, says = context.Pipe(False)
    reader = run(context, get, queue, says)
    wait_until(lambda: channel(queue).is_empty() and sleeping(reader))
    said = [kill(writer), hears.poll()]
    queue.put("of another")
    said.append(hears.recv())
    reader.join()
    done_with(queue)
    return said
"""
    )
    assert program(source, kind) == [True, False, "of another"]


def test_a_reader_with_a_timeout_returns_in_time_though_a_writer_was_killed_in_the_middle(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    said = []
    for kind in ("Queue", "JoinableQueue"):
        queue = getattr(context, kind)()
        writer = run(context, put_and_wait, queue, HUGE)
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        said += [kill(writer), raised(queue.get, True, 0.05), queue.empty()]
        queue.put(1)
        said.append(queue.get(timeout=60))
        done_with(queue)
    return said
"""
    )
    assert program(source) == [True, "Empty", True, 1] * 2


def test_the_last_writers_death_in_the_middle_is_the_end_of_the_file(program: Program) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    said = []
    for kind in KINDS:
        queue = getattr(context, kind)()
        queue.put("before")
        child = run(context, put_and_wait, queue, HUGE)
        wait_until(lambda: sleeping(child))
        queue._writer.close()
        said += [kill(child), queue.get(), raised(queue.get)]
    queue = context.Queue()
    queue._writer.close()
    return [*said, raised(queue.get)]
"""
    )
    assert program(source) == [True, "before", "EOFError"] * 3 + ["EOFError"]


def test_a_writer_in_the_middle_of_a_message_goes_on_when_its_reader_is_killed(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    said = []
    for kind in KINDS:
        queue, errors = getattr(context, kind)(), []
        queue._on_queue_feeder_error = lambda error, message: errors.append(type(error).__name__)
        writer = run(context, put_and_wait, queue, HUGE, HUGE, "more")
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        reader = run(context, get_and_wait, queue)
        said.append(kill(reader))  # anywhere
        while (message := queue.get()) != "more":
            assert message == HUGE
        said += [errors, queue.empty(), kill(writer)]
        done_with(queue)
    return said
"""
    )
    assert program(source) == [True, [], True, True] * 3


def test_a_putter_that_waits_for_its_place_gets_that_of_a_message_whose_reader_was_killed(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def put(queue):
    queue.put("the next")
    done_with(queue)


def body():
    context = semlock.get_context("fork")
    said = []
    for kind in ("Queue", "JoinableQueue"):
        queue = getattr(context, kind)(1)
        writer = run(context, put_and_wait, queue, HUGE)
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        waiting = run(context, put, queue)
        wait_until(lambda: sleeping(waiting))
        said.append(raised(queue.put, "no place", False))
        stop(writer)
        reader = run(context, get_and_wait, queue)
        wait_until(lambda: channel(queue).is_empty() and sleeping(reader))
        said.append(kill(reader))
        resume(writer)
        said += [queue.get(), kill(writer), queue.full(), queue.qsize()]
        waiting.join()
        said.append(waiting.exitcode)
        done_with(queue)
    return said
"""
    )
    assert program(source) == ["Full", True, "the next", True, False, 0, 0] * 2


def test_join_raises_if_a_worker_was_killed_in_the_middle_of_a_task(program: Program) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    writer = run(context, put_and_wait, queue, HUGE)
    wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
    stop(writer)
    reader = run(context, get_and_wait, queue)
    wait_until(lambda: channel(queue).is_empty() and sleeping(reader))
    said = [kill(reader)]
    resume(writer)
    try:
        queue.join()
    except semlock.WorkerDied as error:
        said.append(error.tasks)
    # Its writer sends the rest of it, which the next reader drops.
    said += [raised(queue.get, True, 0.5), raised(queue.join), kill(writer), raised(queue.join)]
    done_with(queue)
    return said
"""
    )
    assert program(source) == [True, 1, "Empty", "nothing", True, "nothing"]


def test_a_living_writer_that_is_slow_in_the_middle_is_waited_for(program: Program) -> None:
    source = (
        KILLS
        + """
def put(queue):
    queue.put(HUGE)
    done_with(queue)


def put_directly(queue):
    queue._writer.send(HUGE)


def wake(writer, queue):
    # The reader has read all that is there, and waits.
    wait_until(channel(queue).is_empty)
    # Longer than a reader waits before it checks the writer.
    time.sleep(0.3)
    resume(writer)


def body():
    context = semlock.get_context("fork")
    said = []
    for kind in KINDS:
        queue = getattr(context, kind)()
        for target in (put, put_directly):
            child = run(context, target, queue)
            wait_until(lambda: is_in_the_middle_of_its_message(child, queue))
            stop(child)
            thread = threading.Thread(target=wake, args=(child, queue))
            thread.start()
            said.append(queue.get() == HUGE)
            thread.join()
            child.join()
            said.append(child.exitcode)
    return said
"""
    )
    assert program(source) == [True, 0, True, 0] * 3


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
def test_an_exception_in_the_middle_costs_that_message_and_one_before_nothing(
    kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
class Interrupt(Exception):
    pass


def interrupt(*_):
    raise Interrupt


def interrupted_when(condition, function, *arguments):
    '''Whether a signal that arrives then ends a call.'''
    def send():
        wait_until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    said = raised(function, *arguments)
    thread.join()
    return said


def body():
    signal.signal(signal.SIGUSR1, interrupt)
    context = semlock.get_context("fork")
    queue = getattr(context, sys.argv[1])()
    # While it waits for a message.
    said = [interrupted_when(lambda: is_asleep(os.getpid()), queue.get)]
    queue.put("whole")
    said.append(queue.get())
    # Between two parts.
    writer = run(context, put_and_wait, queue, HUGE, "second")
    wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
    stop(writer)
    middle = lambda: channel(queue).is_empty() and is_asleep(os.getpid())
    said.append(interrupted_when(middle, queue.get))
    resume(writer)
    said += [queue.get(), queue.empty(), kill(writer)]
    # While it writes.
    is_there = lambda: not channel(queue).is_empty() and is_asleep(os.getpid())
    said.append(interrupted_when(is_there, queue._writer.send, HUGE))
    # What was sent of it may leave no room, and a SimpleQueue waits for that.
    thread = threading.Thread(target=queue.put, args=("third",))
    thread.start()
    said += [queue.get(), queue.empty()]
    thread.join()
    done_with(queue)
    return said
"""
    )
    said = ["Interrupt", "whole", "Interrupt", "second", True, True, "Interrupt", "third", True]
    assert program(source, kind) == said


@pytest.mark.parametrize("method", METHODS)
def test_an_executor_breaks_when_a_worker_is_killed_wherever_it_is(
    method: str, program: Program
) -> None:
    source = (
        KILLS
        + """
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import semlock.channels as channels


def die_now(_):
    die()


def die_in_the_result(_):
    # Of the executor's queue of results, which is a SimpleQueue.
    return Deadly()


class Deadly:
    def __reduce__(self):
        die()


def die_in_the_next_task(_):
    # Of the executor's own queue, which is of the stdlib's class.
    channels.ReadingEnd._receive = after_calls(0, channels.ReadingEnd._receive, die)


def body():
    context = semlock.get_context(method())
    said = []
    for fatal in (die_now, die_in_the_result, die_in_the_next_task):
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            try:
                futures = [executor.submit(fatal, 0)]
                while True:
                    futures.append(executor.submit(abs, -1))
                    futures[-1].result()
            except BrokenProcessPool:
                said.append("BrokenProcessPool")
    return said
"""
    )
    assert program(source, method) == ["BrokenProcessPool"] * 3


@pytest.mark.parametrize("shutdown", ["shutdown", "no shutdown"])
@pytest.mark.parametrize("imported", ["before", "after"])
@pytest.mark.parametrize("method", METHODS)
def test_an_executor_that_hands_out_more_when_it_is_broken_already_fails_all_futures(
    method: str, imported: str, shutdown: str, program: Program
) -> None:
    source = (
        KILLS
        + """
import semlock.channels as channels


def die_in_the_next_task():
    wait_until(lambda: os.path.exists("go"))
    channels.ReadingEnd._receive = after_calls(0, channels.ReadingEnd._receive, die)


def body():
    if sys.argv[2] == "before":
        import concurrent.futures.process
    semlock.install()
    from concurrent.futures import ProcessPoolExecutor

    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method()))
    workers = executor._processes
    futures, found_out = [], threading.Event()

    def find_out(_):
        (worker,) = workers.values()
        wait_until(lambda: worker.exitcode is not None)
        # This thread is going to hand out what is submitted meanwhile.
        futures.extend(executor.submit(abs, -1) for _ in range(20))
        if sys.argv[3] == "shutdown":
            executor.shutdown(wait=False)
        found_out.set()

    executor.submit(die_in_the_next_task).add_done_callback(find_out)
    manager = executor._executor_manager_thread
    futures.append(executor.submit(abs, -1))
    # It has been handed out.
    wait_until(futures[0].running)
    open("go", "x").close()
    found_out.wait()
    said = sorted({raised(future.result) for future in futures})
    executor.shutdown()
    # As this process ends, CPython 3.10 wakes a thread that is just closing what it is woken by.
    manager.join()
    return said
"""
    )
    assert program(source, method, imported, shutdown) == ["BrokenProcessPool"]


@pytest.mark.parametrize("way", ["install", "no install"])
@pytest.mark.parametrize("method", METHODS)
def test_subclasses_of_the_stdlibs_go_on_when_a_process_is_killed(
    method: str, way: str, program: Program
) -> None:
    source = (
        KILLS
        + """
import multiprocessing.queues as stocks


class EarlyQueue(stocks.Queue):
    pass


class EarlyJoinableQueue(stocks.JoinableQueue):
    pass


class EarlySimpleQueue(stocks.SimpleQueue):
    pass


def use(queue):
    # What the dead had sent of a message may leave no room, and a SimpleQueue waits for that.
    thread = threading.Thread(target=queue.put, args=("whole",))
    thread.start()
    message = queue.get()
    thread.join()
    return message


def use_in_a_child(queue, results):
    results.send(use(queue))


def body():
    context = semlock.get_context(method())
    if sys.argv[2] == "install":
        semlock.install()
        context = multiprocessing.get_context(method())
    said = []
    for kind in (EarlyQueue, EarlyJoinableQueue, EarlySimpleQueue):
        queue = kind(ctx=context)
        writer = run(context, put_and_wait, queue, HUGE, "second")
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        stop(writer)
        reader = run(context, get_and_wait, queue)
        wait_until(lambda: channel(queue).is_empty() and sleeping(reader))
        said.append(kill(reader))
        resume(writer)
        said += [queue.get(), kill(writer)]
        writer = run(context, put_and_wait, queue, HUGE, "second")
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        said += [kill(writer), use(queue)]
        reader, writer = context.Pipe(False)
        child = run(context, use_in_a_child, queue, writer)
        said += [reader.recv(), queue.empty()]
        child.join()
        done_with(queue)
    return said
"""
    )
    each = [True, "second", True, True, "whole", "whole", True]
    assert program(source, method, way) == each * 3


def test_an_end_that_is_closed_while_somebody_waits_at_it_leaves_the_queue_whole(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    said = []
    for kind in KINDS:
        queue, got = getattr(context, kind)(), []
        reading = threading.Thread(target=lambda: got.append(queue.get()))
        reading.start()
        wait_until(lambda: is_asleep(os.getpid(), reading.native_id))
        channel_of_it, writer = channel(queue), queue._writer
        queue._reader.close()
        said.append(raised(queue.get))
        writer.send("for the one that waits")
        reading.join()
        said.append(got)
        writing = threading.Thread(target=writer.send, args=(HUGE,))
        writing.start()
        wait_until(lambda: not channel_of_it.is_empty())
        wait_until(lambda: is_asleep(os.getpid(), writing.native_id))
        writer.close()
        said += [len(channel_of_it.receive()) > len(HUGE), raised(writer.send, 1)]
        writing.join()
    return said
"""
    )
    assert program(source) == ["OSError", ["for the one that waits"], True, "OSError"] * 3


# ---- Places of bounded queues ----


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_the_places_of_a_putter_that_was_killed_before_it_sent_are_others(
    method: str, kind: str, program: Program
) -> None:
    source = (
        KILLS
        + """
def put_and_die(queue):
    # It does not go through at once, and so the others have to wait for it.
    queue.put(HUGE)
    for i in range(2):
        queue.put(i)
    assert queue.full()
    die()


def body():
    context = semlock.get_context(method())
    queue = getattr(context, sys.argv[2])(3)
    said = []
    for put in (queue.put, queue.put_nowait):
        said.append(killed(run(context, put_and_die, queue)))
        for i in range(3):
            put(i)
        said += [raised(queue.put, 3, False), queue.full(), queue.qsize()]
        said += [queue.get() for _ in range(3)]
        said += [queue.full(), queue.qsize()]
    done_with(queue)
    return said
"""
    )
    once = [True, "Full", True, 3, 0, 1, 2, False, 0]
    assert program(source, method, kind) == once * 2


def test_a_putter_that_waits_gets_the_place_of_one_that_is_killed(program: Program) -> None:
    source = (
        KILLS
        + """
def put(queue):
    queue.put("for the next")


def body():
    context = semlock.get_context("fork")
    queue = context.Queue(1)
    holder = run(context, put_and_wait, queue, HUGE)
    wait_until(lambda: is_in_the_middle_of_its_message(holder, queue))
    # One that only waits leaves nothing behind, whether it is the first in the line or not.
    waiters = [run(context, put, queue) for _ in range(2)]
    wait_until(lambda: all(map(sleeping, waiters)))
    said = [kill(waiter) for waiter in waiters]
    waiter = run(context, put, queue)
    wait_until(lambda: sleeping(waiter))
    said.append(kill(holder))
    said += [queue.get(), queue.full()]
    waiter.join()
    return [*said, waiter.exitcode]
"""
    )
    assert program(source) == [True, True, True, "for the next", False, 0]


def test_a_sender_that_forks_and_is_killed_leaves_no_place_taken(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def fork_and_die(queue, says):
    queue.put(HUGE)
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    if os.fork() == 0:
        says.send(os.getpid())
        signal.pause()
    die()


def body():
    context = semlock.get_context("fork")
    queue, (hears, says) = context.Queue(1), context.Pipe(False)
    said = [killed(run(context, fork_and_die, queue, says))]
    grandchild = hears.recv()
    try:
        queue.put("for the next")
        said += [queue.get(), queue.empty()]
        done_with(queue)
    finally:
        os.kill(grandchild, signal.SIGKILL)
    return said
"""
    )
    assert program(source) == [True, "for the next", True]


@pytest.mark.parametrize("name", ["claim", "send", "receive", "done"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_killed_where_a_place_or_a_task_changes_hands_costs_its_message_alone(
    moment: str, name: str, program: Program
) -> None:
    source = (
        KILLS
        + """
class Deadly:
    '''A channel whose user dies at one of its calls.'''

    def __init__(self, channel, name, moment):
        self._channel, self._name, self._moment = channel, name, moment

    def __getattr__(self, name):
        attribute = getattr(self._channel, name)
        if name != self._name:
            return attribute

        def replacement(*arguments):
            if self._moment == "after":
                attribute(*arguments)
            die()

        return replacement


def move_and_die(queue, moment, name):
    deadly = Deadly(channel(queue), name, moment)
    queue._direct = queue._reader._channel = queue._writer._channel = deadly
    queue._unfinished_tasks._channel = deadly
    if name in ("claim", "send"):
        # It takes a place first, and is sent by the feeder thread.
        queue.put(Fails() if name == "claim" else HUGE)
        done_with(queue)
    else:
        queue.get()
        queue.task_done()


class Fails:
    def __reduce__(self):
        raise LookupError


def body():
    context = semlock.get_context("fork")
    moment, name = sys.argv[1:]
    queue = context.JoinableQueue(1)
    is_put = name in ("receive", "done")
    if is_put:
        queue.put("message")
    child = run(context, move_and_die, queue, moment, name)
    if (moment, name) == ("after", "send"):
        # It is whole.
        assert queue.get() == HUGE
        queue.task_done()
    assert killed(child)
    if (moment, name) == ("before", "receive"):
        assert queue.get() == "message"
        queue.task_done()
    lost = raised(queue.join)
    said = [lost, queue.empty(), raised(queue.join)]
    queue.put("more")
    said += [queue.full(), queue.get(), queue.full(), queue.qsize()]
    queue.task_done()
    said += [raised(queue.join), raised(queue.task_done)]
    done_with(queue)
    return said
"""
    )
    harmless = ("before", "claim"), ("after", "send"), ("before", "receive"), ("after", "done")
    lost = "nothing" if (moment, name) in harmless else "WorkerDied"
    assert program(source, moment, name) == [
        lost, True, "nothing", True, "more", False, 0, "nothing", "ValueError",
    ]  # fmt: skip


def test_what_cannot_be_sent_gives_its_place_back(program: Program) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    queue, errors = context.Queue(1), []
    queue._on_queue_feeder_error = lambda error, message: errors.append(message)
    # Also in a process that has read from it.
    queue.put("first")
    said = [queue.get()]
    for _ in range(3):
        queue.put(lambda: None)
    wait_until(lambda: len(errors) == 3)
    queue.put("second")
    said += [queue.full(), queue.get(), queue.full(), queue.qsize()]
    # Past put(), nothing of the bound is known.
    queue._writer.send("third")
    queue._writer.send("fourth")
    said += [queue.full(), queue.get(), queue.get(), queue.full()]
    done_with(queue)
    return said
"""
    )
    expected = ["first", True, "second", False, 0, True, "third", "fourth", False]
    assert program(source) == expected


def test_no_more_than_its_places_are_ever_in_a_bounded_queue(program: Program) -> None:
    source = (
        KILLS
        + """
def put(queue, inside):
    for _ in range(200):
        queue.put(1)
        # The reader acquires this before it gets a message. It may get one that is not counted yet.
        inside.release()


def body():
    context = semlock.get_context("fork")
    queue, inside = context.Queue(3), context.Semaphore(0)
    children = [run(context, put, queue, inside) for _ in range(4)]
    most = 0
    for _ in range(800):
        most = max(most, inside.get_value(), queue.qsize())
        inside.acquire()
        queue.get()
    for child in children:
        child.join()
    return [most <= 3 + 1, queue.qsize(), [child.exitcode for child in children]]
"""
    )
    assert program(source) == [True, 0, [0] * 4]


def test_a_reader_that_forks_and_is_killed_keeps_nobody_from_reading(program: Program) -> None:
    source = (
        KILLS
        + """
def read_and_fork(queue, says):
    def fork(*_):
        grandchild = os.fork()
        if grandchild:
            says.send(grandchild)
        signal.pause()

    # In the middle of a message it holds the lock of the readers.
    signal.signal(signal.SIGUSR1, fork)
    queue.get()


def body():
    context = semlock.get_context("fork")
    said = []
    for kind in KINDS:
        queue, (hears, says) = getattr(context, kind)(), context.Pipe(False)
        writer = run(context, put_and_wait, queue, HUGE, "whole")
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        stop(writer)
        child = run(context, read_and_fork, queue, says)
        wait_until(lambda: channel(queue).is_empty() and sleeping(child))
        os.kill(child.pid, signal.SIGUSR1)
        grandchild = hears.recv()
        try:
            said.append(kill(child))
            resume(writer)
            said.append(queue.get())
        finally:
            os.kill(grandchild, signal.SIGKILL)
        said.append(kill(writer))
        done_with(queue)
    return said
"""
    )
    assert program(source) == [True, "whole", True] * 3


def test_a_handler_that_asks_a_queue_in_the_middle_of_a_message_does_not_disturb_it(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def body():
    context = semlock.get_context("fork")
    for kind in KINDS:
        queue = getattr(context, kind)()
        seen = []

        def handler(*_):
            seen.append(queue.empty())
            resume(writer)

        signal.signal(signal.SIGUSR1, handler)
        writer = run(context, put_and_wait, queue, HUGE, "next")
        wait_until(lambda: is_in_the_middle_of_its_message(writer, queue))
        stop(writer)

        def interrupt():
            wait_until(lambda: channel(queue).is_empty() and is_asleep(os.getpid()))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        assert queue.get() == HUGE
        thread.join()
        assert seen == [True], kind
        assert queue.get() == "next"
        queue.put(7)
        assert queue.get() == 7
        kill(writer)
    return "whole"
"""
    )
    assert program(source) == "whole"


def test_an_exception_in_a_put_into_a_full_queue_takes_no_places_along(program: Program) -> None:
    source = (
        KILLS
        + """
def body():
    class Alarm(Exception):
        pass

    def handler(*_):
        raise Alarm

    signal.signal(signal.SIGALRM, handler)
    count = 2000
    queue = semlock.get_context("fork").Queue(count)
    for item in range(count):
        queue.put(item)
    for n in range(30):
        signal.setitimer(signal.ITIMER_REAL, 0.001 + n / 5000)
        try:
            queue.put(None)
        except Alarm:
            pass
        assert queue.qsize() == count and queue.full()
    for item in range(count):
        assert queue.get() == item
    return queue._sem.get_value() == count
"""
    )
    assert program(source) is True


# ---- Tasks of those who die ----

TASKS = (
    KILLS
    + '''
from semlock import WorkerDied


def lost(queue):
    """How many tasks join() says are lost."""
    try:
        queue.join()
    except WorkerDied as error:
        return error.tasks
    return 0


def take_and_die(queue, takes, does):
    for _ in range(takes):
        queue.get()
    for _ in range(does):
        queue.task_done()
    die()


def finish(queue, count):
    for _ in range(count):
        queue.get()
        queue.task_done()


'''
)


@pytest.mark.parametrize("way", ["context", "install", "subclass"])
@pytest.mark.parametrize("method", METHODS)
def test_join_raises_once_for_tasks_whose_worker_died_and_then_waits_for_the_others(
    method: str, way: str, program: Program
) -> None:
    source = (
        TASKS
        + """
import multiprocessing.queues


class EarlyQueue(multiprocessing.queues.JoinableQueue):
    pass


def body():
    context = semlock.get_context(method())
    if sys.argv[2] != "context":
        semlock.install()
        context = multiprocessing.get_context(method())
    queue = EarlyQueue(ctx=context) if sys.argv[2] == "subclass" else context.JoinableQueue()
    for task in range(5):
        queue.put(task)
    said = [killed(run(context, take_and_die, queue, 3, 1)), lost(queue)]
    # Those that nobody has taken are still to be done.
    said.append(queue._unfinished_tasks.get_value())
    queue.put("again")
    worker = run(context, finish, queue, 3)
    said.append(lost(queue))
    worker.join()
    said += [worker.exitcode, queue.empty(), raised(queue.task_done)]
    done_with(queue)
    return said
"""
    )
    assert program(source, method, way) == [True, 2, 2, 0, 0, True, "ValueError"]


def test_each_process_that_joins_is_told_when_a_worker_dies(program: Program) -> None:
    source = (
        TASKS
        + """
def join(queue, results):
    results.send("joins")
    results.send(lost(queue))


def take_and_wait(queue, taken):
    queue.get()
    taken.set()
    time.sleep(600)


def body():
    context = semlock.get_context("fork")
    queue, taken = context.JoinableQueue(), context.Event()
    queue.put("task")
    worker = run(context, take_and_wait, queue, taken)
    taken.wait()
    reader, writer = context.Pipe(False)
    joining = [run(context, join, queue, writer) for _ in range(3)]
    said = [reader.recv() for _ in joining]
    wait_until(lambda: all(sleeping(process) for process in joining))
    worker.kill()
    said += [reader.recv() for _ in joining]
    for process in (worker, *joining):
        process.join()
    done_with(queue)
    return said
"""
    )
    assert program(source) == [*["joins"] * 3, 1, 1, 1]


def test_a_task_that_another_process_says_is_done_is_not_lost(program: Program) -> None:
    source = (
        TASKS
        + """
def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    said = []
    for _ in range(2):
        queue.put("for one that dies")
        said.append(killed(run(context, take_and_die, queue, 1, 0)))
        # As a supervisor does that knows of it.
        queue.task_done()
        said.append(lost(queue))
    # Nothing is left of these.
    queue.put("for another")
    said += [killed(run(context, take_and_die, queue, 1, 0)), lost(queue)]
    said.append(raised(queue.task_done))
    done_with(queue)
    return said
"""
    )
    assert program(source) == [True, 0, True, 0, True, 1, "ValueError"]


def test_tasks_that_were_put_and_not_sent_by_one_that_dies_are_lost(program: Program) -> None:
    source = (
        TASKS
        + """
def put_and_die(queue):
    # It does not go through at once, and so the other has to wait for it.
    queue.put(HUGE)
    queue.put("lost too")
    die()


def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    said = [killed(run(context, put_and_die, queue)), lost(queue), lost(queue)]
    done_with(queue)
    return said
"""
    )
    assert program(source) == [True, 2, 0]


@pytest.mark.parametrize("method", METHODS)
def test_tasks_are_counted_however_many_a_process_has(method: str, program: Program) -> None:
    source = (
        TASKS
        + """
def take(queue, count, results):
    for _ in range(count):
        queue.get()
    results.send(queue._unfinished_tasks.get_value())
    for _ in range(count):
        queue.task_done()
    results.send(queue._unfinished_tasks._semlock._is_zero())


def body():
    context = semlock.get_context(method())
    queue = context.JoinableQueue()
    count = 5000
    for task in range(count):
        queue.put(task)
    said = [queue._unfinished_tasks.get_value() == count]
    reader, writer = context.Pipe(False)
    worker = run(context, take, queue, count, writer)
    said += [reader.recv() == count, reader.recv(), lost(queue), raised(queue.task_done)]
    worker.join()
    # What is sent past put() is a task as well.
    queue._writer.send("no task")
    said += [queue._unfinished_tasks.get_value(), queue._reader.recv()]
    said += [raised(queue.task_done), raised(queue.task_done), lost(queue)]
    done_with(queue)
    return said
"""
    )
    too_many = "ValueError"
    assert program(source, method) == [
        True, True, True, 0, too_many, 1, "no task", "nothing", too_many, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_join_raises_for_all_of_many_tasks_that_a_worker_had_when_it_died(
    method: str, program: Program
) -> None:
    source = (
        TASKS
        + """
def body():
    context = semlock.get_context(method())
    queue = context.JoinableQueue()
    queue.put_many(range(5000))
    said = [killed(run(context, take_and_die, queue, 4000, 10)), lost(queue)]
    finish(queue, 1000)
    said += [lost(queue), raised(queue.task_done), queue.empty()]
    done_with(queue)
    return said
"""
    )
    assert program(source, method) == [True, 3990, 0, "ValueError", True]


def test_tasks_that_other_processes_say_are_done_are_done(program: Program) -> None:
    source = (
        TASKS
        + """
def take(queue, count):
    for _ in range(count):
        queue.get()
    signal.pause()


def do(queue, count):
    for _ in range(count):
        queue.task_done()


def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    queue.put_many(range(30))
    taker = run(context, take, queue, 30)
    wait_until(queue.empty)
    for number in (10, 15):
        child = run(context, do, queue, number)
        child.join()
        assert child.exitcode == 0
    said = [queue._unfinished_tasks.get_value(), kill(taker), lost(queue)]
    said += [queue._unfinished_tasks.get_value(), raised(queue.task_done)]
    done_with(queue)
    return said
"""
    )
    assert program(source) == [5, True, 5, 0, "ValueError"]


# ---- All queues, and the SimpleQueue ----

SIZES = "SIZES = 0, 10, 5_000, 70_000, 300_000, 3_000_000  # two are larger than its ring\n"


@pytest.mark.parametrize("method", METHODS)
def test_messages_of_writers_that_are_killed_are_whole_and_in_order(
    method: str, program: Program
) -> None:
    source = (
        KILLS
        + SIZES
        + """
def put_for_ever(queue, sender):
    number = 0
    while True:
        size = SIZES[number % len(SIZES)]
        queue.put((sender, number, bytes([number % 251]) * size))
        number += 1


def body():
    context = semlock.get_context(method())
    queue, last = context.SimpleQueue(), {}

    def get():
        sender, number, content = queue.get()
        assert content == bytes([number % 251]) * SIZES[number % len(SIZES)]
        assert number == last.get(sender, -1) + 1
        last[sender] = number

    for round in range(12):
        writers = [run(context, put_for_ever, queue, (round, n)) for n in range(2)]
        for _ in range(round + 1):
            get()
        for writer in writers:
            writer.kill()
            assert killed(writer)
    # What the dead had put is there still, and may leave no room.
    end = threading.Thread(target=queue.put, args=("the end",))
    end.start()
    while (message := queue.get()) != "the end":
        sender, number, content = message
        assert content == bytes([number % 251]) * SIZES[number % len(SIZES)]
    end.join()
    return queue.empty()
"""
    )
    assert program(source, method) is True


@pytest.mark.parametrize("method", METHODS)
def test_readers_that_are_killed_take_no_more_than_what_they_had(
    method: str, program: Program
) -> None:
    source = (
        KILLS
        + SIZES
        + """
def get_for_ever(queue, pipe):
    while True:
        number, content = queue.get()
        assert content == bytes([number % 251]) * SIZES[number % len(SIZES)]
        pipe.send(number)


def put_all(queue, count):
    for number in range(count):
        queue.put((number, bytes([number % 251]) * SIZES[number % len(SIZES)]))
    queue.put((count, bytes([count % 251]) * SIZES[count % len(SIZES)]))


def body():
    context = semlock.get_context(method())
    queue, seen, count = context.SimpleQueue(), [], 200
    writer = run(context, put_all, queue, count)
    for _ in range(10):
        hears, says = context.Pipe(False)
        reader = run(context, get_for_ever, queue, says)
        says.close()
        for _ in range(4):
            seen.append(hears.recv())
        reader.kill()
        assert killed(reader)
        try:
            while True:
                seen.append(hears.recv())
        except EOFError:
            pass
        if count in seen:
            break
    while count not in seen:
        number, content = queue.get()
        assert content == bytes([number % 251]) * SIZES[number % len(SIZES)]
        seen.append(number)
    writer.join()
    # Each reader had one message at most that it did not tell of.
    return [seen == sorted(set(seen)), len(seen) >= count + 1 - 10, writer.exitcode, queue.empty()]
"""
    )
    assert program(source, method) == [True, True, 0, True]


def test_an_exception_out_of_a_signal_handler_costs_at_most_its_own_message(
    program: Program,
) -> None:
    source = (
        KILLS
        + SIZES
        + """
class Interrupt(Exception):
    pass


def interrupt(*_):
    raise Interrupt


def body():
    signal.signal(signal.SIGALRM, interrupt)
    context = semlock.get_context("fork")
    queue = context.SimpleQueue()
    interrupted = []
    got = []

    def read():
        while (message := queue.get()) is not None:
            number, content = message
            assert content == bytes([number % 251]) * SIZES[number % len(SIZES)]
            got.append(number)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        message = number, bytes([number % 251]) * SIZES[number % len(SIZES)]
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 * (1 + number % 20))
            queue.put(message)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            interrupted.append(number)
    queue.put(None)
    reader.join()
    missing = sorted(set(range(200)) - set(got))
    said = [got == sorted(set(got)), set(missing) <= set(interrupted)]
    # While it waits for a message.
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    said.append(raised(queue.get))
    queue.put("whole")
    said.append(queue.get())
    return said
"""
    )
    assert program(source) == [True, True, "Interrupt", "whole"]


def test_a_put_in_a_signal_handler_that_interrupted_a_put_raises_and_does_not_hang(
    program: Program,
) -> None:
    source = (
        KILLS
        + """
def body():
    queue, said = semlock.get_context("fork").SimpleQueue(), []
    handled = threading.Event()

    def handler(*_):
        said.append(raised(queue.put, "from the handler"))
        handled.set()

    signal.signal(signal.SIGUSR1, handler)
    large = b"x" * 3_000_000

    def interrupt_and_read():
        wait_until(lambda: not queue.empty())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        handled.wait()
        said.append(queue.get() == large)

    thread = threading.Thread(target=interrupt_and_read)
    thread.start()
    queue.put(large)
    thread.join()
    queue.put("next")
    return [*said, queue.get()]
"""
    )
    assert program(source) == ["ValueError", True, "next"]


@pytest.mark.parametrize("method", METHODS)
def test_its_descriptor_is_readable_when_and_only_when_a_message_is_there(
    method: str, program: Program
) -> None:
    source = (
        KILLS
        + """
import selectors
from multiprocessing import connection


def put_for_ever(queue):
    while True:
        queue.put(b"x" * 1000)


def get_for_ever(queue):
    while True:
        queue.get()


def body():
    context = semlock.get_context(method())
    queue = context.SimpleQueue()
    selector = selectors.DefaultSelector()
    selector.register(queue._reader, selectors.EVENT_READ)

    def ways():
        return [bool(selector.select(0)), bool(connection.wait([queue._reader], 0)),
                queue._reader.poll(0), not queue.empty()]

    said = [ways()]
    queue.put(1)
    said.append(ways())
    queue.put(2)
    queue.get()
    said.append(ways())
    queue.get()
    said.append([*ways(), queue._reader.poll(0.01)])
    timer = threading.Timer(0.1, queue.put, (3,))
    timer.start()
    said.append([bool(selector.select(60)), queue._reader.poll(60), queue.get()])
    timer.join()
    for target in (put_for_ever, get_for_ever) * 3:
        child = run(context, target, queue)
        if target is put_for_ever:
            selector.select(60)
        else:
            queue.put("for it")
            wait_until(queue.empty)
        child.kill()
        assert killed(child)
        while not queue.empty():
            assert ways() == [True] * 4, "it does not ring"
            queue.get()
        assert ways() == [False] * 4, "it rings for nothing"
    queue.put(4)
    said.append([*ways(), queue.get()])
    return said
"""
    )
    none, there = [False] * 4, [True] * 4
    assert program(source, method) == [
        none, there, there, [*none, False], [True, True, 3], [*there, 4],
    ]  # fmt: skip


def test_a_closed_queue_and_one_that_nobody_can_put_into_say_so(program: Program) -> None:
    source = (
        KILLS
        + """
def put(queue):
    queue.put("the last one")


def body():
    context = semlock.get_context("fork")
    queue = context.SimpleQueue()
    queue.close()
    said = [raised(queue.get), raised(queue.put, 1), raised(queue.empty)]
    queue = context.SimpleQueue()
    child = run(context, put, queue)
    queue._writer.close()
    said += [raised(queue.put, 1), queue.get(), raised(queue.get)]
    child.join()
    # A writer that is killed can put no more, either.
    queue = context.SimpleQueue()
    child = run(context, die, queue)
    queue._writer.close()
    said += [raised(queue.get), killed(child)]
    return said
"""
    )
    assert program(source) == [
        "OSError", "OSError", "OSError", "OSError", "the last one", "EOFError", "EOFError", True,
    ]  # fmt: skip


def test_what_cannot_be_pickled_leaves_the_queue_as_it_was(program: Program) -> None:
    source = """
class Fails:
    def __reduce__(self):
        raise LookupError


def body():
    queue = semlock.get_context("fork").SimpleQueue()
    said = []
    for _ in range(3):
        said += [raised(queue.put, [b"x" * 100_000, Fails()]), queue.empty()]
    shared = [1, 2]
    queue.put([shared, shared])
    first, second = queue.get()
    return [*said, first is second, raised(pickle.dumps, queue), queue.empty()]
"""
    assert program(source) == [*["LookupError", True] * 3, True, "RuntimeError", True]


def test_an_object_may_put_into_the_queue_while_it_is_pickled(program: Program) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").SimpleQueue()

    class Puts:
        def __reduce__(self):
            queue.put("inner")
            return str, ("outer",)

    queue.put([Puts(), "more"])
    return [queue.get(), queue.get(), queue.empty()]
"""
    assert program(source) == ["inner", ["outer", "more"], True]


def test_reducers_that_a_program_registers_and_a_pickler_of_its_own_are_used(
    program: Program,
) -> None:
    source = """
import copyreg, io
from multiprocessing import reduction


class Thing:
    def __reduce__(self):
        return str, ("its own",)


class Other(Thing):
    pass


def body():
    queue = semlock.get_context("fork").SimpleQueue()

    def through(obj):
        queue.put(obj)
        return queue.get()

    said = [through(Thing())]
    reduction.ForkingPickler.register(Thing, lambda thing: (str, ("registered",)))
    said.append(through(Thing()))
    copyreg.pickle(Other, lambda thing: (str, ("copyreg",)))
    said.append(through(Other()))

    class Own(reduction.ForkingPickler):
        @classmethod
        def dumps(cls, obj, protocol=None):
            return super().dumps(("by its own pickler", obj), protocol)

    reduction.ForkingPickler = Own
    return [*said, through(1)]
"""
    assert program(source) == ["its own", "registered", "copyreg", ["by its own pickler", 1]]


def test_a_descriptor_that_is_closed_behind_its_back_costs_no_message(program: Program) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").SimpleQueue()
    queue.put("before")
    for number in queue._reader._channel._bell():
        os.close(number)
    queue.put("after")
    return [queue.get(), queue.get()]
"""
    assert program(source) == ["before", "after"]


@pytest.mark.parametrize("method", METHODS)
def test_subclasses_that_were_there_before_install_go_on_when_a_process_is_killed(
    method: str, program: Program
) -> None:
    source = (
        KILLS
        + """
import multiprocessing.queues as stocks


class EarlySimpleQueue(stocks.SimpleQueue):
    def get(self):
        return ["got", super().get()]


def put_for_ever(queue):
    while True:
        queue.put(b"x" * 1000)


def body():
    semlock.install()
    context = multiprocessing.get_context(method())
    queue = EarlySimpleQueue(ctx=context)
    for _ in range(3):
        child = run(context, put_for_ever, queue)
        assert queue.get() == ["got", b"x" * 1000]
        child.kill()
        assert killed(child)
    while not queue.empty():
        assert queue.get() == ["got", b"x" * 1000]
    queue.put(1)
    return queue.get()
"""
    )
    assert program(source, method) == ["got", 1]

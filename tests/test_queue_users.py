"""Queues as others use them: subclasses, event loops, processes that are killed at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import KILLS, METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, USERS + source, *arguments)


QUEUES = ["Queue", "JoinableQueue"]

USERS = (
    KILLS
    + '''
import random, zlib
import multiprocessing.queues as stocks
from queue import Empty, Full

HUGE = b"y" * 3_000_000  # goes in parts: larger than all that a queue holds


def run(context, target, *arguments):
    child = context.Process(target=target, args=arguments)
    child.start()
    return child


def done_with(*queues):
    for queue in queues:
        queue.close()
        if hasattr(queue, "join_thread"):
            queue.join_thread()


def context_of(way):
    """semlock's context; or the stdlib's, after install()."""
    if way == "install":
        semlock.install()
        return multiprocessing.get_context(method())
    return semlock.get_context(method())


'''
)


# ---- The stdlib's classes, and others' that are derived from them ----


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("way", ["context", "install"])
@pytest.mark.parametrize("method", METHODS)
def test_the_stdlibs_classes_with_semlocks_context_stand_on_a_channel(
    method: str, way: str, kind: str, program: Program
) -> None:
    source = """
def echo(queue, results):
    while (message := queue.get()) is not None:
        results.put(message)
        if hasattr(queue, "task_done"):
            queue.task_done()
    if hasattr(queue, "task_done"):
        queue.task_done()
    done_with(results)


def body():
    context = context_of(sys.argv[2])
    kind = getattr(stocks, sys.argv[3])
    queue, results = kind(ctx=context), kind(ctx=context)
    said = [type(each._reader).__name__ for each in (queue, results)]
    child = run(context, echo, queue, results)
    messages = [b"a", LARGE, HUGE, {"b": 1}, *range(30)]
    got = []
    reader = threading.Thread(target=lambda: got.extend(results.get() for _ in messages))
    reader.start()
    for message in messages:
        queue.put(message)
    queue.put(None)
    reader.join()
    said.append(got == messages)
    child.join()
    if sys.argv[3] == "JoinableQueue":
        queue.join()
        for _ in messages:
            results.task_done()
        results.join()
        said.append(raised(results.task_done))
    else:
        said.append("ValueError")
    if sys.argv[3] != "SimpleQueue":
        small = kind(2, ctx=context)
        small.put(1)
        small.put(2)
        said += [raised(small.put, 3, False), small.full(), small.qsize()]
        assert small.get(timeout=60) == 1
        said += [small.full(), small.qsize(), small.get()]
        done_with(small)
    done_with(queue, results)
    return said
"""
    said = ["ReadingEnd", "ReadingEnd", True, "ValueError"]
    bounded = [] if kind == "SimpleQueue" else ["Full", True, 2, False, 1, 2]
    assert program(source, method, way, kind) == said + bounded


@pytest.mark.parametrize("way", ["context", "install"])
@pytest.mark.parametrize("imported", ["before", "after"])
@pytest.mark.parametrize("method", METHODS)
def test_subclasses_that_override_any_of_its_methods_work_as_with_the_stdlib(
    method: str, imported: str, way: str, program: Program
) -> None:
    source = """
if len(sys.argv) > 3 and sys.argv[3] == "after":
    semlock.install()


class Counted(stocks.Queue):
    # As the recipe for qsize() on macOS.
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = kwargs["ctx"].Value("i", 0)

    def __getstate__(self):
        return {"parent": super().__getstate__(), "size": self.size}

    def __setstate__(self, state):
        super().__setstate__(state["parent"])
        self.size = state["size"]

    def put(self, *args, **kwargs):
        with self.size.get_lock():
            self.size.value += 1
        super().put(*args, **kwargs)

    def get(self, *args, **kwargs):
        message = super().get(*args, **kwargs)
        with self.size.get_lock():
            self.size.value -= 1
        return message

    def qsize(self):
        return self.size.value


class Fed(stocks.Queue):
    # As loky's: its own feeder thread, with its own pickler.
    def _start_thread(self):
        self._buffer.clear()
        self._thread = threading.Thread(
            target=Fed._feed,
            args=(self._buffer, self._notempty, self._writer.send_bytes, self._wlock,
                  self._writer.close, self._ignore_epipe, self._on_queue_feeder_error, self._sem),
            name="QueueFeederThread", daemon=True,
        )
        self._thread.start()
        if not self._joincancelled:
            import weakref
            from multiprocessing import util
            self._jointhread = util.Finalize(
                self._thread, stocks.Queue._finalize_join, [weakref.ref(self._thread)],
                exitpriority=-5)
        from multiprocessing import util
        self._close = util.Finalize(self, stocks.Queue._finalize_close,
                                    [self._buffer, self._notempty], exitpriority=10)

    @staticmethod
    def _feed(buffer, notempty, send_bytes, writelock, close, ignore_epipe, onerror, queue_sem):
        from multiprocessing.queues import _sentinel

        while True:
            with notempty:
                while not buffer:
                    notempty.wait()
            obj = buffer.popleft()
            if obj is _sentinel:
                close()
                return
            try:
                data = pickle.dumps(obj)
                with writelock:
                    send_bytes(data)
            except Exception as error:
                queue_sem.release()
                onerror(error, obj)


class Wrapper:
    def __init__(self, connection):
        self.connection = connection

    def send(self, obj):
        self.send_bytes(pickle.dumps(obj))

    def recv(self):
        return pickle.loads(self.recv_bytes())

    def __getattr__(self, name):
        if "connection" in self.__dict__:
            return getattr(self.connection, name)
        raise AttributeError(name)


class Wrapped(stocks.Queue):
    # As PyTorch's.
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._reader, self._writer = Wrapper(self._reader), Wrapper(self._writer)
        self._send, self._recv = self._writer.send, self._reader.recv


class Telling(stocks.Queue):
    # As an executor's.
    def _on_queue_feeder_error(self, error, obj):
        told.append(type(error).__name__)


class Overriding(stocks.JoinableQueue):
    def put(self, obj, *args, **kwargs):
        super().put(("put", obj), *args, **kwargs)

    def get(self, *args, **kwargs):
        return ("got", super().get(*args, **kwargs))[1][1]


told = []


def echo(queue, results):
    while (message := queue.get()) is not None:
        results.put(message)
    done_with(results)


def body():
    context = context_of(sys.argv[2])
    messages = [b"a", LARGE, HUGE, {"b": 1}, *range(20)]
    said = []
    for kind in (Counted, Fed, Wrapped, Telling, Overriding):
        for size in (0, 3):
            queue, results = kind(size, ctx=context), kind(size, ctx=context)
            child = run(context, echo, queue, results)
            got = []
            reader = threading.Thread(
                target=lambda: got.extend(results.get() for _ in messages))
            reader.start()
            for message in messages:
                queue.put(message)
            queue.put(None)
            reader.join()
            child.join()
            assert got == messages, (kind, size)
            assert results.empty() and results.qsize() == 0, (kind, size)
            if size:
                for number in range(3):
                    queue.put(number)
                assert raised(queue.put, 3, False) == "Full", kind
                assert queue.full() and queue.qsize() == 3 + (kind is Counted), kind
                assert [queue.get() for _ in range(3)] == [0, 1, 2], kind
            if kind in (Telling, Fed):
                queue._on_queue_feeder_error = Telling._on_queue_feeder_error.__get__(queue)
                if kind is Telling:
                    del queue._on_queue_feeder_error
                    queue.put(lambda: None)
                    wait_until(lambda: told)
                    queue.put("after")
                    assert queue.get(timeout=60) == "after" and queue.qsize() == 0
                    told.clear()
            done_with(queue, results)
        said.append(kind.__name__)
    return said
"""
    expected = ["Counted", "Fed", "Wrapped", "Telling", "Overriding"]
    assert program(source, method, way, imported) == expected


@pytest.mark.parametrize("way", ["context", "install"])
def test_a_queue_whose_feeder_is_its_class_s_own_loses_no_place_when_a_putter_is_killed(
    way: str, program: Program
) -> None:
    source = """
class Early(stocks.Queue):
    def _start_thread(self):
        super()._start_thread()


def put_and_die(queue):
    queue.put(HUGE)
    queue.put("lost")
    die()


def body():
    context = context_of(sys.argv[2])
    queue = Early(2, ctx=context)
    said = [killed(run(context, put_and_die, queue)) for _ in range(2)]
    queue.put(1)
    queue.put(2)
    said += [raised(queue.put, 3, False), queue.get(), queue.get(), queue.empty(), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source, "fork", way) == [True, True, "Full", 1, 2, True, 0]


# ---- Its descriptor ----


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("size", ["0", "7"])
def test_its_descriptor_is_readable_when_and_only_when_a_message_is_there(
    size: str, kind: str, program: Program
) -> None:
    source = """
import selectors
from multiprocessing import connection


def put_for_ever(queue):
    for number in range(10**9):
        queue.put(bytes(1000) if number % 5 else HUGE)


def get_for_ever(queue):
    while True:
        queue.get()


def body():
    context = semlock.get_context("fork")
    queue = getattr(context, sys.argv[2])(int(sys.argv[1]))
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
    # By the feeder thread.
    queue.put(HUGE)
    queue.put(3)
    said += [bool(selector.select(60)), queue.get() == HUGE]
    said += [bool(connection.wait([queue._reader], 60)), queue.get(), ways()]
    timer = threading.Timer(0.05, queue.put, (3,))
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
        while True:
            try:
                queue.get(timeout=0.3)
            except Empty:
                break
        assert ways() == [False] * 4, "it rings for nothing"
    queue.put(4)
    said.append([*ways(), queue.get()])
    done_with(queue)
    return said
"""
    none, there = [False] * 4, [True] * 4
    assert program(source, size, kind) == [
        none, there, there, [*none, False], True, True, True, 3, none, [True, True, 3], [*there, 4],
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue", "JoinableQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_an_event_loop_hears_of_each_message(method: str, kind: str, program: Program) -> None:
    source = """
import asyncio

COUNT = 200


def put_all(queue):
    for number in range(COUNT):
        queue.put((number, bytes([number]) * (number * 53 % 9000)))
    queue.put(None)
    done_with(queue)


async def hear(context, queue):
    loop, got, ended = asyncio.get_running_loop(), [], asyncio.Event()

    def read():
        while not queue.empty():
            message = queue.get()
            if message is None:
                ended.set()
            else:
                got.append(message)

    loop.add_reader(queue._reader.fileno(), read)
    children = [run(context, put_all, queue)]
    await ended.wait()
    loop.remove_reader(queue._reader.fileno())
    for child in children:
        child.join()
    return got == [(number, bytes([number]) * (number * 53 % 9000)) for number in range(COUNT)]


def body():
    context = semlock.get_context(method())
    queue = getattr(context, sys.argv[2])()
    said = asyncio.run(hear(context, queue))
    return [said, queue.empty()]
"""
    assert program(source, method, kind) == [True, True]


@pytest.mark.parametrize("kind", QUEUES)
def test_a_descriptor_that_is_closed_behind_its_back_costs_no_message(
    kind: str, program: Program
) -> None:
    source = """
def body():
    queue = getattr(semlock.get_context("fork"), sys.argv[1])(5)
    queue.put("before")
    for number in queue._reader._channel._bell():
        os.close(number)
    queue.put("after")
    queue.put(HUGE)
    queue.put("last")
    said = [queue.get(), queue.get(), queue.get() == HUGE, queue.get(), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source, kind) == ["before", "after", True, "last", 0]


# ---- Killed at any moment ----


@pytest.mark.parametrize("size", ["0", "1", "20"])
@pytest.mark.parametrize("kind", QUEUES)
def test_many_messages_with_kills_at_random_lose_only_what_the_dead_had(
    kind: str, size: str, program: Program
) -> None:
    source = """
SIZES = 0, 10, 10, 10, 100, 1_000, 10, 30_000, 10, 300_000


def message(sender, number):
    data = bytes([sender & 255, number & 255]) * (SIZES[number % len(SIZES)] // 2)
    return sender, number, data, zlib.crc32(data)


def opened(message):
    sender, number, data, checksum = message
    assert zlib.crc32(data) == checksum, "torn"
    assert len(data) == SIZES[number % len(SIZES)], "torn"
    return sender, number


def put_for_ever(queue, sender):
    number = 0
    while True:
        queue.put(message(sender, number))
        number += 1


def get_for_ever(queue, pipe):
    is_joinable = hasattr(queue, "task_done")
    while True:
        # In one write: small enough to be in the pipe whole, or not at all.
        pipe.send(opened(queue.get()))
        if is_joinable:
            queue.task_done()


class Crew:
    def __init__(self, context, target, queue):
        self.context, self.target, self.queue, self.made = context, target, queue, 0
        self.members = {}

    def replace(self, place):
        ended = self.members.pop(place, None)
        heard = []
        if ended is not None:
            process, hears = ended
            process.kill()
            assert killed(process)
            heard = self.hear(hears, to_the_end=True)
        hears, says = self.context.Pipe(False)
        what = self.made if self.target is put_for_ever else says
        self.made += 1
        self.members[place] = run(self.context, self.target, self.queue, what), hears
        says.close()
        return heard

    @staticmethod
    def hear(hears, to_the_end=False):
        heard = []
        try:
            while to_the_end or hears.poll(0):
                heard.append(hears.recv())
        except EOFError:
            assert to_the_end
        return heard

    def hear_all(self):
        return [each for _, hears in self.members.values() for each in self.hear(hears)]

    def end(self):
        heard = []
        for process, hears in self.members.values():
            process.kill()
            assert killed(process)
            heard += self.hear(hears, to_the_end=True)
        return heard


def body():
    random.seed(f"{sys.argv}")
    context = semlock.get_context("fork")
    queue = getattr(context, sys.argv[2])(int(sys.argv[1]))
    putters, getters = Crew(context, put_for_ever, queue), Crew(context, get_for_ever, queue)
    seen, deaths = [], 0
    for place in range(2):
        putters.replace(place)
        getters.replace(place)
    while len(seen) < 10_000:
        count = len(seen)
        wait = random.randrange(800)
        while len(seen) - count < wait:
            # Whoever was killed: the others go on.
            seen += getters.hear_all()
        crew = random.choice([putters, getters])
        seen += crew.replace(random.randrange(2))
        deaths += crew is getters
    putters.end()
    seen += getters.end()
    deaths += 2
    rest = []
    try:
        while True:
            rest.append(opened(queue.get(timeout=0.5)))
    except Empty:
        pass
    everything = seen + rest
    assert len(set(everything)) == len(everything), "a message came twice"
    # Of each sender, all up to its last are there but for what killed getters had: one each, or
    # one in parts that a killed putter or getter had not finished.
    missing = 0
    for sender in {sender for sender, _ in everything}:
        numbers = {number for who, number in everything if who == sender}
        missing += max(numbers) + 1 - len(numbers)
    # What one had received it may have told of, or not.
    assert missing <= deaths, (missing, deaths)
    # All its places are there.
    said = [queue.empty()]
    for number in range(int(sys.argv[1]) or 50):
        queue.put(number, timeout=60)
    said.append(raised(queue.put, 0, False) if int(sys.argv[1]) else "Full")
    said.append([queue.get() for _ in range(int(sys.argv[1]) or 50)][-1] + 1)
    said.append(queue.qsize())
    done_with(queue)
    return said
"""
    assert program(source, size, kind) == [True, "Full", int(size) or 50, 0]


@pytest.mark.parametrize("method", METHODS)
def test_tasks_end_or_are_lost_whenever_workers_are_killed(method: str, program: Program) -> None:
    source = """
def do(queue, done):
    import warnings

    warnings.simplefilter("ignore", semlock.OwnerDiedWarning)
    while True:
        queue.get()
        with done.get_lock():
            done.value += 1
        queue.task_done()


def body():
    random.seed(2)
    context = semlock.get_context(method())
    queue, done = context.JoinableQueue(), context.Value("i", 0)
    workers = [run(context, do, queue, done) for _ in range(2)]
    lost = deaths = tasks = 0
    for _ in range(20 if method() == "fork" else 4):
        count = random.randrange(200)
        queue.put_many(range(count))
        tasks += count
        worker = workers.pop(0)
        wait_until(lambda: queue.qsize() < count)
        worker.kill()
        assert killed(worker)
        deaths += 1
        workers.append(run(context, do, queue, done))
        while True:
            try:
                queue.join()
                break
            except semlock.WorkerDied as error:
                lost += error.tasks
        assert queue._unfinished_tasks.get_value() == 0
    for worker in workers:
        worker.kill()
        assert killed(worker)
    # One that was killed between counting a task and saying so has done it, and lost it.
    return [tasks <= done.value + lost <= tasks + deaths, raised(queue.task_done)]
"""
    assert program(source, method) == [True, "ValueError"]

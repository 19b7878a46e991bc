"""``put`` sends at once where it can, keeps the order, and waits for nothing but a place."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import KILLS, METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, PUTS + source, *arguments)


QUEUES = ["Queue", "JoinableQueue"]

PUTS = (
    KILLS
    + '''
import random, zlib
from queue import Empty, Full

HUGE = b"y" * 3_000_000  # goes in parts: larger than all that a queue holds


def channel(queue):
    return queue._reader._channel


def run(context, target, *arguments):
    child = context.Process(target=target, args=arguments)
    child.start()
    return child


def sleeping(process):
    return is_asleep(process.pid)


def joined(*processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def done_with(*queues):
    for queue in queues:
        queue.close()
        queue.join_thread()


def is_fed(queue):
    """Whether this process has a feeder thread for it."""
    return queue._thread is not None


def all_messages(queue):
    messages = []
    while True:
        try:
            messages.append(queue.get(timeout=0.5 if queue.qsize() else 0))
        except Empty:
            return messages


'''
)


# ---- At once, or by the feeder thread ----


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("size", ["0", "1", "10"])
def test_what_was_put_is_there_when_put_returns_and_no_thread_is_started(
    size: str, kind: str, program: Program
) -> None:
    source = """
def body():
    queue = getattr(semlock.get_context("fork"), sys.argv[2])(int(sys.argv[1]))
    said = []
    for number in range(50):
        queue.put(number)
        said.append([queue.empty(), channel(queue).count(), queue.qsize(), queue.get_nowait()])
    return [said == [[False, 1, 1, number] for number in range(50)], threading.active_count(),
            is_fed(queue)]
"""
    assert program(source, size, kind) == [True, 1, False]


@pytest.mark.parametrize("kind", QUEUES)
def test_put_never_blocks_on_an_unbounded_queue(kind: str, program: Program) -> None:
    source = """
def body():
    queue = getattr(semlock.get_context("fork"), sys.argv[1])()
    messages = [LARGE, *range(5), HUGE, *[bytes([i]) * 10_000 for i in range(60)], HUGE, "last"]
    # Nobody reads.
    for message in messages[:-1]:
        queue.put(message)
    queue.put(messages[-1], block=False)
    said = [queue.qsize() == len(messages), queue.full(), is_fed(queue)]
    said.append([queue.get() for _ in messages] == messages)
    said += [queue.qsize(), queue.empty()]
    done_with(queue)
    return said
"""
    assert program(source, kind) == [True, False, True, True, 0, True]


def test_order_is_kept_when_later_messages_could_go_at_once(program: Program) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue()
    random.seed(7)
    number = got = 0
    fed = direct = 0
    for round in range(300):
        for _ in range(random.randrange(40)):
            size = random.choice([0, 10, 10, 10, 5_000, 70_000, 300_000])
            queue.put((number, bytes(size)))
            number += 1
            if len(queue._buffer):
                fed += 1
            else:
                direct += 1
        for _ in range(random.randrange(number - got + 1)):
            assert queue.get()[0] == got
            got += 1
    while got < number:
        assert queue.get()[0] == got
        got += 1
    done_with(queue)
    return [fed > 0, direct > 0, queue.qsize()]
"""
    assert program(source) == [True, True, 0]


def test_puts_go_at_once_again_when_the_feeder_thread_has_sent_all(program: Program) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue()
    said = []
    for _ in range(3):
        queue.put(HUGE)
        queue.put("behind it")
        said += [len(queue.get()), queue.get()]
        wait_until(lambda: not queue._buffer)
        before = channel(queue).count()
        queue.put("at once")
        said += [channel(queue).count() - before, queue.get()]
    done_with(queue)
    return said
"""
    assert program(source) == [3_000_000, "behind it", 1, "at once"] * 3


@pytest.mark.parametrize("method", METHODS)
def test_each_putters_order_is_kept_among_several_with_large_and_small_messages(
    method: str, program: Program
) -> None:
    source = """
COUNT = 300
SIZES = 0, 10, 100, 20_000, 10, 300_000, 10


def put_all(queue, sender):
    for number in range(COUNT):
        body = bytes([sender, number & 255]) * SIZES[number % len(SIZES)]
        queue.put((sender, number, body, zlib.crc32(body)))
    done_with(queue)


def body():
    context = semlock.get_context(method())
    queue = context.Queue(int(sys.argv[2]))
    children = [run(context, put_all, queue, sender) for sender in range(3)]
    following = [0] * 3
    for _ in range(3 * COUNT):
        sender, number, body, checksum = queue.get()
        assert zlib.crc32(body) == checksum and number == following[sender]
        following[sender] += 1
    return [following, joined(*children), queue.empty(), queue.qsize()]
"""
    for size in "0", "5":
        assert program(source, method, size) == [[300] * 3, [0] * 3, True, 0]


# ---- Bounds ----


@pytest.mark.parametrize("maxsize", ["1", "10", "1000", "1000000", "0"])
def test_a_bound_is_kept_exactly_among_several_putters(maxsize: str, program: Program) -> None:
    source = """
COUNT = 3000


def put_all(queue, sender, full):
    refused = 0
    for number in range(COUNT):
        if number % 3:
            queue.put((sender, number))
            continue
        while True:
            try:
                queue.put((sender, number), number % 2 == 0, 0.01)
                break
            except Full:
                refused += 1
    full.send(refused)


def body():
    context = semlock.get_context("fork")
    maxsize = int(sys.argv[1])
    queue = context.Queue(maxsize)
    limit = maxsize or 2**31
    hears, says = context.Pipe(False)
    children = [run(context, put_all, queue, sender, says) for sender in range(3)]
    following, most = [0] * 3, 0
    for _ in range(3 * COUNT):
        most = max(most, channel(queue).put_and_not_taken(), queue.qsize())
        sender, number = queue.get()
        assert number == following[sender]
        following[sender] += 1
    refused = sum(hears.recv() for _ in children)
    is_right = refused == 0 if limit > 3 * COUNT else refused >= 0
    return [following, most <= limit, is_right, joined(*children), queue.qsize()]
"""
    assert program(source, maxsize) == [[3000] * 3, True, True, [0] * 3, 0]


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("maxsize", ["1", "10", "1000"])
def test_a_queue_takes_as_many_as_it_may_and_says_full_then_alone(
    maxsize: str, kind: str, program: Program
) -> None:
    source = """
def body():
    maxsize = int(sys.argv[1])
    queue = getattr(semlock.get_context("fork"), sys.argv[2])(maxsize)
    said = []
    for ways in range(4):
        for number in range(maxsize):
            assert not queue.full()
            if ways == 3:
                # Of these some wait for the feeder thread.
                queue.put_nowait(bytes(1000))
            else:
                [queue.put_nowait, queue.put, lambda it: queue.put(it, timeout=60)][ways](number)
        said.append([queue.full(), queue.qsize() == maxsize])
        said[-1] += [raised(queue.put_nowait, 0), raised(queue.put, 0, True, 0.01)]
        for number in range(maxsize):
            message = queue.get()
            assert message == (bytes(1000) if ways == 3 else number)
            # Its place is free at once.
            queue.put_nowait("another")
            assert queue.full() and raised(queue.put_nowait, 0) == "Full"
        for number in range(maxsize):
            assert queue.get() == "another"
        said[-1] += [queue.empty(), queue.full(), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source, maxsize, kind) == [[True, True, "Full", "Full", True, False, 0]] * 4


def test_several_putters_get_all_the_places_without_waiting_and_no_more(program: Program) -> None:
    source = """
def put(queue, start, result):
    start.wait()
    count = 0
    for _ in range(400):
        try:
            queue.put_nowait(os.getpid())
            count += 1
        except Full:
            pass
    result.send(count)


def body():
    context = semlock.get_context("fork")
    said = []
    for maxsize in (1, 10, 1000):
        queue, start = context.Queue(maxsize), context.Event()
        hears, says = context.Pipe(False)
        children = [run(context, put, queue, start, says) for _ in range(3)]
        start.set()
        count = sum(hears.recv() for _ in children)
        said += [count == maxsize, queue.full(), joined(*children)]
        assert len(all_messages(queue)) == maxsize
    return said
"""
    assert program(source) == [True, True, [0] * 3] * 3


def test_putters_that_wait_get_in_by_turns_while_another_puts_in_a_tight_loop(
    program: Program,
) -> None:
    source = """
def put_for_ever(queue):
    while True:
        queue.put("another")


def put_some(queue, name):
    for _ in range(10):
        queue.put(name)


def body():
    context = semlock.get_context("fork")
    queue = context.Queue(1)
    greedy = run(context, put_for_ever, queue)
    waiting = [run(context, put_some, queue, f"waiter {n}") for n in range(3)]
    seen = {}
    while sum(count for name, count in seen.items() if name != "another") < 30:
        message = queue.get()
        seen[message] = seen.get(message, 0) + 1
    greedy.kill()
    said = joined(*waiting)
    assert killed(greedy)
    del seen["another"]
    return [said, sorted(seen.values())]
"""
    assert program(source) == [[0] * 3, [10] * 3]


def test_a_place_that_a_putter_gives_up_goes_to_the_next_in_the_line(program: Program) -> None:
    source = """
def put(queue, timeout):
    try:
        queue.put("in", timeout=timeout)
    except Full:
        os._exit(7)


def body():
    context = semlock.get_context("fork")
    queue = context.Queue(1)
    queue.put("first")
    short = [run(context, put, queue, 0.05) for _ in range(2)]
    long = [run(context, put, queue, 60) for _ in range(2)]
    said = [joined(*short)]
    said += [queue.get(), queue.get(), queue.get(), joined(*long), queue.empty()]
    return said
"""
    assert program(source) == [[7, 7], "first", "in", "in", [0, 0], True]


# ---- What cannot be pickled ----


@pytest.mark.parametrize("kind", QUEUES)
@pytest.mark.parametrize("size", ["0", "2"])
def test_what_cannot_be_pickled_is_told_by_the_feeder_thread_and_has_no_place(
    size: str, kind: str, program: Program
) -> None:
    source = """
class Fails:
    def __init__(self, times):
        self.times = times

    def __reduce__(self):
        if self.times:
            self.times -= 1
            raise LookupError("not yet")
        return str, ("pickled in the end",)


def body():
    queue, errors = getattr(semlock.get_context("fork"), sys.argv[2])(int(sys.argv[1])), []

    def hear(error, obj):
        errors.append([type(error).__name__, type(obj).__name__, threading.current_thread().name])
        # As the stdlib's: its place was given back before.
        sizes.append(queue.qsize())

    sizes = []
    queue._on_queue_feeder_error = hear
    queue.put(Fails(9))
    wait_until(lambda: len(sizes) == 1)
    queue.put("first")
    queue.put(Fails(9))
    wait_until(lambda: len(sizes) == 2)
    said = [queue.qsize(), queue.get(), queue.qsize()]
    # The second time, it can be.
    queue.put(Fails(1))
    queue.put("after it")
    said += [queue.get(), queue.get(), queue.qsize(), queue.empty(), queue.full()]
    said += [errors, sizes]
    if sys.argv[2] == "JoinableQueue":
        for _ in range(3):
            queue.task_done()
        queue.join()
        said.append(raised(queue.task_done))
    done_with(queue)
    return said
"""
    error = ["LookupError", "Fails", "QueueFeederThread"]
    expected = [1, "first", 0, "pickled in the end", "after it", 0, True, False, [error] * 2]
    expected.append([0, 1])
    assert program(source, size, kind) == expected + ["ValueError"] * (kind == "JoinableQueue")


def test_an_unpicklable_object_is_printed_as_by_the_stdlib(program: Program) -> None:
    source = """
import io


def ways(context):
    sys.stderr = io.StringIO()
    queue = context.Queue(1)
    queue.put(lambda: None)
    queue.put("next")
    said = [queue.get()]
    wait_until(lambda: "Error" in sys.stderr.getvalue())
    done_with(queue)
    text, sys.stderr = sys.stderr.getvalue(), sys.__stderr__
    lines = [line for line in text.splitlines() if line and not line.startswith(" ")]
    return [*said, [lines[0], lines[-1].replace("semlock", "")[:30]]]


def body():
    stock, own = ways(multiprocessing.get_context("fork")), ways(semlock.get_context("fork"))
    return [stock == own, stock, own]
"""
    is_same, stock, own = program(source)
    assert is_same, (stock, own)


def test_messages_of_the_feeder_thread_go_before_one_that_cannot_be_pickled(
    program: Program,
) -> None:
    source = """
class Fails:
    def __reduce__(self):
        raise LookupError


def body():
    queue, errors = semlock.get_context("fork").Queue(), []
    queue._on_queue_feeder_error = lambda error, obj: errors.append(type(error).__name__)
    for number in range(20):
        queue.put(number)
        if number % 3 == 0:
            queue.put(HUGE)
        if number % 4 == 0:
            queue.put(Fails())
    got = [queue.get() for _ in range(27)]
    wait_until(lambda: len(errors) == 5)
    said = [[x for x in got if x != HUGE] == list(range(20)), got.count(HUGE), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source) == [True, 7, 0]


# ---- put_many and get_many ----


@pytest.mark.parametrize("kind", QUEUES)
def test_put_many_and_get_many_keep_the_order(kind: str, program: Program) -> None:
    source = """
def body():
    queue = getattr(semlock.get_context("fork"), sys.argv[1])()
    messages = [HUGE if n % 100 == 50 else LARGE if n % 100 == 60 else n for n in range(1000)]
    queue.put_many(iter(messages[:700]))
    queue.put("one")
    queue.put_many(messages[700:])
    queue.put_many([])
    expected, got, sizes = [*messages[:700], "one", *messages[700:]], [], []
    for most in (1, 2, 7, 300):
        got += queue.get_many(most)
    while len(got) < len(expected):
        some = queue.get_many(17)
        sizes.append(len(some))
        got += some
        if len(got) < len(expected):
            got.append(queue.get())
    said = [got == expected, max(sizes) <= 17, queue.empty(), queue.qsize()]
    said += [raised(queue.get_many, 3, False), raised(queue.get_many, 3, True, 0.01)]
    said += [raised(queue.get_many, 0), raised(queue.get_many, -1)]
    queue.put_many([1, 2, 3])
    said += [queue.get_many(5), raised(queue.get_nowait)]
    done_with(queue)
    said += [raised(queue.get_many, 1), raised(queue.put_many, [1])]
    return said
"""
    value = "ValueError"
    assert program(source, kind) == [
        True, True, True, 0, "Empty", "Empty", value, value, [1, 2, 3], "Empty", value, value,
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_put_many_waits_for_places_and_never_exceeds_the_bound(
    method: str, program: Program
) -> None:
    source = """
def put_all(queue, sender):
    queue.put_many((sender, number) for number in range(1000))


def body():
    context = semlock.get_context(method())
    queue = context.JoinableQueue(7)
    children = [run(context, put_all, queue, sender) for sender in range(2)]
    wait_until(queue.full)
    wait_until(lambda: all(map(sleeping, children)))
    said = [queue.qsize(), channel(queue).count(), raised(queue.put_nowait, 1)]
    following, most, count = [0, 0], 0, 0
    while count < 2000:
        most = max(most, channel(queue).put_and_not_taken())
        some = queue.get_many(20)
        assert 1 <= len(some) <= 20
        for sender, number in some:
            assert number == following[sender]
            following[sender] += 1
            queue.task_done()
        count += len(some)
    queue.join()
    return [*said, following, most <= 7, joined(*children), queue.qsize()]
"""
    assert program(source, method) == [7, 7, "Full", [1000] * 2, True, [0] * 2, 0]


def test_get_many_keeps_what_it_received_when_a_message_cannot_be_unpickled(
    program: Program,
) -> None:
    source = """
class Bad:
    def __reduce__(self):
        return fail, ()


def fail():
    raise LookupError("a bad message")


def body():
    queue = semlock.get_context("fork").Queue()
    said = []
    # In the middle, two of them.
    queue.put_many([1, 2, Bad(), 3, Bad(), 4])
    try:
        queue.get_many(5)
    except LookupError as error:
        said.append(error.received)
    said.append(queue.get_many(5))
    # The first one: nothing else is taken.
    queue.put_many([Bad(), 5])
    try:
        queue.get_many(5)
    except LookupError as error:
        said.append(getattr(error, "received", []))
    said += [queue.get_many(5), queue.empty(), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source) == [[1, 2, 3], [4], [], [5], True, 0]


def test_put_many_with_what_cannot_be_pickled_puts_the_others(program: Program) -> None:
    source = """
class Fails:
    def __reduce__(self):
        raise LookupError


def body():
    queue, errors = semlock.get_context("fork").Queue(100), []
    queue._on_queue_feeder_error = lambda error, obj: errors.append(type(error).__name__)
    queue.put_many([1, Fails(), 2, Fails(), 3])
    got = [queue.get() for _ in range(3)]
    wait_until(lambda: len(errors) == 2)
    said = [got, queue.qsize(), queue.empty(), errors]
    done_with(queue)
    return said
"""
    assert program(source) == [[1, 2, 3], 0, True, ["LookupError"] * 2]


def test_put_many_puts_what_an_iterable_gave_before_it_failed(program: Program) -> None:
    source = """
def some():
    yield 1
    yield 2
    raise LookupError


def body():
    queue = semlock.get_context("fork").Queue()
    return [raised(queue.put_many, some()), all_messages(queue)]
"""
    assert program(source) == ["LookupError", [1, 2]]


def test_a_task_that_get_many_took_is_lost_with_its_process(program: Program) -> None:
    source = """
def take_and_die(queue):
    assert len(queue.get_many(7)) == 7
    queue.task_done()
    die()


def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    queue.put_many(range(10))
    assert killed(run(context, take_and_die, queue))
    said = []
    try:
        queue.join()
    except semlock.WorkerDied as error:
        said.append(error.tasks)
    said.append(queue.get_many(10))
    for _ in range(3):
        queue.task_done()
    said += [raised(queue.join), raised(queue.task_done)]
    return said
"""
    assert program(source) == [6, [7, 8, 9], "nothing", "ValueError"]


# ---- Signals ----


@pytest.mark.parametrize("size", ["0", "3"])
def test_a_put_in_a_handler_that_interrupts_puts_of_its_own_thread_hangs_nothing(
    size: str, program: Program
) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue(int(sys.argv[1]))
    random.seed(3)
    counts = {"handler": 0, "main": 0}
    left = 300

    def put(name):
        number, counts[name] = counts[name], counts[name] + 1
        data = bytes([number & 255]) * random.choice([0, 100, 3000, 3000, 70_000, 300_000])
        queue.put((name, number, data, zlib.crc32(data)))

    def handler(*_):
        nonlocal left
        put("handler")
        if left:
            left -= 1
            signal.setitimer(signal.ITIMER_REAL, random.random() * 0.001 + 0.0001)

    got = []

    def read():
        while (message := queue.get()) is not None:
            name, number, data, checksum = message
            assert zlib.crc32(data) == checksum
            got.append((name, number))

    reader = threading.Thread(target=read)
    reader.start()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0007)
    while left:
        put("main")
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    queue.put(None)
    reader.join()
    done_with(queue)
    expected = sorted((name, n) for name in counts for n in range(counts[name]))
    return [sorted(got) == expected, counts["handler"] >= 300, queue.qsize()]
"""
    assert program(source, size) == [True, True, 0]


def test_a_put_in_a_handler_that_interrupts_a_get_of_its_own_thread_arrives(
    program: Program,
) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue()
    signal.signal(signal.SIGUSR1, lambda *_: queue.put("from the handler"))

    def interrupt():
        wait_until(lambda: is_asleep(os.getpid()))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    said = queue.get()
    thread.join()
    done_with(queue)
    return [said, queue.qsize()]
"""
    assert program(source) == ["from the handler", 0]


def test_a_put_in_a_handler_that_interrupts_a_put_that_waits_for_a_place(
    program: Program,
) -> None:
    source = """
def body():
    queue = semlock.get_context("fork").Queue(1)
    queue.put("first")
    said = []
    signal.signal(signal.SIGUSR1, lambda *_: said.append(raised(queue.put, "h", True, 0.05)))

    def interrupt():
        for count in range(1, 4):
            wait_until(lambda: is_asleep(os.getpid()))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            wait_until(lambda: len(said) == count)
        said.append(queue.get())

    thread = threading.Thread(target=interrupt)
    thread.start()
    queue.put("second")
    thread.join()
    said.append(queue.get())
    return said
"""
    assert program(source) == ["Full", "Full", "Full", "first", "second"]


def test_an_exception_out_of_a_handler_during_puts_arrives_and_takes_no_place_along(
    program: Program,
) -> None:
    source = """
class Alarm(Exception):
    pass


def handler(*_):
    raise Alarm


def body():
    queue = semlock.get_context("fork").Queue(2)
    got, alarms, last = [], 0, -1
    sent = []

    def read():
        while (message := queue.get()) is not None:
            got.append(message)

    reader = threading.Thread(target=read)
    reader.start()
    def put_until_the_alarm():
        nonlocal number
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + random.random() * 0.001)
        # It ends by that alone.
        while True:
            queue.put(number)
            sent.append(number)
            number += 1

    random.seed(5)
    signal.signal(signal.SIGALRM, handler)
    number = 0
    while alarms < 1500:
        try:
            put_until_the_alarm()
        except Alarm:
            alarms += 1
            number += 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    queue.put(None)
    reader.join()
    done_with(queue)
    # One whose put was interrupted was put or not.
    return [set(sent) <= set(got), got == sorted(set(got)), queue.qsize(), queue.full()]
"""
    assert program(source) == [True, True, 0, False]


# ---- Forks ----


def test_a_child_that_is_forked_in_the_middle_begins_anew(program: Program) -> None:
    source = """
def put_more(queue):
    # It has none of its parent's.
    assert not queue._buffer and queue._thread is None and queue.qsize() == 2
    queue.put("of the child")
    queue.put(LARGE)
    done_with(queue)


def body():
    context = semlock.get_context("fork")
    queue = context.Queue(10)
    queue.put(HUGE)
    queue.put("of the parent")
    # The feeder thread is in the middle of the first, and has the second.
    wait_until(lambda: not queue.empty())
    assert queue._buffer
    child = run(context, put_more, queue)
    wait_until(lambda: queue.qsize() == 4)
    got = [queue.get() for _ in range(4)]
    of_child = [x for x in got if x in ("of the child", LARGE)]
    of_parent = [x for x in got if x not in of_child]
    said = [of_child == ["of the child", LARGE], of_parent == [HUGE, "of the parent"]]
    said += [joined(child), queue.qsize(), queue.empty(), queue.full()]
    # All places are there.
    for number in range(10):
        queue.put_nowait(number)
    said += [raised(queue.put_nowait, 10), [queue.get() for _ in range(10)] == list(range(10))]
    done_with(queue)
    return said
"""
    assert program(source) == [True, True, [0], 0, True, False, "Full", True]


def test_a_forked_child_that_dies_frees_nothing_of_its_parent(program: Program) -> None:
    source = """
import warnings

warnings.simplefilter("ignore", DeprecationWarning)


def body():
    queue = semlock.get_context("fork").JoinableQueue(4)
    queue.put(HUGE)
    queue.put("second")
    pid = os.fork()
    if not pid:
        queue.put(HUGE)
        queue.put("lost")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    queue.put_nowait("third")
    queue.put_nowait("fourth")
    said = [raised(queue.put_nowait, "fifth")]
    try:
        queue.join()
    except semlock.WorkerDied as error:
        said.append(error.tasks)
    said.append([queue.get() for _ in range(4)] == [HUGE, "second", "third", "fourth"])
    for _ in range(4):
        queue.task_done()
    said += [raised(queue.join), raised(queue.task_done), queue.qsize()]
    done_with(queue)
    return said
"""
    assert program(source) == ["Full", 2, True, "nothing", "ValueError", 0]


def test_a_handler_that_forks_in_a_put_leaves_both_processes_whole(program: Program) -> None:
    source = """
import warnings

warnings.simplefilter("ignore", DeprecationWarning)


def body():
    queue = semlock.get_context("fork").Queue(1)
    queue.put("first")
    children = []

    def fork(*_):
        pid = os.fork()
        if pid:
            children.append(pid)

    signal.signal(signal.SIGUSR1, fork)
    parent = os.getpid()

    def interrupt():
        wait_until(lambda: is_asleep(parent))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        wait_until(lambda: children)
        got.append(queue.get())
        got.append(queue.get()[0])
        got.append(queue.get()[0])

    got = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    # Both wait for the place, one after the other.
    queue.put(("second", os.getpid()))
    if os.getpid() != parent:
        os._exit(0)
    thread.join()
    _, status = os.waitpid(children[0], 0)
    return [got, status, queue.qsize(), queue.empty()]
"""
    assert program(source) == [["first", "second", "second"], 0, 0, True]


def test_many_processes_one_after_the_other_leave_nothing_behind(program: Program) -> None:
    source = """
def put_and_die(queue):
    queue.put(HUGE)
    die()


def take_and_die(queue):
    queue.get()
    die()


def fork(target, queue):
    pid = os.fork()
    if not pid:
        target(queue)
    os.waitpid(pid, 0)


def body():
    context = semlock.get_context("fork")
    queue = context.JoinableQueue()
    queue.put_many(range(700))
    for _ in range(700):
        fork(take_and_die, queue)
    try:
        queue.join()
    except semlock.WorkerDied as error:
        said = [error.tasks, queue._unfinished_tasks.get_value(), raised(queue.task_done)]
    queue = context.Queue(1000)
    for _ in range(700):
        fork(put_and_die, queue)
    for number in range(1000):  # may start a feeder thread: no fork after it
        queue.put(number, timeout=60)
    said += [queue.full(), [queue.get() for _ in range(1000)] == list(range(1000)), queue.empty()]
    return said
"""
    assert program(source) == [700, 0, "ValueError", True, True, True]

"""Queues between processes, and pools on them.

The rival is the stdlib or, where a row says so, faster-fifo. What people count as messages or tasks
a second is here the time that one of them takes. So a bound of 1/4 asks for four times as many a
second.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pools
import semlock
from children import Numbers, forked
from hand_over import circulate, crowded
from machine import processors
from memory import descriptors, measured, private
from recovery import LONGEST_IDLE, MANY
from rounds import Pair, Row, Table, compare, interleaved

STOCK = multiprocessing.get_context("fork")
OURS = semlock.get_context("fork")
KINDS = "SimpleQueue", "Queue"

SMALL = (17, "a small message")
MEGABYTE = 1_000_000
LARGE = b"x" * MEGABYTE
# So many messages of each size take the stdlib some tenths of a second.
SMALL_COUNT, LARGE_COUNT = 10_000, 200
SEVERAL = 4  # putters, and as many getters
# faster-fifo needs room for whole messages. Its own choice has no room for one large message.
ROOM = 8 * MEGABYTE

# What a queue occupies is the mean of so many queues. So many bytes have gone through each, in
# pieces of this size. So it has used all the memory that it has for messages.
QUEUES = 20
THROUGH, PIECE = 2 * MEGABYTE, b"x" * 10_000


def optional(name: str) -> Any:
    """The module, or None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@contextlib.contextmanager
def opened(make: Callable[[], Any], count: int) -> Iterator[list[Any]]:
    queues = [make() for _ in range(count)]
    try:
        yield queues
    finally:
        for queue in queues:
            queue.close()
            # A `Queue` has a thread where it puts, and other queues have none.
            if hasattr(queue, "join_thread"):
                queue.join_thread()


def ring(make: Callable[[], Any], members: int) -> float:
    """Nanoseconds that a message takes from one process to the next."""
    with opened(make, members) as queues:
        return circulate(
            [queue.get for queue in queues], [partial(queue.put, SMALL) for queue in queues]
        )


def round_trip(make: Callable[[], Any]) -> float:
    """Nanoseconds that a message takes to another process, and its answer back."""
    return 2 * ring(make, 2)


def put_each(queue: Any, message: object, count: int) -> None:
    for _ in range(count):
        queue.put(message)


def get_each(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def get_by_faster_fifos_get_many(queue: Any, count: int) -> None:
    while count:
        count -= len(queue.get_many(max_messages_to_get=count))


def throughput(
    make: Callable[[], Any],
    message: object,
    count: int,
    several: int = 1,
    put: Callable[[Any, object, int], None] = put_each,
    get: Callable[[Any, int], None] = get_each,
) -> float:
    """Microseconds for a message. Of putters and getters there are several, for so many each."""
    with opened(make, 1) as [queue], Numbers() as ready, Numbers() as start, Numbers() as done:

        def put_all() -> None:
            # One message comes first, until all processes and their threads run.
            put(queue, message, 1)
            start.get()
            put(queue, message, count)
            # The thread of a `Queue` still sends.
            signal.pause()

        def get_all() -> None:
            get(queue, 1)
            ready.put(1)
            # Not before: it would take another getter's first message.
            start.get()
            get(queue, count)
            done.put(time.monotonic_ns())

        with forked(*[put_all] * several, *[get_all] * several):
            for _ in range(several):
                ready.get()
            began = time.monotonic_ns()
            start.put(*[1] * 2 * several)
            ended = max(done.get() for _ in range(several))
    return (ended - began) / (count * several) / 1000


def occupied(kind: str) -> dict[str, int]:
    """What some queues in use need. The kernel does not say what it keeps for a pipe."""

    def use(queue: Any) -> None:
        for _ in range(THROUGH // len(PIECE)):
            queue.put(PIECE)
            queue.get()

    make = getattr(OURS, kind)
    # The memory that all queues share is there after the first.
    with opened(make, 1) as [first]:
        use(first)
        before = descriptors(), private()
        with opened(make, QUEUES) as queues:
            for queue in queues:
                use(queue)
            after = descriptors(), private()
    new = after[0].keys() - before[0].keys()
    grown = sum(after[0].values()) - sum(before[0].values())
    return {"descriptors": len(new), "memory": grown + after[1] - before[1]}


def stock_and_ours(kind: str, *arguments: Any) -> list[Callable[[], Any]]:
    """What makes the stdlib's queue, and what makes semlock's."""
    return [partial(getattr(context, kind), *arguments) for context in (STOCK, OURS)]


def latencies() -> Iterator[Pair]:
    for kind in KINDS:
        sides = [partial(round_trip, make) for make in stock_and_ours(kind)]
        busy = [partial(crowded, side) for side in sides]
        yield Pair(f"`{kind}` round trip", *sides, 0.15)
        yield Pair(f"`{kind}` round trip, {processors()} busy processes beside", *busy, 1.1)
    many = 4 * processors()
    for kind in KINDS:
        sides = [partial(ring, make, many) for make in stock_and_ours(kind)]
        yield Pair(f"message round {many} processes, `{kind}`, a hop", *sides, 1.1)


def throughputs(numpy: Any) -> Iterator[Pair]:
    def pair(work: str, bound: float, makes: Any, *how: Any) -> Pair:
        sides = [partial(throughput, make, *how) for make in makes]
        return Pair(work, *sides, bound, "µs a message")

    for kind, size, bound in [
        ("SimpleQueue", [], 1 / 4),
        ("Queue", [], 1 / 3),
        ("Queue", [10], 1 / 3),
        ("Queue", [100_000], 1 / 3),
    ]:
        name = "".join([kind, *[f"({most:,})" for most in size]])
        makes = stock_and_ours(kind, *size)
        yield pair(f"small messages, `{name}`", bound, makes, SMALL, SMALL_COUNT)
    large = {"1 MB of bytes": LARGE}
    if numpy is not None:
        large["NumPy arrays of 1 MB"] = numpy.ones(MEGABYTE // 8)
    for what, message in large.items():
        for kind in KINDS:
            makes = stock_and_ours(kind)
            yield pair(f"{what}, `{kind}`", 1 / 4, makes, message, LARGE_COUNT)
    for kind in KINDS:
        work = f"small messages, `{kind}`, {SEVERAL} putters and {SEVERAL} getters"
        makes = stock_and_ours(kind)
        yield pair(work, 1 / 2, makes, SMALL, SMALL_COUNT // SEVERAL, SEVERAL)


class Piped:
    """A pipe that processes share under locks, as workers of other libraries do."""

    def __init__(self) -> None:
        self.reader, self.writer = STOCK.Pipe(duplex=False)
        self.reading, self.writing = STOCK.Lock(), STOCK.Lock()

    def put(self, message: object) -> None:
        with self.writing:
            self.writer.send(message)

    def get(self) -> object:
        with self.reading:
            return self.reader.recv()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


def installed(measure: Callable[[], float]) -> float:
    semlock.install()
    try:
        return measure()
    finally:
        semlock.uninstall()


def through_pipes() -> Iterator[Pair]:
    """What `install` changes in the stdlib's connections."""
    for size, message, count in [
        ("small messages", SMALL, SMALL_COUNT),
        ("20 kB", b"x" * 20_000, SMALL_COUNT // 4),
        ("1 MB", LARGE, LARGE_COUNT),
    ]:
        side = partial(throughput, Piped, message, count)
        work = f"{size}, `Pipe` under a lock"
        yield Pair(work, side, partial(installed, side), 1, "µs a message")


def beside_faster_fifo(faster_fifo: Any) -> Iterator[Pair]:
    make = partial(faster_fifo.Queue, ROOM)
    # What is said of it, how the peer's messages are got, and how semlock's are.
    ways = [
        ("", get_each, get_each),
        ("'s `get_many`", get_by_faster_fifos_get_many, get_each),
    ]
    for size, message, count in [
        ("small messages", SMALL, SMALL_COUNT),
        ("1 MB", LARGE, LARGE_COUNT),
    ]:
        for way, theirs, mine in ways:
            for kind in KINDS:
                yield Pair(
                    f"{size}, `{kind}` beside faster-fifo{way}",
                    partial(throughput, make, message, count, get=theirs),
                    partial(throughput, getattr(OURS, kind), message, count, get=mine),
                    1,
                    "µs a message",
                )


def tasks() -> Iterator[Pair]:
    measure = pools.microseconds_a_task
    for work, call, bound in [
        ("`Pool.map(chunksize=1)`", pools.by_map, 1 / 2),
        ("`Pool.imap_unordered`", pools.by_imap_unordered, 1 / 2),
        ("`Pool.apply`", pools.by_apply, 1),
    ]:
        sides = [partial(measure, pools.open_pool, context, call) for context in (STOCK, OURS)]
        yield Pair(work, *sides, bound, "µs a task")
    # A large part of what a task costs is the stdlib's waiting, which only `install` changes.
    side = partial(measure, pools.open_executor, STOCK, pools.by_executors_map)
    work = "`ProcessPoolExecutor.map(chunksize=1)`, installed"
    yield Pair(work, side, partial(installed, side), 1 / 1.3, "µs a task")


def amounts(rounds: int) -> Iterator[Row]:
    for kind in KINDS:
        found = measured(__file__, kind)
        memory = found["memory"] / QUEUES / 1000
        yield Row(f"`{kind}` in use: memory", "KB", memory, bound=300)
        yield Row(f"`{kind}` in use: descriptors", "", found["descriptors"] / QUEUES, bound=3)
    seconds = min(rounds, LONGEST_IDLE)
    [[busy]] = interleaved([partial(pools.idle, OURS, MANY, seconds)], 1)
    yield Row(f"idle `Pool` of {MANY}: of a processor", "%", busy, bound=0.1)


def table(rounds: int) -> Table:
    numpy, faster_fifo = map(optional, ("numpy", "faster_fifo"))
    pairs = [*latencies(), *throughputs(numpy), *through_pipes(), *tasks()]
    if faster_fifo is not None:
        pairs += beside_faster_fifo(faster_fifo)
    rows = [*compare(pairs, max(1, rounds // 3)), *amounts(rounds)]
    found = {"NumPy": numpy, "faster-fifo": faster_fifo}
    left_out = [name for name, module in found.items() if module is None]
    return Table("Queues and pools", "the rival", rows, left_out)


if __name__ == "__main__":
    print(json.dumps(occupied(sys.argv[1])))

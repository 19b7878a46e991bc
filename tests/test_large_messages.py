"""Large messages: their buffers are copied as rarely as can be, and arrive whole."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
import semlock
from children import wait_until
from semlock.channels import dumps, loads

pytestmark = pytest.mark.skipif(
    not semlock._native.HAS_SHARED, reason="queues are the stdlib's where there is no shared memory"
)

# So that there is a segment already where locks of queues live.
KEPT = semlock.Lock()


class Block:
    """What NumPy's arrays are to pickle: an object over a buffer, which it gives out of band."""

    def __init__(self, buffer: Any) -> None:
        self.view = memoryview(buffer)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if protocol >= 5:
            return Block, (pickle.PickleBuffer(self.view),)
        return Block, (bytes(self.view),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.view == other.view

    def __hash__(self) -> int:
        return 0


def block(size: int, seed: int = 1) -> Block:
    return Block(bytearray(at * seed & 0xFF for at in range(256)) * (size // 256 + 1))


def sent(data: Any) -> bytearray:
    """The message as its receiver gets it."""
    return bytearray(b"".join(data) if isinstance(data, list) else data)


def address_of(view: memoryview) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(view))


# However long what is before it, so that each way to fill up to the alignment comes.
@pytest.mark.parametrize("before", range(34))
def test_a_large_buffer_stays_where_the_message_is_and_is_aligned(before: int) -> None:
    first, second = block(1 << 20), block(100_001, 3)
    obj = ["x" * before, first, b"y" * 100_000, bytearray(b"z" * 70_000), second, {"first": first}]
    message = sent(dumps(obj))
    received = loads(message)
    assert received == obj
    assert received[1] is received[5]["first"]
    assert [type(received[at]) for at in (2, 3)] == [bytes, bytearray]
    begin = address_of(memoryview(message))
    for each in received[1], received[4]:
        at = address_of(each.view) - begin
        assert 0 <= at < len(message)
        assert at % 16 == 0
        assert not each.view.readonly


def test_whoever_unpickles_it_otherwise_gets_the_same() -> None:
    obj = [block(1 << 20), "and", block(70_000)]
    assert pickle.loads(sent(dumps(obj))) == obj


def test_a_read_only_buffer_arrives_as_one() -> None:
    obj = [Block(b"r" * 100_000), block(100_000)]
    received = loads(sent(dumps(obj)))
    assert received == obj
    assert received[0].view.readonly
    assert not received[1].view.readonly


def test_bytes_that_end_as_such_a_message_does_are_not_taken_for_one() -> None:
    obj = b"x" * 100_000 + b"buffers\0"
    assert loads(sent(dumps(obj))) == obj


# A SimpleQueue's `put` waits for room.
@pytest.mark.parametrize(
    ("kind", "size"),
    [("SimpleQueue", 70_000), ("Queue", 70_000), ("Queue", 300_000), ("Queue", 3_000_000)],
)
def test_a_message_is_what_its_object_was_when_it_was_put(kind: str, size: int) -> None:
    queue = getattr(semlock.get_context("fork"), kind)()
    obj = block(size)
    before = bytes(obj.view)
    queue.put(obj)
    obj.view[:] = bytes(len(obj.view))
    assert bytes(queue.get().view) == before
    queue.close()
    if kind == "Queue":
        queue.join_thread()


def begin_a_message(queue: Any) -> None:
    """As a process does that is killed in the middle of sending it."""
    assert queue._writer._channel.send(bytes(3_000_000), 0) is False


def test_whoever_was_told_of_a_message_does_not_wait_for_ever_if_it_does_not_come() -> None:
    queue = semlock.get_context("fork").SimpleQueue()
    begin_a_message(queue)
    assert queue._reader.poll()
    with pytest.raises(EOFError, match="in the middle"):
        queue._reader.recv()
    queue.put("the next")
    assert queue._reader.recv() == "the next"
    queue.close()


@pytest.mark.parametrize("kind", ["SimpleQueue", "Queue"])
def test_get_waits_for_the_next_message_if_one_does_not_come(kind: str) -> None:
    queue = getattr(semlock.get_context("fork"), kind)()
    begin_a_message(queue)
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    wait_until(queue._reader._channel.is_empty)
    queue.put("the next")
    thread.join()
    assert got == ["the next"]
    queue.close()

"""Addresses, descriptors and segments that are wrong, and a system that has run out of something.

Each causes an error that says so, and never undefined behaviour, SIGBUS or a hang.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import multiprocessing
import os
import pickle
import random
import re
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import synchronize
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import PATIENCE, Line, fork, forked, in_a_child, in_a_fresh_interpreter, wait_until
from families import NOT_TAKEN, TAKEN, both, die, holder, recovered_from, take
from hypothesis import given
from hypothesis import strategies as st
from kernel_features import (
    Denied,
    deny,
    have_own_mounts,
    lose_its_right_to_open_mappings,
    mount,
    needs_own_mounts,
    needs_seccomp,
    needs_the_right_to_open_mappings,
)
from words import LAYOUT

pytestmark = pytest.mark.usefixtures("a_segment")

CLASSES = {
    "Lock": semlock.Lock,
    "RLock": semlock.RLock,
    "Semaphore": semlock.Semaphore,
    "BoundedSemaphore": semlock.BoundedSemaphore,
    "robust Semaphore": lambda: semlock.Semaphore(3, robust=True),
    "Condition": semlock.Condition,
    "Event": semlock.Event,
    "Barrier": lambda: semlock.Barrier(2),
}
SEM_VALUE_MAX = synchronize.SEM_VALUE_MAX

Segment = bytes

# The errors that refuse nonsense. A number that fits no integer of the machine fails earlier.
NONSENSE = (ValueError, OverflowError, TypeError)


# The errors that say that a segment cannot be reached, or be sent.
NOT_REACHED = (OSError, LookupError, ValueError, RuntimeError)


def rebuild(kind: str, segment: Any, slot: Any, tag: Any, descriptor: Any = -1) -> Any:
    more: list[Any] = {"Condition": [semlock.RLock()], "Barrier": [None, None]}.get(kind, [])
    return getattr(semlock, kind)._rebuild(segment, slot, tag, descriptor, *more)


def is_refused(*arguments: Any) -> bool:
    try:
        rebuild(*arguments)
    except (ValueError, OSError) as error:
        return bool(str(error))
    return False


def usable(lock: Any) -> None:
    """A lock that was accepted works: it never crashes."""
    if lock.acquire(True, 0.01):
        lock.release()
    repr(lock)


# ---- Addresses ----


@pytest.fixture
def address() -> tuple[bytes, int, int]:
    lock = semlock.Lock()
    lock._mark_shared()
    return lock._address()


def test_a_segment_that_is_not_mapped_is_a_lookup_error(address: Any) -> None:
    _, slot, tag = address
    with pytest.raises(LookupError):
        rebuild("Lock", b"\1" * 16, slot, tag)


@pytest.mark.parametrize(
    "segment", ["x" * 16, b"", b"\0" * 15, b"\0" * 17, None, 5, [0] * 16], ids=repr
)
def test_what_is_no_segment_id_is_refused(segment: Any, address: Any) -> None:
    with pytest.raises(NONSENSE):
        rebuild("Lock", segment, *address[1:])


SLOTS = [-1, -(2**40), 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**64, 2**70, "0", None, 1.5]


@pytest.mark.parametrize("slot", SLOTS, ids=repr)
@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "Condition", "Event", "Barrier"])
def test_a_slot_out_of_range_is_refused(kind: str, slot: Any) -> None:
    thing = CLASSES[kind]()
    segment, _, tag = thing._address()
    with pytest.raises(NONSENSE):
        rebuild(kind, segment, slot, tag)
    with pytest.raises(NONSENSE):
        rebuild(kind, segment, slot, tag, thing._descriptor())


def test_every_slot_that_is_not_of_this_lock_is_refused_or_safe() -> None:
    thing = semlock.Lock()
    segment, own, tag = thing._address()
    slots = os.fstat(thing._descriptor()).st_size // (LAYOUT["SLOT_WORDS"] * 8)
    accepted = []
    for slot in range(slots + 2):
        with suppress(ValueError):
            accepted.append(rebuild("Lock", segment, slot, tag))
    for lock in accepted:
        usable(lock)
    assert len(accepted) < slots
    assert own in [lock._address()[1] for lock in accepted]


def test_a_tag_with_any_other_bit_is_refused() -> None:
    for name, make in CLASSES.items():
        thing = make()
        segment, slot, tag = thing._address()
        kind = type(thing).__name__
        for bit in range(64):
            assert is_refused(kind, segment, slot, tag ^ (1 << bit)), (name, bit)
        for wrong in (-1, 2**64, 2**70, None, "1"):
            with pytest.raises(NONSENSE):
                rebuild(kind, segment, slot, wrong)


@pytest.mark.parametrize("made", CLASSES)
@pytest.mark.parametrize("asked", sorted({name.rpartition(" ")[2] for name in CLASSES}))
def test_what_is_of_another_kind_is_refused(made: str, asked: str) -> None:
    thing = CLASSES[made]()
    thing._mark_shared()
    # A bounded semaphore is a kind of semaphore.
    semaphores = {"Semaphore", "BoundedSemaphore"}
    if type(thing).__name__ == asked or {type(thing).__name__, asked} == semaphores:
        assert rebuild(asked, *thing._address())._address() == thing._address()
        return
    with pytest.raises(ValueError, match=r"\w"):
        rebuild(asked, *thing._address())


@given(
    slot=st.one_of(st.integers(0, 300), st.integers(-(2**70), 2**70)),
    tag=st.one_of(st.integers(0, 2**64 - 1), st.integers(-(2**70), 2**70)),
    descriptor=st.integers(-5, 30),
    kind=st.sampled_from(["Lock", "RLock", "Semaphore", "BoundedSemaphore"]),
    own=st.booleans(),
    data=st.data(),
)
def test_whatever_an_address_says_it_is_refused_or_works(
    slot: int, tag: int, descriptor: int, kind: str, own: bool, data: st.DataObject
) -> None:
    lock = FUZZED[0] if FUZZED else FUZZED.append(semlock.Lock()) or FUZZED[0]
    segment, real_slot, real_tag = lock._address()
    if data.draw(st.booleans()):
        slot = real_slot
    if data.draw(st.booleans()):
        tag = real_tag
    if not own:
        segment = data.draw(st.binary(min_size=16, max_size=16))
    try:
        again = rebuild(kind, segment, slot, tag, descriptor)
    except (*NONSENSE, LookupError, OSError):
        return
    usable(again)


FUZZED: list[Any] = []


@pytest.fixture(autouse=True, scope="module")
def _nothing_fuzzed_is_kept() -> Iterator[None]:
    yield
    FUZZED.clear()


# ---- Descriptors ----


@contextmanager
def foreign_descriptors() -> Iterator[dict[str, int]]:
    reading, writing = os.pipe()
    left, right = socket.socketpair()
    made = {
        "end to read from": reading,
        "end to write to": writing,
        "socket": left.detach(),
        "other socket": right.detach(),
        "directory": os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY),
        "path": os.open("/", os.O_PATH),
        "null": os.open("/dev/null", os.O_RDWR),
        "zero": os.open("/dev/zero", os.O_RDWR),
        "file": os.open(__file__, os.O_RDONLY),
        "empty memory": os.memfd_create("empty"),
        "memory of zeros": os.memfd_create("zeros"),
        "memory of garbage": os.memfd_create("garbage"),
    }
    os.ftruncate(made["memory of zeros"], 1 << 20)
    os.write(made["memory of garbage"], os.urandom(1 << 16))
    try:
        yield made
    finally:
        for descriptor in made.values():
            os.close(descriptor)


def test_a_descriptor_of_something_else_is_refused(address: Any) -> None:
    _, slot, tag = address
    with foreign_descriptors() as foreign:
        for name, descriptor in foreign.items():
            assert is_refused("Lock", b"\1" * 16, slot, tag, descriptor), name
            os.fstat(descriptor)  # it was not closed


@pytest.mark.parametrize("descriptor", [-2, -(2**31), 10**6, 2**31 - 1, 2**31, 2**40, "3", None])
def test_what_is_no_descriptor_is_refused(descriptor: Any, address: Any) -> None:
    _, slot, tag = address
    with pytest.raises((*NONSENSE, OSError, LookupError)):
        rebuild("Lock", b"\1" * 16, slot, tag, descriptor)


# ---- Segments ----


def in_another_process(
    function: Callable[..., Any], address: tuple[bytes, int, int], descriptor: int
) -> None:
    """Runs a function of this module where the segment is not mapped."""
    segment, slot, tag = address
    arguments = (segment.hex(), slot, tag, descriptor)
    in_a_fresh_interpreter(function, *arguments, pass_fds=[descriptor])


def a_copy_of(content: bytes, *, in_memory: bool = True) -> int:
    if in_memory:
        descriptor = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        descriptor = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, content)
    if in_memory:
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def outcome_of(segment: bytes, slot: int, tag: int, content: bytes, **options: Any) -> str:
    """The outcome of opening a lock in a segment with this content."""
    descriptor = a_copy_of(content, **options)
    try:
        before = len(os.listdir("/proc/self/fd"))
        try:
            lock = semlock.Lock._rebuild(segment, slot, tag, descriptor)
        except ValueError as error:
            gc.collect()
            # The descriptor was not closed, and no other is left.
            assert len(os.listdir("/proc/self/fd")) == before
            return f"refused: {error}"
        usable(lock)
        return "accepted"
    finally:
        os.close(descriptor)


def content_of(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def a_real_segment_is_mapped(segment: str, slot: int, tag: int, descriptor: int) -> None:
    identity = bytes.fromhex(segment)
    with pytest.raises(LookupError):
        semlock.Lock._rebuild(identity, slot, tag)
    lock = semlock.Lock._rebuild(identity, slot, tag, descriptor)
    assert os.fstat(lock._descriptor()).st_ino == os.fstat(descriptor).st_ino
    assert lock._descriptor() != descriptor
    assert not os.get_inheritable(lock._descriptor())
    assert not lock.acquire(False)  # the other holds it
    again = semlock.Lock._rebuild(identity, slot, tag)
    assert again._descriptor() == lock._descriptor()
    lock.release()
    assert again.acquire(False)
    os.close(descriptor)
    before = len(os.listdir("/proc/self/fd"))
    again.release()
    del lock, again
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_segment_is_reached_by_its_descriptor_and_left_with_its_last_object() -> None:
    lock = semlock.Lock()
    lock._mark_shared()
    lock.acquire()
    in_another_process(a_real_segment_is_mapped, lock._address(), lock._descriptor())
    assert not lock.locked()


def header_of(content: bytes, identity: bytes) -> int:
    """Where the header's id ends: magic, version and size stand before it or right behind."""
    place = content.find(identity)
    assert 0 <= place < 256, "the header names the segment"
    return place


def wrong_headers_are_refused(segment: str, slot: int, tag: int, descriptor: int) -> None:
    identity = bytes.fromhex(segment)
    content = content_of(descriptor)
    place = header_of(content, identity)
    # The id.
    for byte in range(place, place + 16):
        changed = bytearray(content)
        changed[byte] ^= 0x40
        assert outcome_of(identity, slot, tag, bytes(changed)).startswith("refused"), byte
    # The magic, which comes first.
    for byte in range(4):
        changed = bytearray(content)
        changed[byte] ^= 1
        assert outcome_of(identity, slot, tag, bytes(changed)).startswith("refused"), byte
    # The size, wherever it stands: too large and too small.
    size = len(content)
    for width, code in ((8, "<Q"), (4, "<I")):
        at = content.find(struct.pack(code, size), 0, 256)
        if at < 0:
            continue
        for wrong in (0, 1, 64, size - 1, size + 1, size * 2, (1 << (8 * width)) - 1):
            changed = bytearray(content)
            changed[at : at + width] = struct.pack(code, wrong)
            assert outcome_of(identity, slot, tag, bytes(changed)).startswith("refused"), wrong
        break
    # Any byte at all, also of the version: it is refused, or the change does not matter.
    outcomes = {}
    for byte in range(256):
        for flip in (0x01, 0xFF):
            changed = bytearray(content)
            changed[byte] ^= flip
            outcomes[byte, flip] = outcome_of(identity, slot, tag, bytes(changed))
    before_the_id = [outcomes[byte, 1] for byte in range(12)]
    assert sum(text.startswith("refused") for text in before_the_id) >= 5, outcomes


def wrong_sizes_are_refused(segment: str, slot: int, tag: int, descriptor: int) -> None:
    identity = bytes.fromhex(segment)
    content = content_of(descriptor)
    for in_memory in (True, False):
        for length in (0, 1, 7, 63, 64, 127, 128, 4095, 4096, 4097, len(content) // 2):
            if length < len(content):
                said = outcome_of(identity, slot, tag, content[:length], in_memory=in_memory)
                assert said.startswith("refused"), length
        # Nobody reads what lies behind the end that the header names.
        for longer in (content + b"\0", content + b"\0" * 4096, content * 2):
            outcome_of(identity, slot, tag, longer, in_memory=in_memory)


def any_content_is_refused_or_works(segment: str, slot: int, tag: int, descriptor: int) -> None:
    identity = bytes.fromhex(segment)
    content = content_of(descriptor)
    place = header_of(content, identity)
    generator = random.Random(3)
    for _ in range(100):
        changed = bytearray(content)
        for _ in range(generator.randrange(1, 200)):
            at = generator.choice([generator.randrange(256), generator.randrange(len(content))])
            changed[at] = generator.choice([0, 1, 0xFF, generator.randrange(256)])
        if generator.random() < 0.8:  # so that not all fail at the first look
            changed[:8] = content[:8]
            changed[place : place + 16] = identity
        outcome_of(identity, slot, tag, bytes(changed))


@pytest.mark.parametrize(
    "refused",
    [wrong_headers_are_refused, wrong_sizes_are_refused, any_content_is_refused_or_works],
    ids=lambda function: function.__name__,
)
def test_a_segment_that_is_not_what_it_says_is_refused(refused: Callable[..., None]) -> None:
    lock = semlock.Lock()
    lock._mark_shared()
    in_another_process(refused, lock._address(), lock._descriptor())
    assert lock.acquire(False)


# ---- Pickles ----


def test_a_pickle_that_was_cut_or_changed_is_an_error_or_the_lock() -> None:
    # Only in the bytes of the address: elsewhere, a pickle can name any function.
    lock = semlock.Lock()
    segment, _, _ = lock._address()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(lock, protocol)
        for length in range(len(pickled)):
            with pytest.raises(Exception):  # noqa: B017, PT011 - what pickle says of that
                pickle.loads(pickled[:length])
        at = pickled.find(segment)
        if at < 0:  # protocol 2 writes bytes as text
            assert protocol < 3
            continue
        for byte in range(at, at + 16):
            changed = bytearray(pickled)
            changed[byte] ^= 1
            with pytest.raises(NOT_REACHED):
                pickle.loads(bytes(changed))


def unpickling_says_that_it_is_gone(pickled: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(NOT_REACHED) as caught:
        pickle.loads(bytes.fromhex(pickled))
    assert str(caught.value)
    assert set(os.listdir("/proc/self/fd")) == before


def test_bytes_whose_segment_is_gone_are_a_clear_error() -> None:
    def body() -> str:
        return pickle.dumps(semlock.Lock()).hex()

    # The child's segment ended with the child.
    in_a_fresh_interpreter(unpickling_says_that_it_is_gone, in_a_child(body))


# ---- Closed behind our back ----


def close_all_but(line: Line) -> None:
    kept = line.connection.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 4096)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_what_lost_its_descriptor_works_in_place_and_says_so_when_sent(
    name: str, reused: bool
) -> None:
    def body(line: Line) -> None:
        lose_its_right_to_open_mappings()
        made = [CLASSES[name]()]  # in a segment of this process
        (thing,) = made
        number = thing._descriptor()
        close_all_but(line)
        others = []
        if reused:
            while number not in others:
                others.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(2):
            with pytest.raises(OSError, match=r"\w"):
                thing._descriptor()
        in_place(thing)
        in_a_child(lambda: in_place(made[0]))
        with pytest.raises((OSError, RuntimeError), match="descriptor"):
            pickle.dumps(thing)
        made += [CLASSES[name]() for _ in range(3000)]  # in this segment and in new ones
        in_place(made[1])
        in_place(made[-1])
        made.clear()
        del thing
        gc.collect()
        for other in others:  # nobody closed what is not ours
            os.fstat(other)

    with forked(body) as child:
        child.result()


def in_place(thing: Any) -> None:
    if hasattr(thing, "acquire"):
        assert thing.acquire(True, 60)
        thing.release()
    if isinstance(thing, semlock.Event):
        thing.set()
        assert thing.wait()
        thing.clear()
    if isinstance(thing, semlock.Barrier):
        thing.abort()
        thing.reset()
        assert not thing.broken


def sending_says_that_the_descriptor_is_lost(reused: bool) -> None:
    lose_its_right_to_open_mappings()
    lock = semlock.Lock()
    number = lock._descriptor()
    context = multiprocessing.get_context("spawn")
    os.closerange(3, 100)
    others = []
    while reused and number not in others:
        others.append(os.open("/dev/null", os.O_RDONLY))
    child = context.Process(target=print, args=(lock,))
    with pytest.raises((OSError, RuntimeError), match="descriptor"):
        child.start()
    with lock:
        assert lock.locked()


@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_what_lost_its_descriptor_cannot_be_sent_to_a_spawned_child_and_says_so(
    reused: bool,
) -> None:
    in_a_fresh_interpreter(sending_says_that_the_descriptor_is_lost, reused)


def use(things: list[Any], used: Any) -> None:
    for thing in things:
        in_place(thing)
    used.set()


def reach_a_child(method: str, things: list[Any]) -> None:
    context = multiprocessing.get_context(method)
    used = semlock.Event()
    child = context.Process(target=use, args=(things, used))
    child.start()
    child.join(PATIENCE)
    assert (child.exitcode, used.is_set()) == (0, True)


@contextmanager
def all_descriptors_closed(reused: bool) -> Iterator[None]:
    """As a daemon does. Others may then get the numbers, and their descriptors stay as they are."""
    os.closerange(3, 256)
    others = [os.memfd_create("another's") for _ in range(20 if reused else 0)]
    files = [os.fstat(other).st_ino for other in others]
    yield
    gc.collect()
    assert [os.fstat(other).st_ino for other in others] == files


def what_is_made_afterwards_reaches_children(method: str, reused: bool) -> None:
    lose_its_right_to_open_mappings()
    made = [make() for make in CLASSES.values()]
    made.pop()  # there is a slot that could be used again
    with all_descriptors_closed(reused):
        reach_a_child(method, [make() for make in CLASSES.values()])
        with semlock.get_context(method).Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]
        for thing in made:
            in_place(thing)
        made.clear()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_what_is_made_after_all_descriptors_were_closed_reaches_children(
    method: str, reused: bool
) -> None:
    in_a_fresh_interpreter(what_is_made_afterwards_reaches_children, method, reused)


def what_was_made_before_reaches_children(method: str, reused: bool) -> None:
    made = [make() for make in CLASSES.values()]
    with all_descriptors_closed(reused):
        reach_a_child(method, made)
        pickled = pickle.dumps(made)
        in_a_fresh_interpreter(unpickled_works, pickled.hex())
        made.clear()


def unpickled_works(pickled: str) -> None:
    for thing in pickle.loads(bytes.fromhex(pickled)):
        in_place(thing)


@needs_the_right_to_open_mappings
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("reused", [False, True], ids=["closed", "reused"])
def test_where_mappings_can_be_opened_what_was_made_before_reaches_children_too(
    method: str, reused: bool
) -> None:
    in_a_fresh_interpreter(what_was_made_before_reaches_children, method, reused)


def test_a_lock_whose_descriptor_was_lost_is_recovered_all_the_same() -> None:
    lock = semlock.Lock()

    def body(line: Line) -> None:
        close_all_but(line)
        with lock:
            line.say("held")
            line.hear()

    with forked(body) as child:
        assert child.hear() == "held"
        child.kill()
        assert take(lock) == recovered_from(child.pid)

    def waits(line: Line) -> None:
        close_all_but(line)
        with holder(lock) as other:
            die(other)
        line.say(take(lock) == recovered_from(other.pid))

    lock.release()
    with forked(waits) as child:
        assert child.hear() is True


# ---- Numbers ----


@both
@pytest.mark.parametrize("name", ["Semaphore", "BoundedSemaphore"])
def test_releases_stop_at_the_greatest_value(family: Any, name: str) -> None:
    semaphore = getattr(family, name)(SEM_VALUE_MAX)
    for _ in range(3):
        with pytest.raises((ValueError, OSError, OverflowError)):
            semaphore.release()
    assert semaphore.get_value() == SEM_VALUE_MAX
    assert [semaphore.acquire(False) for _ in range(3)] == [True] * 3
    for _ in range(3):
        semaphore.release()
    with pytest.raises((ValueError, OSError, OverflowError)):
        semaphore.release()
    assert semaphore.get_value() == SEM_VALUE_MAX


def test_releases_from_many_processes_at_once_stop_at_the_greatest_value() -> None:
    semaphore = semlock.Semaphore(SEM_VALUE_MAX - 100)

    def body(_: Line) -> int:
        released = 0
        for _ in range(200):
            with suppress(ValueError):
                semaphore.release()
                released += 1
        return released

    with forked(body) as one, forked(body) as two, forked(body) as three:
        assert sum(child.result() for child in (one, two, three)) == 100
    assert semaphore.get_value() == SEM_VALUE_MAX


@pytest.mark.parametrize("value", [SEM_VALUE_MAX, 2**30, 10**6])
@pytest.mark.parametrize("name", ["Semaphore", "BoundedSemaphore"])
def test_more_robust_permits_than_there_is_room_for_are_a_clear_error_or_work(
    name: str, value: int
) -> None:
    def body() -> None:
        try:
            semaphore = getattr(semlock, name)(value, robust=True)
        except (ValueError, OSError, MemoryError, OverflowError):
            return
        assert semaphore.get_value() == value
        assert semaphore.acquire(False)
        semaphore.release()

    in_a_child(body)


@pytest.mark.parametrize("parties", [2**31 - 1, 2**31, 2**32, 2**70, -1, "2", None, 1.5])
def test_parties_that_no_barrier_can_have_are_an_error_or_work(parties: Any) -> None:
    try:
        barrier = semlock.Barrier(parties)
    except (*NONSENSE, RuntimeError, OSError):
        return
    assert barrier.parties == parties
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.001)


def test_recursion_is_counted_far_and_given_back_exactly() -> None:
    lock = semlock.RLock()
    for _ in range(100_000):
        lock.acquire()
    assert lock._semlock._count() == 100_000
    for _ in range(100_000):
        assert lock.locked()
        lock.release()
    assert not lock.locked()
    with pytest.raises(AssertionError, match="not owned by thread"):
        lock.release()


# ---- Nothing left ----


def make_until_it_fails() -> tuple[list[Any], OSError]:
    made: list[Any] = []
    try:
        while len(made) < 1_000_000:
            made.append(semlock.Lock())
    except OSError as error:
        return made, error
    raise AssertionError("memory has no end here")


def all_of_them_work(locks: list[Any]) -> None:
    for lock in locks[:: max(1, len(locks) // 100)]:
        assert take(lock, False) == TAKEN
        lock.release()


def test_a_limit_of_file_size_is_an_error_and_no_signal() -> None:
    def body() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="File too large"):
            semlock.Lock()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        all_of_them_work([semlock.Lock()])

    in_a_child(body)


def file_size_limit(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def least_file_size(make: Callable[[], Any]) -> int:
    """The limit that the error asks for, in a process that must not make files."""
    file_size_limit(0)
    with pytest.raises(OSError, match="RLIMIT_FSIZE") as caught:
        make()
    assert caught.value.errno == errno.EFBIG
    [least] = re.findall(r"at least (\d+) bytes", str(caught.value))
    return int(least)


@pytest.mark.parametrize("name", CLASSES)
def test_the_limit_of_file_size_that_the_error_asks_for_is_enough(name: str) -> None:
    def body() -> None:
        least = least_file_size(CLASSES[name])
        file_size_limit(least - 1)
        with pytest.raises(OSError, match=f"at least {least} bytes"):
            CLASSES[name]()
        file_size_limit(least)
        in_place(CLASSES[name]())

    in_a_child(body)


def test_a_robust_semaphore_asks_for_as_long_a_file_as_its_permits_take() -> None:
    def body() -> None:
        least = least_file_size(lambda: semlock.Semaphore(10_000, robust=True))
        assert 80_000 <= least < 100_000
        file_size_limit(least)
        semaphore = semlock.Semaphore(10_000, robust=True)
        assert all(semaphore.acquire(False) for _ in range(10_000))
        assert not semaphore.acquire(False)

    in_a_child(body)


@pytest.mark.parametrize("limit", [2_000, 8_192, 65_536, 150_000, 1 << 20])
def test_under_a_limit_of_file_size_there_are_locks_without_end(limit: int) -> None:
    def body() -> None:
        file_size_limit(limit)
        locks = [semlock.Lock() for _ in range(1_000)]
        sizes = {os.fstat(lock._descriptor()).st_size for lock in locks}
        assert max(sizes) <= limit
        all_of_them_work(locks)
        in_a_child(lambda: [lock.acquire() for lock in locks] and None)
        assert all(lock.locked() for lock in locks)

        condition = semlock.Condition()
        waiters = [threading.Thread(target=wait_at, args=(condition,)) for _ in range(10)]
        for waiter in waiters:
            waiter.start()
        wait_until(lambda: condition._sleeping_count.get_value() == 10, "all of them wait")
        with condition:
            condition.notify_all()
        for waiter in waiters:
            waiter.join()

    in_a_child(body)


def wait_at(condition: Any) -> None:
    with condition:
        condition.wait()


def test_a_limit_of_file_size_that_is_reached_later_leaves_the_others_alone() -> None:
    def body() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        # Large segments are no longer possible, but small ones are.
        locks = []
        with suppress(OSError):
            while len(locks) < 100_000:
                locks.append(semlock.Lock())
        assert len(locks) > 100
        all_of_them_work(locks)
        # What is given back can be used again.
        del locks[: len(locks) // 2]
        gc.collect()
        locks.append(semlock.Lock())
        all_of_them_work(locks)

    in_a_child(body)


def locks_in_a_small_file_system(where: str) -> None:
    have_own_mounts()
    for directory in ("/dev/shm", where):
        mount("tmpfs", directory, "size=1m")
    os.environ["TMPDIR"] = where
    free = os.statvfs("/dev/shm")
    assert free.f_bavail * free.f_bsize <= 1 << 20
    locks, error = make_until_it_fails()
    assert "No space left on device" in str(error)
    all_of_them_work(locks)
    in_a_child(lambda: all_of_them_work(locks))
    # Every lock has its memory, also one that nobody has touched.
    for lock in locks:
        lock.acquire()
        lock.release()
    locks.clear()
    gc.collect()
    assert os.listdir("/dev/shm") == os.listdir(where) == []


def locks_in_a_tiny_file_system(where: str) -> None:
    have_own_mounts()
    for directory in ("/dev/shm", where):
        mount("tmpfs", directory, "size=32k")
    os.environ["TMPDIR"] = where
    locks = [semlock.Lock() for _ in range(50)]
    all_of_them_work(locks)
    in_a_child(lambda: all_of_them_work(locks))


@needs_seccomp
@needs_own_mounts
def test_in_a_file_system_of_a_few_pages_there_are_locks(tmp_path: Path) -> None:
    in_a_fresh_interpreter(
        locks_in_a_tiny_file_system,
        str(tmp_path),
        first="from kernel_features import *\ndeny(Denied('memfd_create', 38))",
    )


@needs_seccomp
@needs_own_mounts
def test_a_full_file_system_is_an_error_and_no_signal(tmp_path: Path) -> None:
    in_a_fresh_interpreter(
        locks_in_a_small_file_system,
        str(tmp_path),
        first="from kernel_features import *\ndeny(Denied('memfd_create', 38))",
    )


@needs_own_mounts
@needs_seccomp
def test_a_file_system_that_is_full_at_once_is_an_error_that_says_so(tmp_path: Path) -> None:
    in_a_fresh_interpreter(nothing_fits, str(tmp_path))


def nothing_fits(where: str) -> None:
    deny(Denied("memfd_create", errno.ENOSYS))
    have_own_mounts()
    for directory in ("/dev/shm", where):
        mount("tmpfs", directory, "size=4k")
        Path(directory, "filler").write_bytes(b"\0" * 4096)
    os.environ["TMPDIR"] = where
    with pytest.raises(OSError, match="No space left on device"):
        semlock.Lock()
    assert os.listdir("/dev/shm") == os.listdir(where) == ["filler"]


def no_descriptors_left() -> None:
    first = semlock.Lock()
    used = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with suppress(OSError):
        while True:
            used.append(os.dup(0))
    locks, error = make_until_it_fails()
    assert "Too many open files" in str(error)
    assert len(locks) < 1_000_000
    all_of_them_work([first, *locks])
    pid = fork(lambda: first.acquire(False))  # and dies with it
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    # Without a free descriptor, semlock may not be sure of the death, and then takes nothing.
    # With one it is sure.
    early = take(first, True, 0.2)
    for descriptor in used:
        os.close(descriptor)
    assert recovered_from(pid) == (take(first) if early == NOT_TAKEN else early)
    first.release()
    more = [semlock.Lock() for _ in range(10)]
    all_of_them_work(more)


def test_without_descriptors_there_are_no_new_segments_but_all_else_works() -> None:
    in_a_fresh_interpreter(no_descriptors_left)


def test_without_descriptors_the_first_lock_says_why() -> None:
    def body() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        with pytest.raises(OSError, match="Too many open files"):
            semlock.Lock()
        return "said"

    assert in_a_child(body) == "said"

"""semlock neither opens nor closes another's file, whatever descriptor number that has.

A process that closes any descriptor of a file loses all record locks (``fcntl``) that it has on it,
and other processes get them: in this way, two processes may write a database at once. And a device
or a FIFO may react when it is opened.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import pickle
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import semlock
import semlock.queues
from children import Line, forked, in_a_child, in_a_fresh_interpreter
from kernel_features import have_own_mounts, mount, needs_own_mounts, needs_seccomp, works
from programs import METHODS, Program, run_program
from semlock import _native, descriptors, sharing
from test_fallbacks import WAYS, after, is_where_it_should_be

pytestmark = pytest.mark.usefixtures("a_segment")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


# ---- What notices an open or a close ----


def others_get_in(descriptor: int) -> bool:
    """Whether another process gets a record lock on a file that this one has locked."""

    def get_in() -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return bool(in_a_child(get_in))


IN_CLOSE, IN_OPEN = 0x8 | 0x10, 0x20
LIBC = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Sees whether any process opens or closes a file."""

    def __init__(self, path: Path) -> None:
        self.descriptor = LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.descriptor >= 0
        assert LIBC.inotify_add_watch(self.descriptor, bytes(path), IN_OPEN | IN_CLOSE) >= 0

    def seen(self) -> list[int]:
        try:
            events = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return []
        found = []
        while events:
            _, mask, _, length = struct.unpack_from("iIII", events)
            found.append(mask & (IN_OPEN | IN_CLOSE))
            events = events[struct.calcsize("iIII") + length :]
        return [mask for mask in found if mask]


@contextmanager
def nothing_happens_to(path: Path) -> Iterator[None]:
    """Checks that nobody opens or closes it, and that this process keeps its offset and lock."""
    is_file = stat.S_ISREG(path.stat().st_mode)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    watch = Watch(path)
    try:
        if is_file:
            os.lseek(descriptor, 7, os.SEEK_SET)
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
            assert not others_get_in(descriptor)
        assert watch.seen() == []
        before = set(os.listdir("/proc/self/fd"))
        yield
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == before
        assert watch.seen() == []
        if is_file:
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
            assert not others_get_in(descriptor)
    finally:
        os.close(descriptor)
        # The watch works: it has seen this.
        assert watch.seen() != []
        os.close(watch.descriptor)


# ---- Locks that are sent ----

# The size of a memory that is larger than a segment's header and waiters.
SIZE = 1 << 18


def a_file(path: Path) -> None:
    path.write_bytes(b"\0" * SIZE)
    path.chmod(0o600)


def a_device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def can_make_and_open_devices() -> None:
    path = Path("/tmp") / f"semlock-test-{os.getpid()}"
    a_device(path)
    try:
        path.open("rb").close()
    finally:
        path.unlink()


FOREIGN = [
    pytest.param(a_file, id="file"),
    pytest.param(os.mkfifo, id="FIFO"),
    pytest.param(
        a_device,
        id="device",
        marks=pytest.mark.skipif(
            not works(can_make_and_open_devices), reason="this process may not make devices"
        ),
    ),
]


def becomes(lock: Any, path: str) -> None:
    """Gives the number of a lock's descriptor to another file, as `os.closerange` and `open` do."""
    other = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.dup2(other, lock._descriptor())
    os.close(other)


@pytest.mark.parametrize("make", FOREIGN)
def test_a_file_that_got_the_number_of_the_segments_descriptor_is_left_alone(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "foreign"
    make(path)

    def sends(line: Line) -> None:
        lock = semlock.Lock()
        line.say(pickle.dumps(lock))
        becomes(lock, line.hear())
        line.say()
        line.hear()

    with forked(sends) as sender:
        data = sender.hear()
        sender.say(str(path))
        sender.hear()
        with nothing_happens_to(path), pytest.raises(RuntimeError, match="something else now"):
            pickle.loads(data)


@pytest.mark.parametrize("make", FOREIGN)
def test_if_the_senders_descriptor_is_another_file_by_now_the_lock_comes_from_its_maker(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "foreign"
    make(path)

    def makes(line: Line) -> None:
        lock = semlock.Lock()
        lock.acquire()
        line.say(pickle.dumps(lock))
        line.hear()

    def hands_on(line: Line) -> None:
        lock = pickle.loads(line.hear())
        line.say(pickle.dumps(lock))
        line.hear()
        becomes(lock, str(path))
        line.say()
        line.hear()

    with forked(makes) as maker, forked(hands_on) as sender:
        sender.say(maker.hear())
        data = sender.hear()
        sender.say()
        sender.hear()
        with nothing_happens_to(path):
            lock = pickle.loads(data)
            assert not lock.acquire(False)
            del lock


def the_number_is_something_elses(way: str, directory: str) -> None:
    path = Path(directory, "foreign")

    def sends(line: Line) -> None:
        after(way, directory)
        lock = semlock.Lock()
        # A file of the segment's own shape, and where possible on its own file system.
        path.write_bytes(b"\0" * os.fstat(lock._descriptor()).st_size)
        path.chmod(stat.S_IMODE(os.fstat(lock._descriptor()).st_mode))
        line.say(pickle.dumps(lock))
        line.hear()
        becomes(lock, str(path))
        line.say()
        line.hear()

    with forked(sends) as sender:
        data = sender.hear()
        sender.say()
        sender.hear()
        with nothing_happens_to(path), pytest.raises(RuntimeError, match="something else now"):
            pickle.loads(data)


@needs_seccomp
@needs_own_mounts
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_got_the_number_of_any_kind_of_memory_is_left_alone(
    way: str, tmp_path: Path
) -> None:
    in_a_fresh_interpreter(the_number_is_something_elses, way, str(tmp_path))


def a_lock_comes_out_of_a_container(way: str, directory: str) -> None:
    def sends(line: Line) -> None:
        # Mounts that no other process has, so that all names there mean something else outside.
        have_own_mounts()
        for each in ("/dev/shm", directory):
            mount("tmpfs", each)
        after(way, directory)
        lock = semlock.Lock()
        is_where_it_should_be(lock, way, directory)
        lock.acquire()
        line.say(pickle.dumps(lock))
        line.hear()

    with forked(sends) as sender:
        lock = pickle.loads(sender.hear())
        assert not lock.acquire(False)
        assert lock.holder() == sender.pid


@needs_seccomp
@needs_own_mounts
@pytest.mark.parametrize("way", WAYS)
def test_a_lock_of_every_kind_of_memory_comes_out_of_a_container(way: str, tmp_path: Path) -> None:
    in_a_fresh_interpreter(a_lock_comes_out_of_a_container, way, str(tmp_path))


# ---- Opening another process's memory ----


@contextmanager
def memory() -> Iterator[int]:
    """The number of a descriptor of memory, as locks have it."""
    number = _native._new_memory(SIZE)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def system_that(monkeypatch: pytest.MonkeyPatch, **replaced: Any) -> Iterator[None]:
    """Replaces functions of the os module as `semlock.descriptors` sees it."""
    with monkeypatch.context() as patched:
        system = SimpleNamespace(**{**vars(os), **replaced})
        patched.setattr(descriptors, "os", system)
        yield


def test_what_a_process_has_open_is_opened_if_it_is_that_file() -> None:
    with memory() as number:
        opened = descriptors.open_of(os.getpid(), number, _native._file_id(number))
        os.pwrite(opened.number, b"shared", 0)
        assert os.pread(number, 6, 0) == b"shared"
        assert not os.get_inheritable(opened.number)
        opened.close()
        opened.close()


@pytest.mark.parametrize("part", range(6))
def test_a_file_that_differs_in_one_thing_alone_is_another(part: int, tmp_path: Path) -> None:
    """As a file does that got the inode of another, which is gone."""
    path = tmp_path / "foreign"
    a_file(path)
    with path.open("r+b") as file:
        wanted = list(_native._file_id(file.fileno()))
        assert descriptors.is_open_as(file.fileno(), tuple(wanted))
        assert wanted[5] > 0, "this file system does not tell when a file was made"
        wanted[part] += 1
        other: Any = tuple(wanted)
        assert not descriptors.is_open_as(file.fileno(), other)
        # When semlock finds out that it is another file, only an `O_PATH` descriptor of it is open.
        with (
            nothing_happens_to(path),
            pytest.raises(FileNotFoundError, match="something else now"),
        ):
            descriptors.open_of(os.getpid(), file.fileno(), other)


def test_a_file_without_a_known_birth_time_is_recognised_by_the_rest() -> None:
    with memory() as number:
        *told, _ = _native._file_id(number)
        unknown: Any = (*told, 0)
        assert descriptors.is_open_as(number, unknown)
        descriptors.open_of(os.getpid(), number, unknown).close()


@pytest.mark.parametrize("make", FOREIGN)
def test_a_descriptor_that_becomes_another_file_after_the_first_check_opens_nothing(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "foreign"
    make(path)
    other = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def look_and_lose(name: str) -> os.stat_result:
        status = os.stat(name)
        os.dup2(other, number)
        return status

    try:
        with memory() as number, nothing_happens_to(path):
            wanted = _native._file_id(number)
            with (
                system_that(monkeypatch, stat=look_and_lose),
                pytest.raises(FileNotFoundError, match="something else now"),
            ):
                descriptors.open_of(os.getpid(), number, wanted)
    finally:
        os.close(other)


def test_a_descriptor_that_becomes_another_file_after_the_second_check_opens_the_checked_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "foreign"
    a_file(path)
    other = os.open(path, os.O_RDWR)

    def refer_and_lose(name: str, flags: int) -> int:
        opened = os.open(name, flags)
        if flags & os.O_PATH:
            os.dup2(other, number)
        return opened

    try:
        with memory() as number, nothing_happens_to(path):
            wanted = _native._file_id(number)
            with system_that(monkeypatch, open=refer_and_lose):
                opened = descriptors.open_of(os.getpid(), number, wanted)
            assert opened.is_there()
            opened.close()
    finally:
        os.close(other)


# ---- Descriptors that are given ----


def test_a_file_that_is_no_segment_is_refused_and_keeps_its_record_locks(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    a_file(path)
    lock = semlock.Lock()
    lock._mark_shared()
    _, slot, tag = lock._address()
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="none of semlock's"):
            semlock.Lock._rebuild(b"\1" * 16, slot, tag, file.fileno())
        assert not others_get_in(file.fileno())


class Passed:
    """What hands a number to a spawned child."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Passed({self.number})"

    def detach(self) -> int:
        return self.number


def test_a_process_that_has_the_segment_keeps_its_descriptor_when_it_is_sent_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "_taken_over", set())
    lock = semlock.Lock()
    segment, slot, tag = lock._address()
    lock._mark_shared()
    number = lock._descriptor()
    places = [lock._maker()]
    way = sharing.ReceivedSegment(segment, lock._file(), places, Passed(number), os.getppid())
    assert sharing.rebuild_shared(semlock.Lock, way, slot, tag)._address() == lock._address()
    del way
    gc.collect()
    assert lock._descriptor() == number


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_descriptor_number_that_another_file_got_during_unpickling_is_left_alone(
    method: str, program: Program
) -> None:
    source = """
OTHERS = []


def unpickled_after_the_lock():
    '''Makes the numbers of semlock's memory something else's, as a daemon does.'''
    null = os.open("/dev/null", os.O_RDONLY)
    for number, name in descriptors():
        if "memfd:semlock" in name:
            os.dup2(null, number)
            OTHERS.append(number)
    return len(OTHERS)


class After:
    def __reduce__(self):
        return unpickled_after_the_lock, ()


def look(pipe, lock, lost):
    gc.collect()
    pipe.send([lost, [os.fstat(number).st_rdev for number in OTHERS]])


def body():
    context = semlock.get_context(method())
    reader, writer = context.Pipe(False)
    child = context.Process(target=look, args=(writer, context.Lock(), After()))
    child.start()
    writer.close()
    lost, devices = reader.recv()
    child.join()
    return [lost, devices == [os.stat("/dev/null").st_rdev] * lost]
"""
    # The number that was passed on, and that of the child's own mapping.
    assert program(source, method) == [2, True]


# ---- The resource sharer ----


def test_an_offered_descriptor_that_became_something_elses_is_neither_sent_nor_closed(
    program: Program, tmp_path: Path
) -> None:
    source = """
from multiprocessing import resource_sharer
from semlock import sharing
sys.path.insert(0, sys.argv[1])

PATH = sys.argv[2]


def closed(*place):
    raise PermissionError(13, "Permission denied")


sharing.open_of = closed
sharing._others_may_enter_our_proc = lambda: False


def receives(pipe):
    before = descriptors()
    try:
        pipe.recv()
    except RuntimeError as error:
        pipe.send([str(error), descriptors() == before])


def body():
    context = semlock.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=receives, args=(theirs,))
    child.start()
    theirs.close()
    # With locks of its own, which a child that comes later would inherit.
    from test_foreign_files import fcntl, others_get_in

    lock = context.Lock()
    data = pickle.dumps(lock)
    (offer,) = sharing._offers.values()
    number = offer._descriptor.number
    file = os.open(PATH, os.O_RDWR)
    fcntl.lockf(file, fcntl.LOCK_EX)
    os.dup2(file, number)
    mine.send_bytes(data)
    said, clean = mine.recv()
    child.join()
    kept = [not others_get_in(file)]
    del lock
    gc.collect()
    resource_sharer.stop()
    kept.append(not others_get_in(file))
    os.fstat(number)
    return ["resource sharer" in said, clean, *kept]
"""
    path = tmp_path / "foreign"
    a_file(path)
    tests = str(Path(__file__).parent)
    assert program(source, tests, str(path)) == [True, True, True, True]


def test_what_a_resource_sharer_sends_in_the_place_of_the_segment_is_left_alone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "foreign"
    a_file(path)
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        way = sharing.ReceivedSegment(b"\1" * 16, (1, 2, 3, 4, 5, 6), [], Passed(file.fileno()))
        _, slot, tag = semlock.Lock()._address()
        with pytest.raises(RuntimeError, match="it sent something else"):
            sharing.rebuild_shared(semlock.Lock, way, slot, tag)
        assert not others_get_in(file.fileno())


# ---- Queues ----

QUEUES = ["Queue", "SimpleQueue", "JoinableQueue"]


def numbers_of(queue: Any) -> list[int]:
    """The descriptors of the pipe that is the bell of a queue's channel."""
    return [*queue._reader._channel._bell()]


@pytest.mark.parametrize("kind", QUEUES)
def test_a_descriptor_number_of_a_queues_pipe_that_another_file_got_is_left_alone(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "foreign"
    a_file(path)
    queue = getattr(semlock.get_context(), kind)()
    numbers = numbers_of(queue)
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        for number in numbers:
            os.dup2(file.fileno(), number)
        queue.close()
        del queue
        gc.collect()
        for number in numbers:
            assert os.path.samestat(os.fstat(number), os.fstat(file.fileno()))
        assert not others_get_in(file.fileno())
        for number in numbers:
            os.close(number)


@pytest.mark.parametrize("kind", QUEUES)
def test_a_queues_own_pipe_is_closed_with_it(kind: str) -> None:
    queue = getattr(semlock.get_context(), kind)()
    numbers = numbers_of(queue)
    queue.close()
    if kind != "SimpleQueue":
        queue._writer.close()  # which its feeder thread does, if it has one
    del queue
    gc.collect()
    for number in numbers:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@pytest.mark.parametrize("kind", QUEUES)
def test_what_outlives_the_modules_of_semlock_is_closed_with_the_interpreter(
    kind: str, program: Program
) -> None:
    source = """
from semlock import descriptors as ours, queues, _native


def body():
    queue = getattr(semlock.get_context("fork"), sys.argv[1])()
    number = _native._new_memory(4096)
    numbers = [queue._reader.fileno(), queue._writer.fileno(), number]
    memory = ours.Owned(number, _native._file_id(number))
    # As the interpreter does at its end with modules that something still refers to.
    for module in (queues, ours):
        for name in list(vars(module)):
            if not name.startswith("__"):
                vars(module)[name] = None
    memory.close()
    del queue
    gc.collect()
    return [raised(os.fstat, number) for number in numbers]
"""
    assert program(source, kind) == ["OSError"] * 3


@pytest.mark.parametrize("kind", QUEUES)
def test_a_queue_that_comes_where_its_pipe_is_not_is_refused(kind: str, program: Program) -> None:
    source = """
class Bytes:
    '''Pickles a queue while the child is being spawned, and leaves it at that.'''

    def __init__(self, queue):
        self.queue = queue

    def __reduce__(self):
        return bytes, (bytes(multiprocessing.reduction.ForkingPickler.dumps(self.queue)),)


def look(pipe, data):
    queue = pickle.loads(data)
    numbers = [queue._reader.fileno(), queue._writer.fileno()]
    null = os.open("/dev/null", os.O_RDONLY)
    for number in numbers:
        os.dup2(null, number)
    said = []
    try:
        pickle.loads(data)
    except RuntimeError as error:
        said.append("is not its pipe" in str(error))
    del queue
    gc.collect()
    pipe.send([*said, *(os.fstat(number).st_rdev for number in numbers)])


def body():
    context = semlock.get_context("spawn")
    reader, writer = context.Pipe(False)
    queue = getattr(context, sys.argv[1])()
    child = context.Process(target=look, args=(writer, Bytes(queue)))
    child.start()
    writer.close()
    said = reader.recv()
    child.join()
    device = os.stat("/dev/null").st_rdev
    return [said[0], said[1:] == [device, device]]
"""
    assert program(source, kind) == [True, True]


# ---- Bytes that are damaged ----

FILE = (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    "ways",
    [
        ([(1, 2)],),
        ([(1, 2)], Passed(3), (1, (2, 3, 4, 5))),
        (None, [(1, 2)]),
        (FILE[:-1], [(1, 2)]),
        ((*FILE, 7), [(1, 2)]),
        ((*FILE[:-1], "6"), [(1, 2)]),
        ((*FILE[:-1], True), [(1, 2)]),
        (list(FILE), [(1, 2)]),
        (FILE, None),
        (FILE, [1]),
        (FILE, [(1, 2, 3)]),
        (FILE, [("self/../../tmp", 2)]),
        (FILE, [(1, 2)], 3),
        (FILE, [(1, 2)], None, 3),
        (FILE, [(1, 2)], Passed(3), "me"),
    ],
    ids=str,
)
def test_bytes_that_do_not_say_where_the_memory_is_are_an_error_that_says_so(ways: Any) -> None:
    with pytest.raises(ValueError, match="does not tell where its shared memory is"):
        sharing.ReceivedSegment(b"\1" * 16, *ways)


@pytest.mark.parametrize("method", METHODS)
def test_the_identity_of_a_file_is_the_same_in_every_process(method: str, program: Program) -> None:
    source = """
def look(pipe, lock):
    pipe.send(lock._file())


def body():
    context = semlock.get_context(method())
    reader, writer = context.Pipe(False)
    lock = context.Lock()
    child = context.Process(target=look, args=(writer, lock))
    child.start()
    writer.close()
    said = reader.recv()
    child.join()
    return said == lock._file()
"""
    assert program(source, method) is True

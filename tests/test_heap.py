"""`Value` and `Array` work where the stdlib finds no place for its heap."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernel_features import needs_own_mounts, needs_seccomp
from programs import METHODS, Program, run_program

TESTS = str(Path(__file__).parent)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


# The head of programs in which the stdlib finds no place for its heap, and what they find out.
HEAD = '''
import ctypes, errno, fcntl

sys.path.insert(0, sys.argv[1])


def leave_no_place(place):
    """Of which the stdlib could make its heap."""
    from kernel_features import MS_RDONLY, deny, have_own_mounts, mount, new_files_denied

    if place == "no new files":
        deny(*new_files_denied(errno.EROFS))
        return
    have_own_mounts()
    if place == "read-only":
        mount("tmpfs", "/dev/shm", "", MS_RDONLY)
        return
    assert place == "no /dev/shm"
    mount("tmpfs", "/dev")
    os.mknod("/dev/null", 0o20666, os.makedev(1, 3))
    os.mknod("/dev/urandom", 0o20666, os.makedev(1, 9))


def arenas():
    from multiprocessing import heap

    return heap.BufferWrapper._heap._arenas


def names():
    """The files that the heap of this process lives in."""
    return {os.readlink(f"/proc/self/fd/{arena.fd}").split("-")[0] for arena in arenas()}


OURS, STOCKS = ["/memfd:semlock (deleted)"], ["/dev/shm/pym"]


def context_of(how):
    if how == "install":
        semlock.install()
        return multiprocessing.get_context(method())
    return semlock.get_context(method())


def method():
    return sys.argv[2]


'''
PLACES = ["no /dev/shm", "read-only", "no new files"]

every_place = pytest.mark.parametrize("place", PLACES)
every_method = pytest.mark.parametrize("method", METHODS)
both_hows = pytest.mark.parametrize("how", ["context", "install"])


@needs_seccomp
@needs_own_mounts
@both_hows
@every_method
@every_place
def test_they_reach_children_and_are_the_same_there(
    place: str, method: str, how: str, program: Program
) -> None:
    source = (
        HEAD
        + """
class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


def change(pipe, how, value, array, raw, large, point, text):
    with value.get_lock():
        value.value += 1
    with array:
        array[1] = 5.5
    raw.value = 7
    large[-1] = 9
    point.y = 0.25
    text.value = b"there"
    # It makes some of its own.
    if how == "install":
        from multiprocessing import Array, RawValue, Value
    else:
        context = semlock.get_context(method())
        Array, RawValue, Value = context.Array, context.RawValue, context.Value
    own = [Value("i", 3).value, RawValue("d", 1.5).value, Array("i", 4)[:]]
    pipe.send(own)


def body():
    how, place = sys.argv[3], sys.argv[4]
    context = context_of(how)
    if method() == "forkserver":
        multiprocessing.util.get_temp_dir()  # for the server's socket
    leave_no_place(place)
    things = [
        context.Value("i", 3), context.Array("d", [1, 2, 3]), context.RawValue("q"),
        context.RawArray(ctypes.c_int, 2_000_000), context.Value(Point, 1, 2.0, lock=False),
        context.Array("c", b"here!"),
    ]
    value, array, raw, large, point, text = things
    said = [value.value, array[:], raw.value, large[-1], point.x, point.y, text.value.decode()]
    said.append(sorted(names()) == OURS)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    said.append({fcntl.fcntl(arena.fd, fcntl.F_GET_SEALS) & seals for arena in arenas()} == {seals})
    reader, writer = context.Pipe(False)
    child = context.Process(target=change, args=(writer, how, *things))
    child.start()
    writer.close()
    own = reader.recv()
    child.join()
    said += [value.value, array[:], raw.value, large[-1], point.x, point.y, text.value.decode()]
    return [*said, own, child.exitcode]
"""
    )
    assert program(source, TESTS, method, how, place) == [
        *(3, [1, 2, 3], 0, 0, 1, 2.0, "here!"),
        *(True, True),
        *(4, [1, 5.5, 3], 7, 9, 1, 0.25, "there"),
        *([3, 1.5, [0] * 4], 0),
    ]


@needs_seccomp
@needs_own_mounts
@every_place
def test_they_fail_as_ever_before_install_and_after_uninstall(place: str, program: Program) -> None:
    source = (
        HEAD
        + """
def tries():
    return raised(multiprocessing.Value, "i"), raised(multiprocessing.RawArray, "i", 100_000)


def body():
    from multiprocessing import heap

    stocks = heap.Arena, heap.Arena.__init__
    leave_no_place(sys.argv[3])
    said = [tries()]
    semlock.install()
    said.append(tries())
    # What the heap has now is not asked for again.
    semlock.uninstall()
    heap.BufferWrapper._heap = heap.Heap()
    return [*said, tries(), (heap.Arena, heap.Arena.__init__) == stocks]
"""
    )
    before, installed, after, is_undone = program(source, TESTS, "fork", place)
    assert before == after
    # FileNotFoundError or OSError, as the place demands.
    assert all("Error" in name for name in before)
    assert installed == ["nothing", "nothing"]
    assert is_undone


@both_hows
@every_method
def test_where_the_stdlib_finds_a_place_it_is_used(method: str, how: str, program: Program) -> None:
    source = (
        HEAD
        + """
def look(pipe, value):
    pipe.send(value.value)


def body():
    context = context_of(sys.argv[3])
    reader, writer = context.Pipe(False)
    value, large = context.Value("i", 3), context.RawArray("i", 2_000_000)
    child = context.Process(target=look, args=(writer, value))
    child.start()
    writer.close()
    said = reader.recv()
    child.join()
    return [said, sorted(names()) == STOCKS]
"""
    )
    assert program(source, TESTS, method, how) == [3, True]


@needs_seccomp
@needs_own_mounts
@both_hows
def test_where_there_is_no_memory_at_all_the_error_says_what_was_tried(
    how: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    from kernel_features import Denied, deny
    context = context_of(sys.argv[3])
    context.Lock()  # or it would fail first
    leave_no_place("no new files")
    deny(Denied("memfd_create", errno.ENOSYS))
    said = []
    for make in (context.Value, context.RawValue):
        try:
            make("i", 3)
        except OSError as error:
            said += [str(error), str(error.__context__)]
    return said
"""
    )
    for ours, stocks in zip(*[iter(program(source, TESTS, "fork", how))] * 2, strict=True):
        assert "memfd_create: Function not implemented" in ours
        assert "Read-only file system" in stocks or "No usable temporary directory" in stocks


@needs_seccomp
@both_hows
def test_the_heap_uses_our_memory_as_its_own(how: str, program: Program) -> None:
    source = (
        HEAD
        + """
def makes_its_own(pipe, old):
    new = context_of(sys.argv[3]).Value("i", 8)
    pipe.send([old.value, new.value, sorted(names()) == OURS])


def body():
    context = context_of(sys.argv[3])
    leave_no_place("no new files")
    kept = [context.Value("i", number, lock=False) for number in range(10_000)]
    said = [[value.value for value in kept] == list(range(10_000)), len(arenas())]
    # A large one is given back, with its descriptor.
    before = descriptors()
    large = context.RawArray("i", 4_000_000)
    said.append(len(descriptors()) - len(before))
    del large
    gc.collect()
    said.append(descriptors() == before)
    # Others use it at the same time.
    lists = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=lambda mine=mine: [
            mine.append(context.RawArray("i", [number] * 20_000)) for number in range(20)
        ])
        for mine in lists
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said.append(all([array[0], array[-1]] == [number] * 2
                    for mine in lists for number, array in enumerate(mine)))
    said.append([len(mine) for mine in lists] == [20] * 8)
    # A forked child's heap begins anew.
    reader, writer = context.Pipe(False)
    forking = multiprocessing.get_context("fork")
    child = forking.Process(target=makes_its_own, args=(writer, kept[5]))
    child.start()
    writer.close()
    said.append(reader.recv())
    child.join()
    return said
"""
    )
    whole, count, *said = program(source, TESTS, "fork", how)
    assert whole
    assert count < 12
    # (An mmap has one of its own.)
    assert said == [2, True, True, True, [5, 8, True]]


@needs_seccomp
@both_hows
def test_a_descriptor_number_of_an_arena_that_another_file_got_is_left_alone(
    how: str, program: Program
) -> None:
    source = (
        HEAD
        + """
def body():
    context = context_of(sys.argv[3])
    leave_no_place("no new files")
    large = context.RawArray("i", 4_000_000)
    (number,) = [arena.fd for arena in arenas() if arena.size > 4_000_000]
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, number)
    large[-1] = 3
    said = large[-1]
    del large
    gc.collect()
    return [said, os.fstat(number).st_rdev == os.fstat(null).st_rdev]
"""
    )
    assert program(source, TESTS, "fork", how) == [3, True]


@both_hows
def test_an_error_of_what_is_made_is_left_as_it_is(how: str, program: Program) -> None:
    source = (
        HEAD
        + """
class Refuses(ctypes.Structure):
    calls = 0
    _fields_ = [("x", ctypes.c_int)]

    def __init__(self):
        Refuses.calls += 1
        raise PermissionError(errno.EPERM, "not here")


def body():
    context = context_of(sys.argv[3])
    said = []
    for make in (context.Value, context.RawValue):
        try:
            make(Refuses)
        except PermissionError as error:
            said.append(error.strerror)
    return [*said, Refuses.calls]
"""
    )
    assert program(source, TESTS, "fork", how) == ["not here", "not here", 2]

"""Where there is no memfd, shared memory comes from another place, and all works as before.

In this order: memfd, a file in `/dev/shm`, a file in the temporary directory (neither file has a
name), and then an error that names all three and says why each of them failed.
"""

from __future__ import annotations

import errno
import gc
import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import Line, forked, in_a_child, in_a_fresh_interpreter, output
from families import TAKEN, die, holder, let_go, recovered_from, take
from kernel_features import (
    MS_RDONLY,
    Denied,
    deny,
    have_own_mounts,
    mount,
    nameless_files_denied,
    needs_own_mounts,
    needs_seccomp,
    new_files_denied,
)

# Each makes all ways but one fail. They run before any code of semlock.


def everything(_: str) -> None:
    pass


def no_memfd(_: str) -> None:
    deny(Denied("memfd_create", errno.ENOSYS))


def no_memfd_by_permission(_: str) -> None:
    deny(Denied("memfd_create", errno.EPERM))


def an_old_memfd(_: str) -> None:
    """A memfd from before Linux 6.3: MFD_NOEXEC_SEAL and MFD_EXEC are unknown."""
    deny(Denied("memfd_create", errno.EINVAL, 1, 0x8 | 0x10))


def no_memfd_and_a_read_only_shm(_: str) -> None:
    no_memfd(_)
    have_own_mounts()
    mount("tmpfs", "/dev/shm", "", MS_RDONLY)


def no_memfd_and_a_full_shm(_: str) -> None:
    no_memfd(_)
    have_own_mounts()
    mount("tmpfs", "/dev/shm", "size=4k")
    Path("/dev/shm/filler").write_bytes(b"\0" * 4096)


def no_memfd_and_no_inodes_in_shm(_: str) -> None:
    no_memfd(_)
    have_own_mounts()
    mount("tmpfs", "/dev/shm", "nr_inodes=1")


def no_memfd_and_no_shm(directory: str) -> None:
    """No /dev/shm at all: /dev has only what a bare container has there."""
    no_memfd(directory)
    have_own_mounts()
    mount("tmpfs", "/dev")
    os.mknod("/dev/null", 0o20666, os.makedev(1, 3))
    os.mknod("/dev/urandom", 0o20666, os.makedev(1, 9))


def no_memfd_and_no_nameless_files(directory: str) -> None:
    no_memfd(directory)
    deny(*nameless_files_denied())


def no_memfd_no_nameless_files_and_a_read_only_shm(directory: str) -> None:
    no_memfd_and_a_read_only_shm(directory)
    deny(*nameless_files_denied())


def nothing_at_all(_: str) -> None:
    deny(Denied("memfd_create", errno.ENOSYS), *new_files_denied(errno.EROFS))


MEMFD, SHM, UNLINKED_SHM = "/memfd:", "/dev/shm/#", "/dev/shm/semlock-"
# Kinds in the temporary directory; the first may be the second on a file system without it.
FILE, UNLINKED_FILE = "{}/", "{}/semlock-"

WAYS: dict[str, tuple[Callable[[str], None], str]] = {
    "everything": (everything, MEMFD),
    "an old memfd": (an_old_memfd, MEMFD),
    "no memfd": (no_memfd, SHM),
    "no permission for memfd": (no_memfd_by_permission, SHM),
    "a read-only shm": (no_memfd_and_a_read_only_shm, FILE),
    "a full shm": (no_memfd_and_a_full_shm, FILE),
    "no inodes in shm": (no_memfd_and_no_inodes_in_shm, FILE),
    "no shm": (no_memfd_and_no_shm, FILE),
    "no nameless files": (no_memfd_and_no_nameless_files, UNLINKED_SHM),
    "no nameless files, a read-only shm": (
        no_memfd_no_nameless_files_and_a_read_only_shm,
        UNLINKED_FILE,
    ),
}

every_way = pytest.mark.parametrize("way", WAYS)
pytestmark = [needs_seccomp, needs_own_mounts]


def kind_of_segment(lock: Any) -> str:
    return os.readlink(f"/proc/self/fd/{lock._descriptor()}")


def after(way: str, directory: str) -> None:
    """In a fresh interpreter that has only imported modules: takes the ways away."""
    os.environ["TMPDIR"] = directory
    WAYS[way][0](directory)


def is_where_it_should_be(lock: Any, way: str, directory: str) -> None:
    expected = WAYS[way][1]
    path = kind_of_segment(lock)
    assert path.startswith(expected.format(directory)), path
    assert path.endswith(" (deleted)"), path
    status = os.fstat(lock._descriptor())
    assert status.st_nlink == 0
    assert status.st_mode & 0o077 == 0 or expected == MEMFD
    assert status.st_blocks * 512 >= status.st_size  # so no SIGBUS can come
    assert not os.get_inheritable(lock._descriptor())


# ---- By fork ----


def all_works_by_fork(way: str, directory: str) -> None:
    after(way, directory)
    for make in (semlock.Lock, semlock.RLock):
        lock = make()
        is_where_it_should_be(lock, way, directory)
        with holder(lock) as child:
            assert not lock.acquire(False)
            let_go(child)
        with holder(lock) as child:
            pid = die(child)
        assert take(lock) == recovered_from(pid)
        lock.release()
        assert pickle.loads(pickle.dumps(lock))._address() == lock._address()

    semaphore = semlock.Semaphore(2, robust=True)
    with holder(semaphore, 2) as child:
        pid = die(child)
    assert [take(semaphore) for _ in range(2)] == [recovered_from(pid)] * 2

    bounded = semlock.BoundedSemaphore(1)
    in_a_child(lambda: bounded.acquire() and None)
    assert not bounded.acquire(False)
    bounded.release()

    event = semlock.Event()
    with forked(lambda _: event.wait()) as child:
        event.set()
        assert child.result() is True

    condition = semlock.Condition()

    def wait(line: Line) -> bool:
        with condition:
            line.say("waiting")
            return condition.wait()

    with forked(wait) as child:
        assert child.hear() == "waiting"
        with condition:
            condition.notify()
        assert child.result() is True

    barrier = semlock.Barrier(2)
    with forked(lambda _: barrier.wait()) as child:
        assert {barrier.wait(), child.result()} == {0, 1}

    locks = [semlock.Lock() for _ in range(5000)]
    for lock in (locks[0], locks[-1]):
        is_where_it_should_be(lock, way, directory)
    in_a_child(lambda: [lock.acquire() for lock in locks] and None)
    assert all(lock.locked() for lock in locks)
    thread = threading.Thread(target=lambda: take(locks[-1]))
    thread.start()
    thread.join()
    locks.clear()
    gc.collect()
    assert os.listdir(directory) == []


@every_way
def test_locks_of_every_kind_of_memory_work_by_fork(way: str, tmp_path: Path) -> None:
    in_a_fresh_interpreter(all_works_by_fork, way, str(tmp_path))


# ---- By spawn, forkserver and between running processes ----

SPAWNED = """
import os, sys
sys.path.insert(0, {tests!r})
import multiprocessing
import semlock


def child(lock, event, condition, barrier, semaphore, nested):
    assert nested["locks"][0]._address() == lock._address()
    assert len({{lock._descriptor() for lock in nested["locks"]}}) == 1
    assert not lock.acquire(False)
    with condition:
        condition.notify()
    event.set()
    barrier.wait()
    semaphore.acquire()
    with lock:
        pass


def main():
    import test_fallbacks as t

    t.after({way!r}, {directory!r})
    context = multiprocessing.get_context({method!r})
    lock, event, condition = semlock.Lock(), semlock.Event(), semlock.Condition()
    barrier, semaphore = semlock.Barrier(2), semlock.Semaphore(1, robust=True)
    t.is_where_it_should_be(lock, {way!r}, {directory!r})
    nested = {{"locks": [lock, *(semlock.Lock() for _ in range(20))]}}
    arguments = (lock, event, condition, barrier, semaphore, nested)
    process = context.Process(target=child, args=arguments)
    lock.acquire()
    with condition:
        process.start()
        print(condition.wait(60), event.wait(60))
    barrier.wait(60)
    lock.release()
    process.join(60)
    print(process.exitcode)
    # It ended with its permit.
    print(t.take(semaphore) == t.recovered_from(process.pid))


if __name__ == "__main__":
    main()
"""


@every_way
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_locks_of_every_kind_of_memory_reach_children_by(
    method: str, way: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    tests = str(Path(__file__).parent)
    # A fork server's socket lies below it, and a socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory() as directory:
        script.write_text(SPAWNED.format(tests=tests, way=way, method=method, directory=directory))
        assert output(script) == "True True\n0\nTrue\n"


def a_running_process_gets_a_lock(way: str, directory: str) -> None:
    after(way, directory)

    def receives(line: Line) -> None:
        lock, again = pickle.loads(line.hear())
        assert lock is again or lock._address() == again._address()
        line.say(lock.acquire(False))
        line.hear()
        line.say(lock.acquire(True, 60))
        line.hear()

    with forked(receives) as child:  # before the lock is made: it does not inherit the memory
        lock = semlock.Lock()
        lock.acquire()
        child.say(pickle.dumps((lock, lock)))
        assert child.hear() is False
        lock.release()
        child.say()
        assert child.hear() is True
        child.kill()
        assert take(lock) == recovered_from(child.pid)


@every_way
def test_a_lock_of_every_kind_of_memory_is_sent_to_a_running_process(
    way: str, tmp_path: Path
) -> None:
    in_a_fresh_interpreter(a_running_process_gets_a_lock, way, str(tmp_path))


# ---- None of them ----


def the_error_names_all_three(directory: str) -> None:
    os.environ["TMPDIR"] = directory
    nothing_at_all(directory)
    before = set(os.listdir("/proc/self/fd"))
    for make in (
        semlock.Lock,
        semlock.RLock,
        semlock.Semaphore,
        semlock.BoundedSemaphore,
        semlock.Condition,
        semlock.Event,
        lambda: semlock.Barrier(2),
    ):
        with pytest.raises(OSError, match="memfd") as caught:
            make()
        said = str(caught.value)
        assert "shm" in said
        assert directory in said or "temporary" in said
        assert said.count(os.strerror(errno.ENOSYS)) == 1, said
        assert said.count(os.strerror(errno.EROFS)) == 2, said
    assert set(os.listdir("/proc/self/fd")) == before
    assert os.listdir(directory) == []


def test_where_there_is_no_shared_memory_the_error_names_all_three_ways_and_why(
    tmp_path: Path,
) -> None:
    in_a_fresh_interpreter(the_error_names_all_three, str(tmp_path))


def what_was_made_before_goes_on(directory: str) -> None:
    os.environ["TMPDIR"] = directory
    locks = [semlock.Lock() for _ in range(10)]
    nothing_at_all(directory)
    try:
        while len(locks) < 1_000_000:
            locks.append(semlock.Lock())
    except OSError as error:
        said = str(error)
    assert os.strerror(errno.ENOSYS) in said
    for lock in locks[::100]:
        assert take(lock, False) == TAKEN
        lock.release()


def test_where_shared_memory_ends_what_was_made_before_goes_on(tmp_path: Path) -> None:
    in_a_fresh_interpreter(what_was_made_before_goes_on, str(tmp_path))


def fails_and_then_works(directory: str) -> None:
    """Each way is tried anew: a full file system may have been emptied."""
    no_memfd(directory)
    have_own_mounts()
    for each in ("/dev/shm", directory):
        mount("tmpfs", each, "nr_inodes=2")
    os.environ["TMPDIR"] = directory
    fillers = [Path("/dev/shm/filler"), Path(directory, "filler")]
    for filler in fillers:
        filler.touch()
    with pytest.raises(OSError, match="No space left on device"):
        semlock.Lock()
    fillers[1].unlink()
    assert take(semlock.Lock(), False) == TAKEN
    fillers[0].unlink()
    assert take(semlock.Lock(), False) == TAKEN


def test_a_way_that_failed_once_is_tried_again(tmp_path: Path) -> None:
    in_a_fresh_interpreter(fails_and_then_works, str(tmp_path))

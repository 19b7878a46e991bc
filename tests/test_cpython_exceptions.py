"""The opposite of two tests of CPython, which are left out for the shared backend.

* ``TestResourceTracker.test_resource_tracker_sigkill`` kills the resource tracker that a new
  semaphore has started, and expects a warning. Here nothing has a name, so no tracker starts.
* ``TestStartMethod.test_mixed_startmethod`` expects a spawned child to refuse a lock of a fork
  context. Here the lock works, from every context in every other's children.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import METHODS, Program, run_program

CONTEXTS = """
def context(method):
    if sys.argv[1] == "get_context":
        return semlock.get_context(method)
    semlock.install()
    return multiprocessing.get_context(method)


KINDS = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event")
QUEUES = ("SimpleQueue", "Queue", "JoinableQueue")
"""


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, CONTEXTS + source, *arguments)


@pytest.mark.parametrize("entrance", ["get_context", "install"])
@pytest.mark.parametrize("method", METHODS)
def test_making_and_using_locks_and_queues_starts_no_resource_tracker(
    method: str, entrance: str, program: Program
) -> None:
    source = """
from multiprocessing.resource_tracker import _resource_tracker


def body():
    own = context(sys.argv[2])
    made = [getattr(own, kind)() for kind in KINDS + QUEUES]
    made += [own.Barrier(2), own.Semaphore(3), own.Queue(5)]
    for lock in made[:5]:
        with lock:
            pass
    copies = [pickle.loads(pickle.dumps(lock)) for lock in made[:6]]
    del made, copies
    gc.collect()
    children = f"/proc/self/task/{os.getpid()}/children"
    return [_resource_tracker._pid is None, _resource_tracker._fd is None,
            open(children).read().split() == []]
"""
    assert program(source, entrance, method) == [True] * 3


def test_the_stdlibs_locks_start_one(program: Program) -> None:
    # So that the test above means something.
    source = """
from multiprocessing.resource_tracker import _resource_tracker


def body():
    lock = multiprocessing.get_context("spawn").Lock()
    return _resource_tracker._pid is None
"""
    assert program(source, "stdlib") is False


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("entrance", ["get_context", "install"])
def test_a_tracker_that_a_child_needs_is_told_of_no_lock(
    entrance: str, method: str, program: Program
) -> None:
    source = """
from multiprocessing import resource_tracker


def use(lock, queue):
    with lock:
        queue.put([lock.acquire(False), told])


told = []


def listen():
    for name in ("register", "unregister"):
        setattr(resource_tracker._resource_tracker, name, lambda *args: told.append(args))


listen()


def body():
    own = context(sys.argv[2])
    lock, queue = own.Lock(), own.SimpleQueue()
    child = own.Process(target=use, args=(lock, queue))
    child.start()
    said = queue.get()
    child.join()
    return [said, told]
"""
    assert program(source, entrance, method) == [[False, []], []]


@pytest.mark.parametrize("entrance", ["get_context", "install"])
@pytest.mark.parametrize("child", METHODS)
@pytest.mark.parametrize("maker", METHODS)
def test_what_one_context_made_works_in_the_children_of_another(
    maker: str, child: str, entrance: str, program: Program
) -> None:
    source = """
def use(made, results):
    said = [lock.acquire(False) for lock in made["held"]]
    said += [made["free"].acquire(False)]
    made["free"].release()
    made["event"].set()
    made["barrier"].wait()
    with made["condition"]:
        made["condition"].notify()
    results.put([said, made["queue"].get()])


def body():
    maker, started_from = context(sys.argv[2]), context(sys.argv[3])
    made = {
        "held": [maker.Lock(), maker.RLock(), maker.Semaphore(1), maker.BoundedSemaphore(1)],
        "free": maker.Lock(), "event": maker.Event(), "barrier": maker.Barrier(2),
        "condition": maker.Condition(), "queue": maker.Queue(3),
    }
    results = maker.SimpleQueue()
    for lock in made["held"]:
        lock.acquire()
    made["queue"].put("message")
    with made["condition"]:
        child = started_from.Process(target=use, args=(made, results))
        child.start()
        made["barrier"].wait()
        notified = made["condition"].wait(60)
    said = results.get()
    child.join()
    return [*said, notified, made["event"].is_set(), child.exitcode]
"""
    expected = [[False, False, False, False, True], "message", True, True, 0]
    assert program(source, entrance, maker, child) == expected


@pytest.mark.parametrize("entrance", ["get_context", "install"])
def test_a_fork_contexts_lock_is_locked_for_a_spawned_child_and_then_free(
    entrance: str, program: Program
) -> None:
    source = """
def take(lock, is_waiting, order):
    is_waiting.set()
    with lock:
        order.put("child")


def body():
    fork, spawn = context("fork"), context("spawn")
    lock, is_waiting, order = fork.Lock(), fork.Event(), fork.SimpleQueue()
    with lock:
        child = spawn.Process(target=take, args=(lock, is_waiting, order))
        child.start()
        is_waiting.wait()
        order.put("parent")
    said = [order.get(), order.get()]
    child.join()
    return said
"""
    assert program(source, entrance) == ["parent", "child"]

"""`get_context()` gives a context that runs on semlock. It replaces nothing anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


@pytest.mark.parametrize("method", METHODS)
def test_everything_that_it_makes_is_semlocks(method: str, program: Program) -> None:
    source = """
import semlock.queues
from multiprocessing import context, queues


def body():
    own = semlock.get_context(method())
    kinds = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event")
    said = [type(getattr(own, kind)()) is getattr(semlock, kind) for kind in kinds]
    said.append(type(own.Barrier(2)) is semlock.Barrier)
    for kind in ("Queue", "JoinableQueue", "SimpleQueue"):
        made = getattr(own, kind)()
        said.append(type(made) is getattr(semlock.queues, kind))
        said.append(isinstance(made, getattr(queues, kind)))
        said.append(isinstance(made._rlock, semlock.Lock))
    said.append(isinstance(own, context.BaseContext))
    said.append(type(own.Value("i").get_lock()) is semlock.RLock)
    said.append(type(own.Array("i", 3).get_lock()) is semlock.RLock)
    return [all(said), own.get_start_method()]
"""
    assert program(source, method) == [True, method]


def test_its_locks_take_what_semlocks_take(program: Program) -> None:
    source = """
def die(lock):
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def body():
    context = semlock.get_context("fork")
    said = []
    for lock in (context.Lock(), context.RLock(on_owner_died="ignore"), context.Lock(robust=False),
                 context.Semaphore(robust=True, on_owner_died="ignore"),
                 context.BoundedSemaphore(1, robust=True, on_owner_died="ignore"),
                 context.Semaphore()):
        child = context.Process(target=die, args=(lock,))
        child.start()
        child.join()
        import warnings
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            said.append([lock.acquire(timeout=1), [each.category.__name__ for each in warned]])
    return said
"""
    assert program(source) == [
        [True, ["OwnerDiedWarning"]],
        [True, []],
        [False, []],
        [True, []],
        [True, []],
        [False, []],
    ]


def test_a_context_gives_others_of_semlock_and_its_method_is_settled(program: Program) -> None:
    source = """
def body():
    spawn = semlock.get_context("spawn")
    fork = spawn.get_context("fork")
    said = [spawn.get_context() is spawn, fork is semlock.get_context("fork")]
    said.append(type(fork).__module__)
    said += [raised(spawn.set_start_method, "fork"), raised(semlock.get_context, "nonsense")]
    said.append(raised(spawn.get_context, "nonsense"))
    said.append(pickle.loads(pickle.dumps(spawn)) is spawn)
    return said
"""
    assert program(source) == [
        True, True, "semlock.context", "ValueError", "ValueError", "ValueError", True,
    ]  # fmt: skip


def test_without_a_method_it_is_multiprocessings_own(program: Program) -> None:
    source = """
def body():
    if sys.argv[1] != "default":
        multiprocessing.set_start_method(sys.argv[1])
    given = semlock.get_context()
    said = [given is semlock.get_context(given.get_start_method())]
    said.append(given.get_start_method() == multiprocessing.get_context().get_start_method())
    # As multiprocessing.get_context() does, it has settled it.
    said.append(raised(multiprocessing.set_start_method, "spawn"))
    return [*said, given.get_start_method()]
"""
    for method in METHODS:
        assert program(source, method) == [True, True, "RuntimeError", method]
    assert program(source, "default")[:3] == [True, True, "RuntimeError"]


@pytest.mark.parametrize("method", METHODS)
def test_a_child_works_with_what_it_is_given_and_nothing_is_installed_in_it(
    method: str, program: Program
) -> None:
    source = """
def add(context, lock, value, array, queue):
    for _ in range(100):
        with lock:
            array[0] += 1
        with value.get_lock():
            value.value += 1
    modules = sys.modules["_multiprocessing"].__name__
    stock = multiprocessing.get_context(method()).Lock()
    current = [context.current_process().name, multiprocessing.current_process().name]
    method_there = [context.get_start_method(), multiprocessing.get_start_method()]
    queue.put([modules, type(stock).__module__, current, method_there])
    with queue._rlock:
        pass


def body():
    context = semlock.get_context(method())
    lock, value = context.Lock(), context.Value("i", 0)
    array, queue = context.Array("i", 1, lock=False), context.Queue()
    children = [
        context.Process(target=add, args=(context, lock, value, array, queue), name="worker")
        for _ in range(3)
    ]
    for child in children:
        child.start()
    said = [queue.get() for _ in children]
    for child in children:
        child.join()
    assert said == said[:1] * 3
    return [value.value, array[0], *said[0][:3], said[0][3][0]]
"""
    assert program(source, method) == [
        300, 300, "_multiprocessing", "multiprocessing.synchronize", ["worker"] * 2, method,
    ]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_pools_executors_and_managers_run_on_it(method: str, program: Program) -> None:
    source = """
from concurrent.futures import ProcessPoolExecutor

lock = None


def keep(given):
    global lock
    lock = given


def guarded(x):
    with lock:
        return x * x


def body():
    context = semlock.get_context(method())
    said = []
    with context.Pool(2, keep, (context.Lock(),)) as pool:
        said.append(pool.map(guarded, range(5)))
        said.append(sorted(pool.imap_unordered(guarded, range(5))))
        said.append(pool.apply_async(guarded, (9,)).get())
        pool.close()
        pool.join()
    with ProcessPoolExecutor(2, context, keep, (context.Lock(),)) as executor:
        said.append(list(executor.map(guarded, range(5))))
    with context.Manager() as manager:
        shared, theirs = manager.dict(), manager.Lock()
        with theirs:
            shared["key"] = 1
        said.append(dict(shared))
    return said
"""
    squares = [0, 1, 4, 9, 16]
    assert program(source, method) == [squares, squares, 81, squares, {"key": 1}]

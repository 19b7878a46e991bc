"""`install()` reaches this process and every child, and `uninstall()` undoes that."""

from __future__ import annotations

import compileall
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import NAMES_SEMAPHORES, output, run

METHODS = ["fork", "spawn", "forkserver"]

# What each program begins with.
HEAD = (
    NAMES_SEMAPHORES
    + '''
import json, multiprocessing, os, signal, sys, threading
from concurrent.futures import ProcessPoolExecutor

import semlock


def made_by(lock):
    if isinstance(lock, (semlock.Lock, semlock.RLock)):
        return "shared"
    ours = sys.modules["semlock._multiprocessing"]
    return "kernel" if type(lock._semlock) is ours.SemLock else "stock"


def seen(context=multiprocessing):
    """What this process runs on; "semlock" if on this backend, "mixed" if not of one mind."""
    import multiprocessing.synchronize as synchronize

    ours = sys.modules["semlock._multiprocessing"]
    locks = [context.Lock(), context.Condition()._lock, context.SimpleQueue()._rlock]
    found = set(map(made_by, locks))
    for module in sys.modules["_multiprocessing"], synchronize._multiprocessing:
        if (module is ours) != (found != {"stock"}):
            return "mixed"
    if len(found) > 1:
        return "mixed"
    return "semlock" if found == {BACKEND} else found.pop()


def install():
    semlock.install(BACKEND)


def seen_in_pool(_=None):
    return seen()


def tell(pipe, method, depth):
    if depth:
        below = ask(multiprocessing.get_context(method), depth - 1)
    else:
        below = []
    pipe.send([seen(), *below])


def ask(context, depth=0):
    """What a child sees, and its children down to this depth."""
    return answer(context, tell, context.get_start_method(), depth)


def answer(context, target, *args):
    """What a child sends that runs this with a pipe and these."""
    reader, writer = context.Pipe(False)
    child = context.Process(target=target, args=(writer, *args))
    child.start()
    writer.close()
    try:
        return reader.recv()
    finally:
        child.join()
        reader.close()


def main():
    print(json.dumps(body()))


'''
)
TAIL = '\n\nif __name__ == "__main__":\n    main()\n'

Program = Callable[..., Any]


def written(directory: Path, backend: str, source: str) -> Path:
    """The file of a program whose function `body` returns the result."""
    path = directory / "program.py"
    path.write_text(f"BACKEND = {backend!r}\n{HEAD}{source}{TAIL}")
    return path


@pytest.fixture(params=["shared", "kernel"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def program(tmp_path: Path, backend: str) -> Program:
    """Runs a program in a file of its own. Its function `body` returns the result."""

    def program(source: str, *arguments: str) -> Any:
        path = written(tmp_path, backend, source)
        return json.loads(output(path, *arguments, cwd=tmp_path))

    return program


# ---- This process ----


def test_installing_twice_and_uninstalling_twice_changes_nothing_more(program: Program) -> None:
    source = """
def body():
    said = [seen()]
    for change in (install, install, semlock.uninstall, semlock.uninstall) * 2:
        change()
        said.append(seen())
    return said
"""
    once = ["semlock", "semlock", "stock", "stock"]
    assert program(source) == ["stock", *once, *once]


def test_an_unknown_backend_is_refused_and_nothing_changes(program: Program) -> None:
    source = """
def body():
    said = []
    for backend in ("nonsense", "", None, 3):
        try:
            semlock.install(backend)
        except ValueError as error:
            said.append(str(error).partition(":")[0])
        said.append(seen())
    install()
    try:
        semlock.install(backend="nonsense")
    except ValueError:
        said.append(seen())
    return said
"""
    refused = [f"unknown backend {backend!r}" for backend in ("nonsense", "", None, 3)]
    said = program(source)
    assert said[:-1:2] == refused
    assert said[1::2] == ["stock"] * 4
    assert said[-1] == "semlock"


def test_uninstall_leaves_every_global_as_it_was(program: Program, backend: str) -> None:
    source = """
import importlib, pkgutil

for found in pkgutil.iter_modules(multiprocessing.__path__):
    if "win32" not in found.name:
        importlib.import_module("multiprocessing." + found.name)

# A program that has imported parts of it.
import _multiprocessing
from _multiprocessing import SemLock, flags, sem_unlink
import semlock.connections
import semlock.heap
import semlock.pool
import semlock.queues
from multiprocessing import connection, heap, pool, queues, reduction, synchronize
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Lock


def snapshot():
    everything = {("sys.modules", name): module for name, module in sys.modules.items()}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("multiprocessing", "_multiprocessing", "concurrent", "__main__"):
            everything.update({(name, key): value for key, value in vars(module).items()})
    for cls in (queues.Queue, queues.SimpleQueue, pool.Pool, synchronize.SemLock, heap.Arena):
        everything.update({(cls.__name__, key): value for key, value in vars(cls).items()})
    for key, value in vars(connection.Connection).items():
        everything["Connection", key] = value
    for cls, reducer in reduction.ForkingPickler._extra_reducers.items():
        everything["reducer", cls] = reducer
    return everything


def body():
    seen()
    before = snapshot()
    install()
    seen()
    during = snapshot()
    semlock.uninstall()
    seen()
    after = snapshot()
    changed = [key for key in before if during.get(key) is not before[key]]
    return [
        sorted(map(str, before.keys() ^ after.keys())),
        [str(key) for key in before if after.get(key) is not before[key]],
        ("__main__", "SemLock") in changed and ("sys.modules", "_multiprocessing") in changed,
        [("__main__", name) in changed for name in ("Lock", "Queue")],
    ]
"""
    assert program(source) == [[], [], True, [backend == "shared"] * 2]


def test_what_is_imported_while_installed_is_stock_after_uninstall() -> None:
    script = NAMES_SEMAPHORES + (
        "import multiprocessing, sys, semlock\n"
        "assert 'multiprocessing.connection' not in sys.modules\n"
        "ours = sys.modules['semlock._multiprocessing']\n"
        "semlock.install()\n"
        "import multiprocessing.connection as connection\n"
        "print(connection._multiprocessing is ours, end=' ')\n"
        "semlock.uninstall()\n"
        "print(connection._multiprocessing is ours)\n"
    )
    assert output("-c", script) == "True False\n"


def test_importing_the_package_alone_changes_nothing(program: Program) -> None:
    assert program("body = seen\n") == "stock"


@pytest.mark.parametrize("method", METHODS)
def test_locks_made_before_go_on_working_and_reach_children(method: str, program: Program) -> None:
    source = """
def use(lock, pipe):
    pipe.send([lock.acquire(False), type(lock).__name__, seen()])
    lock.release()


def told(context, lock):
    reader, writer = context.Pipe(False)
    child = context.Process(target=use, args=(lock, writer))
    child.start()
    try:
        return reader.recv()
    finally:
        child.join()


def body():
    context = multiprocessing.get_context(sys.argv[1])
    said = []
    for change in (install, semlock.uninstall):
        locks = [context.Lock(), context.RLock(), context.Semaphore(3)]
        kinds = [type(lock._semlock) for lock in locks]
        change()
        assert kinds == [type(lock._semlock) for lock in locks]
        for lock in locks:
            said.append(told(context, lock))
        with locks[0]:
            assert not locks[0].acquire(False)
    return said
"""
    names = ["Lock", "RLock", "Semaphore"]
    expected = [[True, name, seen] for seen in ("semlock", "stock") for name in names]
    assert program(source, method) == expected


def test_somebody_elses_wrapper_over_ours_stays_and_only_passes_on(program: Program) -> None:
    source = """
from multiprocessing import spawn


def body():
    install()
    installed = spawn.get_preparation_data
    calls = []

    def theirs(name):
        calls.append(name)
        return installed(name)

    spawn.get_preparation_data = theirs
    context = multiprocessing.get_context("spawn")
    said = [ask(context)]
    semlock.uninstall()
    said += [spawn.get_preparation_data is theirs, seen(), ask(context), len(calls)]
    return said
"""
    assert program(source) == [["semlock"], True, "stock", ["stock"], 2]


def test_somebody_elses_wrapper_from_before_install_is_called(program: Program) -> None:
    source = """
from multiprocessing import spawn

calls = []


def body():
    stocks = spawn.get_preparation_data

    def theirs(name):
        calls.append(name)
        return stocks(name)

    spawn.get_preparation_data = theirs
    install()
    said = [ask(multiprocessing.get_context("spawn")), len(calls)]
    semlock.uninstall()
    return [*said, spawn.get_preparation_data is theirs]
"""
    assert program(source) == [["semlock"], 1, True]


# ---- Children ----


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_child_is_on_semlock_and_after_uninstall_on_stock(
    method: str, program: Program
) -> None:
    source = """
def survey(context):
    with context.Pool(2, initializer=seen_in_pool) as pool:
        in_pool = sorted(set(pool.map(seen_in_pool, range(4))))
        pool.close()
        pool.join()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        in_executor = sorted(set(executor.map(seen_in_pool, range(4))))
    return {"child and below": ask(context, 2), "pool": in_pool, "executor": in_executor}


def body():
    context = multiprocessing.get_context(sys.argv[1])
    install()
    during = survey(context)
    semlock.uninstall()
    return [during, survey(context)]
"""

    def all_on(what: str) -> dict[str, list[str]]:
        return {"child and below": [what] * 3, "pool": [what], "executor": [what]}

    assert program(source, method) == [all_on("semlock"), all_on("stock")]


@pytest.mark.parametrize("inner", METHODS)
@pytest.mark.parametrize("outer", METHODS)
def test_children_by_one_method_have_children_by_another(
    outer: str, inner: str, program: Program
) -> None:
    source = """
def relay(pipe, inner):
    pipe.send([seen(), *ask(multiprocessing.get_context(inner))])


def body():
    install()
    outer, inner = sys.argv[1:]
    context = multiprocessing.get_context(outer)
    return answer(context, relay, inner)
"""
    assert program(source, outer, inner) == ["semlock", "semlock"]


def test_a_main_module_that_the_fork_server_imports_is_on_semlock(program: Program) -> None:
    source = """
import os

# Run by this program, by the fork server that imports it, and by nobody else.
import multiprocessing.synchronize as synchronize
from _multiprocessing import SemLock

MADE_IN = os.getpid()
MADE_BY_OURS = SemLock is sys.modules["semlock._multiprocessing"].SemLock
if __name__ != "__main__":
    LOCK = multiprocessing.get_context("fork").Lock()


def tell_of_main(pipe):
    import __main__

    main = sys.modules["__mp_main__"]
    imported_by_server = main.MADE_IN != os.getpid()
    pipe.send([imported_by_server, main.MADE_BY_OURS, made_by(main.LOCK) == BACKEND, seen()])


def body():
    if sys.argv[1] == "installed":
        install()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__"])
    return answer(context, tell_of_main)
"""
    # Not every version of CPython lets the server import it, though it is the default.
    by_server = program(source, "stock")[0]
    assert program(source, "stock") == [by_server, False, False, "stock"]
    assert program(source, "installed") == [by_server, True, True, "semlock"]


def test_a_fork_servers_code_begins_as_the_stdlibs_by_which_frozen_programs_know_it(
    program: Program,
) -> None:
    source = """
from multiprocessing import util

BEGINNING = "from multiprocessing.forkserver import main; "


def body():
    given = []
    util.spawnv_passfds = lambda path, args, passfds: given.append(args[-1])
    install()
    for code in BEGINNING + "main()", "import sys; " + BEGINNING + "main()", "main()":
        util.spawnv_passfds("python", ["python", "-B", "-c", code], [])
    first, second, other = given
    begin = first.startswith(BEGINNING), second.startswith("import sys; " + BEGINNING)
    return [*begin, *("semlock" in code and code.endswith("; main()") for code in given), other]
"""
    assert program(source) == [True, True, True, True, False, "main()"]


def test_a_fork_server_from_before_install_gives_installed_children(program: Program) -> None:
    source = """
def body():
    context = multiprocessing.get_context("forkserver")
    said = [ask(context)]
    install()
    said += [ask(context, 1), ask(context)]
    semlock.uninstall()
    return [*said, ask(context)]
"""
    assert program(source) == [["stock"], ["semlock"] * 2, ["semlock"], ["stock"]]


def test_a_fork_server_from_before_uninstall_gives_stock_children(program: Program) -> None:
    source = """
def body():
    context = multiprocessing.get_context("forkserver")
    install()
    said = [ask(context)]
    semlock.uninstall()
    said += [ask(context, 1)]
    install()
    return [*said, ask(context)]
"""
    assert program(source) == [["semlock"], ["stock"] * 2, ["semlock"]]


def test_a_child_that_uninstalls_does_so_for_itself_and_its_children(program: Program) -> None:
    source = """
def renounce(pipe):
    semlock.uninstall()
    pipe.send([seen(), ask(multiprocessing.get_context("spawn"))])


def body():
    install()
    said = []
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        reader, writer = context.Pipe(False)
        child = context.Process(target=renounce, args=(writer,))
        child.start()
        said.append(reader.recv())
        child.join()
    return [*said, seen()]
"""
    assert program(source) == [["stock", ["stock"]]] * 3 + ["semlock"]


# ---- Children that cannot have it ----


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_cannot_import_the_package_warns_and_works_on_stock(
    method: str, tmp_path: Path
) -> None:
    source = """
import shutil


def work(lock, queue):
    with lock:
        ours = sys.modules.get("semlock._multiprocessing")
        name = sys.modules["_multiprocessing"].__name__
        queue.put([name, ours is None])


def main():
    semlock.install("kernel")
    context = multiprocessing.get_context(sys.argv[1])
    lock, queue = context.Lock(), context.SimpleQueue()
    shutil.rmtree(semlock.__path__[0])
    child = context.Process(target=work, args=(lock, queue))
    child.start()
    print(queue.get())
    child.join()
"""
    package = tmp_path / "semlock"
    shutil.copytree(Path(semlock.__file__).parent, package)
    head = (
        NAMES_SEMAPHORES
        + "import sys, multiprocessing\nif __name__ == '__main__':\n    import semlock\n"
    )
    path = tmp_path / "program.py"
    path.write_text(head + source + TAIL)
    done = run(path, method, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "['_multiprocessing', True]\n"), done.stderr
    assert "RuntimeWarning: semlock is not installed in this child process" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_multiprocessing_has_no_semaphores_a_context_works_all_the_same() -> None:
    script = """
import sys

sys.modules["_multiprocessing"] = None
import semlock

context = semlock.get_context("fork")
with context.Lock(), context.Condition(), context.Semaphore():
    context.Barrier(1).wait()
print(semlock.Lock.__bases__ == (semlock._native.SemLock,))
"""
    assert output("-c", script) == "True\n"


def test_an_interpreter_without_site_packages_installs_from_the_parents_place() -> None:
    script = """if True:
        import pickle, sys
        from multiprocessing import spawn
        import semlock
        semlock.install("kernel")
        data = spawn.get_preparation_data("child")
        print(pickle.dumps(data["semlock"]).hex())
    """
    pickled = output("-c", script).strip()
    script = f"""if True:
        import pickle, sys
        pickle.loads(bytes.fromhex({pickled!r}))
        import multiprocessing
        ours = sys.modules["semlock._multiprocessing"].SemLock
        print(type(multiprocessing.get_context("fork").Lock()._semlock) is ours)
    """
    assert output("-I", "-S", "-c", script) == "True\n"


# ---- One backend after the other ----


@pytest.mark.parametrize("method", METHODS)
def test_another_backend_takes_the_place_of_the_one_before(
    method: str, program: Program, backend: str
) -> None:
    source = """
BACKENDS = ["shared", "kernel"]


def made_now(_=None):
    return [made_by(multiprocessing.Lock()), made_by(multiprocessing.SimpleQueue()._rlock)]


def body():
    if BACKEND == "kernel":
        BACKENDS.reverse()
    context = multiprocessing.get_context(sys.argv[1])
    said = []
    kept = []
    for backend in [*BACKENDS, *BACKENDS]:
        semlock.install(backend)
        kept.append(context.Lock())
        with context.Pool(1) as pool:
            said.append([made_now(), pool.apply(made_now)])
    semlock.uninstall()
    said.append(made_now())
    # Each goes on as what it is.
    for lock in kept:
        with lock:
            pass
    return [*said, [made_by(lock) for lock in kept]]
"""
    backends = ["shared", "kernel"] if backend == "shared" else ["kernel", "shared"]
    each = [[[backend] * 2] * 2 for backend in backends]
    assert program(source, method) == [*each, *each, ["stock"] * 2, backends * 2]


# ---- What others have made of multiprocessing's classes ----


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_users_subclass_of_a_lock_works_whenever_it_was_defined(
    moment: str, program: Program, backend: str
) -> None:
    source = """
import multiprocessing.synchronize as synchronize


def define():
    class Counting(synchronize.Lock):
        def __init__(self, *, ctx):
            super().__init__(ctx=ctx)
            self.count = 0

        def take(self):
            self.count += 1
            return self.acquire(False)

    return Counting


if "before" in sys.argv:
    Counting = define()


def use(lock, pipe):
    pipe.send([lock.take(), isinstance(lock, synchronize.Lock)])


def body():
    global Counting
    install()
    if "after" in sys.argv:
        Counting = define()
        Counting.__qualname__ = "Counting"
    said = []
    for change in (lambda: None, semlock.uninstall):
        context = multiprocessing.get_context("fork")
        lock = Counting(ctx=context)
        said.append([lock.take(), lock.take(), lock.count])
        reader, writer = context.Pipe(False)
        child = context.Process(target=use, args=(lock, writer))
        child.start()
        said.append(reader.recv())
        child.join()
        lock.release()
        change()
        said.append([lock.acquire(False), isinstance(lock, semlock.Lock)])
    # Uninstalled by now, and one from before goes on all the same.
    lock = Counting(ctx=context)
    return [*said, lock.acquire()]
"""
    is_ours = moment == "after" and backend == "shared"
    # A lock from before is not of the class that stands there now.
    is_the_present = moment == "after" or backend == "kernel"
    once = [[True, False, 2], [False, is_the_present], [True, is_ours]]
    assert program(source, moment) == [*once, *once, True]


@pytest.mark.parametrize("method", METHODS)
def test_queues_made_before_go_on_working_and_reach_children(method: str, program: Program) -> None:
    source = """
def answer(queues, pipe):
    pipe.send([queue.get() for queue in queues])
    for queue in queues:
        queue.put("answer")


def body():
    context = multiprocessing.get_context(sys.argv[1])
    queues = [context.SimpleQueue(), context.Queue(2), context.JoinableQueue()]
    said = []
    for change in (install, semlock.uninstall):
        change()
        for queue in queues:
            queue.put("question")
        reader, writer = context.Pipe(False)
        child = context.Process(target=answer, args=(queues, writer))
        child.start()
        said.append([reader.recv(), [queue.get() for queue in queues]])
        child.join()
        said.append([queue.empty() for queue in queues])
    return [*said, [made_by(queue._rlock) for queue in queues]]
"""
    once = [[["question"] * 3, ["answer"] * 3], [True] * 3]
    assert program(source, method) == [*once, *once, ["stock"] * 3]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_users_subclass_of_a_pool_works_whenever_it_was_defined(
    moment: str, program: Program, backend: str
) -> None:
    source = """
def define():
    from multiprocessing.pool import Pool

    class Named(Pool):
        @staticmethod
        def Process(ctx, *args, **kwargs):
            return ctx.Process(*args, name="theirs", **kwargs)

    return Named


def name(_):
    return multiprocessing.current_process().name


def body():
    Named = define() if "before" in sys.argv else None
    install()
    Named = Named or define()
    with Named(2) as pool:
        said = [sorted(set(pool.map(name, range(8)))), type(pool._pool).__name__]
    semlock.uninstall()
    with Named(1) as pool:
        return [*said, pool.map(name, [1]), type(pool._pool).__name__]
"""
    ours = "_Workers" if backend == "shared" else "list"
    assert program(source, moment) == [["theirs"], ours, ["theirs"], "list"]


# ---- In children that begin in any directory ----


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_imports_nothing_from_the_current_directory_by_mistake(
    method: str, backend: str, tmp_path: Path
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('imported by mistake')\n")
    below = tmp_path / "below"
    below.mkdir()
    body = """
def body():
    install()
    return ask(multiprocessing.get_context(sys.argv[1]), 1)
"""
    path = written(below, backend, body)
    assert json.loads(output(path, method, cwd=tmp_path)) == ["semlock", "semlock"]


def test_what_a_fork_server_has_imported_for_its_children_they_have(
    backend: str, tmp_path: Path
) -> None:
    (tmp_path / "imported_once.py").write_text("import os\n\nMADE_IN = os.getpid()\n")
    body = """
def tell_of_it(pipe):
    import imported_once

    pipe.send([imported_once.MADE_IN == os.getppid(), seen()])


def body():
    install()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imported_once"])
    return answer(context, tell_of_it)
"""
    path = written(tmp_path, backend, body)
    assert json.loads(output(path, cwd=tmp_path)) == [True, "semlock"]


def test_a_package_without_its_sources_reaches_children(tmp_path: Path) -> None:
    package = tmp_path / "semlock"
    shutil.copytree(Path(semlock.__file__).parent, package)
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for source in package.glob("*.py"):
        source.unlink()
    body = """
def body():
    install()
    assert semlock.__file__.endswith(".pyc")
    return [ask(multiprocessing.get_context(method)) for method in ("spawn", "forkserver")]
"""
    path = written(tmp_path, "shared", body)
    assert json.loads(output(path, cwd=tmp_path)) == [["semlock"], ["semlock"]]


# ---- While it is being installed ----


def test_at_each_step_of_install_and_uninstall_everything_can_be_made(
    program: Program,
) -> None:
    source = """
import multiprocessing.synchronize as synchronize
import semlock.install as _

ARGUMENTS = {"Barrier": (2,)}
NAMES = (
    "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier", "Queue",
    "SimpleQueue", "JoinableQueue",
)
STOCKS = {name: getattr(synchronize, name) for name in NAMES if hasattr(synchronize, name)}
STEPS = []


def make_all():
    STEPS.append(0)
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        for name in NAMES:
            getattr(context, name)(*ARGUMENTS.get(name, ()))
            # As a program makes it that has the class from before.
            if name in STOCKS:
                STOCKS[name](*ARGUMENTS.get(name, ()), ctx=context)


def body():
    module = sys.modules["semlock.install"]
    for change in module._Change, module._MethodChange, module._ReducerChange:
        for step in ("make", "undo"):
            def stepping(self, step=getattr(change, step)):
                step(self)
                make_all()

            setattr(change, step, stepping)
    install()
    semlock.uninstall()
    return len(STEPS) > 10
"""
    assert program(source)

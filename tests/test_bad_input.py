"""If the system has run out of something, the exception is the stdlib's, and nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import NAMES_SEMAPHORES, PATIENCE, output

NewName = Callable[[], str]

# ---- No descriptors ----


def test_without_descriptors_calls_fail_as_on_stock_and_leave_nothing(new_name: NewName) -> None:
    script = f"""if True:
        import os, resource
        import _multiprocessing as stock
        import semlock._multiprocessing as ours

        name, taken = {new_name()!r}, {new_name()!r}
        keeper = stock.SemLock(1, 1, 1, taken, False)

        def outcomes(m):
            for call in (
                lambda: m.SemLock(1, 1, 1, name, False),
                lambda: m.SemLock(1, 1, 1, name, True),
                lambda: m.SemLock(1, 1, 1, taken, False),
                lambda: m.SemLock(1, 1, 1, taken, True),
                lambda: m.SemLock(1, -1, 1, name, True),
                lambda: m.SemLock(1, 1, 1, name + "/", True),
                lambda: m.SemLock._rebuild(0, 1, 1, taken),
                lambda: m.SemLock._rebuild(0, 1, 1, name),
                lambda: m.sem_unlink(name),
            ):
                try:
                    yield type(call()).__name__
                except OSError as error:
                    yield type(error).__name__, error.args

        for m in (ours, stock):  # what is imported on the way now is
            list(outcomes(m))
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        used = []
        try:
            while True:
                used.append(os.dup(0))
        except OSError:
            pass
        both = [list(outcomes(m)) for m in (ours, stock)]
        for descriptor in used:
            os.close(descriptor)
        print(both[0] == both[1] or both)
        print(both[1][0])
        print([entry for entry in os.listdir("/dev/shm") if entry.endswith(name[1:])])
        # And then all is well again.
        print(ours.SemLock(1, 1, 1, name, True).acquire(False))
    """
    assert output("-c", script).splitlines() == [
        "True",
        "('OSError', (24, 'Too many open files'))",
        "[]",
        "True",
    ]


# ---- No names ----


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_says_so_when_all_names_are_taken(method: str, name: str) -> None:
    script = f"""if True:
        import multiprocessing, multiprocessing.synchronize as synchronize
        import semlock
        from semlock import _multiprocessing as ours

        semlock.install("kernel")
        keeper = ours.SemLock(1, 1, 1, {name!r}, False)
        synchronize.SemLock._make_name = staticmethod(lambda: {name!r})
        context = multiprocessing.get_context({method!r})
        for make in (context.Lock, context.RLock, context.Semaphore, context.Event):
            try:
                make()
            except FileExistsError as error:
                print(error)
        print(keeper._get_value(), keeper._rebuild(0, 1, 1, {name!r})._get_value())
    """
    assert output("-c", script) == "cannot find name for semaphore\n" * 4 + "1 1\n"


# ---- No /dev/shm ----

STATES = {
    "absent": "mount -t tmpfs none {dev} && touch {dev}/null {dev}/urandom"
    " && mount --bind /dev/null {dev}/null && mount --bind /dev/urandom {dev}/urandom"
    " && mount --rbind {dev} /dev",
    "read-only": "mount -t tmpfs -o ro none /dev/shm",
    "full": "mount -t tmpfs -o size=4k none /dev/shm"
    " && head -c 4096 /dev/zero >/dev/shm/filler && ! head -c 1 /dev/zero 2>&- >/dev/shm/more"
    " && rm /dev/shm/more",
    "without-inodes": "mount -t tmpfs -o nr_inodes=1 none /dev/shm",
}


def own_mounts() -> list[str] | None:
    """The command that gives a process its own mounts, if the system allows it."""
    if shutil.which("unshare") is None:
        return None
    for command in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        probe = [*command, "sh", "-c", "mount -t tmpfs none /dev/shm"]
        done = subprocess.run(probe, capture_output=True, timeout=PATIENCE, check=False)
        if done.returncode == 0:
            return command
    return None


OWN_MOUNTS = own_mounts()

needs_own_mounts = pytest.mark.skipif(
    OWN_MOUNTS is None, reason="this process may not have mounts of its own (unshare -m)"
)


def run_where(state: str, script: str, directory: Path) -> Any:
    """The JSON that a script prints in a mount namespace whose /dev/shm is unusable."""
    assert OWN_MOUNTS is not None
    dev = directory / "dev"
    dev.mkdir()
    (directory / "script.py").write_text(NAMES_SEMAPHORES + script)
    done = subprocess.run(
        [
            *OWN_MOUNTS,
            "sh",
            "-ec",
            STATES[state].format(dev=dev) + ' && exec "$@"',
            "sh",
            sys.executable,
            directory / "script.py",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return json.loads(done.stdout)


@needs_own_mounts
@pytest.mark.parametrize("state", STATES)
def test_without_dev_shm_unnamed_semaphores_work_and_named_ones_fail_as_on_stock(
    state: str, name: str, tmp_path: Path
) -> None:
    script = f"""if True:
        import json, os
        import _multiprocessing as stock
        import semlock._multiprocessing as ours

        name = {name!r}

        def outcome(call):
            try:
                call()
            except OSError as error:
                return type(error).__name__, error.errno, str(error)
            return "no error"

        def entries():
            return sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else None

        before = entries()
        unnamed = [ours.SemLock(1, value, 1, name, True) for value in (0, 1)]
        pid = os.fork()
        if not pid:
            unnamed[0].release()
            os._exit(0)
        works = unnamed[0].acquire(True, 60), unnamed[1].acquire(), unnamed[1].acquire(False)
        os.waitpid(pid, 0)
        calls = [
            lambda m: m.SemLock(1, 1, 1, name, False),
            lambda m: m.SemLock(1, 1, 1, name + "/x", False),
            lambda m: m.SemLock(1, -1, 1, name, False),
            lambda m: m.SemLock(1, -1, 1, name, True),
            lambda m: m.SemLock._rebuild(0, 1, 1, name),
            lambda m: m.sem_unlink(name),
        ]
        outcomes = [[outcome(lambda: call(m)) for m in (ours, stock)] for call in calls]
        print(json.dumps([works, outcomes, before == entries()]))
    """
    works, outcomes, unchanged = run_where(state, script, tmp_path)
    assert works == [True, True, False]
    for ours, stock in outcomes:
        assert ours == stock
    assert outcomes[0][0] != "no error"
    assert unchanged


@needs_own_mounts
@pytest.mark.parametrize("state", STATES)
def test_without_dev_shm_locks_and_pools_work_by_fork_where_stock_has_none(
    state: str, tmp_path: Path
) -> None:
    script = """if True:
        import json, multiprocessing, os
        from concurrent.futures import ProcessPoolExecutor

        import semlock

        context = multiprocessing.get_context("fork")
        try:
            context.Lock()
            stock = None
        except OSError as error:
            stock = error.errno

        semlock.install()

        def square(number):
            with lock:
                return number * number

        lock = context.Lock()
        with lock, context.RLock(), context.Semaphore(2), context.Condition():
            pass
        event = context.Event()
        child = context.Process(target=event.set)
        child.start()
        came = event.wait(60)
        child.join()
        with context.Pool(2) as pool:
            squares = pool.map(square, range(20))
            pool.close()
            pool.join()
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            futures = list(executor.map(square, range(20)))
        print(json.dumps([stock, came, squares == futures == [n * n for n in range(20)]]))
    """
    stock, came, squares = run_where(state, script, tmp_path)
    assert stock is not None
    assert (came, squares) == (True, True)


def test_without_permission_a_foreign_semaphore_is_refused_as_on_stock(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's semaphore")
    script = f"""if True:
        import os
        import _multiprocessing as stock
        import semlock._multiprocessing as ours

        keeper = stock.SemLock(1, 1, 1, {name!r}, False)
        os.setuid(65534)
        for call in (
            lambda m: m.SemLock._rebuild(0, 1, 1, {name!r}),
            lambda m: m.SemLock(1, 1, 1, {name!r}, False),
            lambda m: m.SemLock(1, 1, 1, {name!r}, True),
            lambda m: m.sem_unlink({name!r}),
        ):
            outcomes = []
            for m in (ours, stock):
                try:
                    outcomes.append(call(m))
                except OSError as error:
                    outcomes.append((type(error), error.args))
            print(outcomes[0][0].__name__ if outcomes[0] == outcomes[1] else outcomes)
    """
    assert output("-c", script).split() == [
        "PermissionError",
        "FileExistsError",
        "FileExistsError",
        "PermissionError",
    ]


def test_a_subinterpreter_is_told_that_it_cannot_have_semlock() -> None:
    script = """if True:
        import sys
        import semlock

        code = '''if True:
            try:
                import semlock._multiprocessing
            except ImportError as error:
                print(error, flush=True)
        '''
        if sys.version_info >= (3, 13):
            import _interpreters as interpreters
            other = interpreters.create("legacy")
            interpreters.exec(other, code)
        else:
            import _xxsubinterpreters as interpreters
            other = interpreters.create(isolated=False)
            interpreters.run_string(other, code)
        interpreters.destroy(other)
    """
    assert output("-c", script) == "semlock cannot be used in subinterpreters\n"

"""The classes that stand in for semlock's own where those are missing, on this system's semaphores.

Each test is a program of its own: the stdlib's barriers and named semaphores leave memory and a
resource tracker to the process that makes them. `tests/windows` tests what the classes have on
Windows alone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from multiprocessing import synchronize
from typing import Any

import pytest
from semlock import _multiprocessing, _native, kernel

LONG = 60
LOCKS = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]


def check_they_are_multiprocessings_over_our_semlock(context: Any) -> None:
    for name in LOCKS:
        lock = getattr(kernel, name)(ctx=context)
        assert isinstance(lock, getattr(synchronize, name))
        assert type(lock._semlock) is _multiprocessing.SemLock
        assert not lock.locked()
        with lock:
            assert lock.locked()
            assert lock.recovered is None
    bounded = kernel.BoundedSemaphore(2, ctx=context)
    with pytest.raises(ValueError, match="too many times"):
        bounded.release()
    lock = kernel.RLock(ctx=context)
    assert lock.holder() is None
    with lock:
        assert lock.holder() == os.getpid()
    condition = kernel.Condition(ctx=context)
    assert type(condition._lock) is kernel.RLock
    assert type(condition._sleeping_count) is kernel.Semaphore
    assert type(kernel.Event(ctx=context)._cond) is kernel.Condition
    assert type(kernel.Barrier(2, ctx=context)._cond) is kernel.Condition


def peer(lock: Any, semaphore: Any, event: Any, condition: Any, barrier: Any) -> None:
    assert all(type(part._semlock) is _multiprocessing.SemLock for part in (lock, semaphore))
    assert not lock.acquire(False)
    semaphore.release()
    assert event.wait(LONG)
    barrier.wait(LONG)
    with condition:
        condition.notify()


def check_they_work_between_processes(context: Any) -> None:
    lock, semaphore = kernel.Lock(ctx=context), kernel.Semaphore(0, ctx=context)
    event, condition = kernel.Event(ctx=context), kernel.Condition(ctx=context)
    barrier = kernel.Barrier(2, ctx=context)
    with lock, condition:
        child = context.Process(target=peer, args=(lock, semaphore, event, condition, barrier))
        child.start()
        try:
            assert semaphore.acquire(True, LONG)
            event.set()
            barrier.wait(LONG)
            assert condition.wait(LONG)
            child.join(LONG)
            assert child.exitcode == 0
        finally:
            child.kill()
            child.join()


def check_what_cannot_be_had_is_refused(context: Any) -> None:
    for name in LOCKS:
        cls = getattr(kernel, name)
        with pytest.raises(
            NotImplementedError, match=rf"^{name}\(robust=True\) is not.* leave it out"
        ):
            cls(ctx=context, robust=True)
        refusal = r'^on_owner_died must be "warn" or "ignore", not '
        with pytest.raises(ValueError, match=refusal + r'"no"$'):
            cls(ctx=context, on_owner_died="no")
        with pytest.raises(TypeError, match=refusal + "int$"):
            cls(ctx=context, on_owner_died=1)
        # They can be sent only while a child is started.
        lock = cls(ctx=context, on_owner_died="ignore")
        with pytest.raises(RuntimeError, match="inheritance"):
            pickle.dumps(lock)


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_")}


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("name", CHECKS)
def test_the_classes_that_stand_in(name: str, method: str) -> None:
    command = [sys.executable, __file__, name, method]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=2 * LONG)
    assert (ran.returncode, ran.stdout) == (0, "checked\n"), ran.stderr


def test_each_native_class_has_one_that_stands_in_for_it() -> None:
    assert {*kernel.__all__} == {*_native._NAMES_OF_SYNCHRONIZE}


SAYS = """\
import warnings
from semlock import kernel
def level():
    warnings.simplefilter("always")
    kernel.Semaphore()
    kernel.Lock(robust=False)
    print("so far")
    kernel.Event()
    kernel.Lock()
    kernel.RLock()
level()
"""


def test_it_is_said_once_where_the_first_is_made_that_is_robust_elsewhere() -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", SAYS]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    before, _, after = ran.stdout.partition("so far\n")
    assert ran.returncode == 0
    assert before == ""
    assert after.count("RuntimeWarning: semlock's locks are not robust") == 1
    assert after.startswith("<string>:8:")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="semlock's locks are not robust")
    CHECKS[sys.argv[1]](multiprocessing.get_context(sys.argv[2]))
    print("checked")

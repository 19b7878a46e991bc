"""A process on CPython's own module and one on semlock share a semaphore."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from children import NAMES_SEMAPHORES, PATIENCE, output, started
from semlock._multiprocessing import SemLock

OURS, STOCK = "semlock._multiprocessing", "_multiprocessing"

# One side of a game of ping-pong: takes a ball from one semaphore, and puts it into the other.
PLAYER = """if True:
    import sys
    from {module} import SemLock
    assert ("semlock" in sys.modules) == {module!r}.startswith("semlock")
    take, give = (SemLock._rebuild(0, 1, 1, name) for name in {names!r})
    for turn in range(500):
        assert take.acquire(*[(), (True, 60)][turn % 2])
        give.release()
    print(take._count(), give._count())
"""


@pytest.mark.parametrize("maker", [OURS, STOCK])
@pytest.mark.parametrize(("first", "second"), [(OURS, STOCK), (STOCK, OURS), (OURS, OURS)])
def test_a_permit_goes_to_and_fro_between_processes(
    maker: str, first: str, second: str, new_name: Callable[[], str]
) -> None:
    names = new_name(), new_name()
    script = f"""if True:
        from {maker} import SemLock
        for value, name in enumerate({names!r}):
            SemLock(1, value, 1, name, False)
    """
    output("-c", script)
    players = [(first, names), (second, names[::-1])]
    scripts = [PLAYER.format(module=module, names=given) for module, given in players]
    with started("-c", scripts[0]) as one, started("-c", scripts[1]) as two:
        said = [child.communicate(timeout=PATIENCE) for child in (one, two)]
    assert said == [("500 -500\n", "")] * 2
    # The ball is where it was at the start.
    assert [SemLock._rebuild(0, 1, 1, name)._get_value() for name in names] == [0, 1]


@pytest.mark.parametrize(("holder", "waiter"), [(OURS, STOCK), (STOCK, OURS)])
def test_what_one_holds_the_other_waits_for(holder: str, waiter: str, name: str) -> None:
    holds = f"""if True:
        import sys
        from {holder} import SemLock
        lock = SemLock(0, 1, 1, {name!r}, False)
        with lock, lock:
            print("held", flush=True)
            sys.stdin.readline()
    """
    waits = f"""if True:
        from {waiter} import SemLock
        lock = SemLock._rebuild(0, 0, 1, {name!r})
        print(lock._is_zero(), lock._is_mine(), lock.acquire(False), lock.acquire(True, 0.01))
        try:
            lock.release()
        except AssertionError as error:
            print(error, flush=True)
        print(lock.acquire(), lock._get_value())
    """
    with started("-c", holds, stdin=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        with started("-c", waits) as two:
            assert two.stdout is not None
            assert two.stdout.readline() == "True False False False\n"
            message = "attempt to release recursive lock not owned by thread\n"
            assert two.stdout.readline() == message
            assert one.communicate("\n", timeout=PATIENCE) == ("", "")
            assert two.communicate(timeout=PATIENCE) == ("True 0\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("installed_first", [False, True])
def test_a_lock_made_on_one_is_used_by_a_child_on_the_other(
    method: str, installed_first: bool, tmp_path: Path
) -> None:
    program = NAMES_SEMAPHORES + (
        f"""
import multiprocessing, sys
import semlock


def use(lock, conditions, queue):
    ours = sys.modules["semlock._multiprocessing"]
    with lock:
        queue.put(["child", sys.modules["_multiprocessing"] is ours])
        queue.put(["lock", type(lock._semlock) is ours.SemLock])
    with conditions:
        conditions.notify_all()


if __name__ == "__main__":
    changes = [semlock.install, semlock.uninstall]
    if {installed_first}:
        changes[0]()
        del changes[0]
    context = multiprocessing.get_context({method!r})
    lock, condition, queue = context.RLock(), context.Condition(), context.Queue()
    changes[0]()
    child = context.Process(target=use, args=(lock, condition, queue))
    with lock, condition:
        child.start()
        assert not lock._semlock._get_value()
        lock.release()
        print(queue.get(), queue.get())
        print(condition.wait(60))
        lock.acquire()
    child.join()
    print(child.exitcode)
"""
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    on_ours = not installed_first
    expected = f"['child', {on_ours}] ['lock', {on_ours}]\nTrue\n0\n"
    assert output(path) == expected

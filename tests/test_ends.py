"""A process that ends well leaves a plain lock held, for another to release.

Each other end is a death.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from children import run
from programs import METHODS, run_program

GOOD = ["returns", "sys.exit()", "sys.exit(0)", "a subclass"]
BAD = ["sys.exit(3)", "a text", "an exception", "os._exit(0)", "SIGKILL", "SIGTERM"]
# What becomes of a lock that it holds when it ends well, by how it acquired the lock.
HOLDS = {
    "in a thread that has ended": "kept",
    "in an executor's": "kept",
    "with a fork": "kept",
    "after the main thread": "kept",
    "at exit": "kept",
    "in a daemon": "recovered",
}

# How a process ends, and whether it ends well. The key is the name of the end.
ENDS = '''
import atexit, concurrent.futures


class Quits(SystemExit):
    pass


def raises(error):
    raise error


def die(number):
    os.kill(os.getpid(), number)


GOOD = {
    "returns": lambda: None,
    "sys.exit()": sys.exit,
    "sys.exit(0)": lambda: sys.exit(0),
    "a subclass": lambda: raises(Quits(0)),
}
BAD = {
    "sys.exit(3)": lambda: sys.exit(3),
    "a text": lambda: sys.exit(""),
    "an exception": lambda: raises(ValueError("on purpose")),
    "os._exit(0)": lambda: os._exit(0),
    "SIGKILL": lambda: die(signal.SIGKILL),
    "SIGTERM": lambda: die(signal.SIGTERM),
}


def acquire(lock):
    lock.acquire()


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def in_a_daemon(lock):
    held = threading.Event()

    def hold():
        lock.acquire()
        held.set()
        threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def in_an_executor(lock):
    # Its thread waits for more until the end.
    concurrent.futures.ThreadPoolExecutor(1).submit(lock.acquire).result()


def at_exit(lock):
    atexit.register(lock.acquire)


def after_the_main_thread(lock):
    def acquire():
        threading.main_thread().join()
        lock.acquire()
    threading.Thread(target=acquire).start()


def under_a_fork(lock):
    lock.acquire()
    os.waitpid(os.fork() or os._exit(0), 0)


HOLDS = {
    "acquire": acquire,
    "in a thread that has ended": lambda lock: in_a_thread(lock.acquire),
    "in an executor's": in_an_executor,
    "with a fork": under_a_fork,
    "after the main thread": after_the_main_thread,
    "in a daemon": in_a_daemon,
}


def fate(lock, pid):
    """What became of a lock with which a process has ended."""
    if lock.acquire(timeout=0.2):
        fate = "recovered" if lock.recovered == pid else "free"
    elif not lock.locked() or lock.holder() != pid:
        fate = "another's"
    else:
        # It is left to this process, which releases it.
        lock.release()
        assert lock.acquire(False) and lock.recovered is None
        fate = "kept"
    lock.release()
    return fate
'''

CHILDREN = (
    ENDS
    + """
def live(lock, hold, end):
    sys.stderr = open(os.devnull, "w")
    HOLDS[hold](lock)
    {**GOOD, **BAD}[end]()


def fate_after(context, hold, end):
    lock = semlock.Lock(on_owner_died="ignore")
    process = context.Process(target=live, args=(lock, hold, end))
    process.start()
    process.join()
    return fate(lock, process.pid)


def body():
    ours, stocks = semlock.get_context(method()), multiprocessing.get_context(method())
    by_end = {end: fate_after(ours, "acquire", end) for end in {**GOOD, **BAD}}
    of_stocks = {end: fate_after(stocks, "acquire", end) for end in ("returns", "sys.exit(3)")}
    by_hold = {hold: fate_after(ours, hold, "returns") for hold in HOLDS}
    return by_end, of_stocks, by_hold
"""
)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_leaves_its_plain_lock_held_if_it_ends_well_and_only_then(
    tmp_path: Path, method: str
) -> None:
    by_end, of_stocks, by_hold = run_program(tmp_path, CHILDREN, method)
    assert by_end == {**dict.fromkeys(GOOD, "kept"), **dict.fromkeys(BAD, "recovered")}
    assert of_stocks == {"returns": "kept", "sys.exit(3)": "recovered"}
    assert by_hold == {hold: HOLDS.get(hold, "kept") for hold in by_hold}


OTHERS = (
    ENDS
    + """
def take(lock):
    lock.acquire()


def body():
    context = semlock.get_context(method())
    found = []
    for made in (
        context.RLock(on_owner_died="ignore"),
        context.Semaphore(1, robust=True, on_owner_died="ignore"),
        context.Condition(context.RLock(on_owner_died="ignore")),
    ):
        process = context.Process(target=take, args=(made,))
        process.start()
        process.join()
        assert process.exitcode == 0
        found.append(made.acquire(timeout=60))
    return found
"""
)


@pytest.mark.parametrize("method", METHODS)
def test_what_nobody_else_could_release_is_recovered_after_any_end(
    tmp_path: Path, method: str
) -> None:
    assert run_program(tmp_path, OTHERS, method) == [True] * 3


POOLS = (
    ENDS
    + """
def set_up(lock, held):
    global LOCK, HELD
    LOCK, HELD = lock, held


def take():
    LOCK.acquire()
    return os.getpid()


def take_and_go_on():
    take()
    HELD.set()
    signal.pause()


def of_a_pool(context, ends):
    lock, held = context.Lock(on_owner_died="ignore"), context.Event()
    with context.Pool(1, set_up, (lock, held)) as pool:
        (worker,) = pool._pool
        if ends == "close":
            pool.apply(take)
        else:
            pool.apply_async(take_and_go_on)
            held.wait()
        getattr(pool, ends)()
        pool.join()
        return fate(lock, worker.pid)


def of_an_executor(context):
    lock = context.Lock(on_owner_died="ignore")
    with concurrent.futures.ProcessPoolExecutor(1, context, set_up, (lock, None)) as executor:
        pid = executor.submit(take).result()
    return fate(lock, pid)


def body():
    context = semlock.get_context(method())
    fates = [of_a_pool(context, "close"), of_a_pool(context, "terminate")]
    return [*fates, of_an_executor(context)]
"""
)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_is_let_go_leaves_a_lock_held_and_one_that_is_terminated_dies_with_it(
    tmp_path: Path, method: str
) -> None:
    assert run_program(tmp_path, POOLS, method) == ["kept", "recovered", "kept"]


# One of two processes ends, and the other checks what becomes of the lock. The other was forked
# before the lock was held, and so is no heir.
MAIN = (
    "import multiprocessing, os, select, signal, sys, threading, warnings\n"
    + ENDS
    + """
ends, hold, end, *how = sys.argv[1:]
if how:
    import semlock

    semlock.install()
warnings.simplefilter("ignore")
lock = multiprocessing.Lock()
first = os.getpid()
death_of_the_first = os.pidfd_open(first)
forked = os.fork()
if bool(forked) == (ends == "first"):
    sys.stderr = open(os.devnull, "w")
    {**HOLDS, "at exit": at_exit}[hold](lock)
    {**GOOD, **BAD}[end]()
else:
    if forked:
        os.waitpid(forked, 0)
    else:
        select.select([death_of_the_first], [], [])
    print(fate(lock, forked or first), flush=True)
    os._exit(0)
"""
)


@pytest.fixture
def fate(tmp_path: Path) -> Callable[..., str]:
    (tmp_path / "program.py").write_text(MAIN)

    def fate(*arguments: str, install: bool = False) -> str:
        if install:
            done = run("program.py", *arguments, "install", cwd=tmp_path)
        else:
            done = run("-m", "semlock", "program.py", *arguments, cwd=tmp_path)
        return done.stdout.strip() or done.stderr

    return fate


@pytest.mark.parametrize("install", [False, True], ids=["-m semlock", "install()"])
def test_a_program_leaves_its_plain_lock_held_if_it_ends_well_and_only_then(
    fate: Callable[..., str], install: bool
) -> None:
    fates = {end: fate("first", "acquire", end, install=install) for end in GOOD + BAD}
    assert fates == {**dict.fromkeys(GOOD, "kept"), **dict.fromkeys(BAD, "recovered")}


def test_a_process_that_a_program_forks_leaves_its_plain_lock_held_if_it_ends_well(
    fate: Callable[..., str],
) -> None:
    fates = {end: fate("forked", "acquire", end) for end in GOOD + BAD}
    assert fates == {**dict.fromkeys(GOOD, "kept"), **dict.fromkeys(BAD, "recovered")}


@pytest.mark.parametrize("hold", HOLDS)
def test_a_program_that_ends_well_leaves_what_all_threads_but_daemons_have_acquired(
    fate: Callable[..., str], hold: str
) -> None:
    assert fate("first", hold, "returns") == HOLDS[hold]
    assert fate("first", hold, "sys.exit(3)") == "recovered"

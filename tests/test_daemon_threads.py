"""An interpreter ends well although daemon threads are blocked in `acquire`."""

from __future__ import annotations

import pytest
from children import output

WAITS = {
    "untimed": "lock.acquire()",
    "with": "lock.__enter__()",
    "long": "lock.acquire(True, 60)",
    # These threads come back to Python all the time while the interpreter ends.
    "short": "lock.acquire(True, 0.0005)",
    "mixed": "lock.acquire(True, 0.0001) or lock.acquire(True, 0.002)",
}


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_an_interpreter_ends_with_daemon_threads_in_a_wait(wait: str, run: int, name: str) -> None:
    script = f"""if True:
        import threading, time
        from semlock._multiprocessing import SemLock

        lock = SemLock(1, 0, 1, {name!r}, True)
        started = threading.Barrier(9)

        def wait():
            started.wait()
            while True:
                {wait}

        for _ in range(8):
            threading.Thread(target=wait, daemon=True).start()

        class Late:
            # Lives in a global, so it goes when the interpreter has nearly ended.
            def __del__(self, sleep=time.sleep):
                sleep(0.05)

        late = Late()
        started.wait()
        print("end")
    """
    assert output("-c", script) == "end\n"


def test_an_interpreter_ends_with_a_daemon_thread_that_gets_its_permit_in_the_end(
    name: str,
) -> None:
    script = f"""if True:
        import atexit, threading
        from semlock._multiprocessing import SemLock

        lock = SemLock(1, 0, 10, {name!r}, True)
        for _ in range(4):
            threading.Thread(target=lock.acquire, daemon=True).start()

        class Late:
            # Without the GIL, other globals have gone before this one.
            def __del__(self, lock=lock):
                lock.release()

        late = Late()
        atexit.register(lock.release)
        print("end")
    """
    assert output("-c", script) == "end\n"


# The places where a daemon thread can be in Python code that semlock has called.
CALLED = {
    "predicate": """
        condition = semlock.Condition()
        condition.acquire()
        go = lambda: condition.wait_for(linger)
    """,
    "action": """
        go = semlock.Barrier(1, linger).wait
    """,
    "lock-of-a-condition": """
        class Own(semlock.Lock):
            def acquire(self, *_):
                linger()
        go = semlock.Condition(Own()).acquire
    """,
    "warning": """
        lock = semlock.Lock()
        if os.fork() == 0:
            lock.acquire()
            os._exit(0)
        os.wait()
        warnings.simplefilter("always")
        warnings.showwarning = lambda *_, **__: linger()
        go = lock.acquire
    """,
    "getstate": """
        class Own(semlock.Barrier):
            def __getstate__(self):
                linger()
        go = lambda barrier=Own(2): pickle.dumps(barrier)
    """,
}


@pytest.mark.parametrize("called", CALLED.values(), ids=CALLED)
def test_an_interpreter_ends_with_a_daemon_thread_in_what_semlock_calls(called: str) -> None:
    # Up to 3.13, such a thread ends where it comes back to Python.
    script = f"""if True:
        import os, pickle, threading, time, warnings
        import semlock

        started = threading.Event()

        def linger():
            started.set()
            while True:
                time.sleep(0.001)
        {called}
        class Late:
            # Lives in a global, so it goes when the interpreter has nearly ended.
            def __del__(self, sleep=time.sleep):
                sleep(0.05)

        late = Late()
        threading.Thread(target=go, daemon=True).start()
        started.wait()
        print("end")
    """
    assert output("-c", script) == "end\n"


def test_a_barrier_that_breaks_when_the_interpreter_has_nearly_ended_says_so() -> None:
    script = """if True:
        import builtins
        import semlock

        class Late:
            def __del__(self, barrier=semlock.Barrier(2), print=print):
                try:
                    barrier.wait(0)
                except BaseException as error:
                    print(type(error).__name__)

        builtins.late = Late()
    """
    assert output("-c", script) == "BrokenBarrierError\n"

"""An interpreter ends well although daemon threads are blocked in `acquire`."""

from __future__ import annotations

import pytest
from children import output

WAITS = {
    "untimed": "lock.acquire()",
    "with": "lock.__enter__()",
    "long": "lock.acquire(True, 60)",
    # These come back all the time while the interpreter ends.
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

"""Child processes that end with their measurement at the latest, and cannot hang."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

# In seconds. This is a watchdog and no bound: what takes longer counts as hanging.
PATIENCE = 60


def bounded() -> None:
    """Makes this process end after PATIENCE at the latest."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(PATIENCE)


def fork(work: Callable[[], object]) -> int:
    """Forks a child that does the work. Returns its pid. It ends after PATIENCE at the latest."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        bounded()
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


@contextlib.contextmanager
def forked(*works: Callable[[], object]) -> Iterator[list[int]]:
    """Forks a child for each piece of work, in this order. At the end it kills and reaps them.

    It reaps none of them earlier, so that no other process gets a child's pid until then.
    """
    pids: list[int] = []
    try:
        for work in works:
            pids.append(fork(work))
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


class Numbers:
    """A pipe of 64-bit numbers. Each number is written and read whole, even if many share it."""

    def __init__(self) -> None:
        self._from, self._to = os.pipe()

    def __enter__(self) -> Numbers:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._from)
        os.close(self._to)

    def put(self, *numbers: int) -> None:
        os.write(self._to, b"".join(number.to_bytes(8, sys.byteorder) for number in numbers))

    def get(self) -> int:
        return int.from_bytes(os.read(self._from, 8), sys.byteorder)

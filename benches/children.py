"""Child processes that neither outlive their measurement nor hang."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator

# Seconds. A watchdog, not a bound: what takes longer hangs.
PATIENCE = 60


def fork(work: Callable[[], object]) -> int:
    """The pid of a child that does the work, and is gone after PATIENCE at the latest."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


@contextlib.contextmanager
def forked(*works: Callable[[], object]) -> Iterator[list[int]]:
    """A child for each piece of work, in the order given. At the end they are killed and reaped.

    Nobody waits for a child in between, so that a pid stays its own until then.
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
    """A pipe of 64-bit numbers, each written and read whole whoever shares it."""

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

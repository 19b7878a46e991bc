"""A ``ProcessPoolExecutor``'s call queue, where no process waits for a worker that was killed.

The executor is the stdlib's. So is its call queue, except for the reading lock and the writing end.
While it has calls to hand out, the executor itself notices that a worker died, and then ends the
others. At two moments it does not check, and with the stdlib's call queue it waits for ever:

* When it shuts down, it waits until each worker has read that there is nothing more to do. A worker
  that was killed while it waited for a call, or read one, held the lock that the others need. Here
  that lock is recovered. The dead worker may have read half of a call and left the rest in the
  pipe, so no worker reads on: each one that acquires the lock finds the dead worker's mark, and
  ends.
* When it is broken, it waits for its thread that writes calls. No worker reads them any more. But
  every process that was forked meanwhile keeps the pipe's reading end open, so the thread gets no
  error. Here the thread gives up when the pipe is full and the queue is closed. (An executor that
  is not broken closes its queue after the workers have read all calls.)
"""

from __future__ import annotations

import errno
import os
import select
import weakref
from multiprocessing import connection
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _native

__all__ = ["is_call_queue", "lock_for", "protect"]

# Seconds between two checks whether the queue has been closed.
_WHILE_WRITING = 0.1

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
else:
    _Connection = connection.Connection


def is_call_queue(queue: object) -> bool:
    """Whether this is an executor's call queue: its class is defined in the executor's module."""
    return any(cls.__module__ == "concurrent.futures.process" for cls in type(queue).__mro__)


def lock_for(queue: Any, ctx: Any) -> _native.Lock:
    """Makes the lock that the ``__init__`` of a queue of the stdlib's class gets from a context.

    That ``__init__`` makes the reading lock first, and then the writing lock.
    """
    if is_call_queue(queue) and not hasattr(queue, "_rlock"):
        protect(queue, ctx)
        lock: _native.Lock = queue._rlock
        return lock
    # A call queue's writing lock needs no recovery: one thread of one process acquires it. Other
    # queues of the stdlib's classes have no marks beside their locks. If a process recovered such a
    # lock, it would read on where another was killed. So these locks are not robust.
    return _native.Lock(ctx=ctx, robust=False)


def protect(queue: Any, ctx: Any) -> None:
    """Gives a call queue of the stdlib's class our reading lock and writing end, once."""
    if isinstance(getattr(queue, "_rlock", None), _ReadingLock):
        return
    queue._rlock = _ReadingLock(ctx=ctx)
    queue._writer = _WritingEnd(queue)
    queue._send_bytes = queue._writer.send_bytes


class _ReadingLock(_native.Lock):
    """A lock that a worker holds, with its mark set, while it waits for a call and reads it."""

    def __init__(self, *, ctx: Any) -> None:
        # It does not warn, because the mark tells what a dead worker left behind.
        super().__init__(ctx=ctx, on_owner_died="ignore")
        self._guard_messages()

    def __enter__(self) -> bool:
        super().__enter__()
        if not self._begin_message():
            self.release()
            # The status is not 0, because this worker ends early.
            raise SystemExit(1)
        return True

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
        /,
    ) -> None:
        # An exception in the middle of a call ends this worker, and the others find its mark.
        if exc_type is None:
            self._end_message()
        super().__exit__(exc_type, exc_value, exc_tb)


class _WritingEnd(_Connection):
    """The end that an executor writes calls into. It gives up when its queue is closed."""

    def __init__(self, queue: Any) -> None:
        handle = os.dup(queue._writer.fileno())
        super().__init__(handle, readable=False)
        queue._writer.close()
        # Only this end does not block: workers wait in their system calls.
        os.set_blocking(handle, False)
        # The queue refers to this end. A weak reference back makes no cycle, so the queue can go
        # without the garbage collector.
        self._queue = weakref.ref(queue)

    def __reduce__(self) -> Any:
        # Workers do not write, so they get an end of the stdlib's class.
        return vars(connection)["reduce_connection"](self)

    def _send(self, piece: Any) -> None:
        while True:
            try:
                count = os.write(self.fileno(), piece)
            except BlockingIOError:
                self._wait_for_room()
                continue
            if count == len(piece):
                return
            piece = memoryview(piece)[count:]

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        while not poll.poll(_WHILE_WRITING * 1000):
            queue = self._queue()
            if queue is None or queue._closed:
                # An executor's queue does not report this error.
                raise BrokenPipeError(errno.EPIPE, "nobody reads what an executor hands out")

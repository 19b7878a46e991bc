"""A ``ProcessPoolExecutor``'s call queue, at which nobody waits for a worker that was killed.

The executor is the stdlib's, and so is its call queue, except for the reading lock and the writing
end. While it has calls to hand out, the executor itself notices that a worker died, and then ends
the others. At two moments it does not check, and the stdlib's waits for ever:

* When it shuts down, it waits until each worker has read that there is nothing more to do. A worker
  that was killed while it waited for a call, or read one, held the lock that the others need. Here
  that lock is recovered. The call that the dead worker read may be half in the pipe, so no worker
  reads on: each one that gets the lock finds the dead worker's mark, and ends.
* When it is broken, it waits for its thread that writes calls. No worker reads them any more, but
  every process that was forked meanwhile keeps the pipe's reading end open, so that the thread gets
  no error. Here the thread gives up when the pipe is full and the queue has been closed. (An
  executor that is not broken closes its queue after all calls have been read.)
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
    """Whether this is an executor's, of a class that is defined beside it."""
    return any(cls.__module__ == "concurrent.futures.process" for cls in type(queue).__mro__)


def lock_for(queue: Any, ctx: Any) -> _native.Lock:
    """The lock that the ``__init__`` of a queue of the stdlib's class gets from a context.

    It asks for the reading lock, and then for the writing lock.
    """
    if is_call_queue(queue) and not hasattr(queue, "_rlock"):
        protect(queue, ctx)
        lock: _native.Lock = queue._rlock
        return lock
    # One thread of one process takes a call queue's writing lock. Other queues have no marks beside
    # their locks: recovered, these would let a process read on where another was killed. So here
    # they are as in the stdlib.
    return _native.Lock(ctx=ctx, robust=False)


def protect(queue: Any, ctx: Any) -> None:
    """Gives a call queue of the stdlib's class its reading lock and its writing end, once."""
    if isinstance(getattr(queue, "_rlock", None), _ReadingLock):
        return
    queue._rlock = _ReadingLock(ctx=ctx)
    queue._writer = _WritingEnd(queue)
    queue._send_bytes = queue._writer.send_bytes


class _ReadingLock(_native.Lock):
    """What a worker holds while it waits for a call and reads it, marked all the time."""

    def __init__(self, *, ctx: Any) -> None:
        # Without a warning: what a dead worker left behind is known from the mark.
        super().__init__(ctx=ctx, on_owner_died="ignore")
        self._guard_messages()

    def __enter__(self) -> bool:
        super().__enter__()
        if not self._begin_message():
            self.release()
            # Not 0: this worker did not end in order.
            raise SystemExit(1)
        return True

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        exc_tb: TracebackType | None = None,
        /,
    ) -> None:
        # An exception in the middle of a call ends this worker, and leaves the mark to the others.
        if exc_type is None:
            self._end_message()
        super().__exit__(exc_type, exc_value, exc_tb)


class _WritingEnd(_Connection):
    """The end that an executor writes calls into, for as long as its queue is open."""

    def __init__(self, queue: Any) -> None:
        handle = os.dup(queue._writer.fileno())
        super().__init__(handle, readable=False)
        queue._writer.close()
        # Of this end alone: workers wait in their system calls.
        os.set_blocking(handle, False)
        # The queue has this end, and is to be gone without the garbage collector.
        self._queue = weakref.ref(queue)

    def __reduce__(self) -> Any:
        # Workers do not write.
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

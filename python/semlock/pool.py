"""A ``multiprocessing.Pool`` that finds out when a worker was killed in the middle of a message.

It is the stdlib's pool. When one of the two pipes that its workers share breaks (see
:mod:`semlock.queues`), the pool can do no more. Pending jobs fail with a
:class:`~semlock.QueueBrokenError`, and so does each new one. The workers end, and no others take
their places. ``close()``, ``terminate()``, ``join()`` and ``with`` work as ever.

Both pipes share one event that says that they are broken. So a break of one of them also ends the
processes and threads that wait for the other. The thread that reads results does the rest. While
there are no results, it checks that event about once a second.

All of this depends on what a pool gets when it is made, and not on its class. So a pool stays what
it is when ``uninstall()`` gives the stdlib's class its method back.

A task that a killed worker had taken is lost, as in the stdlib, and its job never ends.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import pool
from typing import Any

from .errors import QueueBrokenError
from .queues import SimpleQueue, _End, _ReadingEnd, _Stream

__all__ = ["Pool"]

# These names are our own, because install() makes the stdlib's pools do as ours do.
_StockPool: Any = vars(pool)["Pool"]
_StockCache: Any = vars(pool)["_PoolCache"]
_IMapIterator: Any = pool.IMapIterator
_MapResult: Any = pool.MapResult
_TERMINATE: Any = vars(pool)["TERMINATE"]
_stocks_repopulate_pool: Callable[[Any], None] = _StockPool._repopulate_pool

# The attributes of a pool that _watch() uses, replaces or changes.
_FIELDS = (
    "_cache",
    "_inqueue",
    "_map_async",
    "_outqueue",
    "_quick_get",
    "_quick_put",
    "_taskqueue",
    "Process",
)


class Pool(_StockPool):  # type: ignore[misc]
    """``multiprocessing.Pool``, whose jobs fail when its pipes break."""

    def _repopulate_pool(self) -> None:
        # The stdlib's __init__ calls this when it has made everything but processes and threads.
        # `self` can be any pool: a ThreadPool, or one of a subclass defined before install().
        notifier = getattr(self, "_change_notifier", None)
        if type(notifier) is SimpleQueue:
            notifier.__class__ = _Notifier
        is_watched = _is_on_our_queues(self)
        if is_watched:
            _watch(self)
        _stocks_repopulate_pool(self)
        if is_watched:
            # It starts the workers that replace the first ones.
            self.Process: Any = partial(_start, self.Process, self._taskqueue)


def _is_on_our_queues(pool: Any) -> bool:
    if not all(hasattr(pool, name) for name in _FIELDS):
        return False
    return all(
        type(pipe) is SimpleQueue and isinstance(vars(pipe)["_reader"], _End)
        for pipe in (pool._inqueue, pool._outqueue)
    )


def _watch(pool: Any) -> None:
    """Puts itself between a pool and its pipes, wherever the pool uses one."""
    for pipe in pool._inqueue, pool._outqueue:
        pipe.__class__ = _Pipe
    pool._inqueue._reader.__class__ = _TaskReader
    tasks, results = pool._inqueue._reader._stream, pool._outqueue._reader._stream
    results.broken = tasks.broken
    pool._taskqueue = _Submitted((tasks, results))
    pool._cache = _Cache(pool._taskqueue, notifier=pool._change_notifier)
    # A pool must not refer to itself, or it would stay until the garbage collector runs.
    reference = weakref.ref(pool)
    pool._map_async = partial(_map_async, type(pool)._map_async, reference)
    pool._quick_put = pool._inqueue.put
    pool._quick_get = partial(_get, pool._outqueue._reader.recv, reference)


class _Notifier(SimpleQueue):
    """Wakes the thread that checks and replaces the workers.

    Only threads of this process use it, and the number of wake-ups does not matter. So it needs no
    marks, and an exception that a signal handler raises in the middle does not break it.
    """

    def empty(self) -> bool:
        return not self._reader._is_ready(0)

    def get(self) -> None:
        os.read(self._reader.fileno(), 65536)

    def put(self, obj: object) -> None:
        with suppress(BlockingIOError):  # the pipe is full of wake-ups: one is enough
            os.write(self._writer.fileno(), b".")


class _Pipe(SimpleQueue):
    """One of a pool's pipes. A worker or thread that finds it broken ends without a traceback."""

    def get(self) -> Any:
        try:
            return super().get()
        except QueueBrokenError:
            # The worker ends, as if the pool were gone.
            raise EOFError from None

    def put(self, obj: Any) -> None:
        try:
            super().put(obj)
        except QueueBrokenError:
            # None would end its reader, which ends anyway when it finds the pipe broken.
            if obj is not None:
                # The caller is a worker, or the thread that hands out the tasks.
                raise SystemExit from None


class _TaskReader(_ReadingEnd):
    """The end from which terminate() reads tasks, to make room for a thread that waits for it.

    No thread waits for room in a broken pipe, so a broken pipe looks empty.
    """

    def _poll(self, timeout: float | None) -> bool:
        try:
            return self._wait(timeout)
        except QueueBrokenError:
            return False

    def recv(self) -> Any:
        try:
            return super().recv()
        except QueueBrokenError:
            return None


class _Submitted(queue.SimpleQueue[Any]):
    """The queue in which jobs wait until they are handed out. A broken pool's refuses new jobs."""

    def __init__(self, streams: tuple[_Stream, ...]) -> None:
        super().__init__()
        self._streams = streams

    def check(self) -> None:
        for stream in self._streams:
            stream.check()

    def is_refused(self) -> bool:
        try:
            self.check()
        except QueueBrokenError:
            return True
        return False

    def put(self, job: Any, block: bool = True, timeout: float | None = None) -> None:
        # This also refuses a job that take_out() removed from the cache while it was being made.
        if job is not None:
            self.check()
        super().put(job, block, timeout)


class _Cache(_StockCache):  # type: ignore[misc]
    """The pending jobs of a pool. After take_out() it refuses new ones."""

    def __init__(self, submitted: _Submitted, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._submitted = submitted
        # It is reentrant, because a signal handler may submit a job.
        self._lock = threading.RLock()

    def __setitem__(self, number: int, job: Any) -> None:
        with self._lock:
            self._submitted.check()
            super().__setitem__(number, job)

    def __delitem__(self, number: int) -> None:
        with suppress(KeyError):  # take_out() has removed it
            super().__delitem__(number)

    def take_out(self) -> list[Any]:
        """Removes and returns the jobs of a broken pool."""
        with self._lock:
            jobs = list(self.values())
            self.clear()
        return jobs


class _LastItems(deque[Any]):
    """The last items of an iterator, and then its end."""

    def popleft(self) -> Any:
        try:
            return super().popleft()
        except IndexError:
            raise StopIteration from None


def _start(process: Callable[..., Any], submitted: _Submitted, *args: Any, **kwargs: Any) -> Any:
    """Makes a worker, unless the pool is broken and the worker would end at once."""
    if submitted.is_refused():
        # The caller is the thread that replaces workers. End it, with the None that it puts last.
        submitted.put(None)
        raise SystemExit
    return process(*args, **kwargs)


def _map_async(
    map_async: Callable[..., Any], reference: Callable[[], Any], *args: Any, **kwargs: Any
) -> Any:
    pool = reference()
    try:
        return map_async(pool, *args, **kwargs)
    except ZeroDivisionError:
        # It divides the items by the number of workers, and a broken pool has none.
        if pool._taskqueue.is_refused():
            raise pool._inqueue._reader._stream.breaks() from None
        raise


def _get(receive: Callable[[], Any], reference: Callable[[], Any]) -> Any:
    """Receives a result, or fails all jobs and ends the pool."""
    try:
        return receive()
    except QueueBrokenError as error:
        # Pending jobs refer to their pool. So if it is gone, there are none to fail.
        pool = reference()
        if pool is not None:
            # Users keep jobs, and jobs keep the error: its traceback must not keep the pool.
            _break(pool, error.with_traceback(None))
        raise EOFError from None


def _break(pool: Any, error: QueueBrokenError) -> None:
    for job in pool._cache.take_out():
        _fail(job, error)
    # This does not call terminate(): the user may still call it, and it then waits until all has
    # ended. Nor does it wait for the thread that hands out tasks: that can be in a user's iterable.
    pool._task_handler._state = pool._worker_handler._state = _TERMINATE
    pool._change_notifier.put(None)
    # close() may overwrite that state, but without jobs this thread ends all the same.
    pool._worker_handler.join()
    for worker in pool._pool:
        if worker.exitcode is None:
            worker.terminate()


def _fail(job: Any, error: QueueBrokenError) -> None:
    """Ends a job, with an error in place of each result that it still waits for."""
    if isinstance(job, _IMapIterator):
        # Set the error for each missing item, or for one if their number is unknown.
        length = job._index + 1 if job._length is None else job._length
        while job._index < length:
            job._set(job._index, (False, error))
        # The job may still get its length, when the iterable of tasks ends.
        with job._cond:
            job._items = _LastItems(job._items)
            job._cond.notify_all()
        job._pool = None
        return
    if job.ready() or (isinstance(job, _MapResult) and not hasattr(job, "_number_left")):
        # It has just ended, or it is still being made, and put() will refuse it.
        return
    # This does not call _set(): if a callback raises there, a waiter waits for ever.
    if getattr(job, "_success", True):
        job._success, job._value = False, error
    if job._error_callback:
        try:
            job._error_callback(job._value)
        except Exception:
            traceback.print_exc()
    job._event.set()
    job._pool = None

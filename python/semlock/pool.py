"""A ``multiprocessing.Pool`` that finds out when a worker was killed in the middle of a message.

It is the stdlib's. When one of the two pipes that its workers share breaks (see
:mod:`semlock.queues`), it can do no more: pending jobs fail with a
:class:`~semlock.QueueBrokenError`, what is submitted from then on is refused with one, and the
workers end and are not replaced. ``close()``, ``terminate()``, ``join()`` and ``with`` do as ever.

Both pipes are said to be broken by the same event, so that what breaks one of them ends all who
wait for the other too. What is left to do is done by the thread that reads results, which looks at
that event about once a second while there are none.

All of this hangs on what a pool is given when it is made, and none of it on its class: a pool stays
what it is when ``uninstall()`` gives the stdlib's class its method back.

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

# Under names of their own, because install() has the stdlib's pools do as ours.
_StockPool: Any = vars(pool)["Pool"]
_StockCache: Any = vars(pool)["_PoolCache"]
_IMapIterator: Any = pool.IMapIterator
_MapResult: Any = pool.MapResult
_TERMINATE: Any = vars(pool)["TERMINATE"]
_stocks_repopulate_pool: Callable[[Any], None] = _StockPool._repopulate_pool

# What _watch() gives a pool other things in the place of.
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
        # Called by the stdlib's __init__, when it has made everything but processes and threads.
        # `self` can be any pool: a ThreadPool, one of a subclass that was there before install().
        notifier = getattr(self, "_change_notifier", None)
        if type(notifier) is SimpleQueue:
            notifier.__class__ = _Notifier
        is_watched = _is_on_our_queues(self)
        if is_watched:
            _watch(self)
        _stocks_repopulate_pool(self)
        if is_watched:
            # For those that replace the first ones.
            self.Process: Any = partial(_start, self.Process, self._taskqueue)


def _is_on_our_queues(pool: Any) -> bool:
    if not all(hasattr(pool, name) for name in _FIELDS):
        return False
    return all(
        type(pipe) is SimpleQueue and isinstance(vars(pipe)["_reader"], _End)
        for pipe in (pool._inqueue, pool._outqueue)
    )


def _watch(pool: Any) -> None:
    """Comes between a pool and its pipes, at every place where the pool uses one."""
    for pipe in pool._inqueue, pool._outqueue:
        pipe.__class__ = _Pipe
    pool._inqueue._reader.__class__ = _TaskReader
    tasks, results = pool._inqueue._reader._stream, pool._outqueue._reader._stream
    results.broken = tasks.broken
    pool._taskqueue = _Submitted((tasks, results))
    pool._cache = _Cache(pool._taskqueue, notifier=pool._change_notifier)
    # A pool must not refer to itself, or it would be there until the garbage collector came.
    reference = weakref.ref(pool)
    pool._map_async = partial(_map_async, type(pool)._map_async, reference)
    pool._quick_put = pool._inqueue.put
    pool._quick_get = partial(_get, pool._outqueue._reader.recv, reference)


class _Notifier(SimpleQueue):
    """What wakes the thread that looks after the workers.

    Only threads of this process use it, and not how often they did counts. So it needs no marks,
    and an exception that a signal's handler raises in the midst does not break it.
    """

    def empty(self) -> bool:
        return not self._reader._is_ready(0)

    def get(self) -> None:
        os.read(self._reader.fileno(), 65536)

    def put(self, obj: object) -> None:
        with suppress(BlockingIOError):  # it has been woken often enough
            os.write(self._writer.fileno(), b".")


class _Pipe(SimpleQueue):
    """One of a pool's pipes. Who finds it broken ends without a traceback."""

    def get(self) -> Any:
        try:
            return super().get()
        except QueueBrokenError:
            # To a worker it is as if the pool were gone.
            raise EOFError from None

    def put(self, obj: Any) -> None:
        try:
            super().put(obj)
        except QueueBrokenError:
            # None is to end who reads it, and that it finds out by itself.
            if obj is not None:
                # A worker, or the thread that hands out the tasks.
                raise SystemExit from None


class _TaskReader(_ReadingEnd):
    """Where terminate() takes tasks away, for who waits for room. In a broken pipe nobody does."""

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
    """Where jobs wait to be handed out, and where those that come too late are refused."""

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
        # Also one that was taken out of the cache when it was not whole yet.
        if job is not None:
            self.check()
        super().put(job, block, timeout)


class _Cache(_StockCache):  # type: ignore[misc]
    """The pending jobs of a pool. Once they have been taken out, none comes any more."""

    def __init__(self, submitted: _Submitted, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._submitted = submitted
        # Reentrant, for signal handlers that submit something.
        self._lock = threading.RLock()

    def __setitem__(self, number: int, job: Any) -> None:
        with self._lock:
            self._submitted.check()
            super().__setitem__(number, job)

    def __delitem__(self, number: int) -> None:
        with suppress(KeyError):  # it has been taken out
            super().__delitem__(number)

    def take_out(self) -> list[Any]:
        """Of a broken pool."""
        with self._lock:
            jobs = list(self.values())
            self.clear()
        return jobs


class _LastItems(deque[Any]):
    """What an iterator has left to give, and then its end."""

    def popleft(self) -> Any:
        try:
            return super().popleft()
        except IndexError:
            raise StopIteration from None


def _start(process: Callable[..., Any], submitted: _Submitted, *args: Any, **kwargs: Any) -> Any:
    """Makes a worker, unless it would have nothing to do but to end."""
    if submitted.is_refused():
        # This is the thread that replaces workers, and what it does at its end.
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
        # It shares the items out among the workers, of which a broken pool has none.
        if pool._taskqueue.is_refused():
            raise pool._inqueue._reader._stream.breaks() from None
        raise


def _get(receive: Callable[[], Any], reference: Callable[[], Any]) -> Any:
    """Receives a result, or fails all jobs and ends the pool."""
    try:
        return receive()
    except QueueBrokenError as error:
        # A pool that has pending jobs is referred to by them.
        pool = reference()
        if pool is not None:
            # Jobs are kept, and are not to keep the pool by the traceback.
            _break(pool, error.with_traceback(None))
        raise EOFError from None


def _break(pool: Any, error: QueueBrokenError) -> None:
    for job in pool._cache.take_out():
        _fail(job, error)
    # Not terminate(), which is still the user's to call, and then ends when all has. Nor is the
    # thread that hands out tasks waited for: it can be in an iterable of theirs.
    pool._task_handler._state = pool._worker_handler._state = _TERMINATE
    pool._change_notifier.put(None)
    # close() may contradict that, but without jobs this thread ends all the same.
    pool._worker_handler.join()
    for worker in pool._pool:
        if worker.exitcode is None:
            worker.terminate()


def _fail(job: Any, error: QueueBrokenError) -> None:
    """Has a job end with an error in the place of all that it still waits for."""
    if isinstance(job, _IMapIterator):
        # One for each item that is missing, so far as it is known how many are.
        length = job._index + 1 if job._length is None else job._length
        while job._index < length:
            job._set(job._index, (False, error))
        # Its length may be told yet, when the iterable of tasks ends.
        with job._cond:
            job._items = _LastItems(job._items)
            job._cond.notify_all()
        job._pool = None
        return
    if job.ready() or (isinstance(job, _MapResult) and not hasattr(job, "_number_left")):
        # It has just ended, or is not whole yet and is going to be refused.
        return
    # Not _set(): nobody is to wait for ever because a callback raises.
    if getattr(job, "_success", True):
        job._success, job._value = False, error
    if job._error_callback:
        try:
            job._error_callback(job._value)
        except Exception:
            traceback.print_exc()
    job._event.set()
    job._pool = None

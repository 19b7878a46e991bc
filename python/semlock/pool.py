"""A ``multiprocessing.Pool`` that finds out when a worker was killed in the middle of a message.

It is the stdlib's. When one of the two pipes that its workers share breaks (see
:mod:`semlock.queues`), it can do no more: pending jobs fail with a
:class:`~semlock.QueueBrokenError`, what is submitted from then on is refused with one, and the
workers end and are not replaced. ``close()``, ``terminate()``, ``join()`` and ``with`` do as ever.

Both pipes are said to be broken by the same event, so that what breaks one of them ends all who
wait for the other too. What is left to do is done by the thread that reads results, which looks at
that event about once a second while there are none.

A task that a killed worker had taken is lost, as in the stdlib, and its job never ends.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import pool
from typing import Any

from .errors import QueueBrokenError
from .queues import SimpleQueue, _End, _Stream

__all__ = ["Pool"]

# Under names of their own, because install() has the stdlib's pools do as ours.
_StockPool: Any = vars(pool)["Pool"]
_IMapIterator: Any = pool.IMapIterator
_MapResult: Any = pool.MapResult
_stocks_repopulate_pool: Callable[[Any], None] = _StockPool._repopulate_pool
_stocks_check_running: Callable[[Any], None] = _StockPool._check_running
_stocks_close: Callable[[Any], None] = _StockPool.close
_stocks_terminate: Callable[[Any], None] = _StockPool.terminate

# What _watch() gives a pool other things in the place of.
_FIELDS = ("_cache", "_inqueue", "_outqueue", "_quick_get", "_quick_put", "_taskqueue", "Process")


class Pool(_StockPool):  # type: ignore[misc]
    """``multiprocessing.Pool``, whose jobs fail when its pipes break."""

    def _repopulate_pool(self) -> None:
        # Called by the stdlib's __init__, when it has made everything but processes and threads.
        # `self` can be any pool: a ThreadPool, one of a subclass that was there before install().
        if _is_on_our_queues(self):
            _watch(self)
        _stocks_repopulate_pool(self)

    def _check_running(self) -> None:
        _stocks_check_running(self)
        if isinstance(self._taskqueue, _Submitted):
            self._taskqueue.check()

    def close(self) -> None:
        _stocks_close(self)
        if isinstance(self._taskqueue, _Submitted) and self._taskqueue.is_refused():
            # _break() may have told that thread to end, and was contradicted: it would stay, for
            # jobs and workers that are waiting for it to end.
            self._worker_handler._state = pool.TERMINATE
            self._change_notifier.put(None)

    def terminate(self) -> None:
        _stocks_terminate(self)
        # Where the pipes have broken, that thread is doing it.
        if threading.current_thread() is not self._result_handler:
            self._result_handler.join()


def _is_on_our_queues(pool: Any) -> bool:
    if not all(hasattr(pool, name) for name in _FIELDS):
        return False
    return all(
        type(queue) is SimpleQueue and isinstance(vars(queue)["_reader"], _End)
        for queue in (pool._inqueue, pool._outqueue)
    )


def _watch(pool: Any) -> None:
    """Comes between a pool and its pipes, at every place where the pool uses one."""
    for queue in pool._inqueue, pool._outqueue:
        queue.__class__ = _Pipe
    tasks, results = pool._inqueue._reader._stream, pool._outqueue._reader._stream
    results.broken = tasks.broken
    pool._taskqueue = _Submitted(pool._taskqueue, (tasks, results))
    pool._quick_put = pool._inqueue.put
    pool._quick_get = partial(_get, pool._outqueue._reader.recv, weakref.ref(pool))
    pool.Process = partial(_start, pool.Process, pool._taskqueue)


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


class _Submitted:
    """Where jobs wait to be handed out, and where those that come too late are refused.

    Every job comes by here when it is whole, so ``_break()`` finds it, or it is refused.
    """

    def __init__(self, queue: Any, streams: tuple[_Stream, ...]) -> None:
        self._queue = queue
        self._streams = streams
        self.get = queue.get

    def check(self) -> None:
        for stream in self._streams:
            stream.check()

    def is_refused(self) -> bool:
        try:
            self.check()
        except QueueBrokenError:
            return True
        return False

    def put(self, job: Any) -> None:
        if job is not None:
            self.check()
        self._queue.put(job)


def _start(process: Callable[..., Any], submitted: _Submitted, *args: Any, **kwargs: Any) -> Any:
    """Makes a worker, unless it would have nothing to do but to end."""
    if submitted.is_refused():
        # This is the thread that replaces workers, and what it does at its end.
        submitted.put(None)
        raise SystemExit
    return process(*args, **kwargs)


def _get(receive: Callable[[], Any], reference: Callable[[], Any]) -> Any:
    """Receives a result, or fails all jobs and ends the pool."""
    try:
        return receive()
    except QueueBrokenError as error:
        # A pool that has pending jobs is referred to by them.
        pool = reference()
        if pool is not None:
            _break(pool, error)
        raise EOFError from None


def _break(pool: Any, error: QueueBrokenError) -> None:
    # Before the pool is ended: an iterable of tasks may wait for results, and would not let it end.
    jobs = list(pool._cache.values())
    for job in jobs:
        _fail(job, error)
    # Not terminate(): the pool's state stays the user's, and what is submitted is told why not.
    pool._terminate()
    pool._task_handler.join()
    for job in jobs:
        # That thread may have come to the end of the tasks meanwhile, and said how many there are.
        if isinstance(job, _IMapIterator):
            with job._cond:
                job._length = job._index
                job._cond.notify()
    # With those who were refused.
    pool._cache.clear()


def _fail(job: Any, error: QueueBrokenError) -> None:
    """Has a job end with an error in the place of all that it still waits for."""
    if isinstance(job, _IMapIterator):
        # One for each item that is missing, so far as it is known how many are.
        with suppress(KeyError):  # it has just ended
            if job._length is None:
                job._set(job._index, (False, error))
                job._set_length(job._index)
            while job._index < job._length:
                job._set(job._index, (False, error))
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

"""Pools in which a worker that dies fails its own task, and nothing else.

The pool is the stdlib's, over two channels (``channels``). Nothing breaks when a worker is killed,
but the task that it had taken would never end. So the pool finds out which task that was, and
answers it in the worker's stead:

1. The messages of the channel of tasks are numbered, and the pool keeps which task has which number
   until its result comes.
2. A worker notes the number of a task before it takes it (``word/takers.rs``). What it leaves there
   when it dies is the last task that it had.
3. The thread that replaces workers sends a :class:`_Died` behind all results, the dead worker's own
   among them. So whoever reads them knows at that message whether the task was done.
"""

from __future__ import annotations

import itertools
import os
import pickletools
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import pool
from typing import Any, NamedTuple

from . import _native
from .channels import channel_of, dumps, loads
from .errors import WorkerDied

__all__ = ["Pool"]

# These names are our own, because install() makes the stdlib's pools do as ours do.
_StockPool: Any = vars(pool)["Pool"]
_TERMINATE: Any = vars(pool)["TERMINATE"]
_mapstar: Any = vars(pool)["mapstar"]
_starmapstar: Any = vars(pool)["starmapstar"]
_stocks_repopulate_pool: Callable[[Any], None] = _StockPool._repopulate_pool
_stocks_help_stuff_finish: Callable[..., None] = _StockPool._help_stuff_finish

# Seconds between two checks whether a thread of the pool still reads.
_WHILE_FULL = 0.1
# The numbers of messages begin again after so many.
_NUMBERS = 1 << 23


class Pool(_StockPool):  # type: ignore[misc]
    """``multiprocessing.Pool``, in which a worker's death fails its task with ``WorkerDied``.

    :param retry: how often a task is tried again whose worker died, before it fails.
    """

    _retry = 0
    # For __del__, if __init__ raises.
    _state: Any = vars(pool)["INIT"]

    def __init__(self, *args: Any, retry: int = 0, **kwargs: Any) -> None:
        if retry < 0:
            raise ValueError("retry must be >= 0")
        self._retry = retry
        super().__init__(*args, **kwargs)

    def _repopulate_pool(self) -> None:
        # The stdlib's __init__ calls this when it has made everything but processes and threads.
        # `self` can be any pool: a ThreadPool, or one of a subclass defined before install(), whose
        # queues can be any, too.
        if not isinstance(self._pool, _Workers):
            tasks = channel_of(vars(self).get("_inqueue"))
            results = channel_of(vars(self).get("_outqueue"))
            if tasks is not None and results is not None:
                _watch(self, tasks, results)
        _stocks_repopulate_pool(self)

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Makes room for the thread that hands out tasks, until it has ended."""
        channel = channel_of(inqueue)
        tasks = None if channel is None else _watched.get(channel)
        if channel is None or tasks is None:
            _stocks_help_stuff_finish(inqueue, task_handler, size)
            return
        tasks.ended = True
        ends = 0
        while task_handler.is_alive() and (tasks.is_sending() or not channel.is_empty()):
            data = channel.receive(_WHILE_FULL)
            ends += data is not None and loads(data) is None
        # A worker that survives SIGTERM ends when it reads that there is nothing more to do. So
        # does one that takes the place of a dead one just now, which that thread did not count.
        for _ in range(ends + tasks.workers):
            channel.send(dumps(None), 0)


def _watch(pool: Any, tasks: _native._Channel, results: _native._Channel) -> None:
    """Puts itself between a pool and its channels, wherever the pool uses one."""
    tasks._note_takers()
    sent = _watched[tasks] = _Tasks(tasks, results, getattr(pool, "_retry", 0))
    sent.workers = pool._processes
    pool._quick_put = sent.put
    pool._quick_get = sent.receive
    outqueue = pool._outqueue
    put = partial(_put_result, type(outqueue).put, weakref.ref(outqueue), sent, os.getpid())
    outqueue.put = put
    pool._pool = _Workers(pool._pool, sent)
    # The thread that replaces workers need not wake for each result.
    reader = pool._change_notifier._reader
    pool._get_sentinels = lambda: [reader]


# By the channel of tasks.
_watched: weakref.WeakKeyDictionary[_native._Channel, _Tasks] = weakref.WeakKeyDictionary()


def _put_result(put: Any, queue: Callable[[], Any], tasks: _Tasks, owner: int, obj: object) -> None:
    """The ``put`` of the queue of results."""
    if obj is None and os.getpid() == owner:
        # Not from a worker, but from the pool: the thread that reads results is to end. If it has
        # ended already, it makes no room.
        tasks.tell_results(None)
    else:
        put(queue(), obj)


class _Workers(list[Any]):
    """The workers of a pool. The stdlib takes each one out when it has ended."""

    def __init__(self, workers: list[Any], tasks: _Tasks) -> None:
        super().__init__(workers)
        self._tasks = tasks

    def __delitem__(self, index: Any) -> None:
        worker = self[index]
        super().__delitem__(index)
        self._tasks.worker_died(worker.pid, worker.exitcode)


class _Died(NamedTuple):
    """Behind the results of a worker that has died: which message it took last."""

    number: int
    pid: int
    exitcode: int


class _Sent(NamedTuple):
    """A task whose result has not come."""

    job: int
    place: int
    name: str
    # How often it may be tried again, and the task itself if it may.
    retries: int
    task: Any


class _Tasks:
    """Which message each task is that has no result yet."""

    def __init__(self, tasks: _native._Channel, results: _native._Channel, retry: int) -> None:
        # The pool has the channels, and this goes with it.
        self._tasks, self._results = weakref.ref(tasks), weakref.ref(results)
        self._retry = retry
        self._next = 0
        self._sent: dict[int, _Sent] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        # How often tasks may still be tried that were tried before.
        self._left: dict[tuple[int, int], int] = {}
        # Of the dead: the message that each took last, until its exit code is known.
        self._last: dict[int, int] = {}
        self._reading: threading.Thread | None = None
        # A thread that pickles and sends a task holds it, so that the numbers are right.
        self._sending = threading.Lock()
        # The pool is terminated: nobody takes tasks any more.
        self.ended = False
        self.workers = 0

    def is_sending(self) -> bool:
        return self._sending.locked()

    # ---- Threads that hand out tasks ----

    def put(self, task: Any) -> None:
        channel = self._tasks()
        if channel is None:
            raise OSError("the pool is gone")
        with self._sending:
            data = dumps(task)
            number = self._next
            if task is not None:
                job, index, function, arguments = task[:4]
                retries = self._left.get((job, index), self._retry)
                kept = task if retries else None
                self._sent[number] = _Sent(job, index, _name(function, arguments), retries, kept)
                self._numbers[job, index] = number
            if self.ended:
                # Nobody makes room any more, but for what was being sent when the pool was ended.
                if task is not None:
                    raise OSError("the pool is terminated")
                channel.send(data, _WHILE_FULL)
            else:
                channel.send(data)
            self._next = (number + 1) % _NUMBERS

    # ---- The thread that replaces workers ----

    def worker_died(self, pid: int, exitcode: int) -> None:
        channel = self._tasks()
        if channel is None:
            return
        self._last.update(channel._taken_by_the_dead())
        number = self._last.pop(pid, None)
        if number is not None and number in self._sent:
            self.tell_results(_Died(number, pid, exitcode))

    def tell_results(self, what: object) -> None:
        """Sends something to the thread that reads results, unless that has ended."""
        data = dumps(what)
        channel = self._results()
        while channel is not None and not channel.send(data, _WHILE_FULL):
            if self._reading is not None and not self._reading.is_alive():
                return

    # ---- The thread that reads results ----

    def receive(self) -> Any:
        thread: Any = threading.current_thread()
        self._reading = thread
        channel = self._results()
        if channel is None:
            raise OSError("the pool is gone")
        while True:
            # While the pool is terminated, what comes can be a part of a result whose worker is
            # killed: nothing follows.
            data = channel.receive(_WHILE_FULL if thread._state == _TERMINATE else None)
            if data is None:
                raise EOFError
            try:
                result = loads(data)
            except Exception as error:
                result = _unreadable(data, error)
            if type(result) is _Died:
                result = self._failed(result)
                if result is None:
                    continue
            elif result is not None:
                self._done(result[0], result[1])
            return result

    def _done(self, job: int, index: int) -> None:
        number = self._numbers.pop((job, index), None)
        if number is not None:
            self._sent.pop(number, None)
        self._left.pop((job, index), None)

    def _failed(self, died: _Died) -> Any:
        """Returns a dead worker's task as one that failed; None if it was done."""
        sent = self._sent.get(died.number)
        if sent is None:
            return None
        self._done(sent.job, sent.place)
        if sent.retries:
            self._left[sent.job, sent.place] = sent.retries - 1
            # Not from this thread, which makes room for others' results, and not from the one that
            # hands out tasks, which may be waiting for something in a user's iterable.
            threading.Thread(target=self._put_again, args=(sent.task,), daemon=True).start()
            return None
        error = WorkerDied(1, pid=died.pid, exitcode=died.exitcode, task=sent.name)
        return sent.job, sent.place, (False, error)

    def _put_again(self, task: Any) -> None:
        with suppress(OSError):  # the pool is terminated, or gone
            self.put(task)


def _name(function: Any, arguments: Any) -> str:
    if function is _mapstar or function is _starmapstar:
        # A chunk of items.
        function = arguments[0][0]
    return getattr(function, "__qualname__", None) or repr(type(function).__name__)


_INTEGERS = {"BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"}


def _unreadable(data: Any, error: Exception) -> Any:
    """Returns a result that cannot be unpickled as a task that failed."""
    # It is a tuple that begins with two numbers: its job, and its index there.
    opcodes = pickletools.genops(bytes(data))
    numbers = (number for opcode, number, _ in opcodes if opcode.name in _INTEGERS)
    job, index = itertools.islice(numbers, 2)
    return job, index, (False, error)

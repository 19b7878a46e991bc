"""Queues that no death breaks.

They are the stdlib's, over a channel (``channels``) in place of a pipe: a message is there whole,
or was never sent; it was got, or is still there.

* ``put`` sends a message at once where there is room. Else it leaves the message to the stdlib's
  feeder thread, and so never blocks where the stdlib's does not. While that thread has messages,
  all others of the process go behind them.
* A bounded queue has no semaphore: a message has a place from when it is put until it is got. The
  places of messages that a killed process had put and not sent are freed.
* The tasks of a ``JoinableQueue`` are counted by process, so ``join()`` does not wait for one that
  a dead process had.

What others use of the stdlib's private fields is there: ``_reader`` and ``_writer`` are
connections, ``_sem``, ``_rlock``, ``_wlock`` and ``_unfinished_tasks`` do what the stdlib's methods
need. So a class of another package works, too, that has its own ``put``, ``get`` or feeder thread.
"""

from __future__ import annotations

import errno
import os
import queue as stocks_queue
import signal
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from multiprocessing import queues, util
from typing import TYPE_CHECKING, Any

from . import _native
from ._multiprocessing import SemLock
from .channels import ReadingEnd, WritingEnd, channel_of, dumps, loads, open_channel
from .errors import WorkerDied

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# Seconds between two searches of join() for dead processes.
_WHILE_JOINING = 1.0
# Seconds between two checks of a feeder thread whether its executor has closed the queue.
_WHILE_FULL = 0.1
# The name of the stdlib's feeder threads.
_FEEDER = "QueueFeederThread"

if TYPE_CHECKING:
    _StockQueue = queues.Queue[Any]
    _StockJoinableQueue = queues.JoinableQueue[Any]
    _StockSimpleQueue = queues.SimpleQueue[Any]
else:
    # These names are our own, because install() replaces the stdlib's classes with ours.
    _StockQueue = queues.Queue
    _StockJoinableQueue = queues.JoinableQueue
    _StockSimpleQueue = queues.SimpleQueue
_stocks: dict[str, Any] = dict(vars(_StockQueue))
_stocks_put: Callable[..., None] = _stocks["put"]
_stocks_get: Callable[..., Any] = _stocks["get"]
_stocks_close: Callable[[Any], None] = _stocks["close"]
_stocks_reset: Callable[..., None] = _stocks["_reset"]
_stocks_start_thread: Callable[[Any], None] = _stocks["_start_thread"]
_stocks_feed: Any = _stocks["_feed"].__func__
_stocks_joinable_put: Callable[..., None] = vars(_StockJoinableQueue)["put"]
_stocks_finalize_join: Any = _stocks["_finalize_join"].__func__
_stocks_finalize_close: Any = _stocks["_finalize_close"].__func__
# What tells a feeder thread to end.
_sentinel: Any = vars(queues)["_sentinel"]


# ---- What stands where the stdlib has semaphores and locks ----


class _Counter:
    """A number with the interface of the stdlib's semaphores, as far as its queues use it."""

    def __init__(self, channel: _native._Channel) -> None:
        self._channel = channel

    @property
    def _semlock(self) -> _Counter:
        return self

    def get_value(self) -> int:
        raise NotImplementedError

    def _get_value(self) -> int:
        return self.get_value()

    def _is_zero(self) -> bool:
        return self.get_value() == 0


class _Places(_Counter):
    """The free places of a queue: its ``_sem``."""

    def __init__(self, channel: _native._Channel, maxsize: int) -> None:
        super().__init__(channel)
        self._maxsize = maxsize

    def get_value(self) -> int:
        # Code that uses the writing end directly takes no place, so there can be more messages.
        return max(self._maxsize - self._channel.put_and_not_taken(), 0)

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        """For a message that the feeder thread sends."""
        return self._channel.claim(timeout if block else 0)

    def release(self) -> None:
        """For a message that the feeder thread could not send.

        For ``get`` it does nothing: when a message is taken, its place is free.
        """
        if threading.current_thread().name == _FEEDER:
            self._channel.give_back()


class _Tasks(_Counter):
    """The unfinished tasks of a ``JoinableQueue``: its ``_unfinished_tasks``."""

    def get_value(self) -> int:
        return self._channel.unfinished()

    def release(self) -> None:
        """For ``put``. A message is unfinished as soon as it has its place."""

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        """For ``task_done``, which does not wait."""
        return self._channel.done()


class _NoLock:
    """What the stdlib's ``get`` takes for the lock of a reading end. The channel has its own."""

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc: object) -> None:
        pass


# ---- Feeder threads ----


class _Pickled:
    """A message that was pickled when it was put."""

    __slots__ = ("data", "obj")

    def __init__(self, data: Any, obj: object) -> None:
        if type(data) is list:
            # The object's own buffers may change before the message is sent. Bytes cannot.
            data = [piece if type(piece) is bytes else bytes(piece) for piece in data]
        self.data = data
        self.obj = obj


class _NotEmpty:
    """A queue's ``_notempty``: by this, its feeder thread is told of messages.

    The stdlib has a condition there. But its lock would keep the thread from sending while a signal
    handler waits for a place that interrupted its holder. So ``wait`` takes no lock. It has the
    rest of a condition's interface for code that puts as the stdlib does.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release
        # Free: there is news since the last wait.
        self._news = threading.Lock()
        self._news.acquire()

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._lock.__exit__(*exc)

    def notify(self, n: int = 1) -> None:
        with suppress(RuntimeError):  # there is news already
            self._news.release()

    notify_all = notify

    def wait(self) -> None:
        """Wait until there is news since the last wait."""
        # The stdlib's feeder holds the lock.
        is_held = self._lock._is_owned()  # type: ignore[attr-defined]
        if is_held:
            self._lock.release()
        try:
            self._news.acquire()
        finally:
            if is_held:
                self._lock.acquire()

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


def _is_out_of_a_handler(error: BaseException) -> bool:
    """Whether a signal's handler has raised this error, and not what the signal interrupted."""
    if threading.current_thread() is not threading.main_thread():
        return False
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: Any) -> object:
    while isinstance(handler, partial):
        handler = handler.func
    handler = getattr(handler, "__func__", handler)
    call = type(handler).__call__ if callable(handler) else None
    return getattr(handler, "__code__", None) or getattr(call, "__code__", None)


def _leave(queue: Any, message: object) -> None:
    """Leaves a message that has a place to the feeder thread, which it starts if there is none."""
    # Without a lock: a signal handler may put something while its own thread is here.
    queue._buffer.append(message)
    if queue._thread is None:
        _start_feeding(queue)
    queue._notempty.notify()


def _start_feeding(queue: Any) -> None:
    if not isinstance(queue._notempty, _NotEmpty):
        # In a queue of the stdlib's own class.
        queue._notempty = _NotEmpty()
    arguments = (
        queue._buffer, queue._notempty, _sending(queue), None, queue._reader.close,
        queue._writer.close, queue._ignore_epipe, queue._on_queue_feeder_error, queue._sem,
    )  # fmt: skip
    thread = threading.Thread(target=Queue._feed, args=arguments, name=_FEEDER, daemon=True)
    # In one step: see `_leave`.
    if vars(queue).setdefault("_feeding", thread) is not thread:
        return
    queue._thread = thread
    try:
        thread.start()
    except BaseException:
        # When the interpreter ends, no thread can start.
        queue._thread = None
        del queue._feeding
        raise
    if not queue._joincancelled:
        refs = [weakref.ref(thread)]
        queue._jointhread = util.Finalize(thread, _stocks_finalize_join, refs, exitpriority=-5)
    shared = [queue._buffer, queue._notempty]
    queue._close = util.Finalize(queue, _stocks_finalize_close, shared, exitpriority=10)


def _sending(queue: Any) -> Callable[[Any], object]:
    """How the feeder thread sends a message."""
    if not _is_call_queue(queue):
        # Another package's writing end may have the stdlib's methods alone.
        send: Any = getattr(queue._writer, "_send_pickled", None)
        send_bytes = queue._writer.send_bytes
        return send or (lambda data: send_bytes(b"".join(data) if type(data) is list else data))
    # The thread does not keep the queue.
    channel, queue = queue._reader._channel, weakref.ref(queue)

    def is_open() -> bool:
        executors = queue()
        return executors is not None and not executors._closed

    def send_while_open(data: Any) -> None:
        # One call for all: what is larger than the ring does not begin anew at each check.
        if not channel.send(data, _WHILE_FULL, is_open):
            # An executor's queue does not report this error.
            raise BrokenPipeError(errno.EPIPE, "nobody reads what an executor hands out")

    return send_while_open


def _is_call_queue(queue: object) -> bool:
    """Whether this is an executor's call queue: its class is defined in the executor's module.

    An executor closes it when all calls were handed out, or nobody takes them any more.
    """
    return any(cls.__module__ == "concurrent.futures.process" for cls in type(queue).__mro__)


def _feeds_as_ours(queue: object) -> bool:
    """Whether the class of a queue leaves it to the stdlib, or us, how messages are sent."""
    cls: Any = type(queue)
    return cls._start_thread in (_stocks_start_thread, Queue._start_thread) and cls._feed in (
        _stocks_feed,
        Queue._feed,
    )


# ---- The queues ----


class Queue(_StockQueue):
    """``multiprocessing.Queue``, which no death breaks.

    A context makes it. Its methods are the stdlib's, with timeouts in seconds, and
    :meth:`put_many` and :meth:`get_many`. A process may be killed at any moment: a message is there
    whole, or was never put; it was got, or is still there. (Of messages larger than 256 KiB, one is
    lost if a process is killed, or interrupted by an exception, in the middle of sending or getting
    it.) Messages that a killed process had put and not yet sent are lost, and their places are free
    again.

    :param maxsize: the greatest number of messages; 0 means no limit.
    :param ctx: the context that it is for.
    :raises OSError: the system has no memory to share, or no pipe.

    >>> import semlock
    >>> context = semlock.get_context("spawn")
    >>> results = context.Queue(maxsize=10)
    >>> worker = context.Process(target=results.put, args=("done",))
    >>> worker.start()
    >>> results.get(timeout=60)
    'done'
    >>> worker.join()
    >>> results.close()
    """

    # The channel, if messages are put and got by it alone. Not, where another package's class has a
    # feeder thread of its own, which pickles in another way; nor in a queue of before install().
    _direct: _native._Channel | None = None
    # Whether this process has put something.
    _has_put = False
    # How many lost tasks join() has told of here, or were lost before this process got the queue.
    _told = 0

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        # It does not call the stdlib's, which opens a pipe of its own. `self` can be an instance of
        # a subclass of the stdlib's queue that was defined before install(). So this relies on
        # nothing but the stdlib's fields and methods.
        _open(self, maxsize, ctx, tasks=False)

    def _reset(self, after_fork: bool = False) -> None:
        _stocks_reset(self, after_fork)
        for name in ("_feeding", "_has_put"):
            vars(self).pop(name, None)
        channel = channel_of(self)
        if channel is None:
            return
        self._direct = channel if _feeds_as_ours(self) else None
        if not after_fork:
            self._told = channel.lost()
            if self._direct is not None:
                self._notempty = _NotEmpty()

    def put(self, obj: object, block: bool = True, timeout: float | None = None) -> None:
        """Put a message. Waits while the queue is full.

        :param obj: anything that can be pickled.
        :param block: whether to wait.
        :param timeout: seconds to wait at most; None means for ever.
        :raises queue.Full: there was no place until then.
        :raises ValueError: the queue is closed.
        """
        # The stdlib's class has no such attribute, and install() gives it these methods.
        channel = getattr(self, "_direct", None)
        if channel is None:
            _stocks_put(self, obj, block, timeout)
            return
        if self._closed:  # type: ignore[attr-defined]
            raise ValueError(f"Queue {self!r} is closed")
        self._has_put = True
        try:
            data = dumps(obj)
        except Exception as error:
            if _is_out_of_a_handler(error):
                raise
            # The feeder thread tries again, and reports the error as the stdlib's does.
            if not channel.claim(timeout if block else 0):
                raise stocks_queue.Full from None
            _leave(self, obj)
            return
        sent = channel.put(data, timeout if block else 0)
        if sent:
            return
        if sent is False:
            raise stocks_queue.Full
        _leave(self, _Pickled(data, obj))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next message. Waits until there is one.

        :param block: whether to wait.
        :param timeout: seconds to wait at most; None means for ever.
        :raises queue.Empty: there was none until then.
        :raises ValueError: the queue is closed.
        """
        if getattr(self, "_direct", None) is None:
            return _stocks_get(self, block, timeout)
        if self._closed:  # type: ignore[attr-defined]
            raise ValueError(f"Queue {self!r} is closed")
        message = self._reader._receive(timeout if block else 0)  # type: ignore[attr-defined]
        if message is None:
            raise stocks_queue.Empty
        return loads(message)

    def close(self) -> None:
        """End the use of the queue in this process.

        Messages that were left to the feeder thread are sent still.
        """
        _stocks_close(self)
        # As that thread does when it ends.
        if getattr(self, "_has_put", False) and vars(self)["_thread"] is None:
            self._reader.close()  # type: ignore[attr-defined]
            self._writer.close()  # type: ignore[attr-defined]

    def put_many(self, objs: Iterable[object]) -> None:
        """Put several messages, in this order. Waits while the queue is full.

        It is faster than a ``put`` for each.

        :param objs: the messages.
        :raises ValueError: the queue is closed.
        """
        channel = self._direct
        if channel is None or self._closed:  # type: ignore[attr-defined]
            for obj in objs:
                self.put(obj)
            return
        self._has_put = True
        for batch in _batches(objs):
            try:
                messages = [dumps(obj) for obj in batch]
            except Exception as error:
                if _is_out_of_a_handler(error):
                    raise
                sent = 0
            else:
                sent = channel.put_at_once(messages)
            for obj in batch[sent:]:
                self.put(obj)

    def get_many(self, most: int, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Return the messages that are there, at most so many. Waits until there is one.

        It is faster than a ``get`` for each.

        :param most: how many messages to return at most.
        :param block: whether to wait.
        :param timeout: seconds to wait at most for the first one; None means for ever.
        :raises queue.Empty: there was none until then.
        :raises ValueError: ``most`` is less than 1, or the queue is closed.
        :raises Exception: what a message raises that cannot be unpickled. The error's attribute
            ``received`` has the others.
        """
        if most < 1:
            raise ValueError("get_many() returns 1 message at least")
        first = self.get(block, timeout)
        channel = self._direct
        if channel is None:
            return [first]
        received, failed = [first], None
        for message in channel.receive_at_once(most - 1):
            try:
                received.append(loads(message))
            except Exception as error:
                failed = failed or error
        if failed is not None:
            # The others are not lost.
            failed.received = received  # type: ignore[attr-defined]
            raise failed
        return received

    def _start_thread(self) -> None:
        # For code that puts as the stdlib does. A queue of before install() has a pipe.
        if channel_of(self) is None:
            _stocks_start_thread(self)
        else:
            _start_feeding(self)

    @staticmethod
    def _feed(
        buffer: Any,
        notempty: Any,
        send_bytes: Callable[[Any], object],
        writelock: object,
        reader_close: Callable[[], None],
        writer_close: Callable[[], None],
        ignore_epipe: bool,
        onerror: Callable[[Exception, object], None],
        queue_sem: Any,
    ) -> None:
        """Sends what was left to this thread, until it is told to end."""
        if not isinstance(notempty, _NotEmpty):
            # Of a queue of before install(), whose pipe needs a lock.
            _stocks_feed(
                buffer, notempty, send_bytes, writelock, reader_close, writer_close, ignore_epipe,
                onerror, queue_sem,
            )  # fmt: skip
            return
        while True:
            while not buffer:
                notempty.wait()
            obj = buffer.popleft()
            if obj is _sentinel:
                reader_close()
                writer_close()
                return
            try:
                if type(obj) is _Pickled:
                    data, obj = obj.data, obj.obj
                else:
                    data = dumps(obj)
                send_bytes(data)
            except Exception as error:
                if ignore_epipe and getattr(error, "errno", 0) == errno.EPIPE:
                    return
                # This thread may be running while the process cleans up, and what it uses is gone.
                if util.is_exiting():
                    util.info("error in queue thread: %s", error)
                    return
                # As if the message had been taken out of the queue again.
                queue_sem.release()
                onerror(error, obj)


# So many messages are pickled before they are sent.
_BATCH = 256


def _batches(objs: Iterable[object]) -> Iterable[list[object]]:
    batch: list[object] = []
    failed = None
    try:
        for obj in objs:
            batch.append(obj)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except Exception as error:
        # What it gave before that is put.
        failed = error
    yield batch
    if failed is not None:
        raise failed


def _open(queue: Any, maxsize: int, ctx: Any, *, tasks: bool) -> None:
    """Gives a queue its channel, and the fields that the stdlib's methods use."""
    limit = maxsize if maxsize > 0 else None
    queue._maxsize = limit or SemLock.SEM_VALUE_MAX
    open_channel(queue, ctx, counts=True, limit=limit, tasks=tasks)
    queue._opid = os.getpid()
    queue._sem = _Places(queue._reader._channel, queue._maxsize)
    queue._ignore_epipe = False
    queue._reset()
    util.register_after_fork(queue, _stocks["_after_fork"])


class JoinableQueue(Queue, _StockJoinableQueue):
    """A :class:`Queue` whose ``join`` waits until all tasks are done.

    A context makes it. A task is done when ``task_done()`` was called for it, in any process, and
    lost when the process that took it ends before.

    :param maxsize: the greatest number of messages; 0 means no limit.
    :param ctx: the context that it is for.
    :raises OSError: the system has no memory to share, or no pipe.

    >>> import semlock
    >>> tasks = semlock.get_context("spawn").JoinableQueue()
    >>> tasks.put("a task")
    >>> tasks.get()
    'a task'
    >>> tasks.task_done()
    >>> tasks.join()
    >>> tasks.close()
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        # `self` can be an instance of the stdlib's class.
        _open(self, maxsize, ctx, tasks=True)
        channel: _native._Channel = vars(self)["_reader"]._channel
        self._unfinished_tasks = _Tasks(channel)
        # Its owner's death needs no warning: it guards nothing that can be half-done.
        lock = _native.RLock(ctx=ctx, on_owner_died="ignore")
        self._cond = _native.Condition(lock, ctx=ctx)

    def put(self, obj: object, block: bool = True, timeout: float | None = None) -> None:
        """Put a task. Waits while the queue is full.

        :param obj: anything that can be pickled.
        :param block: whether to wait.
        :param timeout: seconds to wait at most; None means for ever.
        :raises queue.Full: there was no place until then.
        :raises ValueError: the queue is closed.
        """
        if getattr(self, "_direct", None) is None:
            _stocks_joinable_put(self, obj, block, timeout)
        else:
            Queue.put(self, obj, block, timeout)

    def join(self) -> None:
        """Wait until all tasks are done.

        :raises WorkerDied: a process ended that had taken tasks and not done them, or had put tasks
            and not sent them. They count as done from then on: the next ``join()`` waits for the
            others.
        """
        # `self` can be an instance of the stdlib's class, or come from a process without semlock.
        tasks = self._unfinished_tasks
        channel = tasks._channel if isinstance(tasks, _Tasks) else None
        with self._cond:
            while True:
                # Others find the dead, too: a putter that waits for a place.
                if channel and (lost := channel.find_lost() - vars(self).get("_told", 0)):
                    self._told = channel.lost()
                    raise WorkerDied(lost)
                if tasks._semlock._is_zero():
                    return
                # Wake now and then: a process can do the last task and die before it notifies.
                self._cond.wait(_WHILE_JOINING)


class SimpleQueue(_StockSimpleQueue):
    """``multiprocessing.SimpleQueue``, which no death can break.

    A context makes it. It sends and receives without a thread: ``put`` waits while there is no
    room. A process may be killed at any moment: a message is there whole, or was never put; it was
    got, or is still there. (Of messages larger than 256 KiB, one is lost if a process is killed, or
    interrupted by an exception, in the middle of putting or getting it.)

    :param ctx: the context that it is for.
    :raises OSError: the system has no memory to share, or no pipe.

    >>> import semlock
    >>> queue = semlock.get_context("spawn").SimpleQueue()
    >>> queue.put("a message")
    >>> queue.get()
    'a message'
    >>> queue.close()
    """

    _reader: ReadingEnd
    _writer: WritingEnd

    def __init__(self, *, ctx: Any) -> None:
        open_channel(self, ctx)
        self._poll = self._reader.poll

    def get(self) -> Any:
        """Return the next message. Waits until there is one.

        :raises EOFError: there is none, and no process is left that can put one.
        :raises ValueError: a signal handler calls it while its own thread gets a message here.
        """
        return loads(self._reader._receive())

    def put(self, obj: object) -> None:
        """Put a message. Waits until there is room.

        :param obj: anything that can be pickled.
        :raises ValueError: a signal handler calls it while its own thread puts a message here.
        """
        self._writer.send(obj)


# ---- Queues of the stdlib's own classes ----


def adopted_lock(queue: Any, maxsize: int, ctx: Any) -> Any:
    """Returns what the ``__init__`` of a queue of the stdlib's class gets as its locks.

    It has just opened a pipe. In place of that, the queue gets a channel.
    """
    if not isinstance(queue._reader, ReadingEnd):
        for end in (queue._reader, queue._writer):
            end.close()
        counts = "_maxsize" in vars(queue)
        limit = maxsize if counts and maxsize != SemLock.SEM_VALUE_MAX else None
        open_channel(queue, ctx, counts=counts, limit=limit)
        if _is_call_queue(queue) and _feeds_as_ours(queue):
            # An executor's, which its class lets us put into directly.
            queue._direct = queue._reader._channel
            queue.put = _WeakMethod(Queue.put, queue)
    return _NoLock()


def adopted_semaphore(queue: Any) -> Any:
    """Returns what that ``__init__`` gets as its semaphore."""
    return _Places(queue._reader._channel, queue._maxsize)


class _WeakMethod:
    """A method of one queue, which goes with the queue."""

    def __init__(self, function: Callable[..., Any], queue: Any) -> None:
        self._function, self._queue = function, weakref.ref(queue)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(self._queue(), *args, **kwargs)

"""Queues whose messages arrive whole, or that raise an error when they cannot any more.

They are the stdlib's, over a pipe whose two ends are :class:`_ReadingEnd` and :class:`_WritingEnd`.
A reader or writer that is killed while it moves a message leaves the pipe in the middle of that
message. The next process recovers its lock, but must not go on from there. So each side's lock has
a mark beside it. The mark is set before the first byte of a message moves, and cleared after the
last. When a mark is set and no process holds its lock, the queue is broken: from then on every user
gets a :class:`~semlock.QueueBrokenError`.

* A process that only waits, for a message or for room, has set no mark. Its death breaks nothing.
* A process that waits for another checks now and then whether that one has died in the middle of a
  message: a reader that waits for the rest of a message, a writer for room in the pipe, and a
  putter for its place in a bounded queue. So the pipe does not block.
* An exception in the middle of a message (mostly a signal handler's) breaks the queue too, unless
  nothing has moved yet.
* Messages are framed in the pipe as the stdlib frames them. The ends can be used directly, as
  ``Pool`` and ``ProcessPoolExecutor`` do: an end acquires its side's lock unless the calling thread
  holds it.

As in the stdlib, a message that a killed process had taken, or had put and not yet sent, is lost.
Its place in a bounded queue is not. While a message is put and not sent, the process that put it
holds a permit of a robust semaphore for its place. While the message is in the pipe, the place is
counted among the sent ones. After that it is free. Both steps happen under the mark of the process
that moves the message: if it dies between two steps of one move, the queue is broken. If it dies at
any other moment, its permits are recovered like any others. The tasks of a ``JoinableQueue`` are
counted in the same way, so ``join()`` does not wait for a task that a dead process had.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from contextlib import suppress
from multiprocessing import connection, queues, reduction, util
from typing import TYPE_CHECKING, Any

from . import _native, executor
from ._multiprocessing import SemLock
from .channels import ReadingEnd, WritingEnd, loads, open_channel
from .descriptors import FileId, is_open_as
from .errors import QueueBrokenError, WorkerDied

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# Seconds between two checks of the other users: while a message is moving, and while none is.
_WHILE_MOVING = 0.1
_WHILE_IDLE = 1.0

# A joinable queue has this many permits for tasks that processes have taken, and this many for
# tasks that they have put and not sent. Each permit costs memory, and time at each task.
_MOST_HELD = 512

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
    _StockQueue = queues.Queue[Any]
    _StockJoinableQueue = queues.JoinableQueue[Any]
    _StockSimpleQueue = queues.SimpleQueue[Any]
else:
    # These names are our own, because install() replaces the stdlib's classes with ours.
    _Connection = connection.Connection
    _StockQueue = queues.Queue
    _StockJoinableQueue = queues.JoinableQueue
    _StockSimpleQueue = queues.SimpleQueue
_stocks_init: Any = _StockQueue.__init__


class _Stream:
    """What a queue's users share beside the pipe: both locks, and whether the queue is broken."""

    def __init__(self, ctx: Any) -> None:
        # They do not warn, because the mark tells what a dead holder left behind.
        self.reading = _native.Lock(ctx=ctx, on_owner_died="ignore")
        self.writing = _native.Lock(ctx=ctx, on_owner_died="ignore")
        for lock in (self.reading, self.writing):
            lock._guard_messages()
        # The first process that finds the queue broken sets it, for all others.
        self.broken = _native.Event(ctx=ctx)
        # The counters that change with each message.
        self.counters: list[_Places | _Tasks] = []

    def check(self, moving: _native.Lock | None = None) -> None:
        """Raises ``QueueBrokenError`` if a process was lost in the middle of a message.

        ``moving`` is the lock under whose mark the caller itself is moving a message.
        """
        if self.broken.is_set():
            raise self.breaks()
        for lock in (self.reading, self.writing):
            if lock is not moving and lock._is_mid_message() and _is_left_marked(lock):
                raise self.breaks()

    def receive_from(self, sent: _native.Semaphore) -> None:
        """Takes the message that is being read out of the count of sent ones."""
        # If the writer has not counted it yet, wait for that.
        while not sent.acquire(True, _WHILE_MOVING):
            self.check(self.reading)

    def breaks(self) -> QueueBrokenError:
        self.broken.set()
        return QueueBrokenError(
            "this queue is broken: a process died, or was interrupted, in the middle of a message"
        )


def _is_left_marked(lock: _native.Lock) -> bool:
    """Whether a lock's mark was set by a process that is gone."""
    if lock._semlock._is_mine():
        # Either this thread set the mark, and a signal handler that interrupted it calls this; or
        # the dead process did, from which the caller recovered the lock.
        return not lock._is_moving_message()
    try:
        return lock.acquire(False) and lock._is_mid_message()
    finally:
        # A signal handler may have raised as soon as the lock was acquired.
        if lock._semlock._is_mine():
            lock.release()


class _End(_Connection):
    """One end of a queue's pipe.

    A message moves through it whole, or breaks the queue.
    """

    # The event that poll() waits for.
    _event: int

    def __init__(self, handle: int, stream: _Stream, lock: _native.Lock) -> None:
        self._pipe: FileId = _native._file_id(handle)
        super().__init__(
            handle, readable=self._event == select.POLLIN, writable=self._event == select.POLLOUT
        )
        self._stream = stream
        self._lock = lock
        # Whether a part of this message has moved or may have moved: when a signal handler's
        # exception comes out of a system call, that is unknown.
        self._moved = False

    def __reduce__(self) -> tuple[Any, ...]:
        descriptor = reduction.DupFd(self.fileno())
        return _rebuild_end, (type(self), descriptor, self._stream, self._pipe)

    # The default argument stays when the interpreter ends and globals are gone.
    def _close(self, _is_open_as: Any = is_open_as) -> None:
        # Other code can have closed it, and opened something else under its number.
        if _is_open_as(self.fileno(), self._pipe):
            super()._close()  # type: ignore[misc]

    def _whole(self, move: Any, argument: Any) -> Any:
        """Moves a message, under this side's lock and mark."""
        lock = self._lock
        # No ``with``, because every message takes this path, and this is faster.
        is_ours_to_release = not lock._semlock._is_mine()
        try:
            if is_ours_to_release:
                lock.acquire()
            while True:
                self._moved = False
                try:
                    if self._stream.broken.is_set() or not lock._begin_message():
                        raise self._stream.breaks()
                    result = move(argument)
                    for counter in self._stream.counters:
                        self._count(counter)
                except BaseException as error:
                    if self._moved:
                        self._stream.breaks()
                        raise
                    # Clear our own mark, but not one that a dead process has left.
                    if lock._is_moving_message():
                        lock._end_message()
                    if not isinstance(error, BlockingIOError):
                        raise
                else:
                    lock._end_message()
                    return result
                self._wait(None)
        finally:
            # A signal handler may have raised before the lock was acquired.
            if is_ours_to_release and lock._semlock._is_mine():
                lock.release()

    def _count(self, counter: _Places | _Tasks) -> None:
        raise NotImplementedError

    def _is_ready(self, seconds: float) -> bool:
        """Whether bytes can move, or the other side of the pipe is gone."""
        poll = select.poll()
        poll.register(self.fileno(), self._event)
        # Round up to whole milliseconds.
        return bool(poll.poll(-int(-seconds * 1000 // 1)))

    def _wait(self, timeout: float | None) -> bool:
        """Waits, without a mark, until a message can begin to move. Returns False if time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._stream.check()
            left = _WHILE_IDLE if deadline is None else deadline - time.monotonic()
            if self._is_ready(min(max(left, 0), _WHILE_IDLE)):
                return True
            if left <= 0:
                return False

    def _wait_in_the_middle(self, had_moved: bool) -> None:
        """Waits until a message can move on, or raises ``BlockingIOError`` if none has begun."""
        if not had_moved:
            raise BlockingIOError
        while not self._is_ready(_WHILE_MOVING):
            self._stream.check(self._lock)


class _ReadingEnd(_End):
    _event = select.POLLIN

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        message: io.BytesIO | None = self._whole(super()._recv_bytes, maxsize)  # type: ignore[misc]
        if message is None:
            # The header says that the message is too long. Its body stays in the pipe, and the next
            # reader would take that for a header.
            self._stream.breaks()
        return message

    def _recv(self, size: int) -> io.BytesIO:
        received = io.BytesIO()
        while size > 0:
            handle = self.fileno()  # raises if another thread has closed it
            had_moved, self._moved = self._moved, True
            try:
                piece = os.read(handle, min(size, 65536))
            except BlockingIOError:
                self._moved = had_moved
                self._wait_in_the_middle(had_moved)
                continue
            if not piece:
                if had_moved:
                    # The process that wrote the beginning is gone, and so is every other writer.
                    raise self._stream.breaks()
                self._moved = False
                raise EOFError
            received.write(piece)
            size -= len(piece)
        return received

    def _count(self, counter: _Places | _Tasks) -> None:
        counter.receive()

    def _poll(self, timeout: float | None) -> bool:
        """For ``poll()``: whether a read would not wait, because of a message or an error."""
        try:
            return self._wait(timeout)
        except QueueBrokenError:
            return True


class _WritingEnd(_End):
    _event = select.POLLOUT

    def _send_bytes(self, message: Any) -> None:
        self._whole(super()._send_bytes, message)  # type: ignore[misc]

    def _send(self, piece: Any) -> None:
        while True:
            handle = self.fileno()  # raises if another thread has closed it
            had_moved, self._moved = self._moved, True
            try:
                count = os.write(handle, piece)
            except BlockingIOError:
                self._moved = had_moved
                self._wait_in_the_middle(had_moved)
                continue
            except BrokenPipeError:
                # Nothing of this piece has moved.
                self._moved = had_moved
                raise
            if count == len(piece):
                return
            piece = memoryview(piece)[count:]

    def _count(self, counter: _Places | _Tasks) -> None:
        counter.send()


def _rebuild_end(
    cls: type[_ReadingEnd | _WritingEnd], descriptor: Any, stream: _Stream, pipe: FileId
) -> _End:
    number = descriptor.detach()
    if not is_open_as(number, pipe):
        raise RuntimeError(
            "cannot receive this queue: the descriptor that came with it is not its pipe. These "
            "bytes were for another process, or this process has received and dropped the queue "
            "before. Start the receiver with the queue, as an argument of its process."
        )
    return _new_end(cls, number, stream)


def _new_end(cls: type[_ReadingEnd | _WritingEnd], handle: int, stream: _Stream) -> _End:
    is_reading = issubclass(cls, _ReadingEnd)
    return cls(handle, stream, stream.reading if is_reading else stream.writing)


class _Counter:
    """The base of what our queues have in place of a semaphore of the stdlib's queues."""

    @property
    def _semlock(self) -> _Counter:
        # The stdlib's full(), qsize(), task_done() and join() read this attribute.
        return self

    def _is_zero(self) -> bool:
        return self.get_value() == 0

    def _get_value(self) -> int:
        return self.get_value()

    def get_value(self) -> int:
        raise NotImplementedError


class _Places(_Counter):
    """Counts the places of a bounded queue, instead of the stdlib's semaphore.

    A putter that finds no free place frees the places of dead processes. In a broken queue it does
    not wait, but raises.
    """

    def __init__(self, count: int, *, ctx: Any, stream: _Stream) -> None:
        self._stream = stream
        # A process holds one of its permits for each message that it has put and not yet sent.
        self._unsent = _robust_semaphore(count, ctx)
        # Messages in the pipe.
        self._sent = _native.Semaphore(0, ctx=ctx)
        # A thread holds it while it reads both of these, or adds to one and takes from the other.
        # Whatever a death can leave half-done under it is under a mark, too.
        self._guard = _native.RLock(ctx=ctx, on_owner_died="ignore")
        # Each thread that frees a place sets it.
        self._given_back = _native.Event(ctx=ctx)
        self._here = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_here"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _here=threading.local())

    def get_value(self) -> int:
        with self._guard:
            # Code that writes to the pipe directly takes no place, so there can be more messages.
            return max(self._unsent.get_value() - self._sent.get_value(), 0)

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        """For ``put()``."""
        if self._stream.broken.is_set():
            raise self._stream.breaks()
        if self._take():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._stream.check()
            self._given_back.clear()
            self._recover()
            if self._take():
                # Several places may have become free, and others may wait for the same event.
                self._given_back.set()
                return True
            left = _WHILE_IDLE if deadline is None else deadline - time.monotonic()
            if not block or left <= 0:
                return False
            self._given_back.wait(min(left, _WHILE_IDLE))

    def release(self) -> None:
        """For a feeder thread that could not send. For ``get()`` it does nothing.

        ``receive`` has already freed the place of a message that ``get()`` has read.
        """
        if not hasattr(self._here, "gave_back"):
            with self._guard:
                self._unsent.release()
            self._given_back.set()

    def send(self) -> None:
        with self._guard:
            self._sent.release()
            with suppress(ValueError):  # the message was written to the pipe directly
                self._unsent.release()

    def receive(self) -> None:
        self._stream.receive_from(self._sent)
        self._given_back.set()
        self._here.gave_back = True

    def _take(self) -> bool:
        with self._guard:
            return self.get_value() > 0 and self._unsent.acquire(False)

    def _recover(self) -> None:
        """Frees the places of dead processes.

        It is one step, because an exception in the middle of several must not lose the places of a
        living process. It runs without the guard, because it can take long. A thread that reads
        both counts meanwhile finds these places free at once or a moment later.
        """
        self._unsent._free_those_of_the_dead()


class _UncountedPlaces(_native.BoundedSemaphore):
    """The places of a queue that has more of them than a robust semaphore has permits."""

    def __init__(self, value: int, *, ctx: Any, stream: _Stream) -> None:
        super().__init__(value, ctx=ctx)
        self._stream = stream

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        if self._stream.broken.is_set():
            raise self._stream.breaks()
        if super().acquire(False):
            return True
        if not block:
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._stream.check()
            left = _WHILE_IDLE if deadline is None else deadline - time.monotonic()
            if super().acquire(True, min(max(left, 0), _WHILE_IDLE)):
                return True
            if left <= 0:
                return False


class _Tasks(_Counter):
    """Counts the unfinished tasks of a ``JoinableQueue``, instead of the stdlib's semaphore.

    The process that has put a task holds it until it sends it. Then the task is in the pipe. Then
    the process that took it holds it, until that process, or another one, calls ``task_done()``.
    ``join()`` finds the tasks that a dead process held.
    """

    def __init__(self, *, ctx: Any, stream: _Stream) -> None:
        self._stream = stream
        # A process holds a permit for each task.
        self._unsent = _robust_semaphore(_MOST_HELD, ctx)
        self._taken = _robust_semaphore(_MOST_HELD, ctx)
        # Tasks that a process holds without a permit, because none was free.
        self._without_permit = _native.Semaphore(0, ctx=ctx)
        self._in_pipe = _native.Semaphore(0, ctx=ctx)
        # Messages that are counted above, but are no unfinished task: a process that did not take
        # the task has done it, or the message was written to the pipe directly.
        self._done_by_others = _native.Semaphore(0, ctx=ctx)
        # All tasks found so far that dead processes held.
        self._lost = _native.Semaphore(0, ctx=ctx)
        # A thread holds it while it changes two of these, or reads several. A process that is
        # killed between two changes leaves a broken queue, except in count_lost().
        self._guard = _native.RLock(ctx=ctx, on_owner_died="ignore")

    def get_value(self) -> int:
        with self._guard:
            held = 2 * _MOST_HELD - self._unsent.get_value() - self._taken.get_value()
            others = self._without_permit.get_value() + self._in_pipe.get_value()
            return held + others - self._done_by_others.get_value()

    def release(self) -> None:
        """For ``put()``."""
        with self._guard:
            self._hold(self._unsent)

    def acquire(self, block: object = True, timeout: Any = None) -> bool:
        """For ``task_done()``, which does not wait."""
        with self._guard:
            if self._is_zero():
                return False
            if not self._let_go(self._taken):
                self._done_by_others.release()
            return True

    def send(self) -> None:
        with self._guard:
            self._in_pipe.release()
            if not self._let_go(self._unsent):
                # The message was written to the pipe directly, and is no task.
                self._done_by_others.release()

    def receive(self) -> None:
        with self._guard:
            self._hold(self._taken)
        # This comes second, so that no process sees a task too few.
        self._stream.receive_from(self._in_pipe)

    def count_lost(self) -> int:
        """Returns how many tasks have been lost so far. They no longer count as unfinished."""
        with self._guard:
            for _ in range(_free_those_of_the_dead(self._unsent)):
                self._lost.release()
            for _ in range(_free_those_of_the_dead(self._taken)):
                if not self._done_by_others.acquire(False):
                    self._lost.release()
            return self._lost.get_value()

    def _hold(self, tasks: _native.Semaphore) -> None:
        # Without a free permit it does not try: acquire() would recover a dead process's permit,
        # and count_lost() has to count that.
        if tasks.get_value() == 0 or not tasks.acquire(False):
            self._without_permit.release()

    def _let_go(self, tasks: _native.Semaphore) -> bool:
        try:
            tasks.release()
        except ValueError:  # this process holds none
            return self._without_permit.acquire(False)
        return True


def _free_those_of_the_dead(permits: _native.Semaphore) -> int:
    before = permits.get_value()
    permits._free_those_of_the_dead()
    return permits.get_value() - before


def _robust_semaphore(count: int, ctx: Any) -> _native.Semaphore:
    return _native.Semaphore(count, ctx=ctx, robust=True, on_owner_died="ignore")


def _open_pipe(queue: Any, ctx: Any) -> _Stream:
    """Gives a queue its pipe, in the fields that the stdlib's methods use."""
    stream = _Stream(ctx)
    reader, writer = os.pipe()
    queue._reader = _ReadingEnd(reader, stream, stream.reading)
    queue._writer = _WritingEnd(writer, stream, stream.writing)
    # This is a setting of the pipe, so it holds for every process that has the pipe.
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    queue._rlock = stream.reading
    queue._wlock = stream.writing
    return stream


class Queue(_StockQueue):
    """``multiprocessing.Queue``, whose messages arrive whole, or it is broken.

    A context makes it. Its methods are the stdlib's, with timeouts in seconds. ``put``, ``get``,
    ``put_nowait`` and ``get_nowait`` raise :class:`~semlock.QueueBrokenError` once a process was
    killed, or interrupted by an exception, in the middle of a message. A process that is killed
    while it waits for a message or for room breaks nothing. A message that a killed process had
    taken, or had put and not yet sent, is lost, and its place is free again.

    :param maxsize: the greatest number of messages; 0 means no limit. Above 524,280 a place is lost
        with a message.
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

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        # It does not call the stdlib's, which opens a pipe of its own. `self` can be an instance of
        # a subclass of the stdlib's queue that was defined before install(). So this relies on
        # nothing but the stdlib's fields and methods.
        if executor.is_call_queue(self):
            # An executor expects no error from its queue, and ends all its workers when one is
            # killed. (If the context is ours, the stdlib's __init__ has protected the queue, and
            # the second call does nothing.)
            _stocks_init(self, maxsize, ctx=ctx)
            executor.protect(self, ctx)
            return
        is_bounded = maxsize > 0
        if not is_bounded:
            maxsize = SemLock.SEM_VALUE_MAX
        self._maxsize = maxsize
        stream = _open_pipe(self, ctx)
        self._opid = os.getpid()
        self._sem: _Places | _UncountedPlaces
        # Nothing recovers the places of a larger queue.
        if is_bounded and maxsize <= _native._MOST_PERMITS:
            self._sem = _Places(maxsize, ctx=ctx, stream=stream)
            stream.counters.append(self._sem)
        else:
            self._sem = _UncountedPlaces(maxsize, ctx=ctx, stream=stream)
        self._ignore_epipe = False
        self._reset()  # type: ignore[attr-defined]
        util.register_after_fork(self, _StockQueue._after_fork)  # type: ignore[attr-defined]


class JoinableQueue(Queue, _StockJoinableQueue):
    """A :class:`Queue` whose ``join`` waits until all tasks are done.

    A context makes it. A task is done when ``task_done()`` was called for it, in any process, and
    lost when the process that took it ends before. It knows of 512 tasks at a time that all
    processes have taken and not done, and of 512 that they have put and not sent.

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
        Queue.__init__(self, maxsize, ctx=ctx)
        stream: _Stream = vars(self)["_reader"]._stream
        self._unfinished_tasks = _Tasks(ctx=ctx, stream=stream)
        stream.counters.append(self._unfinished_tasks)
        # Its owner's death needs no warning: it guards one counter, which is whole at any time.
        lock = _native.RLock(ctx=ctx, on_owner_died="ignore")
        self._cond = _native.Condition(lock, ctx=ctx)

    def join(self) -> None:
        """Wait until all tasks are done.

        :raises WorkerDied: a process ended that had taken tasks and not done them, or had put tasks
            and not sent them. They count as done from then on: the next ``join()`` waits for the
            others.
        :raises QueueBrokenError: the queue is broken.
        """
        # `self` can be an instance of the stdlib's class, or come from a process without semlock.
        tasks, reader = self._unfinished_tasks, vars(self)["_reader"]
        counts_lost = isinstance(tasks, _Tasks)
        with self._cond:
            lost_before = tasks._lost.get_value() if counts_lost else 0
            while True:
                if counts_lost and (lost := tasks.count_lost() - lost_before):
                    raise WorkerDied(lost)
                if tasks._semlock._is_zero():
                    return
                if isinstance(reader, _End):
                    reader._stream.check()
                # Wake now and then: a process can do the last task and die before it notifies.
                self._cond.wait(_WHILE_IDLE)


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

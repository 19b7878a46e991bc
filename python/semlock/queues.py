"""Queues whose messages arrive whole, and that say so when they cannot any more.

They are the stdlib's, over a pipe whose two ends are :class:`_ReadingEnd` and :class:`_WritingEnd`.
A reader or writer that is killed while it moves a message leaves the pipe in the middle of it, and
its lock is recovered by the next, who must not go on from there. So each side's lock has a mark
beside it, which is set before the first byte of a message moves and cleared after the last. Where
nobody holds a lock and its mark is set, the queue is broken, and everybody gets a
:class:`~semlock.QueueBrokenError` from then on.

* A process that only waits, for a message or for room, has marked nothing: it can be killed.
* Nobody waits for a peer without looking, now and then, whether it has died in the middle: neither
  a reader for the rest of a message, nor a writer for room in the pipe, nor a putter for its place
  in a bounded queue. For that the pipe does not block.
* An exception in the middle of a message (a signal handler's, mostly) breaks the queue too, unless
  nothing had moved yet.
* Bytes in the pipe are framed as by the stdlib, and the ends can be used directly, as ``Pool`` and
  ``ProcessPoolExecutor`` do: they take their side's lock unless the thread that calls holds it.

As in the stdlib, what a killed process had taken, or had put and not yet sent, is lost. Its place
in a bounded queue is not. A place is either a permit of a robust semaphore, held by the process
that has put a message and not sent it yet, or counted among the messages in the pipe. It goes from
one to the other, and back to all, under the mark of whoever moves the message: who dies in between
leaves a broken queue, and who dies otherwise leaves permits, which are recovered as any are. The
tasks of a ``JoinableQueue`` are counted in the same way, so that ``join()`` waits for none that a
dead process had.
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
from .descriptors import FileId, is_open_as
from .errors import QueueBrokenError, WorkerDied

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# Seconds between two looks at the others: while a message is moving, and while none is.
_WHILE_MOVING = 0.1
_WHILE_IDLE = 1.0

# A joinable queue has permits for so many tasks that processes have taken, and so many that they
# have put and not sent. Each costs memory, and time with each task.
_MOST_HELD = 512

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
    _StockQueue = queues.Queue[Any]
    _StockJoinableQueue = queues.JoinableQueue[Any]
    _StockSimpleQueue = queues.SimpleQueue[Any]
else:
    # Under names of our own, because install() puts ours in the place of the stdlib's.
    _Connection = connection.Connection
    _StockQueue = queues.Queue
    _StockJoinableQueue = queues.JoinableQueue
    _StockSimpleQueue = queues.SimpleQueue
_stocks_init: Any = _StockQueue.__init__


class _Stream:
    """What the users of a queue share besides the pipe: both sides' locks, and whether it broke."""

    def __init__(self, ctx: Any) -> None:
        # Without warnings: what a dead holder left behind is known from the mark.
        self.reading = _native.Lock(ctx=ctx, on_owner_died="ignore")
        self.writing = _native.Lock(ctx=ctx, on_owner_died="ignore")
        for lock in (self.reading, self.writing):
            lock._guard_messages()
        # Once somebody has found out, all others know.
        self.broken = _native.Event(ctx=ctx)
        # What changes with each message, beside the pipe.
        self.counters: list[_Places | _Tasks] = []

    def check(self, moving: _native.Lock | None = None) -> None:
        """Raises ``QueueBrokenError`` if somebody was lost in the middle of a message.

        ``moving`` is the lock under whose mark the caller itself is just moving one.
        """
        if self.broken.is_set():
            raise self.breaks()
        for lock in (self.reading, self.writing):
            if lock is not moving and lock._is_mid_message() and _is_left_marked(lock):
                raise self.breaks()

    def receive_from(self, sent: _native.Semaphore) -> None:
        """Counts the message that is being read among those that were sent no longer."""
        # The writer may not have counted it yet.
        while not sent.acquire(True, _WHILE_MOVING):
            self.check(self.reading)

    def breaks(self) -> QueueBrokenError:
        self.broken.set()
        return QueueBrokenError(
            "this queue is broken: a process died, or was interrupted, in the middle of a message"
        )


def _is_left_marked(lock: _native.Lock) -> bool:
    """Whether nobody is there any more who could have set the mark of a lock."""
    if lock._semlock._is_mine():
        # Unless it was this thread, which a signal's handler has interrupted to look here, it was
        # the one whom the caller recovered the lock from.
        return not lock._is_moving_message()
    try:
        return lock.acquire(False) and lock._is_mid_message()
    finally:
        # A signal's handler may have raised as soon as it was taken.
        if lock._semlock._is_mine():
            lock.release()


class _End(_Connection):
    """One end of a queue's pipe.

    A message moves through it whole, or breaks the queue.
    """

    # What poll() is to wait for.
    _event: int

    def __init__(self, handle: int, stream: _Stream, lock: _native.Lock) -> None:
        self._pipe: FileId = _native._file_id(handle)
        super().__init__(
            handle, readable=self._event == select.POLLIN, writable=self._event == select.POLLOUT
        )
        self._stream = stream
        self._lock = lock
        # Whether something of the present message has moved, or may have: if a signal handler's
        # exception comes out of a system call, it is not known.
        self._moved = False

    def __reduce__(self) -> tuple[Any, ...]:
        descriptor = reduction.DupFd(self.fileno())
        return _rebuild_end, (type(self), descriptor, self._stream, self._pipe)

    # With a default: globals can have gone when the interpreter ends.
    def _close(self, _is_open_as: Any = is_open_as) -> None:
        # Others can have closed it behind our back: then the number is theirs.
        if _is_open_as(self.fileno(), self._pipe):
            super()._close()  # type: ignore[misc]

    def _whole(self, move: Any, argument: Any) -> Any:
        """Moves a message, under this side's lock and mark."""
        lock = self._lock
        # Not ``with``: this is the path of every message.
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
                    # Not one that a dead process has left.
                    if lock._is_moving_message():
                        lock._end_message()
                    if not isinstance(error, BlockingIOError):
                        raise
                else:
                    lock._end_message()
                    return result
                self._wait(None)
        finally:
            # A signal's handler may have raised before it was taken.
            if is_ours_to_release and lock._semlock._is_mine():
                lock.release()

    def _count(self, counter: _Places | _Tasks) -> None:
        raise NotImplementedError

    def _is_ready(self, seconds: float) -> bool:
        """Whether something can move, or never will again."""
        poll = select.poll()
        poll.register(self.fileno(), self._event)
        # In whole milliseconds, not less than asked for.
        return bool(poll.poll(-int(-seconds * 1000 // 1)))

    def _wait(self, timeout: float | None) -> bool:
        """Waits, with nothing marked, until a message can begin to move."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._stream.check()
            left = _WHILE_IDLE if deadline is None else deadline - time.monotonic()
            if self._is_ready(min(max(left, 0), _WHILE_IDLE)):
                return True
            if left <= 0:
                return False

    def _wait_in_the_middle(self, had_moved: bool) -> None:
        """Waits where a message cannot go on, or raises ``BlockingIOError`` if none has begun."""
        if not had_moved:
            raise BlockingIOError
        while not self._is_ready(_WHILE_MOVING):
            self._stream.check(self._lock)


class _ReadingEnd(_End):
    _event = select.POLLIN

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        message: io.BytesIO | None = self._whole(super()._recv_bytes, maxsize)  # type: ignore[misc]
        if message is None:
            # Its header said that it is too long. What follows that cannot be told from a header.
            self._stream.breaks()
        return message

    def _recv(self, size: int) -> io.BytesIO:
        received = io.BytesIO()
        while size > 0:
            handle = self.fileno()  # if another thread has not closed it
            had_moved, self._moved = self._moved, True
            try:
                piece = os.read(handle, min(size, 65536))
            except BlockingIOError:
                self._moved = had_moved
                self._wait_in_the_middle(had_moved)
                continue
            if not piece:
                if had_moved:
                    # Whoever wrote the beginning was the last writer.
                    raise self._stream.breaks()
                self._moved = False
                raise EOFError
            received.write(piece)
            size -= len(piece)
        return received

    def _count(self, counter: _Places | _Tasks) -> None:
        counter.receive()

    def _poll(self, timeout: float | None) -> bool:
        """For ``poll()``: whether reading would not wait. There is a message, or an error."""
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
            handle = self.fileno()  # if another thread has not closed it
            had_moved, self._moved = self._moved, True
            try:
                count = os.write(handle, piece)
            except BlockingIOError:
                self._moved = had_moved
                self._wait_in_the_middle(had_moved)
                continue
            except BrokenPipeError:
                # Of this piece nothing did.
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
            "cannot receive this queue: what was passed on is not its pipe. These bytes were for "
            "another process, or this one has received and dropped the queue before. Start the "
            "receiver with the queue, as an argument of its process."
        )
    return _new_end(cls, number, stream)


def _new_end(cls: type[_ReadingEnd | _WritingEnd], handle: int, stream: _Stream) -> _End:
    is_reading = issubclass(cls, _ReadingEnd)
    return cls(handle, stream, stream.reading if is_reading else stream.writing)


class _Counter:
    """What stands where the stdlib's queues have a semaphore, and is not one."""

    @property
    def _semlock(self) -> _Counter:
        # For full(), qsize(), task_done() and join().
        return self

    def _is_zero(self) -> bool:
        return self.get_value() == 0

    def _get_value(self) -> int:
        return self.get_value()

    def get_value(self) -> int:
        raise NotImplementedError


class _Places(_Counter):
    """The places of a bounded queue, in the place of the stdlib's semaphore.

    Those whose message is in nobody's hands any more are found by who needs one. Nobody waits for
    one in a queue that is broken.
    """

    def __init__(self, count: int, *, ctx: Any, stream: _Stream) -> None:
        self._stream = stream
        # Held by who has put a message and not yet sent it.
        self._unsent = _robust_semaphore(count, ctx)
        # Messages in the pipe.
        self._sent = _native.Semaphore(0, ctx=ctx)
        # Whoever reads both of these holds it, and whoever adds to one and takes from the other.
        # Nothing is left half-done under it that is not also under a mark.
        self._guard = _native.RLock(ctx=ctx, on_owner_died="ignore")
        # Set by who gives a place back.
        self._given_back = _native.Event(ctx=ctx)
        self._here = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_here"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _here=threading.local())

    def get_value(self) -> int:
        with self._guard:
            # Nobody keeps out who writes to the pipe directly.
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
                # Others may have waited for the same event, of which only one is left.
                self._given_back.set()
                return True
            left = _WHILE_IDLE if deadline is None else deadline - time.monotonic()
            if not block or left <= 0:
                return False
            self._given_back.wait(min(left, _WHILE_IDLE))

    def release(self) -> None:
        """For a feeder thread that could not send, and for ``get()``, which is not to do more."""
        if not hasattr(self._here, "gave_back"):
            with self._guard:
                self._unsent.release()
            self._given_back.set()

    def send(self) -> None:
        with self._guard:
            self._sent.release()
            with suppress(ValueError):  # written to the pipe directly
                self._unsent.release()

    def receive(self) -> None:
        self._stream.receive_from(self._sent)
        self._given_back.set()
        self._here.gave_back = True

    def _take(self) -> bool:
        with self._guard:
            return self.get_value() > 0 and self._unsent.acquire(False)

    def _recover(self) -> None:
        """Frees places of the dead.

        In one step: an exception in the midst of it must not take a living process's places along.
        Without the guard, for that can take long: whoever reads both counts meanwhile finds places
        freed, or finds them freed later.
        """
        self._unsent._free_those_of_the_dead()


class _UncountedPlaces(_native.BoundedSemaphore):
    """The places of a queue that has more of them than can be recovered."""

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
    """The unfinished tasks of a ``JoinableQueue``, in the place of the stdlib's semaphore.

    A task is held by the process that has put it and not sent it yet; then it is in the pipe; then
    it is held by the process that took it, until that one, or any other, calls ``task_done()``.
    What a dead process held is found by who joins the queue.
    """

    def __init__(self, *, ctx: Any, stream: _Stream) -> None:
        self._stream = stream
        # A process holds a permit for each task.
        self._unsent = _robust_semaphore(_MOST_HELD, ctx)
        self._taken = _robust_semaphore(_MOST_HELD, ctx)
        # Tasks that are held, and that there was no permit for.
        self._without_permit = _native.Semaphore(0, ctx=ctx)
        self._in_pipe = _native.Semaphore(0, ctx=ctx)
        # Messages that are no unfinished task (any more), though counted above: another process has
        # done it than the one that took it.
        self._done_by_others = _native.Semaphore(0, ctx=ctx)
        # All tasks that dead processes were found to have held.
        self._lost = _native.Semaphore(0, ctx=ctx)
        # Held by who changes two of these, or reads several. A process that is killed between two
        # changes leaves a broken queue, except in count_lost().
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
                # It was written to the pipe directly, and is no task.
                self._done_by_others.release()

    def receive(self) -> None:
        with self._guard:
            self._hold(self._taken)
        # Only now, and so nobody sees a task too few.
        self._stream.receive_from(self._in_pipe)

    def count_lost(self) -> int:
        """How many tasks have been lost until now. They do not count as unfinished any more."""
        with self._guard:
            for _ in range(_free_those_of_the_dead(self._unsent)):
                self._lost.release()
            for _ in range(_free_those_of_the_dead(self._taken)):
                if not self._done_by_others.acquire(False):
                    self._lost.release()
            return self._lost.get_value()

    def _hold(self, tasks: _native.Semaphore) -> None:
        # No permit of a dead process, which is to be counted.
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
    """Gives a queue its pipe, as the fields that the stdlib's methods work on."""
    stream = _Stream(ctx)
    reader, writer = os.pipe()
    queue._reader = _ReadingEnd(reader, stream, stream.reading)
    queue._writer = _WritingEnd(writer, stream, stream.writing)
    # Of the pipe, so for every process that has it.
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
        # In the place of the stdlib's, which opens a pipe of its own. `self` can be an instance of
        # a subclass of the stdlib's queue that was there before install(), so nothing but the
        # stdlib's fields and methods is relied on.
        if executor.is_call_queue(self):
            # An executor expects no error of its queue, and ends all its workers when one is
            # killed. (A context of ours has protected it by now.)
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
        # The places of a larger queue are not recovered.
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
        # `self` can be one of the stdlib's.
        Queue.__init__(self, maxsize, ctx=ctx)
        stream: _Stream = vars(self)["_reader"]._stream
        self._unfinished_tasks = _Tasks(ctx=ctx, stream=stream)
        stream.counters.append(self._unfinished_tasks)
        # What it guards is one counter, which is whole at any time.
        lock = _native.RLock(ctx=ctx, on_owner_died="ignore")
        self._cond = _native.Condition(lock, ctx=ctx)

    def join(self) -> None:
        """Wait until all tasks are done.

        :raises WorkerDied: a process ended that had taken tasks and not done them, or had put tasks
            and not sent them. They count as done from then on: the next ``join()`` waits for the
            others.
        :raises QueueBrokenError: the queue is broken.
        """
        # `self` can be one of the stdlib's, or have its pipe from a process without semlock.
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
                # A process that finished the last task can have died before it notified.
                self._cond.wait(_WHILE_IDLE)


class SimpleQueue(_StockSimpleQueue):
    """``multiprocessing.SimpleQueue``, whose messages arrive whole, or it is broken.

    A context makes it. It writes and reads without a thread: ``put`` waits while the pipe is full.
    ``put``, ``get`` and ``empty`` raise :class:`~semlock.QueueBrokenError` once a process was
    killed, or interrupted by an exception, in the middle of a message.

    :param ctx: the context that it is for.
    :raises OSError: the system has no memory to share, or no pipe.

    >>> import semlock
    >>> queue = semlock.get_context("spawn").SimpleQueue()
    >>> queue.put("a message")
    >>> queue.get()
    'a message'
    >>> queue.close()
    """

    _reader: _ReadingEnd
    _writer: _WritingEnd

    def __init__(self, *, ctx: Any) -> None:
        _open_pipe(self, ctx)
        self._poll = self._reader.poll

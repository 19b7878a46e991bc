"""The two ends of a channel, as connections: what queues and pools have in place of a pipe.

A message is there whole, or was never sent; it was received, or is still there. That holds whoever
is killed, so nothing here has to be told of a death. (The core says how: ``word/channel.rs``.)

An end is a ``Connection``, so that what others do with a queue's ``_reader`` and ``_writer`` goes
on to work: ``connection.wait``, selectors and ``loop.add_reader`` ask for its descriptor, which is
readable while a message is there. Nobody pays for that before somebody asks.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from multiprocessing import connection, context, reduction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import _native
from .descriptors import FileId, Owned

__all__ = ["ReadingEnd", "WritingEnd", "dumps", "loads", "open_channel"]

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
    _ForkingPickler = reduction.ForkingPickler
else:
    # These names are our own, because install() replaces the stdlib's classes with ours.
    _Connection = connection.Connection
    _ForkingPickler = reduction.ForkingPickler

# Seconds between two checks whether a process is left that can send.
_WHILE_ABANDONED = 1.0


def open_channel(queue: Any, ctx: Any) -> None:
    """Gives a queue its channel, in the fields that the stdlib's methods use."""
    channel = _native._Channel(ctx=ctx)
    queue._reader = ReadingEnd(channel)
    queue._writer = WritingEnd(channel)
    # For those who use them. The channel has locks of its own, which are held for a copy.
    queue._rlock = _native.Lock(ctx=ctx, on_owner_died="ignore")
    queue._wlock = _native.Lock(ctx=ctx, on_owner_died="ignore")


# ---- Pickling ----

loads = pickle.loads

# Picklers that no thread uses at this moment, each with the list that it writes to. The stdlib
# makes a new one for each message, which takes longer than all the rest.
_idle: list[tuple[pickle.Pickler, list[Any]]] = []


def dumps(obj: object) -> Any:
    """Pickles as ``ForkingPickler.dumps`` does. Returns bytes, or a list of pieces of bytes."""
    if reduction.ForkingPickler is not _ForkingPickler:
        # A program has put its own in the stdlib's place.
        return reduction.ForkingPickler.dumps(obj)
    try:
        pickler, pieces = _idle.pop()
    except IndexError:
        pickler, pieces = _new_pickler()
    # If this raises, the pickler is dropped with what it has written.
    pickler.dump(obj)
    data = pieces[0] if len(pieces) == 1 else pieces.copy()
    pieces.clear()
    pickler.clear_memo()
    _idle.append((pickler, pieces))
    return data


def _new_pickler() -> tuple[pickle.Pickler, list[Any]]:
    pieces: list[Any] = []
    pickler = pickle.Pickler(SimpleNamespace(write=pieces.append))
    # As ForkingPickler has it: what is registered later counts, too.
    reducers: Any = _ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    others: Any = copyreg.dispatch_table
    pickler.dispatch_table = ChainMap(reducers, others)
    return pickler, pieces


# ---- The ends ----


class _End(_Connection):
    def __init__(self, channel: _native._Channel) -> None:
        self._channel = channel
        is_reading = isinstance(self, ReadingEnd)
        # The number only says that this end is open. The channel has the descriptors.
        number = channel._bell()[0 if is_reading else 1]
        super().__init__(number, readable=is_reading, writable=not is_reading)

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_closed()  # type: ignore[attr-defined]
        return type(self), (self._channel,)

    def fileno(self) -> int:
        """Return the descriptor that is readable while a message is there."""
        self._check_closed()  # type: ignore[attr-defined]
        return self._channel.fileno()

    def _close(self) -> None:
        pass  # the channel closes its descriptors when nobody has it any more


class ReadingEnd(_End):
    """The end from which messages are received."""

    def recv(self) -> Any:
        """Receive an object."""
        return loads(self._receive())

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive a message as bytes."""
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        message = self._receive()
        if maxlength is not None and len(message) > maxlength:
            raise OSError("bad message length")
        return bytes(message)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        # The stdlib's recv_bytes_into() calls it.
        return io.BytesIO(self._receive())

    def _receive(self) -> Any:
        self._check_closed()  # type: ignore[attr-defined]
        channel = self._channel
        message = channel.receive(None if channel.sends() else _WHILE_ABANDONED)
        while message is None:
            # As of a pipe whose writing ends are all closed.
            if channel.is_abandoned() and channel.is_empty():
                raise EOFError
            message = channel.receive(_WHILE_ABANDONED)
        return message

    def _poll(self, timeout: float | None) -> bool:
        channel = self._channel
        if channel.sends():
            return channel.poll(timeout)
        return channel.poll(0) or channel.is_abandoned() or channel.poll(timeout)


class WritingEnd(_End):
    """The end by which messages are sent."""

    def send(self, obj: Any) -> None:
        """Send an object."""
        self._check_closed()  # type: ignore[attr-defined]
        self._channel.send(dumps(obj))

    def _send_bytes(self, message: Any) -> None:
        # The stdlib's send_bytes() calls it.
        self._channel.send(message)

    def _close(self) -> None:
        self._channel.close_sending()


# ---- How a channel's descriptors reach a child ----


class SentBell:
    """The descriptors of a channel's bell, in a message to a child."""

    def __init__(self, channel: _native._Channel) -> None:
        context.assert_spawning(channel)
        self._file: FileId = channel._bell_file()
        self._ends = [reduction.DupFd(number) for number in channel._bell()]

    def __reduce__(self) -> tuple[Any, ...]:
        return ReceivedBell, (self._file, *self._ends)


class ReceivedBell:
    """The same in the child: a sequence of two numbers, which are closed with it."""

    def __init__(self, file: FileId, *ends: Any) -> None:
        self._ends = [Owned(end.detach(), file) for end in ends]
        if not all(end.is_there() for end in self._ends):
            raise RuntimeError(
                "cannot receive this queue: the descriptor that came with it is not its pipe. "
                "These bytes were for another process, or this process has received and dropped "
                "the queue before. Start the receiver with the queue, as an argument of its "
                "process."
            )

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> int:
        return self._ends[index].number

    def __del__(self) -> None:
        for end in vars(self).get("_ends", ()):
            end.close()

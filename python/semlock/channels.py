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
import struct
from collections import ChainMap
from collections.abc import Callable
from multiprocessing import connection, context, reduction
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import _native
from .descriptors import FileId, Owned

__all__ = ["ReadingEnd", "WritingEnd", "channel_of", "dumps", "loads", "open_channel"]

if TYPE_CHECKING:
    _Connection = connection.Connection[Any, Any]
    _ForkingPickler = reduction.ForkingPickler
else:
    # These names are our own, because install() replaces the stdlib's classes with ours.
    _Connection = connection.Connection
    _ForkingPickler = reduction.ForkingPickler

# Seconds between two checks whether a process is left that can send.
_WHILE_ABANDONED = 1.0


def open_channel(queue: Any, ctx: Any, **options: Any) -> None:
    """Gives a queue its channel, in the fields that the stdlib's methods use."""
    channel = _native._Channel(ctx=ctx, **options)
    queue._reader = ReadingEnd(channel)
    queue._writer = WritingEnd(channel)
    # For those who use them. The channel has locks of its own, which are held for a copy.
    queue._rlock = _native.Lock(ctx=ctx, on_owner_died="ignore")
    queue._wlock = _native.Lock(ctx=ctx, on_owner_died="ignore")


def channel_of(queue: Any) -> _native._Channel | None:
    """The channel of a queue; None if it stands on something else."""
    # The ends can be wrapped: PyTorch's are.
    channel = getattr(getattr(queue, "_reader", None), "_channel", None)
    return channel if isinstance(channel, _native._Channel) else None


# ---- Pickling ----

# Of a large message, this is at its end, behind the pickle: for each buffer that it has (of a NumPy
# array, say), where it begins and how long it is, 8 bytes each; then how many there are, 8 bytes;
# then this. So the receiver need not copy the buffers. For whoever does not know of it, the message
# is a pickle: what follows one is ignored.
_HAS_BUFFERS = b"buffers\0"
_NUMBER = struct.Struct("<Q")
_BUFFER = struct.Struct("<QQ")
# A buffer begins at a multiple of so many bytes, for what computes with it.
_ALIGNMENT = 16
# What a pickle says before a buffer: its opcode, and how long it is. In its place, the first byte
# says that the buffer comes from elsewhere.
_BYTEARRAY8, _NEXT_BUFFER = b"\x96", b"\x97"
_HEADER = 9
# They do nothing: push something, and pop it.
_SHORTER, _LONGER = b"N0", b"K\x000"


def loads(message: Any) -> Any:
    """Unpickles a message: bytes, or a bytearray, in which large buffers stay."""
    if type(message) is bytearray and message.endswith(_HAS_BUFFERS):
        return _loads_with_buffers(message)
    return pickle.loads(message)


def _loads_with_buffers(message: bytearray) -> Any:
    view = memoryview(message)
    end = len(view) - len(_HAS_BUFFERS) - _NUMBER.size
    (count,) = _NUMBER.unpack_from(view, end)
    table = end - count * _BUFFER.size
    stream: list[Any] = []
    buffers, at = [], 0
    for start, length in _BUFFER.iter_unpack(view[table:end]):
        stream += view[at : start - _HEADER], _NEXT_BUFFER
        at = start + length
        buffers.append(view[start:at])
    stream.append(view[at:table])
    return pickle.loads(b"".join(stream), buffers=buffers)


def _with_buffers(pieces: list[Any]) -> list[Any]:
    """Adds to the pieces of a large pickle what the receiver has to know about buffers in it."""
    message: list[Any] = []
    length, table = 0, b""
    for piece in pieces:
        before = message[-1] if message and type(message[-1]) is bytes else b""
        header = before[-_HEADER:]
        if type(piece) is pickle.PickleBuffer and header[:1] == _BYTEARRAY8:
            message[-1] = before[:-_HEADER]
            pad = -length % _ALIGNMENT
            if pad == 1:
                pad += _ALIGNMENT
            # Of the longer one, there is one where the number is odd.
            nothing = _LONGER[: pad % 2 * 3] + _SHORTER * (pad // 2 - pad % 2)
            message.append(nothing + header)
            length += len(nothing)
            table += _BUFFER.pack(length, piece.raw().nbytes)
        message.append(piece)
        length += piece.raw().nbytes if type(piece) is pickle.PickleBuffer else len(piece)
    if table:
        count = _NUMBER.pack(len(table) // _BUFFER.size)
        message.append(table + count + _HAS_BUFFERS)
    return message


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
    data = pieces[0] if len(pieces) == 1 else _with_buffers(pieces)
    pieces.clear()
    pickler.clear_memo()
    _idle.append((pickler, pieces))
    return data


def _new_pickler() -> tuple[pickle.Pickler, list[Any]]:
    pieces: list[Any] = []
    # Of this protocol, each large buffer comes as a piece, and is not copied.
    pickler = pickle.Pickler(SimpleNamespace(write=pieces.append), protocol=5)
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
        """Receive an object.

        :raises EOFError: a process died, or gave up, in the middle of sending a large one; or none
            is there, and no process is left that can send one.
        """
        return loads(self._receive(receive=self._channel.receive_what_is_there))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive a message as bytes. If one does not come whole, this waits for the next one."""
        if maxlength is not None and maxlength < 0:
            raise ValueError("negative maxlength")
        message = self._receive()
        if maxlength is not None and len(message) > maxlength:
            raise OSError("bad message length")
        return bytes(message)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        # The stdlib's recv_bytes_into() calls it.
        return io.BytesIO(self._receive())

    def _receive(
        self, timeout: float | None = None, receive: Callable[..., Any] | None = None
    ) -> Any:
        """Returns the next message; None at the timeout, in seconds.

        A message that does not come whole is no reason to end: the next one is waited for. But
        whoever was told that something is there, and then calls ``recv``, would wait for ever.
        """
        self._check_closed()  # type: ignore[attr-defined]
        channel = self._channel
        receive = receive or channel.receive
        if timeout is not None or channel.sends():
            message = receive(timeout)
            if message is not None or channel.sends():
                return message
        else:
            message = receive(_WHILE_ABANDONED)
        while message is None:
            # As of a pipe whose writing ends are all closed.
            if channel.is_abandoned() and channel.is_empty():
                raise EOFError
            if timeout is not None:
                return None
            message = receive(_WHILE_ABANDONED)
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

    def _send_pickled(self, data: Any) -> None:
        """Send what ``dumps`` has returned, which can be a list."""
        self._check_closed()  # type: ignore[attr-defined]
        self._channel.send(data)

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

"""How a pickled lock reaches the memory that it lives in.

A lock pickles as the id of its segment, its slot there, and ways to the segment. A process that has
the segment mapped already uses that, and opens nothing. Of the others:

* A child that is being spawned is handed a descriptor, one for each segment, however many locks
  come with it. It takes that over once, and closes it.
* A process that runs already opens the descriptor of the sender, or else that of the segment's
  maker, through ``/proc``. Nothing is kept open for it, so bytes that nobody unpickles leak
  nothing; but one of the two must still have the segment mapped when they are unpickled.
* Only a sender whose ``/proc`` nobody may enter (one that is not dumpable, or has no ``/proc``)
  offers a descriptor through ``multiprocessing.resource_sharer``: one for each segment, to
  whoever comes for it, as long as a lock lives here that was sent so.

Whatever is opened is checked to be the segment before it is used.
"""

from __future__ import annotations

import copyreg
import errno
import os
import stat
import threading
import weakref
from multiprocessing import context, reduction
from typing import Any

from . import _native

__all__ = ["added_state", "rebuild_shared", "reduce_shared"]


def reduce_shared(shared: Any) -> tuple[Any, ...]:
    """The ``__reduce_ex__`` of all that lives in a segment, users' subclasses included."""
    segment, slot, tag = shared._address()
    arguments = (type(shared), _way_to(shared, segment), slot, tag, *_besides(shared))
    shared._mark_shared()
    return rebuild_shared, arguments, added_state(shared)


def rebuild_shared(cls: Any, way: ReceivedSegment, slot: int, tag: int, *besides: Any) -> Any:
    """What a pickled lock unpickles by."""
    return way.rebuild(cls, slot, tag, besides)


def _besides(shared: Any) -> tuple[Any, ...]:
    """What a class's ``_rebuild`` takes besides the address."""
    if isinstance(shared, _native.Condition):
        return (shared._lock,)
    if isinstance(shared, _native.Barrier):
        return shared._action, shared._timeout
    if isinstance(shared, _native.SemLock) and shared._on_owner_died != "warn":
        return (shared._on_owner_died,)
    return ()


def added_state(thing: object) -> Any:
    """What a subclass has added: in an instance dictionary, in slots, or as it says itself."""
    cls: Any = type(thing)
    its_own: Any = getattr(cls, "__getstate__", None)
    if its_own is not getattr(object, "__getstate__", None):
        return its_own(thing)
    state: Any = getattr(thing, "__dict__", None) or None
    slots = {
        name: getattr(thing, name)
        for name in copyreg._slotnames(cls)  # type: ignore[attr-defined]
        if hasattr(thing, name)
    }
    return (state, slots) if slots else state


# ---- The sender's side ----


class SentSegment:
    """The ways to a segment, as its sender knows them.

    All locks of a segment in one message share one, so pickle's memo has it there once.
    """

    def __init__(self, *ways: Any) -> None:
        self.ways = ways

    def __reduce__(self) -> tuple[Any, ...]:
        return ReceivedSegment, self.ways


class _Sending(threading.local):
    """What this thread is pickling: a pickler's memo keeps it until the message is whole."""

    def __init__(self) -> None:
        self.segments: weakref.WeakValueDictionary[Any, SentSegment] = weakref.WeakValueDictionary()


_sending = _Sending()


def _way_to(shared: Any, segment: bytes) -> SentSegment:
    popen: Any = context.get_spawning_popen()
    # A child's preparation data and its process object are two messages, but one child.
    sent = _sending.segments if popen is None else vars(popen).setdefault("_semlock_segments", {})
    key = segment, os.getpid()
    way: SentSegment | None = sent.get(key)
    if way is None:
        way = sent[key] = _new_way_to(shared, segment, popen)
    return way


def _new_way_to(shared: Any, segment: bytes, popen: Any) -> SentSegment:
    places = [shared._maker()]
    try:
        descriptor = shared._descriptor()
    except OSError as lost:
        if places[0][0] == os.getpid():
            raise RuntimeError(
                f"cannot send this {type(shared).__name__}: something else in this process closed "
                f"the descriptor of its shared memory ({lost})"
            ) from lost
        if popen is not None:
            descriptor = _opened_for_child(places[0], segment, shared, popen)
    else:
        mine = os.getpid(), descriptor
        if places[0] != mine:
            places.insert(0, mine)
    if popen is not None:
        file = os.getpid(), _identity(descriptor)
        return SentSegment(segment, places, reduction.DupFd(descriptor), file)
    if places[0][0] == os.getpid() and not _others_may_enter_our_proc():
        return SentSegment(segment, places, _offer(shared, segment, descriptor))
    return SentSegment(segment, places)


def _identity(descriptor: int) -> tuple[int, ...]:
    """What a segment is told by: on macOS it has neither device nor inode, nor has a socket."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode), status.st_size


def _opened_for_child(place: tuple[int, int], segment: bytes, shared: Any, popen: Any) -> int:
    """The maker's descriptor in the place of ours, kept until the child has it."""
    try:
        descriptor = _open(*place)
    except OSError as gone:
        raise RuntimeError(
            f"cannot send this {type(shared).__name__}: something else in this process closed the "
            f"descriptor of its shared memory, and its maker's is gone ({gone})"
        ) from gone
    weakref.finalize(popen, os.close, descriptor)
    _, slot, tag = shared._address()
    # It is the segment, or this says what is wrong.
    type(shared)._rebuild(segment, slot, tag, descriptor, *_besides(shared))
    return descriptor


class _Offer:
    """A descriptor that ``multiprocessing.resource_sharer`` hands to all who come for it.

    What is registered there is for one, who takes it out; so this puts it back.
    """

    def __init__(self, segment: bytes, descriptor: int) -> None:
        # It imports much that nobody else needs.
        from multiprocessing import resource_sharer

        self._key = segment, os.getpid()
        self._descriptor = os.dup(descriptor)
        # The locks of the segment that were sent, by their ids.
        self._senders: dict[int, weakref.finalize[Any, Any]] = {}
        self._sharer: Any = resource_sharer._resource_sharer  # type: ignore[attr-defined]
        self.way: Any = object.__new__(resource_sharer.DupFd)
        offered = self._sharer.register(self._send, self._was_sent)
        self.way._id = offered  # type: ignore[attr-defined]

    def is_there(self) -> bool:
        return self._descriptor >= 0

    def keep_for(self, shared: Any) -> None:
        number = id(shared)
        if number not in self._senders:
            end = self._senders[number] = weakref.finalize(shared, self._ends, number)
            end.atexit = False

    def _send(self, receiver: Any, pid: int) -> None:
        with _offering:
            descriptor = os.dup(self._descriptor)
        try:
            reduction.send_handle(receiver, descriptor, pid)
        finally:
            os.close(descriptor)

    def _was_sent(self) -> None:
        """What the sharer calls after that, and for all it has as it ends, or is a child's."""
        address, key = self.way._id
        with _offering:
            is_ours = self._key[1] == os.getpid() and self._sharer._address == address
            if is_ours and self.is_there():
                self._sharer._cache[key] = self._send, self._was_sent
            else:
                self._close()

    def _ends(self, number: int) -> None:
        with _offering:
            del self._senders[number]
            if not self._senders:
                if _offers.get(self._key) is self:
                    del _offers[self._key]
                _, key = self.way._id
                self._sharer._cache.pop(key, None)
                self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_offers: dict[tuple[bytes, int], _Offer] = {}
# Locks can end at any moment, also in a thread that has this.
_offering = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_offering._at_fork_reinit)  # type: ignore[attr-defined]


def _offer(shared: Any, segment: bytes, descriptor: int) -> Any:
    """A way to a segment that is there as long as this lock."""
    key = segment, os.getpid()
    with _offering:
        known = _offers.get(key)
        if known is not None:
            known.keep_for(shared)
            if known.is_there():
                return known.way
    # Not under our lock: the sharer has one of its own, and calls us with that.
    new = _Offer(segment, descriptor)
    with _offering:
        _offers[key] = new
        new.keep_for(shared)
    return new.way


def _others_may_enter_our_proc() -> bool:
    """Whether processes of the same user can open our descriptors through ``/proc``.

    The kernel lets a process into its own in any case. But where others may not enter (it is not
    dumpable: it was setuid, or has asked for that), it gives the directory to root.
    """
    try:
        return os.stat("/proc/self/fd").st_uid == os.geteuid()
    except OSError:
        return False


# ---- The receiver's side ----

# The segments whose passed descriptors this process has taken over. A process is spawned once, so
# whoever unpickles the same bytes again finds something else under that number.
_taken_over: set[bytes] = set()


class ReceivedSegment:
    """The ways to a segment, as a message's receiver finds them."""

    def __init__(
        self,
        segment: bytes,
        places: list[tuple[int, int]],
        passed: Any = None,
        file: tuple[int, tuple[int, ...]] | None = None,
    ) -> None:
        self.inherited = -1
        self.segment = segment
        self.places = places
        if file is not None:
            # Open until all of the message is unpickled: its locks may come and go meanwhile.
            self.inherited = self._taken_over(passed, *file)
        self.shared = passed if file is None else None

    def __del__(self) -> None:
        if self.inherited >= 0:
            os.close(self.inherited)

    def _taken_over(self, passed: Any, sender: int, identity: tuple[int, ...]) -> int:
        if sender == os.getpid() or self.segment in _taken_over:
            return -1
        try:
            descriptor: int = passed.detach()
            is_it = _identity(descriptor) == identity
        except (OSError, LookupError, TypeError):
            # Not the child that these bytes are for.
            return -1
        if not is_it:
            return -1
        _taken_over.add(self.segment)
        os.set_inheritable(descriptor, False)
        return descriptor

    def rebuild(self, cls: Any, slot: int, tag: int, besides: tuple[Any, ...]) -> Any:
        try:
            return cls._rebuild(self.segment, slot, tag, self.inherited, *besides)
        except LookupError:
            pass  # It is not mapped here.
        tried = []
        is_refused = False
        for place in self.places:
            name = f"/proc/{place[0]}/fd/{place[1]}"
            try:
                descriptor = _open(*place)
            except OSError as error:
                tried.append(f"{name}: {error.strerror}")
                is_refused |= isinstance(error, PermissionError)
                continue
            try:
                return cls._rebuild(self.segment, slot, tag, descriptor, *besides)
            except ValueError as error:
                # The process has gone, or let go of the segment, and the number is another's.
                tried.append(f"{name}: {error}")
            finally:
                os.close(descriptor)
        if self.shared is not None:
            try:
                descriptor = self.shared.detach()
            except (OSError, EOFError) as error:
                tried.append(f"multiprocessing's resource sharer: {error!r}")
            else:
                try:
                    return cls._rebuild(self.segment, slot, tag, descriptor, *besides)
                finally:
                    os.close(descriptor)
        raise RuntimeError(
            f"cannot reach the shared memory of a received {cls.__name__} (tried "
            f"{'; '.join(tried)}): "
            + (
                "the process that has it is another user's, or may not be looked into. Start the "
                "receiver with the lock, as an argument of its process."
                if is_refused
                else "the process that made it has exited or let go of it, and so has the one that "
                "sent it. Keep the lock alive in the sender until it has arrived."
            )
        )


def _open(process: int, number: int) -> int:
    """Opens what a process has open under a number, if that can be shared memory at all."""
    path = f"/proc/{process}/fd/{number}"
    # The number may be something else's by now, and opening a device can have effects.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FileNotFoundError(errno.ENOENT, "the descriptor is something else now", path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)

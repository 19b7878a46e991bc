"""How a pickled lock reaches the memory that it lives in.

A lock pickles as the id of its segment, its slot there, and ways to the segment. A receiver that
has mapped the segment already uses its mapping, and opens nothing. For others there are three ways:

* A child that is being spawned gets a descriptor from its parent, one for each segment, however
  many locks come with it. The child takes it over once, and closes it.
* A process that runs already opens the descriptor of the sender, or else that of the segment's
  maker, through ``/proc``. Neither keeps anything open for the receiver, so a pickle that no
  process unpickles leaks nothing. But one of the two must still have the segment mapped when the
  receiver unpickles.
* A sender whose ``/proc`` other processes may not enter (it is not dumpable, or has no ``/proc``)
  offers a descriptor through ``multiprocessing.resource_sharer``. It offers one for each segment,
  to every process that asks, as long as a lock lives in the sender that was sent like this.

A descriptor's number says little: its process may have closed it, and opened another file under the
same number. So the id of the segment's file goes with the lock, and the receiver compares it before
it opens, takes over or closes anything (see ``descriptors``). It also checks that what it opens is
the segment before it uses it.
"""

from __future__ import annotations

import copyreg
import os
import threading
import weakref
from multiprocessing import context, reduction
from typing import Any

from . import _native
from .descriptors import FileId, Owned, can_open_of_others, is_file_id, is_open_as, open_of

__all__ = ["added_state", "get_state", "rebuild_shared", "reduce_shared", "set_state"]


def reduce_shared(shared: Any) -> tuple[Any, ...]:
    """The ``__reduce_ex__`` of all objects in a segment, users' subclasses included."""
    segment, slot, tag = shared._address()
    arguments = (type(shared), _way_to(shared, segment), slot, tag, *_besides(shared))
    shared._mark_shared()
    return rebuild_shared, arguments, added_state(shared)


def rebuild_shared(cls: Any, way: ReceivedSegment, slot: int, tag: int, *besides: Any) -> Any:
    """Unpickles a lock, or another object in a segment."""
    return way.rebuild(cls, slot, tag, besides)


def _besides(shared: Any) -> tuple[Any, ...]:
    """Returns what a class's ``_rebuild`` takes besides the address."""
    if isinstance(shared, _native.Condition):
        return (shared._lock,)
    if isinstance(shared, _native.Barrier):
        return shared._action, shared._timeout
    if isinstance(shared, _native._Channel):
        from .channels import SentBell  # few programs need it

        return (SentBell(shared),)
    if isinstance(shared, _native.SemLock) and shared._on_owner_died != "warn":
        return (shared._on_owner_died,)
    return ()


def added_state(thing: object) -> Any:
    """Returns the state that a subclass has added.

    It is what the subclass's own ``__getstate__`` returns, or else the instance's dictionary and
    slots.
    """
    cls: Any = type(thing)
    its_own: Any = getattr(cls, "__getstate__", None)
    if its_own is not getattr(object, "__getstate__", None):
        return its_own(thing)
    return _dictionary_and_slots(thing)


def get_state(shared: Any) -> Any:
    """The ``__getstate__`` of all objects in a segment.

    It returns the attributes of a subclass's instance, and those of an event. It leaves out those
    of the other classes' own instances, as the stdlib does: a program can send a lock on which it
    has set an attribute that cannot be pickled.
    """
    cls = type(shared)
    is_our_own = getattr(_native, cls.__name__, None) is cls
    return None if is_our_own and cls is not _native.Event else _dictionary_and_slots(shared)


def set_state(shared: Any, state: Any) -> None:
    """The ``__setstate__``: it does what pickle does for a class without one."""
    slots: Any = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    vars(shared).update(state or {})
    for name, value in (slots or {}).items():
        setattr(shared, name, value)


def _dictionary_and_slots(thing: object) -> Any:
    """Returns the state that pickle takes by default."""
    cls: Any = type(thing)
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

    All locks of a segment in one message share one instance, so the message has it once.
    """

    def __init__(self, *ways: Any) -> None:
        self.ways = ways

    def __reduce__(self) -> tuple[Any, ...]:
        return ReceivedSegment, self.ways


class _Sending(threading.local):
    """The segments in the message that this thread pickles: the pickler's memo keeps them alive."""

    def __init__(self) -> None:
        self.segments: weakref.WeakValueDictionary[Any, SentSegment] = weakref.WeakValueDictionary()


_sending = _Sending()


def _way_to(shared: Any, segment: bytes) -> SentSegment:
    popen: Any = context.get_spawning_popen()
    # A child gets two messages, its preparation data and its process object: both share the ways.
    sent = _sending.segments if popen is None else vars(popen).setdefault("_semlock_segments", {})
    key = segment, os.getpid()
    way: SentSegment | None = sent.get(key)
    if way is None:
        way = sent[key] = _new_way_to(shared, segment, popen)
    return way


def _new_way_to(shared: Any, segment: bytes, popen: Any) -> SentSegment:
    file: FileId = shared._file()
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
            descriptor = _opened_for_child(places[0], shared, popen)
    else:
        mine = os.getpid(), descriptor
        if places[0] != mine:
            places.insert(0, mine)
    if popen is not None:
        return SentSegment(segment, file, places, reduction.DupFd(descriptor), os.getpid())
    if places[0][0] == os.getpid() and not _others_may_enter_our_proc():
        return SentSegment(segment, file, places, _offer(shared, segment, descriptor))
    return SentSegment(segment, file, places)


def _opened_for_child(place: tuple[int, int], shared: Any, popen: Any) -> int:
    """Opens the maker's descriptor in place of ours, and keeps it until the child has it."""
    try:
        opened = open_of(*place, shared._file())
    except OSError as gone:
        raise RuntimeError(
            f"cannot send this {type(shared).__name__}: something else in this process closed the "
            f"descriptor of its shared memory, and its maker's is gone ({gone})"
        ) from gone
    weakref.finalize(popen, opened.close)
    return opened.number


class _Offer:
    """A descriptor that ``multiprocessing.resource_sharer`` sends to every process that asks.

    The sharer removes what is registered when it has sent it once. So this registers it again.
    """

    def __init__(self, segment: bytes, descriptor: int, file: FileId) -> None:
        # Imported here, because it imports much that only an offer needs.
        from multiprocessing import resource_sharer

        self._key = segment, os.getpid()
        self._descriptor = Owned(os.dup(descriptor), file)
        # The finalizers of the segment's locks that were sent, by the locks' ids.
        self._senders: dict[int, weakref.finalize[Any, Any]] = {}
        self._sharer: Any = resource_sharer._resource_sharer  # type: ignore[attr-defined]
        self.way: Any = object.__new__(resource_sharer.DupFd)
        offered = self._sharer.register(self._send, self._was_sent)
        self.way._id = offered  # type: ignore[attr-defined]

    def is_there(self) -> bool:
        return self._descriptor.is_there()

    def keep_for(self, shared: Any) -> None:
        number = id(shared)
        if number not in self._senders:
            end = self._senders[number] = weakref.finalize(shared, self._ends, number)
            end.atexit = False

    def _send(self, receiver: Any, pid: int) -> None:
        with _offering:
            if not self.is_there():
                # Something else in this process closed it. The receiver gets no answer, and raises.
                return
            descriptor = Owned(os.dup(self._descriptor.number), self._descriptor.file)
        try:
            reduction.send_handle(receiver, descriptor.number, pid)
        finally:
            descriptor.close()

    def _was_sent(self) -> None:
        """The sharer calls it after ``_send``, and for everything registered when it stops.

        It stops when the process ends, and in a forked child.
        """
        address, key = self.way._id
        with _offering:
            is_ours = self._key[1] == os.getpid() and self._sharer._address == address
            if is_ours and self.is_there():
                self._sharer._cache[key] = self._send, self._was_sent
            else:
                self._descriptor.close()

    def _ends(self, number: int) -> None:
        with _offering:
            del self._senders[number]
            if not self._senders:
                if _offers.get(self._key) is self:
                    del _offers[self._key]
                _, key = self.way._id
                self._sharer._cache.pop(key, None)
                self._descriptor.close()


_offers: dict[tuple[bytes, int], _Offer] = {}
# It is reentrant, because a lock can be freed at any moment, also in a thread that holds this.
_offering = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_offering._at_fork_reinit)  # type: ignore[attr-defined]


def _offer(shared: Any, segment: bytes, descriptor: int) -> Any:
    """Offers a segment's descriptor as long as this lock lives, and returns the way to it."""
    key = segment, os.getpid()
    with _offering:
        known = _offers.get(key)
        if known is not None:
            known.keep_for(shared)
            if known.is_there():
                return known.way
    # This does not hold our lock: the sharer has a lock of its own, and holds it when it calls us.
    new = _Offer(segment, descriptor, shared._file())
    with _offering:
        _offers[key] = new
        new.keep_for(shared)
    return new.way


def _others_may_enter_our_proc() -> bool:
    """Whether processes of the same user can open our descriptors through ``/proc``.

    The kernel always lets a process into its own directory there. But where other processes may not
    enter, the kernel gives the directory to root. That is so for a process that is not dumpable: it
    was setuid, or has asked for that.
    """
    try:
        return can_open_of_others() and os.stat("/proc/self/fd").st_uid == os.geteuid()
    except OSError:
        return False


# ---- The receiver's side ----

# The segments whose passed descriptors this process has taken over. A process is spawned once. If
# it unpickles the same bytes again, their number refers to something else.
_taken_over: set[bytes] = set()


class ReceivedSegment:
    """The ways to a segment, as a message's receiver finds them."""

    # A class attribute, so that __del__ finds it after __init__ has raised.
    inherited: Owned | None = None

    def __init__(
        self,
        segment: bytes,
        file: FileId,
        places: Any = None,
        passed: Any = None,
        parent: int | None = None,
    ) -> None:
        if not (
            type(segment) is bytes
            and is_file_id(file)
            and _are_places(places)
            and (parent is None or type(parent) is int)
            and (hasattr(passed, "detach") or (passed is None and parent is None))
        ):
            raise ValueError(
                "a received lock does not tell where its shared memory is: its bytes were damaged, "
                "or come from another version of semlock"
            )
        self.segment = segment
        self.file = file
        self.places: list[tuple[int, int]] = places
        if parent is not None:
            # It stays open until the whole message is unpickled. Its locks may come and go
            # meanwhile.
            self.inherited = self._taken_over(passed, parent)
        self.shared = passed if parent is None else None

    def __del__(self) -> None:
        if self.inherited is not None:
            self.inherited.close()

    def _taken_over(self, passed: Any, parent: int) -> Owned | None:
        if parent == os.getpid() or self.segment in _taken_over:
            return None
        try:
            number: int = passed.detach()
            # A child's passed descriptors are inheritable until it takes them over. No other
            # descriptor of a segment is.
            is_it = is_open_as(number, self.file) and os.get_inheritable(number)
        except (OSError, LookupError, TypeError):
            # This is not the child that these bytes are for.
            return None
        if not is_it:
            return None
        _taken_over.add(self.segment)
        os.set_inheritable(number, False)
        return Owned(number, self.file)

    def rebuild(self, cls: Any, slot: int, tag: int, besides: tuple[Any, ...]) -> Any:
        inherited = -1 if self.inherited is None else self.inherited.number
        try:
            return cls._rebuild(self.segment, slot, tag, inherited, *besides)
        except LookupError:
            pass  # The segment is not mapped here.
        tried = []
        is_refused = False
        for place in self.places:
            name = f"/proc/{place[0]}/fd/{place[1]}"
            try:
                descriptor = open_of(*place, self.file)
            except OSError as error:
                tried.append(f"{name}: {error.strerror}")
                is_refused |= isinstance(error, PermissionError)
                continue
            try:
                return cls._rebuild(self.segment, slot, tag, descriptor.number, *besides)
            except ValueError as error:
                tried.append(f"{name}: {error}")
            finally:
                descriptor.close()
        if self.shared is not None:
            try:
                descriptor = Owned(self.shared.detach(), self.file)
            except (OSError, EOFError) as error:
                tried.append(f"multiprocessing's resource sharer: {error!r}")
            else:
                try:
                    if descriptor.is_there():
                        return cls._rebuild(self.segment, slot, tag, descriptor.number, *besides)
                    # close() below leaves it open, because it is not our file.
                    tried.append("multiprocessing's resource sharer: it sent something else")
                finally:
                    descriptor.close()
        raise RuntimeError(
            f"cannot reach the shared memory of a received {cls.__name__} (tried "
            f"{'; '.join(tried)}): "
            + (
                "the process that has it is another user's, or does not let others open its "
                "descriptors. Start the receiver with the lock, as an argument of its process."
                if is_refused
                else "the process that made it has exited or let go of it, and so has the one that "
                "sent it. Keep the lock alive in the sender until it has arrived."
            )
        )


def _are_places(thing: Any) -> bool:
    """Whether this object, which came out of a pickle, is a list of pids and descriptor numbers."""
    return type(thing) is list and all(
        type(place) is tuple and len(place) == 2 and all(type(part) is int for part in place)
        for place in thing
    )

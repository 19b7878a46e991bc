"""The child of test_oracle.py: makes calls, on semlock alone or on the stdlib beside it.

Each line that it reads is a pickled list of calls, as hexadecimal digits. A call is an expression
over the names in `Twin.namespace`. It answers each list with a line: empty, or what differed.
"""

from __future__ import annotations

import _multiprocessing as stock
import copy
import faulthandler
import gc
import multiprocessing
import os
import pickle
import re
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any

import semlock
from semlock import _multiprocessing as ours
from semlock.sharing import ReceivedSegment, rebuild_shared

# Seconds: less than the parent waits for an answer.
HANGS = 50


class Index:
    def __index__(self) -> int:
        return 1


class Float:
    def __float__(self) -> float:
        return 0.0005


class Raising:
    """Fails in each way in which it is used as a number."""

    def fail(self, *_: Any) -> Any:
        raise ZeroDivisionError("on purpose")

    __index__ = __float__ = __bool__ = __len__ = __int__ = fail


class Str(str):
    pass


class Twin:
    """A module, and the semaphores that were made with it."""

    def __init__(self, module: Any, prefix: str) -> None:
        self.module = module
        self.prefix = prefix
        self.locks: list[Any] = []

        class Sub(module.SemLock):
            pass

        self.namespace = {
            "m": module,
            "S": module.SemLock,
            "Sub": Sub,
            # Some names that can be taken, the same for both twins but for one letter.
            "N": [f"{prefix}{i}" for i in range(3)],
            "lock": self.lock,
            "make": self.make,
            "forget": self.forget,
            "guarded": self.guarded,
            "Index": Index(),
            "Float": Float(),
            "Raising": Raising(),
            "Str": Str,
            "pickle": pickle,
            "copy": copy,
            "weakref": weakref,
        }

    def lock(self, index: int) -> Any:
        if not self.locks:
            self.locks.append(self.module.SemLock(1, 1, 2, f"{self.prefix}-first", True))
        return self.locks[index % len(self.locks)]

    def make(self, new: Any) -> Any:
        if len(self.locks) < 6:
            self.locks.append(new)
        return new

    def forget(self, index: int) -> None:
        if self.locks:
            del self.locks[index % len(self.locks)]

    def guarded(self, index: int, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a call that could wait for ever, but only where it does not wait."""
        lock = self.lock(index)
        if lock._is_zero() and not (lock.kind == 0 and lock._is_mine()):
            return "would wait"
        return getattr(lock, method)(*args, **kwargs)

    def plain(self, text: str) -> str:
        return text.replace(self.prefix.lstrip("/"), "<prefix>")

    def outcome(self, call: str) -> Any:
        try:
            result = eval(call, self.namespace)
        except Exception as error:
            text = self.plain(str(error))
            return type(error).__name__, text, getattr(error, "errno", None)
        if isinstance(result, self.module.SemLock):
            name = result.name and self.plain(result.name)
            return type(result).__name__, result.kind, result.maxvalue, name, result._count()
        if isinstance(result, str):
            return self.plain(result)
        if result is None or isinstance(result, (bool, int)):
            return type(result).__name__, result
        return type(result).__name__

    def end(self) -> None:
        self.locks.clear()
        self.namespace.clear()
        gc.collect()
        for entry in os.listdir("/dev/shm"):
            if entry.startswith("sem." + self.prefix.lstrip("/")):
                self.module.sem_unlink(entry.removeprefix("sem."))


# One thread for all: a later thread can get the id of one that ended, and then what that one held.
ANOTHER_THREAD = ThreadPoolExecutor(1)


class Classes:
    """Classes of multiprocessing, or semlock's in their place, and the objects made of them."""

    NAMES = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier")

    def __init__(self, family: Any) -> None:
        self.things: list[Any] = [
            family.Lock(),
            family.RLock(),
            family.Semaphore(2),
            family.BoundedSemaphore(2),
            family.Condition(),
            family.Event(),
            family.Barrier(2),
            family.Barrier(1),
        ]
        self.namespace = {
            **{name: getattr(family, name) for name in self.NAMES},
            "thing": self.thing,
            "make": self.make,
            "forget": self.forget,
            "guarded": self.guarded,
            "elsewhere": self.elsewhere,
            "sent": self.sent,
            "cut": self.cut,
            "Index": Index(),
            "Float": Float(),
            "Raising": Raising(),
            "Str": Str,
            "S": "S",
            "N": ["/a", "/b", "/c"],
            "pickle": pickle,
            "copy": copy,
            "weakref": weakref,
            "semlock": semlock,
        }

    def thing(self, index: int) -> Any:
        return self.things[index % len(self.things)]

    def make(self, new: Any) -> str:
        self.things.append(new)
        if len(self.things) > 12:
            self.forget(0)
        return type(new).__name__

    def forget(self, index: int) -> None:
        """Drops one of the objects that were made later."""
        if later := len(self.things) - 8:
            del self.things[8 + index % later]

    def guarded(self, index: int, method: str, *args: Any, **kwargs: Any) -> Any:
        """Makes a call that could wait for ever, but only where it does not wait."""
        thing = self.thing(index)
        semlock = getattr(getattr(thing, "_lock", thing), "_semlock", None)
        if semlock is not None and semlock._is_zero():
            if not (semlock.kind == 0 and semlock._is_mine()):
                return "would wait"
        elif semlock is None:
            return "might wait"
        return getattr(thing, method)(*args, **kwargs)

    def elsewhere(self, index: int, method: str, *args: Any) -> Any:
        """Makes the same call in another thread."""

        def call() -> str:
            try:
                return str(getattr(self.thing(index), method)(*args))
            except Exception as error:
                return type(error).__name__

        return ANOTHER_THREAD.submit(call).result()

    def sent(self, index: int, changes: dict[str, Any]) -> Any:
        """What arrives when a thing is sent with parts of its state changed."""
        thing = self.thing(index)
        segment, slot, tag = thing._address()
        thing._mark_shared()  # as all do that send it: its slot may be in use when it is gone
        state = {"cls": type(thing), "segment": segment, "slot": slot, "tag": tag}
        state |= {"file": thing._file(), "places": [thing._maker()], "passed": None}
        state |= {"parent": None, "besides": ()}
        if "flip" in changes:
            state["tag"] = tag ^ 1 << changes["flip"]
        state |= {key: value for key, value in changes.items() if key in state}
        if isinstance(state["cls"], str):
            state["cls"] = getattr(semlock, state["cls"])
        ways = [state[key] for key in ("segment", "file", "places", "passed", "parent")]
        received = ReceivedSegment(*ways)
        return rebuild_shared(
            state["cls"], received, state["slot"], state["tag"], *state["besides"]
        )

    def cut(self, index: int, at: int, byte: int) -> Any:
        """What arrives when a thing is sent with one byte of its pickle changed."""
        data = bytearray(ForkingPickler.dumps(self.thing(index)))
        data[at % len(data)] = byte
        return pickle.loads(data)

    def outcome(self, call: str) -> Any:
        try:
            result = eval(call, self.namespace)
        except Exception as error:
            # The interpreter words the errors of arguments itself; all other messages are ours.
            own = isinstance(error, (TypeError, OverflowError, AttributeError))
            said = "" if own else str(error)
            return type(error).__name__, said
        if isinstance(result, str):
            return re.sub(r"0x[0-9a-f]+", "0x", result)
        if result is None or isinstance(result, (bool, int)):
            return type(result).__name__, result
        return type(result).__name__

    def end(self) -> None:
        self.things.clear()
        self.namespace.clear()
        gc.collect()


def make_twins(what: str, alone: bool, prefix: str) -> list[Any]:
    if what == "module":
        return [Twin(ours, prefix + "o"), *([] if alone else [Twin(stock, prefix + "s")])]
    # Of the fork context: what its classes make has no names.
    families = [semlock, *([] if alone else [multiprocessing.get_context("fork")])]
    return [Classes(family) for family in families]


def difference(calls: list[str], what: str, alone: bool, prefix: str) -> str:
    twins = make_twins(what, alone, prefix)
    try:
        for number, call in enumerate(calls):
            outcomes = [twin.outcome(call) for twin in twins]
            if any(outcome != outcomes[0] for outcome in outcomes):
                return f"call {number}, {call}: {outcomes[0]}; on stock: {outcomes[1]}"
    finally:
        for twin in twins:
            twin.end()
    return ""


def main() -> None:
    faulthandler.enable()
    what, alone, prefix = sys.argv[1], sys.argv[2] == "alone", sys.argv[3]
    for line in sys.stdin:
        calls = pickle.loads(bytes.fromhex(line))
        # A call that hangs prints where, before the parent gives up.
        faulthandler.dump_traceback_later(HANGS, exit=True)
        found = difference(calls, what, alone, f"{prefix}-{os.getpid()}")
        faulthandler.cancel_dump_traceback_later()
        print(repr(found), flush=True)


if __name__ == "__main__":
    main()

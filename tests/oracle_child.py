"""The child of test_oracle.py: makes calls, on semlock alone or on stock's module beside it.

Reads a pickled list of calls a line (as hexadecimal digits), each an expression over the names in
`Twin.namespace`, and answers each list with a line: nothing, or what differed.
"""

from __future__ import annotations

import _multiprocessing as stock
import copy
import faulthandler
import gc
import os
import pickle
import sys
import weakref
from typing import Any

from semlock import _multiprocessing as ours


class Index:
    def __index__(self) -> int:
        return 1


class Float:
    def __float__(self) -> float:
        return 0.0005


class Raising:
    """Fails in whatever way it is used as a number."""

    def fail(self, *_: Any) -> Any:
        raise ZeroDivisionError("on purpose")

    __index__ = __float__ = __bool__ = __len__ = __int__ = fail


class Str(str):
    pass


class Twin:
    """A module and what has been made with it."""

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
            # Some names that can be taken, the same for each twin but for one letter.
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
        """A call that could wait for ever: made only where it does not wait."""
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


def difference(calls: list[str], alone: bool, prefix: str) -> str:
    twins = [Twin(ours, prefix + "o")]
    if not alone:
        twins.append(Twin(stock, prefix + "s"))
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
    alone, prefix = sys.argv[1] == "alone", sys.argv[2]
    for line in sys.stdin:
        calls = pickle.loads(bytes.fromhex(line))
        print(repr(difference(calls, alone, f"{prefix}-{os.getpid()}")), flush=True)


if __name__ == "__main__":
    main()

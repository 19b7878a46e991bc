"""``multiprocessing``'s connections: faster ways to move a message, and to wait for several.

``install()`` puts them in the place of the stdlib's, which they call for everything unusual. How a
message is framed does not change.
"""

from __future__ import annotations

import os
import select
import selectors
from collections.abc import Iterable
from multiprocessing import connection
from types import BuiltinFunctionType
from typing import Any

from . import _native

__all__ = ["functions", "methods", "wait"]

_Connection: Any = connection.Connection
_stocks_wait: Any = connection.wait
_stocks_send_bytes, _stocks_send = _Connection._send_bytes, _Connection._send
_stocks_recv_bytes, _stocks_recv = _Connection._recv_bytes, _Connection._recv


def methods() -> list[tuple[str, Any, Any]]:
    """Returns the methods to replace, each as its name, its class, and what replaces it."""
    names = "_send_bytes", "_recv_bytes", "_send", "_recv"
    moved_by = (_stocks_send.__defaults__, os.write), (_stocks_recv.__defaults__, os.read)
    # Other code may have replaced them (eventlet lets its green threads run meanwhile), or a later
    # version has others: then nothing changes.
    is_usual = all(_is_stocks(vars(_Connection).get(name)) for name in names) and all(
        defaults == (call,) and isinstance(call, BuiltinFunctionType) and call.__module__ == "posix"
        for defaults, call in moved_by
    )
    if not is_usual:
        return []
    return [("_send_bytes", _Connection, _send_bytes), ("_recv_bytes", _Connection, _recv_bytes)]


# An instance or class that writes or reads its own way goes on to do so.


def _send_bytes(self: Any, buf: Any) -> None:
    if getattr(self._send, "__func__", None) is _stocks_send:
        _native._write_message(self, buf)
    else:
        _stocks_send_bytes(self, buf)


def _recv_bytes(self: Any, maxsize: Any = None) -> Any:
    if getattr(self._recv, "__func__", None) is _stocks_recv:
        return _native._read_message(self, maxsize)
    return _stocks_recv_bytes(self, maxsize)


def functions() -> list[tuple[str, Any, Any]]:
    """Returns the functions to replace, each as its name, what it is now, and what replaces it."""
    # Where other code has changed how to wait (gevent does), it stays.
    is_usual = (
        _is_stocks(connection.wait)
        and vars(connection).get("_WaitSelector") is vars(selectors).get("PollSelector")
        and isinstance(vars(select).get("poll"), BuiltinFunctionType)
    )
    return [("wait", connection.wait, wait)] if is_usual else []


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait till an object in object_list is ready/readable.

    Returns list of those objects in object_list which are ready/readable.
    """
    objects = list(object_list)
    ready = _native._readable(objects, timeout)
    return _stocks_wait(objects, timeout) if ready is None else ready


def _is_stocks(function: object) -> bool:
    return getattr(function, "__globals__", None) is vars(connection)

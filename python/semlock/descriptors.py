"""Descriptors by their numbers, which anybody can close, and which are something else's then.

Two things must not happen to what is not ours. Opening it: a device or a FIFO may react to that.
And closing it, even if we have just opened it ourselves: a process that closes any descriptor of a
file loses all record locks (``fcntl``) that it has on the file, without a word.

So every file of ours is known by its :data:`FileId`, and that is compared before anything is opened
or closed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeAlias

from . import _native

__all__ = ["FileId", "Owned", "can_open_of_others", "is_file_id", "is_open_as", "open_of"]

# Device, inode, mode, number of names and length, and when it was made (0: nobody can tell).
FileId: TypeAlias = tuple[int, int, int, int, int, int]


def is_file_id(thing: Any) -> bool:
    """Whether this, which came out of a pickle, is a ``FileId`` at all."""
    return type(thing) is tuple and len(thing) == 6 and all(type(part) is int for part in thing)


# Whether this process has this file open under a number. Where there is no such function, on
# Windows, nobody calls it.
is_open_as: Callable[[int, FileId], bool] = getattr(_native, "_is_open_as", None)  # type: ignore[assignment]


class Owned:
    """A descriptor of this process that is to be closed, if it still is what it was then."""

    def __init__(self, number: int, file: FileId) -> None:
        self.number = number
        self.file = file

    def is_there(self) -> bool:
        return is_open_as(self.number, self.file)

    # It can be called when the interpreter ends and globals are gone. Defaults stay.
    def close(self, _is_open_as: Any = is_open_as, _close: Any = os.close) -> None:
        """Closes it, once."""
        number, self.number = self.number, -1
        if _is_open_as(number, self.file):
            _close(number)


def can_open_of_others() -> bool:
    """Whether this system has what :func:`open_of` needs."""
    return hasattr(os, "O_PATH")


def open_of(process: int, number: int, file: FileId) -> Owned:
    """Opens, to read and to write, what a process has open under a number, if it is this file.

    The number can become something else's between any two steps. So the file is looked at by that
    name first, without opening anything; then through a descriptor that only refers to it
    (``O_PATH``: the file is not open by that, and its end drops no locks), which stays at what it
    is; and through this it is opened.

    Raises ``OSError``.
    """
    path = f"/proc/{process}/fd/{number}"
    status = os.stat(path)
    found = status.st_dev, status.st_ino, status.st_mode, status.st_nlink, status.st_size
    if found != file[:-1] or not can_open_of_others():
        raise _something_else(path)
    reference = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not is_open_as(reference, file):
            raise _something_else(path)
        return Owned(os.open(f"/proc/self/fd/{reference}", os.O_RDWR | os.O_CLOEXEC), file)
    finally:
        os.close(reference)


def _something_else(path: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, "the descriptor is something else now", path)

"""Descriptors whose numbers may refer to another file by now.

Any code of a process can close a descriptor. Its number may then refer to a file that is not
semlock's. semlock must do two things to no such file:

* Open it: a device or a FIFO may react to that.
* Close it, even if semlock has just opened it itself: a process that closes any descriptor of a
  file silently loses all record locks (``fcntl``) that it has on the file.

So semlock knows each of its files by a :data:`FileId`, and compares that before it opens or closes
anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeAlias

from . import _native

__all__ = ["FileId", "Owned", "can_open_of_others", "is_file_id", "is_open_as", "open_of"]

# Device, inode, mode, number of names, length, and the time it was made (0: unknown).
FileId: TypeAlias = tuple[int, int, int, int, int, int]


def is_file_id(thing: Any) -> bool:
    """Whether this object, which came out of a pickle, is a ``FileId``."""
    return type(thing) is tuple and len(thing) == 6 and all(type(part) is int for part in thing)


# Whether this process has this file open under a number. On Windows there is no such function, and
# nothing calls it.
is_open_as: Callable[[int, FileId], bool] = getattr(_native, "_is_open_as", None)  # type: ignore[assignment]


class Owned:
    """A descriptor that ``close`` closes only if its number still refers to the same file."""

    def __init__(self, number: int, file: FileId) -> None:
        self.number = number
        self.file = file

    def is_there(self) -> bool:
        return is_open_as(self.number, self.file)

    # It can be called while the interpreter ends, when globals are gone. Defaults stay.
    def close(self, _is_open_as: Any = is_open_as, _close: Any = os.close) -> None:
        """Closes it, once."""
        number, self.number = self.number, -1
        if _is_open_as(number, self.file):
            _close(number)


def can_open_of_others() -> bool:
    """Whether this system has ``O_PATH``, which :func:`open_of` needs."""
    return hasattr(os, "O_PATH")


def open_of(process: int, number: int, file: FileId) -> Owned:
    """Opens, to read and write, the file that a process has open under a number, if it is ``file``.

    Between any two steps the number can come to refer to another file. So there are three steps:

    1. Check the file by its path in ``/proc``. That opens nothing.
    2. Open an ``O_PATH`` descriptor, and check again. It always refers to the same file. It does
       not open the file, and closing it drops no record locks.
    3. Open the file through that descriptor.

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

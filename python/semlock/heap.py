"""Memory of ours for the stdlib's heap, which ``Value``, ``Array`` and the like live in.

The stdlib makes its arenas of files in ``/dev/shm``, or in the temporary directory. Where it cannot
(there is no ``/dev/shm``, or everything is read-only), an arena is made of memory as locks live in.
It is of the stdlib's own class, over another descriptor: so it reaches children as any does, and
they need nothing of semlock for it.
"""

from __future__ import annotations

import mmap
from multiprocessing import heap, util
from types import TracebackType
from typing import Any

from . import _native
from .descriptors import Owned

__all__ = ["Arena", "lend_if_short"]

# Under names of our own, because install() puts ours in the place of the one.
_StockArena: Any = heap.Arena
_stocks_init: Any = _StockArena.__init__


def _fill(arena: Any, size: int) -> None:
    """Gives an arena that has none memory of ours."""
    number = _native._new_memory(size)
    memory = Owned(number, _native._file_id(number))
    util.Finalize(arena, memory.close)
    _stocks_init(arena, size, number)


class Arena(_StockArena):  # type: ignore[misc]
    """What :func:`~semlock.install` makes of the stdlib's, by its ``__init__``."""

    def __init__(self, size: int, fd: int = -1) -> None:
        try:
            _stocks_init(self, size, fd)
        except OSError:
            if fd != -1:
                raise
            _fill(self, size)


def lend_if_short(error: OSError, typecode_or_type: Any, size_or_initializer: Any) -> bool:
    """Whether an error means that the stdlib's heap had no memory for so many of these.

    Then it has an arena of ours now, but another thread may be quicker to use that. Raises
    ``OSError`` where there is no memory at all.
    """
    if not _comes_from_the_heap(error.__traceback__):
        return False
    # install() has no need of them.
    import ctypes
    from multiprocessing import sharedctypes

    kind: Any = vars(sharedctypes)["typecode_to_type"].get(typecode_or_type, typecode_or_type)
    is_size = isinstance(size_or_initializer, int)
    count = size_or_initializer if is_size else len(size_or_initializer)
    stocks: Any = vars(heap.BufferWrapper)["_heap"]
    # As large as its next one.
    length = stocks._roundup(max(stocks._size, ctypes.sizeof(kind) * count), mmap.PAGESIZE)
    arena = _StockArena.__new__(_StockArena)
    _fill(arena, length)
    with stocks._lock:
        stocks._arenas.append(arena)
        stocks._add_free_block((arena, 0, length))
    return True


def _comes_from_the_heap(traceback: TracebackType | None) -> bool:
    """Whether it is no error of what was to be made there."""
    while traceback is not None:
        if traceback.tb_frame.f_code is heap.BufferWrapper.__init__.__code__:
            return True
        traceback = traceback.tb_next
    return False

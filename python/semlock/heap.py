"""semlock's memory for the stdlib's heap, which holds ``Value``, ``Array`` and the like.

The stdlib makes its arenas from files in ``/dev/shm``, or in the temporary directory. Where it
cannot (there is no ``/dev/shm``, or all is read-only), semlock makes an arena from memory of the
kind that locks live in. The arena is of the stdlib's own class, over another descriptor. So it
reaches children as any arena does, and they need no semlock for it.
"""

from __future__ import annotations

import mmap
from multiprocessing import heap, util
from types import TracebackType
from typing import Any

from . import _native
from .descriptors import Owned

__all__ = ["Arena", "lend_if_short"]

# These names are our own, because install() replaces the stdlib's `__init__` with ours.
_StockArena: Any = heap.Arena
_stocks_init: Any = _StockArena.__init__


def _fill(arena: Any, size: int) -> None:
    """Gives memory of ours to an arena that has none."""
    number = _native._new_memory(size)
    memory = Owned(number, _native._file_id(number))
    util.Finalize(arena, memory.close)
    _stocks_init(arena, size, number)


class Arena(_StockArena):  # type: ignore[misc]
    """An arena whose ``__init__`` :func:`~semlock.install` gives to the stdlib's class."""

    def __init__(self, size: int, fd: int = -1) -> None:
        try:
            _stocks_init(self, size, fd)
        except OSError:
            if fd != -1:
                raise
            _fill(self, size)


def lend_if_short(error: OSError, typecode_or_type: Any, size_or_initializer: Any) -> bool:
    """Lends the stdlib's heap an arena of ours if the error says that the heap had no memory.

    Returns whether it did. The arena is large enough for so many elements of the type, but another
    thread may be quicker to use it. Raises ``OSError`` where there is no memory at all.
    """
    if not _comes_from_the_heap(error.__traceback__):
        return False
    # Imported here, because install() does not need them.
    import ctypes
    from multiprocessing import sharedctypes

    kind: Any = vars(sharedctypes)["typecode_to_type"].get(typecode_or_type, typecode_or_type)
    is_size = isinstance(size_or_initializer, int)
    count = size_or_initializer if is_size else len(size_or_initializer)
    stocks: Any = vars(heap.BufferWrapper)["_heap"]
    # The arena is as large as the next one that the heap would make.
    length = stocks._roundup(max(stocks._size, ctypes.sizeof(kind) * count), mmap.PAGESIZE)
    arena = _StockArena.__new__(_StockArena)
    _fill(arena, length)
    with stocks._lock:
        stocks._arenas.append(arena)
        stocks._add_free_block((arena, 0, length))
    return True


def _comes_from_the_heap(traceback: TracebackType | None) -> bool:
    """Whether the heap raised the error, and not the object that was being made in it."""
    while traceback is not None:
        if traceback.tb_frame.f_code is heap.BufferWrapper.__init__.__code__:
            return True
        traceback = traceback.tb_next
    return False

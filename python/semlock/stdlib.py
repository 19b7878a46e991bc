"""Functions of the standard library's that run over semlock."""

from __future__ import annotations

from types import FunctionType

from . import _multiprocessing

__all__ = ["over_our_semlock"]


def over_our_semlock(function: FunctionType) -> FunctionType:
    """The same function of ``multiprocessing.synchronize``'s, with our ``_multiprocessing``.

    All other names keep what they name now, whatever ``install()`` puts in its place later: the
    stdlib's locks say ``SemLock``, and mean their own base class.
    """
    names = {**function.__globals__, "_multiprocessing": _multiprocessing}
    same = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    same.__kwdefaults__ = function.__kwdefaults__
    return same

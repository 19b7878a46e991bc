"""Functions of the standard library, made to run over semlock."""

from __future__ import annotations

from types import FunctionType

from . import _multiprocessing

__all__ = ["over_our_semlock"]


def over_our_semlock(function: FunctionType) -> FunctionType:
    """Copies a function of ``multiprocessing.synchronize``, with our ``_multiprocessing``.

    All its other globals keep the values that they have at this moment, whatever ``install()``
    replaces later: the stdlib's locks say ``SemLock``, and mean their own base class.
    """
    names = {**function.__globals__, "_multiprocessing": _multiprocessing}
    same = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    same.__kwdefaults__ = function.__kwdefaults__
    return same

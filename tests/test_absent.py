"""Where semlock's own classes are missing, what asks for them says so, and nothing is changed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import sys
from types import ModuleType

import pytest
import semlock
from semlock import _native, absent

NAMES = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


@pytest.fixture
def bare() -> ModuleType:
    """What `_native` is on another operating system."""
    module = ModuleType("semlock._native")
    absent.fill_in(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_is_missing_says_so_and_what_there_is(bare: ModuleType, name: str) -> None:
    for arguments in [{}, {"robust": True}]:
        with pytest.raises(NotImplementedError, match=rf"semlock\.{name} is not") as caught:
            getattr(bare, name)(**arguments)
        assert sys.platform in str(caught.value)
        assert 'semlock.install("kernel")' in str(caught.value)


def test_what_is_there_stays() -> None:
    before = {name: getattr(_native, name) for name in NAMES}
    absent.fill_in(_native)
    assert {name: getattr(_native, name) for name in NAMES} == before


def test_installing_what_is_missing_fails_and_changes_nothing(
    bare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(vars(multiprocessing.synchronize)), sys.modules["_multiprocessing"]
    monkeypatch.setattr(semlock, "_native", bare)
    with pytest.raises(NotImplementedError, match="not available"):
        semlock.install()
    assert (dict(vars(multiprocessing.synchronize)), sys.modules["_multiprocessing"]) == before

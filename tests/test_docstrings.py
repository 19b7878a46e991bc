"""Docstrings: each public class and method has one, it names each parameter, its examples run."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import semlock
from semlock import kernel, queues
from semlock.context import Context

CLASSES = [getattr(semlock, name) for name in semlock.__all__ if name[0].isupper()]
# What replaces the native classes on other systems.
REPLACEMENTS = [getattr(kernel, name) for name in kernel.__all__]
QUEUES = [queues.Queue, queues.JoinableQueue, queues.SimpleQueue]
FUNCTIONS = [semlock.get_context, semlock.install, semlock.uninstall]
MAKERS = [
    maker
    for name, maker in vars(Context).items()
    if inspect.isfunction(maker) and not name.startswith("_")
]

WITH_EXAMPLES = [
    *CLASSES,
    *QUEUES,
    *(cls for cls in REPLACEMENTS if cls is not kernel.SemLock),
    semlock.get_context,
    semlock.install,
]

COLUMNS = 100

# Runs an object's examples. In a process of its own, because spawned children leave a resource
# tracker to the process that starts them.
RUN = """\
import doctest, sys
import semlock
from semlock import context, kernel, queues

thing = eval(sys.argv[1])
test = doctest.DocTestParser().get_doctest(thing.__doc__, {}, sys.argv[1], None, 0)
assert test.examples
sys.exit(doctest.DocTestRunner().run(test).failed)
"""


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class that are semlock's."""
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        is_ours = any(name in vars(base) for base in cls.__mro__ if "semlock" in base.__module__)
        if is_ours and not name.startswith("_"):
            yield name, member


def path_of(thing: Any) -> str:
    is_public = getattr(semlock, thing.__name__, None) is thing
    return f"{'semlock' if is_public else thing.__module__}.{thing.__qualname__}"


OBJECTS = {
    **{path_of(thing): thing for thing in [*CLASSES, *QUEUES, *REPLACEMENTS, *FUNCTIONS, *MAKERS]},
    **{
        f"{path_of(cls)}.{name}": member
        for cls in [*CLASSES, *QUEUES, *REPLACEMENTS]
        for name, member in members(cls)
    },
}

each_object = pytest.mark.parametrize("path", OBJECTS)


@each_object
def test_the_first_line_is_a_sentence(path: str) -> None:
    first, *others = inspect.cleandoc(OBJECTS[path].__doc__).splitlines()
    assert re.fullmatch(r"\S.*[.:]", first), first
    assert not others or others[0] == ""


@each_object
def test_lines_end_in_time(path: str) -> None:
    lines = OBJECTS[path].__doc__.splitlines()
    assert [line for line in lines if len(line) > COLUMNS] == []


@each_object
def test_each_parameter_is_described_and_nothing_else(path: str) -> None:
    thing = OBJECTS[path]
    described = re.findall(r"^ *:param (\w+):", thing.__doc__, re.MULTILINE)
    assert described == parameters(thing)


def parameters(thing: Any) -> list[str]:
    is_exception = inspect.isclass(thing) and issubclass(thing, BaseException)
    # An exception without parameters of its own takes what all exceptions take.
    if not callable(thing) or (is_exception and "__init__" not in vars(thing)):
        return []
    return [name for name in inspect.signature(thing).parameters if name != "self"]


@pytest.mark.parametrize("thing", WITH_EXAMPLES, ids=path_of)
def test_it_has_an_example(thing: Any) -> None:
    assert ">>> " in thing.__doc__


@pytest.mark.parametrize(
    "path", [path for path, thing in OBJECTS.items() if ">>> " in thing.__doc__]
)
def test_its_example_runs(path: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

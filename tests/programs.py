"""The tests' programs. Each runs in a file of its own: every start method can import it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from children import NAMES_SEMAPHORES, output

TESTS = str(Path(__file__).resolve().parent)

METHODS = ["fork", "spawn", "forkserver"]

HEAD = (
    NAMES_SEMAPHORES
    + """
import gc, json, multiprocessing, os, pickle, signal, sys, threading, time

"""
    + f"sys.path.append({str(TESTS)!r})\n"
    + """
import semlock
from children import is_asleep, wait_until


def main():
    print(json.dumps(body()))


def method():
    return sys.argv[1]


def descriptors():
    return sorted(
        (int(entry), os.readlink(f"/proc/self/fd/{entry}"))
        for entry in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{entry}")
    )


def raised(function, *arguments, **keywords):
    try:
        function(*arguments, **keywords)
    except Exception as error:
        return type(error).__name__
    return "nothing"


def killed(process):
    process.join()
    return process.exitcode == -signal.SIGKILL


"""
)

# How programs kill a process where it uses a queue.
KILLS = '''
import semlock.queues as ours

LARGE = b"x" * 300_000  # more than a queue holds


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def after_calls(count, function, then):
    """`function` so many times, then something else."""
    def replacement(*arguments, **keywords):
        nonlocal count
        if count == 0:
            then()
        count -= 1
        return function(*arguments, **keywords)
    return replacement


'''
TAIL = '\n\nif __name__ == "__main__":\n    main()\n'

Program = Callable[..., Any]


def run_program(directory: Path, source: str, *arguments: str) -> Any:
    """Returns what a program's function ``body`` returns. The program must say nothing else."""
    path = directory / "program.py"
    path.write_text(HEAD + source + TAIL)
    return json.loads(output(path, *arguments, cwd=directory))

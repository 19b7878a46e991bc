"""Child processes: how the tests run them, look at them and end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Watchdogs, not bounds: what waits longer than this hangs.
PATIENCE = 60.0

# What every semaphore of these tests is called, those of multiprocessing itself included.
PREFIX = f"/semlock-test-{os.getpid()}"

# The head of a program whose multiprocessing names its semaphores so.
NAMES_SEMAPHORES = (
    "import multiprocessing.process\n"
    f"multiprocessing.process.current_process()._config['semprefix'] = {PREFIX!r}\n"
)


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Starts Python in a session of its own, so that all its children can be ended with it."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, text=True, start_new_session=True, **options)


def end(child: subprocess.Popen[str]) -> None:
    """Kills what is left of a child and its children, and reaps it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


@contextmanager
def started(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    child = start(*arguments, **options)
    try:
        yield child
    finally:
        end(child)


def run(
    *arguments: str | Path, stdin: str | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs Python to its end."""
    options["stdin"] = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with started(*arguments, **options) as child:
        stdout, stderr = child.communicate(stdin, timeout=PATIENCE)
        return subprocess.CompletedProcess(child.args, child.returncode, stdout, stderr)


def output(*arguments: str | Path, **options: Any) -> str:
    """The standard output of a program that must succeed and say nothing else."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what nothing announces."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain until {what}"
        time.sleep(0.001)


def wait_until_asleep(child: subprocess.Popen[str]) -> None:
    """Waits until the main thread of a child sleeps in a system call.

    A child of one thread, whose last words were that it is about to wait, then does.
    """

    def asleep() -> bool:
        assert child.poll() is None, f"the child ended with {child.returncode}"
        stat = Path(f"/proc/{child.pid}/task/{child.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"

    wait_until(asleep, "the child sleeps")

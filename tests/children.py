"""Child processes: how the tests run, check and end them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

# Seconds of the watchdogs, which bound nothing: what waits longer than this hangs.
PATIENCE = 60.0

# The prefix of every semaphore's name in these tests, those of multiprocessing itself included.
PREFIX = f"/semlock-test-{os.getpid()}"

# The head of a program whose multiprocessing names its semaphores with that prefix.
NAMES_SEMAPHORES = (
    "import multiprocessing.process\n"
    f"multiprocessing.process.current_process()._config['semprefix'] = {PREFIX!r}\n"
)


def start(
    *arguments: str | Path, program: str | Path = sys.executable, **options: Any
) -> subprocess.Popen[str]:
    """Starts Python in a session of its own, so that all its children can be ended with it."""
    # A child that hangs can be asked where: see `tracebacks_of`.
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {"env": environment, **pipes, **options}
    command = [*map(str, (program, *arguments))]
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
    *arguments: str | Path, stdin: str | None = None, patience: float = PATIENCE, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs Python to its end."""
    options["stdin"] = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    with started(*arguments, **options) as child:
        try:
            stdout, stderr = child.communicate(stdin, timeout=patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{child.args} hangs:\n{tracebacks_of(child)}") from None
        return subprocess.CompletedProcess(child.args, child.returncode, stdout, stderr)


def tracebacks_of(child: subprocess.Popen[str]) -> str:
    """Ends a child and its children, each of which says where its threads were."""
    os.killpg(child.pid, signal.SIGABRT)
    try:
        stdout, stderr = child.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        stdout, stderr = child.communicate()
    return stdout + stderr


def output(*arguments: str | Path, **options: Any) -> str:
    """The standard output of a program that must succeed and say nothing else."""
    done = run(*arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], object], what: str = "it is so") -> None:
    """Waits for a state that nothing announces."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain until {what}"
        time.sleep(0.001)


def state_of(pid: int, thread: int | None = None) -> str:
    """The kernel's letter for the state of a thread: the main one, unless another is named.

    "Z" if it has ended and nobody has waited for it, and "X" if it is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/task/{thread or pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return stat.rpartition(")")[2].split()[0]


def is_asleep(pid: int, thread: int | None = None) -> bool:
    """Whether a thread sleeps in a system call."""
    return state_of(pid, thread) == "S"


def wait_until_asleep(child: subprocess.Popen[str] | Child) -> None:
    """Waits until the main thread of a child sleeps in a system call.

    A child of one thread has said that it is about to wait: then this sleep is its wait.
    """

    def asleep() -> bool:
        assert child.poll() is None, f"the child ended with {child.poll()}"
        return is_asleep(child.pid)

    wait_until(asleep, "the child sleeps")


def wait_until_gone(orphan: int) -> None:
    """Waits for a process that may become our child when its parent ends, or may not."""

    def gone() -> bool:
        try:
            return os.waitpid(orphan, os.WNOHANG)[0] == orphan
        except ChildProcessError:
            return not Path(f"/proc/{orphan}").exists()

    wait_until(gone, "the orphan has ended")


# ---- Forked children, which share what the test has made ----

PR_SET_PDEATHSIG = 1


class Line:
    """A connection between a process and its forked child."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def say(self, what: Any = None) -> None:
        self.connection.send(("said", what))

    def hear(self) -> Any:
        """What the other side says next."""
        return self.expect("said")

    def says_something(self) -> bool:
        return self.connection.poll(0)

    def expect(self, kind: str) -> Any:
        assert self.connection.poll(PATIENCE), "the other side says nothing"
        try:
            what, message = self.connection.recv()
        except (ConnectionError, EOFError):
            raise AssertionError("the other side is gone") from None
        assert what != "failed", f"in the child:\n{message}"
        assert what == kind, f"{what} {message!r} instead of being {kind}"
        return message


class Child(Line):
    """A forked child, seen from its parent."""

    def __init__(self, pid: int, connection: Connection) -> None:
        super().__init__(connection)
        self.pid = pid
        self.status: int | None = None

    def result(self) -> Any:
        """What the child's body returns in the end."""
        result = self.expect("ended")
        self.reap()
        return result

    def kill(self) -> None:
        """Ends the child at once, but does not reap it: it becomes a zombie."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        _, self.status = os.waitpid(self.pid, 0)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def poll(self) -> int | None:
        """None while the child lives. It is not reaped."""
        if self.status is not None:
            return self.status
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return None if ended is None else ended.si_status


def run_child(body: Callable[[Line], Any], connection: Connection) -> NoReturn:
    try:
        # If the test itself is killed, this child dies with it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        message = ("ended", body(Line(connection)))
    except BaseException:
        message = ("failed", traceback.format_exc())
    finally:
        with suppress(OSError):  # nobody may listen any more
            connection.send(message)
        os._exit(0)


@contextmanager
def forked(body: Callable[[Line], Any], fork: Callable[[], int] = os.fork) -> Iterator[Child]:
    """A forked child that runs `body` and ends. It is killed and reaped in any case."""
    ours, theirs = Pipe()
    pid = fork()
    if not pid:
        ours.close()  # so that the line ends with our parent
        run_child(body, theirs)
    child = Child(pid, ours)
    try:
        theirs.close()
        yield child
    finally:
        if child.status is None:
            os.kill(pid, signal.SIGKILL)
            child.reap()
        ours.close()


def in_a_child(body: Callable[[], Any]) -> Any:
    """What `body` returns in a forked child, or an AssertionError with its traceback."""
    with forked(lambda _: body()) as child:
        return child.result()


def fork(life: Callable[[], Any]) -> int:
    """A forked child that runs `life` and ends with the number that it returns. Nobody reaps it."""
    pid = os.fork()
    if not pid:
        status = 101
        try:
            status = int(life() or 0)
        finally:
            os._exit(status)
    return pid


def in_a_fresh_interpreter(
    function: Callable[..., Any], *arguments: Any, first: str = "", **options: Any
) -> None:
    """Runs a function of a test module where nothing of semlock has run, after the code `first`."""
    module, name = function.__module__, function.__name__
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{first}\n"
        f"import {module}\n{module}.{name}(*{arguments!r})\n"
    )
    assert output("-c", script, **options) == ""

"""What the kernel offers to cause trouble: filters of system calls, namespaces, chosen pids.

Every function here changes the process that calls it, so the tests call them in children. The
marks at the end probe, in a child, whether this machine allows each feature.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EOPNOTSUPP
from pathlib import Path
from typing import Any

import pytest
from children import Child, Line, forked, in_a_child, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
# Keeps the GIL during a call, as calls that fork must.
LIBC_UNDER_GIL = ctypes.PyDLL(None, use_errno=True)

# What differs between architectures: AUDIT_ARCH_* and the numbers of system calls.
ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        {
            "clone": 56,
            "exit": 60,
            "fcntl": 72,
            "madvise": 28,
            "memfd_create": 319,
            "open": 2,
            "openat": 257,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "exit": 93, "fcntl": 25, "madvise": 233, "memfd_create": 279, "openat": 56},
    ),
}
ARCHITECTURE, NUMBERS = ARCHITECTURES.get(platform.machine(), (0, {}))
NUMBERS = {"pidfd_open": 434, "openat2": 437, **NUMBERS}


def system_call(name: str, *arguments: int) -> int:
    """Calls the kernel, without the GIL. Raises OSError."""
    return checked(LIBC.syscall(NUMBERS[name], *map(ctypes.c_long, arguments)), name)


def checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


# ---- Filters of system calls ----


@dataclass(frozen=True)
class Denied:
    """A system call that fails with `errno`: always, or if `argument` has one of `bits`."""

    call: str
    errno: int
    argument: int = 0
    bits: int = 0


LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
OFFSET_OF_NUMBER, OFFSET_OF_ARCHITECTURE, OFFSET_OF_ARGUMENTS = 0, 4, 16  # struct seccomp_data


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def deny(*denied: Denied) -> None:
    """Makes system calls of this process and of its children fail from now on."""

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    program = [
        instruction(LOAD_WORD, OFFSET_OF_ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, ARCHITECTURE, 1, 0),
        instruction(RETURN, SECCOMP_RET_ALLOW),
        instruction(LOAD_WORD, OFFSET_OF_NUMBER),
    ]
    for rule in denied:
        if rule.call not in NUMBERS:  # this architecture has no such call
            continue
        number, fail = NUMBERS[rule.call], instruction(RETURN, SECCOMP_RET_ERRNO | rule.errno)
        if rule.bits:
            program += [
                instruction(JUMP_IF_EQUAL, number, 0, 4),
                instruction(LOAD_WORD, OFFSET_OF_ARGUMENTS + 8 * rule.argument),
                instruction(JUMP_IF_ANY_BIT, rule.bits, 0, 1),
                fail,
                instruction(LOAD_WORD, OFFSET_OF_NUMBER),
            ]
        else:
            program += [instruction(JUMP_IF_EQUAL, number, 0, 1), fail]
    program.append(instruction(RETURN, SECCOMP_RET_ALLOW))
    checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    bpf = Program(len(program), b"".join(program))
    result = LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(bpf), 0, 0)
    checked(result, "prctl(PR_SET_SECCOMP)")


TMPFILE = 0o20000000  # __O_TMPFILE; O_TMPFILE also has O_DIRECTORY


def new_files_denied(errno: int) -> list[Denied]:
    """No new file can be made anywhere. Files that exist can be opened."""
    return [
        Denied("open", errno, 1, os.O_CREAT | TMPFILE),
        Denied("openat", errno, 2, os.O_CREAT | TMPFILE),
        Denied("openat2", errno),
    ]


def nameless_files_denied() -> list[Denied]:
    """As on a file system that has no files without a name."""
    return [Denied("open", EOPNOTSUPP, 1, TMPFILE), Denied("openat", EOPNOTSUPP, 2, TMPFILE)]


# ---- Namespaces ----

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000
MS_RDONLY, MS_REC, MS_PRIVATE = 1, 16384, 1 << 18


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags), "unshare")


def mount(kind: str, target: str | Path, options: str = "", flags: int = 0) -> None:
    arguments = (kind.encode(), os.fsencode(target), kind.encode())
    checked(LIBC.mount(*arguments, ctypes.c_ulong(flags), options.encode()), f"mount {kind}")


def have_own_mounts() -> None:
    """From now on, other processes do not see what this process mounts."""
    unshare(CLONE_NEWNS)
    private = ctypes.c_ulong(MS_REC | MS_PRIVATE)
    checked(LIBC.mount(b"none", b"/", None, private, None), "mount --make-rprivate /")


def in_a_pid_namespace(body: Callable[[], Any], *, own_proc: bool) -> Any:
    """Runs `body` as the first process of a new pid namespace.

    Without a /proc of its own it sees the /proc of the outer namespace, as after `unshare --pid
    --fork`: there, its pids name other processes.
    """

    def first() -> Any:
        assert os.getpid() == 1
        if own_proc:
            mount("proc", "/proc")
        return body()

    def outside() -> Any:
        if own_proc:
            have_own_mounts()
        unshare(CLONE_NEWPID)
        return in_a_child(first)

    return in_a_child(outside)


# ---- Chosen pids ----


def choose_next_pid(pid: int) -> None:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))


@contextmanager
def forked_as(pid: int, body: Callable[[Line], Any]) -> Iterator[Child]:
    """A forked child that has this pid. The pid must be free, and the pid namespace our own."""
    for _ in range(20):
        choose_next_pid(pid)
        with forked(body) as child:
            if child.pid == pid:
                yield child
                return
    raise AssertionError(f"no child gets the pid {pid}")


@contextmanager
def thread_with_id(tid: int) -> Iterator[None]:
    """A thread that has this id. The id must be free, and the pid namespace our own."""
    for _ in range(20):
        ended = threading.Event()
        thread = threading.Thread(target=ended.wait)
        choose_next_pid(tid)
        thread.start()
        try:
            if thread.native_id == tid:
                yield
                return
        finally:
            ended.set()
            thread.join()
    raise AssertionError(f"no thread gets the id {tid}")


def wait_for_the_next_clock_tick() -> None:
    """A process that starts now has another start time than any process before."""

    def ticks() -> int:
        return int(Path("/proc/uptime").read_text().split()[0].replace(".", ""))

    start = ticks()
    wait_until(lambda: ticks() > start + 1, "the clock ticks")


# ---- Capabilities ----

CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE = 21, 40
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def lose_its_right_to_open_mappings() -> None:
    """As in most processes: `/proc/self/map_files` can be opened with these capabilities alone."""
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (
        ctypes.c_uint32 * 6
    )()  # effective, permitted, inheritable: the low halves, the high ones
    checked(LIBC.capget(header, sets), "capget")
    for capability in (CAP_SYS_ADMIN, CAP_CHECKPOINT_RESTORE):
        for kind in range(3):
            sets[capability // 32 * 3 + kind] &= ~(1 << capability % 32)
    checked(LIBC.capset(header, sets), "capset")


def open_own_mapping() -> None:
    line = Path("/proc/self/maps").read_text().split("\n", 1)[0]
    os.close(os.open(f"/proc/self/map_files/{line.split()[0]}", os.O_RDONLY))


# ---- Forks behind the back of atfork handlers ----


def raw_clone() -> int:
    arguments = [ctypes.c_long(argument) for argument in (17, 0, 0, 0, 0)]  # SIGCHLD
    return checked(LIBC_UNDER_GIL.syscall(NUMBERS["clone"], *arguments), "clone")


def bare_fork() -> int:
    """glibc's _Fork: async-signal-safe, so it calls no handlers."""
    return checked(LIBC_UNDER_GIL._Fork(), "_Fork")


FORKS: dict[str, Callable[[], int]] = {"clone": raw_clone, "_Fork": bare_fork}


# ---- Whether this machine allows it ----


def works(body: Callable[[], Any]) -> bool:
    try:
        in_a_child(body)
    except AssertionError:
        return False
    return True


def choosing_pids_works() -> None:
    with forked(lambda _: None) as child:
        pid = child.pid
        child.result()
    with forked_as(pid, lambda line: line.hear()):
        pass


needs_seccomp = pytest.mark.skipif(
    not works(lambda: deny(Denied("memfd_create", 1))),
    reason="this process may not filter its system calls (seccomp)",
)
needs_own_mounts = pytest.mark.skipif(
    not works(have_own_mounts), reason="this process may not have mounts of its own (unshare)"
)
needs_pid_namespaces = pytest.mark.skipif(
    not works(lambda: in_a_pid_namespace(os.getpid, own_proc=True)),
    reason="this process may not have a pid namespace of its own (unshare)",
)
needs_chosen_pids = pytest.mark.skipif(
    not works(lambda: in_a_pid_namespace(choosing_pids_works, own_proc=True)),
    reason="this process may not choose pids (ns_last_pid in a pid namespace of its own)",
)
needs_another_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user"
)
needs_the_right_to_open_mappings = pytest.mark.skipif(
    not works(open_own_mapping),
    reason="this process may not open what it has mapped (CAP_CHECKPOINT_RESTORE)",
)
FORKS_HERE = [
    pytest.param(
        fork,
        id=name,
        marks=pytest.mark.skipif(
            (name == "_Fork" and not hasattr(LIBC, "_Fork"))
            or (name == "clone" and "clone" not in NUMBERS),
            reason=f"there is no {name} here",
        ),
    )
    for name, fork in FORKS.items()
]

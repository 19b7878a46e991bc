"""Samples a driver and its processes from outside, through `/proc`: it trusts nothing they do.

A sample has two kinds of figures. Those of *things* (descriptors, mappings that have a name,
threads, processes, segments, entries of `/dev/shm`) must be the same at every rest. Those of
*memory* vary by what allocators keep, and must show no trend.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SHM = Path("/dev/shm")
SEGMENT = "/memfd:semlock (deleted)"


@dataclass
class Process:
    """What one process has. Things are grouped by kind, and by what they are."""

    pid: int
    role: str
    threads: dict[str, str] = field(default_factory=dict)
    is_zombie: bool = False
    descriptors: dict[str, str] = field(default_factory=dict)
    mappings: dict[str, str] = field(default_factory=dict)
    nameless_mappings: int = 0
    # Bytes.
    segments: dict[str, int] = field(default_factory=dict)
    rss: int = 0
    pss: int = 0
    anonymous: int = 0


@dataclass
class Sample:
    processes: list[Process]
    shm: frozenset[str]

    def things(self) -> dict[str, int]:
        """How many there are of what must not grow, by name."""
        found: Counter[str] = Counter()
        for process in self.processes:
            role = process.role
            found[f"{role}: processes"] += 1
            found[f"{role}: threads"] += len(process.threads)
            found[f"{role}: zombies"] += process.is_zombie
            for kind in process.descriptors.values():
                found[f"{role}: descriptors, {kind}"] += 1
            for kind in process.mappings.values():
                found[f"{role}: mappings, {kind}"] += 1
        segments = {
            key: size for process in self.processes for key, size in process.segments.items()
        }
        found["all: segments"] = len(segments)
        found["all: KiB in segments"] = sum(segments.values()) // 1024
        found["/dev/shm: entries"] = len(self.shm)
        return dict(found)

    def nameless_mappings(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for process in self.processes:
            found[f"{process.role}: mappings, nameless"] += process.nameless_mappings
        return dict(found)

    def memory(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for process in self.processes:
            found[f"{process.role}: anonymous memory"] += process.anonymous
        return dict(found)

    def total(self, figure: str) -> int:
        values = (getattr(process, figure) for process in self.processes)
        return sum(value if isinstance(value, int) else len(value) for value in values)

    def details(self) -> dict[str, list[str]]:
        """Each thing, as the kernel calls it."""
        found: dict[str, list[str]] = {"/dev/shm: entries": sorted(self.shm)}
        for process in self.processes:
            for what, things in (
                ("descriptors", process.descriptors),
                ("mappings", process.mappings),
                ("threads", process.threads),
            ):
                for name, kind in things.items():
                    kinds = f"{process.role}: {what}" + (f", {kind}" if kind else "")
                    found.setdefault(kinds, []).append(f"{process.pid}: {name}")
            found.setdefault(f"{process.role}: processes", []).append(str(process.pid))
        return found


def sample(session: int, roles: dict[int, str], prefix: str) -> Sample:
    """All processes of a session, and what `/dev/shm` has under names that start with `prefix`."""
    processes = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            # It may end during the sample.
            with suppress(FileNotFoundError, ProcessLookupError):
                if os.getsid(int(entry)) == session:
                    processes.append(_look_at(int(entry), roles))
    shm = frozenset(name for name in os.listdir(SHM) if prefix in name) if SHM.is_dir() else ()
    return Sample(processes, frozenset(shm))


def _look_at(pid: int, roles: dict[int, str]) -> Process:
    folder = Path(f"/proc/{pid}")
    process = Process(pid, roles.get(pid) or _role(folder))
    process.is_zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    if process.is_zombie:
        return process
    for number in os.listdir(folder / "task"):
        with suppress(FileNotFoundError, ProcessLookupError):
            name = (folder / "task" / number / "comm").read_text().strip()
            process.threads[f"{number} ({name})"] = ""
    for number in os.listdir(folder / "fd"):
        with suppress(FileNotFoundError):
            name = os.readlink(folder / "fd" / number)
            process.descriptors[f"{number} -> {name}"] = _kind(name)
    for line in (folder / "maps").read_text().splitlines():
        addresses, _access, offset, _device, inode, *name = line.split(maxsplit=5)
        if inode == "0":
            process.nameless_mappings += 1
            continue
        process.mappings[f"{addresses} {name[0] if name else inode} +{offset}"] = _kind(
            name[0] if name else "nameless file"
        )
        if name and name[0] == SEGMENT:
            first, last = (int(address, 16) for address in addresses.split("-"))
            process.segments[inode] = max(last - first, process.segments.get(inode, 0))
    for line in (folder / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss", "Anonymous"):
            setattr(process, name.lower(), int(rest.split()[0]) * 1024)
    return process


def _role(folder: Path) -> str:
    command = (folder / "cmdline").read_bytes()
    for role in "forkserver", "resource_tracker":
        if role.encode() in command:
            return role
    return "child"


def _kind(name: str) -> str:
    """A thing's name, without what differs from one thing to another of its kind."""
    if name.startswith(("pipe:", "socket:", "anon_inode:")):
        return name.split("[")[0].rstrip(":") if "anon" not in name else name
    if name == SEGMENT:
        return "segment"
    if name.startswith("/dev/shm/"):
        return "/dev/shm"
    return re.sub(r"pym-\S+", "pym-*", name)

"""The memory and the descriptors of 100,000 locks, and of a few locks kept among many that end.

All of them live in the process that made them. There are no rivals here: each lock of the stdlib
needs a mapping, and a process can have only 65,530 mappings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import semlock
from children import PATIENCE
from rounds import Row, Table

LOCKS = 100_000
# So many locks are kept. After each of them, so many batches of so many locks are made and dropped.
# The process forks a child while a batch exists.
KEPT, BATCHES, BATCH = 20, 10, 450


def descriptors() -> dict[int, int]:
    """The bytes that the file of each open descriptor has allocated."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.fstat(int(name)).st_blocks * 512
        except OSError:
            continue  # listdir's own descriptor, which is closed already
    return found


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def private() -> int:
    """The resident bytes of this process that no other process shares."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kilobytes) * 1024


def occupied() -> dict[str, int]:
    """What the locks of this process need. All allocated shared memory counts, used or not."""
    before = descriptors(), private(), mappings()
    locks = [semlock.Lock() for _ in range(LOCKS)]
    after = descriptors(), private(), mappings()
    assert len(locks) == LOCKS
    new = after[0].keys() - before[0].keys()
    return {
        "descriptors": len(new),
        "shared": sum(after[0][descriptor] for descriptor in new),
        "private": after[1] - before[1],
        "mappings": after[2] - before[2],
    }


def kept() -> dict[str, int]:
    """What a few kept locks need, if many other locks end between them, each after a fork."""
    before = descriptors()
    locks = []
    for _ in range(KEPT):
        locks.append(semlock.Lock())
        for _ in range(BATCHES):
            batch = [semlock.Lock() for _ in range(BATCH)]
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            del batch
    after = descriptors()
    new = after.keys() - before.keys()
    return {"descriptors": len(new), "shared": sum(after[descriptor] for descriptor in new)}


MEASURES = {"occupied": occupied, "kept": kept}


def measured(what: str) -> dict[str, int]:
    """The result in a new process: in this one, earlier measurements have changed the memory."""
    command = [sys.executable, __file__, what]
    ran = subprocess.run(command, timeout=PATIENCE, check=True, stdout=subprocess.PIPE)
    found: dict[str, int] = json.loads(ran.stdout)
    return found


def table(_rounds: int) -> Table:
    found, few = measured("occupied"), measured("kept")
    among = f"{KEPT} kept among {KEPT * BATCHES * BATCH:,} that ended after a fork"
    megabyte = 1e6
    return Table(
        f"{LOCKS:,} locks alive in their maker",
        "",
        [
            Row("shared memory", "MB", found["shared"] / megabyte, bound=8),
            Row(
                "shared and private memory",
                "MB",
                (found["shared"] + found["private"]) / megabyte,
                bound=20,
            ),
            Row("descriptors", "", found["descriptors"], bound=20),
            Row("mappings", "", found["mappings"]),
            Row(f"{among}: shared memory", "MB", few["shared"] / megabyte, bound=1),
            Row(f"{among}: descriptors", "", few["descriptors"], bound=2),
        ],
    )


if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]]()))

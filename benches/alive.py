"""100,000 locks alive in the process that made them, and a few kept among many: what they occupy.

There are no rivals here: the stdlib's take a mapping each, and a process may have 65,530.
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
# So many are kept; after each, so many batches come and go, with a fork while each is there.
KEPT, BATCHES, BATCH = 20, 10, 450


def descriptors() -> dict[int, int]:
    """The bytes that are allocated behind each open descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.fstat(int(name)).st_blocks * 512
        except OSError:
            continue  # that of listdir itself
    return found


def mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def private() -> int:
    """Resident bytes that are this process's alone."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kilobytes) * 1024


def occupied() -> dict[str, int]:
    """What this process's locks take. Shared memory counts when it is allocated, touched or not."""
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
    """What a few locks take that are kept among many that end, some of them after a fork."""
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
    """In a process of its own: this one's memory has grown, and been freed, already."""
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

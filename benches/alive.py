"""The memory and the descriptors of 100,000 locks, and of a few locks kept among many that end.

All of them live in the process that made them. There are no rivals here: each lock of the stdlib
needs a mapping, and a process can have only 65,530 mappings.
"""

from __future__ import annotations

import json
import os
import sys

import semlock
from memory import descriptors, mappings, measured, private
from rounds import Row, Table

LOCKS = 100_000
# So many locks are kept. After each of them, so many batches of so many locks are made and dropped.
# The process forks a child while a batch exists.
KEPT, BATCHES, BATCH = 20, 10, 450


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


def table(_rounds: int) -> Table:
    found, few = measured(__file__, "occupied"), measured(__file__, "kept")
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

"""What objects occupy: memory and descriptors of the process that has them.

It is measured in a new process: in this one, earlier measurements have changed the memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from children import PATIENCE


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


def measured(file: str, what: str) -> dict[str, int]:
    """What a file prints, as JSON, when a new process runs it with this argument."""
    command = [sys.executable, file, what]
    ran = subprocess.run(command, timeout=PATIENCE, check=True, stdout=subprocess.PIPE)
    found: dict[str, int] = json.loads(ran.stdout)
    return found

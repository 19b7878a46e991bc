"""The Rust core beside its rivals. Criterion measures them, and this module reads its results."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from rounds import Table, interleaved, row_of

ROOT = Path(__file__).resolve().parent.parent
# Criterion's names, and what they stand for: the lock of language bindings, and of Rust programs.
OURS = {"raw_lock": "raw lock", "mutex_guard": "`Mutex` with guard"}
# Criterion's name, what it stands for, and the bound.
RIVALS = [
    ("sem_t", "glibc's `sem_t`", 1.2),
    ("robust_pthread_mutex", "a robust `pthread_mutex_t`", 1.0),
    ("ofd_lock", "`fcntl` lock, of the open file (OFD)", None),
    ("record_lock", "`fcntl` lock, of the process", None),
]
# In seconds. This includes the time to compile.
PATIENCE = 20 * 60


def estimates(folder: Path) -> dict[str, float]:
    """The median nanoseconds of each benchmark whose results criterion wrote to a folder."""
    return {
        file.parts[-3]: json.loads(file.read_text())["median"]["point_estimate"]
        for file in folder.glob("**/new/estimates.json")
    }


def run_criterion(*arguments: str) -> dict[str, float]:
    # Cargo sets CARGO to its own path for the programs that it runs.
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "bench", "--quiet", "--package", "semlock-bench", "--bench", "uncontended"]
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [*command, "--", *arguments],
            cwd=ROOT,
            env={**os.environ, "CRITERION_HOME": folder},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")
        return estimates(Path(folder))


def table(rounds: int) -> Table:
    # This compiles the benchmarks, and runs each of them once.
    run_criterion("--test")
    short = ["--warm-up-time", "0.05", "--measurement-time", "0.2", "--nresamples", "1000"]
    [found] = interleaved([lambda: run_criterion(*short)], max(1, rounds // 3))
    figures = {name: [each[name] for each in found] for name in found[0]}
    rows = [
        row_of(f"{what} beside {rival}", figures[theirs], figures[ours], bound=bound)
        for ours, what in OURS.items()
        for theirs, rival, bound in RIVALS
    ]
    return Table("Rust: lock and unlock, robust", "the rival", rows)

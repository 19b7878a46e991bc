"""The machine and the versions of a run. Without these, its figures say little."""

from __future__ import annotations

import os
import platform
import sysconfig
from importlib import metadata
from pathlib import Path


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """The versions of the installed packages."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def load() -> str:
    """How busy other programs keep the machine. Call this before anything is measured."""
    average = os.getloadavg()[0]
    # A process that never waits adds at least this to the average of the last minute.
    busy = average >= 0.5
    return f"load average {average:.2f} before the run ({'not ' if busy else ''}idle)"


def machine() -> str:
    # These options make the interpreter's own `_multiprocessing` faster, so the reader needs them.
    options = (sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
    chosen = [option for option in ("--enable-optimizations", "--with-lto") if option in options]
    configured = f"configured with {' '.join(chosen) or 'neither PGO nor LTO'}"
    return (
        f"CPython {platform.python_version()} ({configured}), {platform.system()} "
        f"{platform.release().split('-')[0]}, {' '.join(platform.libc_ver())}, "
        f"{processors()} processors, {model()}"
    )

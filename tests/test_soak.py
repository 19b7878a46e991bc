"""The soak finds each leak that it must find, and none where there is none.

`cargo xtask soak` alone runs the drivers that start fresh interpreters: those take minutes of a
processor.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from children import run

SOAK = Path(__file__).resolve().parent.parent / "soak"
sys.path.append(str(SOAK))
from growth import ALLOWANCES, mann_kendall, slope, trend  # noqa: E402
from interpreters import unfit  # noqa: E402

UNFIT = unfit()
fit = pytest.mark.skipif(UNFIT is not None, reason=str(UNFIT))

HAS_MALLINFO2 = hasattr(ctypes.CDLL(None), "mallinfo2")


# Seconds: less than pytest's own watchdog.
PATIENCE = 110


def soak(kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    rounds = ["--rounds", "6", "--seed", "1"]
    return run(SOAK, *rounds, "--only", kind, *arguments, patience=PATIENCE)


@fit
@pytest.mark.parametrize("kind", ["fork", "installed", "kernel-fork"])
def test_nothing_grows(kind: str) -> None:
    done = soak(kind)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "Nothing grows, and everything came out right." in done.stdout


# Each of these kinds has a name of its own. The others are numbers, which one leak adds to.
NAMED = {
    "descriptors": "driver: descriptors, /dev/null",
    "mapping": "driver: mappings, /dev/zero (deleted)",
    "thread": "driver: threads",
    "shm": "/dev/shm: entries",
}


@fit
@pytest.mark.parametrize(
    "leaks",
    [
        NAMED,
        pytest.param(
            {"memory": "driver: heap"},
            marks=pytest.mark.skipif(
                not HAS_MALLINFO2, reason="this glibc does not tell what it has allocated"
            ),
        ),
        {"objects": "driver: blocks"},
    ],
    ids=" ".join,
)
def test_a_leak_is_found(leaks: dict[str, str]) -> None:
    done = soak("kernel-fork", "--leak", *leaks)
    assert done.returncode == 1, done.stdout + done.stderr
    for leak, what in leaks.items():
        assert f"| {what} |" in done.stdout
        if leak in NAMED:
            assert f"new, {what}:\n    " in done.stdout
    assert "failed" not in done.stdout


def test_a_trend_is_measured_as_textbooks_do() -> None:
    assert slope([1, 3, 5, 7]) == 2
    assert mann_kendall([5, 5, 5, 5]) == 0
    # All 45 pairs rise: (45 - 1) / sqrt(10 * 9 * 25 / 18).
    assert mann_kendall(range(10)) == pytest.approx(3.9355, abs=1e-4)
    assert mann_kendall(range(10, 0, -1)) == pytest.approx(-3.9355, abs=1e-4)


@pytest.mark.parametrize("figure", ALLOWANCES)
@pytest.mark.parametrize("rounds", [6, 50, 500])
def test_noise_is_no_trend_and_a_small_leak_is_one(figure: str, rounds: int) -> None:
    allowance = ALLOWANCES[figure]
    for seed in range(20):
        random = Random(seed)
        noise = [1e7 + random.uniform(0, allowance / 2) for _ in range(rounds)]
        assert trend(f"driver: {figure}", noise) is None
        # What fills up in the beginning is no leak either.
        filling = [value - 8 * allowance / (index + 1) for index, value in enumerate(noise)]
        assert rounds < 50 or trend(f"driver: {figure}", filling) is None
        # Three times the allowance in the half that is checked.
        leak = 6 * allowance / rounds
        leaking = [value + leak * index for index, value in enumerate(noise)]
        assert trend(f"driver: {figure}", leaking) is not None

"""Kills processes at random while they use everything that semlock has: the others go on.

Each test runs one workload of `soak/deaths.py` by itself, and more of it than a round of the soak.
`crates/semlock/tests/stress` tests the core's own objects.

`SEMLOCK_STRESS_SEED=7 SEMLOCK_STRESS_AMOUNT=50 pytest tests/test_deaths.py` chooses otherwise, and
kills more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from children import PREFIX, output
from programs import METHODS

ALONE = Path(__file__).resolve().parent.parent / "soak" / "alone.py"
SEED = os.environ.get("SEMLOCK_STRESS_SEED", "1")
AMOUNT = os.environ.get("SEMLOCK_STRESS_AMOUNT")
both_ways = pytest.mark.parametrize("way", ["context", "install"])
two_seeds = pytest.mark.parametrize("number", range(2))


def deaths(
    workload: str, method: str, amount: int, *, way: str = "context", number: int = 0
) -> None:
    """Runs a workload, which says nothing if all is well."""
    more = [f"--seed={SEED}/{number}", f"--amount={AMOUNT or amount}", f"--prefix={PREFIX}"]
    patience = 100 if AMOUNT is None else 100 + 10 * int(AMOUNT)
    install = ["--install"] * (way == "install")
    assert output(ALONE, workload, method, *install, *more, patience=patience) == ""


@pytest.mark.parametrize("method", METHODS)
def test_holders_waiters_and_notifiers_killed_at_random_lose_nothing(method: str) -> None:
    deaths("killed_users", method, 20 if method == "fork" else 2)


@pytest.mark.parametrize("method", METHODS)
def test_no_notification_is_lost_when_waiters_are_killed_at_random(method: str) -> None:
    deaths("killed_consumers", method, 50 if method == "fork" else 5)


@two_seeds
@pytest.mark.parametrize("method", METHODS)
def test_after_kills_at_random_messages_are_whole_or_the_queue_is_broken(
    method: str, number: int
) -> None:
    deaths("killed_at_both_ends", method, 50 if method == "fork" else 5, number=number)


@pytest.mark.parametrize("method", METHODS)
def test_after_kills_at_random_each_task_is_done_or_lost(method: str) -> None:
    deaths("killed_with_tasks", method, 5)


@two_seeds
@both_ways
def test_every_job_ends_when_workers_are_killed_at_random(way: str, number: int) -> None:
    deaths("killed_workers", "fork", 6, way=way, number=number)


@both_ways
@pytest.mark.parametrize("method", METHODS)
def test_whenever_a_worker_is_killed_an_executor_ends_and_each_future_is_done(
    method: str, way: str
) -> None:
    deaths("killed_while_submitting", method, 40 if method == "fork" else 5, way=way)

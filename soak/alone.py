"""Runs one workload with deaths by itself. `tests/test_deaths.py` runs each of them this way."""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
from multiprocessing.process import current_process
from random import Random

import deaths
import semlock
from processes import World

WORKLOADS = {workload.__name__: workload for workload in deaths.WORKLOADS}
METHODS = "fork", "spawn", "forkserver"


def main() -> None:
    parser = argparse.ArgumentParser(prog="alone", description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--install", action="store_true", help="instead of taking a context")
    parser.add_argument("--seed", default="1", help="what chance decides is decided by it")
    parser.add_argument("--amount", type=int, default=1, help="how much it does")
    parser.add_argument("--prefix", help="what the names of semaphores begin with")
    chosen = parser.parse_args()
    faulthandler.enable()
    if chosen.prefix is not None:
        current_process()._config["semprefix"] = chosen.prefix
    context = semlock.get_context(chosen.method)
    if chosen.install:
        semlock.install()
        context = multiprocessing.get_context(chosen.method)
    world = World(context, is_robust=True, amount=chosen.amount)
    operations = WORKLOADS[chosen.workload](world, Random(chosen.seed))
    assert operations > 0


if __name__ == "__main__":
    main()

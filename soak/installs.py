"""A workload whose children install semlock, or uninstall it, and go on."""

from __future__ import annotations

import multiprocessing
from random import Random
from typing import Any

import semlock
from processes import World, check, equal, running


def lock_and_count(context: Any, expected: bool) -> None:
    lock = context.Lock()
    equal(isinstance(lock, semlock.Lock), expected)
    with lock:
        check(not lock.acquire(False), "a held lock was taken")


def install_and_uninstall(inherited: Any) -> None:
    context = multiprocessing.get_context("fork")
    semlock.uninstall()
    lock_and_count(context, False)
    for backend, is_ours in (("kernel", False), ("shared", True)) * 3:
        semlock.install(backend)
        lock_and_count(context, is_ours)
        child = context.Process(target=lock_and_count, args=(context, is_ours))
        child.start()
        child.join()
        equal(child.exitcode, 0)
        # What was made before the installation goes on.
        with inherited:
            pass
        semlock.uninstall()
    lock_and_count(context, False)


def installs(world: World, _: Random) -> int:
    with running(world, (install_and_uninstall, world.context.Lock())):
        pass
    return 6

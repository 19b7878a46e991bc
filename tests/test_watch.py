"""Of those who wait for a lock one watches its holder; another does when that one goes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import semlock
from children import Line, forked, wait_until, wait_until_asleep
from families import holder, let_go, recovered_from, take

pytestmark = pytest.mark.usefixtures("a_segment")

# Where slots begin, and words of a slot: see `segment.rs`.
HEADER, NODES = 512, 9
GATE, WATCH = 1, 2


class Words:
    """What the shared words of a lock say."""

    def __init__(self, lock: Any) -> None:
        self.descriptor = lock._descriptor()
        self.slot = HEADER + self.at(NODES) * 2 + lock._address()[1] * 8

    def at(self, word: int) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, word * 8), "little")

    def wake_ups(self) -> int:
        """Counts on with each wake-up that is sent through the gate, and with nothing else."""
        return self.at(self.slot + GATE) & 0xFFFF_FFFF

    def is_watched(self) -> bool:
        return self.at(self.slot + WATCH) != 0


def waits_until_told(lock: Any) -> Any:
    """Waits for the lock; says "gave up" where a signal ends that."""

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            raise LookupError

        signal.signal(signal.SIGUSR1, handler)
        line.say("waiting")
        try:
            line.say(take(lock))
        except LookupError:
            line.say("gave up")
        line.hear()
        if lock.holder() == os.getpid():
            lock.release()

    return body


@pytest.mark.parametrize("make", [semlock.Lock, semlock.RLock], ids=["Lock", "RLock"])
def test_a_watcher_that_gives_up_wakes_another_to_watch(make: Any) -> None:
    # The other would see by itself that nobody watches, but only at the end of a long sleep: so
    # what is asked for is not when it sees that, but that it is woken.
    lock = make()
    words = Words(lock)
    with (
        holder(lock) as first,
        forked(waits_until_told(lock)) as watcher,
    ):
        assert watcher.hear() == "waiting"
        wait_until(words.is_watched, "somebody watches")
        wait_until_asleep(watcher)
        with forked(waits_until_told(lock)) as other:
            assert other.hear() == "waiting"
            wait_until_asleep(other)
            before = words.wake_ups()
            os.kill(watcher.pid, signal.SIGUSR1)
            assert watcher.hear() == "gave up"
            assert words.wake_ups() == before + 1
            wait_until(words.is_watched, "the other watches")
            # Who is the watcher now finds the holder dead.
            first.kill()
            assert other.hear() == recovered_from(first.pid)
            let_go(other)
        let_go(watcher)


@pytest.mark.parametrize("make", [semlock.Lock, semlock.RLock], ids=["Lock", "RLock"])
def test_a_watcher_that_is_killed_with_the_holder_is_replaced(make: Any) -> None:
    lock = make()
    words = Words(lock)
    with (
        holder(lock) as first,
        forked(waits_until_told(lock)) as watcher,
    ):
        assert watcher.hear() == "waiting"
        wait_until(words.is_watched, "somebody watches")
        with forked(waits_until_told(lock)) as other:
            assert other.hear() == "waiting"
            wait_until_asleep(other)
            watcher.stop()  # so that it does not see what comes before it dies itself
            first.kill()
            watcher.kill()
            assert other.hear() == recovered_from(first.pid)
            let_go(other)

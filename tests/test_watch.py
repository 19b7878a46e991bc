"""One of a lock's waiters watches the holder. When that waiter goes, another watches."""

from __future__ import annotations

import os
import resource
import signal
import threading
from typing import Any

import pytest
import semlock
from children import Line, forked, wait_until, wait_until_asleep
from families import NOT_TAKEN, Taken, holder, let_go, recovered_from, take
from words import Words

pytestmark = pytest.mark.usefixtures("a_segment")


def waits_until_told(lock: Any) -> Any:
    """Waits for the lock; says "gave up" if a signal ends the wait."""

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
    # The other waiter would notice by itself that nobody watches, but only after a long sleep. So
    # the test asks whether it is woken, and not when it notices.
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
            # The new watcher finds the holder dead.
            first.kill()
            assert other.hear() == recovered_from(first.pid)
            let_go(other)
        let_go(watcher)


def test_a_watcher_without_a_descriptor_left_hands_the_watch_over() -> None:
    # Only a descriptor tells a zombie from a living process.
    lock = semlock.Lock()
    words = Words(lock)

    def at_its_limit(line: Line) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Not the first thread: that one stops watching now and then.
        thread = threading.Thread(target=lock.acquire, daemon=True)
        assert not lock.acquire(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        thread.start()
        line.say("waiting")
        line.hear()

    with holder(lock) as first, forked(at_its_limit) as watcher:
        assert watcher.hear() == "waiting"
        wait_until(words.is_watched, "somebody watches")
        with forked(waits_until_told(lock)) as other:
            assert other.hear() == "waiting"
            wait_until_asleep(other)
            first.kill()
            assert other.hear() == recovered_from(first.pid)
            watcher.kill()
            let_go(other)


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


@pytest.mark.parametrize("dies", [False, True])
def test_descriptors_that_others_closed_tell_a_watcher_nothing(dies: bool) -> None:
    lock = semlock.Lock()
    words = Words(lock)

    def closes_all(line: Line) -> bool:
        taken: list[Taken] = []
        limit = (True,) if dies else (True, 1.0)
        thread = threading.Thread(target=lambda: taken.append(take(lock, *limit)))
        thread.start()
        wait_until(words.is_watched, "it watches")
        began = words.watch()
        wait_until(lambda: words.watch() != began, "it has checked once")
        # As daemons do. What is opened next gets the numbers.
        kept = line.connection.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, 100)
        if dies:
            # It never becomes readable, like the descriptor of a process that lives.
            opened = [end for _ in range(8) for end in os.pipe()]
        else:
            opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(16)]
        line.say("closed")
        thread.join()
        for descriptor in opened:
            os.fstat(descriptor)
        assert taken == [recovered_from(first.pid) if dies else NOT_TAKEN]
        return True

    with holder(lock) as first, forked(closes_all) as watcher:
        assert watcher.hear() == "closed"
        if dies:
            first.kill()
        assert watcher.result()
        if not dies:
            let_go(first)

"""What a child has from its parent, and what it has not."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
import semlock
from children import PATIENCE, Line, forked, wait_until, wait_until_asleep
from families import TAKEN, take
from kernel_features import in_a_child
from words import DIED, TAG, Words

pytestmark = pytest.mark.usefixtures("a_segment")


def test_a_lock_that_a_child_uses_is_never_anothers_in_the_parent() -> None:
    def parent() -> None:
        first = semlock.Lock()
        # Whatever was made and ended before is there to be used again.
        address = semlock.Lock()._address()
        kept = [semlock.Lock()]
        assert kept[0]._address() == address

        def child(line: Line) -> None:
            lock = kept[0]
            line.say("ready")
            line.hear()
            line.say(take(lock, False))
            line.hear()
            lock.release()
            line.say(lock.locked())

        with forked(child) as heir:
            assert heir.hear() == "ready"
            del kept[0]
            others = [semlock.Lock() for _ in range(3)]
            for other in others:
                assert take(other, False) == TAKEN
            # It is nobody's but the child's: who holds another does not hold this.
            heir.say()
            assert heir.hear() == TAKEN
            # And who gives this back does not give back another.
            heir.say()
            assert heir.hear() is False
            assert [other.holder() for other in others] == [os.getpid()] * 3
            heir.result()
        assert take(first, False) == TAKEN

    in_a_child(parent)


def test_what_a_child_makes_lies_in_a_segment_of_its_own() -> None:
    # Two that took slots of one segment might take the same at the same time.
    def parent() -> None:
        before = semlock.Lock()

        def child() -> Any:
            locks = [semlock.Lock() for _ in range(3)]
            assert {lock._maker()[0] for lock in locks} == {os.getpid()}
            return {lock._address()[0] for lock in locks}

        childs = in_a_child(child) | in_a_child(child)
        after = semlock.Lock()
        assert len(childs) == 2
        assert before._address()[0] == after._address()[0]
        assert after._address()[0] not in childs
        assert after._address()[1] == before._address()[1] + 1

    in_a_child(parent)


def test_a_fork_takes_no_permit_of_a_semaphore_for_a_lock() -> None:
    # Permits stand where slots do. One that process 64 died with, and that was given back so, looks
    # like the tag of a lock; the next one, free, like what no queue's lock has.
    semaphore = semlock.Semaphore(8, robust=True, on_owner_died="ignore")
    words = Words(semaphore)
    for _ in range(8):
        assert semaphore.acquire(False)
    words.write(8 + TAG, 64 << 2 | DIED)
    words.write(8 + TAG + 1, 0)
    in_a_child(lambda: None)
    for _ in range(6):
        semaphore.release()
    assert semaphore.get_value() == 8


def test_the_child_of_a_fork_in_a_handler_does_not_wait_in_its_parents_place() -> None:
    condition = semlock.Condition()
    barrier = semlock.Barrier(2)

    def at_barrier() -> Any:
        try:
            return barrier.wait(PATIENCE)
        except threading.BrokenBarrierError:
            return "broken"

    def in_condition() -> bool:
        with condition:
            return condition.wait(PATIENCE)

    for wait, of_the_child in ((in_condition, False), (at_barrier, "broken")):

        def body(line: Line, wait: Any = wait) -> None:
            parent = os.getpid()
            signal.signal(signal.SIGUSR1, lambda *_: os.fork())
            line.say("waiting")
            result = wait()
            line.say((os.getpid() == parent, result))
            if os.getpid() != parent:
                os._exit(0)
            os.wait()

        with forked(body) as child:
            assert child.hear() == "waiting"
            wait_until(
                lambda: barrier.n_waiting + condition._sleeping_count.get_value() == 1, "it waits"
            )
            wait_until_asleep(child)
            os.kill(child.pid, signal.SIGUSR1)
            # Before anybody is let go.
            assert child.hear() == (False, of_the_child)
            assert barrier.n_waiting + condition._sleeping_count.get_value() == 1
            assert not barrier.broken
            with condition:
                condition.notify()
            if wait is at_barrier:
                assert barrier.wait(PATIENCE) == 1
            assert child.hear() == (True, True if wait is in_condition else 0)
            child.result()


def test_a_child_that_is_forked_in_the_action_leaves_the_barrier_to_its_parent() -> None:
    line = os.pipe()

    def body() -> Any:
        barrier = semlock.Barrier(1, action=os.fork)
        parent = os.getpid()
        try:
            result: Any = barrier.wait(PATIENCE)
        except threading.BrokenBarrierError:
            result = "broken"
        if os.getpid() != parent:
            os.write(line[1], str(result).encode())
            os._exit(0)
        os.wait()
        return result, barrier.broken

    assert in_a_child(body) == (0, False)
    assert os.read(line[0], 100) == b"broken"
    for descriptor in line:
        os.close(descriptor)


def test_a_fork_in_a_handler_leaves_its_parents_place_at_a_barrier_alone() -> None:
    barrier = semlock.Barrier(2)

    def body(line: Line) -> None:
        def handler(*_: Any) -> None:
            pid = os.fork()
            if not pid:
                # Out of a wait that is not its own.
                raise SystemExit
            os.waitpid(pid, 0)
            line.say("forked")

        signal.signal(signal.SIGUSR1, handler)
        try:
            line.say("waiting")
            line.say(barrier.wait(PATIENCE))
        except SystemExit:
            os._exit(0)

    with forked(body) as child:
        assert child.hear() == "waiting"
        wait_until(lambda: barrier.n_waiting == 1, "the child has come")
        wait_until_asleep(child)
        os.kill(child.pid, signal.SIGUSR1)
        assert child.hear() == "forked"
        assert barrier.n_waiting == 1
        assert {barrier.wait(PATIENCE), child.hear()} == {0, 1}
        child.result()

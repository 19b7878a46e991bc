"""What a child has from its parent, and what it has not."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import semlock
from children import PATIENCE, Line, forked, wait_until, wait_until_asleep
from families import TAKEN, take
from kernel_features import in_a_child

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

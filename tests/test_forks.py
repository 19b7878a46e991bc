"""What a child has from its parent, and what it does not have."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import PATIENCE, Line, forked, in_a_child, wait_until, wait_until_asleep
from families import TAKEN, take
from words import LAYOUT, Words

pytestmark = pytest.mark.usefixtures("a_segment")


def test_a_lock_that_a_child_uses_is_never_anothers_in_the_parent() -> None:
    def parent() -> None:
        first = semlock.Lock()
        # What was made and dropped before leaves slots to use again.
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
            # It is the child's alone: a process that holds another lock does not hold this one.
            heir.say()
            assert heir.hear() == TAKEN
            # And releasing this one releases no other.
            heir.say()
            assert heir.hear() is False
            assert [other.holder() for other in others] == [os.getpid()] * 3
            heir.result()
        assert take(first, False) == TAKEN

    in_a_child(parent)


# ---- Slots of dropped locks, and children that had those ----

# More than the slots of a process's first segments, so that it searches for slots to use again.
MANY = 40_000
# Enough to make it check whether children are gone.
A_BATCH = 500


def segments() -> int:
    """How many segments this process has."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[4] for line in maps if "semlock" in line and " rw-s " in line})


def make_and_drop(count: int, *, forks: Callable[[], object] = lambda: None) -> None:
    """Makes so many locks, in batches that exist during a fork and are dropped after it."""
    for _ in range(count // A_BATCH):
        batch = [semlock.Lock() for _ in range(A_BATCH)]
        forks()
        del batch


def fork_one_that_ends() -> None:
    with forked(lambda _: None) as child:
        child.result()


def test_what_is_dropped_of_older_segments_is_used_again() -> None:
    def body() -> None:
        locks = [semlock.Lock() for _ in range(MANY)]
        kept = locks[::1000]
        before = segments()
        del locks
        more = [semlock.Lock() for _ in range(MANY * 3 // 4)]
        assert segments() == before
        addresses = {lock._address() for lock in kept + more}
        assert len(addresses) == len(kept) + len(more)
        assert not any(lock.locked() for lock in more)

    in_a_child(body)


def test_a_lock_that_is_kept_among_many_dropped_ones_keeps_no_segment_for_itself() -> None:
    def body() -> None:
        kept, before = [], segments()
        for _ in range(20):
            kept.append(semlock.Lock())
            make_and_drop(4 * A_BATCH, forks=fork_one_that_ends)
        assert segments() - before <= 2
        for lock in kept:
            assert take(lock, False) == TAKEN

    in_a_child(body)


def test_a_child_keeps_nothing_that_was_made_after_it_or_had_ended_before() -> None:
    def body() -> None:
        before = segments()
        make_and_drop(A_BATCH)
        kept = [semlock.Lock()]
        with forked(lambda line: line.hear()) as worker:
            for _ in range(20):
                kept.append(semlock.Lock())
                make_and_drop(4 * A_BATCH, forks=fork_one_that_ends)
            assert segments() - before <= 2
            worker.say()
            worker.result()
        for lock in kept:
            assert take(lock, False) == TAKEN

    in_a_child(body)


def stays_as_it_is(_: Line) -> None:
    pass


def becomes_a_daemon(line: Line) -> None:
    """Closes its descriptors, and leaves the work to its own child."""
    kept = line.connection.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, 4096)
    if os.fork():
        os._exit(0)


def without_descriptors() -> int:
    """Forks at the limit of descriptors: nothing can be opened for the child."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, limits[1]))
    try:
        return os.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("fork", [os.fork, without_descriptors])
@pytest.mark.parametrize("first", [stays_as_it_is, becomes_a_daemon])
def test_what_a_child_has_is_never_anothers_however_many_are_made(
    first: Callable[[Line], None], fork: Callable[[], int]
) -> None:
    def parent() -> None:
        kept = [semlock.Lock() for _ in range(A_BATCH)]
        fork_one_that_ends()

        def child(line: Line) -> None:
            first(line)
            line.say("ready")
            line.hear()
            line.say([take(lock, False) for lock in kept].count(TAKEN))
            line.hear()

        with forked(child, fork) as heir:
            assert heir.hear() == "ready"
            kept.clear()
            make_and_drop(MANY, forks=fork_one_that_ends)
            others = [semlock.Lock() for _ in range(MANY)]
            heir.say()
            assert heir.hear() == A_BATCH
            assert not any(lock.locked() for lock in others)
            heir.say()
            heir.result()

    in_a_child(parent)


def test_what_a_child_has_sent_on_is_its_receivers_when_the_child_is_gone() -> None:
    def parent() -> None:
        kept = [semlock.Lock() for _ in range(A_BATCH)]
        with forked(lambda _: [pickle.dumps(lock) for lock in kept]) as heir:
            pickled = heir.result()
        kept.clear()
        others = [semlock.Lock() for _ in range(MANY)]
        received = [pickle.loads(lock) for lock in pickled]
        for lock in received:
            assert take(lock, False) == TAKEN
        assert not any(lock.locked() for lock in others)

    in_a_child(parent)


def test_a_child_that_was_killed_in_a_wait_waits_nowhere_else() -> None:
    def parent() -> None:
        conditions = [semlock.Condition() for _ in range(20)]
        barriers = [semlock.Barrier(2) for _ in range(20)]

        def wait_at(condition: Any) -> None:
            with condition:
                condition.wait()

        def child(line: Line) -> None:
            waits = [lambda it=it: wait_at(it) for it in conditions] + [it.wait for it in barriers]
            for wait in waits:
                threading.Thread(target=wait, daemon=True).start()
            wait_until(lambda: all(map(sleeps, conditions)), "all wait at their conditions")
            wait_until(lambda: all(it.n_waiting for it in barriers), "all wait at their barriers")
            line.say("waiting")
            line.hear()

        with forked(child) as heir:
            assert heir.hear() == "waiting"
            heir.kill()
        conditions.clear()
        barriers.clear()
        make_and_drop(MANY)
        for condition in [semlock.Condition() for _ in range(MANY // 2)]:
            assert not sleeps(condition)
        for barrier in [semlock.Barrier(1) for _ in range(MANY // 2)]:
            assert barrier.n_waiting == 0
            assert barrier.wait() == 0

    in_a_child(parent)


def test_no_new_lock_gets_the_slot_of_one_that_a_killed_child_waited_for() -> None:
    def parent() -> None:
        kept = semlock.Lock()
        words, (segment, *_) = Words(kept), kept._address()
        locks = [semlock.Lock() for _ in range(20)]
        slots = {lock._address()[1] for lock in locks}

        def child(line: Line) -> None:
            line.hear()
            for lock in locks:
                threading.Thread(target=lock.acquire, daemon=True).start()
            line.hear()

        with forked(child) as heir:
            for lock in locks:
                lock.acquire()
            heir.say()
            wait_until(lambda: words.waited_for() >= slots, "all wait for their locks")
            heir.kill()
        for lock in locks:
            lock.release()
        named = words.waited_for() & slots
        assert named
        del lock
        locks.clear()
        make_and_drop(MANY)
        others = [semlock.Lock() for _ in range(MANY)]
        beside = {slot for of, slot, *_ in (it._address() for it in others) if of == segment}
        assert beside
        assert words.waited_for() >= named
        assert not beside & named

    in_a_child(parent)


def sleeps(condition: Any) -> bool:
    return bool(condition._sleeping_count.get_value())


# ---- The segment's process ----


def test_what_a_child_makes_lies_in_a_segment_of_its_own() -> None:
    # If two processes took slots of one segment, they might take the same slot at the same time.
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
    # Permits stand where slots do. A permit that process 64 held as it died, and that came back,
    # looks like the tag of a lock; the next one, free, looks like no queue's lock.
    semaphore = semlock.Semaphore(8, robust=True, on_owner_died="ignore")
    words = Words(semaphore)
    for _ in range(8):
        assert semaphore.acquire(False)
    after = LAYOUT["SLOT_WORDS"] + LAYOUT["TAG"]
    words.write(after, 64 << LAYOUT["PERMIT_PID_SHIFT"] | LAYOUT["PERMIT_DIED"])
    words.write(after + 1, 0)
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
                # It leaves a wait that is not its own.
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

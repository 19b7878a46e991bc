"""Many threads use one object at once, with and without the GIL, and it stays consistent.

Without the GIL they run at the same time, so each test runs with many seeds. A seed decides the
order in which threads start and what they do.
"""

from __future__ import annotations

import _multiprocessing as stock
import copy
import gc
import pickle
import sys
import sysconfig
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
import semlock
from children import PATIENCE, output
from semlock import _multiprocessing as ours

pytestmark = pytest.mark.usefixtures("a_segment", "switches_threads_all_the_time")

THREADS = 16
ROUNDS = 60
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

seeds = pytest.mark.parametrize("seed", range(25 if FREE_THREADED else 2))


@pytest.fixture
def switches_threads_all_the_time() -> Iterator[None]:
    """Where there is a GIL, threads switch in the middle of everything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def hammer(
    seed: int,
    work: Callable[[int, Random], None],
    look: Callable[[], None] | None = None,
    threads: int = THREADS,
) -> None:
    """Runs ``work`` in many threads, with their numbers, while this thread calls ``look``."""
    errors: list[BaseException] = []
    ready = threading.Barrier(threads)

    def run(number: int) -> None:
        try:
            random = Random(f"{seed} {number}")
            ready.wait(PATIENCE)
            work(number, random)
        except BaseException as error:
            errors.append(error)

    numbers = list(range(threads))
    Random(seed).shuffle(numbers)
    # Daemons, so that the interpreter can end if one hangs.
    workers = [threading.Thread(target=run, args=(number,), daemon=True) for number in numbers]
    for worker in workers:
        worker.start()
    while look and not errors and (alive := [it for it in workers if it.is_alive()]):
        look()
        # A thread that checks all the time keeps the others from running.
        alive[0].join(0.001)
    for worker in workers:
        worker.join(PATIENCE)
        assert errors or not worker.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


class Raw:
    """A raw ``SemLock`` of one permit."""

    def __init__(self, module: Any, kind: str, name: str) -> None:
        self.lock = self.raw = module.SemLock(("mutex", "semaphore").index(kind), 1, 1, name, False)
        self.recursive = kind == "mutex"
        self.picklable = module is ours

    def look(self) -> None:
        lock = self.lock
        assert lock._count() in range(3 if self.recursive else 2)
        assert lock._get_value() in (0, 1)
        assert lock._is_zero() in (True, False)
        assert (lock.maxvalue, lock.kind) == (1, 0 if self.recursive else 1)
        again = lock._rebuild(lock.handle, lock.kind, lock.maxvalue, lock.name)
        assert (again.handle, again._count()) == (lock.handle, 0)
        if self.picklable:
            assert pickle.loads(pickle.dumps(lock)).handle == lock.handle


class Native:
    """A ``Lock`` or ``RLock``."""

    def __init__(self, make: Any) -> None:
        self.lock = make()
        self.raw = self.lock._semlock
        self.recursive = make is semlock.RLock

    def look(self) -> None:
        lock = self.lock
        assert lock._semlock._count() in range(3 if self.recursive else 2)
        assert lock.locked() in (True, False)
        assert lock.recovered is None
        assert type(lock).__name__ in repr(lock)
        assert copy.copy(lock) is lock
        assert weakref.ref(lock)() is lock
        again = pickle.loads(pickle.dumps(lock))
        assert again._address() == lock._address()
        assert again._semlock._is_mine() is False


MUTEXES: dict[str, Callable[[str], Raw | Native]] = {
    "stock-mutex": lambda name: Raw(stock, "mutex", name),
    "stock-semaphore": lambda name: Raw(stock, "semaphore", name),
    "kernel-mutex": lambda name: Raw(ours, "mutex", name),
    "kernel-semaphore": lambda name: Raw(ours, "semaphore", name),
    "Lock": lambda name: Native(semlock.Lock),
    "RLock": lambda name: Native(semlock.RLock),
}


# Seen on 3.13: a thread that has just released reads the count that the next owner has set, and
# then reads that it is the owner itself.
of_the_gil = pytest.mark.skipif(
    FREE_THREADED, reason="the stdlib's own _is_mine needs the GIL to tell whose a lock is"
)


def take(lock: Any, random: Random) -> None:
    """Acquires it in one of several ways."""
    way = random.randrange(4)
    if way == 0:
        assert lock.acquire()
    elif way == 1:
        assert lock.acquire(True, PATIENCE)
    elif way == 2:
        assert lock.__enter__()
    else:
        while not lock.acquire(timeout=random.random() / 1000):
            pass


def give(lock: Any, random: Random) -> None:
    if random.random() < 0.5:
        lock.release()
    else:
        lock.__exit__(None, None, None)


@seeds
@pytest.mark.parametrize(
    "kind",
    [pytest.param(it, marks=of_the_gil if it.startswith("stock") else ()) for it in MUTEXES],
)
def test_one_thread_at_a_time_has_a_mutex_and_knows_that_it_has(
    kind: str, seed: int, name: str
) -> None:
    mutex = MUTEXES[kind](name)
    lock, raw = mutex.lock, mutex.raw
    turns = 0

    def work(number: int, random: Random) -> None:
        nonlocal turns
        for _ in range(ROUNDS):
            assert not raw._is_mine()
            take(lock, random)
            seen = turns
            assert (raw._is_mine(), raw._count(), raw._is_zero()) == (True, 1, True)
            if mutex.recursive:
                take(lock, random)
                assert (raw._is_mine(), raw._count()) == (True, 2)
                give(lock, random)
            assert (raw._is_mine(), raw._count()) == (True, 1)
            turns = seen + 1
            give(lock, random)
            if mutex.recursive:
                assert not raw._is_mine()
                with pytest.raises(AssertionError, match="not owned by thread"):
                    lock.release()

    hammer(seed, work, mutex.look)
    assert turns == THREADS * ROUNDS
    assert (raw._count(), raw._get_value(), raw._is_mine()) == (0, 1, False)


@seeds
@pytest.mark.parametrize("kind", ["kernel", "Semaphore", "BoundedSemaphore", "robust"])
def test_no_more_threads_have_a_permit_than_there_are(kind: str, seed: int, name: str) -> None:
    permits = 3
    makers: dict[str, Callable[[], Any]] = {
        "kernel": lambda: ours.SemLock(1, permits, permits, name, True),
        "Semaphore": lambda: semlock.Semaphore(permits),
        "BoundedSemaphore": lambda: semlock.BoundedSemaphore(permits),
        "robust": lambda: semlock.BoundedSemaphore(permits, robust=True),
    }
    semaphore = makers[kind]()
    raw = semaphore if kind == "kernel" else semaphore._semlock
    holders: list[int] = []

    def work(number: int, random: Random) -> None:
        for _ in range(ROUNDS):
            take(semaphore, random)
            holders.append(number)
            assert len(holders) <= permits
            holders.remove(number)
            give(semaphore, random)

    def look() -> None:
        assert 0 <= raw._get_value() <= permits
        assert 0 <= raw._count() <= permits

    hammer(seed, work, look)
    assert (raw._get_value(), raw._count()) == (permits, 0)


@seeds
@pytest.mark.parametrize("kind", ["stock", "kernel", "BoundedSemaphore"])
def test_however_many_release_at_once_the_greatest_value_is_kept(
    kind: str, seed: int, name: str
) -> None:
    most = 2
    if kind == "BoundedSemaphore":
        semaphore: Any = semlock.BoundedSemaphore(most)
        value = semaphore.get_value
    else:
        semaphore = {"stock": stock, "kernel": ours}[kind].SemLock(1, most, most, name, True)
        value = semaphore._get_value
    taken: list[int] = []

    def work(number: int, random: Random) -> None:
        more = 0
        for _ in range(4 * ROUNDS):
            if random.random() < 0.3:
                more += semaphore.acquire(False)
            else:
                with suppress(ValueError):
                    semaphore.release()
                    more -= 1
        taken.append(more)

    def look() -> None:
        assert 0 <= value() <= most

    hammer(seed, work, look)
    assert value() == most - sum(taken) <= most


@seeds
@pytest.mark.parametrize("make", [semlock.Lock, semlock.RLock], ids=["Lock", "RLock"])
def test_no_notification_of_a_condition_is_lost(make: Any, seed: int) -> None:
    condition = semlock.Condition(make())
    # The lock's holder reads and writes these, in more than one step.
    items: list[int] = []
    room = 3
    consumed: list[int] = []

    def put(number: int, random: Random) -> None:
        for turn in range(ROUNDS):
            with condition:
                while len(items) >= room:
                    condition.wait()
                items.insert(0, number * ROUNDS + turn)
                assert len(items) <= room
                # Putters and getters wait for the same condition: one notification is not enough.
                condition.notify_all()

    def get(random: Random) -> None:
        for _ in range(ROUNDS):
            with condition:
                while not condition.wait_for(lambda: items, random.choice([None, 0.001])):
                    pass
                consumed.append(items.pop())
                condition.notify(THREADS)

    def work(number: int, random: Random) -> None:
        if number % 2:
            put(number, random)
        else:
            get(random)

    def look() -> None:
        assert repr(condition).startswith("<Condition(")
        assert 0 <= condition._sleeping_count.get_value() <= THREADS
        assert pickle.loads(pickle.dumps(condition))._address() == condition._address()
        with pytest.raises(AssertionError):
            condition.notify()

    hammer(seed, work, look)
    putters = range(1, THREADS, 2)
    expected = {number * ROUNDS + turn for number in putters for turn in range(ROUNDS)}
    assert Counter(consumed) == Counter(expected)
    assert condition._sleeping_count.get_value() == 0


@seeds
def test_as_many_waiters_are_woken_as_are_notified(seed: int) -> None:
    condition = semlock.Condition()
    woken = [0]
    waiters = THREADS - 1

    def work(number: int, random: Random) -> None:
        if number:
            for _ in range(ROUNDS // 4):
                with condition:
                    assert condition.wait(PATIENCE)
                    woken[0] += 1
            return
        left = waiters * (ROUNDS // 4)
        while left:
            with condition:
                # Each of these waits now, or was notified before and still sleeps.
                n = min(condition._sleeping_count.get_value(), left, random.randint(1, 3))
                condition.notify(n)
            with condition:
                left = waiters * (ROUNDS // 4) - woken[0]

    hammer(seed, work)
    assert woken == [waiters * (ROUNDS // 4)]


@seeds
def test_an_event_wakes_all_its_waiters(seed: int) -> None:
    event = semlock.Event()
    here = threading.Barrier(THREADS)
    ends = threading.Event()

    def work(number: int, random: Random) -> None:
        for turn in range(ROUNDS):
            if turn % THREADS == number:
                event.set()
                assert event.is_set()
            assert event.wait(random.choice([None, PATIENCE]))
            # All have seen it set, and none waits for the next one before it is cleared.
            if here.wait(PATIENCE) == 0:
                event.clear()
                assert not event.is_set()
            here.wait(PATIENCE)
        # There is no order any more.
        for _ in range(ROUNDS):
            random.choice([event.set, event.clear, event.is_set])()
            assert event.wait(random.random() / 10_000) in (True, False)
        if here.wait(PATIENCE) == 0:
            ends.set()
            event.set()
        assert event.wait(PATIENCE)

    def look() -> None:
        assert repr(event).endswith(("set>", "unset>"))
        assert pickle.loads(pickle.dumps(event))._address() == event._address()

    hammer(seed, work, look)
    assert ends.is_set()
    assert event.is_set()


@seeds
def test_a_barrier_gives_each_thread_its_own_number(seed: int) -> None:
    actions: list[int] = []
    barrier = semlock.Barrier(THREADS, lambda: actions.append(len(numbers)))
    numbers: list[int] = []

    def work(number: int, random: Random) -> None:
        for _ in range(ROUNDS):
            numbers.append(barrier.wait(PATIENCE))

    def look() -> None:
        assert 0 <= barrier.n_waiting <= THREADS
        assert barrier.parties == THREADS

    hammer(seed, work, look)
    assert Counter(numbers) == dict.fromkeys(range(THREADS), ROUNDS)
    # The action runs while all are there: nobody of that round has gone on.
    assert len(actions) == ROUNDS
    assert all(seen <= THREADS * turn for turn, seen in enumerate(actions))


class Subclass(semlock.Lock):
    """Has a dictionary, so the collector knows it."""


MAKERS: dict[str, Callable[[], Any]] = {
    "Lock": semlock.Lock,
    "Subclass": Subclass,
    "Condition": semlock.Condition,
    "Event": semlock.Event,
    "Barrier": lambda: semlock.Barrier(2),
}


@seeds
@pytest.mark.parametrize("kind", MAKERS)
def test_objects_end_while_other_threads_use_them_through_weak_references(
    kind: str, seed: int
) -> None:
    make = MAKERS[kind]
    places = [make() for _ in range(4)]
    ended: list[object] = []
    made = [len(places)] * THREADS

    def work(number: int, random: Random) -> None:
        made[number] = 0
        for _ in range(ROUNDS):
            place = random.randrange(len(places))
            reference = weakref.ref(places[place])
            if random.random() < 0.3:
                places[place] = make()
                made[number] += 1
                # Called once, by the thread that ends it.
                weakref.finalize(places[place], ended.append, None).atexit = False
            found = reference()
            if found is not None:
                assert found._address()
                assert repr(found)
            del found, reference
        gc.collect(0)

    hammer(seed, work)
    expected = sum(made)
    del places[:]
    gc.collect()
    assert len(ended) == expected


@seeds
def test_one_of_many_initialises_an_object(seed: int) -> None:
    locks = [semlock.Lock.__new__(semlock.Lock) for _ in range(ROUNDS)]
    results: list[str] = []

    def work(number: int, random: Random) -> None:
        for lock in locks:
            try:
                lock.__init__()
            except RuntimeError:
                results.append("refused")
            else:
                results.append("made")
            # A thread that comes while it is made is told that it does not exist yet.
            with suppress(RuntimeError):
                take(lock, random)
                lock.release()

    hammer(seed, work)
    assert Counter(results) == {"made": ROUNDS, "refused": (THREADS - 1) * ROUNDS}
    assert not any(lock.locked() for lock in locks)


@seeds
def test_semaphores_are_opened_and_closed_by_many_threads(
    seed: int, new_name: Callable[[], str]
) -> None:
    names = [new_name() for _ in range(2)]
    kept = [ours.SemLock(1, 0, THREADS * ROUNDS, name, False) for name in names]

    def work(number: int, random: Random) -> None:
        for _ in range(ROUNDS):
            lock = random.choice(kept)
            by_name = lock._rebuild(0, 1, lock.maxvalue, lock.name)
            by_handle = lock._rebuild(by_name.handle, 1, lock.maxvalue, None)
            del by_name
            by_handle.release()
            handle = ours.SemLock(1, 1, 1, "/of-nobody", True).handle
            # Another thread may have got the address by now.
            with suppress(ValueError):
                ours.SemLock._rebuild(handle, 1, 1, None).acquire(False)

    hammer(seed, work)
    assert sum(lock._get_value() for lock in kept) == THREADS * ROUNDS


@pytest.mark.skipif(not FREE_THREADED, reason="this interpreter is built with the GIL")
def test_the_gil_stays_off() -> None:
    script = """if True:
        import sys
        import semlock, semlock._multiprocessing
        print(sys._is_gil_enabled())
    """
    assert output("-W", "error", "-c", script) == "False\n"

"""A lock whose holder dies goes to the next acquirer, who is told. A living holder keeps its lock.

The tests make the kernel lie about who lives, as far as it can: see `kernel_features`.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import semlock
from children import (
    PATIENCE,
    Line,
    forked,
    in_a_child,
    in_a_fresh_interpreter,
    is_asleep,
    state_of,
    wait_until,
    wait_until_asleep,
    wait_until_gone,
)
from families import (
    NOT_TAKEN,
    SEVERAL_LOOKS,
    TAKEN,
    Taken,
    both_locks,
    die,
    holder,
    is_kept,
    let_go,
    recovered_from,
    robust_locks,
    take,
    waiter,
)
from kernel_features import (
    CLONE_NEWPID,
    FORKS_HERE,
    Denied,
    choose_next_pid,
    deny,
    forked_as,
    have_own_mounts,
    in_a_pid_namespace,
    mount,
    needs_another_user,
    needs_chosen_pids,
    needs_own_mounts,
    needs_pid_namespaces,
    needs_seccomp,
    system_call,
    thread_with_id,
    unshare,
    wait_for_the_next_clock_tick,
)

pytestmark = pytest.mark.usefixtures("a_segment")

Make = Callable[..., Any]

NOBODY = 65534


def taken_by_polling(lock: Any) -> Taken:
    taken = []

    def came() -> bool:
        taken.append(take(lock, False))
        return taken[-1].got

    wait_until(came, "a poll gets the lock")
    return taken[-1]


# ---- Which acquirer gets the lock ----


@robust_locks
@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_a_killed_holder_is_replaced_by_exactly_one_waiter(make: Make, reaped: bool) -> None:
    lock = make()
    with ExitStack() as stack:
        first = stack.enter_context(holder(lock))
        waiters = [stack.enter_context(forked(waiter(lock))) for _ in range(3)]
        for child in waiters:
            assert child.hear() == "waiting"
            wait_until_asleep(child)
        first.kill()
        if reaped:
            first.reap()
        expected = recovered_from(first.pid)
        while waiters:
            wait_until(lambda: any(child.says_something() for child in waiters), "one gets it")
            winners = [child for child in waiters if child.says_something()]
            assert len(winners) == 1
            assert winners[0].hear() == expected
            for child in waiters:
                if child is not winners[0]:
                    wait_until_asleep(child)
                    assert not child.says_something()
            assert lock.holder() == winners[0].pid
            let_go(winners[0])
            waiters.remove(winners[0])
            expected = TAKEN
    assert take(lock, False) == TAKEN


@robust_locks
@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_a_holder_that_dies_while_everybody_polls_is_replaced_by_exactly_one(
    make: Make, reaped: bool
) -> None:
    lock = make()

    def poll(line: Line) -> None:
        while True:
            if line.says_something():
                return
            taken = take(lock, False)
            if taken.got:
                break
        line.say(taken)
        line.hear()
        lock.release()

    with ExitStack() as stack:
        first = stack.enter_context(holder(lock))
        pollers = [stack.enter_context(forked(poll)) for _ in range(3)]
        first.kill()
        if reaped:
            first.reap()
        wait_until(lambda: any(child.says_something() for child in pollers), "one gets it")
        (winner,) = (child for child in pollers if child.says_something())
        assert winner.hear() == recovered_from(first.pid)
        let_go(winner)
        pollers.remove(winner)
        # The other processes find it free.
        for _ in range(2):
            wait_until(lambda: any(child.says_something() for child in pollers), "one gets it")
            (winner,) = (child for child in pollers if child.says_something())
            assert winner.hear() == TAKEN
            let_go(winner)
            pollers.remove(winner)


WAYS: dict[str, Callable[[Any], Taken]] = {
    "acquire()": take,
    "acquire(timeout=60)": lambda lock: take(lock, True, PATIENCE),
    "acquire(timeout=0.01)": lambda lock: take(lock, True, 0.01),
    "acquire(False)": taken_by_polling,
}


@robust_locks
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_holder_that_died_before_anybody_waited_is_found(
    make: Make, way: Callable[[Any], Taken]
) -> None:
    lock = make()
    with holder(lock) as child:
        pid = die(child)
    assert way(lock) == recovered_from(pid)
    lock.release()
    assert take(lock, False) == TAKEN


ENDS: dict[str, Callable[[], Any]] = {
    "returns": lambda: None,
    "raises": lambda: 1 / 0,
    "is terminated": lambda: (
        signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.raise_signal(signal.SIGTERM),
    ),
    "_exit": lambda: os._exit(3),
}


@robust_locks
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_holder_that_ends_in_any_way_without_releasing_has_died(
    make: Make, end: Callable[[], Any]
) -> None:
    lock = make()
    with forked(lambda _: (lock.acquire(), end())) as child:
        wait_until(lambda: child.poll() is not None, "the child has ended")
        assert take(lock) == recovered_from(child.pid)


@robust_locks
def test_a_holder_killed_at_any_depth_leaves_the_whole_lock(make: Make) -> None:
    lock = make()
    times = 3 if make is semlock.RLock else 1
    with holder(lock, times) as child:
        pid = die(child)
    assert take(lock) == recovered_from(pid)
    assert lock._semlock._count() == 1
    lock.release()
    assert not lock.locked()


@robust_locks
def test_a_lock_is_recovered_again_when_its_recoverer_dies(make: Make) -> None:
    lock = make()
    with holder(lock) as first:
        previous = die(first)
    for _ in range(3):
        with forked(lambda line: (line.say(take(lock)), line.hear())) as child:
            assert child.hear() == recovered_from(previous)
            previous = die(child)
    assert take(lock) == recovered_from(previous)


@robust_locks
def test_killed_waiters_take_nothing_with_them(make: Make) -> None:
    lock = make()
    with lock, ExitStack() as stack:
        waiters = [stack.enter_context(forked(waiter(lock))) for _ in range(4)]
        for child in waiters:
            assert child.hear() == "waiting"
            wait_until_asleep(child)
        for child in waiters[:3]:
            child.kill()
        lock.release()
        assert waiters[3].hear() == TAKEN
        let_go(waiters[3])
        assert take(lock, False) == TAKEN
    assert take(lock, False) == TAKEN


# ---- Which acquirer is told of a death, and for how long ----


@robust_locks
def test_recovered_is_the_pid_of_the_dead_until_release(make: Make) -> None:
    lock = make()
    assert lock.recovered is None
    with lock:
        assert lock.recovered is None
    with holder(lock) as child:
        pid = die(child)
    with pytest.warns(semlock.OwnerDiedWarning) as caught, lock:
        assert lock.recovered == pid
    assert len(caught) == 1
    assert str(pid) in str(caught[0].message)
    assert lock.recovered is None
    with lock:
        assert lock.recovered is None


def test_the_warning_is_a_runtime_warning_that_points_at_the_caller() -> None:
    assert issubclass(semlock.OwnerDiedWarning, RuntimeWarning)
    lock = semlock.Lock()
    with holder(lock) as child:
        die(child)
    with pytest.warns(semlock.OwnerDiedWarning) as caught:
        lock.acquire()
    assert caught[0].filename == __file__


def test_a_recovered_rlock_is_told_once_and_stays_recovered_until_its_last_release() -> None:
    lock = semlock.RLock()
    with holder(lock, 2) as child:
        pid = die(child)
    assert take(lock) == recovered_from(pid)
    assert take(lock) == Taken(True, pid, 0)
    lock.release()
    assert lock.recovered == pid
    lock.release()
    assert lock.recovered is None


@robust_locks
def test_where_dead_owners_are_ignored_only_recovered_names_them(make: Make) -> None:
    lock = make(on_owner_died="ignore")
    with holder(lock) as child:
        pid = die(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lock.acquire()
    assert lock.recovered == pid
    lock.release()
    assert lock.recovered is None


CLASSES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", ["", "Warn", "raise", b"warn", None, 1])
def test_what_to_do_about_a_dead_owner_is_warn_or_ignore(name: str, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        getattr(semlock, name)(on_owner_died=wrong)


@robust_locks
def test_if_the_warning_is_an_error_the_next_holder_is_told_too(make: Make) -> None:
    lock = make()
    with holder(lock) as child:
        pid = die(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        for _ in range(2):
            with pytest.raises(semlock.OwnerDiedWarning):
                lock.acquire()
            with pytest.raises(semlock.OwnerDiedWarning), lock:
                pytest.fail("the lock is not held")
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (False, 0)
            assert lock.recovered is None
    # First in another process, and then here.
    with forked(lambda _: take(lock)) as other:
        assert other.result() == recovered_from(pid)
    assert take(lock) == recovered_from(other.pid)


@robust_locks
def test_if_the_warning_is_an_error_a_waiter_of_a_condition_still_gets_its_lock(make: Make) -> None:
    lock = make()
    condition = semlock.Condition(lock)

    def notify_and_die(line: Line) -> None:
        with condition:
            condition.notify()
            os.kill(os.getpid(), signal.SIGKILL)

    with condition, warnings.catch_warnings():
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        with forked(notify_and_die) as child:
            with pytest.raises(semlock.OwnerDiedWarning, match=f"process {child.pid} died"):
                condition.wait(PATIENCE)
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (True, 1)
            assert lock.recovered == child.pid
    assert take(lock) == TAKEN


@robust_locks
def test_if_the_warning_is_an_error_a_waiter_gets_the_lock_and_is_told(make: Make) -> None:
    lock = make()

    def wait_strictly(line: Line) -> None:
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        line.say("waiting")
        try:
            lock.acquire()
        except semlock.OwnerDiedWarning:
            line.say("told")
        line.hear()

    with holder(lock) as first, ExitStack() as stack:
        waiters = [stack.enter_context(forked(wait_strictly)) for _ in range(3)]
        for child in waiters:
            assert child.hear() == "waiting"
            wait_until_asleep(child)
        first.kill()
        for child in waiters:
            assert child.hear() == "told"
    assert take(lock) == recovered_from(first.pid)


# ---- A living holder keeps it ----


@robust_locks
def test_a_stopped_holder_keeps_its_lock(make: Make) -> None:
    lock = make()
    with holder(lock) as child:
        child.stop()
        assert is_kept(lock)
        child.resume()
        let_go(child)
    assert take(lock) == TAKEN


@robust_locks
def test_a_stopped_holder_that_is_killed_has_died(make: Make) -> None:
    lock = make()
    with holder(lock) as child:
        child.stop()
        child.kill()
        assert take(lock) == recovered_from(child.pid)


@robust_locks
@pytest.mark.parametrize("thread", ["the main thread", "another thread"])
def test_a_holder_whose_main_thread_has_ended_keeps_its_lock(make: Make, thread: str) -> None:
    lock = make()

    def body(line: Line) -> None:
        def go_on() -> None:
            if thread == "another thread":
                lock.acquire()
            line.say("held")
            line.hear()
            if thread == "another thread" or make is semlock.Lock:
                lock.release()
            line.say("released")
            line.hear()

        if thread == "the main thread":
            lock.acquire()
        threading.Thread(target=go_on).start()
        system_call("exit", 0)

    def main_thread_has_ended() -> bool:
        return state_of(child.pid) == "Z"

    with forked(body) as child:
        assert child.hear() == "held"
        wait_until(main_thread_has_ended, "its main thread has ended")
        assert is_kept(lock)
        child.say()
        assert child.hear() == "released"
        if thread == "another thread" or make is semlock.Lock:
            assert take(lock) == TAKEN
            lock.release()
        else:
            assert is_kept(lock)


@robust_locks
def test_a_holder_without_a_main_thread_that_is_killed_has_died(make: Make) -> None:
    lock = make()

    def body(line: Line) -> None:
        threading.Thread(target=lambda: (lock.acquire(), line.say("held"), line.hear())).start()
        system_call("exit", 0)

    with forked(body) as child:
        assert child.hear() == "held"
        child.kill()
        assert take(lock) == recovered_from(child.pid)


@robust_locks
def test_a_holder_that_has_become_another_program_keeps_its_lock_until_that_ends(
    make: Make,
) -> None:
    lock = make()
    reading, writing = os.pipe()

    def body(_: Line) -> None:
        lock.acquire()
        os.dup2(reading, 0)
        os.close(writing)
        os.execvp("cat", ["cat"])

    try:
        with forked(body) as child:
            comm = Path(f"/proc/{child.pid}/comm")
            wait_until(lambda: comm.read_text() == "cat\n", "the child is cat")
            assert is_kept(lock)
            os.close(writing)
            writing = -1
            assert take(lock) == recovered_from(child.pid)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


@robust_locks
def test_a_holder_that_runs_other_programs_is_still_robust(make: Make) -> None:
    import subprocess

    lock = make()

    def body(line: Line) -> None:
        with lock:
            subprocess.run(["true"], check=True)
            line.say("held")
            line.hear()

    with forked(body) as child:
        assert child.hear() == "held"
        child.kill()
        assert take(lock) == recovered_from(child.pid)


# ---- Recycled pids ----


def a_recycled_pid_does_not_keep_a_lock(kind: str, impostor: str) -> None:
    lock = getattr(semlock, kind)()
    with holder(lock) as first:
        pid = die(first)
    wait_for_the_next_clock_tick()

    def with_a_thread(line: Line) -> None:
        with thread_with_id(pid):
            line.say("here")
            line.hear()

    def idle(line: Line) -> None:
        line.say("here")
        line.hear()

    if impostor == "process":
        with forked_as(pid, idle) as child:
            assert child.hear() == "here"
            assert lock.locked()
            assert take(lock, True, PATIENCE) == recovered_from(pid)
    else:
        with forked(with_a_thread) as child:
            assert child.hear() == "here"
            assert child.pid != pid
            assert take(lock, True, PATIENCE) == recovered_from(pid)


def in_a_pid_namespace_with_its_proc(function: str, *arguments: Any) -> None:
    in_a_pid_namespace(lambda: globals()[function](*arguments), own_proc=True)


@needs_chosen_pids
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
@pytest.mark.parametrize("impostor", ["process", "thread"])
def test_a_pid_that_is_recycled_does_not_keep_a_lock(kind: str, impostor: str) -> None:
    in_a_pid_namespace_with_its_proc("a_recycled_pid_does_not_keep_a_lock", kind, impostor)


@needs_chosen_pids
@needs_seccomp
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
@pytest.mark.parametrize("impostor", ["process", "thread"])
def test_a_pid_that_is_recycled_does_not_keep_a_lock_where_pidfd_open_is_denied(
    impostor: str, error: str
) -> None:
    in_a_fresh_interpreter(
        in_a_pid_namespace_with_its_proc,
        "a_recycled_pid_does_not_keep_a_lock",
        "Lock",
        impostor,
        first=pidfd_open_denied(error),
    )


def pidfd_open_denied(error: str) -> str:
    return (
        "from kernel_features import Denied, deny\n"
        f"deny(Denied('pidfd_open', {getattr(errno, error)}))"
    )


# ---- Pid namespaces ----


def a_living_holder_keeps_its_lock_and_a_dead_one_does_not(kind: str, user: int = 0) -> None:
    """Tried with a waiter that cannot learn all about the holder."""
    lock = getattr(semlock, kind)()

    def look(line: Line) -> None:
        if user:
            # hidepid hides nothing from a member of root's group.
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        line.say(is_kept(lock))
        line.hear()
        line.say(take(lock))
        line.hear()
        lock.release()

    with holder(lock) as child, forked(look) as other:
        assert other.hear() is True
        child.kill()
        child.reap()
        other.say()
        assert other.hear() == recovered_from(child.pid)
        let_go(other)
    assert take(lock) == TAKEN


@needs_pid_namespaces
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_the_proc_of_another_pid_namespace_does_not_take_a_lock_from_the_living(
    kind: str,
) -> None:
    # There, the holder's pid names another process, or none.
    in_a_pid_namespace(
        lambda: a_living_holder_keeps_its_lock_and_a_dead_one_does_not(kind), own_proc=False
    )


def living_holders_keep_their_locks(kind: str) -> None:
    lock = getattr(semlock, kind)()
    with holder(lock) as child:
        assert in_a_child(lambda: is_kept(lock))
        let_go(child)
    assert take(lock) == TAKEN


def without_a_proc_of_its_own(kind: str) -> None:
    in_a_pid_namespace(lambda: living_holders_keep_their_locks(kind), own_proc=False)


@needs_pid_namespaces
@needs_seccomp
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_the_proc_of_another_pid_namespace_without_pidfd_open_takes_nothing_from_the_living(
    error: str,
) -> None:
    in_a_fresh_interpreter(without_a_proc_of_its_own, "Lock", first=pidfd_open_denied(error))


def in_another_pid_namespace(body: Callable[[Line], Any]) -> Callable[[Line], Any]:
    """The body of a child whose own child does the work, as the first process of a namespace."""

    def outside(line: Line) -> Any:
        unshare(CLONE_NEWPID)
        with forked(lambda _: body(line)) as child:
            return child.result()

    return outside


def a_number_that_means_two_processes(kind: str) -> None:
    """A process checks a holder, and `/proc` is a foreign one in which its own pid is the same."""
    ambiguous, own = 5_000, 6_000

    def idle(line: Line) -> None:
        line.say("here")
        line.hear()

    def inside(line: Line) -> None:
        lock = getattr(semlock, kind)()

        def hold(child: Line) -> None:
            assert lock.acquire()
            child.say("held")
            child.hear()

        def look(child: Line) -> None:
            assert str(os.getpid()) == os.readlink("/proc/self") == str(own)
            child.say(is_kept(lock))

        with forked_as(ambiguous, hold) as first:
            assert first.hear() == "held"
            line.say("held")
            line.hear()
            with forked_as(own, look) as second:
                line.say(second.hear())

    with forked_as(ambiguous, idle) as idler:
        assert idler.hear() == "here"
        wait_for_the_next_clock_tick()
        with forked(in_another_pid_namespace(inside)) as child:
            assert child.hear() == "held"
            choose_next_pid(own)
            child.say()
            assert child.hear() is True


@needs_chosen_pids
def test_a_pid_that_means_another_process_in_a_foreign_proc_takes_no_lock() -> None:
    in_a_pid_namespace_with_its_proc("a_number_that_means_two_processes", "Lock")


@needs_pid_namespaces
@robust_locks
def test_a_holder_in_another_pid_namespace_is_foreign_and_never_recovered_from(
    make: Make,
) -> None:
    lock = make()

    def hold(line: Line) -> None:
        assert lock.acquire()
        assert lock._semlock._is_mine()
        line.say("held")
        line.hear()
        lock.release()
        line.say("released")
        line.hear()
        assert lock.acquire()
        line.say("held again")
        line.hear()

    with forked(in_another_pid_namespace(hold)) as child:
        assert child.hear() == "held"
        assert lock.locked()
        assert is_kept(lock)
        child.say()
        assert child.hear() == "released"
        assert take(lock) == TAKEN
        lock.release()
        child.say()
        assert child.hear() == "held again"
        die(child)  # and its child, the holder, with it
    assert is_kept(lock)


@contextmanager
def foreign_process(body: Callable[[Line], Any]) -> Iterator[Callable[[], None]]:
    """A process of another pid namespace that has said that it waits. Yields what kills it."""
    with forked(in_another_pid_namespace(body)) as child:
        assert child.hear() == "waits"

        def kill() -> None:
            child.kill()  # and the foreign process, its child, with it
            assert child.connection.poll(PATIENCE)
            with pytest.raises(EOFError):
                child.connection.recv()

        yield kill


def wait_once(condition: Any) -> Callable[[Line], bool]:
    def body(line: Line) -> bool:
        with condition:
            line.say("waits")  # it waits when another process gets the lock
            return condition.wait()

    return body


def waiting_at(condition: Any) -> Any:
    return condition._sleeping_count.get_value()


@needs_pid_namespaces
def test_a_waiter_that_died_in_another_pid_namespace_takes_one_notification_along() -> None:
    condition = semlock.Condition()
    with foreign_process(wait_once(condition)) as kill, forked(wait_once(condition)) as second:
        assert second.hear() == "waits"
        kill()
        with condition:
            condition.notify()
            assert waiting_at(condition) == 1
            condition.notify()
            assert waiting_at(condition) == 0
        assert second.result() is True
    with forked(wait_once(condition)) as third:
        assert third.hear() == "waits"
        with condition:
            condition.notify()
        assert third.result() is True


@needs_pid_namespaces
def test_notify_all_reaches_waiters_behind_a_dead_waiter_of_another_pid_namespace() -> None:
    condition = semlock.Condition()
    with foreign_process(wait_once(condition)) as kill, forked(wait_once(condition)) as second:
        assert second.hear() == "waits"
        kill()
        with condition:
            condition.notify_all()
        assert second.result() is True


@needs_pid_namespaces
def test_a_member_that_died_in_another_pid_namespace_breaks_a_barrier_at_a_timeout() -> None:
    barrier = semlock.Barrier(3)

    def wait(line: Line) -> None:
        line.say("waits")
        barrier.wait()

    with foreign_process(wait) as kill:
        wait_until(lambda: barrier.n_waiting == 1, "the foreign process is a member")
        kill()
        began = time.monotonic()
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(SEVERAL_LOOKS)
        assert time.monotonic() - began >= SEVERAL_LOOKS


@needs_pid_namespaces
@robust_locks
def test_a_process_in_another_pid_namespace_checks_nobody(make: Make) -> None:
    lock = make()
    with (
        holder(lock) as first,
        forked(in_another_pid_namespace(lambda line: look_on(lock, line))) as foreign,
    ):
        assert foreign.hear() is True
        first.kill()
        foreign.say()
        assert foreign.hear() is True  # it was not told, and took nothing
        assert take(lock) == recovered_from(first.pid)
        lock.release()
        foreign.say()
        assert foreign.hear() == TAKEN  # what is free is for foreign processes too


def look_on(lock: Any, line: Line) -> None:
    for _ in range(2):
        line.say(is_kept(lock))
        line.hear()
    line.say(take(lock, True, PATIENCE))


@needs_pid_namespaces
def test_a_foreign_process_can_release_a_lock_that_another_holds() -> None:
    lock = semlock.Lock()
    assert lock.acquire()
    with forked(in_another_pid_namespace(lambda _: lock.release())) as foreign:
        foreign.result()
    assert take(lock, False) == TAKEN


# ---- What is denied ----


@needs_seccomp
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS", "EINVAL", "ENOENT"])
def test_where_pidfd_open_is_denied_the_living_keep_their_locks_and_the_dead_do_not(
    error: str, kind: str
) -> None:
    in_a_fresh_interpreter(
        a_living_holder_keeps_its_lock_and_a_dead_one_does_not,
        kind,
        first=pidfd_open_denied(error),
    )


def a_zombie_has_died(kind: str) -> None:
    lock = getattr(semlock, kind)()
    with holder(lock) as child:
        child.kill()
        assert take(lock) == recovered_from(child.pid)


@needs_seccomp
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_where_pidfd_open_is_denied_a_zombie_has_died(error: str) -> None:
    in_a_fresh_interpreter(a_zombie_has_died, "Lock", first=pidfd_open_denied(error))


def a_process_whose_main_thread_has_ended_lives(kind: str) -> None:
    make = getattr(semlock, kind)
    test_a_holder_whose_main_thread_has_ended_keeps_its_lock(make, "another thread")


@needs_seccomp
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_where_pidfd_open_is_denied_a_process_whose_main_thread_has_ended_lives(
    error: str,
) -> None:
    in_a_fresh_interpreter(
        a_process_whose_main_thread_has_ended_lives, "Lock", first=pidfd_open_denied(error)
    )


@needs_seccomp
@pytest.mark.parametrize(
    "error",
    [errno.EPERM, errno.ENOSYS, errno.EMFILE, errno.ENOMEM, errno.EINVAL, errno.ENOENT],
)
def test_a_pidfd_open_that_fails_later_on_takes_nothing_from_the_living(error: int) -> None:
    # What semlock found out about its own process before no longer holds.
    lock = semlock.Lock()

    def look() -> bool:
        deny(Denied("pidfd_open", error))
        return is_kept(lock)

    with holder(lock) as child:
        assert in_a_child(look)
        let_go(child)
    assert take(lock) == TAKEN


def test_without_free_descriptors_the_living_keep_their_locks() -> None:
    import resource

    lock = semlock.Lock()

    def look() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return is_kept(lock)

    with holder(lock) as child:
        assert in_a_child(look)
        let_go(child)
    assert take(lock) == TAKEN


def where_proc_hides_others(kind: str) -> None:
    have_own_mounts()
    mount("proc", "/proc", "hidepid=2")
    a_living_holder_keeps_its_lock_and_a_dead_one_does_not(kind, NOBODY)


@needs_own_mounts
@needs_another_user
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_where_proc_hides_the_processes_of_others_the_living_keep_their_locks(kind: str) -> None:
    in_a_child(lambda: where_proc_hides_others(kind))


@needs_own_mounts
@needs_another_user
@needs_seccomp
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_where_proc_hides_others_and_pidfd_open_is_denied_the_living_keep_their_locks(
    error: str,
) -> None:
    in_a_fresh_interpreter(where_proc_hides_others, "Lock", first=pidfd_open_denied(error))


@needs_own_mounts
def test_where_there_is_no_proc_the_living_keep_their_locks() -> None:
    def look() -> None:
        have_own_mounts()
        mount("tmpfs", "/proc")
        living_holders_keep_their_locks("Lock")

    in_a_child(look)


@needs_another_user
@robust_locks
def test_a_holder_of_another_user_that_dies_is_replaced(make: Make) -> None:
    lock = make()

    def hold(line: Line) -> None:
        os.setuid(NOBODY)
        lock.acquire()
        line.say("held")
        line.hear()

    with forked(hold) as child:
        assert child.hear() == "held"
        assert is_kept(lock)
        child.kill()
        assert take(lock) == recovered_from(child.pid)


# ---- Forks ----


def a_fork_of_the_holder_is_not_the_holder(kind: str, fork: Callable[[], int] = os.fork) -> None:
    make = getattr(semlock, kind)
    lock = make()

    def body() -> None:
        for _ in range(2 if make is semlock.RLock else 1):
            lock.acquire()
        pid = os.getpid()

        def of_the_fork(line: Line) -> None:
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (False, 0)
            assert lock.locked()
            assert lock.holder() == pid
            assert take(lock, False) == NOT_TAKEN
            if make is semlock.RLock:
                with pytest.raises(AssertionError, match="not owned by thread"):
                    lock.release()
                assert lock.locked()
            line.say("looked")
            line.hear()
            assert take(lock) == TAKEN
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (True, 1)
            assert lock.holder() == os.getpid()
            line.say("held")
            line.hear()

        with forked(of_the_fork, fork) as child:
            assert child.hear() == "looked"
            assert lock._semlock._is_mine()
            while lock._semlock._count():
                lock.release()
            child.say()
            assert child.hear() == "held"
            assert take(lock, False) == NOT_TAKEN
            assert not lock._semlock._is_mine()
            child.kill()
            # It held the lock in its own name, though no handler had told it its pid.
            assert take(lock) == recovered_from(child.pid)

    in_a_child(body)


@pytest.mark.parametrize("fork", [os.fork, *FORKS_HERE])
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_fork_of_the_holder_is_not_the_holder(kind: str, fork: Callable[[], int]) -> None:
    a_fork_of_the_holder_is_not_the_holder(kind, fork)


@needs_seccomp
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_where_the_kernel_wipes_nothing_a_fork_of_the_holder_is_not_the_holder(kind: str) -> None:
    in_a_fresh_interpreter(
        a_fork_of_the_holder_is_not_the_holder,
        kind,
        first="from kernel_features import Denied, deny\n"
        # This bit filters MADV_WIPEONFORK (18) and its neighbours among the kinds of advice.
        f"deny(Denied('madvise', {errno.EINVAL}, 2, 16))",
    )


@pytest.mark.parametrize("fork", [os.fork, *FORKS_HERE])
def test_the_fork_of_a_recoverer_has_recovered_nothing(fork: Callable[[], int]) -> None:
    lock = semlock.Lock(on_owner_died="ignore")
    with holder(lock) as first:
        die(first)

    def body() -> None:
        assert lock.acquire()
        assert lock.recovered == first.pid
        with forked(lambda _: lock.recovered, fork) as child:
            assert child.result() is None

    in_a_child(body)


@pytest.mark.parametrize("fork", [os.fork, *FORKS_HERE])
@robust_locks
def test_the_fork_of_a_fork_of_the_holder_is_not_the_holder(
    make: Make, fork: Callable[[], int]
) -> None:
    lock = make()

    def mine() -> tuple[bool, int, bool]:
        return lock._semlock._is_mine(), lock._semlock._count(), lock.acquire(False)

    def body(depth: int) -> None:
        if depth:
            assert mine() == (False, 0, False)
        if depth < 3:
            with forked(lambda _: body(depth + 1), fork) as child:
                child.result()

    def first() -> None:
        with lock:
            body(0)
            assert lock._semlock._is_mine()

    in_a_child(first)
    assert take(lock, False) == TAKEN


def test_a_daemon_that_forked_while_it_held_a_lock_holds_it_after_its_parent_ended() -> None:
    lock = semlock.Lock()
    reading, writing = os.pipe()

    def parent(line: Line) -> None:
        lock.acquire()
        if os.fork():
            os._exit(0)
        line.say(os.getpid())
        os.read(reading, 1)
        lock.release()
        line.say("released")

    try:
        with forked(parent) as child:
            daemon = child.hear()
            wait_until(lambda: child.poll() is not None, "the parent has ended")
            child.reap()
            try:
                assert is_kept(lock)
                assert lock.locked()
                os.write(writing, b"\n")
                assert child.hear() == "released"
                assert take(lock) == TAKEN
            finally:
                os.kill(daemon, signal.SIGKILL)
                wait_until_gone(daemon)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_lock_that_was_taken_after_a_fork_is_robust() -> None:
    # Only a lock that was held during the fork may be the child's.
    lock = semlock.Lock()

    def body(line: Line) -> None:
        with lock, forked(lambda line: line.hear()):
            pass
        with forked(lambda line: line.hear()):
            lock.acquire()
            line.say("held")
            line.hear()

    with forked(body) as child:
        assert child.hear() == "held"
        child.kill()
        assert take(lock) == recovered_from(child.pid)


def test_a_recovered_lock_that_another_released_tells_of_no_death_any_more() -> None:
    lock = semlock.Lock()
    with holder(lock) as child:
        die(child)
        assert take(lock) == recovered_from(child.pid)
        in_a_child(lock.release)
        assert lock.recovered is None
        assert take(lock) == TAKEN
        lock.release()


def test_an_rlock_of_a_parent_that_ended_is_not_its_childs() -> None:
    # Only the thread that acquired it could release it, and a fork has no such thread.
    lock = semlock.RLock()

    def body(line: Line) -> None:
        with lock, forked(lambda line: line.hear()):
            line.say("held")
            line.hear()

    with forked(body) as child:
        assert child.hear() == "held"
        child.kill()
        assert take(lock) == recovered_from(child.pid)


@robust_locks
def test_a_fork_while_another_thread_holds_a_lock_holds_nothing(make: Make) -> None:
    lock = make()

    def body() -> None:
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            with lock:
                held.set()
                go.wait()

        def of_the_fork(line: Line) -> None:
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (False, 0)
            assert take(lock, False) == NOT_TAKEN
            line.say("waiting")
            assert take(lock) == TAKEN
            lock.release()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with forked(of_the_fork) as child:
            try:
                assert child.hear() == "waiting"
                wait_until_asleep(child)
                assert not lock._semlock._is_mine()
                assert lock._semlock._count() == 1
            finally:
                go.set()
                thread.join()
            child.result()

    in_a_child(body)


@robust_locks
def test_a_fork_while_another_thread_waits_for_a_lock_does_not_wait_in_the_child(
    make: Make,
) -> None:
    lock = make()

    def body() -> None:
        thread = threading.Thread(target=lambda: (lock.acquire(), lock.release()))
        lock.acquire()
        thread.start()
        wait_until(lambda: is_asleep(os.getpid(), thread.native_id), "it waits")

        def of_the_fork(line: Line) -> None:
            assert (lock._semlock._is_mine(), lock._semlock._count()) == (False, 0)
            line.say("waiting")
            for _ in range(100):
                assert take(lock) == TAKEN
                lock.release()

        with forked(of_the_fork) as child:
            assert child.hear() == "waiting"
            lock.release()
            child.result()
            thread.join()

    in_a_child(body)


@robust_locks
def test_forks_in_the_midst_of_threads_that_take_and_give_never_hang(make: Make) -> None:
    lock = make()

    def body() -> None:
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                with lock:
                    pass

        def of_the_fork() -> None:
            other = make()
            with other:
                assert not lock._semlock._is_mine()
            if make is semlock.RLock:
                with pytest.raises(AssertionError):
                    lock.release()
            with lock:
                pass

        threads = [threading.Thread(target=hammer) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                in_a_child(of_the_fork)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    in_a_child(body)


# ---- Semaphores ----

robust_semaphores = pytest.mark.parametrize("make", [semlock.Semaphore, semlock.BoundedSemaphore])


@robust_semaphores
@pytest.mark.parametrize("held", [1, 2, 3])
def test_the_permits_of_a_killed_holder_come_back_exactly(make: Make, held: int) -> None:
    semaphore = make(3, robust=True)
    with holder(semaphore, held) as child:
        pid = die(child)
    assert semaphore.get_value() == 3 - held
    taken = [take(semaphore, True, PATIENCE) for _ in range(3)]
    assert [each.got for each in taken] == [True] * 3
    assert sum(each.warnings for each in taken) == held
    assert {each.recovered for each in taken if each.warnings} == {pid}
    assert not take(semaphore, False).got
    for _ in range(3):
        semaphore.release()
    assert semaphore.recovered is None
    assert semaphore.get_value() == 3


@robust_semaphores
def test_of_two_holders_of_a_robust_semaphore_only_the_dead_one_loses_its_permits(
    make: Make,
) -> None:
    semaphore = make(3, robust=True)
    with holder(semaphore, 2) as living, holder(semaphore) as dead:
        dead.kill()
        assert take(semaphore) == recovered_from(dead.pid)
        assert is_kept(semaphore)
        let_go(living)
        assert [take(semaphore, False) for _ in range(3)][2] == NOT_TAKEN


@robust_semaphores
def test_a_waiter_for_a_robust_semaphore_gets_the_permit_of_the_dead(make: Make) -> None:
    semaphore = make(2, robust=True)
    with (
        holder(semaphore, 1) as dead,
        holder(semaphore, 1) as living,
        forked(waiter(semaphore)) as child,
    ):
        assert child.hear() == "waiting"
        wait_until_asleep(child)
        dead.kill()
        assert child.hear() == recovered_from(dead.pid)
        let_go(child)
        let_go(living)
    assert semaphore.get_value() == 2


@robust_semaphores
def test_a_robust_semaphore_is_not_released_by_a_process_that_holds_none(make: Make) -> None:
    semaphore = make(2, robust=True)

    def is_refused() -> bool:
        with pytest.raises((AssertionError, RuntimeError, ValueError), match="hold"):
            semaphore.release()
        return True

    assert is_refused()
    assert semaphore.get_value() == 2
    semaphore.acquire()
    assert in_a_child(is_refused)
    assert semaphore.get_value() == 1
    semaphore.release()
    assert is_refused()
    assert semaphore.get_value() == 2


@robust_semaphores
def test_a_robust_semaphore_is_released_by_any_thread_of_its_holder(make: Make) -> None:
    semaphore = make(1, robust=True)
    assert semaphore.acquire()
    thread = threading.Thread(target=semaphore.release)
    thread.start()
    thread.join()
    assert take(semaphore, False) == TAKEN


@robust_semaphores
def test_a_robust_semaphore_of_none_gives_none(make: Make) -> None:
    semaphore = make(0, robust=True)
    assert take(semaphore, False) == NOT_TAKEN
    assert take(semaphore, True, 0.01) == NOT_TAKEN
    assert semaphore.get_value() == 0


@robust_semaphores
def test_if_the_warning_is_an_error_the_permit_of_the_dead_is_not_lost(make: Make) -> None:
    semaphore = make(2, robust=True)
    with holder(semaphore, 2) as child:
        pid = die(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error", semlock.OwnerDiedWarning)
        for _ in range(3):
            with pytest.raises(semlock.OwnerDiedWarning):
                semaphore.acquire()
    assert [take(semaphore) for _ in range(2)] == [recovered_from(pid)] * 2
    assert not take(semaphore, False).got


PLAIN: dict[str, Callable[[], Any]] = {
    "Lock(robust=False)": lambda: semlock.Lock(robust=False),
    "RLock(robust=False)": lambda: semlock.RLock(robust=False),
    "Semaphore()": semlock.Semaphore,
    "BoundedSemaphore()": semlock.BoundedSemaphore,
}


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_what_is_not_robust_stays_taken_when_its_holder_dies(make: Callable[[], Any]) -> None:
    lock = make()
    with holder(lock) as child:
        die(child)
    assert is_kept(lock)
    if not isinstance(lock, semlock.RLock):
        lock.release()
        assert take(lock, False) == TAKEN


def test_a_plain_bounded_semaphore_is_taken_by_one_process_and_released_by_another() -> None:
    # As in multiprocessing.Queue(maxsize): by the putter, who may exit at once, and the getter.
    semaphore = semlock.BoundedSemaphore(2)
    for _ in range(3):
        in_a_child(lambda: [semaphore.acquire() for _ in range(2)] and None)
        assert take(semaphore, True, SEVERAL_LOOKS) == NOT_TAKEN
        in_a_child(lambda: [semaphore.release() for _ in range(2)] and None)
        assert semaphore.get_value() == 2


def test_a_lock_of_a_living_holder_may_be_released_by_anyone() -> None:
    lock = semlock.Lock()
    with holder(lock) as child:
        lock.release()
        assert take(lock, False) == TAKEN
        lock.release()
        with pytest.raises(ValueError, match="semaphore or lock released too many times"):
            lock.release()
        die(child)
    assert take(lock, False) == TAKEN


def test_a_lock_of_a_dead_holder_may_be_released_by_anyone() -> None:
    lock = semlock.Lock()
    with holder(lock) as child:
        die(child)
    lock.release()
    assert lock.acquire(False)


# ---- Reading the state changes nothing ----


@robust_locks
def test_reading_the_state_of_a_lock_never_checks_its_holder(make: Make) -> None:
    lock = make()
    with holder(lock) as child:
        pid = die(child)
    nonzero = ", nonzero" if make is semlock.RLock else ""
    owner = "SomeOtherProcess" if nonzero else "owner=SomeOtherProcess"
    give_up = time.monotonic() + SEVERAL_LOOKS
    while time.monotonic() < give_up:
        assert lock.locked()
        assert repr(lock) == f"<{make.__name__}({owner}{nonzero})>"
        assert (lock._semlock._get_value(), lock._semlock._is_zero()) == (0, True)
        assert lock.holder() == pid
        assert lock.recovered is None
    assert take(lock) == recovered_from(pid)


@robust_semaphores
def test_reading_the_state_of_a_robust_semaphore_never_checks_its_holders(make: Make) -> None:
    semaphore = make(2, robust=True)
    with holder(semaphore, 2) as child:
        pid = die(child)
    give_up = time.monotonic() + SEVERAL_LOOKS
    while time.monotonic() < give_up:
        assert semaphore.get_value() == 0
        assert semaphore.locked()
        assert "value=0" in repr(semaphore)
        assert semaphore.recovered is None
    assert take(semaphore) == recovered_from(pid)


@robust_locks
def test_holder_returns_the_pid_of_the_holder_or_none(make: Make) -> None:
    lock = make()
    assert lock.holder() is None
    with lock:
        assert lock.holder() == os.getpid()
        assert in_a_child(lock.holder) == os.getpid()
    assert lock.holder() is None
    with holder(lock) as child:
        assert lock.holder() == child.pid
        let_go(child)
    assert lock.holder() is None


def test_holder_is_that_of_its_own_thread_and_of_others() -> None:
    lock = semlock.RLock()
    found: list[Any] = []
    with lock, lock:
        thread = threading.Thread(target=lambda: found.append(lock.holder()))
        thread.start()
        thread.join()
    assert found == [os.getpid()]


def test_a_plain_lock_may_not_know_its_holder_but_says_whether_it_is_free() -> None:
    lock = semlock.Lock(robust=False)
    assert lock.holder() is None
    with lock:
        assert lock.holder() in (None, os.getpid())
    assert lock.holder() is None


def test_a_lock_refused_for_its_warning_is_left_to_the_process_that_took_it_meanwhile() -> None:
    lock = semlock.Lock()
    with holder(lock) as dead:
        die(dead)
    taken, done = threading.Event(), threading.Event()

    def takes() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=takes)

    def hook(*_: Any, **__: Any) -> None:
        lock.release()
        thread.start()
        taken.wait()
        raise LookupError

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = hook
        with pytest.raises(LookupError):
            lock.acquire()
    assert not lock.acquire(False)
    done.set()
    thread.join()
    assert take(lock, False) == TAKEN
    lock.release()


@pytest.mark.parametrize(
    "use", ["value.value", "value.value = 1", "value.get_lock().acquire()", "array[0]"]
)
def test_a_warning_shows_where_the_program_used_what_has_the_lock(use: str) -> None:
    context = semlock.get_context("fork")
    value, array = context.Value("i"), context.Array("i", 1)
    shared = array if "array" in use else value
    with holder(shared.get_lock()) as dead:
        die(dead)
    names = {"__name__": __name__, "value": value, "array": array}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile(use, __file__, "exec"), names)
    assert [warning.filename for warning in caught] == [__file__]


# ---- Code that the warning runs ----

ONE_PERMIT: dict[str, Callable[[], Any]] = {
    "Lock": semlock.Lock,
    "RLock": semlock.RLock,
    "Semaphore": partial(semlock.Semaphore, 1, robust=True),
    "BoundedSemaphore": partial(semlock.BoundedSemaphore, 1, robust=True),
}
one_permit = pytest.mark.parametrize("make", ONE_PERMIT.values(), ids=ONE_PERMIT)


def left_by_the_dead(make: Make) -> tuple[Any, int]:
    """A lock that a process held as it died, and that process."""
    lock = make()
    with holder(lock) as child:
        return lock, die(child)


@contextmanager
def warnings_run(hook: Callable[[], object]) -> Iterator[None]:
    def show(message: Warning, category: type[Warning], *_: Any, **__: Any) -> None:
        assert category is semlock.OwnerDiedWarning, message
        hook()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def in_another_thread(call: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


USES: dict[str, Callable[[Any], Any]] = {
    "with": lambda lock: lock.__enter__() is True and lock.__exit__(),
    "acquire()": lambda lock: lock.acquire() and lock.release(),
    "acquire(False)": lambda lock: lock.acquire(False) and lock.release(),
    "acquire(timeout)": lambda lock: lock.acquire(timeout=0.01) and lock.release(),
    "_semlock": lambda lock: lock._semlock.acquire() and lock._semlock.release(),
    "a copy": lambda lock: USES["with"](pickle.loads(pickle.dumps(lock))),
    "twice": lambda lock: [USES["with"](lock) for _ in range(2)][1],
}


@one_permit
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_warning_hook_may_acquire_the_lock_and_no_other_thread_can_meanwhile(
    make: Make, use: Callable[[Any], Any]
) -> None:
    lock, pid = left_by_the_dead(make)
    seen = []

    def hook() -> None:
        # `use` returns what its release returns: the hook acquired the lock.
        seen.append((use(lock), in_another_thread(lambda: lock.acquire(False)), lock.recovered))

    with warnings_run(hook):
        assert lock.acquire()
    assert seen == [(None, False, pid)]
    assert lock.recovered == pid
    assert not in_another_thread(lambda: lock.acquire(False))
    lock.release()
    with pytest.raises((ValueError, AssertionError)):
        lock.release()
    assert take(lock) == TAKEN


@both_locks
def test_a_warning_hook_of_a_condition_may_acquire_its_lock(kind: str) -> None:
    lock = getattr(semlock, kind)()
    condition = semlock.Condition(lock)

    def notify_and_die(line: Line) -> None:
        with condition:
            condition.notify()
            os.kill(os.getpid(), signal.SIGKILL)

    seen = []

    def hook() -> None:
        with lock, condition if kind == "RLock" else nullcontext():
            condition.notify()
        with condition:
            seen.append(in_another_thread(lambda: lock.acquire(False)))

    with condition, warnings_run(hook), forked(notify_and_die) as child:
        assert condition.wait(PATIENCE)
        assert lock.recovered == child.pid
        assert (lock._semlock._is_mine(), lock._semlock._count()) == (True, 1)
    assert seen == [False]
    assert take(lock) == TAKEN


@one_permit
def test_if_what_the_warning_runs_took_the_lock_and_raises_the_next_is_told_too(
    make: Make,
) -> None:
    lock, pid = left_by_the_dead(make)

    def hook() -> None:
        with lock:
            raise LookupError

    with warnings_run(hook), pytest.raises(LookupError):
        lock.acquire()
    assert take(lock) == recovered_from(pid)


@pytest.mark.parametrize("name", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_what_the_warning_runs_may_keep_the_lock_until_it_releases_it(name: str) -> None:
    lock, _ = left_by_the_dead(ONE_PERMIT[name])
    with warnings_run(lock.acquire):
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0.01)
    lock.release()
    assert take(lock) == TAKEN
    lock.release()

    lock, _ = left_by_the_dead(ONE_PERMIT[name])
    about_to_release = threading.Event()
    releaser = threading.Thread(target=lambda: about_to_release.wait() and lock.release())

    def hook() -> None:
        lock.acquire()
        releaser.start()
        about_to_release.set()

    with warnings_run(hook):
        assert lock.acquire()
    releaser.join()
    lock.release()
    assert take(lock) == TAKEN


@one_permit
def test_if_a_warning_hook_releases_the_lock_the_warned_acquirer_acquires_it_again(
    make: Make,
) -> None:
    lock, _ = left_by_the_dead(make)
    with warnings_run(lock.release):
        assert lock.acquire()
    assert not in_another_thread(lambda: lock.acquire(False))
    lock.release()
    assert take(lock) == TAKEN


@one_permit
def test_a_child_that_the_warning_forks_has_not_borrowed_the_lock(make: Make) -> None:
    lock, _ = left_by_the_dead(make)
    seen = []

    def hook() -> None:
        with lock, forked(lambda _: lock.acquire(False)) as child:
            seen.append(child.result())
        with forked(lambda _: lock.acquire(False)) as child:
            seen.append(child.result())

    with warnings_run(hook):
        assert lock.acquire()
    assert seen == [False, False]
    lock.release()
    assert take(lock) == TAKEN


@both_locks
def test_a_log_handler_that_writes_under_the_lock_of_a_dead_process_goes_on(kind: str) -> None:
    lock = getattr(semlock, kind)()
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with lock:
                written.append(record.getMessage())
                if written[-1] == "last words":
                    os.kill(os.getpid(), signal.SIGKILL)

    def log(line: Line, message: str) -> list[str]:
        logger = logging.getLogger()
        logger.handlers = [Handler()]
        logger.setLevel(logging.INFO)
        logging.captureWarnings(True)
        warnings.simplefilter("always")
        logger.info(message)
        return [first.partition(" died")[0] for first in written]

    with forked(lambda line: log(line, "last words")) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with forked(lambda line: log(line, "goes on")) as other:
        told, *rest = other.result()
    assert (f"process {child.pid}" in told, rest) == (True, ["goes on"])
    assert take(lock) == TAKEN

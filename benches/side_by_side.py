"""semlock beside the interpreter's own module, in one run.

Every row is measured in rounds that take turns, and the ratio is the median over the rounds of
ours to theirs: what disturbs the machine disturbs both. Times are medians too, in nanoseconds.

The first table compares raw SemLocks. The second compares what a user of `multiprocessing` has: its
classes on the interpreter's own module, and on semlock's.
"""

import _multiprocessing as stock
import argparse
import contextlib
import multiprocessing
import os
import platform
import signal
import statistics
import sysconfig
import time
from pathlib import Path

import semlock
import semlock._multiprocessing as ours

NAME = f"/semlock-bench-{os.getpid()}"
# Above this the row misses its bound.
BOUND = 1.0


def rounds_of(calls):
    """Says how many calls a round of a measurement makes."""

    def decorate(function):
        function.calls = calls
        return function

    return decorate


def timed(call, calls):
    """Nanoseconds that so many calls take."""
    start = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return time.perf_counter_ns() - start


@rounds_of(100_000)
def acquire_release(lock, calls):
    acquire, release = lock.acquire, lock.release
    start = time.perf_counter_ns()
    for _ in range(calls):
        acquire()
        release()
    return time.perf_counter_ns() - start


@rounds_of(100_000)
def with_lock(lock, calls):
    start = time.perf_counter_ns()
    for _ in range(calls):
        with lock:
            pass
    return time.perf_counter_ns() - start


@rounds_of(100_000)
def acquire_timeout(lock, calls):
    acquire, release = lock.acquire, lock.release
    start = time.perf_counter_ns()
    for _ in range(calls):
        acquire(timeout=1)
        release()
    return time.perf_counter_ns() - start


@rounds_of(100_000)
def acquire_false_on_a_taken_one(lock, calls):
    acquire = lock.acquire
    acquire()
    try:
        start = time.perf_counter_ns()
        for _ in range(calls):
            acquire(False)
        return time.perf_counter_ns() - start
    finally:
        lock.release()


@rounds_of(100_000)
def is_zero(lock, calls):
    return timed(lock._is_zero, calls)


@rounds_of(100_000)
def get_value(lock, calls):
    return timed(lock._get_value, calls)


@rounds_of(2_000)
def create_unlinked(module, calls):
    make = module.SemLock
    start = time.perf_counter_ns()
    for _ in range(calls):
        make(1, 1, 1, NAME, True)
    return time.perf_counter_ns() - start


@rounds_of(2_000)
def create_named(module, calls):
    make, unlink = module.SemLock, module.sem_unlink
    start = time.perf_counter_ns()
    for _ in range(calls):
        make(1, 1, 1, NAME, False)
        unlink(NAME)
    return time.perf_counter_ns() - start


@rounds_of(1_000)
def create_lock(installed, calls):
    with installed():
        return timed(multiprocessing.get_context("fork").Lock, calls)


@rounds_of(4_000)
def hand_over(module, calls):
    there, back = (module.SemLock(1, 0, 1, NAME, True) for _ in range(2))
    return to_and_fro(there, back, calls)


@rounds_of(4_000)
def hand_over_semaphores(installed, calls):
    with installed():
        there, back = (multiprocessing.get_context("fork").Semaphore(0) for _ in range(2))
    return to_and_fro(there, back, calls)


def to_and_fro(there, back, calls):
    """To another process, which has inherited both, and back."""
    child = os.fork()
    # A watchdog: this is over in a moment, and a process that has lost its peer is ended.
    signal.alarm(60)
    if child == 0:
        try:
            for _ in range(calls + 1):
                there.acquire()
                back.release()
        finally:
            os._exit(0)
    # Once for the child to come up.
    there.release()
    back.acquire()
    start = time.perf_counter_ns()
    for _ in range(calls):
        there.release()
        back.acquire()
    taken = time.perf_counter_ns() - start
    signal.alarm(0)
    os.waitpid(child, 0)
    return taken


@contextlib.contextmanager
def on_semlock():
    semlock.install("kernel")
    try:
        yield
    finally:
        semlock.uninstall()


def measure(function, theirs, mine, rounds):
    """Medians of (ours to theirs, ours, theirs) over rounds in which they take turns."""
    ratios, our_times, their_times = [], [], []
    for number in range(rounds):
        pair = [(their_times, theirs), (our_times, mine)]
        for times, subject in pair if number % 2 else reversed(pair):
            times.append(function(subject, function.calls) / function.calls)
        ratios.append(our_times[-1] / their_times[-1])
    return tuple(map(statistics.median, (ratios, our_times, their_times)))


def table(title, rows, rounds, bounded):
    print(f"\n{title}\n")
    print("| work | stock, ns | semlock, ns | ratio |" + (" bound |" if bounded else ""))
    print("|---|---:|---:|---:|" + ("---|" if bounded else ""))
    missed = []
    for name, function, theirs, mine in rows:
        ratio, our_time, their_time = measure(function, theirs, mine, rounds)
        row = f"| {name} | {their_time:,.1f} | {our_time:,.1f} | {ratio:.3f} |"
        if bounded:
            passed = ratio <= BOUND
            row += f" ≤ {BOUND} {'met' if passed else 'missed'} |"
            if not passed:
                missed.append(name)
        print(row, flush=True)
    return missed


def machine():
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    c_library = " ".join(platform.libc_ver())
    # How an interpreter was configured matters: these make its own module faster too.
    options = (sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
    chosen = [option for option in ("--enable-optimizations", "--with-lto") if option in options]
    configured = f"configured with {' '.join(chosen) or 'neither PGO nor LTO'}"
    return (
        f"CPython {platform.python_version()} ({configured}), {platform.system()} "
        f"{platform.release().split('-')[0]}, {c_library}, {os.cpu_count()} processors, {cpu}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31, help="rounds a row (default 31)")
    rounds = parser.parse_args().rounds

    context = multiprocessing.get_context("fork")
    stock_lock = context.Lock()
    with on_semlock():
        our_lock = context.Lock()
    assert type(our_lock._semlock) is ours.SemLock
    assert type(stock_lock._semlock) is stock.SemLock

    pair = [module.SemLock(1, 1, 1, NAME, True) for module in (stock, ours)]
    mutexes = [module.SemLock(0, 1, 1, NAME, True) for module in (stock, ours)]
    print(machine())
    missed = table(
        f"Raw `SemLock` against raw `SemLock` (medians of {rounds} interleaved rounds)",
        [
            ("`acquire(); release()`", acquire_release, *pair),
            ("`acquire(); release()`, recursive mutex", acquire_release, *mutexes),
            ("`with`", with_lock, *pair),
            ("`acquire(timeout=1); release()`", acquire_timeout, *pair),
            ("`acquire(False)` on a taken one", acquire_false_on_a_taken_one, *pair),
            ("`_is_zero()`", is_zero, *pair),
            ("`_get_value()`", get_value, *pair),
            (
                "creation, `unlink=True` (ours has no file)",
                create_unlinked,
                stock,
                ours,
            ),
            ("creation, `unlink=False`, and `sem_unlink`", create_named, stock, ours),
            ("hand-over to another process and back", hand_over, stock, ours),
        ],
        rounds,
        bounded=True,
    )
    table(
        "`multiprocessing` on each of the two (bounds are for the raw ones)",
        [
            ("`Lock`: `acquire(); release()`", acquire_release, stock_lock, our_lock),
            ("`with`", with_lock, stock_lock, our_lock),
            ("`acquire(timeout=1); release()`", acquire_timeout, stock_lock, our_lock),
            ("`acquire(False)` on a taken one", acquire_false_on_a_taken_one, stock_lock, our_lock),
            ("`Lock()`, start method fork", create_lock, contextlib.nullcontext, on_semlock),
            (
                "hand-over by `Semaphore`s to another process and back",
                hand_over_semaphores,
                contextlib.nullcontext,
                on_semlock,
            ),
        ],
        rounds,
        bounded=False,
    )
    print("\n" + (f"Missed: {', '.join(missed)}." if missed else "Every bound is met."))


if __name__ == "__main__":
    main()

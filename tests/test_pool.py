"""A worker of a `Pool` that dies fails its own task, and nothing else; every pool ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from children import started, wait_until_gone
from programs import HEAD as PROGRAM
from programs import METHODS, TAIL, Program, run_program

ENTRANCES = ["get_context", "install"]
ENDS = ["terminate", "leave", "close"]
KILLED = -signal.SIGKILL


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, HEAD + source, *arguments)


HEAD = '''
import multiprocessing.connection
import multiprocessing.pool
import multiprocessing.queues
import random, weakref

LARGE = 5_000_000  # bytes: many times what a channel holds


def context():
    if sys.argv[2] == "install":
        semlock.install()
        return multiprocessing.get_context(method())
    return semlock.get_context(method())


# ---- What workers do ----


def keep(end):
    """Each worker calls it first: it gets the end by which it tells the parent what it does."""
    global parent
    parent = end


def tell(kind, what):
    parent.send((kind, what))


def square(x):
    return x * x


def wait_to_be_killed(*_):
    tell("waits", os.getpid())
    signal.pause()


def wait_for_ever(*_):
    signal.pause()


def square_or_wait(x, fatal=2):
    if x == fatal:
        wait_to_be_killed()
    tell("done", x)
    return x * x


def wait_once(x):
    """Waits, unless a worker has done so before."""
    if os.path.exists("has waited"):
        return x * x
    open("has waited", "x").close()
    wait_to_be_killed()


def large(byte):
    return bytes([byte]) * LARGE


def size(data):
    return len(data)


# ---- What the parent does ----


class Parent:
    """Hears what workers tell, and kills each one that waits for it."""

    def __init__(self):
        reader, self.writer = multiprocessing.Pipe(False)
        self.killed, self.done = [], []
        self.thread = threading.Thread(target=self.hear, args=(reader,))
        self.thread.start()

    def hear(self, reader):
        for kind, what in iter(reader.recv, None):
            if kind == "waits":
                self.killed.append(what)
                os.kill(what, signal.SIGKILL)
            else:
                self.done.append(what)

    def stop(self):
        self.writer.send(None)
        self.thread.join()

    def told(self, error):
        """What an exception says."""
        if not isinstance(error, semlock.WorkerDied):
            return type(error).__name__
        pid = "killed" if error.pid in self.killed else error.pid
        return ["WorkerDied", error.tasks, pid, error.exitcode, error.task]

    def outcome(self, function, *arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            return self.told(error)


def end(pool, way):
    if way == "terminate":
        pool.terminate()
    elif way == "leave":
        pool.__exit__(None, None, None)
    else:
        pool.close()
    pool.join()
    assert not multiprocessing.active_children()


def works(pool, workers):
    """Whether a pool has all its workers, and does what it is told."""
    wait_until(lambda: sum(worker.is_alive() for worker in list(pool._pool)) == workers)
    return pool.map(square, range(5), 1) == [0, 1, 4, 9, 16]


def kill(worker):
    os.kill(worker.pid, signal.SIGKILL)
    if worker._popen.method == "forkserver":
        # Of two threads that ask a fork server for an exit code, one gets a wrong one.
        wait_until(lambda: not os.path.exists(f"/proc/{worker.pid}"))
    else:
        worker.join()


class Busy:
    """Keeps the thread of a pool that reads results busy."""

    def __init__(self, pool):
        self.begins, self.goes_on = threading.Event(), threading.Event()
        pool.apply_async(square, (1,), callback=self.callback)
        self.begins.wait()

    def callback(self, _):
        self.begins.set()
        self.goes_on.wait()


def has_result(pool):
    return not pool._outqueue._reader._channel.is_empty()


# ---- A pool with queues of its own: PyTorch's ----


class Wrapper:
    def __init__(self, connection):
        self.connection = connection

    def send(self, obj):
        self.send_bytes(bytes(multiprocessing.reduction.ForkingPickler.dumps(obj)))

    def recv(self):
        return pickle.loads(self.recv_bytes())

    def __getattr__(self, name):
        if "connection" in vars(self):
            return getattr(self.connection, name)
        raise AttributeError(name)


class WrappedQueue(multiprocessing.queues.SimpleQueue):
    def _make_methods(self):
        if not isinstance(self._reader, Wrapper):
            self._reader, self._writer = Wrapper(self._reader), Wrapper(self._writer)
        super()._make_methods()


class WrappedPool(multiprocessing.pool.Pool):
    def _setup_queues(self):
        self._inqueue = WrappedQueue(ctx=self._ctx)
        self._outqueue = WrappedQueue(ctx=self._ctx)
        self._quick_put = self._inqueue._writer.send
        self._quick_get = self._outqueue._reader.recv


'''


# ---- A worker that dies ----

FORMS = """
def apply(pool, us, function):
    return [us.outcome(pool.apply, function, (x,)) for x in range(6)]


def apply_async(pool, us, function):
    jobs = [pool.apply_async(function, (x,)) for x in range(6)]
    return [us.outcome(job.get) for job in jobs]


def map(pool, us, function):
    return us.outcome(pool.map, function, range(6), 1)


def map_async(pool, us, function):
    told = []
    job = pool.map_async(function, range(6), 1, error_callback=told.append)
    result = us.outcome(job.get)
    assert [us.told(error) for error in told] == [result]
    return result


def starmap(pool, us, function):
    return us.outcome(pool.starmap, function, [(x, 2) for x in range(6)], 1)


def starmap_async(pool, us, function):
    return us.outcome(pool.starmap_async(function, [(x, 2) for x in range(6)], 1).get)


def imap(pool, us, function):
    results = pool.imap(function, range(6))
    return [us.outcome(next, results) for _ in range(6)]


def imap_unordered(pool, us, function):
    results = pool.imap_unordered(function, range(6))
    return sorted((us.outcome(next, results) for _ in range(6)), key=str)


"""
WHOLE = ["map", "map_async", "starmap", "starmap_async"]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["apply", "apply_async", *WHOLE, "imap", "imap_unordered"])
def test_a_task_fails_alone_whose_worker_is_killed(
    form: str, method: str, entrance: str, program: Program
) -> None:
    source = (
        FORMS
        + """
def body():
    us = Parent()
    pool = context().Pool(2, keep, (us.writer,))
    said = globals()[sys.argv[3]](pool, us, square_or_wait)
    said = [said, len(us.killed), works(pool, 2)]
    end(pool, "close")
    us.stop()
    return [*said, sorted(us.done)]
"""
    )
    died = ["WorkerDied", 1, "killed", KILLED, "square_or_wait"]
    expected: object = [0, 1, died, 9, 16, 25]
    if form in WHOLE:
        expected = died
    elif form == "imap_unordered":
        expected = sorted([0, 1, died, 9, 16, 25], key=str)
    assert program(source, method, entrance, form) == [expected, 1, True, [0, 1, 3, 4, 5]]


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_chunk_of_items_fails_with_the_name_of_their_function(
    entrance: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(1, keep, (us.writer,))
    results = pool.imap(square_or_wait, range(9), 3)
    said = [us.outcome(next, results), us.outcome(pool.map, square_or_wait, range(3, 9), 3)]
    end(pool, "close")
    us.stop()
    return said
"""
    died = ["WorkerDied", 1, "killed", KILLED, "square_or_wait"]
    assert program(source, "fork", entrance) == [died, [9, 16, 25, 36, 49, 64]]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_fails_when_an_idle_worker_is_killed(
    method: str, entrance: str, program: Program
) -> None:
    source = """
def body():
    pool = context().Pool(2)
    said = []
    # One that has done nothing, and one that has done a task.
    for _ in range(2):
        for worker in list(pool._pool):
            wait_until(lambda: is_asleep(worker.pid))
            kill(worker)
        said.append(works(pool, 2))
    end(pool, "close")
    return said
"""
    assert program(source, method, entrance) == [True, True]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_task_that_ends_its_worker_fails_with_the_exit_code(
    method: str, entrance: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(2)
    jobs = [pool.apply_async(function, (3,)) for function in (sys.exit, os._exit, square)]
    said = [us.outcome(job.get) for job in jobs]
    said = [said[0][3:], said[1][3:], said[2], works(pool, 2)]
    end(pool, "close")
    us.stop()
    return said
"""
    expected = [[3, "exit"], [3, "_exit"], 9, True]
    assert program(source, method, entrance) == expected


def test_a_map_whose_task_calls_exit_fails_and_the_pool_goes_on(program: Program) -> None:
    source = """
def exit_at_one(x):
    if x == 1:
        sys.exit(3)
    return x


def body():
    us = Parent()
    with context().Pool(2) as pool:
        said = [us.outcome(pool.map, exit_at_one, range(4), 1)[3:]]
        said.append(us.outcome(pool.map, exit_at_one, [5, 6, 7]))
    us.stop()
    return said
"""
    assert program(source, "fork", "install") == [[3, "exit_at_one"], [5, 6, 7]]


@pytest.mark.parametrize("method", METHODS)
def test_each_failed_task_has_an_exception_of_its_own(method: str, program: Program) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(2, keep, (us.writer,))
    jobs = [pool.apply_async(wait_to_be_killed) for _ in range(5)]
    errors = []
    for job in jobs:
        try:
            job.get()
        except semlock.WorkerDied as error:
            errors.append(error)
    said = [len({id(error) for error in errors}), len({error.pid for error in errors})]
    said.append(sorted(error.pid for error in errors) == sorted(us.killed))
    # It can be sent to others.
    again = pickle.loads(pickle.dumps(errors[0]))
    said.append(us.told(again) == us.told(errors[0]) and str(again) == str(errors[0]))
    end(pool, "terminate")
    us.stop()
    return said
"""
    assert program(source, method, "get_context") == [5, 5, True, True]


def test_what_a_task_that_failed_leaves_keeps_no_pool(program: Program) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(1, keep, (us.writer,))
    job = pool.apply_async(wait_to_be_killed)
    try:
        job.get()
    except semlock.WorkerDied as error:
        kept = error
    end(pool, "terminate")
    us.stop()
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    return [reference() is None, job.ready(), type(kept).__name__]
"""
    assert program(source, "fork", "get_context") == [True, True, "WorkerDied"]


# ---- Tasks that are tried again ----


@pytest.mark.parametrize("method", METHODS)
def test_a_task_whose_worker_died_is_tried_again_as_often_as_the_pool_was_told(
    method: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(2, keep, (us.writer,), retry=1)
    said = [us.outcome(pool.apply, wait_once, (3,)), len(us.killed)]
    os.remove("has waited")
    results = pool.imap(wait_once, range(5))
    said.append([us.outcome(next, results) for _ in range(5)])
    jobs = [pool.apply_async(wait_to_be_killed), pool.apply_async(square, (4,))]
    said.append([us.outcome(job.get) for job in jobs])
    said += [len(us.killed), works(pool, 2)]
    # Tried again while the pool is closed.
    os.remove("has waited")
    job = pool.apply_async(wait_once, (5,))
    end(pool, "close")
    us.stop()
    return [*said, us.outcome(job.get)]
"""
    died = ["WorkerDied", 1, "killed", KILLED, "wait_to_be_killed"]
    expected = [9, 1, [0, 1, 4, 9, 16], [died, 16], 4, True, 25]
    assert program(source, method, "get_context") == expected


def test_a_task_is_tried_again_while_an_iterable_of_tasks_waits_for_its_result(
    program: Program,
) -> None:
    source = """
def body():
    us = Parent()
    pool = semlock.pool.Pool(1, keep, (us.writer,), context=context(), retry=1)
    told = threading.Event()

    def tasks():
        yield 3
        told.wait()

    results = pool.imap(wait_once, tasks())
    said = [us.outcome(next, results)]
    told.set()
    said.append(us.outcome(next, results))
    end(pool, "close")
    us.stop()
    return said
"""
    source = "import semlock.pool\n" + source
    assert program(source, "fork", "get_context") == [9, "StopIteration"]


def test_a_negative_number_of_retries_is_refused(program: Program) -> None:
    source = """
import semlock.pool


def body():
    return [
        raised(semlock.pool.Pool, 1, context=context(), retry=-1),
        raised(context().Pool, 1, retry=-1),
    ]
"""
    assert program(source, "fork", "get_context") == ["ValueError"] * 2


# ---- In the middle of a message ----


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_task_fails_alone_whose_worker_is_killed_in_the_middle_of_a_large_result(
    method: str, entrance: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    pool = context().Pool(1)
    busy = Busy(pool)
    jobs = [pool.apply_async(large, (byte,)) for byte in range(3)]
    wait_until(lambda: has_result(pool) and is_asleep(pool._pool[0].pid))
    us.killed.append(pool._pool[0].pid)
    kill(pool._pool[0])
    busy.goes_on.set()
    said = [us.outcome(jobs[0].get)]
    said += [us.outcome(job.get) == large(byte) for byte, job in enumerate(jobs) if byte]
    said.append(works(pool, 1))
    end(pool, "close")
    us.stop()
    return said
"""
    died = ["WorkerDied", 1, "killed", KILLED, "large"]
    assert program(source, method, entrance) == [died, True, True, True]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_task_fails_alone_whose_worker_is_killed_in_the_middle_of_taking_it(
    method: str, entrance: str, program: Program
) -> None:
    source = """
MANY = 64 << 20


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def body():
    us = Parent()
    pool = context().Pool(1, keep, (us.writer,))
    assert works(pool, 1)
    worker = pool._pool[0]
    before = resident(worker.pid)
    jobs = [
        # A worker that had it all would wait.
        pool.apply_async(wait_for_ever, (b"x" * MANY,)),
        pool.apply_async(size, (b"y" * LARGE,)),
    ]
    while resident(worker.pid) < before + MANY // 8:
        pass
    us.killed.append(worker.pid)
    kill(worker)
    said = [us.outcome(job.get) for job in jobs]
    said.append(works(pool, 1))
    end(pool, "close")
    us.stop()
    return said
"""
    died = ["WorkerDied", 1, "killed", KILLED, "wait_for_ever"]
    assert program(source, method, entrance) == [died, 5_000_000, True]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_each_task_is_done_once_or_fails_when_workers_die_at_any_moment(
    method: str, entrance: str, program: Program
) -> None:
    source = """
def live_for_a_while(longest):
    seconds = random.random() * longest

    def die():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die, daemon=True).start()


def work(index, data):
    with open("begun", "ab", buffering=0) as file:
        file.write(b"%d\\n" % index)
    assert len(data) == index % 5 * 100_000
    return index, bytes([index % 251]) * (index % 7 * 200_000)


def body():
    us = Parent()
    count = 300 if method() == "fork" else 60
    pool = context().Pool(3, live_for_a_while, (0.2,))
    jobs = [pool.apply_async(work, (i, b"x" * (i % 5 * 100_000))) for i in range(count)]
    pool.close()
    pool.join()
    said, done = set(), []
    for index, job in enumerate(jobs):
        result = us.outcome(job.get, 0)
        if type(result) is tuple:
            assert result == (index, bytes([index % 251]) * (index % 7 * 200_000)), index
            done.append(index)
        else:
            said.add((result[0], result[3], result[4]))
    begun = [int(line) for line in open("begun", "rb")]
    us.stop()
    return [
        sorted(said | {("WorkerDied", -signal.SIGKILL, "work")}),
        len(begun) == len(set(begun)),
        set(done) <= set(begun),
        len(done) > 0,
        multiprocessing.active_children(),
    ]
"""
    expected = [[["WorkerDied", KILLED, "work"]], True, True, True, []]
    assert program(source, method, entrance) == expected


# ---- Ends ----


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_ends_in_each_way_after_workers_have_died(
    method: str, entrance: str, way: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    ctx = context()
    pools = [ctx.Pool(2, keep, (us.writer,)) for _ in range(3)]
    # Idle.
    for worker in list(pools[0]._pool):
        kill(worker)
    # In a task, with others behind it.
    pools[1].map_async(square_or_wait, range(9), 1)
    # In the middle of a result.
    busy = Busy(pools[2])
    pools[2].map_async(large, range(9), 1)
    wait_until(lambda: has_result(pools[2]))
    for worker in list(pools[2]._pool):
        kill(worker)
    busy.goes_on.set()
    for pool in pools:
        if sys.argv[3] == "terminate":
            pool.terminate()
        elif sys.argv[3] == "leave":
            pool.__exit__(None, None, None)
        else:
            pool.close()
        pool.join()
    us.stop()
    return multiprocessing.active_children()
"""
    assert program(source, method, entrance, way) == []


@pytest.mark.parametrize("way", ["terminate", "leave"])
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_ends_while_its_workers_send_large_results(
    method: str, entrance: str, way: str, program: Program
) -> None:
    source = """
def body():
    ctx = context()
    rounds = 10 if method() == "fork" else 2
    for number in range(rounds):
        pool = ctx.Pool(4)
        results = pool.imap_unordered(large, list(range(60)))
        pool.apply_async(square, (10,))
        for _ in range(number % 3):
            next(results)
        if number % 3 == 0:
            wait_until(lambda: has_result(pool))
        end(pool, sys.argv[3])
    return rounds
"""
    assert program(source, method, entrance, way) == (10 if method == "fork" else 2)


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_pool_that_was_closed_can_be_terminated_with_large_results_in_flight(
    entrance: str, program: Program
) -> None:
    source = """
def body():
    ctx = context()
    for _ in range(20):
        pool = ctx.Pool(4)
        first, *_ = [pool.apply_async(bytes, (size,)) for size in [10] + [2_000_000] * 30]
        pool.close()
        first.wait()
        pool.terminate()
        pool.join()
    return multiprocessing.active_children()
"""
    assert program(source, "fork", entrance) == []


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_pool_is_terminated_while_large_tasks_wait_to_be_handed_out(
    entrance: str, program: Program
) -> None:
    source = """
def body():
    pool = context().Pool(2)
    pool.map_async(wait_for_ever, [bytes(LARGE) for _ in range(9)], 1)
    wait_until(lambda: not pool._inqueue._reader._channel.is_empty())
    end(pool, "terminate")
    return True
"""
    assert program(source, "fork", entrance) is True


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_pool_is_terminated_while_a_large_task_is_pickled(
    entrance: str, program: Program
) -> None:
    source = """
class LongInPickling:
    def __reduce__(self):
        begins.set()
        goes_on.wait()
        return bytes, (bytes(LARGE),)


begins, goes_on = threading.Event(), threading.Event()


def body():
    pool = context().Pool(1)
    pool.apply_async(wait_for_ever)
    pool.apply_async(size, (LongInPickling(),))
    begins.wait()
    ends = threading.Thread(target=pool.terminate)
    ends.start()
    # It has ended the worker, or it waits for what is pickled.
    worker = pool._pool[0]
    worker.join(0.5)
    goes_on.set()
    ends.join()
    pool.join()
    return multiprocessing.active_children()
"""
    assert program(source, "fork", entrance) == []


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_pool_ends_whose_workers_do_not_end_at_a_sigterm(entrance: str, program: Program) -> None:
    source = """
def rest(x):
    time.sleep(0.01)
    return x


def body():
    signal.signal(signal.SIGTERM, lambda *_: None)
    ctx = context()
    for _ in range(5):
        pool = ctx.Pool(3)
        pool.map(rest, range(10))
        pool.map_async(rest, range(100))
        end(pool, "terminate")
    return True
"""
    assert program(source, "fork", entrance) is True


def test_a_pool_whose_iterable_of_tasks_never_ends_is_terminated(program: Program) -> None:
    source = """
def body():
    pool = context().Pool(2)
    results = pool.imap(square, iter(int, 1))
    said = [next(results), next(results)]
    end(pool, "terminate")
    return said
"""
    assert program(source, "fork", "get_context") == [0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_the_process_of_their_pool_is_killed(method: str, tmp_path: Path) -> None:
    source = """
def main():
    pool = context().Pool(2)
    assert works(pool, 2)
    print(json.dumps([worker.pid for worker in pool._pool]), flush=True)
    signal.pause()
"""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM + HEAD + source + TAIL)
    with started(path, method, "get_context", cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().strip("[]\n").split(",")]
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    for pid in pids:
        wait_until_gone(pid)


# ---- Messages that cannot be pickled ----


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_result_that_cannot_be_unpickled_fails_its_task_alone(
    method: str, entrance: str, program: Program
) -> None:
    source = """
class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def refuse(*_):
    raise LookupError("here")


class Refuses:
    def __init__(self, refuses, *more):
        self.refuses, self.more = refuses, more

    def __reduce__(self):
        return self.refuses, self.more

    @classmethod
    def rebuilt(cls, *_):
        refuse()


def give(kind):
    import functools, operator

    if kind == "raises":
        raise TwoArguments(1, 2)
    if kind == "function":
        return Refuses(refuse)
    if kind == "method":
        return Refuses(Refuses.rebuilt, 1)
    if kind == "partial":
        return {"here": [Refuses(functools.partial(refuse, 1), 2)]}
    if kind == "caller":
        return Refuses(operator.methodcaller("no_such_method"), 1)
    if kind == "large":
        return bytes(LARGE), Refuses(refuse)
    return kind


def body():
    us = Parent()
    pool = context().Pool(2)
    kinds = ["raises", "function", "method", "partial", "caller", "large", "fine"]
    jobs = [pool.apply_async(give, (kind,)) for kind in kinds]
    said = [us.outcome(job.get) for job in jobs]
    results = pool.imap(give, ["fine", "function", "fine"])
    said.append([us.outcome(next, results) for _ in range(3)])
    said.append(us.outcome(pool.map, give, ["fine", "raises", "fine"], 1))
    said.append(works(pool, 2))
    end(pool, "close")
    us.stop()
    return said
"""
    refused = "LookupError"
    assert program(source, method, entrance) == [
        "TypeError", refused, refused, refused, "AttributeError", refused, "fine",
        ["fine", refused, "fine"], "TypeError", True,
    ]  # fmt: skip


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_a_task_or_a_result_that_cannot_be_pickled_fails_alone(
    method: str, entrance: str, program: Program
) -> None:
    source = """
def give_a_lock(_):
    return threading.Lock()


def body():
    us = Parent()
    pool = context().Pool(2)
    jobs = [pool.apply_async(square, (x,)) for x in (1, threading.Lock(), 2)]
    said = [us.outcome(job.get) for job in jobs]
    results = pool.imap(square, [3, threading.Lock(), 4])
    said += [us.outcome(next, results) for _ in range(3)]
    said.append(us.outcome(pool.apply, give_a_lock, (0,)))
    # The numbers of tasks are right after that.
    said += [us.outcome(pool.apply, os._exit, (3,))[3], works(pool, 2)]
    end(pool, "close")
    us.stop()
    return said
"""
    assert program(source, method, entrance) == [
        1, "TypeError", 4, 9, "TypeError", 16, "MaybeEncodingError", 3, True,
    ]  # fmt: skip


# ---- Kinds of pools ----


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("method", METHODS)
def test_each_worker_can_end_after_one_task(method: str, entrance: str, program: Program) -> None:
    source = """
def pid(x):
    return x, os.getpid()


def body():
    us = Parent()
    count = 100 if method() == "fork" else 12
    pool = context().Pool(3, keep, (us.writer,), maxtasksperchild=1)
    done = pool.map(pid, range(count), 1)
    said = [[x for x, _ in done] == list(range(count)), len({pid for _, pid in done}) > 3]
    jobs = [pool.apply_async(square_or_wait, (x,)) for x in range(5)]
    said.append([us.outcome(job.get) for job in jobs])
    end(pool, "close")
    us.stop()
    return said
"""
    died = ["WorkerDied", 1, "killed", KILLED, "square_or_wait"]
    assert program(source, method, entrance) == [True, True, [0, 1, died, 9, 16]]


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_with_queues_of_its_own_is_looked_after_as_well(
    method: str, program: Program
) -> None:
    source = """
def body():
    us = Parent()
    pool = WrappedPool(1, keep, (us.writer,), context=context())
    jobs = [pool.apply_async(square_or_wait, (x,)) for x in range(4)]
    said = [[us.outcome(job.get) for job in jobs]]
    assert works(pool, 1)
    kill(pool._pool[0])
    said.append(works(pool, 1))
    busy = Busy(pool)
    jobs = [pool.apply_async(large, (byte,)) for byte in range(2)]
    wait_until(lambda: has_result(pool) and is_asleep(pool._pool[0].pid))
    us.killed.append(pool._pool[0].pid)
    kill(pool._pool[0])
    busy.goes_on.set()
    said += [us.outcome(jobs[0].get), jobs[1].get() == large(1)]
    end(pool, "close")
    us.stop()
    return said
"""
    died = ["WorkerDied", 1, "killed", KILLED]
    assert program(source, method, "install") == [
        [0, 1, [*died, "square_or_wait"], 9], True, [*died, "large"], True,
    ]  # fmt: skip


def test_a_pool_with_queues_of_its_own_is_terminated_while_its_workers_send_large_results(
    program: Program,
) -> None:
    source = """
def body():
    ctx = context()
    for number in range(10):
        pool = WrappedPool(4, context=ctx)
        results = pool.imap_unordered(large, list(range(60)))
        for _ in range(number % 3):
            next(results)
        if number % 3 == 0:
            wait_until(lambda: has_result(pool))
        end(pool, "terminate")
    return True
"""
    assert program(source, "fork", "install") is True


def test_a_pool_goes_on_as_it_is_after_uninstall(program: Program) -> None:
    source = """
def body():
    us = Parent()
    pools = [context().Pool(2, keep, (us.writer,)) for _ in range(len(ENDS))]
    wrapped = WrappedPool(2, keep, (us.writer,), context=context())
    semlock.uninstall()
    said = []
    for pool in (*pools, wrapped):
        jobs = [pool.apply_async(square_or_wait, (x,)) for x in range(4)]
        said.append([us.outcome(job.get) for job in jobs])
        assert works(pool, 2)
    for pool, way in zip((*pools, wrapped), (*ENDS, "terminate")):
        pool.map_async(large, range(20), 1)
        if way == "close":
            pool.close()
        else:
            pool.terminate()
        pool.join()
    us.stop()
    return [*said, multiprocessing.active_children()]
"""
    source = f"ENDS = {ENDS!r}\n" + source
    died = ["WorkerDied", 1, "killed", KILLED, "square_or_wait"]
    assert program(source, "fork", "install") == [[0, 1, died, 9]] * 4 + [[]]


def test_a_thread_pool_and_pools_of_the_stdlib_are_left_alone(program: Program) -> None:
    source = """
import queue
from multiprocessing.pool import Pool, ThreadPool


class Before(Pool):
    pass


def is_ours(pool):
    return type(pool._pool) is not list


def body():
    stocks, said = Pool(2), []
    context()
    with ThreadPool(2) as pool, Before(2) as subclass:
        said += [pool.map(square, [1, 2]), subclass.map(square, [1, 2])]
        said += [is_ours(stocks), is_ours(pool), is_ours(subclass)]
        said.append(type(pool._inqueue) is queue.SimpleQueue)
    semlock.uninstall()
    with stocks, Before(2) as subclass:
        said += [stocks.map(square, [3]), is_ours(subclass)]
    return said
"""
    expected = [[1, 4], [1, 4], False, False, True, True, [9], False]
    assert program(source, "fork", "install") == expected


def test_a_thread_pool_ends_when_it_is_closed_and_terminated(program: Program) -> None:
    source = """
from multiprocessing.pool import ThreadPool


def body():
    context()
    said = []
    for way in ENDS:
        pool = ThreadPool(2)
        job = pool.map_async(square, range(100), 1)
        end(pool, way)
        said.append(way != "close" or len(job.get()))
    return said
"""
    source = f"ENDS = {ENDS!r}\n" + source
    assert program(source, "fork", "install") == [True, True, 100]

"""Locks can be sent wherever a pickle can go. They leave no descriptor behind on either side."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from children import output, start, started
from kernel_features import needs_own_mounts
from programs import METHODS, Program, run_program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return lambda source, *arguments: run_program(tmp_path, source, *arguments)


# How programs find the descriptors of a lock's segment.
SEGMENTS = '''
def of_segment(lock):
    """The descriptors of this process on a lock's segment, and which of them children inherit."""
    segment = os.fstat(lock._descriptor())
    found = []
    for number, _ in descriptors():
        try:
            status = os.fstat(number)
        except OSError:  # that of listdir itself
            continue
        if (status.st_dev, status.st_ino) == (segment.st_dev, segment.st_ino):
            found.append(number)
    return len(found), sum(map(os.get_inheritable, found))


'''


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_reaches_a_child_and_is_the_same_there(method: str, program: Program) -> None:
    source = """
class Labelled(semlock.Lock):
    def __init__(self, label, **keywords):
        super().__init__(**keywords)
        self.label = label


class Slotted(semlock.Semaphore):
    __slots__ = ("label",)


class Holder:
    def __init__(self, **things):
        self.__dict__.update(things)


def look(pipe, holder):
    said = {name: type(thing).__name__ for name, thing in vars(holder).items()}
    said["held"] = [holder.lock.acquire(False), holder.labelled.acquire(False)]
    said["labels"] = [holder.labelled.label, holder.slotted.label]
    said["values"] = [holder.semaphore.get_value(), holder.bounded.get_value()]
    said["refused"] = raised(holder.bounded.release)
    said["parties"] = holder.barrier.parties
    said["one lock"] = holder.condition._lock is holder.rlock
    holder.event.set()
    pipe.send(said)
    with holder.condition:
        holder.condition.notify_all()
    holder.barrier.wait()


def body():
    context = semlock.get_context(method())
    rlock = context.RLock()
    holder = Holder(
        lock=context.Lock(), rlock=rlock, semaphore=context.Semaphore(3),
        bounded=context.BoundedSemaphore(2), event=context.Event(),
        condition=context.Condition(rlock), barrier=context.Barrier(2),
        labelled=Labelled("mine"), slotted=Slotted(),
    )
    holder.slotted.label = "its own"
    reader, writer = context.Pipe(False)
    with holder.lock, holder.labelled, holder.condition:
        child = context.Process(target=look, args=(writer, holder))
        child.start()
        said = reader.recv()
        said["set"] = holder.event.is_set()
        said["notified"] = holder.condition.wait()
    holder.barrier.wait()
    child.join()
    return said
"""
    assert program(source, method) == {
        "lock": "Lock",
        "rlock": "RLock",
        "semaphore": "Semaphore",
        "bounded": "BoundedSemaphore",
        "event": "Event",
        "condition": "Condition",
        "barrier": "Barrier",
        "labelled": "Labelled",
        "slotted": "Slotted",
        "held": [False, False],
        "labels": ["mine", "its own"],
        "values": [3, 2],
        "refused": "ValueError",
        "parties": 2,
        "one lock": True,
        "set": True,
        "notified": True,
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_locks_need_one_descriptor_for_a_child(method: str, program: Program) -> None:
    source = (
        SEGMENTS
        + """
def look(pipe, locks):
    gc.collect()
    pipe.send([len(locks), of_segment(locks[0]), sum(lock.acquire(False) for lock in locks)])


def body():
    context = semlock.get_context(method())
    first = context.Lock()
    locks = [first]
    while len(locks) < 1000:
        lock = context.Lock()
        if lock._address()[0] == locks[0]._address()[0]:
            locks.append(lock)
        elif len(locks) < 500:
            locks = [lock]  # a larger segment
        else:
            break
    reader, writer = context.Pipe(False)
    before = descriptors()
    with locks[-1]:
        child = context.Process(target=look, args=(writer, locks))
        child.start()
        said = reader.recv()
        child.join()
    child.close()
    after = descriptors()
    # A fork server and a resource tracker stay, with pipes to them.
    segments = [[kept for kept in some if "semlock" in kept[1]] for some in (before, after)]
    return [len(locks) >= 500, len(locks), *said, segments[0] == segments[1]]
"""
    )
    enough, count, *said = program(source, method)
    assert enough
    assert said == [count, [1, 0], count - 1, True]


@pytest.mark.parametrize("inner", METHODS)
@pytest.mark.parametrize("outer", METHODS)
def test_a_child_hands_a_lock_on_to_its_own_child(outer: str, inner: str, program: Program) -> None:
    source = """
def last(pipe, lock, event):
    pipe.send(lock.acquire(False))
    event.set()


def relay(pipe, inner, lock, event):
    child = semlock.get_context(inner).Process(target=last, args=(pipe, lock, event))
    child.start()
    child.join()


def body():
    context = semlock.get_context(sys.argv[1])
    lock, event = context.Lock(), context.Event()
    reader, writer = context.Pipe(False)
    with lock:
        child = context.Process(target=relay, args=(writer, sys.argv[2], lock, event))
        child.start()
        said = [reader.recv(), event.wait()]
        child.join()
    return said
"""
    assert program(source, outer, inner) == [False, True]


def test_a_lock_of_a_fork_context_reaches_a_spawned_child(program: Program) -> None:
    source = """
def use(lock, event):
    if not lock.acquire(False):
        event.set()


def body():
    made_in = semlock.get_context("fork")
    lock, event = made_in.Lock(), made_in.Event()
    with lock:
        child = semlock.get_context("spawn").Process(target=use, args=(lock, event))
        child.start()
        child.join()
    return event.is_set()
"""
    assert program(source) is True


@pytest.mark.parametrize("method", METHODS)
def test_locks_are_sent_to_processes_that_run_already(method: str, program: Program) -> None:
    source = (
        SEGMENTS
        + """
def serve(pipe):
    while True:
        lock = pipe.recv()
        if lock is None:
            return
        pipe.send([lock.acquire(False), of_segment(lock)])
        del lock


def in_pool(lock):
    return lock.acquire(False)


def body():
    context = semlock.get_context(method())
    mine, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs,))
    child.start()
    with context.Pool(2) as pool:
        said = []
        lock = context.Lock()  # made after its receivers were started
        before = descriptors()
        with lock:
            mine.send(lock)
            said.append(mine.recv())
            said.append(pool.map(in_pool, [lock] * 4))
        mine.send(lock)
        said.append(mine.recv()[0])
        said.append(lock.locked())
        said.append(descriptors() == before)
        mine.send(None)
        child.join()
        pool.close()
        pool.join()
    return said
"""
    )
    assert program(source, method) == [[False, [1, 0]], [False] * 4, True, True, True]


@pytest.mark.parametrize("method", METHODS)
def test_a_lock_that_a_child_made_lives_on_in_the_receiver(method: str, program: Program) -> None:
    source = """
def make(pipe):
    lock = semlock.Lock()
    lock.acquire()
    pipe.send(lock)
    pipe.recv()
    lock.release()
    pipe.send(None)


def look(pipe, lock):
    pipe.send(lock.acquire(False))


def body():
    context = semlock.get_context(method())
    mine, theirs = context.Pipe()
    child = context.Process(target=make, args=(theirs,))
    child.start()
    lock = mine.recv()
    said = [lock.acquire(False)]
    mine.send(None)
    mine.recv()
    child.join()
    said.append(lock.acquire(False))
    # Its maker has exited: on it goes from here.
    child = context.Process(target=look, args=(theirs, lock))
    child.start()
    said.append(mine.recv())
    child.join()
    mine.send(lock)
    said.append(theirs.recv().acquire(False))
    return said
"""
    assert program(source, method) == [False, True, False, False]


# Writes plain pickles of a lock, and then does what each line that it reads says.
SENDER = """if True:
    import os, pickle, sys
    import semlock
    lock = semlock.Lock()
    lock.acquire()
    print(pickle.dumps(lock).hex(), flush=True)
    for line in sys.stdin:
        exec(line)
        print("done", flush=True)
"""

RECEIVER = """if True:
    import gc, os, pickle, sys
    import semlock

    def descriptors():
        return os.listdir("/proc/self/fd")

    message = bytes.fromhex(sys.argv[1])
    before = descriptors()
    try:
        lock = pickle.loads(message)
    except RuntimeError as error:
        print(error)
    else:
        again = pickle.loads(message)
        print(lock.acquire(False), again.acquire(False), lock._address() == again._address())
        del lock, again
    gc.collect()
    print(descriptors() == before)
"""


def tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    print(line, file=child.stdin, flush=True)
    assert child.stdout.readline() == "done\n"


def test_a_plain_pickle_reaches_a_process_that_is_not_related_twice() -> None:
    with started("-c", SENDER, stdin=subprocess.PIPE) as sender:
        assert sender.stdout is not None
        message = sender.stdout.readline().strip()
        assert output("-c", RECEIVER, message) == "False False True\nTrue\n"


def test_a_pickle_whose_sender_has_exited_says_what_was_tried() -> None:
    sender = start("-c", SENDER, stdin=subprocess.PIPE)
    with sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        message = sender.stdout.readline().strip()
        sender.stdin.close()
        assert sender.wait() == 0
    said, clean = output("-c", RECEIVER, message).splitlines()
    assert f"/proc/{sender.pid}/fd/" in said
    assert "the process that made it has exited" in said
    assert "Keep the lock alive in the sender until it has arrived" in said
    assert clean == "True"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_receiver_of_another_user_is_told_why_a_lock_cannot_arrive(program: Program) -> None:
    source = """
def receive(pipe):
    os.setgid(65534)
    os.setuid(65534)
    pipe.send("ready")
    try:
        pipe.recv()
    except RuntimeError as error:
        pipe.send(str(error))


def body():
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=receive, args=(theirs,))
    child.start()
    ours.recv()
    lock = semlock.Lock()
    ours.send(lock)
    said = ours.recv()
    child.join()
    return said
"""
    said = program(source)
    assert "Permission denied" in said
    assert "is another user's" in said
    assert "exited" not in said


def test_a_descriptor_that_has_become_another_file_is_not_taken_for_the_segment() -> None:
    for other in ("os.memfd_create('other')", "os.open('/dev/null', os.O_RDONLY)", "os.pipe()[0]"):
        with started("-c", SENDER, stdin=subprocess.PIPE) as sender:
            assert sender.stdout is not None
            message = sender.stdout.readline().strip()
            tell(sender, f"os.dup2({other}, lock._descriptor())")
            said, clean = output("-c", RECEIVER, message).splitlines()
            assert f"/proc/{sender.pid}/fd/" in said
            assert clean == "True"


def test_where_the_descriptor_was_closed_the_makers_is_used(program: Program) -> None:
    source = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from kernel_features import lose_its_right_to_open_mappings


def hand_on(pipe, lock):
    lose_its_right_to_open_mappings()
    os.close(lock._descriptor())
    pipe.send_bytes(pickle.dumps(lock))


def look(pipe, outcome):
    outcome.send(pickle.loads(pipe.recv_bytes()).acquire(False))


def body():
    context = semlock.get_context("fork")
    reader, writer = context.Pipe(False)
    outcome, tell = context.Pipe(False)
    receiver = context.Process(target=look, args=(reader, tell))
    receiver.start()
    lock = context.Lock()
    lock.acquire()
    sender = context.Process(target=hand_on, args=(writer, lock))
    sender.start()
    said = [outcome.recv()]
    sender.join()
    receiver.join()
    # In the maker itself there is no other way.
    lose_its_right_to_open_mappings()
    os.close(lock._descriptor())
    said.append(raised(pickle.dumps, lock))
    return said
"""
    assert program(source) == [False, "RuntimeError"]


def test_bytes_that_nobody_unpickles_keep_nothing_open(program: Program) -> None:
    source = """
def body():
    lock = semlock.Lock()
    before = descriptors()
    for _ in range(100):
        pickle.dumps(lock)
    return descriptors() == before
"""
    assert program(source) is True


def test_a_message_of_a_thousand_locks_says_once_where_their_segment_is(program: Program) -> None:
    source = """
def body():
    locks = [semlock.Lock() for _ in range(1000)]
    one = len(pickle.dumps(locks[:1]))
    return (len(pickle.dumps(locks)) - one) / 999
"""
    assert program(source) < 60


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_bytes_for_a_child_are_good_twice_and_close_nothing_of_others(
    method: str, program: Program
) -> None:
    source = (
        SEGMENTS
        + """
class Bytes:
    '''Pickles a lock while the child is being spawned, and leaves it at that.'''

    def __init__(self, lock):
        self.lock = lock

    def __reduce__(self):
        return bytes, (pickle.dumps(self.lock),)


def load(pipe, first, lock, second):
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    loaded = [pickle.loads(first), pickle.loads(first), pickle.loads(second)]
    same = {each._address() == lock._address() for each in loaded}
    for number in opened:
        os.fstat(number)
    pipe.send([same == {True}, of_segment(lock), lock.acquire(False)])


def load_alone(pipe, first, second):
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
    said = [pickle.loads(first).acquire(False)]
    gc.collect()
    said.append(pickle.loads(first).acquire(False))
    lock = pickle.loads(second)
    for number in opened:
        os.fstat(number)
    pipe.send([*said, of_segment(lock)])


def body():
    context = semlock.get_context(method())
    lock = context.Lock()
    lock.acquire()
    reader, writer = context.Pipe(False)
    said = []
    before = of_segment(lock)
    for target, arguments in (
        (load, (Bytes(lock), lock, Bytes(lock))),
        (load_alone, (Bytes(lock), Bytes(lock))),
    ):
        child = context.Process(target=target, args=(writer, *arguments))
        child.start()
        said.append(reader.recv())
        child.join()
    return [*said, of_segment(lock) == before]
"""
    )
    assert program(source, method) == [
        [True, [1, 0], False],
        [False, False, [1, 0]],
        True,
    ]


@needs_own_mounts
@pytest.mark.parametrize("method", METHODS)
def test_where_there_is_no_proc_locks_reach_children_and_running_processes(
    method: str, program: Program
) -> None:
    source = """
def look(pipe, first):
    second = pipe.recv()
    pipe.send([lock.acquire(False) for lock in (first, second)] + [os.path.exists("/proc/self")])


def body():
    sys.path.insert(0, sys.argv[2])
    from kernel_features import have_own_mounts, mount

    have_own_mounts()
    mount("tmpfs", "/proc")
    context = semlock.get_context(method())
    mine, theirs = context.Pipe()
    first = context.Lock()
    child = context.Process(target=look, args=(theirs, first))
    child.start()
    # In memory that the child does not have, however it was started.
    second = [context.Lock() for _ in range(5_000)][-1]
    with second:
        mine.send(second)
        said = mine.recv()
    child.join()
    from multiprocessing import resource_sharer
    resource_sharer.stop()
    return [*said, second._address()[0] == first._address()[0], child.exitcode]
"""
    tests = str(Path(__file__).parent)
    assert program(source, method, tests) == [True, False, False, False, 0]


# A program whose /proc/PID/fd no other process can enter, as in a sandbox.
NO_PROC = """
from semlock import sharing


def closed(*place):
    raise PermissionError(13, "Permission denied")


sharing.open_of = closed
sharing._others_may_enter_our_proc = lambda: False
"""


def test_where_proc_cannot_be_entered_the_resource_sharer_brings_it(program: Program) -> None:
    source = (
        SEGMENTS
        + NO_PROC
        + """
def look(pipe):
    locks = pipe.recv()
    pipe.send([lock.acquire(False) for lock in locks] + [of_segment(locks[0])])


def body():
    context = semlock.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=look, args=(theirs,))
    child.start()
    locks = [context.Lock(), context.Lock()]
    before = of_segment(locks[0])
    with locks[0]:
        mine.send(locks)
        said = mine.recv()
    child.join()
    from multiprocessing import resource_sharer
    resource_sharer.stop()
    return [*said, of_segment(locks[0]) == before]
"""
    )
    assert program(source) == [False, True, [1, 0], True]


def test_where_proc_cannot_be_entered_a_thousand_messages_keep_one_descriptor(
    program: Program,
) -> None:
    source = (
        SEGMENTS
        + NO_PROC
        + """
import pickle
from multiprocessing import resource_sharer


def has_them(other, pipe):
    for _ in range(1000):
        pipe.send(pipe.recv()._address()[0] == other._address()[0])


def opens(pipe):
    lock = pickle.loads(pipe.recv())
    pipe.send(lock.acquire(False))


def body():
    context = semlock.get_context("fork")
    lock, other = context.Lock(), context.Lock()
    said = []
    # Started before there is anything to be inherited.
    pipes = [context.Pipe() for _ in range(2)]
    openers = [context.Process(target=opens, args=(theirs,)) for _, theirs in pipes]
    for opener in openers:
        opener.start()
    # A segment that they do not have.
    kept = [context.Lock() for _ in range(1100)]
    sent = context.Semaphore()
    before = of_segment(sent)[0]
    mine, theirs = context.Pipe()
    child = context.Process(target=has_them, args=(kept[-1], theirs))
    child.start()
    arrived = 0
    for _ in range(1000):
        mine.send(sent)
        arrived += mine.recv()
    child.join()
    said.append(arrived)
    said.append(of_segment(sent)[0] - before)
    # The same bytes for two.
    data = pickle.dumps(sent)
    for mine, _ in pipes:
        mine.send(data)
    said.append(sorted(mine.recv() for mine, _ in pipes))
    for opener in openers:
        opener.join()
    said.append(of_segment(sent)[0] - before)
    # A sharer that was ended is started again.
    resource_sharer.stop()
    again = pickle.dumps(sent)
    said.append(again != data)
    segment = kept[-1]
    del sent
    said.append(of_segment(segment)[0] - before)
    resource_sharer.stop()
    return said
"""
    )
    assert program(source) == [1000, 1, [False, True], 1, True, 0]


def test_a_process_that_others_may_not_enter_is_told_apart(program: Program) -> None:
    source = """
import ctypes
from semlock import sharing


def body():
    said = [sharing._others_may_enter_our_proc()]
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    said.append(sharing._others_may_enter_our_proc())
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    said.append(sharing._others_may_enter_our_proc())
    return said
"""
    assert program(source) == [True, True, False]

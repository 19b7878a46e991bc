"""What ``install`` puts into ``multiprocessing``'s ``Connection`` does what the stdlib's does."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from programs import run_program

# Each program runs twice, and says the same both times.
HEAD = """
import contextlib, errno, io, socket, struct
from multiprocessing import connection

if sys.argv[1] == "installed":
    semlock.install()
    assert connection.Connection._recv_bytes.__module__ == "semlock.connections"
context = multiprocessing.get_context("fork")


def pipes():
    yield context.Pipe(False)
    yield context.Pipe()[::-1]
    with connection.Listener(("127.0.0.1", 0)) as listener:
        client = connection.Client(listener.address)
        yield listener.accept(), client


def outcome(function, *arguments, **keywords):
    try:
        result = function(*arguments, **keywords)
    except Exception as error:
        # The interpreter words some messages itself, with the name of its own function in it.
        return [type(error).__name__, getattr(error, "errno", None)]
    return repr(result)[:100]


"""


def says_the_same(directory: Path, source: str) -> object:
    told = [run_program(directory, HEAD + source, which) for which in ("stock", "installed")]
    assert told[0] == told[1]
    return told[0]


def test_messages_of_all_lengths_arrive_and_are_framed_alike(tmp_path: Path) -> None:
    source = """
import hashlib, random


def echo(reader, writer):
    with contextlib.suppress(EOFError):
        while True:
            writer.send_bytes(reader.recv_bytes())


def body():
    said = []
    for length in 0, 1, 4091, 4092, 4093, 16384, 16385, 65_536, 3_000_000:
        message = random.Random(length).randbytes(length)
        for reader, writer in pipes():
            received = []
            thread = threading.Thread(target=lambda: received.append(reader.recv_bytes()))
            thread.start()
            writer.send_bytes(message)
            thread.join()
            assert received == [message], length
            # What goes through the pipe, byte by byte.
            sent = []

            def read_all():
                while sum(map(len, sent)) < length + 4:
                    sent.append(os.read(reader.fileno(), 1 << 20))

            thread = threading.Thread(target=read_all)
            thread.start()
            writer.send_bytes(message)
            thread.join()
            said.append(hashlib.sha256(b"".join(sent)).hexdigest())
    return said
"""
    assert says_the_same(tmp_path, source)


def test_objects_and_buffers_go_through_all_methods(tmp_path: Path) -> None:
    source = """
import array


def body():
    said = []
    for reader, writer in pipes():
        for thing in None, [1, "two"], {"three": b"x" * 5000}, array.array("i", range(9)):
            writer.send(thing)
            said.append(outcome(reader.recv))
        for data in b"ab", bytearray(b"abc"), memoryview(b"abcdef")[1:4], array.array("i", [1, 2]):
            writer.send_bytes(data)
            said.append(outcome(reader.recv_bytes))
        writer.send_bytes(b"0123456789", 2, 5)
        target = bytearray(12)
        said += [reader.recv_bytes_into(target, 3), bytes(target).hex()]
        writer.send_bytes(b"0123456789")
        said.append(outcome(reader.recv_bytes_into, bytearray(4)))
        writer.send_bytes(b"0123456789")
        said += [outcome(reader.recv_bytes, 10), outcome(writer.send_bytes, "no bytes")]
        # The stdlib's error depends on the length.
        said += [raised(writer.send_bytes, memoryview(b"abcdef")[::2]) != "nothing", reader.poll()]
        writer.send_bytes(b"still whole")
        said.append(outcome(reader.recv_bytes))
    return said
"""
    assert says_the_same(tmp_path, source)


def test_unusual_arguments_and_what_is_left_unread(tmp_path: Path) -> None:
    source = """
class Number:
    def __lt__(self, other):
        return 3 < other


def body():
    said = []
    sizes = [None, 4, 4.0, 3, 3.5, -1, Number(), 2**70, "four", []]
    calls = [((), {})] + [((size,), {}) for size in sizes] + [((), {"maxsize": 4}), ((1, 2), {})]
    for arguments, keywords in calls + [((), {"size": 4})]:
        reader, writer = context.Pipe(False)
        writer.send_bytes(b"four")
        result = None
        with contextlib.suppress(TypeError):
            result = reader._recv_bytes(*arguments, **keywords)
        said.append(result if result is None else [result.tell(), result.getvalue().decode()])
        os.set_blocking(reader.fileno(), False)
        try:
            said.append(os.read(reader.fileno(), 100).hex())
        except BlockingIOError:
            said.append("nothing")
    return said
"""
    assert says_the_same(tmp_path, source)


def test_a_stream_that_ends_or_says_nonsense_is_the_same_error(tmp_path: Path) -> None:
    source = """
def body():
    said = []
    for sent in (
        b"",
        b"\\0\\0",
        struct.pack("!i", 9),
        struct.pack("!i", 9) + b"half",
        struct.pack("!i", -1),
        struct.pack("!i", -1) + b"half",
        struct.pack("!iQ", -1, 5) + b"whole",
        struct.pack("!iQ", -1, 2**63 - 1) + b"too much",
        struct.pack("!i", -5) + b"left",
        struct.pack("!i", -(2**31)),
    ):
        reader, writer = context.Pipe(False)
        os.write(writer.fileno(), sent) if sent else None
        writer.close()
        told = outcome(reader.recv_bytes)
        # Whether it is too large for a bytes object or for memory depends on the way there.
        said.append("too large" if told[0] in ("MemoryError", "OverflowError") else told)
        said.append(os.read(reader.fileno(), 100).hex())
    return said
"""
    assert says_the_same(tmp_path, source)


def test_descriptors_that_are_closed_or_wrong(tmp_path: Path) -> None:
    source = """
def body():
    said = []
    for way in "recv_bytes", "send_bytes":
        arguments = [b"message"] if way == "send_bytes" else []
        for number in None, "name", 2**40, 10_000:
            wrong = connection.Connection.__new__(connection.Connection)
            wrong._handle, wrong._readable, wrong._writable = number, True, True
            said.append(outcome(getattr(wrong, way), *arguments))
            wrong._handle = None
        reader, writer = context.Pipe(False)
        of_files = {"recv_bytes": writer, "send_bytes": reader}[way]
        end = connection.Connection(os.dup(of_files.fileno()))
        said.append(outcome(getattr(end, way), *arguments))
        with open(os.devnull, "r+b", buffering=0) as file:
            end = connection.Connection(os.dup(file.fileno()))
            said.append(outcome(getattr(end, way), *arguments))
        reader.close()
        said.append(outcome(getattr(reader, way), *arguments))
        if way == "send_bytes":
            said.append(outcome(writer.send_bytes, b"nobody reads"))
    # After a descriptor that cannot be asked without waiting, pipes work as before.
    reader, writer = context.Pipe(False)
    writer.send_bytes(b"message")
    return said + [outcome(reader.recv_bytes)]
"""
    assert says_the_same(tmp_path, source)


def test_subclasses_keep_what_they_read_and_write_themselves(tmp_path: Path) -> None:
    source = """
class Named(connection.Connection):
    '''Has all of the stdlib's methods.'''


class Counting(connection.Connection):
    bytes_moved = 0

    def _send(self, buf, write=os.write):
        self.bytes_moved += len(buf)
        super()._send(buf)

    def _recv(self, size, read=os.read):
        self.bytes_moved += size
        return super()._recv(size)


def body():
    said = []
    for cls in Named, Counting:
        first, second = socket.socketpair()
        first, second = cls(first.detach()), cls(second.detach())
        for length in 10, 20_000:
            first.send_bytes(b"x" * length)
            said.append(second.recv_bytes() == b"x" * length)
        first.send(["an", "object"])
        said += [second.recv(), getattr(first, "bytes_moved", None)]
        said += [getattr(second, "bytes_moved", None), outcome(second.recv_bytes, -1)]
    return said
"""
    assert says_the_same(tmp_path, source)


@pytest.mark.parametrize("way", ["recv", "send"])
def test_a_handler_that_returns_lets_a_message_go_on(tmp_path: Path, way: str) -> None:
    source = f"""
WAY = {way!r}
LARGE = b"x" * 3_000_000


def body():
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    reader, writer = context.Pipe(False)
    me = os.getpid()

    def interrupt():
        for _ in range(3):
            seen = len(handled)
            wait_until(lambda: is_asleep(me))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            wait_until(lambda: len(handled) > seen)
        if WAY == "recv":
            writer.send_bytes(LARGE)
        else:
            received.append(reader.recv_bytes())

    received = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    received.append(reader.recv_bytes()) if WAY == "recv" else writer.send_bytes(LARGE)
    thread.join()
    return [received == [LARGE], len(handled)]
"""
    assert says_the_same(tmp_path, source) == [True, 3]


def test_other_code_that_has_replaced_a_method_keeps_it(tmp_path: Path) -> None:
    source = """
from multiprocessing import connection

calls = []


def body():
    before = connection.Connection._send_bytes

    def _send_bytes(self, buf):
        calls.append(len(buf))
        before(self, buf)

    connection.Connection._send_bytes = _send_bytes
    semlock.install()
    reader, writer = multiprocessing.Pipe(False)
    writer.send_bytes(b"message")
    said = [reader.recv_bytes().decode(), calls]
    semlock.uninstall()
    return said + [connection.Connection._send_bytes is _send_bytes]
"""
    assert run_program(tmp_path, source) == ["message", [7], True]


def test_a_connection_that_is_closed_while_a_thread_uses_it(tmp_path: Path) -> None:
    source = """
def is_in_a_call_with(number, thread):
    fields = open(f"/proc/self/task/{thread.native_id}/syscall").read().split()
    return len(fields) > 1 and int(fields[1], 16) == number


def body():
    said = []
    for end in "data", "nothing more":
        reader, writer = context.Pipe(False)
        told = []
        thread = threading.Thread(target=lambda: told.append(outcome(reader.recv_bytes)))
        thread.start()
        number = reader.fileno()
        wait_until(lambda: is_in_a_call_with(number, thread))
        others_reader, others_writer = context.Pipe(False)
        reader.close()
        os.dup2(others_reader.fileno(), number)
        others_writer.send_bytes(b"for another")
        message = struct.pack("!i", 2) + b"ab"
        os.write(writer.fileno(), message) if end == "data" else writer.close()
        thread.join()
        said += [told, outcome(others_reader.recv_bytes)]
        os.close(number)
    # A writer that waits for room. A file gets its number.
    reader, writer = context.Pipe(False)
    os.set_blocking(writer.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer.fileno(), bytes(4096)):
            pass
    os.set_blocking(writer.fileno(), True)
    told = []
    thread = threading.Thread(target=lambda: told.append(outcome(writer.send_bytes, b"x" * 80)))
    thread.start()
    number = writer.fileno()
    wait_until(lambda: is_in_a_call_with(number, thread))
    with open("others", "wb", buffering=0) as file:
        writer.close()
        os.dup2(file.fileno(), number)
        os.read(reader.fileno(), 1 << 20)
        thread.join()
    return said + [told, os.path.getsize("others")]
"""
    told = says_the_same(tmp_path, source)
    assert isinstance(told, list)
    assert told[-1] == 0


def test_a_timeout_of_a_socket_ends_a_message(tmp_path: Path) -> None:
    source = """
def body():
    said = []
    for option in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        first, second = socket.socketpair()
        first.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 100_000))
        end = connection.Connection(first.detach())
        if option == socket.SO_RCVTIMEO:
            said.append(outcome(end.recv_bytes))
            second.send(bytes(2))
            said.append(outcome(end.recv_bytes))
        else:
            said.append(outcome(end.send_bytes, b"x" * 3_000_000))
    return said
"""
    assert says_the_same(tmp_path, source) == [["BlockingIOError", errno.EAGAIN]] * 3


@pytest.mark.parametrize("way", ["recv", "send"])
def test_a_handler_runs_when_a_part_of_a_message_has_moved(tmp_path: Path, way: str) -> None:
    source = f"""
WAY = {way!r}
LARGE = bytes(3_000_000)


def body():
    def handle(*_):
        raise KeyError("from the handler")

    signal.signal(signal.SIGUSR1, handle)
    reader, writer = context.Pipe(False)
    if WAY == "recv":
        os.write(writer.fileno(), struct.pack("!i", 100_000))

    def interrupt():
        # The main thread waits to move more. It moves a part, and the signal comes before it waits
        # again. Nothing more moves.
        wait_until(lambda: is_asleep(os.getpid()))
        if WAY == "recv":
            os.write(writer.fileno(), bytes(5000))
        else:
            os.read(reader.fileno(), 8192)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    said = outcome(reader.recv_bytes) if WAY == "recv" else outcome(writer.send_bytes, LARGE)
    thread.join()
    return said
"""
    assert says_the_same(tmp_path, source) == ["KeyError", None]


def test_ways_to_write_and_read_that_other_code_has_changed_stay(tmp_path: Path) -> None:
    source = """
class Borrowing:
    # It has methods of the stdlib's class, and is none of its instances.
    _send_bytes = connection.Connection._send_bytes
    _recv_bytes = connection.Connection._recv_bytes

    def _send(self, data):
        self.sent = bytes(data)

    def _recv(self, size):
        return io.BytesIO(struct.pack("!i", 1) if size == 4 else b"!")


def body():
    borrowing = Borrowing()
    borrowing._send_bytes(buf=b"message")
    said = [borrowing.sent.hex(), repr(borrowing._recv_bytes(maxsize=5).getvalue())]
    reader, writer = context.Pipe(False)
    calls = []
    before = writer._send
    writer._send = lambda data: calls.append(len(data)) or before(data)
    writer.send_bytes(b"message")
    said += [reader.recv_bytes().hex(), calls]
    stocks = connection.Connection._recv

    def _recv(self, size, **more):
        calls.append(size)
        return stocks(self, size, **more)

    connection.Connection._recv = _recv
    writer.send_bytes(b"message")
    return said + [reader.recv_bytes().hex(), calls]
"""
    assert says_the_same(tmp_path, source)


def test_system_calls_that_other_code_has_replaced_stay(tmp_path: Path) -> None:
    source = """
calls = []


def read(fd, length, before=os.read):
    calls.append(length)
    return before(fd, length)


def body():
    if "multiprocessing.connection" in sys.modules:
        del sys.modules["multiprocessing.connection"]
    os.read = read
    import multiprocessing.connection

    semlock.install()
    reader, writer = multiprocessing.Pipe(False)
    writer.send_bytes(b"message")
    return [reader.recv_bytes().decode(), calls]
"""
    assert run_program(tmp_path, source) == ["message", [4, 7]]


WAITS = """
import decimal, fractions, select, selectors

from multiprocessing.connection import wait


class Named:
    def __init__(self, name, number):
        self.name, self.number = name, number

    def fileno(self):
        if isinstance(self.number, Exception):
            raise self.number
        return self.number

    def __repr__(self):
        return self.name


"""


def test_waiting_for_several_finds_those_that_are_ready_in_order(tmp_path: Path) -> None:
    source = """
def body():
    if sys.argv[1] == "installed":
        assert wait is connection.wait and wait.__module__ == "semlock.connections"
    ends = [context.Pipe(False) for _ in range(5)]
    readers = [Named(str(index), reader.fileno()) for index, (reader, _) in enumerate(ends)]
    said = [outcome(wait, readers, 0), outcome(wait, readers, timeout=0.01), outcome(wait, [], 0)]
    ends[3][1].send_bytes(b"message")
    ends[1][1].send_bytes(b"message")
    ends[4][1].close()  # the end of a stream counts as well
    said += [outcome(wait, readers), outcome(wait, readers[::-1], 60), outcome(wait, readers, -1)]
    said += [outcome(wait, iter(readers)), outcome(wait, {name: 1 for name in readers})]
    said.append(wait([readers[3].number, ends[1][0]]) == [readers[3].number, ends[1][0]])
    # A process that ends, and one that does not.
    begun = context.Event()
    ending, running = context.Process(target=begun.wait), context.Process(target=signal.pause)
    ending.start()
    running.start()
    sentinels = [running.sentinel, ending.sentinel]
    said.append(outcome(wait, sentinels, 0.01))
    begun.set()
    said.append(wait(sentinels) == [ending.sentinel])
    running.kill()
    said += [wait([running.sentinel], 60) == [running.sentinel], ends[0][0].poll(0.01)]
    said += [ends[1][0].poll(), ends[1][0].poll(None), outcome(ends[0][0].poll, "long")]
    return said
"""
    assert says_the_same(tmp_path, WAITS + source)


def test_unusual_things_to_wait_for(tmp_path: Path) -> None:
    source = """
import warnings

# Since 3.13 a bool as a descriptor is one.
warnings.simplefilter("ignore", RuntimeWarning)


def body():
    reader, writer = context.Pipe(False)
    writer.send_bytes(b"message")
    closed = os.dup(0)
    os.close(closed)
    things = [[None], ["name"], [2**70], [-1], [Named("it", -1)], [Named("it", "text")]]
    things += [[Named("it", KeyError("own"))], [reader, reader.fileno()], [reader, reader], None, 7]
    things += [[True], [closed], [reader, closed], [Named("it", True)], [writer]]
    said = [outcome(wait, thing, 0) for thing in things]
    said = [[told[0]] if isinstance(told, list) else "objects" for told in said]
    timeouts = [float("nan"), float("inf"), 1e300, 2**31, "long", [], True, 10**400]
    timeouts += [decimal.Decimal(1), fractions.Fraction(1, 2), -float("inf")]
    for timeout in timeouts:
        told = outcome(wait, [reader], timeout)
        said.append(told if isinstance(told, list) else "ready")
    reader.recv_bytes()
    reader.close()
    said.append(outcome(wait, [reader]))
    return said
"""
    assert says_the_same(tmp_path, WAITS + source)


def test_signals_while_waiting_for_several(tmp_path: Path) -> None:
    source = """
def body():
    reader, writer = context.Pipe(False)
    handled = []

    def handle(*_):
        handled.append(1)
        if len(handled) == 3:
            raise KeyError("from the handler")

    signal.signal(signal.SIGUSR1, handle)
    me = os.getpid()

    def interrupt():
        for number in range(3):
            wait_until(lambda: is_asleep(me))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            wait_until(lambda: len(handled) > number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    said = [outcome(wait, [reader]), len(handled)]
    thread.join()
    return said
"""
    assert says_the_same(tmp_path, WAITS + source) == [["KeyError", None], 3]


def test_a_way_to_wait_that_other_code_has_changed_stays(tmp_path: Path) -> None:
    source = """
from multiprocessing import connection


def body():
    before = connection.wait
    connection.wait = lambda object_list, timeout=None: before(object_list, timeout)
    changed = connection.wait
    semlock.install()
    said = [connection.wait is changed]
    semlock.uninstall()
    connection.wait = before
    connection._WaitSelector = type("Other", (connection._WaitSelector,), {})
    semlock.install()
    said.append(connection.wait is before)
    semlock.uninstall()
    connection._WaitSelector = connection._WaitSelector.__base__
    semlock.install()
    said.append(connection.wait is not before)
    semlock.uninstall()
    return said + [connection.wait is before]
"""
    assert run_program(tmp_path, source) == [True] * 4


def test_an_exception_of_a_handler_is_not_lost_while_descriptors_are_asked(tmp_path: Path) -> None:
    source = """
def body():
    reader, writer = context.Pipe(False)
    writer.send_bytes(b"message")
    asked = []

    class Interrupted:
        def fileno(self):
            asked.append(1)
            if len(asked) == 1:
                raise KeyboardInterrupt
            return reader.fileno()

    try:
        wait([Interrupted()], 60)
    except KeyboardInterrupt:
        return asked
"""
    assert says_the_same(tmp_path, WAITS + source) == [1]

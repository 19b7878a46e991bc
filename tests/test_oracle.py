"""Makes random calls in a child process, which may crash. The stdlib shows what is right.

To search for longer, in each test: SEMLOCK_FUZZ_SECONDS=600 pytest tests/test_oracle.py
"""

from __future__ import annotations

import _multiprocessing as stock
import os
import pickle
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from children import PATIENCE, PREFIX, end, start
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# ---- Calls, as the source text of expressions over oracle_child's namespace ----

small = st.integers(-3, 5).map(str)
large = st.sampled_from(
    ["2**31-1", "2**31", "-2**31", "-2**31-1", "2**32", "2**32+1", "2**63", "2**64", "-2**63",
     "2**100", "-2**100", "10**400"]
)  # fmt: skip
odd = st.sampled_from(
    ["None", "True", "False", "'x/y'", "''", "b'x'", "1.5", "-0.5", "()", "[0]", "{}", "Index",
     "Float", "Raising", "S", "object", "1j", "'\\0'", "'\\udc80'"]
)  # fmt: skip
integers = st.one_of(small, small, large, odd)
kinds = st.one_of(st.sampled_from(["0", "1"]), st.sampled_from(["0", "1"]), integers)
names = st.one_of(
    st.sampled_from(["N[0]", "N[1]", "N[2]", "N[0][1:]", "Str(N[1])", "'/' + N[2]"]),
    st.sampled_from(["''", "'/'", "'//'", "'a/b'", "N[0] + '/'", "N[0] + '\\0'",
                     "N[0] + '\\udc80'", "N[0].ljust(251, 'x')", "N[0].ljust(252, 'x')",
                     "N[0].ljust(5000, 'x')"]),
    odd,
)  # fmt: skip
booleans = st.one_of(st.sampled_from(["True", "False"]), integers)
short = st.sampled_from(["0", "-1", "0.0005", "-0.0", "-1e300", "-float('inf')", "False", "0.001"])
timeouts = st.one_of(
    short, short, st.sampled_from(["'x'", "b'x'", "[]", "Raising", "Float", "10**400", "1j", "S"])
)
# Calls for which the stdlib has no defined behaviour.
wild = st.sampled_from(
    ["float('nan')", "-float('nan')", "float('inf')", "1e308", "2**63", "2**62", "1e19", "10**300"]
)
locks = st.integers(0, 5).map(str)
junk = st.lists(st.one_of(integers, odd, names, timeouts), max_size=5).map(", ".join)
keywords = st.dictionaries(
    st.sampled_from(
        ["block", "timeout", "blocking", "x", "kind", "name", "unlink", "value", "self", "block\\0"]
    ),
    st.one_of(odd, short),
    max_size=3,
).map(lambda given: "**{" + ", ".join(f"'{key}': {value}" for key, value in given.items()) + "}")
methods = st.sampled_from(
    ["release", "_count", "_is_mine", "_is_zero", "_get_value", "_after_fork", "__exit__"]
)
attributes = st.sampled_from(
    ["handle", "kind", "maxvalue", "name", "SEM_VALUE_MAX", "acquire", "foo", "__class__",
     "__dict__", "__doc__"]
)  # fmt: skip


def call(template: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """The template with its parts filled in."""
    return st.fixed_dictionaries(parts).map(lambda chosen: template.format(**chosen))


# These succeed, unless the name is taken.
good_makes = call(
    "make({t}({k}, {v}, {m}, N[{i}], {u}))",
    t=st.sampled_from(["S", "S", "Sub"]),
    k=st.sampled_from("01"),
    v=st.sampled_from("00112"),
    m=st.sampled_from("123"),
    i=st.sampled_from("012"),
    u=st.sampled_from(["True", "True", "False"]),
)
makes = [
    call("make(S({k}, {v}, {m}, {n}, {u}))", k=kinds, v=integers, m=integers, n=names, u=booleans),
    call("make(Sub({k}, {v}, {m}, {n}, {u}))", k=kinds, v=small, m=small, n=names, u=booleans),
    call("make(S({k}, {v}, 5, N[{i}], {u}))", k=kinds, v=small, i=st.sampled_from("012"),
         u=booleans),
    call("make(S._rebuild({h}, {k}, {m}, {n}))", h=integers, k=kinds, m=integers,
         n=names.filter(lambda name: name != "None")),
]  # fmt: skip
uses = [
    call("lock({i}).acquire(False)", i=locks),
    call("lock({i}).acquire({b}, {t})", i=locks, b=booleans, t=timeouts),
    call("lock({i}).acquire(block={b}, timeout={t})", i=locks, b=booleans, t=timeouts),
    call("guarded({i}, 'acquire', {b})", i=locks, b=booleans),
    call("guarded({i}, 'acquire', {j})", i=locks, j=junk),
    call("guarded({i}, 'acquire', {k})", i=locks, k=keywords),
    call("guarded({i}, '__enter__', {j})", i=locks, j=junk),
    call("guarded({i}, '__enter__')", i=locks),
    call("lock({i}).release()", i=locks),
    call("lock({i}).{m}()", i=locks, m=methods),
    call("lock({i}).{m}({j})", i=locks, m=methods, j=junk),
    call("lock({i}).{m}({k})", i=locks, m=methods, k=keywords),
    call("S.{m}({j})", m=methods, j=junk),
]
others = [
    call("forget({i})", i=locks),
    call("m.sem_unlink({n})", n=names),
    call("m.sem_unlink({j})", j=junk),
    call("S({j})", j=junk),
    call("S({j}, {k})", j=junk.filter(bool), k=keywords),
    call("S.__new__({j})", j=junk),
    call("S.__new__(S, {j})", j=junk),
    call("lock({i}).__init__({j})", i=locks, j=junk),
    call("getattr(lock({i}), '{a}') is not None",
         i=locks, a=attributes.filter(lambda name: name != "__dict__")),
    call("setattr(lock({i}), '{a}', {v})", i=locks, v=odd,
         a=attributes.filter(lambda name: name != "__class__")),
    call("delattr(lock({i}), '{a}')", i=locks, a=attributes.filter(lambda a: a != "__dict__")),
    call("setattr(S, '{a}', {v})", a=attributes, v=odd),
    call("lock({i}) == lock({j})", i=locks, j=locks),
    call("lock({i}) == {v}", i=locks, v=odd),
    call("bool(weakref.ref(lock({i})))", i=locks),
]  # fmt: skip
# Not on the stdlib: undefined there, or different on purpose.
ours_alone = [
    call("lock({i}).acquire(False, {t})", i=locks, t=wild),
    call("guarded({i}, 'acquire', True, {t})", i=locks, t=wild),
    call("make(S._rebuild({h}, {k}, {m}, None))", h=integers, k=kinds, m=integers),
    call("make(S._rebuild(lock({i}).handle, {k}, {m}, None))", i=locks, k=kinds, m=small),
    call("make(Sub._rebuild(lock({i}).handle + {d}, {k}, 1, None))", i=locks, d=small, k=kinds),
    call("make(pickle.loads(pickle.dumps(lock({i}), {p})))", i=locks, p=st.sampled_from("012345")),
    call("make(copy.deepcopy(lock({i})))", i=locks),
    call("lock({i}).__reduce__({j})", i=locks, j=junk),
    call("setattr(lock({i}), '__class__', {v})", i=locks, v=st.sampled_from(["Sub", "S", "int"])),
    call("S._rebuild({j})", j=junk),
]


# ---- Calls on the classes, where stock has the same ----

things = st.integers(0, 12).map(str)
waits = st.sampled_from(["0", "-1", "0.0005", "False", "0.001", "-0.0"])
numbers = st.one_of(small, small, large, odd)
lock_methods = st.sampled_from(["release", "__enter__", "__exit__", "get_value", "acquire"])
plain_calls = [
    call("thing({i}).acquire({b}, {t})", i=things, b=st.sampled_from(["True", "False", "0"]),
         t=waits),
    call("thing({i}).acquire(False)", i=things),
    call("thing({i}).release()", i=things),
    call("thing({i}).release()", i=things),
    call("guarded({i}, 'acquire')", i=things),
    call("guarded({i}, '__enter__')", i=things),
    call("thing({i}).__exit__(None, None, None)", i=things),
    call("elsewhere({i}, 'acquire', False)", i=things),
    call("elsewhere({i}, 'release')", i=things),
    call("thing({i}).wait({t})", i=things, t=waits),
    call("thing({i}).wait_for(lambda: {v}, {t})", i=things, t=waits, v=numbers),
    call("thing({i}).notify({n})", i=things, n=small),
    call("thing({i}).{m}()", i=things,
         m=st.sampled_from(["notify", "notify_all", "set", "clear", "is_set", "reset", "abort"])),
    call("thing({i}).{a}", i=things, a=st.sampled_from(["broken", "n_waiting", "parties"])),
    call("thing({i}).get_value()", i=things),
    call("thing({i})._semlock.{m}()", i=things,
         m=st.sampled_from(["_count", "_is_mine", "_is_zero", "_get_value", "release"])),
    call("forget({i})", i=things),
    call("make({c}({n}))", c=st.sampled_from(["Semaphore", "BoundedSemaphore"]), n=numbers),
    call("make({c}())", c=st.sampled_from(["Lock", "RLock", "Condition", "Event", "Semaphore"])),
    call("make(Condition(thing({i})))", i=st.sampled_from("01")),
    call("make(Barrier({n}, None, {t}))", n=st.sampled_from("12"), t=waits),
    call("repr(thing({i}))", i=st.sampled_from("0123")),
]  # fmt: skip
bad_arguments = [
    call("guarded({i}, 'acquire', {j})", i=things, j=junk),
    call("guarded({i}, 'acquire', {k})", i=things, k=keywords),
    call("thing({i}).acquire(False, {t})", i=things, t=odd),
    call("thing({i}).{m}({j})", i=things, j=junk.filter(bool),
         m=st.sampled_from(["release", "get_value", "notify_all", "set", "is_set"])),
    call("thing({i}).notify({n})", i=things, n=st.one_of(small, large)),
    call("{c}({j}, {k})", c=st.sampled_from(["Lock", "RLock", "Event"]), j=junk.filter(bool),
         k=keywords),
]  # fmt: skip
# Not on the stdlib: it has nothing of the kind, or behaves otherwise there for a reason.
classes = st.sampled_from(
    ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"]
)
changes = st.dictionaries(
    st.sampled_from(
        ["cls", "segment", "slot", "tag", "file", "places", "passed", "parent", "besides"]
    ),
    st.one_of(
        classes.map(repr), integers, odd, wild,
        st.sampled_from(["bytes(16)", "bytes(15)", "[(1, 0)]", "[(0, -1)]", "[(2**40, 3)]",
                         "[()]", "[]", "((), ())", "(1, 2, 3)", "(thing(0),)", "(None, None)",
                         "('ignore',)", "('x',)", "thing(1)"]),
    ),
    max_size=3,
)  # fmt: skip
flips = st.integers(0, 63).map(lambda bit: {"flip": str(bit)})
our_calls = [
    call("thing({i}).notify({n})", i=things, n=numbers),
    call("make(Semaphore({n}, robust=True))", n=numbers),
    call("make({c}(robust={v}, on_owner_died={w}))", c=st.sampled_from(["Lock", "RLock"]), v=odd,
         w=st.one_of(odd, st.sampled_from(["'warn'", "'ignore'"]))),
    call("thing({i}).{m}()", i=things, m=st.sampled_from(
        ["holder", "locked", "_mark_shared", "_address", "_descriptor", "_maker", "_file"])),
    call("thing({i}).recovered", i=things),
    call("thing({i}).wait({t})", i=things, t=st.one_of(waits, st.sampled_from(
        ["'x'", "[]", "Raising", "10**400", "1j", "float('nan')", "-float('inf')"]))),
    call("make(sent({i}, {c}))", i=things, c=st.one_of(changes, flips).map(
        lambda given: "{" + ", ".join(f"'{k}': {v}" for k, v in given.items()) + "}")),
    call("make(copy.deepcopy(thing({i})))", i=things),
    call("make(cut({i}, {at}, {byte}))", i=things, at=st.integers(0, 400).map(str),
         byte=st.integers(0, 255).map(str)),
    call("thing({i}).__init__({j})", i=things, j=junk),
    call("{c}.__new__({c}, {j})", c=classes, j=junk),
    call("make({c}.__new__({c}))", c=classes),
    call("{c}({j}, {k})", c=classes, j=junk.filter(bool), k=keywords),
    call("{c}.{m}({j})", c=classes, j=junk,
         m=st.sampled_from(["_rebuild", "acquire", "wait", "release", "__reduce__"])),
    call("setattr(thing({i}), '{a}', {v})", i=things, v=odd,
         a=st.sampled_from(["__class__", "foo", "_semlock", "_lock", "_action", "recovered"])),
    call("bool(weakref.ref(thing({i})))", i=things),
]  # fmt: skip


def scripts(*calls: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Some semaphores, and then many calls."""
    begin = st.lists(good_makes, min_size=2, max_size=3)
    return st.tuples(begin, many(*calls)).map(lambda parts: parts[0] + parts[1])


def many(*calls: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.one_of(*calls), min_size=25, max_size=60)


# ---- The child ----


class Oracle:
    """The child that makes the calls; after a crash, a new one."""

    def __init__(self, *mode: str) -> None:
        self.mode = mode
        self.child: subprocess.Popen[str] | None = None

    def check(self, calls: list[str]) -> None:
        if self.child is None:
            script = Path(__file__).with_name("oracle_child.py")
            self.child = start(script, *self.mode, PREFIX, stdin=subprocess.PIPE)
        child = self.child
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        with suppress(BrokenPipeError):
            child.stdin.write(pickle.dumps(calls).hex() + "\n")
            child.stdin.flush()
        answered, _, _ = select.select([child.stdout], [], [], PATIENCE)
        answer = child.stdout.readline() if answered else "it hangs"
        script = "\n  ".join(["these calls:", *calls])
        if answer != "''\n":
            if answer.startswith(("'", '"')):
                pytest.fail(f"{answer}\n  {script}")
            if answered:
                answer = f"the child died: {child.wait(PATIENCE)}\n{child.stderr.read()}"
            self.end()
            pytest.fail(f"{answer}\n  {script}")

    def end(self) -> None:
        if self.child is not None:
            # It ends by itself if it can, and unlinks what it made.
            assert self.child.stdin is not None
            with suppress(BrokenPipeError):
                self.child.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(5)
            end(self.child)
            for left in Path("/dev/shm").glob(f"sem.{PREFIX[1:]}-{self.child.pid}*"):
                stock.sem_unlink(left.name.removeprefix("sem."))
            self.child = None


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    oracle = Oracle(*request.param)
    yield oracle
    oracle.end()


SECONDS = float(os.environ.get("SEMLOCK_FUZZ_SECONDS", 0))

# Without shrinking, which takes many minutes if each try crashes a child.
beside_a_child = settings(
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def fuzz(oracle: Oracle, strategy: st.SearchStrategy[list[str]]) -> None:
    """Checks many scripts: as many as the profile says, or new ones until the time is over."""
    checked = 0

    def check(calls: list[str]) -> None:
        nonlocal checked
        oracle.check(calls)
        checked += len(calls)

    rounds = settings(beside_a_child, derandomize=SECONDS == 0)
    end = time.monotonic() + SECONDS
    while True:
        rounds(given(strategy)(check))()
        if time.monotonic() >= end:
            break
    print(f"{checked} calls, 0 findings")


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize(
    ("oracle", "strategy"),
    [
        (("module", "beside"), scripts(*makes, *uses, *uses, good_makes, *others)),
        (("classes", "beside"), many(*plain_calls, *plain_calls, *bad_arguments)),
    ],
    ids=["module", "classes"],
    indirect=["oracle"],
)
def test_any_calls_give_what_they_give_on_stock(
    oracle: Oracle, strategy: st.SearchStrategy[list[str]]
) -> None:
    fuzz(oracle, strategy)


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize(
    ("oracle", "strategy"),
    [
        (("module", "alone"), scripts(*makes, *uses, good_makes, *others, *ours_alone)),
        (("classes", "alone"), many(*plain_calls, *bad_arguments, *our_calls, *our_calls)),
    ],
    ids=["module", "classes"],
    indirect=["oracle"],
)
def test_no_calls_crash_the_interpreter(
    oracle: Oracle, strategy: st.SearchStrategy[list[str]]
) -> None:
    fuzz(oracle, strategy)

"""What semlock does, on a real program. `cargo xtask demo` runs it."""

import collections
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from importlib.util import MAGIC_NUMBER
from marshal import loads
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOTES = HERE.parent / "tests" / "cpython" / "notes"
WORKERS = "4"
# A watchdog: the longest step takes half a minute.
SECONDS = 600


def main():
    print(f"semlock on CPython {platform.python_version()}, {os.cpu_count()} processors\n")
    with tempfile.TemporaryDirectory(prefix="semlock-demo-") as folder:
        compile_library(Path(folder, "library"))
        hand_over()
    killed_holder()
    killed_pool()
    print("\nAll of it came out right.")


# ---- An unmodified program ----


def compile_library(library):
    """The interpreter's own library, compiled on its own module and then on semlock."""
    ignore = shutil.ignore_patterns("test", "tests", "site-packages", "*.pyc", "*.so", "*.a")
    source = sysconfig.get_path("stdlib")
    shutil.copytree(source, library, ignore=ignore, ignore_dangling_symlinks=True)
    sources = sorted(library.rglob("*.py"))
    lines = sum(source.read_bytes().count(b"\n") for source in sources)
    print(
        f"1. An unmodified program: compileall, with {WORKERS} worker processes, over a copy of "
        f"this interpreter's library: {len(sources):,} files, {lines:,} lines.\n"
    )
    arguments = ["-j", WORKERS, "-f", "-q", str(library)]
    expected = compiled(library, "stock", ["-m", "compileall", *arguments])
    print()
    on_semlock = {"python -m semlock -m compileall": ["-m", "semlock", "-m", "compileall"]}
    for method in multiprocessing.get_all_start_methods():
        if method == "fork" and sys.version_info >= (3, 12):
            continue  # this compileall takes forkserver instead
        script = ["-m", "semlock", str(HERE / "compile.py"), method]
        on_semlock[f"the same, start method {method}"] = script
    for title, program in on_semlock.items():
        check(compiled(library, title, [*program, *arguments]), expected)


def compiled(library, title, arguments):
    """Runs a compilation; returns what it made of each source."""
    for cache in list(library.rglob("__pycache__")):
        shutil.rmtree(cache)
    print(f"   {title:<36}", end="", flush=True)
    notes = library.with_name("notes")
    notes.write_text("")
    # Makes every process note the SemLocks that it makes, and changes nothing else.
    environment = dict(os.environ, PYTHONPATH=str(NOTES), SEMLOCK_NOTES=str(notes))
    start = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, timeout=SECONDS, env=environment)
    seconds = time.monotonic() - start
    result = {path.relative_to(library): code_of(path) for path in library.rglob("*.pyc")}
    made = collections.Counter(line.split()[2] for line in notes.read_text().splitlines())
    wanted = "semlock" if "semlock" in arguments else "stock"
    if not result or not made[wanted] or made.total() != made[wanted]:
        sys.exit(f"\n   that should have run on {wanted}: {len(result)} files, SemLocks: {made}")
    print(
        f"{seconds:5.1f} s  {len(result):,} files, by {made.total()} SemLocks of {wanted}",
        end="",
        flush=True,
    )
    return result


def code_of(path):
    data = path.read_bytes()
    if not data.startswith(MAGIC_NUMBER):
        sys.exit(f"\n   {path} is no compiled file of this interpreter")
    # Compared as code: the bytes tell also which constants happened to be shared in memory.
    return data[len(MAGIC_NUMBER) : 16], loads(data[16:])


def check(result, expected):
    different = [
        path for path in expected.keys() | result if expected.get(path) != result.get(path)
    ]
    if different:
        sys.exit(f"\n   {len(different)} differ from the stock run, for example {different[0]}")
    print("; each file as in the stock run")


# ---- A semaphore that two modules share ----

ROUNDS = 10_000

PLAYER = """
import sys
if sys.argv[1] == "semlock":
    import semlock
    semlock.install("kernel")
import _multiprocessing
there, back = (_multiprocessing.SemLock._rebuild(0, 1, 1, name) for name in sys.argv[2:4])
for _ in range(int(sys.argv[4])):
    if not there.acquire(True, 60):
        sys.exit("the other process does not answer")
    back.release()
print(_multiprocessing.__name__)
"""


def hand_over():
    from _multiprocessing import SemLock, sem_unlink

    print(
        "\n2. A named semaphore, shared by a process on CPython's own module and one on semlock: "
        f"a token goes to and fro {ROUNDS:,} times.\n"
    )
    names = [f"/semlock-demo-{os.getpid()}-{way}" for way in ("there", "back", "turn")]
    there, back, turn = (SemLock(1, 0, 1, name, False) for name in names)
    players = []
    try:
        # there -> (stock) -> turn -> (semlock) -> back
        for module, ways in (("stock", (names[0], names[2])), ("semlock", (names[2], names[1]))):
            command = [sys.executable, "-c", PLAYER, module, *ways, str(ROUNDS)]
            players.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        start = time.monotonic()
        for _ in range(ROUNDS):
            there.release()
            if not back.acquire(True, 60):
                sys.exit("   the players do not answer")
        seconds = time.monotonic() - start
        modules = [player.communicate(timeout=60)[0].strip() for player in players]
        if any(player.returncode for player in players):
            sys.exit("   a player failed")
    finally:
        for player in players:
            player.kill()
            player.wait()
        for name in names:
            sem_unlink(name)
    left = [lock._get_value() for lock in (there, back, turn)]
    if modules != ["_multiprocessing", "semlock._multiprocessing"] or any(left):
        sys.exit(f"   it went wrong: {modules}, {left}")
    print(
        f"   {ROUNDS:,} times through {modules[0]} in one process and {modules[1]} in another "
        f"in {seconds:.1f} s; no permit was lost and none was made."
    )


# ---- Killed workers ----

# Run once on the stdlib and once on semlock: the context is all that differs.
BEGINNING = """
import multiprocessing, os, signal, sys, time, warnings
from multiprocessing.connection import wait
import semlock

def context(name):
    return {"stdlib": multiprocessing, "semlock": semlock}[name].get_context("fork")

context, patience = context(sys.argv[1]), float(sys.argv[2])
"""

KILLED_HOLDER = (
    BEGINNING
    + """
lock, held = context.Lock(), context.Event()

def work():
    with lock:
        held.set()
        signal.pause()

worker = context.Process(target=work)
worker.start()
held.wait()
worker.kill()
wait([worker.sentinel])
start = time.monotonic()
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    got = lock.acquire(timeout=patience)
print(got, time.monotonic() - start, *(str(warning.message) for warning in warned))
"""
)

KILLED_POOL = (
    BEGINNING
    + """
pool = context.Pool(4)
pool.map(abs, range(100))
def is_asleep(worker):
    with open(f"/proc/{worker.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"

# All are idle. Of the stdlib's, one holds the lock that tasks come through.
while not all(map(is_asleep, pool._pool)):
    time.sleep(0.001)
workers = list(pool._pool)
for worker in workers:
    os.kill(worker.pid, signal.SIGKILL)
start = time.monotonic()
result = pool.map_async(abs, range(-100, 0))
result.wait(patience)
went_on = result.ready() and result.get() == list(range(100, 0, -1))
print(went_on, time.monotonic() - start, flush=True)
for process in pool._pool + workers:
    process.kill()
os._exit(0)
"""
)

# Seconds: far longer than semlock takes, and short enough to look at.
PATIENCE = 5


def killed_holder():
    print("\n3. A worker is killed while it holds a lock, which another process wants.\n")
    compare(KILLED_HOLDER, warns=True)


def killed_pool():
    print(
        "\n4. The workers of a Pool are killed while one of them waits in `Queue.get`; the Pool "
        "starts new ones.\n"
    )
    compare(KILLED_POOL, warns=False)


def compare(program, warns):
    for name in ("stdlib", "semlock"):
        command = [sys.executable, "-c", program, name, str(PATIENCE)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
        went_on, seconds, *warning = run.stdout.strip().split(" ", 2)
        if went_on == "True":
            print(f"   {name:<8} goes on after {float(seconds) * 1000:.0f} ms")
        else:
            print(f"   {name:<8} hangs; given up after {float(seconds):.1f} s")
        for line in warning:
            print(textwrap.indent(textwrap.fill(f"OwnerDiedWarning: {line}", 80), " " * 12))
        if (went_on == "True") != (name == "semlock") or bool(warning) != (
            warns and went_on == "True"
        ):
            sys.exit("\n   that should have been otherwise")


if __name__ == "__main__":
    main()

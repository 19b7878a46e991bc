"""A frozen program runs on semlock. Its executable is also its children's interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from children import output, run

METHODS = ["fork", "spawn", "forkserver"]

needs_pyinstaller = pytest.mark.skipif(
    importlib.util.find_spec("PyInstaller") is None,
    reason="PyInstaller is not installed: `pip install -r requirements-test.txt`, if there is one "
    "for this version of Python",
)
needs_shared_library = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"),
    reason="PyInstaller needs a Python that was built with a shared library",
)

SOURCE = """
import json
import multiprocessing
import os
import signal
import sys
import warnings

import semlock

# A child that is the program again starts one in turn.
depth = int(os.environ.get("DEPTH", "0"))
os.environ["DEPTH"] = str(depth + 1)
if depth > 3:
    sys.exit("the program starts itself again and again")

# argv is the interpreter's own in a process that multiprocessing starts.
BACKEND, WHEN, METHOD = os.environ["SEMLOCK_BACKEND"], os.environ["WHEN"], os.environ["METHOD"]
if WHEN == "first":
    semlock.install(BACKEND)


def seen():
    import multiprocessing.synchronize as synchronize

    return [
        synchronize.Lock is semlock.Lock,
        sys.modules["_multiprocessing"] is semlock._multiprocessing,
        synchronize._multiprocessing is semlock._multiprocessing,
    ]


def tell(lock, queue):
    with lock:
        queue.put(seen())
        child = multiprocessing.get_context("fork").Process(target=queue.put, args=(seen(),))
        child.start()
        child.join()


def hold_and_die(lock, event):
    lock.acquire()
    event.set()
    os.kill(os.getpid(), signal.SIGKILL)


def main():
    context = multiprocessing.get_context(METHOD)
    if WHEN == "context":
        context = semlock.get_context(METHOD)
    lock, queue, event = context.Lock(), context.SimpleQueue(), context.Event()
    child = context.Process(target=tell, args=(lock, queue))
    child.start()
    told = [queue.get(), queue.get()]
    child.join()
    with context.Pool(2) as pool:
        told.append(pool.map(abs, [-1, 2]))
    if isinstance(lock, semlock.Lock):
        child = context.Process(target=hold_and_die, args=(lock, event))
        child.start()
        event.wait()
        warnings.simplefilter("ignore", semlock.OwnerDiedWarning)
        told.append(lock.acquire())
    print(json.dumps(told))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    if WHEN == "late":
        semlock.install(BACKEND)
    main()
"""


def frozen(directory: Path) -> Path:
    """The executable that PyInstaller makes from the program."""
    source = directory / "program.py"
    source.write_text(SOURCE)
    places = ["--distpath", directory / "dist", "--workpath", directory / "build"]
    done = run(
        *("-m", "PyInstaller", "--onedir", "--specpath", directory, *places, source),
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(directory / "cache")},
        patience=500,
    )
    assert done.returncode == 0, done.stderr
    return directory / "dist" / "program" / "program"


@needs_pyinstaller
@needs_shared_library
@pytest.mark.timeout(600)  # freezing takes long
def test_a_frozen_program_works_with_every_start_method_and_backend(tmp_path: Path) -> None:
    program = frozen(tmp_path)
    # Whether a child finds semlock's classes, its module under the stdlib's name, and that in use.
    expected = {
        ("shared", "first"): [True, True, True],
        ("shared", "late"): [True, True, True],
        ("kernel", "first"): [False, True, True],
        ("kernel", "late"): [False, True, True],
        ("shared", "context"): [False, False, False],
    }
    for (backend, when), seen in expected.items():
        for method in METHODS:
            choice = {"SEMLOCK_BACKEND": backend, "WHEN": when, "METHOD": method}
            told = json.loads(output(program=program, env={**os.environ, **choice}))
            is_recovered = [True] if backend == "shared" else []
            assert told == [seen, seen, [1, 2], *is_recovered], choice
    # pytest would keep several of them, of dozens of megabytes each.
    shutil.rmtree(tmp_path)

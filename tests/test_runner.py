"""`python -m semlock` runs a program as the interpreter itself would, but on semlock.

Each program runs both ways, and its output, errors and exit code must be the same.
"""

from __future__ import annotations

import py_compile
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from children import NAMES_SEMAPHORES, run

# Prints all that a program can know of how it was started.
REPORT = '''
"""The program's documentation."""
import sys

first = sorted(globals())
spec = __spec__ and (__spec__.name, __spec__.origin, __spec__.parent, __spec__.cached)
for name in ("argv", "path", "flags", "warnoptions", "dont_write_bytecode"):
    print(name, getattr(sys, name))
print(first, __name__, __package__, spec, __doc__)
print(globals().get("__file__"), globals().get("__cached__"))
loader = globals().get("__loader__")
print(type(loader), getattr(loader, "path", None), getattr(loader, "name", None))
print(type(__builtins__), globals().get("__annotations__"))
print(sys.modules["__main__"].__dict__ is globals())
print(sys.stdin.read())
variable: int = 3
print(globals().get("__annotations__"))
'''

FAILS = """
def outer(depth):
    if depth:
        outer(depth - 1)
    else:
        try:
            {}["key"]
        except KeyError:
            raise ValueError("with a cause ü")

import sys
print("before", flush=True)
outer(2)
"""

GROUP = """
def inner():
    raise ExceptionGroup("two", [ValueError(1), KeyError(2)])

inner()
"""

HOOK = """
import sys, traceback

def hook(kind, error, trace):
    frames = [frame.name for frame in traceback.extract_tb(trace)]
    print("hook", kind.__name__, error, frames[-2:], error.__traceback__ is trace)
    print(sys.excepthook is hook)

sys.excepthook = hook

def f():
    1 / 0

f()
"""

EXITS = """
import atexit, sys, threading

atexit.register(print, "atexit 1")
atexit.register(print, "atexit 2")
thread = threading.Thread(target=lambda: print("thread"))
thread.start()
thread.join()

class Late:
    def __del__(self, print=print):
        print("del")

late = Late()
try:
    sys.exit({})
finally:
    print("finally")
"""

HOOK_FAILS = """
import sys

def hook(*_):
    raise LookupError("in the hook")

sys.excepthook = hook
raise ValueError("first")
"""

LAST = """
import atexit, sys, traceback

def last():
    kind = getattr(sys, "last_type", None)
    trace = getattr(sys, "last_traceback", None)
    print(kind, [frame.name for frame in traceback.extract_tb(trace)][-2:])

atexit.register(last)

def f():
    raise ValueError

f()
"""

THREAD_FAILS = """
import threading

def f():
    raise ValueError("in a thread")

thread = threading.Thread(target=f, name="thread")
thread.start()
thread.join()
"""

# A module beside the program. (If a program is called __main__.py, children import nothing.)
BESIDE = """
import os, sys


def work(pipe, lock):
    with lock:
        main = sys.modules["__main__"]
        pipe.send([
            main.__name__, os.path.basename(getattr(main, "__file__", "")), sys.argv, sys.path,
            main is sys.modules.get("__mp_main__"), main.__spec__ and main.__spec__.name,
            getattr(main, "IMPORTED", None),
        ])


def seen(_=None):
    import multiprocessing

    lock = multiprocessing.Lock()
    if type(lock).__module__ == "semlock":
        return "shared"
    ours = sys.modules.get("semlock._multiprocessing")
    return "kernel" if ours and type(lock._semlock) is ours.SemLock else "stock"
"""

STARTS = (
    NAMES_SEMAPHORES
    + """
import multiprocessing, sys

import beside

IMPORTED = [__name__, sys.argv, globals().get("__package__")]

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    (reader, writer), lock = context.Pipe(False), context.Lock()
    with context.Pool(1) as pool:
        print(pool.map(abs, [-1, -2]))
        pool.close()
        pool.join()
    child = context.Process(target=beside.work, args=(writer, lock))
    child.start()
    writer.close()
    print(reader.recv())
    child.join()
    sys.exit(child.exitcode)
"""
)

SCRIPTS = {
    "report": REPORT,
    "empty": "",
    "fails": FAILS,
    "fails-at-the-top": "1 / 0\n",
    "syntax-error": "print('never')\nif True\n    pass\n",
    "indentation-error": "if True:\npass\n",
    "null-byte": "print(1)\0\n",
    "bad-encoding": "# coding: nonsense\nprint(1)\n",
    "latin": "# coding: latin-1\nprint('\\xe9')\n",
    "future": "from __future__ import annotations\nx: nonsense = 1\nprint(__annotations__)\n",
    "no-future": "try:\n    def f(x: nonsense): pass\n    print(f.__annotations__)\n"
    "except NameError as e:\n    print(e)\n",
    "exit-3": EXITS.format("3"),
    "exit-text": EXITS.format("'some text'"),
    "exit-none": EXITS.format(""),
    "exit-object": EXITS.format("(1, 2)"),
    "exit-300": EXITS.format("300"),
    "raises-system-exit": "raise SystemExit",
    "os-exit": "import os; os._exit(7)",
    "hook": HOOK,
    "hook-fails": HOOK_FAILS,
    "last-traceback": LAST,
    "no-hook": "import sys\nsys.excepthook = None\n1 / 0\n",
    "deleted-hook": "import sys\ndel sys.excepthook\n1 / 0\n",
    "thread-fails": THREAD_FAILS,
    "keyboard-interrupt": "raise KeyboardInterrupt",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "recursion": "def f(): f()\ntry:\n    f()\nexcept RecursionError:\n    print('deep')\n",
    "warning": "import warnings\nwarnings.warn('careful')\nprint('after')\n",
    "main-is-found": "import __main__\nx = 1\nprint(__main__.x)\n",
    "pickles-main": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))))\n",
    "imports-beside": "import beside\nprint(beside.__name__, beside.__file__)\n",
    "base-exception": "class B(BaseException): pass\nraise B('base')\n",
    "notes": "e = ValueError(1)\nif hasattr(e, 'add_note'): e.add_note('a note')\nraise e\n",
    "cause": "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError from e\n",
    **{
        f"starts-{method}": STARTS.replace("METHOD", repr(method))
        for method in ("fork", "spawn", "forkserver")
    },
}
if sys.version_info >= (3, 11):
    SCRIPTS["exception-group"] = GROUP


Both = Callable[..., "subprocess.CompletedProcess[str]"]

# What differs from a run without semlock: the interpreter's own messages as it reads a file.
COMPILE_WORDS_IT_OTHERWISE = (
    "null-byte",
    *(["bad-encoding"] if sys.version_info < (3, 14) else []),
)


@pytest.fixture
def both(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python without and with semlock, compares, and returns the outcome with semlock."""
    (tmp_path / "beside.py").write_text(BESIDE)
    if request.node.name.endswith(tuple(f"[{name}]" for name in COMPILE_WORDS_IT_OTHERWISE)):
        reason = "compile() words this otherwise than the interpreter"
        request.applymarker(pytest.mark.xfail(reason=reason))

    def both(
        *program: str | Path, flags: tuple[str, ...] = (), stdin: str = "input"
    ) -> subprocess.CompletedProcess[str]:
        without = run(*flags, *program, stdin=stdin, cwd=tmp_path)
        done = run(*flags, "-m", "semlock", *program, stdin=stdin, cwd=tmp_path)
        assert done.stdout == without.stdout
        assert done.stderr == without.stderr
        assert done.returncode == without.returncode
        return done

    return both


def as_script(directory: Path, source: str) -> tuple[str, ...]:
    (directory / "program.py").write_text(source)
    return ("program.py",)


def as_script_elsewhere(directory: Path, source: str) -> tuple[str, ...]:
    """Through a symbolic link and an absolute path."""
    (directory / "below").mkdir()
    (directory / "below" / "target.py").write_text(source)
    (directory / "below" / "beside.py").write_text(BESIDE)
    (directory / "link").symlink_to("below/target.py")
    return (str(directory / "link"),)


def as_script_above(directory: Path, source: str) -> tuple[str, ...]:
    (directory / "program").write_text(source)
    return (f"../{directory.name}/./program",)


def as_compiled(directory: Path, source: str) -> tuple[str, ...]:
    (directory / "source.py").write_text(source)
    py_compile.compile(str(directory / "source.py"), str(directory / "program.pyc"), doraise=True)
    return ("program.pyc",)


def as_module(directory: Path, source: str) -> tuple[str, ...]:
    (directory / "module.py").write_text(source)
    return ("-m", "module")


def as_module_in_a_package(directory: Path, source: str) -> tuple[str, ...]:
    package = directory / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(source)
    return ("-m", "package.module")


def as_package(directory: Path, source: str) -> tuple[str, ...]:
    package = directory / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(source)
    return ("-m", "package")


def as_directory(directory: Path, source: str) -> tuple[str, ...]:
    (directory / "folder").mkdir()
    (directory / "folder" / "__main__.py").write_text(source)
    (directory / "folder" / "beside.py").write_text(BESIDE)
    return ("folder",)


def as_zip(directory: Path, source: str) -> tuple[str, ...]:
    with zipfile.ZipFile(directory / "program.zip", "w") as file:
        file.writestr("__main__.py", source)
        file.writestr("beside.py", BESIDE)
    return ("program.zip",)


FORMS = {
    form.__name__.removeprefix("as_"): form
    for form in (
        as_script, as_script_elsewhere, as_script_above, as_compiled, as_module,
        as_module_in_a_package, as_package, as_directory, as_zip,
    )
}  # fmt: skip
Form = Callable[[Path, str], "tuple[str, ...]"]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_does_what_it_does_without(script: str, both: Both, tmp_path: Path) -> None:
    both(*as_script(tmp_path, script), "one", "--two", "-m", "three")


@pytest.mark.parametrize(
    "script",
    ["report", "fails", "exit-text", "hook", "keyboard-interrupt", "imports-beside",
     "starts-spawn", "starts-forkserver"],
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_program_in_any_form_does_what_it_does_without(
    form: Form, script: str, both: Both, tmp_path: Path
) -> None:
    both(*form(tmp_path, SCRIPTS[script]), "one", "-m", "two", "")


@pytest.mark.parametrize("form", [as_module, as_package], ids=["module", "package"])
def test_a_module_with_a_syntax_error_says_so_as_without(
    form: Form, both: Both, tmp_path: Path
) -> None:
    both(*form(tmp_path, SCRIPTS["syntax-error"]))


def test_a_script_can_come_through_a_pipe(both: Both) -> None:
    assert both("/dev/stdin", stdin="print(__name__, __file__)").stdout == "__main__ /dev/stdin\n"


@pytest.mark.parametrize(
    "program",
    [
        ("missing.py",),
        ("missing/",),
        ("",),
        ("beside.py/below",),
        ("folder-without-main",),
        ("-m", "missing"),
        ("-m", "missing.module"),
        ("-m", "beside.module"),
        ("-m", "package-without-main"),
        ("-m", ".beside"),
        ("-m", "beside.py"),
        ("-m", ""),
        ("-m", "package_raises"),
    ],
    ids=" ".join,
)
def test_a_program_that_cannot_be_run_is_refused_as_without(
    program: tuple[str, ...], both: Both, tmp_path: Path
) -> None:
    (tmp_path / "folder-without-main").mkdir()
    (tmp_path / "package-without-main").mkdir()
    (tmp_path / "package-without-main" / "__init__.py").write_text("")
    (tmp_path / "package_raises").mkdir()
    (tmp_path / "package_raises" / "__init__.py").write_text("1 / 0\n")
    assert both(*program, "argument").returncode != 0


def probed(*flags: str) -> bool:
    return run(*flags, "-c", "").returncode == 0


@pytest.mark.parametrize("form", [as_script, as_module, as_directory, as_compiled])
@pytest.mark.parametrize("script", ["report", "fails", "warning"])
@pytest.mark.parametrize(
    "flags",
    [("-I",), ("-P",), ("-W", "error"), ("-X", "dev"), ("-O",), ("-b",), ("-u", "-E", "-s")],
    ids=" ".join,
)
def test_the_interpreters_flags_mean_what_they_mean_without(
    flags: tuple[str, ...], form: Form, script: str, both: Both, tmp_path: Path
) -> None:
    if not probed(*flags):
        pytest.skip(f"this interpreter has no {' '.join(flags)}")
    both(*form(tmp_path, SCRIPTS[script]), flags=flags)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("backend", ["shared", "kernel"])
def test_a_program_and_its_children_are_on_semlock(
    backend: str, form: Form, method: str, tmp_path: Path
) -> None:
    source = NAMES_SEMAPHORES + (
        f"""
import multiprocessing

from beside import seen

if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(seen(), pool.map(seen, range(3)))
        pool.close()
        pool.join()
"""
    )
    (tmp_path / "beside.py").write_text(BESIDE)
    program = form(tmp_path, source)
    option = [] if backend == "shared" else ["--backend", backend]
    done = run("-m", "semlock", *option, *program, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{backend} {[backend] * 3}\n")
    assert run(*program, cwd=tmp_path).stdout.endswith(f"stock {['stock'] * 3}\n")


def test_without_a_program_it_says_how_it_is_used() -> None:
    done = run("-m", "semlock")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("arguments", [("-m",), ("--nonsense",), ("-x", "program.py")])
def test_a_bad_command_line_is_refused(arguments: tuple[str, ...]) -> None:
    done = run("-m", "semlock", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_says_how_it_is_used(flag: str) -> None:
    done = run("-m", "semlock", flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "-m MODULE" in done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("form", [as_script, as_script_elsewhere, as_module])
def test_a_program_and_its_children_import_their_own_modules(
    form: Form, method: str, both: Both, tmp_path: Path
) -> None:
    source = NAMES_SEMAPHORES + (
        f"""
import multiprocessing
import queue


def work(lock):
    with lock:
        print(queue.__file__)


if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    lock = context.Lock()
    child = context.Process(target=work, args=(lock,))
    child.start()
    child.join()
    print(queue.__file__)
"""
    )
    # semlock imports this module of the standard library; a program with locks alone does not.
    program = form(tmp_path, source)
    (tmp_path / "queue.py").write_text("")
    own = form is as_script or form is as_module
    assert both(*program).stdout.count(str(tmp_path / "queue.py")) == (2 if own else 0)


def test_a_script_runs_where_the_current_directory_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = tmp_path / "script.py"
    script.write_text("print(__file__)")
    done = run("-m", "semlock", script, cwd=gone, preexec_fn=gone.rmdir)
    assert (done.stdout, done.stderr) == (f"{script}\n", "")

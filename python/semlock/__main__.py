"""Run an unmodified program on semlock::

    python -m semlock script.py args...
    python -m semlock -m module args...

``--backend kernel`` before the program makes it use the operating system's semaphores.

``sys.argv``, ``sys.path``, ``__main__``, tracebacks and the exit code are the same as when the
program is started without semlock.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import io
import os
import pkgutil
import runpy
import sys
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from semlock import install
from semlock.startup import StandardLibraryFirst, before_standard_library, forget_shadowed

USAGE = "usage: python -m semlock [--backend BACKEND] [-m MODULE | SCRIPT] ARGS..."

HELP = f"""\
{USAGE}

Run an unmodified program on semlock: its multiprocessing locks and semaphores are semlock's, in
the program and in every process that it starts through multiprocessing.

  --backend BACKEND  shared (robust locks in shared memory, the default) or kernel (the operating
                     system's semaphores, as in CPython)
  -m MODULE          a module to run as a program, as python -m does
  SCRIPT             a script, or a directory or zip file with a __main__.py in it
  ARGS               the program's own arguments
"""


def main() -> None:
    backend, given = backend_option(sys.argv[1:])
    module, argv = arguments(given)
    try:
        with StandardLibraryFirst(True):
            install(backend)
    except ValueError as error:
        refuse(str(error))
    try:
        sys.argv = argv
        if module is not None:
            run_module(module)
        elif os.path.isabs(argv[0]):
            run_file(argv[0])
        else:
            path = os.path.join(os.getcwd(), argv[0])
            run_file(path if sys.version_info < (3, 11) or argv[0] else os.getcwd())
    except SystemExit:
        raise
    except BaseException:
        # The interpreter ends as for any program, but the traceback leaves out the frames above.
        sys.excepthook = Excepthook(getattr(sys, "excepthook", MISSING))
        raise


def backend_option(given: list[str]) -> tuple[str, list[str]]:
    """Returns the backend, and the arguments after it."""
    option, equals, backend = given[0].partition("=") if given else ("", "", "")
    if option != "--backend":
        return "shared", given
    if equals:
        return backend, given[1:]
    if len(given) < 2:
        refuse("--backend needs one of shared, kernel")
    return given[1], given[2:]


def refuse(problem: str) -> NoReturn:
    print(f"{USAGE}\n\npython -m semlock: {problem}", file=sys.stderr)
    sys.exit(2)


def arguments(given: list[str]) -> tuple[str | None, list[str]]:
    """Returns the module to run, or None for a script, and the program's ``sys.argv``.

    There is no ``argparse`` here, because all arguments after the program's name are the program's,
    even those that look like semlock's options.
    """
    first = given[0] if given else "-m"
    if first in ("-h", "--help"):
        print(HELP, end="")
        sys.exit(0)
    if first == "-m" and len(given) > 1:
        return given[1], ["-m", *given[2:]]
    if first.startswith("-m") and first != "-m":
        return first[2:], ["-m", *given[1:]]
    if first.startswith("-"):
        problem = {
            "-m": "no program to run",
            "-": "a program from standard input is not supported",
        }.get(first, f"unknown option {first}")
        refuse(problem)
    return None, given


def new_main() -> ModuleType:
    """Replaces this ``__main__`` with an empty one."""
    this = sys.modules["__main__"]
    module = sys.modules["__main__"] = ModuleType("__main__")
    # When multiprocessing was imported, it took this module for the program's main module.
    if sys.modules.get("__mp_main__") is this:
        sys.modules["__mp_main__"] = module
    vars(module)["__builtins__"] = builtins
    if sys.version_info < (3, 14):
        vars(module)["__annotations__"] = {}
    return module


def run_module(name: str, alter_argv: bool = True) -> None:
    forget_shadowed(before_standard_library(sys.path))
    new_main()
    # The interpreter itself calls this function for -m.
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def run_file(path: str) -> None:
    if is_importable(path):
        # This is a directory or zip file with a __main__.py in it.
        replace_first_path(path, always=True)
        run_module("__main__", alter_argv=False)
        return
    replace_first_path(os.path.dirname(os.path.realpath(path)))
    forget_shadowed(before_standard_library(sys.path))
    try:
        # Read it once, as a whole: it can be a pipe.
        with io.open_code(path) as file:
            content = file.read()
    except OSError as error:
        reason = f"[Errno {error.errno}] {error.strerror}"
        print(f"{sys.orig_argv[0]}: can't open file {path!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    loader: type = importlib.machinery.SourcelessFileLoader
    code = pkgutil.read_code(io.BytesIO(content))
    if code is None:
        # The file is source code.
        loader = importlib.machinery.SourceFileLoader
        code = compile(content, path, "exec", dont_inherit=True)
    namespace: dict[str, Any] = vars(new_main())
    namespace.update(__file__=path, __loader__=loader("__main__", path))
    if sys.version_info < (3, 15):
        namespace["__cached__"] = None
    exec(code, namespace)


def is_importable(path: str) -> bool:
    importer = pkgutil.get_importer(path)
    if importer is None or not os.path.exists(path):
        return False
    return os.path.isdir(path) or not isinstance(importer, importlib.machinery.FileFinder)


def replace_first_path(path: str, always: bool = False) -> None:
    """Puts a script's directory where ``python -m`` has put the current directory."""
    has_first_path = not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated)
    if has_first_path:
        sys.path[0] = path
    elif always:
        sys.path.insert(0, path)


# Stands for the hook of a program that has deleted its sys.excepthook.
MISSING = object()


class Excepthook:
    """Shows the exception that ends a program, from the program's own first frame on.

    It then calls the program's own hook, as the interpreter does.
    """

    def __init__(self, programs: Any) -> None:
        self.programs = programs

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        rest = traceback
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == __file__:
                rest = traceback.tb_next
            traceback = traceback.tb_next
        sys.last_traceback = error.__traceback__ = rest
        if self.programs is MISSING:
            del sys.excepthook
            print("sys.excepthook is missing", file=sys.stderr)
            sys.__excepthook__(kind, error, rest)
            return
        sys.excepthook = self.programs
        try:
            self.programs(kind, error, rest)
        except SystemExit:
            raise
        except BaseException as failure:
            print("Error in sys.excepthook:", file=sys.stderr)
            # Leave out the frame of this call.
            in_hook = failure.__traceback__ and failure.__traceback__.tb_next
            failure.__traceback__, failure.__context__ = in_hook, None
            sys.__excepthook__(type(failure), failure, in_hook)
            print("\nOriginal exception was:", file=sys.stderr)
            sys.__excepthook__(kind, error, rest)


if __name__ == "__main__":
    main()

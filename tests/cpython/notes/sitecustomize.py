"""Notes every SemLock that a process makes: one line `pid how module` in $SEMLOCK_NOTES.

It is on the path of every process of a suite's run, also of a run on the interpreter's own module,
and changes nothing but that `multiprocessing.synchronize.SemLock` notes what it got.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import sys


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname != "multiprocessing.synchronize":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        exec_module = spec.loader.exec_module

        def exec_module_and_watch(module):
            exec_module(module)
            watch(module.SemLock, "__init__", "made")
            watch(module.SemLock, "__setstate__", "rebuilt")

        spec.loader.exec_module = exec_module_and_watch
        return spec


def watch(cls, name, how):
    method = getattr(cls, name)

    @functools.wraps(method)
    def watched(self, *args, **kwargs):
        method(self, *args, **kwargs)
        ours = sys.modules.get("semlock._multiprocessing")
        is_ours = ours is not None and type(self._semlock) is ours.SemLock
        note = f"{os.getpid()} {how} {'semlock' if is_ours else 'stock'}\n"
        # One write in append mode is whole, whoever else writes.
        notes = os.open(os.environ["SEMLOCK_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(notes, note.encode())
        finally:
            os.close(notes)

    setattr(cls, name, watched)


sys.meta_path.insert(0, Finder())

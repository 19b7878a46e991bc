"""Notes every lock that a process makes: one line `pid how whose` in $SEMLOCK_NOTES.

Every process of a suite's run has it on its path, also of a run on the interpreter's own module. It
changes one thing: whatever makes a lock notes it. That is the stdlib's `SemLock`, the contexts, and
the functions that unpickle semlock's locks. With $SEMLOCK_INSTALL it installs that backend in
programs that import multiprocessing, as their users would.
"""

# Every process pays for an import here, so rarely needed modules are imported where they are used.
import os
import sys


class Finder:
    @staticmethod
    def find_spec(fullname, path, target=None):
        if fullname not in WATCHED:
            return None
        import importlib.machinery

        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        exec_module = spec.loader.exec_module

        def exec_module_and_watch(module):
            exec_module(module)
            WATCHED[fullname](module)

        spec.loader.exec_module = exec_module_and_watch
        return spec


def watch_synchronize(module):
    def semlock_of(lock, result):
        return lock._semlock

    watch(module.SemLock, "__init__", "made", semlock_of)
    watch(module.SemLock, "__setstate__", "rebuilt", semlock_of)


def watch_context(module):
    for name in ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier"):
        watch(module.BaseContext, name, "made", lambda context, result: result)


def watch_sharing(module):
    watch(module, "rebuild_shared", "rebuilt", lambda cls, result: result)


def watch_channels(module):
    watch(module, "open_channel", "made", lambda queue, result: queue._rlock)


def install(module):
    """Installs in a program. semlock itself reaches the processes that multiprocessing starts."""
    backend = os.environ.get("SEMLOCK_INSTALL")
    if backend and not any("from multiprocessing." in argument for argument in sys.orig_argv):
        import semlock

        semlock.install(backend)


WATCHED = {
    "multiprocessing": install,
    "multiprocessing.synchronize": watch_synchronize,
    "multiprocessing.context": watch_context,
    "semlock.kernel": watch_synchronize,
    "semlock.sharing": watch_sharing,
    "semlock.channels": watch_channels,
}


def watch(owner, name, how, made):
    import functools

    function = getattr(owner, name)

    @functools.wraps(function)
    def watched(first, *args, **kwargs):
        result = function(first, *args, **kwargs)
        note(how, made(first, result))
        return result

    setattr(owner, name, watched)


def note(how, lock):
    kernel, native = map(sys.modules.get, ("semlock._multiprocessing", "semlock._native"))
    ours = [] if kernel is None else [kernel.SemLock]
    if native is not None:
        ours += [native.SemLock, native.Condition, native.Event, native.Barrier, native._Channel]
    is_ours = isinstance(lock, tuple(ours))
    if not is_ours and any(
        it.__module__ == "multiprocessing.synchronize" for it in type(lock).__mro__
    ):
        # It is made of SemLocks, which have been noted.
        return
    line = f"{os.getpid()} {how} {'semlock' if is_ours else 'stock'}\n"
    # One write in append mode stays whole, whoever else writes.
    notes = os.open(os.environ["SEMLOCK_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(notes, line.encode())
    finally:
        os.close(notes)


sys.meta_path.insert(0, Finder)

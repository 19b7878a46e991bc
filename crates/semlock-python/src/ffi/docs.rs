//! The docstrings of the public classes: what `help()` shows.
//!
//! The first line of each is the signature, from which Python makes `__text_signature__`. Locks and
//! semaphores inherit their methods, so those texts say what differs from class to class.

/// Of `Lock`, `RLock`, `Semaphore` and `BoundedSemaphore`.
pub(crate) mod locks {
    use std::ffi::CStr;

    pub(crate) const LOCK: &CStr = c"\
Lock(*, ctx=None, robust=True, on_owner_died='warn')
--

A lock that one thread of one process holds at a time.

It comes back when the process that holds it dies: the next one that acquires it gets it,
with an OwnerDiedWarning. (A process that ends well leaves its locks held.) It is not
recursive: a thread that acquires it twice waits for itself. It can be sent to other
processes, and arrives there as the same lock.

:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:param robust: whether the lock comes back when its holder dies. None means the default.
:param on_owner_died: \"warn\" makes the next holder get an OwnerDiedWarning. With \"ignore\"
    it gets none, and finds the death in `recovered`.
:raises OSError: the system has no memory to share.
:raises ValueError: another value of on_owner_died.
:raises TypeError: an on_owner_died that is no string.

>>> import os, semlock
>>> lock = semlock.Lock()
>>> with lock:
...     lock.holder() == os.getpid()
True
>>> lock.acquire(timeout=0.5)  # seconds
True
>>> lock.acquire(block=False)
False
>>> lock.release()
";

    pub(crate) const RLOCK: &CStr = c"\
RLock(*, ctx=None, robust=True, on_owner_died='warn')
--

A recursive lock: the thread that holds it can acquire it again.

It is free when that thread has released it as often. It comes back when the process that
holds it ends, however that ends: the next one that acquires it gets it, with an
OwnerDiedWarning. It can be sent to other processes, and arrives there as the same lock.

:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:param robust: whether the lock comes back when its holder dies. None means the default.
:param on_owner_died: \"warn\" makes the next holder get an OwnerDiedWarning. With \"ignore\"
    it gets none, and finds the death in `recovered`.
:raises OSError: the system has no memory to share.
:raises ValueError: another value of on_owner_died.
:raises TypeError: an on_owner_died that is no string.

>>> import semlock
>>> lock = semlock.RLock()
>>> with lock, lock:
...     lock.locked()
True
>>> lock.locked()
False
";

    pub(crate) const SEMAPHORE: &CStr = c"\
Semaphore(value=1, *, ctx=None, robust=False, on_owner_died='warn')
--

A number of permits: acquire takes one, and release gives one back.

Without robust, a permit has no holder: any process may release, also more often than it
acquired, and what a dead process acquired stays taken. With robust=True a permit belongs to
the process that acquired it, and comes back when that one ends.

:param value: the permits at the beginning, from 0 to 2147483647; of a robust one to 524280.
:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:param robust: whether permits come back when their holder dies.
:param on_owner_died: of a robust one: \"warn\" makes the next holder of such a permit get an
    OwnerDiedWarning. With \"ignore\" it gets none, and finds the death in `recovered`.
:raises OSError: a negative value (EINVAL), or the system has no memory to share.
:raises OverflowError: a value that no C int can hold.
:raises ValueError: too many permits of a robust one, or another value of on_owner_died.
:raises TypeError: an on_owner_died that is no string.

>>> import semlock
>>> downloads = semlock.Semaphore(2, robust=True)
>>> with downloads:
...     downloads.get_value()
1
";

    pub(crate) const BOUNDED_SEMAPHORE: &CStr = c"\
BoundedSemaphore(value=1, *, ctx=None, robust=False, on_owner_died='warn')
--

A Semaphore that never has more than `value` permits.

One release too many is a ValueError. Everything else is as for Semaphore.

:param value: the permits at the beginning, and the most that there can be: from 0 to
    2147483647; of a robust one to 524280.
:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:param robust: whether permits come back when their holder dies.
:param on_owner_died: of a robust one: \"warn\" makes the next holder of such a permit get an
    OwnerDiedWarning. With \"ignore\" it gets none, and finds the death in `recovered`.
:raises OSError: a negative value (EINVAL), or the system has no memory to share.
:raises OverflowError: a value that no C int can hold.
:raises ValueError: too many permits of a robust one, or another value of on_owner_died.
:raises TypeError: an on_owner_died that is no string.

>>> import semlock
>>> slots = semlock.BoundedSemaphore(1)
>>> slots.release()
Traceback (most recent call last):
ValueError: semaphore or lock released too many times
";

    pub(crate) const ACQUIRE: &CStr = c"\
acquire($self, /, block=True, timeout=None)
--

Acquire the lock, or take a permit, and return whether that worked.

The thread that holds an RLock counts up and gets True at once. If the holder died, this
call gets what it held, and issues an OwnerDiedWarning unless on_owner_died is \"ignore\".
If a warning filter makes that an error, the call raises it and acquires nothing.

:param block: whether to wait until it is free. Without, timeout has no effect.
:param timeout: the seconds to wait at most. None means no limit, and a negative number 0.
:returns: True if it was acquired, False if it was not free in time.
:raises ValueError: a timeout that is NaN.
:raises OwnerDiedWarning: only if a warning filter makes it an error.
";

    pub(crate) const RELEASE: &CStr = c"\
release($self, /)
--

Release the lock, or give a permit back.

Any thread of any process may release a Lock or a plain semaphore; any thread of the holder's
process a permit of a robust semaphore; only the thread that holds it an RLock, which counts
down and is free at 0.

:raises ValueError: nobody holds the Lock; the process holds no permit of the robust
    semaphore; or the semaphore has its most permits already.
:raises AssertionError: another thread holds the RLock, or none.
";

    pub(crate) const LOCKED: &CStr = c"\
locked($self, /)
--

Return whether somebody holds the lock, or no permit of the semaphore is free.
";

    pub(crate) const GET_VALUE: &CStr = c"\
get_value($self, /)
--

Return the number of free permits.

A permit of a dead process counts as taken until somebody acquires it.
";

    pub(crate) const HOLDER: &CStr = c"\
holder($self, /)
--

Return the pid of the process that holds the lock, or None.

It does not check whether that process lives: it names a dead holder until somebody acquires
the lock. A process in another pid namespace has the pid that it has there.
";

    pub(crate) const RECOVERED: &CStr = c"\
The pid of the dead process that held this before, or None.

It is set from the acquire that got it to the release, in the process that acquired it. Of a
semaphore that is not robust it is always None.

>>> import semlock
>>> context = semlock.get_context(\"spawn\")
>>> lock = context.RLock(on_owner_died=\"ignore\")
>>> worker = context.Process(target=lock.acquire)  # and ends with it
>>> worker.start()
>>> worker.join()
>>> with lock:
...     lock.recovered == worker.pid
True
";
}

/// Of `Condition`.
pub(crate) mod condition {
    use std::ffi::CStr;

    pub(crate) const CONDITION: &CStr = c"\
Condition(lock=None, *, ctx=None)
--

A place where processes wait until another one notifies them.

Its lock protects what they wait for. A notification whose receiver dies goes to the next
waiter.

:param lock: a semlock.Lock or semlock.RLock, or None for a new RLock. Several conditions may
    share one.
:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:raises TypeError: another lock.
:raises OSError: the system has no memory to share.

>>> import semlock
>>> context = semlock.get_context(\"spawn\")
>>> condition = context.Condition()
>>> with condition:
...     condition.notify()  # nobody waits
...     condition.wait(timeout=0.01)  # seconds
False
";

    pub(crate) const ACQUIRE: &CStr = c"\
acquire($self, /, block=True, timeout=None)
--

Acquire the lock of the condition, and return whether that worked.

:param block: whether to wait until it is free. Without, timeout has no effect.
:param timeout: the seconds to wait at most. None means no limit, and a negative number 0.
:returns: True if it was acquired, False if it was not free in time.
:raises ValueError: a timeout that is NaN.
:raises OwnerDiedWarning: only if a warning filter makes it an error.
";

    pub(crate) const RELEASE: &CStr = c"\
release($self, /)
--

Release the lock of the condition.

:raises ValueError: it is a Lock that nobody holds.
:raises AssertionError: it is an RLock that this thread does not hold.
";

    pub(crate) const WAIT: &CStr = c"\
wait($self, /, timeout=None)
--

Release the lock, wait for a notification, and acquire the lock again.

When this ends, the caller holds the lock, also when it raises; so it may take longer than
the timeout. What it waits for can have changed again by then: check it in a loop, or call
wait_for.

:param timeout: the seconds to wait at most for a notification. None means no limit.
:returns: True if it was notified, False if the timeout passed.
:raises AssertionError: the caller does not hold the lock.
:raises RuntimeError: 4096 threads wait already in this part of the memory. Nothing has
    changed.
:raises ValueError: a timeout that is NaN.
:raises OwnerDiedWarning: only if a warning filter makes it an error.
";

    pub(crate) const WAIT_FOR: &CStr = c"\
wait_for($self, /, predicate, timeout=None)
--

Wait until predicate() is true, which is called with the lock held.

:param predicate: a function without arguments. What it raises comes out.
:param timeout: the seconds to wait at most. None means no limit.
:returns: what the last call of predicate returned: something false after a timeout.
:raises AssertionError: the caller does not hold the lock.
:raises RuntimeError: as for wait.
:raises ValueError: a timeout that is NaN.
:raises OwnerDiedWarning: only if a warning filter makes it an error.
";

    pub(crate) const NOTIFY: &CStr = c"\
notify($self, /, n=1)
--

Wake n waiters at most, first those that have waited longest.

They go on when the caller has released the lock. Waiters that died are skipped.

:param n: how many.
:raises AssertionError: the caller does not hold the lock.
";

    pub(crate) const NOTIFY_ALL: &CStr = c"\
notify_all($self, /)
--

Wake all waiters.

They go on when the caller has released the lock.

:raises AssertionError: the caller does not hold the lock.
";
}

/// Of `Event`.
pub(crate) mod event {
    use std::ffi::CStr;

    pub(crate) const EVENT: &CStr = c"\
Event(*, ctx=None)
--

A flag that processes can wait for.

It is not set at the beginning. Attributes that were set on an event are pickled with it.

:param ctx: a multiprocessing context, as in the stdlib; it has no effect.
:raises OSError: the system has no memory to share.

>>> import semlock
>>> context = semlock.get_context(\"spawn\")
>>> event = context.Event()
>>> worker = context.Process(target=event.set)
>>> worker.start()
>>> event.wait()
True
>>> worker.join()
";

    pub(crate) const IS_SET: &CStr = c"\
is_set($self, /)
--

Return whether the event is set.
";

    pub(crate) const SET: &CStr = c"\
set($self, /)
--

Set the event, and wake all who wait for it.

It takes no lock: a signal handler may call it, also one that interrupted another call of the
same event.
";

    pub(crate) const CLEAR: &CStr = c"\
clear($self, /)
--

Clear the event: those that wait from here on wait until it is set again.
";

    pub(crate) const WAIT: &CStr = c"\
wait($self, /, timeout=None)
--

Wait until the event is set.

A waiter gets through even if the event is cleared at once after it was set.

:param timeout: the seconds to wait at most. None means no limit, and a negative number 0.
:returns: True if it was set, False if the timeout passed.
:raises ValueError: a timeout that is NaN.
";
}

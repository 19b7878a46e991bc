"""What semlock's own warnings and exceptions are."""

__all__ = ["OwnerDiedWarning", "QueueBrokenError"]


class OwnerDiedWarning(RuntimeWarning):
    """A lock was recovered from a process that died holding it.

    What the lock protects may be half-written. ``warnings.simplefilter("error",
    OwnerDiedWarning)`` makes it an exception; the lock is then not taken, and whoever comes next is
    told too.
    """


class QueueBrokenError(RuntimeError):
    """A process died, or was interrupted, while it moved a message through a queue's pipe.

    What is left in the pipe begins in the middle of a message, so nobody can read it, and nothing
    can be written behind it. The queue stays so: make a new one.
    """

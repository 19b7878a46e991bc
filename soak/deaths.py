"""Workloads whose processes are killed, wherever they are. For `shared` alone: it survives that.

The soak runs a few of each in every round, all at once, and checks that deaths leave nothing
behind. `tests/test_deaths.py` runs more of some, one at a time, by each start method.
"""

from __future__ import annotations

from deaths_at_locks import (
    killed_consumers,
    killed_holders,
    killed_in_meetings,
    killed_users,
    killed_waiters,
)
from deaths_at_queues import (
    killed_at_both_ends,
    killed_executors,
    killed_pools,
    killed_readers,
    killed_while_submitting,
    killed_with_tasks,
    killed_workers,
    killed_writers,
)
from processes import Workload

WORKLOADS: tuple[Workload, ...] = (
    killed_holders,
    killed_writers,
    killed_pools,
    killed_waiters,
    killed_readers,
    killed_executors,
    killed_in_meetings,
    killed_users,
    killed_consumers,
    killed_at_both_ends,
    killed_with_tasks,
    killed_workers,
    killed_while_submitting,
)

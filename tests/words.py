"""What stands in the memory that locks share."""

from __future__ import annotations

import os
from typing import Any

# Where slots begin, and words of a slot: see `segment.rs`.
HEADER, NODES, PLACES = 64, 9, 14
GATE, WATCH, TAG = 1, 2, 4
# A permit's mark: see `permit.rs`.
DIED = 1


class Words:
    """The shared words of a lock."""

    def __init__(self, lock: Any) -> None:
        self.descriptor = lock._descriptor()
        self.slot = HEADER + (self.at(PLACES) + self.at(NODES)) * 2 + lock._address()[1] * 8

    def at(self, word: int) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, word * 8), "little")

    def write(self, word: int, value: int) -> None:
        """Writes a word, counted from where the lock begins."""
        os.pwrite(self.descriptor, value.to_bytes(8, "little"), (self.slot + word) * 8)

    def wake_ups(self) -> int:
        """Counts on with each wake-up that is sent through the gate, and with nothing else."""
        return self.at(self.slot + GATE) & 0xFFFF_FFFF

    def is_watched(self) -> bool:
        return self.at(self.slot + WATCH) != 0

    def waited_for(self) -> set[int]:
        """The slots of this segment that the places of those who wait for locks name."""
        states = (self.at(HEADER + 2 * place + 1) for place in range(self.at(PLACES)))
        return {state >> 3 & 0xFFFF for state in states if state & 0b111}

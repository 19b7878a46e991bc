"""The words of the memory that locks share."""

from __future__ import annotations

import os
from typing import Any

from semlock import _native

# The place of each word, by name: see `layout.rs`.
LAYOUT = _native._layout()


class Words:
    """The shared words of a lock."""

    def __init__(self, lock: Any) -> None:
        self.descriptor = lock._descriptor()
        self.places = self.at(LAYOUT["HEADER_PLACES"])
        nodes = self.places + self.at(LAYOUT["HEADER_NODES"])
        slots = LAYOUT["PLACES_AT"] + nodes * LAYOUT["NODE_WORDS"]
        self.slot = slots + lock._address()[1] * LAYOUT["SLOT_WORDS"]

    def at(self, word: int) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, word * 8), "little")

    def write(self, word: int, value: int) -> None:
        """Writes a word. `word` counts from the lock's first one."""
        os.pwrite(self.descriptor, value.to_bytes(8, "little"), (self.slot + word) * 8)

    def watch(self) -> int:
        """The watcher's last heartbeat; 0 if nobody watches the holder."""
        return self.at(self.slot + LAYOUT["WATCH"])

    def wake_ups(self) -> int:
        """How many wake-ups were sent through the eventcount. Nothing else changes it."""
        return self.at(self.slot + LAYOUT["EVENTCOUNT"]) & 0xFFFF_FFFF

    def is_watched(self) -> bool:
        return self.watch() != 0

    def waited_for(self) -> set[int]:
        """The slots of this segment that the waiters' places name."""
        places = (LAYOUT["PLACES_AT"] + LAYOUT["NODE_WORDS"] * n for n in range(self.places))
        states = (self.at(place + LAYOUT["NODE_STATE"]) for place in places)
        mask = (1 << LAYOUT["NODE_SLOT_BITS"]) - 1
        return {
            state >> LAYOUT["NODE_SLOT_SHIFT"] & mask
            for state in states
            if state & LAYOUT["NODE_STATUS"]
        }

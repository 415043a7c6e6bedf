"""Pauses before attempts to reach a node again."""

from __future__ import annotations

import random

FIRST = 0.5
MOST = 30.0


class Backoff:
    """Doubling pauses, each between half and the whole by chance: what lost its node together does not return together."""

    def __init__(self) -> None:
        self._next = FIRST

    def pause(self) -> float:
        """The next pause in seconds."""
        pause = self._next
        self._next = min(2 * pause, MOST)
        return random.uniform(pause / 2, pause)

    def reset(self) -> None:
        """The node was reached."""
        self._next = FIRST

    def most(self) -> None:
        """Makes the next pause the longest."""
        self._next = MOST

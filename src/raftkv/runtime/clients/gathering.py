"""When a batch leaves: with the first commands that come, or a moment later with all that are about to come.

Clients that were answered together write again together. A batch that left with the first few of them would make all
the others wait for a whole round, and two half batches cost nearly twice as much as one whole. So once nothing is under
way, the next batch waits until as many commands have come as the last round had clients, but only while more of them
keep coming: the third pass of the event loop in which none came ends it, some ten microseconds. A lone client, and one
whose companions have gone, waits for nobody. What it is worth is in docs/design/performance.md.
"""

from __future__ import annotations

IDLE_PASSES_MAX = 2
"""Of the event loop, without a new command, that are waited for: in each, all sockets with something are read."""
PASSES_MAX = 30
"""However they trickle in."""
WAIT_MAX_S = 0.005
"""Or less than so many passes, when each is long because of what else the loop has to do. Reading 256 takes 3 ms."""


class Gathering:
    """Asked once in each pass of the event loop in which a batch might leave."""

    __slots__ = ("_expected_count", "_idle_count", "_pass_count", "_seen_count", "_started_s")

    def __init__(self) -> None:
        self._expected_count = 0
        self._seen_count = 0
        self._idle_count = 0
        self._pass_count = 0
        self._started_s = 0.0

    def expect(self, count: int) -> None:
        """So many clients took part in the round that ends: they are answered now, or wait already."""
        self._expected_count = count

    def should_wait(self, waiting_count: int, now_s: float) -> bool:
        """Whether to ask again in the loop's next pass instead of letting these commands go."""
        if waiting_count >= self._expected_count or self._pass_count == PASSES_MAX:
            return self._end()
        if self._pass_count == 0:
            self._started_s = now_s
        elif now_s - self._started_s >= WAIT_MAX_S:
            return self._end()
        self._pass_count += 1
        if waiting_count > self._seen_count:
            self._seen_count = waiting_count
            self._idle_count = 0
        else:
            self._idle_count += 1
            if self._idle_count > IDLE_PASSES_MAX:
                return self._end()
        return True

    def _end(self) -> bool:
        self._seen_count = self._idle_count = self._pass_count = 0
        return False

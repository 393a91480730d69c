"""Ticks for the core, and a watch on the loop that makes them.

Ticks are counted from a clock, not from how often a timer fired: after a pause (SIGSTOP, a machine that slept) the
core must learn how long it really slept, or a leader would believe in a lease that others have long forgotten
(tikv#1593). What a hypervisor hides from its guest's clocks cannot be seen from here; so leases are an opt-in.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def elapsed_seconds() -> float:
    """Since some moment in the past, sleep of the machine included; Linux leaves that out of `time.monotonic`."""
    return time.clock_gettime(_CLOCK)


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class TickClock:
    """Turns elapsed time into ticks. `pause_s`: a gap that long counts as a pause of the process."""

    __slots__ = ("_interval_s", "_last_s", "longest_stall_s", "now", "on_pause", "pause_s", "stall_count")

    def __init__(
        self,
        interval_s: float,
        pause_s: float,
        on_pause: Callable[[float], None],
        now: Callable[[], float] = elapsed_seconds,
    ) -> None:
        self._interval_s = interval_s
        self.pause_s = pause_s
        self.on_pause = on_pause
        self.now = now
        self._last_s = now()
        self.longest_stall_s = 0.0
        self.stall_count = 0

    def is_paused(self) -> bool:
        """True when the process has not ticked for so long that it must have been stopped."""
        return self.now() - self._last_s > self.pause_s

    def advance(self) -> int:
        """Whole ticks since the last call; 0 when it was called again within one."""
        elapsed_s = self.now() - self._last_s
        ticks = int(elapsed_s / self._interval_s)
        if ticks:
            self._last_s += ticks * self._interval_s
        if elapsed_s > self.pause_s:
            self.on_pause(elapsed_s)
        return ticks

    def observe_lateness(self, lateness_s: float) -> None:
        """How late the tick timer fired: the time for which something else held the loop."""
        if lateness_s > 0.05:
            self.stall_count += 1
        self.longest_stall_s = max(self.longest_stall_s, lateness_s)

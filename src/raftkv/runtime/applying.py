"""Committed entries on their way into the state: at once, deferred, or held.

- *At once* where somebody waits: on the leader, for whose clients the results are, and on a follower of which a client
  waits for a write or a read.
- *Deferred*, by at most `DEFER_S` unless it is held, on a follower that nobody waits for: several entries written to
  the state as one batch cost little more than one (docs/design/performance.md). A local read there, which may be stale
  anyway, is older by that much.
- *Held* between `hold` and `resume`, while the state must not change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.types import Entry, EntryKind

DEFER_S = 0.01
APPLY_MAX_BYTES = 256 << 10
"""Of data in one batch, if it is of several entries: bounds the memory of a batch, and what is deferred."""


class Applying:
    """The order of entries is kept, whatever their way. For the loop's thread."""

    __slots__ = ("_apply", "_bytes_count", "_call_later", "_is_awaited", "_is_held", "_timer", "_waiting", "_when_due")

    def __init__(
        self,
        apply: Callable[[list[Entry]], None],
        is_awaited: Callable[[], bool],
        when_due: Callable[[], None],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
    ) -> None:
        """`when_due` is called after the deferral and has to call `apply_now`. What `apply` raises comes through."""
        self._apply = apply
        self._is_awaited = is_awaited
        self._when_due = when_due
        self._call_later = call_later
        self._waiting: list[Entry] = []
        self._bytes_count = 0
        self._is_held = False
        self._timer: asyncio.TimerHandle | None = None

    def take(self, entries: list[Entry]) -> None:
        """Apply `entries`, which follow what was taken before, now or later."""
        if not self._waiting and not self._is_held and self._is_wanted_now(entries):
            self._apply(entries)
            return
        self._waiting += entries
        self._bytes_count += sum(len(entry.data) for entry in entries)
        if self._bytes_count >= APPLY_MAX_BYTES or self._is_wanted_now(entries):
            self.apply_now()
        elif self._timer is None:
            self._timer = self._call_later(DEFER_S, self._when_due)

    def apply_now(self) -> None:
        """Somebody waits, or the time is over. Nothing happens while entries are held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_held or not self._waiting:
            return
        waiting, self._waiting, self._bytes_count = self._waiting, [], 0
        first = size_bytes = 0
        for position, entry in enumerate(waiting):
            if position > first and size_bytes + len(entry.data) > APPLY_MAX_BYTES:
                self._apply(waiting[first:position])
                first, size_bytes = position, 0
            size_bytes += len(entry.data)
        self._apply(waiting[first:])

    def hold(self) -> None:
        """Keep the state as it is until `resume`."""
        self._is_held = True

    def resume(self) -> None:
        self._is_held = False
        self.apply_now()

    def close(self) -> None:
        """Nothing is applied any more; what waits is in the log."""
        self._waiting = []
        self._bytes_count = 0
        self.apply_now()

    def _is_wanted_now(self, entries: list[Entry]) -> bool:
        # Whoever changes the configuration waits for it, on any member.
        return self._is_awaited() or any(entry.kind is EntryKind.CONFIGURATION for entry in entries)

"""The log as the core sees it: what storage holds durably, plus a tail in memory (Raft §5.3).

The tail holds every entry that is not durable yet and, while they fit in `tail_max_bytes`, the newest durable
ones, so that followers that are nearly up to date cost no disk read. Everything at or below
`persisted_index` is equal in core and storage; storage is asked only there, so what it still holds of a
truncated suffix is never seen.

Durability comes back as *tickets*, not as indexes. Suppose entries 5-7 of an old leader are being written
when a new leader's entry 5 replaces them. "Durable up to 7" would be a lie about the new entries; "step 3 is
durable" is not, because truncation lowered what step 3 may still claim (`_Step.last_index`).

Turned down: keeping the whole log in memory with storage as a backup. It makes memory the limit of how long
a follower may be away, and a second copy of every truncation rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from raftkv.errors import require
from raftkv.types import Entry, HardState, SnapshotMetadata

ENTRY_OVERHEAD_BYTES = 64
"""What an entry costs beside its data, so that windows and caches also bound the number of tiny entries."""


class LogStorage(Protocol):
    """What is durable of one server. Read by the core, written only by the driver."""

    @property
    def hard_state(self) -> HardState: ...
    @property
    def base(self) -> SnapshotMetadata:
        """What was cut off or replaced by a snapshot; entries start at `base.last_index` + 1."""
        ...

    @property
    def last_index(self) -> int: ...
    def term(self, index: int) -> int:
        """For `base.last_index` <= index <= `last_index`."""
        ...

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """From `first`, both ends included; stops before `max_bytes` but always gives at least one."""
        ...

    def configurations(self) -> list[Entry]:
        """The CONFIGURATION entries present in the log, ascending."""
        ...


class _Step:
    """Handed out to be written under `ticket`; once durable, entries up to `last_index` are."""

    __slots__ = ("last_index", "ticket")

    def __init__(self, ticket: int, last_index: int) -> None:
        self.ticket = ticket
        self.last_index = last_index


class RaftLog:
    """Indexes: base_index <= persisted_index <= handed_index <= last_index, save while a reset is being written."""

    __slots__ = (
        "_steps",
        "_storage",
        "_tail",
        "_tail_bytes",
        "_tail_first",
        "_tail_max_bytes",
        "base_index",
        "base_term",
        "handed_index",
        "last_index",
        "last_term",
        "last_ticket",
        "persisted_index",
        "persisted_ticket",
        "reset_to",
    )

    def __init__(self, storage: LogStorage, tail_max_bytes: int) -> None:
        self._storage = storage
        self._tail: list[Entry] = []
        self._tail_first = storage.last_index + 1
        self._tail_bytes = 0
        self._tail_max_bytes = tail_max_bytes
        self.base_index = storage.base.last_index
        self.base_term = storage.base.last_term
        self.last_index = storage.last_index
        self.last_term = storage.term(self.last_index)
        self.handed_index = self.last_index
        """Up to here the driver was given the entries to write."""
        self.persisted_index = self.last_index
        self._steps: deque[_Step] = deque()
        self.last_ticket = 0
        self.persisted_ticket = 0
        self.reset_to: SnapshotMetadata | None = None
        """A snapshot that replaced the log and was not handed out yet."""

    # Reading

    def term(self, index: int) -> int:
        """For base_index <= index <= last_index."""
        offset = index - self._tail_first
        if offset >= 0:
            return self._tail[offset].term
        if index == self.base_index:
            return self.base_term
        return self._storage.term(index)

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Is a log that ends there at least as up to date as this one? (Raft §5.4.1)"""
        if last_log_term != self.last_term:
            return last_log_term > self.last_term
        return last_log_index >= self.last_index

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """At least `first`, at most up to `last`: fewer when `max_bytes` or the edge of the tail comes before."""
        offset = first - self._tail_first
        if offset < 0:
            return self._storage.entries(first, min(last, self._tail_first - 1), max_bytes)
        tail = self._tail
        stop = last - self._tail_first + 1
        if stop - offset > 1:
            size_bytes = 0
            for position in range(offset, stop):
                size_bytes += len(tail[position].data) + ENTRY_OVERHEAD_BYTES
                if size_bytes > max_bytes and position > offset:
                    stop = position
                    break
        return tail[offset:stop]

    def find_agreement(self, index: int, term: int) -> int:
        """The largest index at or below `index` whose term is at or below `term`; base_index - 1 for none.

        Terms never fall along a log, so this is a binary search even through a long stretch of one
        term (the "optimisation" at the end of Raft §5.3 skips one term a message).
        """
        low, high = self.base_index - 1, min(index, self.last_index)
        while low < high:
            middle = (low + high + 1) // 2
            if self.term(middle) <= term:
                low = middle
            else:
                high = middle - 1
        return low

    # Writing

    def append(self, entries: Sequence[Entry]) -> None:
        """`entries` continue the log."""
        self._tail.extend(entries)
        self.last_index += len(entries)
        self.last_term = entries[-1].term
        self._tail_bytes += size_bytes(entries)

    def truncate_from(self, index: int, commit_index: int) -> None:
        """Drop `index` and everything behind it."""
        require(index > commit_index, "truncation from {} would drop committed entries up to {}", index, commit_index)
        offset = index - self._tail_first
        if offset >= 0:
            self._tail_bytes -= size_bytes(self._tail[offset:])
            del self._tail[offset:]
        else:
            self._clear_tail(index)
        self.last_index = index - 1
        self.last_term = self.term(self.last_index)
        self.handed_index = min(self.handed_index, index - 1)
        self._forget_persisted_above(index - 1)

    def reset(self, snapshot: SnapshotMetadata, commit_index: int) -> None:
        """Replace the whole log by a snapshot that is ahead of `commit_index` (Raft §7)."""
        self._clear_tail(snapshot.last_index + 1)
        self.base_index = self.last_index = self.handed_index = snapshot.last_index
        self.base_term = self.last_term = snapshot.last_term
        # Only what was committed is known to agree with the snapshot, until the reset itself is durable.
        self._forget_persisted_above(commit_index)
        self.reset_to = snapshot

    def compact(self) -> None:
        """Storage moved its base; a reset that is still being written is ahead of it."""
        base = self._storage.base
        if base.last_index <= self.base_index:
            return
        self.base_index = base.last_index
        self.base_term = base.last_term
        self._drop_front(base.last_index + 1 - self._tail_first)

    def _clear_tail(self, first: int) -> None:
        self._tail.clear()
        self._tail_bytes = 0
        self._tail_first = first

    def _forget_persisted_above(self, index: int) -> None:
        self.persisted_index = min(self.persisted_index, index)
        for step in self._steps:
            step.last_index = min(step.last_index, index)

    # Durability

    @property
    def has_unwritten(self) -> bool:
        return self.handed_index < self.last_index or self.reset_to is not None

    def take_unwritten(self) -> list[Entry]:
        """Entries that no step carries yet."""
        if self.handed_index == self.last_index:
            return []
        entries = self._tail[self.handed_index + 1 - self._tail_first :]
        self.handed_index = self.last_index
        return entries

    def take_reset(self) -> SnapshotMetadata | None:
        snapshot, self.reset_to = self.reset_to, None
        return snapshot

    def open_step(self) -> int:
        """The ticket for what was just taken."""
        self.last_ticket += 1
        self._steps.append(_Step(self.last_ticket, self.handed_index))
        return self.last_ticket

    @property
    def oldest_unpersisted_ticket(self) -> int:
        return self._steps[0].ticket if self._steps else 0

    def mark_persisted(self, ticket: int) -> None:
        """Everything up to step `ticket` is durable."""
        require(ticket <= self.last_ticket, "step {} reported durable, but only {} exist", ticket, self.last_ticket)
        steps = self._steps
        while steps and steps[0].ticket <= ticket:
            step = steps.popleft()
            self.persisted_ticket = step.ticket
            self.persisted_index = max(self.persisted_index, step.last_index)
        if self._tail_bytes > self._tail_max_bytes:
            self._shrink_tail()

    def _shrink_tail(self) -> None:
        """Down to three quarters, so that the cost of cutting a list at its front is spread over many entries."""
        durable_count = self.persisted_index + 1 - self._tail_first
        excess_bytes = self._tail_bytes - self._tail_max_bytes * 3 // 4
        count = 0
        while count < durable_count and excess_bytes > 0:
            excess_bytes -= len(self._tail[count].data) + ENTRY_OVERHEAD_BYTES
            count += 1
        self._drop_front(count)

    def _drop_front(self, count: int) -> None:
        count = min(count, len(self._tail))
        if count > 0:
            self._tail_bytes -= size_bytes(self._tail[:count])
            del self._tail[:count]
            self._tail_first += count

    def tail(self) -> tuple[int, list[Entry], int]:
        """(first index, entries, bytes) for the deep invariants."""
        return self._tail_first, self._tail, self._tail_bytes


def size_bytes(entries: Sequence[Entry]) -> int:
    total = ENTRY_OVERHEAD_BYTES * len(entries)
    for entry in entries:
        total += len(entry.data)
    return total

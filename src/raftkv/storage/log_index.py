"""Where each entry of the log is on disk, and what the log as a whole says: hard state and base.

Twenty bytes an entry, in arrays: a list of Python objects would take ten times that, and a node may hold a million
entries for slow followers. Holds only what is durable; it changes after each sync.

Invariant, outside of recovery: `first_index == base.last_index + 1` and entries are contiguous up to `last_index`.
During recovery entries between the base and `first_index` may be missing, because their segments were removed when
a later base record allowed it; `recovery` checks at the end that this base came.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from raftkv.errors import require
from raftkv.storage.record import ENTRY_FIXED_SIZE_BYTES, HEAD
from raftkv.types import EntryKind, HardState, SnapshotMetadata

_OFFSET_BITS = 32
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1


def pack_position(sequence: int, offset: int) -> int:
    """A segment's sequence number and an offset in it as one number, ascending in the order of writing."""
    return sequence << _OFFSET_BITS | offset


class Run(NamedTuple):
    """Neighbouring entries of one segment, to be read at once: `size_bytes` from `offset`."""

    sequence: int
    offset: int
    size_bytes: int
    entry_offsets: list[int]


class LogIndex:
    """See the module. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_lengths", "_positions", "_terms", "base", "configuration_indexes", "first_index", "hard_state")

    def __init__(self, base: SnapshotMetadata, hard_state: HardState, first_index: int) -> None:
        self.base = base
        self.hard_state = hard_state
        self.first_index = first_index
        self.configuration_indexes: list[int] = []
        self._positions = array("Q")
        self._lengths = array("I")
        self._terms = array("Q")

    @property
    def last_index(self) -> int:
        return self.first_index + len(self._terms) - 1

    def term(self, index: int) -> int:
        """Of an entry, or of the base itself."""
        at = index - self.first_index
        if 0 <= at < len(self._terms):
            return self._terms[at]
        require(index == self.base.last_index, "term of entry {} is not in the log", index)
        return self.base.last_term

    def oldest_sequence(self) -> int | None:
        """The segment of the first entry; None without entries."""
        return self._positions[0] >> _OFFSET_BITS if self._positions else None

    def first_behind(self, position: int) -> int:
        """The lowest index whose entry stands at `position` or behind it; `last_index + 1` when there is none."""
        return self.first_index + bisect.bisect_left(self._positions, position)

    def append(self, index: int, term: int, kind: int, position: int, length: int) -> None:
        """`length` is that of the record's payload."""
        if kind == EntryKind.CONFIGURATION:
            self.configuration_indexes.append(index)
        self._positions.append(position)
        self._lengths.append(length)
        self._terms.append(term)

    def truncate(self, last_index: int) -> None:
        """Forget the entries after `last_index`."""
        keep = max(last_index + 1 - self.first_index, 0)
        del self._positions[keep:], self._lengths[keep:], self._terms[keep:]
        self.first_index = min(self.first_index, last_index + 1)
        del self.configuration_indexes[bisect.bisect_right(self.configuration_indexes, last_index) :]

    def cut(self, base: SnapshotMetadata) -> None:
        """Forget the entries up to `base`; nothing happens when the base is already there or further."""
        if base.last_index <= self.base.last_index:
            return
        self.base = base
        drop = max(base.last_index + 1 - self.first_index, 0)
        del self._positions[:drop], self._lengths[:drop], self._terms[:drop]
        self.first_index = max(self.first_index, base.last_index + 1)
        del self.configuration_indexes[: bisect.bisect_right(self.configuration_indexes, base.last_index)]

    def reset(self, base: SnapshotMetadata) -> None:
        self.base = base
        self.first_index = base.last_index + 1
        self.configuration_indexes.clear()
        del self._positions[:], self._lengths[:], self._terms[:]

    def runs(self, first: int, last: int, max_bytes: int) -> Iterator[Run]:
        """Where entries `first` to `last` are: as many as have `max_bytes` of data together, at least one."""
        run: Run | None = None
        stop = 0
        for at in range(first - self.first_index, last - self.first_index + 1):
            position, length = self._positions[at], self._lengths[at]
            max_bytes -= length - ENTRY_FIXED_SIZE_BYTES
            if max_bytes < 0 and run is not None:
                break
            sequence, offset = position >> _OFFSET_BITS, position & _OFFSET_MASK
            size = HEAD.size + length
            # Other records may stand between two entries; a long gap (truncated entries) is not worth reading.
            if run is not None and run.sequence == sequence and offset - stop <= run.size_bytes + size:
                run.entry_offsets.append(offset)
                run = run._replace(size_bytes=offset + size - run.offset)
            else:
                if run is not None:
                    yield run
                run = Run(sequence, offset, size, [offset])
            stop = offset + size
        if run is not None:
            yield run

"""Turns steps into bursts of bytes with a place on disk. Pure: does no input or output and knows no thread.

A burst is everything that is queued and fits: its records are encoded for the place where they will stand, written
with one call and made durable by one sync. A step never spans two bursts, nor a burst two segments, so a step is on
disk as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from raftkv.errors import require
from raftkv.storage.log_index import pack_position
from raftkv.storage.record import (
    BURST_SIZE_BYTES,
    ENTRY_HEAD_SIZE_BYTES,
    MAX_BURST_BYTES,
    RecordType,
    encode_burst,
    encode_entry_head,
    encode_hard_state,
    encode_index,
    encode_record,
)
from raftkv.storage.segment import FORMAT_VERSION, Segment, SegmentHeader, encode_header, encode_metadata
from raftkv.types import Entry, HardState, SnapshotMetadata

_BURST_TARGET_BYTES = 4 << 20
"""No more steps join a burst beyond this, so that the first one need not wait for the last one's bytes."""


class WalStep(NamedTuple):
    """What becomes durable together, carried out in the order of the fields.

    `reset` empties the log; it then begins behind that snapshot. `entries` are contiguous; when the first is not
    behind the log's last entry, the log is truncated from there on first (Raft §5.3). `cut` allows everything up
    to it to be removed; only the log's own `compact` uses it. Must not be changed once it was written.
    """

    reset: SnapshotMetadata | None = None
    hard_state: HardState | None = None
    entries: Sequence[Entry] = ()
    cut: SnapshotMetadata | None = None


class Appended(NamedTuple):
    entries: Sequence[Entry]
    positions: list[int]


class Truncated(NamedTuple):
    last_index: int


class Reset(NamedTuple):
    base: SnapshotMetadata


class Cut(NamedTuple):
    base: SnapshotMetadata


Change: TypeAlias = Appended | Truncated | Reset | Cut | HardState
"""What a burst does to the index once it is durable."""

NumberedStep: TypeAlias = tuple[int, WalStep]


class Burst(NamedTuple):
    """Bytes for `offset` of `segment`; `last_step` is the highest step number in it, 0 for none."""

    segment: Segment
    offset: int
    data: bytes
    changes: list[Change]
    last_step: int
    record_count: int


@dataclasses.dataclass(slots=True)
class Tail:
    """Where the log ends, as written (not yet: as durable). The next burst begins at `offset` of `segment`."""

    segment: Segment
    offset: int
    next_burst_number: int
    base: SnapshotMetadata
    hard_state: HardState
    last_index: int
    previous_stop_offset: int = 0


class _Encoded(NamedTuple):
    parts: list[bytes]
    stop_offset: int
    changes: list[Change]
    record_count: int


class LogWriter:
    """One thread at a time. After a failed write or sync it must not be used again: it would leave a hole."""

    __slots__ = ("tail",)

    def __init__(self, tail: Tail) -> None:
        self.tail = tail

    def start_segment(self, segment: Segment) -> None:
        """Later bursts go to `segment`. Everything before must be durable: scan.py relies on it."""
        tail = self.tail
        require(segment.sequence == tail.segment.sequence + 1, "segment {} is not the next one", segment.sequence)
        tail.previous_stop_offset = tail.offset
        tail.segment = segment
        tail.offset = 0

    def take(self, steps: deque[NumberedStep]) -> Burst | None:
        """The next burst, of as many steps from the left of `steps` as fit; those are removed from it.

        None, with nothing removed, when not even the first fits: give a segment with `start_segment`, of at least
        `needed_bytes`, and ask again. Without steps: a burst that only proves that what is before it was durable.
        """
        tail = self.tail
        segment = tail.segment
        start = tail.offset
        stop = start + BURST_SIZE_BYTES
        parts: list[bytes] = [b""]
        changes: list[Change] = []
        record_count = 0
        last_step = 0
        if start == 0:
            parts.append(self._segment_record(segment, stop))
            stop += len(parts[1])
        if stop > segment.size_bytes:
            return None
        while steps and stop - start < _BURST_TARGET_BYTES:
            number, step = steps[0]
            encoded = self._encode(step, segment.sequence, stop)
            if encoded.stop_offset > segment.size_bytes:
                break
            steps.popleft()
            parts += encoded.parts
            changes += encoded.changes
            record_count += encoded.record_count
            stop = encoded.stop_offset
            last_step = number
            self._move_tail(step)
        if steps and not last_step:
            return None
        parts[0] = encode_burst(segment.sequence, start, tail.next_burst_number, stop - start)
        tail.next_burst_number += 1
        tail.offset = stop
        return Burst(segment, start, b"".join(parts), changes, last_step, record_count)

    def needed_bytes(self, step: WalStep) -> int:
        """The size of the smallest segment that takes `step` as its first."""
        header = self._segment_record(self.tail.segment, 0)
        size = BURST_SIZE_BYTES + len(header) + 64  # its integers may be longer in the next segment
        stop = self._encode(step, 0, size).stop_offset
        require(stop <= MAX_BURST_BYTES, "a log step of {} bytes", stop)
        return stop

    def _segment_record(self, segment: Segment, offset: int) -> bytes:
        tail = self.tail
        header = SegmentHeader(
            FORMAT_VERSION,
            segment.sequence,
            segment.size_bytes,
            tail.previous_stop_offset,
            tail.base,
            tail.hard_state,
            tail.last_index,
        )
        return encode_record(segment.sequence, offset, RecordType.SEGMENT, encode_header(header))

    def _encode(self, step: WalStep, sequence: int, offset: int) -> _Encoded:
        parts: list[bytes] = []
        changes: list[Change] = []
        last_index = self.tail.last_index

        def add(record_type: RecordType, payload: bytes, change: Change) -> None:
            nonlocal offset
            record = encode_record(sequence, offset, record_type, payload)
            parts.append(record)
            offset += len(record)
            changes.append(change)

        if step.reset is not None:
            add(RecordType.RESET, encode_metadata(step.reset), Reset(step.reset))
            last_index = step.reset.last_index
        if (state := step.hard_state) is not None:
            add(RecordType.HARD_STATE, encode_hard_state(state.current_term, state.voted_for), state)
        record_count = len(parts)
        if entries := step.entries:
            if (keep := entries[0].index - 1) < last_index:
                add(RecordType.TRUNCATE, encode_index(keep), Truncated(keep))
            record_count = len(parts) + len(entries)
            positions = []
            for entry in entries:
                positions.append(pack_position(sequence, offset))
                parts.append(encode_entry_head(sequence, offset, entry))
                parts.append(entry.data)
                offset += ENTRY_HEAD_SIZE_BYTES + len(entry.data)
            changes.append(Appended(entries, positions))
        if step.cut is not None and step.cut.last_index > self.tail.base.last_index:
            add(RecordType.BASE, encode_metadata(step.cut), Cut(step.cut))
            record_count += 1
        return _Encoded(parts, offset, changes, record_count)

    def _move_tail(self, step: WalStep) -> None:
        tail = self.tail
        if step.reset is not None:
            tail.base = step.reset
            tail.last_index = step.reset.last_index
        if step.hard_state is not None:
            tail.hard_state = step.hard_state
        if step.entries:
            tail.last_index = step.entries[-1].index
        if step.cut is not None and step.cut.last_index > tail.base.last_index:
            tail.base = step.cut

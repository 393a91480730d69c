"""Reads one segment burst by burst and, where that ends, tells why: the end, a torn write, or damage.

A *burst* is what one sync covers: everything that was queued, written at once. Bursts follow each other without a
gap into zeros that were synced before, and a burst is written only after the one before it is durable. So a crash
leaves every burst whole except perhaps the last, of which any sectors may be missing, in any order (zeros in their
place). Hence, for the first burst that is not whole:

- its first record is whole, so its end is known: any byte other than zero behind that end was written by a later
  burst, which proves that this one had been durable: damage;
- its first record is not whole: the first record of a later burst, found by its magic and valid at its place, proves
  the same: damage;
- neither: the burst is torn. Nothing of it was ever acknowledged.

What no log can tell: whether bytes of the very last burst went bad *after* its sync, when nothing was written behind
it. An orderly stop and every start write an empty burst behind the last one, so only a burst that was the
last one when the process was killed, and went bad before it was started again, is cut by mistake.
Burst numbers begin at a random number, so nobody can store a value that looks like a later burst.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from raftkv.storage.record import (
    BURST_SIZE_BYTES,
    MAGIC,
    MAGIC_OFFSET_BYTES,
    BadRecord,
    Record,
    RecordType,
    decode_burst,
    decode_record,
)

_CHUNK_SIZE_BYTES = 1 << 16
_ZERO_CHUNK = bytes(_CHUNK_SIZE_BYTES)
_ZERO_BURST = bytes(BURST_SIZE_BYTES)


class ScannedBurst(NamedTuple):
    """A whole burst. `records` leaves out the burst record itself; it is empty for a burst that only proves."""

    offset: int
    number: int
    length_bytes: int
    records: list[Record]


class Damage(NamedTuple):
    """The first place that is not as it was written. `burst_offset` is where its burst begins."""

    offset: int
    burst_offset: int
    problem: str
    is_torn: bool
    """As far as this segment tells; bytes in a later segment prove the contrary."""


def first_written(data: bytes, start: int) -> int:
    """The offset of the first byte at or after `start` that is not zero, -1 when there is none."""
    for at in range(start, len(data), _CHUNK_SIZE_BYTES):
        chunk = data[at : at + _CHUNK_SIZE_BYTES]
        if chunk != _ZERO_CHUNK[: len(chunk)]:
            return at + len(chunk) - len(chunk.lstrip(b"\0"))
    return -1


def written_stop(data: bytes) -> int:
    """The offset behind the last byte that is not zero."""
    stop = len(data)
    while stop > 0:
        start = max(stop - _CHUNK_SIZE_BYTES, 0)
        chunk = data[start:stop].rstrip(b"\0")
        if chunk:
            return start + len(chunk)
        stop = start
    return 0


class SegmentScan:
    """Iterate over `bursts` to the end; then `stop_offset` and `damage` tell where and why it ended."""

    def __init__(self, sequence: int, data: bytes) -> None:
        self.sequence = sequence
        self.data = data
        self.stop_offset = 0
        """Behind the last whole burst."""
        self.damage: Damage | None = None

    def bursts(self, expected_number: int | None = None) -> Iterator[ScannedBurst]:
        """All whole bursts in order. Without `expected_number` the first burst may have any number."""
        while self.damage is None:
            at = self.stop_offset
            if self._is_end(at):
                return
            burst = self._read_burst(at, expected_number)
            if burst is None:
                return
            expected_number = burst.number + 1
            self.stop_offset = at + burst.length_bytes
            yield burst

    def _is_end(self, at: int) -> bool:
        data = self.data
        return data[at : at + BURST_SIZE_BYTES] == _ZERO_BURST[: len(data) - at] and first_written(data, at) < 0

    def _read_burst(self, at: int, expected_number: int | None) -> ScannedBurst | None:
        data = self.data
        try:
            first = decode_record(data, at, len(data), self.sequence)
            number, length_bytes = decode_burst(first)
        except BadRecord as error:
            self.damage = Damage(at, at, str(error), is_torn=not self._has_later_burst(at))
            return None
        stop = at + length_bytes
        if expected_number is not None and number != expected_number:
            self.damage = Damage(at, at, f"burst {number} where {expected_number} belongs", is_torn=False)
            return None
        if stop > len(data) or length_bytes < BURST_SIZE_BYTES:
            self.damage = Damage(at, at, "the burst is longer than the file", is_torn=False)
            return None
        records = []
        record = first
        while record.stop_offset < stop:
            try:
                record = decode_record(data, record.stop_offset, stop, self.sequence)
            except BadRecord as error:
                is_torn = first_written(data, stop) < 0
                self.damage = Damage(record.stop_offset, at, str(error), is_torn)
                return None
            records.append(record)
        return ScannedBurst(at, number, length_bytes, records)

    def _has_later_burst(self, after: int) -> bool:
        """Whether the first record of any burst stands, valid, behind `after`."""
        data = self.data
        magic_at = data.find(MAGIC, after + MAGIC_OFFSET_BYTES + 1)
        while magic_at >= 0:
            try:
                record = decode_record(data, magic_at - MAGIC_OFFSET_BYTES, len(data), self.sequence)
            except BadRecord:
                pass
            else:
                if record.type == RecordType.BURST:
                    return True
            magic_at = data.find(MAGIC, magic_at + 1)
        return False

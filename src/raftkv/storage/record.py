"""One record of the log: how it is laid out, and how it is told from damage.

    length u32 | crc32c u32 | type u8 | group u32 | payload (length bytes)          little-endian, not aligned

The checksum covers everything but itself **and the place**: the segment's sequence number and the record's offset go
into it first. A record is therefore valid only where it was written, and a block that the disk put elsewhere, an
old copy of a segment under a new name, or bytes left over from earlier use never pass for a record.

`group` is the Raft group; it is 0 as long as a node has one group.

Turned down: chaining each checksum to the one before (etcd). It finds the same damage when the log is read from
its beginning, but then no single entry can be verified when it is read for a slow follower.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

import google_crc32c

from raftkv.types import Entry, EntryKind


class RecordType(enum.IntEnum):
    """What a record's payload is. 0 is no type, so that zeros are no record."""

    BURST = 1
    """First in every burst (all that one sync covers): magic, burst number u64, burst length in bytes u32."""
    SEGMENT = 2
    """Second in a segment: where the log stands when the segment begins (`segment.SegmentHeader`)."""
    ENTRY = 3
    """index u64, term u64, kind u8, data."""
    HARD_STATE = 4
    """current_term u64, voted_for u64."""
    TRUNCATE = 5
    """The log's new last index u64: later entries were in conflict with the leader's and are gone (Raft §5.3)."""
    BASE = 6
    """`SnapshotMetadata`: entries up to it are no longer needed."""
    RESET = 7
    """`SnapshotMetadata`: the log is empty and begins behind it (Raft §7, figure 13 step 7)."""


HEAD = struct.Struct("<IIBI")
_PLACE = struct.Struct("<QQIBI")
_ENTRY = struct.Struct("<QQB")
_ENTRY_HEAD = struct.Struct("<IIBIQQB")
_ENTRY_PLACE = struct.Struct("<QQIBIQQB")
_HARD_STATE = struct.Struct("<QQ")
_INDEX = struct.Struct("<Q")
_BURST = struct.Struct("<8sQI")

MAGIC = b"raftkvW\x01"
ENTRY_HEAD_SIZE_BYTES = _ENTRY_HEAD.size
ENTRY_FIXED_SIZE_BYTES = _ENTRY.size
"""An entry's payload is this much longer than its data."""
BURST_SIZE_BYTES = HEAD.size + _BURST.size
MAGIC_OFFSET_BYTES = HEAD.size
"""Where `MAGIC` stands in a burst record."""
MAX_BURST_BYTES = 2**32 - 1

_crc_of = google_crc32c.value
_crc_extend = google_crc32c.extend
_ENTRY_TYPE = int(RecordType.ENTRY)
_KINDS = {int(kind): kind for kind in EntryKind}


class Record(NamedTuple):
    """A verified record: it begins at `offset` of its segment."""

    offset: int
    type: int
    group: int
    payload: bytes

    @property
    def stop_offset(self) -> int:
        return self.offset + HEAD.size + len(self.payload)


class BadRecord(Exception):
    """Not a valid record. Stays inside the room, which turns it into `CorruptData` with the file's name."""


def encode_record(sequence: int, offset: int, record_type: RecordType, payload: bytes, group: int = 0) -> bytes:
    crc = _crc_extend(_crc_of(_PLACE.pack(sequence, offset, len(payload), record_type, group)), payload)
    return HEAD.pack(len(payload), crc, record_type, group) + payload


def encode_entry_head(sequence: int, offset: int, entry: Entry, group: int = 0) -> bytes:
    """All of the entry's record but its data, which follows and is not copied here."""
    data = entry.data
    length = ENTRY_FIXED_SIZE_BYTES + len(data)
    index, term, kind = entry.index, entry.term, entry.kind
    crc = _crc_of(_ENTRY_PLACE.pack(sequence, offset, length, _ENTRY_TYPE, group, index, term, kind))
    return _ENTRY_HEAD.pack(length, _crc_extend(crc, data), _ENTRY_TYPE, group, index, term, kind)


def decode_entry(data: bytes, at: int, sequence: int, offset: int) -> Entry:
    """The verified entry whose record begins at `data[at]` and at `offset` of its segment."""
    if at + ENTRY_HEAD_SIZE_BYTES > len(data):
        raise BadRecord("the file ends inside the record")
    length, crc, record_type, group, index, term, kind = _ENTRY_HEAD.unpack_from(data, at)
    content = data[at + ENTRY_HEAD_SIZE_BYTES : at + HEAD.size + length]
    expected = _crc_of(_ENTRY_PLACE.pack(sequence, offset, length, record_type, group, index, term, kind))
    if record_type != _ENTRY_TYPE or _crc_extend(expected, content) != crc:
        raise BadRecord("checksum of the entry does not match")
    return Entry(index, term, _KINDS[kind], content)


def decode_record(data: bytes, at: int, stop: int, sequence: int) -> Record:
    """The verified record at `data[at]`, where `data` is the segment from its beginning; it must end by `stop`."""
    if at + HEAD.size > stop:
        raise BadRecord("no room for a record")
    length, crc, record_type, group = HEAD.unpack_from(data, at)
    payload_at = at + HEAD.size
    if payload_at + length > stop:
        raise BadRecord("the length points behind the end")
    payload = data[payload_at : payload_at + length]
    if _crc_extend(_crc_of(_PLACE.pack(sequence, at, length, record_type, group)), payload) != crc:
        raise BadRecord("checksum does not match")
    return Record(at, record_type, group, payload)


def encode_burst(sequence: int, offset: int, number: int, length_bytes: int) -> bytes:
    return encode_record(sequence, offset, RecordType.BURST, _BURST.pack(MAGIC, number, length_bytes))


def decode_burst(record: Record) -> tuple[int, int]:
    """The burst's number and its length in bytes, this record included."""
    if record.type != RecordType.BURST or len(record.payload) != _BURST.size:
        raise BadRecord("not the beginning of a burst")
    magic, number, length_bytes = _BURST.unpack(record.payload)
    if magic != MAGIC:
        raise BadRecord("not the beginning of a burst of this format")
    return number, length_bytes


def encode_hard_state(current_term: int, voted_for: int) -> bytes:
    return _HARD_STATE.pack(current_term, voted_for)


def decode_hard_state(payload: bytes) -> tuple[int, int]:
    """current_term, voted_for."""
    if len(payload) != _HARD_STATE.size:
        raise BadRecord("a hard state of the wrong size")
    current_term, voted_for = _HARD_STATE.unpack(payload)
    return current_term, voted_for


def encode_index(index: int) -> bytes:
    return _INDEX.pack(index)


def decode_index(payload: bytes) -> int:
    if len(payload) != _INDEX.size:
        raise BadRecord("an index of the wrong size")
    index: int = _INDEX.unpack(payload)[0]
    return index


def decode_entry_place(payload: bytes) -> tuple[int, int, int]:
    """index, term, kind of an entry record's payload."""
    if len(payload) < _ENTRY.size or payload[_ENTRY.size - 1] not in _KINDS:
        raise BadRecord("an entry without index, term and a known kind")
    index, term, kind = _ENTRY.unpack_from(payload)
    return index, term, kind

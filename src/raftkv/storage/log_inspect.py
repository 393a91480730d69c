"""Shows every record of a stopped log with its place and a verdict, for people; changes nothing, not even a torn end.

Unlike recovery it does not stop at the first damage but goes on with the next segment, and does not replay: it tells
what is in the files, not whether it makes a log.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from raftkv.storage.disk import FileOps, OsFiles, read_fully
from raftkv.storage.record import (
    BURST_SIZE_BYTES,
    ENTRY_FIXED_SIZE_BYTES,
    HEAD,
    BadRecord,
    Record,
    RecordType,
    decode_entry_place,
    decode_hard_state,
    decode_index,
)
from raftkv.storage.scan import SegmentScan, first_written, written_stop
from raftkv.storage.segment import decode_header, decode_metadata, segment_path, sequence_of
from raftkv.types import EntryKind, SnapshotMetadata


class Verdict(enum.StrEnum):
    OK = "ok"
    FREE = "free"
    """Zeros, not written yet."""
    TORN = "torn"
    """A write that a crash cut short; it was never acknowledged, and opening the log removes it."""
    CORRUPT = "corrupt"
    """It was written and synced, and is not there any more: the log refuses to open."""
    FOREIGN = "foreign"
    """Not a segment of a log."""


class InspectedRecord(NamedTuple):
    """`size_bytes` from `offset` of `path`; `type` is empty for what is no record."""

    path: Path
    offset: int
    size_bytes: int
    type: str
    group: int
    detail: str
    verdict: Verdict


def inspect_log(directory: Path, files: FileOps | None = None) -> Iterator[InspectedRecord]:
    """Every record in the order of writing. The log must not be in use. Raises `OSError`."""
    files = files or OsFiles()
    names = sorted(files.names(directory))
    segments = {sequence: name for name in names if (sequence := sequence_of(name)) is not None}
    for name in names:
        if name not in segments.values():
            yield InspectedRecord(directory / name, 0, 0, "", 0, "not a segment", Verdict.FOREIGN)
    later_bytes = dict.fromkeys(segments, False)
    is_written_later = False
    for sequence in reversed(segments):
        later_bytes[sequence] = is_written_later
        is_written_later = is_written_later or first_written(_read(files, segment_path(directory, sequence)), 0) >= 0
    for sequence in segments:
        path = segment_path(directory, sequence)
        yield from _inspect_segment(path, sequence, _read(files, path), later_bytes[sequence])


def _read(files: FileOps, path: Path) -> bytes:
    handle = files.open(path, read_only=True)
    try:
        return read_fully(files, handle, files.size(handle), 0)
    finally:
        files.close(handle)


def _inspect_segment(path: Path, sequence: int, data: bytes, has_later_bytes: bool) -> Iterator[InspectedRecord]:
    scan = SegmentScan(sequence, data)
    for burst in scan.bursts():
        detail = f"number {burst.number}, {burst.length_bytes} bytes"
        yield InspectedRecord(path, burst.offset, BURST_SIZE_BYTES, "BURST", 0, detail, Verdict.OK)
        for record in burst.records:
            size = HEAD.size + len(record.payload)
            yield InspectedRecord(path, record.offset, size, _name(record), record.group, _describe(record), Verdict.OK)
    free_at = scan.stop_offset
    if (damage := scan.damage) is not None:
        free_at = written_stop(data)
        verdict = Verdict.TORN if damage.is_torn and not has_later_bytes else Verdict.CORRUPT
        size = free_at - damage.offset
        detail = f"{damage.problem}, in the burst at {damage.burst_offset}; the rest of the segment was not read"
        yield InspectedRecord(path, damage.offset, size, "", 0, detail, verdict)
    if free_at < len(data):
        yield InspectedRecord(path, free_at, len(data) - free_at, "", 0, "", Verdict.FREE)


def _name(record: Record) -> str:
    try:
        return RecordType(record.type).name
    except ValueError:
        return f"type {record.type}"


def _describe(record: Record) -> str:
    payload = record.payload
    try:
        match record.type:
            case RecordType.ENTRY:
                index, term, kind = decode_entry_place(payload)
                size = len(payload) - ENTRY_FIXED_SIZE_BYTES
                return f"index {index}, term {term}, {EntryKind(kind).name.lower()}, {size} bytes"
            case RecordType.HARD_STATE:
                current_term, voted_for = decode_hard_state(payload)
                return f"term {current_term}, voted for {voted_for:x}" if voted_for else f"term {current_term}, no vote"
            case RecordType.TRUNCATE:
                return f"last index is {decode_index(payload)}"
            case RecordType.BASE | RecordType.RESET:
                return _describe_base(decode_metadata(payload))
            case RecordType.SEGMENT:
                header = decode_header(payload)
                return f"format {header.format_version}, last index {header.last_index}, {_describe_base(header.base)}"
    except (BadRecord, msgspec.MsgspecError) as error:
        return f"cannot be read: {error}"
    return ""


def _describe_base(base: SnapshotMetadata) -> str:
    return f"base {base.last_index} of term {base.last_term}, {len(base.configuration.voters)} voters"

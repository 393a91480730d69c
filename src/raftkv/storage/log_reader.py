"""Reads and verifies a whole log that is not in use, and replays it into an index. Changes nothing.

Every record is checked, not only the newest: entries that were acknowledged years ago are as precious, and a follower
may ask for any of them. `scan` tells where a segment stops being as it was written; here it is decided whether
a crash may leave that (only the last burst of the last segment that has any bytes) or the log is refused.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import msgspec

from raftkv.errors import CorruptData, DataDirectoryError
from raftkv.storage.disk import FileOps, read_fully
from raftkv.storage.log_index import LogIndex, pack_position
from raftkv.storage.record import (
    BURST_SIZE_BYTES,
    HEAD,
    BadRecord,
    Record,
    RecordType,
    decode_burst,
    decode_entry_place,
    decode_hard_state,
    decode_index,
    decode_record,
)
from raftkv.storage.scan import Damage, SegmentScan, first_written, written_stop
from raftkv.storage.segment import (
    FIRST_SEQUENCE,
    FORMAT_VERSION,
    Segment,
    SegmentHeader,
    decode_header,
    decode_metadata,
    decode_version,
    is_temporary,
    segment_path,
    sequence_of,
)
from raftkv.types import HardState, SnapshotMetadata


def list_segments(files: FileOps, directory: Path) -> tuple[list[int], list[Path]]:
    """The sequence numbers, ascending and without a gap, and the leftover temporary files."""
    sequences: list[int] = []
    temporaries: list[Path] = []
    for name in sorted(files.names(directory)):
        sequence = sequence_of(name)
        if sequence is not None and sequence >= FIRST_SEQUENCE:
            sequences.append(sequence)
        elif is_temporary(name):
            temporaries.append(directory / name)
        else:
            raise DataDirectoryError(f"{directory / name} is not a part of this log; move it elsewhere")
    for before, after in itertools.pairwise(sequences):
        if after != before + 1:
            raise CorruptData(str(segment_path(directory, before + 1)), -1, "this segment of the log is missing")
    return sequences, temporaries


class LogReader:
    """The reading phase: replays all records of `segments` into `index`."""

    def __init__(self, files: FileOps, segments: list[Segment]) -> None:
        self._files = files
        self._segments = segments
        self._scan: SegmentScan | None = None
        self.index = LogIndex(SnapshotMetadata(), HardState(), 1)
        self.used: list[Segment] = []
        self.stop_offset = 0
        self.last_burst: tuple[int, bytes] = (0, b"")
        self.next_burst_number: int | None = None
        self.previous_stop_offset = 0
        self.torn: tuple[Segment, int, int] | None = None
        """The segment, and from where to where it has to be zeroed."""

    def read(self) -> None:
        """Raises `CorruptData` or `DataDirectoryError`."""
        written = self._written_segments()
        for at, segment in enumerate(written):
            self._read_segment(segment, is_last=at == len(written) - 1)
        missing = self.index.first_index - 1
        if self.index.base.last_index < missing:
            path = str(self.used[0].path)
            raise CorruptData(path, -1, f"the segments before it, with entries up to {missing}, are missing")

    def _written_segments(self) -> list[Segment]:
        """All up to the last that is not full of zeros."""
        for count in range(len(self._segments), 0, -1):
            if first_written(self._data(self._segments[count - 1]), 0) >= 0:
                return self._segments[:count]
        if self._segments and self._segments[0].sequence != FIRST_SEQUENCE:
            raise CorruptData(str(self._segments[0].path), 0, "the log is empty, though it once had older segments")
        return []

    def _data(self, segment: Segment) -> bytes:
        return read_fully(self._files, segment.handle, segment.size_bytes, 0)

    def _read_segment(self, segment: Segment, is_last: bool) -> None:
        scan = SegmentScan(segment.sequence, self._data(segment))
        for burst in scan.bursts(self.next_burst_number):
            records = burst.records
            if burst.offset == 0:
                self._enter(segment, records[0] if records else None)
                records = records[1:]
            for record in records:
                self._replay(segment, record)
            self.last_burst = (burst.offset, scan.data[burst.offset : burst.offset + burst.length_bytes])
            self.next_burst_number = burst.number + 1
            self.stop_offset = scan.stop_offset
        if scan.damage is not None:
            self._judge(segment, scan.damage, is_last, scan.data)
        elif scan.stop_offset == 0:
            raise CorruptData(str(segment.path), 0, "this segment is empty, but a later one is not")

    def _judge(self, segment: Segment, damage: Damage, is_last: bool, data: bytes) -> None:
        """Refuse damage; note what to cut where a write was torn."""
        if damage.burst_offset == 0 and (sequence := _claimed_sequence(data)) not in {None, segment.sequence}:
            raise CorruptData(str(segment.path), 0, f"this is segment {sequence:016x} under another name")
        # An older segment is removed only when a newer one is known to hold a whole burst.
        is_first_write = damage.burst_offset == 0 and not self.used and segment.sequence != FIRST_SEQUENCE
        if not damage.is_torn or not is_last or is_first_write:
            raise CorruptData(
                str(segment.path),
                damage.offset,
                f"{damage.problem}, in data that had been synced. Nothing was changed. Restore this file, or move the "
                "data directory away and let the node join again",
            )
        self.torn = (segment, damage.burst_offset, written_stop(data))

    def _enter(self, segment: Segment, record: Record | None) -> None:
        """Check that a segment continues the one before, or begin with it when it is the oldest."""
        path = str(segment.path)
        if record is None or record.type != RecordType.SEGMENT:
            raise CorruptData(path, 0, "the segment does not begin with a header")
        header = _decode_header(path, record)
        index = self.index
        if header.size_bytes != segment.size_bytes:
            problem = f"the file has {segment.size_bytes} bytes, it was made with {header.size_bytes}"
            raise CorruptData(path, record.offset, problem)
        if not self.used:
            self.index = LogIndex(header.base, header.hard_state, header.last_index + 1)
        elif header != SegmentHeader(
            FORMAT_VERSION,
            segment.sequence,
            segment.size_bytes,
            self.stop_offset,
            index.base,
            index.hard_state,
            index.last_index,
        ):
            raise CorruptData(path, record.offset, "the segment does not continue the one before it")
        self.previous_stop_offset = header.previous_stop_offset
        self.used.append(segment)

    def _replay(self, segment: Segment, record: Record) -> None:
        index = self.index
        try:
            match record.type:
                case RecordType.ENTRY:
                    entry_index, term, kind = decode_entry_place(record.payload)
                    if entry_index != index.last_index + 1:
                        raise BadRecord(f"entry {entry_index} follows entry {index.last_index}")
                    position = pack_position(segment.sequence, record.offset)
                    index.append(entry_index, term, kind, position, len(record.payload))
                case RecordType.HARD_STATE:
                    index.hard_state = HardState(*decode_hard_state(record.payload))
                case RecordType.TRUNCATE:
                    last_index = decode_index(record.payload)
                    if not index.base.last_index <= last_index < index.last_index:
                        raise BadRecord(f"truncated to {last_index}, the last entry is {index.last_index}")
                    index.truncate(last_index)
                case RecordType.BASE:
                    index.cut(decode_metadata(record.payload))
                    if index.last_index < index.base.last_index:
                        raise BadRecord(f"cut up to {index.base.last_index}, the last entry is {index.last_index}")
                case RecordType.RESET:
                    index.reset(decode_metadata(record.payload))
                case _:
                    raise BadRecord(f"a record of type {record.type} does not belong here")
        except (BadRecord, msgspec.MsgspecError) as error:
            raise CorruptData(str(segment.path), record.offset, str(error)) from error


def _claimed_sequence(data: bytes) -> int | None:
    """Of which segment these are the whole first records; None when they are of none."""
    try:
        length = HEAD.unpack_from(data, BURST_SIZE_BYTES)[0]
        at = BURST_SIZE_BYTES + HEAD.size
        sequence = decode_header(data[at : at + length]).sequence
        decode_burst(decode_record(data, 0, len(data), sequence))
        decode_record(data, BURST_SIZE_BYTES, len(data), sequence)
    except (BadRecord, struct.error, msgspec.MsgspecError):
        return None
    return sequence


def _decode_header(path: str, record: Record) -> SegmentHeader:
    try:
        version = decode_version(record.payload)
        if version > FORMAT_VERSION:
            raise DataDirectoryError(
                f"{path} has log format {version}; this program knows up to {FORMAT_VERSION}: use a newer raftkv"
            )
        return decode_header(record.payload)
    except msgspec.MsgspecError as error:
        raise CorruptData(path, record.offset, f"the segment's header: {error}") from error

"""One file of the log: its name, how it is made, and the header that lets all older segments be removed.

A segment is filled with zeros and synced **before** it gets its name, so under its name it has all its blocks written:
appending then changes no metadata, which makes a sync a third faster than on blocks that are only reserved
(measured: 0.135 against 0.20 ms), and a full disk is met here, with nothing of any step written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path

import msgspec

from raftkv.storage.disk import FileOps, write_zeros
from raftkv.types import HardState, SnapshotMetadata

FORMAT_VERSION = 1
TEMPORARY_SUFFIX = ".new"
FIRST_SEQUENCE = 1
_NAME = re.compile(r"([0-9a-f]{16})\.wal")
_BLOCK_SIZE_BYTES = 4096


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """Where the log stands when a segment begins: with it, nothing older is needed but the entries themselves."""

    format_version: int
    sequence: int
    size_bytes: int
    previous_stop_offset: int
    """Where the records of the segment before end; 0 for the first. A segment that lost its end does not fit."""
    base: SnapshotMetadata
    hard_state: HardState
    last_index: int


class VersionOnly(msgspec.Struct, frozen=True, array_like=True):
    """What every version's header begins with."""

    format_version: int


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(SegmentHeader)
_version_decoder = msgspec.msgpack.Decoder(VersionOnly)
_metadata_decoder = msgspec.msgpack.Decoder(SnapshotMetadata)


def encode_header(header: SegmentHeader) -> bytes:
    return _encoder.encode(header)


def decode_version(payload: bytes) -> int:
    """Raises `msgspec.MsgspecError` for anything else than a header."""
    return _version_decoder.decode(payload).format_version


def decode_header(payload: bytes) -> SegmentHeader:
    return _header_decoder.decode(payload)


def encode_metadata(metadata: SnapshotMetadata) -> bytes:
    return _encoder.encode(metadata)


def decode_metadata(payload: bytes) -> SnapshotMetadata:
    return _metadata_decoder.decode(payload)


@dataclasses.dataclass(slots=True)
class Segment:
    """An open segment file."""

    sequence: int
    path: Path
    handle: int
    size_bytes: int


def segment_path(directory: Path, sequence: int) -> Path:
    return directory / f"{sequence:016x}.wal"


def sequence_of(name: str) -> int | None:
    """None when `name` is not exactly what `segment_path` makes."""
    match = _NAME.fullmatch(name)
    return int(match[1], 16) if match else None


def is_temporary(name: str) -> bool:
    """A segment that was being made when the process died; never part of the log."""
    return name.endswith(TEMPORARY_SUFFIX) and sequence_of(name.removesuffix(TEMPORARY_SUFFIX)) is not None


def round_up(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_SIZE_BYTES) * _BLOCK_SIZE_BYTES


def make_segment(files: FileOps, directory: Path, sequence: int, size_bytes: int) -> Segment:
    """A new segment full of zeros; durable on return, its name too. An error gives the space back."""
    path = segment_path(directory, sequence)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    handle = files.open(temporary, create=True)
    try:
        files.allocate(handle, size_bytes)
        write_zeros(files, handle, 0, size_bytes)
        files.rename(temporary, path)
        files.sync_directory(directory)
    except BaseException as error:
        files.close(handle)
        if isinstance(error, OSError):
            with contextlib.suppress(OSError):
                files.remove(temporary)
        raise
    return Segment(sequence, path, handle, size_bytes)


def enlarge_segment(files: FileOps, segment: Segment, size_bytes: int) -> None:
    """Make a segment that is not in use yet larger, for a step that would not fit otherwise; durable on return."""
    files.allocate(segment.handle, size_bytes)
    write_zeros(files, segment.handle, segment.size_bytes, size_bytes)
    segment.size_bytes = size_bytes

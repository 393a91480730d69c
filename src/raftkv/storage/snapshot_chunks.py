"""The chunks that a snapshot travels in (`snapshots` explains the stream): their encoding, and nothing that is open."""

from __future__ import annotations

import re
import struct
from typing import TypeAlias

import google_crc32c
import msgspec

from raftkv.errors import PeerProtocolError

CHUNK_OVERHEAD_BYTES = 256
"""At least what a chunk adds to its data: a name of 128 bytes, numbers, tag, checksum."""
MAX_FILE_COUNT = 1_000_000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""What a file in a snapshot may be called: no separators, no leading dot, so it can only lie in its directory."""
_CHECKSUM = struct.Struct(">I")


class _Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`number` counts the chunks of a stream from 0."""

    number: int


class Begin(_Chunk, frozen=True, tag=1):
    file_count: int
    total_bytes: int


class Data(_Chunk, frozen=True, tag=2):
    """Continues the open file, or opens the next one at offset 0."""

    name: str
    offset: int
    data: bytes


class FileEnd(_Chunk, frozen=True, tag=3):
    """An empty file has this and no `Data`."""

    name: str
    size: int
    crc32c: int


class End(_Chunk, frozen=True, tag=4):
    manifest_crc32c: int


Chunk: TypeAlias = Begin | Data | FileEnd | End

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Chunk] = msgspec.msgpack.Decoder(Chunk)


def encode_chunk(chunk: Chunk) -> bytes:
    payload = _encoder.encode(chunk)
    return _CHECKSUM.pack(google_crc32c.value(payload)) + payload


def decode_chunk(data: bytes) -> Chunk:
    """Raises PeerProtocolError for anything that is not exactly one undamaged chunk."""
    if len(data) <= _CHECKSUM.size:
        raise PeerProtocolError(f"a snapshot chunk of {len(data)} bytes is too short")
    payload = data[_CHECKSUM.size :]
    if google_crc32c.value(payload) != _CHECKSUM.unpack_from(data)[0]:
        raise PeerProtocolError("a snapshot chunk does not match its checksum")
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"not a snapshot chunk: {error}") from error


def extend_manifest(checksum: int, end: FileEnd) -> int:
    """The checksum over all `FileEnd`s so far; begins at 0."""
    extended: int = google_crc32c.extend(checksum, f"{end.name} {end.size} {end.crc32c:08x}\n".encode())
    return extended

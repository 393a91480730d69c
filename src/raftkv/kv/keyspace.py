"""How the key-value state is laid out in an ordered store (docs/design/state-format.md).

    C key                                -> record        the newest value of a live key
    H escaped(key) mod_revision          -> record        a value that was superseded or deleted
    H escaped(key) mod_revision          -> (empty)       the key was deleted at that revision
    R first revision of a batch          -> changes       which keys changed, in order of revision
    M                                    -> position      last_applied, revision, compact_revision, format

A record is create_revision, mod_revision, version and lease, eight bytes each, and then the value. The newest value
is one get; a read in the past is that get and one seek, because `escaped` keeps the order of keys and no
escaped key is a prefix of another, so that all versions of a key lie side by side, oldest first.

Turned down: etcd's layout (revision -> key and value, and an index of keys in memory). Its every read needs the
index, which costs memory for each key and has to be rebuilt at every start. Turned down, too: all
versions in one place, newest first; a point read is then a seek, three times the cost of a get, and bloom filters
do not help it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from raftkv.errors import StorageError
from raftkv.kv.results import KeyValue

CURRENT = b"C"
CURRENT_STOP = b"D"
HISTORY = b"H"
HISTORY_STOP = b"I"
CHANGES = b"R"
POSITION_KEY = b"M"

FORMAT_VERSION = 1

RECORD_HEADER = struct.Struct(">QQQQ")
RECORD_HEADER_SIZE = RECORD_HEADER.size
REVISION = struct.Struct(">Q")
_POSITION = struct.Struct(">QQQQQ")

Changes: TypeAlias = Sequence[tuple[bytes, int]]
"""(key, superseded mod_revision) in order of revision: 0 when the put created the key, negative for a delete."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """Where the state stands. An empty store is at revision 1, as in etcd, so that 0 can mean "not given"."""

    last_applied: int = 0
    last_applied_term: int = 0
    revision: int = 1
    compact_revision: int = 0


def encode_position(position: Position) -> bytes:
    return _POSITION.pack(
        FORMAT_VERSION,
        position.last_applied,
        position.last_applied_term,
        position.revision,
        position.compact_revision,
    )


def decode_position(data: bytes | None) -> Position:
    """`None` is an empty store. Raises StorageError for a format that this version does not know."""
    if data is None:
        return Position()
    if len(data) < REVISION.size:
        raise StorageError(f"the state's position record has {len(data)} bytes: the state is damaged")
    (version,) = REVISION.unpack_from(data)
    if version != FORMAT_VERSION or len(data) != _POSITION.size:
        raise StorageError(
            f"the state has format {version} ({len(data)} bytes), this version reads format {FORMAT_VERSION}: "
            "it was written by another version of raftkv"
        )
    _, last_applied, term, revision, compact_revision = _POSITION.unpack(data)
    return Position(last_applied, term, revision, compact_revision)


def history_prefix(key: bytes) -> bytes:
    """All versions of `key` and nothing else begin with it."""
    return HISTORY + key.replace(b"\x00", b"\x00\xff") + b"\x00\x01"


def history_key(key: bytes, mod_revision: int) -> bytes:
    return HISTORY + key.replace(b"\x00", b"\x00\xff") + b"\x00\x01" + REVISION.pack(mod_revision)


def split_history_key(stored: bytes) -> tuple[bytes, int]:
    """The (key, mod_revision) that `history_key` was made of."""
    return stored[1:-10].replace(b"\x00\xff", b"\x00"), REVISION.unpack_from(stored, len(stored) - 8)[0]


def changes_key(first_revision: int) -> bytes:
    return CHANGES + REVISION.pack(first_revision)


def split_changes_key(stored: bytes) -> int:
    first_revision: int = REVISION.unpack_from(stored, 1)[0]
    return first_revision


_encoder = msgspec.msgpack.Encoder()
_changes_decoder: msgspec.msgpack.Decoder[list[bytes | int]] = msgspec.msgpack.Decoder(list[bytes | int])


def encode_changes(flat: list[bytes | int]) -> bytes:
    """`flat` is key, superseded, key, superseded, …: cheaper to build in the hot loop than pairs."""
    return _encoder.encode(flat)


def decode_changes(data: bytes) -> Changes:
    flat = _changes_decoder.decode(data)
    return list(zip(flat[::2], flat[1::2], strict=True))  # type: ignore[arg-type]


def decode_record(key: bytes, record: bytes) -> KeyValue:
    create_revision, mod_revision, version, lease = RECORD_HEADER.unpack_from(record)
    return KeyValue(key, record[RECORD_HEADER_SIZE:], create_revision, mod_revision, version, lease)

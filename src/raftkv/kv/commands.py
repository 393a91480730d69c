"""What a client can ask the key-value state to do, and the bytes of a batch of it.

One log entry of kind COMMANDS carries one batch: a MessagePack array of commands, each an array that begins
with its tag. A tag is never reused, and fields are only ever added at the end, with a default, so that
a log written by an older version stays readable (state-format.md).

Commands are checked before they are proposed. What is in the log is therefore ours and committed: bytes
that do not decode mean that the log is damaged or was written by a newer version. Skipping them would let this
copy differ from the others, so `decode_batch` raises StorageError and the node stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

from raftkv.errors import StorageError


class Put(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Give `key` a new value. `lease` 0 is none; a record has 64 bits without a sign for it."""

    key: bytes
    value: bytes
    lease: Annotated[int, msgspec.Meta(ge=0)] = 0


class Delete(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Remove `key`; a missing key changes nothing and takes no revision."""

    key: bytes


class Compact(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Give up reads below `revision`; takes no revision itself."""

    revision: int


Command: TypeAlias = Put | Delete | Compact

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Command]] = msgspec.msgpack.Decoder(list[Command])


def encode_batch(commands: Sequence[Command]) -> bytes:
    """The data of one log entry."""
    return _encoder.encode(commands)


def decode_batch(data: bytes, index: int = 0) -> list[Command]:
    """Raises StorageError, naming the entry `index`, for anything that is not exactly one batch."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StorageError(
            f"the committed log entry {index} holds no batch of commands that this version can read ({error}): "
            "the log is damaged or was written by a newer version"
        ) from error

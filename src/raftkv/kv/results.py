"""What commands and reads give back. Plain values, cheap to make: one a command on every member."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class KeyValue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A key as it stands at some revision.

    `create_revision` is that of the put which began the key's present life, `mod_revision` that of its
    newest put, `version` counts the puts of this life from 1, `lease` is 0 for none.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class PutResult(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """`revision` is the put's own; `version` 1 means that the key did not exist."""

    revision: int
    create_revision: int
    version: int


class DeleteResult(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """`revision` is the delete's own, or the state's when nothing was deleted."""

    revision: int
    deleted: bool


class CompactResult(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """`accepted` is false when the revision was in the future or compacted already; nothing changed then."""

    revision: int
    compact_revision: int
    accepted: bool


class RangeResult(msgspec.Struct, frozen=True, array_like=True):
    """Keys in ascending order; `has_more` says that `limit` cut the answer short."""

    key_values: list[KeyValue]
    has_more: bool
    revision: int


Result: TypeAlias = PutResult | DeleteResult | CompactResult

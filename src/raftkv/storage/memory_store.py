"""`OrderedStore` in memory, for tests and for simulated members: the contract of `engine` without a disk.

It keeps the same promise about crashes: `crashed()` gives the store as a crash would leave it, with what the last
`flush` covered and nothing after it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec

from raftkv.errors import StorageError
from raftkv.statemachine import WriteBatch

_CHECKPOINT_NAME = "memory-store"


class MemoryBatch:
    """Changes in order, to be replayed onto a store."""

    __slots__ = ("operations",)

    def __init__(self) -> None:
        self.operations: list[tuple[bytes, bytes | None, bytes | None]] = []
        """(key, value, None) for a put, (key, None, None) for a delete, (begin, None, end) for a range."""

    def put(self, key: bytes, value: bytes, /) -> None:
        self.operations.append((key, value, None))

    def delete(self, key: bytes, /) -> None:
        self.operations.append((key, None, None))

    def delete_range(self, begin: bytes, end: bytes, /) -> None:
        self.operations.append((begin, None, end))


class _Table:
    """A dict and its keys in order."""

    __slots__ = ("keys", "values")

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.keys = sorted(values)

    def replay(self, batch: MemoryBatch) -> None:
        for key, value, end in batch.operations:
            if value is not None:
                if key not in self.values:
                    bisect.insort(self.keys, key)
                self.values[key] = value
            elif end is not None:
                self._remove(bisect.bisect_left(self.keys, key), bisect.bisect_left(self.keys, end))
            elif key in self.values:
                place = bisect.bisect_left(self.keys, key)
                self._remove(place, place + 1)

    def _remove(self, start: int, stop: int) -> None:
        for key in self.keys[start:stop]:
            del self.values[key]
        del self.keys[start:stop]


class MemoryStore:
    """Obeys `OrderedStore`. `values` is what the store begins with, durable already."""

    def __init__(self, values: dict[bytes, bytes] | None = None) -> None:
        self._table = _Table(dict(values or {}))
        self._durable = _Table(dict(values or {}))
        self._unflushed: list[MemoryBatch] = []
        self._is_closed = False

    @classmethod
    def open(cls, directory: Path) -> MemoryStore:
        """The store that `checkpoint` wrote."""
        try:
            data = (directory / _CHECKPOINT_NAME).read_bytes()
            return cls(msgspec.msgpack.decode(data, type=dict[bytes, bytes]))
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(f"cannot open the state in {directory}: {error}") from error

    def crashed(self) -> MemoryStore:
        """What a process that dies now would find when it starts again."""
        return MemoryStore(self._durable.values)

    def get(self, key: bytes, /) -> bytes | None:
        self._check_open()
        return self._table.values.get(key)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        self._check_open()
        return [self._table.values.get(key) for key in keys]

    def new_batch(self) -> WriteBatch:
        return MemoryBatch()

    def write(self, batch: WriteBatch, /) -> None:
        self._check_open()
        changes = cast("MemoryBatch", batch)
        self._table.replay(changes)
        self._unflushed.append(changes)

    def settle(self) -> None:
        """There is nothing to do."""

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._check_open()
        table = self._table
        keys = table.keys[bisect.bisect_left(table.keys, start) : bisect.bisect_left(table.keys, stop)]
        if reverse:
            keys.reverse()
        return iter([(key, table.values[key]) for key in keys])

    def flush(self) -> None:
        self._check_open()
        batches, self._unflushed = self._unflushed, []
        for batch in batches:
            self._durable.replay(batch)

    def checkpoint(self, directory: Path) -> None:
        self._check_open()
        try:
            directory.mkdir()
            (directory / _CHECKPOINT_NAME).write_bytes(msgspec.msgpack.encode(self._table.values))
        except OSError as error:
            raise StorageError(f"cannot copy the state to {directory}: {error}") from error

    def close(self) -> None:
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise StorageError("the state is closed")

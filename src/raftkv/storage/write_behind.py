"""An ordered store in front of another one: recent writes gather in a dict and go on in one large, sorted batch.

Written in small batches, RocksDB spends most of a put in cache misses: each batch finds the paths through the memtable
gone from the processor's caches, and brings some ten microseconds of its own. What is gathered here costs the update of
a dict, and then a third of the rest; a key that is written again meanwhile goes on once (docs/design/performance.md).

To a reader there is one store: a get looks here first, and whatever needs order (a scan) or files (`flush`,
`checkpoint`) lets everything go on before. A crash takes what is here like what is in RocksDB's memtable: all batches
go on together, so what survives is still a prefix of the writes, cut between batches.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

from raftkv.errors import StorageError
from raftkv.statemachine import OrderedStore, WriteBatch

GATHER_MAX_COUNT = 2048
"""Of changed keys; letting so many go on holds up the event loop for 2 to 4 ms."""
SETTLE_MIN_COUNT = 512
"""For when there is time: below it the next batches share too little."""
GATHER_MAX_BYTES = 1 << 20
"""Of keys and values."""


class _Missing:
    """Not a value of the dict, where None is a deleted key."""


_MISSING: Final = _Missing()


class _Batch:
    """The last change of each key, and the ranges to be emptied before these take effect."""

    __slots__ = ("changes", "put", "ranges")

    def __init__(self) -> None:
        self.changes: dict[bytes, bytes | None] = {}
        self.ranges: list[tuple[bytes, bytes]] = []
        self.put = self.changes.__setitem__

    def delete(self, key: bytes, /) -> None:
        self.changes[key] = None

    def delete_range(self, begin: bytes, end: bytes, /) -> None:
        for key in [key for key in self.changes if begin <= key < end]:
            del self.changes[key]
        self.ranges.append((begin, end))


class WriteBehind:
    """Obeys `OrderedStore`, in front of `store`, which is its own from here on. One thread writes; any may read."""

    def __init__(self, store: OrderedStore) -> None:
        self._store = store
        self._gathered: dict[bytes, bytes | None] = {}
        self._bytes_count = 0
        self._is_closed = False
        # Held while what was gathered moves on, and while more is added.
        self._lock = threading.Lock()

    def get(self, key: bytes, /) -> bytes | None:
        found = self._gathered.get(key, _MISSING)
        return self._store.get(key) if found is _MISSING else cast("bytes | None", found)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        gathered = self._gathered
        found = [gathered.get(key, _MISSING) for key in keys]
        if missing := [key for key, value in zip(keys, found, strict=True) if value is _MISSING]:
            fetched = iter(self._store.get_many(missing))
            return [next(fetched) if value is _MISSING else cast("bytes | None", value) for value in found]
        return cast("list[bytes | None]", found)

    def new_batch(self) -> WriteBatch:
        return _Batch()

    def write(self, batch: WriteBatch, /) -> None:
        new = cast("_Batch", batch)
        with self._lock:
            if self._is_closed:
                raise StorageError("the state is closed")
            if new.ranges:
                self._move_on(new)
                return
            self._gathered.update(new.changes)
            self._bytes_count += sum(map(len, new.changes)) + sum(map(len, filter(None, new.changes.values())))
            if len(self._gathered) >= GATHER_MAX_COUNT or self._bytes_count >= GATHER_MAX_BYTES:
                self._move_on()

    def settle(self) -> None:
        if len(self._gathered) >= SETTLE_MIN_COUNT:
            with self._lock:
                self._move_on()

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            self._move_on()
        return self._store.scan(start, stop, reverse)

    def flush(self) -> None:
        with self._lock:
            self._move_on()
        self._store.flush()

    def checkpoint(self, directory: Path) -> None:
        with self._lock:
            self._move_on()
        self._store.checkpoint(directory)

    def close(self) -> None:
        try:
            with self._lock:
                if not self._is_closed:
                    self._is_closed = True
                    self._move_on()
        finally:
            self._gathered = {}
            self._store.close()

    def _move_on(self, new: _Batch | None = None) -> None:
        gathered = self._gathered
        if not gathered and new is None:
            return
        batch = self._store.new_batch()
        _fill(batch, gathered)
        if new is not None:
            for begin, end in new.ranges:
                batch.delete_range(begin, end)
            _fill(batch, new.changes)
        self._store.write(batch)
        # Not emptied: a reader that looks for a key just now finds it here or in the store.
        self._gathered = {}
        self._bytes_count = 0


def _fill(batch: WriteBatch, changes: dict[bytes, bytes | None]) -> None:
    put, delete = batch.put, batch.delete
    for key in sorted(changes):
        value = changes[key]
        if value is None:
            delete(key)
        else:
            put(key, value)

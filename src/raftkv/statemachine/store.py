"""An ordered map from bytes to bytes with atomic batches: what state machines may stand on.

Implementations: `storage.engine.RocksStore`, `storage.write_behind.WriteBehind` in front of it, and
`storage.memory_store.MemoryStore`; one contract suite runs against all.

The durability contract is weak on purpose. A write is not durable until a later `flush` returns, and after a
crash the store holds the effect of some prefix of the writes, whole batches only. A state machine that
writes its applied index in the same batch as the changes therefore always knows where it stands, and
needs no log of its own beside Raft's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol


class WriteBatch(Protocol):
    """Changes that become visible together; later ones win over earlier ones."""

    def put(self, key: bytes, value: bytes, /) -> None: ...

    def delete(self, key: bytes, /) -> None: ...

    def delete_range(self, begin: bytes, end: bytes, /) -> None:
        """Remove every key in [begin, end)."""
        ...


class OrderedStore(Protocol):
    """Keys are ordered as bytes. Reads and writes come from any thread; every method raises StorageError on failure."""

    def get(self, key: bytes, /) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        """In the order of `keys`, which may repeat."""
        ...

    def new_batch(self) -> WriteBatch: ...

    def write(self, batch: WriteBatch, /) -> None:
        """Atomic and visible on return, not durable. `batch` comes from this store's `new_batch` and is used up."""
        ...

    def settle(self) -> None:
        """The caller has a moment to spare, of about a millisecond: do now what would hold up a later call."""

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, stop) as they stood at the call, whatever is written meanwhile."""
        ...

    def flush(self) -> None:
        """Blocks until everything written before the call is durable."""
        ...

    def checkpoint(self, directory: Path) -> None:
        """A copy as of the call, in `directory`, which must not exist. Opening it gives an equal store."""
        ...

    def close(self) -> None:
        """Idempotent. Other calls raise StorageError afterwards."""
        ...

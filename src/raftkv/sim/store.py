"""The state's store as a crash finds it: some prefix of what was written, as RocksDB without a log leaves it."""

from __future__ import annotations

import random

from raftkv.storage import MemoryStore

_EVERYTHING = b"", b"\xff" * 8


class SimStore(MemoryStore):
    """`MemoryStore` whose crash may keep more than the last flush covered, cut between batches."""

    def after_crash(self, source: random.Random) -> SimStore:
        survivor = SimStore(self._durable.values)
        count = len(self._unflushed)
        for batch in self._unflushed[: source.choice((0, source.randint(0, count), count))]:
            survivor.write(batch)
        survivor.flush()
        return survivor

    def content(self) -> dict[bytes, bytes]:
        """A copy of all that is in it."""
        return dict(self.scan(*_EVERYTHING))

"""The core's view of a log whose files can be exchanged under it (a snapshot install makes new ones)."""

from __future__ import annotations

from raftkv.storage import Wal
from raftkv.types import Entry, HardState, SnapshotMetadata


class LogSlot:
    """Implements the core's `LogStorage` by whatever log is in `wal` now."""

    __slots__ = ("wal",)

    def __init__(self, wal: Wal) -> None:
        self.wal = wal

    @property
    def hard_state(self) -> HardState:
        return self.wal.hard_state

    @property
    def base(self) -> SnapshotMetadata:
        return self.wal.base

    @property
    def last_index(self) -> int:
        return self.wal.last_index

    def term(self, index: int) -> int:
        return self.wal.term(index)

    def entries(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return self.wal.entries(first, last, max_bytes)

    def configurations(self) -> list[Entry]:
        return self.wal.configurations()

"""A stopped node's data directory, opened only to be looked at: nothing in it is made, repaired or removed.

The lock is held meanwhile, because a running node would change what is being read. Both halves are verified: `log`
replays the whole log as a start would, `records` goes on behind damage, and `state` reads with all checksums on.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from raftkv.errors import DataDirectoryError
from raftkv.storage import files
from raftkv.storage.datadir import Generation, generation_of
from raftkv.storage.disk import OsFiles
from raftkv.storage.engine import RocksStore
from raftkv.storage.identity import IDENTITY_NAME, Identity, read_identity
from raftkv.storage.lock import LOCK_NAME, DirectoryLock
from raftkv.storage.log_inspect import InspectedRecord, inspect_log
from raftkv.storage.log_reader import LogReader, list_segments
from raftkv.storage.segment import Segment, segment_path
from raftkv.types import HardState, SnapshotMetadata


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a start would recover. `torn_bytes` of an unfinished write would be cut; none of it was acknowledged."""

    first_index: int
    last_index: int
    last_term: int
    base: SnapshotMetadata
    hard_state: HardState
    segment_count: int
    torn_bytes: int


class StoppedDirectory:
    """Made by `open`; everything is valid only inside its `with` block."""

    def __init__(self, path: Path, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self.generation: Generation = generation_of(path, identity.generation)

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[StoppedDirectory]:
        """Raises DataDirectoryError when it is in use, is no data directory, or its identity is damaged."""
        identity = read_identity(path / IDENTITY_NAME)
        if identity is None:
            raise DataDirectoryError(f"{path} is not a raftkv data directory: it has no {IDENTITY_NAME}")
        with files.explain(f"cannot lock {path}"):
            lock = DirectoryLock.acquire(path / LOCK_NAME)
        try:
            yield cls(path, identity)
        finally:
            lock.release()

    def records(self) -> Iterator[InspectedRecord]:
        """Every record of the log with a verdict; see `inspect_log`."""
        return inspect_log(self.generation.wal_directory)

    def log(self) -> LogSummary:
        """Verify and replay the whole log. Raises CorruptData, with file and offset, or DataDirectoryError."""
        operations, directory = OsFiles(), self.generation.wal_directory
        segments: list[Segment] = []
        with files.explain(f"cannot read the log in {directory}"):
            try:
                for sequence in list_segments(operations, directory)[0]:
                    path = segment_path(directory, sequence)
                    handle = operations.open(path, read_only=True)
                    segments.append(Segment(sequence, path, handle, operations.size(handle)))
                reader = LogReader(operations, segments)
                reader.read()
            finally:
                for segment in segments:
                    operations.close(segment.handle)
        index = reader.index
        return LogSummary(
            first_index=index.first_index,
            last_index=index.last_index,
            last_term=index.term(index.last_index),
            base=index.base,
            hard_state=index.hard_state,
            segment_count=len(reader.used),
            torn_bytes=reader.torn[2] - reader.torn[1] if reader.torn is not None else 0,
        )

    def state(self) -> RocksStore:
        """The state, read-only; the caller closes it. Raises StorageError."""
        return RocksStore(self.generation.state_directory, is_read_only=True)

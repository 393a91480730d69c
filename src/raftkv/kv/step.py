"""One call of `apply`: the commands of its entries, run in order into one write batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftkv.kv.commands import Command, Compact, Delete, Put
from raftkv.kv.keyspace import CURRENT, RECORD_HEADER, history_key
from raftkv.kv.mvcc import DELETED
from raftkv.kv.results import CompactResult, DeleteResult, PutResult, Result
from raftkv.statemachine import WriteBatch

_pack_header = RECORD_HEADER.pack
_unpack_header = RECORD_HEADER.unpack_from


class Step:
    """What the entries of one `apply` have changed so far.

    The batch cannot be read back before it is written, so `overlay` keeps the record of every key that was
    written in this step (DELETED for a removed one). `changes` is what `encode_changes` takes.
    """

    __slots__ = ("_batch", "_get", "_overlay", "changes", "compact_revision", "revision")

    def __init__(
        self, get: Callable[[bytes], bytes | None], batch: WriteBatch, revision: int, compact_revision: int
    ) -> None:
        self._get = get
        self._batch = batch
        self._overlay: dict[bytes, bytes] = {}
        self.revision = revision
        self.compact_revision = compact_revision
        self.changes: list[bytes | int] = []

    def run(self, commands: Sequence[Command]) -> list[Result]:
        """One result a command. The loop is written out, with local names, because it is the hot path."""
        get, put, delete = self._get, self._batch.put, self._batch.delete
        overlay, changes = self._overlay, self.changes
        revision = self.revision
        results: list[Result] = []
        for command in commands:
            if isinstance(command, Put):
                key = command.key
                stored = CURRENT + key
                old = overlay.get(key)
                if old is None:
                    old = get(stored)
                revision += 1
                if old:
                    create, superseded, version, _ = _unpack_header(old)
                    version += 1
                    put(history_key(key, superseded), old)
                else:
                    create, superseded, version = revision, 0, 1
                record = _pack_header(create, revision, version, command.lease) + command.value
                put(stored, record)
                overlay[key] = record
                changes.append(key)
                changes.append(superseded)
                results.append(PutResult(revision, create, version))
            elif isinstance(command, Delete):
                key = command.key
                stored = CURRENT + key
                old = overlay.get(key)
                if old is None:
                    old = get(stored)
                if not old:
                    results.append(DeleteResult(revision, False))
                    continue
                revision += 1
                superseded = _unpack_header(old)[1]
                put(history_key(key, superseded), old)
                put(history_key(key, revision), DELETED)
                delete(stored)
                overlay[key] = DELETED
                changes.append(key)
                changes.append(-superseded)
                results.append(DeleteResult(revision, True))
            else:
                results.append(self._compact(command, revision))
        self.revision = revision
        return results

    def _compact(self, command: Compact, revision: int) -> CompactResult:
        accepted = self.compact_revision < command.revision <= revision
        if accepted:
            self.compact_revision = command.revision
        return CompactResult(revision, self.compact_revision, accepted)

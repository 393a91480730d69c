"""One call of `apply`: the commands of its entries, run in order into one write batch.

This is the hot path of every member, so the loop is written out, with local names and without a call into our own code
per command: at a few microseconds a command such calls would cost as much as the work. What a put costs is
measured in docs/design/state-format.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raftkv.kv.commands import Command, Compact, Put
from raftkv.kv.keyspace import CURRENT, RECORD_HEADER, history_key
from raftkv.kv.mvcc import DELETED
from raftkv.kv.results import CompactResult, DeleteResult, PutResult, Result
from raftkv.statemachine import OrderedStore, WriteBatch

_pack_header = RECORD_HEADER.pack
_unpack_header = RECORD_HEADER.unpack_from


class Step:
    """What the entries of one `apply` have changed so far.

    A batch cannot be read back before it is written. `_records` therefore holds the newest record of every key that the
    step touches: first as the store has it, all fetched at once because that is cheaper than one by one, then
    as the step leaves it. None and DELETED both mean that the key does not exist.
    """

    __slots__ = ("_batch", "_records", "_store", "changes", "compact_revision", "revision")

    def __init__(self, store: OrderedStore, batch: WriteBatch, revision: int, compact_revision: int) -> None:
        self._store = store
        self._batch = batch
        self._records: dict[bytes, bytes | None] = {}
        self.revision = revision
        self.compact_revision = compact_revision
        self.changes: list[bytes | int] = []
        """What `encode_changes` takes."""

    def fetch(self, commands: Iterable[Command]) -> None:
        """Read the keys of all commands that `run` will be given; once, before the first `run`."""
        keys = [command.key for command in commands if not isinstance(command, Compact)]
        self._records = dict(zip(keys, self._store.get_many([CURRENT + key for key in keys]), strict=True))

    def run(self, commands: Sequence[Command], *, wants_results: bool) -> list[Result]:
        """One result a command, or none when nobody waits for them."""
        put, delete = self._batch.put, self._batch.delete
        records, changes = self._records, self.changes
        revision = self.revision
        results: list[Result] = []
        for command in commands:
            if isinstance(command, Put):
                key = command.key
                old = records[key]
                revision += 1
                if old:
                    create, superseded, version, _ = _unpack_header(old)
                    version += 1
                    put(history_key(key, superseded), old)
                else:
                    create, superseded, version = revision, 0, 1
                record = _pack_header(create, revision, version, command.lease) + command.value
                put(CURRENT + key, record)
                records[key] = record
                changes.append(key)
                changes.append(superseded)
                if wants_results:
                    results.append(PutResult(revision, create, version))
            elif isinstance(command, Compact):
                result = self._compact(command, revision)
                if wants_results:
                    results.append(result)
            else:
                key = command.key
                old = records[key]
                if not old:
                    if wants_results:
                        results.append(DeleteResult(revision, False))
                    continue
                revision += 1
                superseded = _unpack_header(old)[1]
                put(history_key(key, superseded), old)
                put(history_key(key, revision), DELETED)
                delete(CURRENT + key)
                records[key] = DELETED
                changes.append(key)
                changes.append(-superseded)
                if wants_results:
                    results.append(DeleteResult(revision, True))
        self.revision = revision
        return results

    def _compact(self, command: Compact, revision: int) -> CompactResult:
        accepted = self.compact_revision < command.revision <= revision
        if accepted:
            self.compact_revision = command.revision
        return CompactResult(revision, self.compact_revision, accepted)

"""The replicated key-value state machine: committed entries in, revisions and results out.

Invariants, each re-checked by a test against a dict with history:
- the state is a function of the entries alone (Raft §2); nothing here asks for time, chance or settings;
- `last_applied` is written in the same batch as the changes of the entries up to it, always;
- every command that changes something takes the next revision, in log order;
- the newest value of a key is exactly one store get.

`apply` is the hot path of every member; the loop over the commands is in `step`.

Turned down: keeping decoded commands of own proposals to save the leader the decoding. It is a tenth of a
microsecond a command, and the entry that commits at an index need not be the one proposed there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from raftkv.errors import InvalidInput, require
from raftkv.kv import mvcc
from raftkv.kv.commands import decode_batch
from raftkv.kv.keyspace import (
    CURRENT,
    POSITION_KEY,
    RECORD_HEADER_SIZE,
    REVISION,
    Position,
    changes_key,
    decode_position,
    encode_changes,
    encode_position,
)
from raftkv.kv.results import KeyValue, RangeResult, Result
from raftkv.kv.step import Step
from raftkv.kv.sweep import Sweeper
from raftkv.statemachine import OrderedStore, WriteBatch
from raftkv.types import Entry, EntryKind


class _Step(NamedTuple):
    """What `entries`, applied to the state as it is, change and answer. Nothing of it is written yet."""

    entries: Sequence[Entry]
    batch: WriteBatch
    position: Position
    results: list[Sequence[Result]]


class KeyValueMachine:
    """One member's copy of the key-value state; obeys `statemachine.StateMachine`.

    It owns `store` from here on and closes it.
    """

    __slots__ = ("_get", "_position", "_prepared", "_store", "_sweeper", "compact_revision", "revision")

    def __init__(self, store: OrderedStore) -> None:
        self._store = store
        self._get = store.get
        self._position = decode_position(store.get(POSITION_KEY))
        self.revision = self._position.revision
        self.compact_revision = self._position.compact_revision
        self._sweeper = Sweeper(store)
        self._prepared: _Step | None = None

    @property
    def last_applied(self) -> int:
        return self._position.last_applied

    @property
    def last_applied_term(self) -> int:
        return self._position.last_applied_term

    # -- writing

    def apply(self, entries: Sequence[Entry], *, wants_results: bool = True) -> list[Sequence[Result]]:
        """See `StateMachine.apply`. When it raises, what the store shows may be ahead of `last_applied`: give it up."""
        if not entries:
            return []
        step, self._prepared = self._prepared, None
        if step is None or step.entries != entries:
            self._check_contiguous(entries)
            step = self._run(entries, wants_results=wants_results)
        self._store.write(step.batch)
        self._position = step.position
        self.revision = step.position.revision
        self.compact_revision = step.position.compact_revision
        return step.results

    def prepare(self, entry: Entry) -> None:
        """Do all of the work of applying `entry` but the writing. It is next in the log, and not committed yet.

        For a leader, which has the time while its followers write. Nothing of it shows before `apply` is given exactly
        this entry; if another was committed in its place (Raft §5.3), what was prepared is forgotten.
        """
        self._store.settle()
        if entry.index == self._position.last_applied + 1:
            self._prepared = self._run([entry], wants_results=True)

    def _run(self, entries: Sequence[Entry], *, wants_results: bool) -> _Step:
        batches = [
            decode_batch(entry.data, entry.index) if entry.kind == EntryKind.COMMANDS else [] for entry in entries
        ]
        batch = self._store.new_batch()
        step = Step(self._store, batch, self.revision, self.compact_revision)
        step.fetch(itertools.chain.from_iterable(batches))
        results: list[Sequence[Result]] = [step.run(commands, wants_results=wants_results) for commands in batches]
        last = entries[-1]
        position = Position(last.index, last.term, step.revision, step.compact_revision)
        if step.changes:
            batch.put(changes_key(self.revision + 1), encode_changes(step.changes))
        batch.put(POSITION_KEY, encode_position(position))
        return _Step(entries, batch, position, results)

    def _check_contiguous(self, entries: Sequence[Entry]) -> None:
        expected = self._position.last_applied
        for entry in entries:
            expected += 1
            require(entry.index == expected, "applied entry {} where {} is next", entry.index, expected)

    def flush(self) -> None:
        """See `StateMachine.flush`."""
        self._store.flush()

    def snapshot(self, directory: Path) -> None:
        """See `StateMachine.snapshot`."""
        self._store.checkpoint(directory)

    def close(self) -> None:
        self._store.close()

    def sweep(self, max_count: int = 1000) -> bool:
        """Remove up to about `max_count` records that compaction has made invisible; true when more are left.

        Not part of the logical state: members may do it at any time, in any thread, or never.
        """
        return self._sweeper.sweep(self.compact_revision, max_count)

    # -- reading

    def value(self, key: bytes) -> tuple[bytes, int] | None:
        """The newest (value, mod_revision): the cheapest read there is."""
        record = self._get(CURRENT + key)
        if record is None:
            return None
        return record[RECORD_HEADER_SIZE:], REVISION.unpack_from(record, 8)[0]

    def get(self, key: bytes) -> KeyValue | None:
        """The key as it stands now."""
        return mvcc.read_newest(self._store, key)

    def get_at(self, key: bytes, revision: int) -> KeyValue | None:
        """The key as it stood at `revision`. Raises InvalidInput when that is in the future or compacted."""
        self._check_revision(revision)
        return mvcc.read_at(self._store, key, revision)

    def range(self, start: bytes, stop: bytes | None, *, revision: int = 0, limit_count: int = 0) -> RangeResult:
        """Keys in [start, stop) at `revision` (0 is now); `stop` None goes to the last key, `limit_count` 0 is none.

        Raises InvalidInput like `get_at`.
        """
        found: list[KeyValue] = []
        for key_value in self.scan(start, stop, revision=revision):
            if limit_count and len(found) == limit_count:
                return RangeResult(found, True, self.revision)
            found.append(key_value)
        return RangeResult(found, False, self.revision)

    def scan(self, start: bytes, stop: bytes | None, *, revision: int = 0) -> Iterator[KeyValue]:
        """Like `range`, one key at a time. At the newest revision the iterator sees the state as of its first step."""
        if not revision or revision == self.revision:
            return mvcc.scan_newest(self._store, start, stop)
        self._check_revision(revision)
        return mvcc.scan_at(self._store, start, stop, revision)

    def state_hash(self) -> str:
        """A digest of the logical state: equal on all members with the same `last_applied`. Reads everything."""
        return mvcc.hash_state(self._store, self.revision, self.compact_revision)

    def _check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise InvalidInput(f"revision {revision} is in the future: the newest is {self.revision}")
        if revision < self.compact_revision or revision < 1:
            raise InvalidInput(f"revision {revision} was compacted: the oldest kept is {self.compact_revision}")

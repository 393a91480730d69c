"""Removing, little by little, what compaction has made invisible.

Compaction itself is one number, `compact_revision`, changed by a command and so at the same log position on every
member. The records below it are removed in bounded steps whenever there is time. A change says which version it
superseded, so a step reads the changes in order of revision and deletes by exact key: nothing is searched for.

A batch of changes goes in the same write as the records that it names, and only whole batches at or below
`compact_revision` go. A crash between steps thus leaves a state that the next sweep carries on from, and
the changes above `compact_revision`, which a watch reads, are never touched.

Turned down: a sweep over all keys, as etcd does it. It reads the whole state to remove a little.
"""

from __future__ import annotations

from raftkv.kv.keyspace import changes_key, decode_changes, history_key, split_changes_key
from raftkv.statemachine import OrderedStore


class Sweeper:
    """Where the last step ended. In memory only: after a restart the first step finds the place again."""

    __slots__ = ("_next_revision", "_store")

    def __init__(self, store: OrderedStore) -> None:
        self._store = store
        self._next_revision = 1

    def sweep(self, compact_revision: int, max_count: int) -> bool:
        """One step; true when more is left. Cheap when there is nothing to do."""
        if self._next_revision > compact_revision:
            return False
        batch = self._store.new_batch()
        count = 0
        start = self._next_revision
        stop_revision = start
        has_more = False
        for stored, data in self._store.scan(changes_key(start), changes_key(compact_revision + 1)):
            revision = split_changes_key(stored)
            changes = decode_changes(data)
            if revision + len(changes) - 1 > compact_revision:
                break
            if count >= max_count:
                has_more = True
                break
            for key, superseded in changes:
                if superseded:
                    batch.delete(history_key(key, abs(superseded)))
                if superseded < 0:
                    batch.delete(history_key(key, revision))
                revision += 1
            count += len(changes)
            stop_revision = revision
        if stop_revision > start:
            batch.delete_range(changes_key(start), changes_key(stop_revision))
            self._store.write(batch)
            self._next_revision = stop_revision
        return has_more

"""Reads at any kept revision, over the layout of `keyspace`.

A version of a key is visible at revision R when it is the newest with mod_revision <= R and is not a deletion.
Records that no kept revision can see may still lie in the store, because they are removed little by little
(`sweep`): everything here goes by `compact_revision` and never by what happens to be there, so members that
have swept differently far answer, and hash, alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from raftkv.kv import keyspace
from raftkv.kv.keyspace import decode_record, history_key, history_prefix, split_history_key
from raftkv.kv.results import KeyValue
from raftkv.statemachine import OrderedStore

DELETED = b""
"""The record of a deletion in the history."""


def read_newest(store: OrderedStore, key: bytes) -> KeyValue | None:
    record = store.get(keyspace.CURRENT + key)
    return None if record is None else decode_record(key, record)


def read_at(store: OrderedStore, key: bytes, revision: int) -> KeyValue | None:
    """The key as it stood at `revision`, which the caller has checked to be kept."""
    newest = read_newest(store, key)
    if newest is not None and newest.mod_revision <= revision:
        return newest
    older = store.scan(history_prefix(key), history_key(key, revision + 1), reverse=True)
    for _, record in older:
        return decode_record(key, record) if record != DELETED else None
    return None


def scan_newest(store: OrderedStore, start: bytes, stop: bytes | None) -> Iterator[KeyValue]:
    """Live keys in [start, stop), ascending; `stop` None means to the last key."""
    end = keyspace.CURRENT_STOP if stop is None else keyspace.CURRENT + stop
    for stored, record in store.scan(keyspace.CURRENT + start, end):
        yield decode_record(stored[1:], record)


def scan_at(store: OrderedStore, start: bytes, stop: bytes | None, revision: int) -> Iterator[KeyValue]:
    """The keys that were live at `revision`, ascending."""
    for key, versions in scan_versions(store, start, stop):
        seen = [record for mod_revision, record in versions if mod_revision <= revision]
        if seen and seen[-1] != DELETED:
            yield decode_record(key, seen[-1])


def scan_versions(
    store: OrderedStore, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, list[tuple[int, bytes]]]]:
    """Every key with all its stored (mod_revision, record), oldest first, the newest value last.

    Merges the two ordered halves of the layout, so memory holds the versions of one key at a time.
    """
    history = _group_history(store, start, stop)
    past = next(history, None)
    for newest in _raw_newest(store, start, stop):
        key, version = newest
        while past is not None and past[0] < key:
            yield past
            past = next(history, None)
        if past is not None and past[0] == key:
            yield key, [*past[1], version]
            past = next(history, None)
        else:
            yield key, [version]
    if past is not None:
        yield past
        yield from history


def hash_state(store: OrderedStore, revision: int, compact_revision: int) -> str:
    """A digest of everything that reads at kept revisions can see; equal on members at the same applied index."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(b"%d %d\n" % (revision, compact_revision))
    for key, versions in scan_versions(store, b"", None):
        for mod_revision, record in _visible_versions(versions, compact_revision):
            digest.update(b"%d %d %d\n" % (len(key), mod_revision, len(record)))
            digest.update(key)
            digest.update(record)
    return digest.hexdigest()


def _visible_versions(versions: list[tuple[int, bytes]], compact_revision: int) -> Iterator[tuple[int, bytes]]:
    """Versions above `compact_revision`, and before them the one that a read at it would find."""
    base: tuple[int, bytes] | None = None
    for version in versions:
        if version[0] <= compact_revision:
            base = version
            continue
        if base is not None and base[1] != DELETED:
            yield base
        base = None
        yield version
    if base is not None and base[1] != DELETED:
        yield base


def _raw_newest(store: OrderedStore, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, tuple[int, bytes]]]:
    end = keyspace.CURRENT_STOP if stop is None else keyspace.CURRENT + stop
    for stored, record in store.scan(keyspace.CURRENT + start, end):
        yield stored[1:], (keyspace.REVISION.unpack_from(record, 8)[0], record)


def _group_history(
    store: OrderedStore, start: bytes, stop: bytes | None
) -> Iterator[tuple[bytes, list[tuple[int, bytes]]]]:
    end = keyspace.HISTORY_STOP if stop is None else history_prefix(stop)
    key: bytes | None = None
    versions: list[tuple[int, bytes]] = []
    for stored, record in store.scan(history_prefix(start), end):
        found, mod_revision = split_history_key(stored)
        if found != key:
            if key is not None:
                yield key, versions
            key, versions = found, []
        versions.append((mod_revision, record))
    if key is not None:
        yield key, versions

"""What the key-value machine promises, one claim a test; the model test covers the combinations."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftkv.errors import InvalidInput, InvariantViolation, StorageError
from raftkv.kv import (
    Compact,
    CompactResult,
    Delete,
    DeleteResult,
    KeyValue,
    KeyValueMachine,
    Put,
    PutResult,
    encode_batch,
)
from raftkv.kv.keyspace import CHANGES, HISTORY, POSITION_KEY
from raftkv.storage import MemoryStore
from raftkv.types import Entry, EntryKind
from tests.kv.model import commands_entry


def machine_with(*batches: list[Put | Delete | Compact]) -> KeyValueMachine:
    machine = KeyValueMachine(MemoryStore())
    machine.apply([commands_entry(index, batch) for index, batch in enumerate(batches, 1)])
    return machine


def count_records(store: MemoryStore, namespace: bytes) -> int:
    return len(list(store.scan(namespace, bytes([namespace[0] + 1]))))


def test_an_empty_state_is_at_revision_one() -> None:
    machine = KeyValueMachine(MemoryStore())
    assert (machine.revision, machine.compact_revision, machine.last_applied) == (1, 0, 0)
    assert machine.get(b"a") is None


def test_a_life_of_a_key() -> None:
    machine = KeyValueMachine(MemoryStore())
    results = machine.apply(
        [commands_entry(1, [Put(b"k", b"1"), Put(b"k", b"2", 7), Delete(b"k"), Delete(b"k"), Put(b"k", b"3")])]
    )
    assert results == [
        [PutResult(2, 2, 1), PutResult(3, 2, 2), DeleteResult(4, True), DeleteResult(4, False), PutResult(5, 5, 1)]
    ]
    assert machine.get(b"k") == KeyValue(b"k", b"3", 5, 5, 1)
    assert machine.get_at(b"k", 4) is None
    assert machine.get_at(b"k", 3) == KeyValue(b"k", b"2", 2, 3, 2, 7)
    assert machine.get_at(b"k", 1) is None


def test_noop_and_configuration_entries_move_last_applied_only() -> None:
    machine = KeyValueMachine(MemoryStore())
    results = machine.apply(
        [
            Entry(1, 1, EntryKind.NOOP),
            Entry(2, 1, EntryKind.CONFIGURATION, b"not commands"),
            commands_entry(3, [Put(b"a", b"1")], term=2),
            Entry(4, 3, EntryKind.NOOP),
        ]
    )
    assert [list(result) for result in results] == [[], [], [PutResult(2, 2, 1)], []]
    assert (machine.last_applied, machine.last_applied_term, machine.revision) == (4, 3, 2)


def test_nothing_to_apply_is_nothing_done() -> None:
    machine = KeyValueMachine(MemoryStore())
    assert machine.apply([]) == []
    assert machine.last_applied == 0


@pytest.mark.parametrize("index", [0, 1, 3])
def test_an_entry_out_of_order_is_our_bug_and_changes_nothing(index: int) -> None:
    machine = machine_with([Put(b"a", b"1")])
    before = machine.state_hash()
    with pytest.raises(InvariantViolation, match="2 is next"):
        machine.apply([commands_entry(index, [Put(b"a", b"2")])])
    with pytest.raises(InvariantViolation, match="3 is next"):
        machine.apply([commands_entry(2, [Put(b"a", b"2")]), commands_entry(4, [Put(b"a", b"3")])])
    assert (machine.state_hash(), machine.last_applied) == (before, 1)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", encode_batch([Put(b"a", b"2")])[:-1], encode_batch([]) + b"\x00", b"\x91\x93\x09\xc4\x00\xc4\x00"],
    ids=["empty", "not MessagePack", "cut short", "something behind it", "a tag of a newer version"],
)
def test_committed_bytes_that_do_not_decode_stop_the_node(data: bytes) -> None:
    """Skipping them would let this copy differ from the others; nothing of the call is applied."""
    machine = machine_with([Put(b"a", b"1")])
    before = machine.state_hash()
    with pytest.raises(StorageError, match="entry 3"):
        machine.apply([commands_entry(2, [Put(b"a", b"2")]), Entry(3, 1, EntryKind.COMMANDS, data)])
    assert (machine.state_hash(), machine.last_applied) == (before, 1)


def test_the_applied_index_is_in_the_same_write_as_the_changes() -> None:
    """A crash keeps whole writes, so whatever survives knows its own applied index (etcd#13766)."""
    store = MemoryStore()
    machine = KeyValueMachine(store)
    machine.apply([commands_entry(1, [Put(b"a", b"1")])])
    machine.flush()
    machine.apply([commands_entry(2, [Put(b"a", b"2"), Delete(b"a")])])
    survivor = KeyValueMachine(store.crashed())
    assert survivor.last_applied == 1
    assert survivor.get(b"a") == KeyValue(b"a", b"1", 2, 2, 1)
    survivor.apply([commands_entry(2, [Put(b"a", b"2"), Delete(b"a")])])
    assert survivor.state_hash() == machine.state_hash()


def test_the_newest_value_is_one_get() -> None:
    class CountingStore(MemoryStore):
        get_count = 0

        def get(self, key: bytes, /) -> bytes | None:
            self.get_count += 1
            return super().get(key)

    store = CountingStore()
    machine = KeyValueMachine(store)
    machine.apply([commands_entry(1, [Put(b"a", b"1"), Put(b"a", b"2")])])
    store.get_count = 0
    assert machine.value(b"a") == (b"2", 3)
    assert store.get_count == 1


def test_compaction_is_refused_in_the_future_and_in_the_past() -> None:
    machine = machine_with([Put(b"a", b"1"), Put(b"a", b"2"), Put(b"a", b"3")])
    results = machine.apply(
        [commands_entry(2, [Compact(5), Compact(3), Compact(3), Compact(2), Compact(4), Compact(-1)])]
    )
    assert results == [
        [
            CompactResult(4, 0, False),
            CompactResult(4, 3, True),
            CompactResult(4, 3, False),
            CompactResult(4, 3, False),
            CompactResult(4, 4, True),
            CompactResult(4, 4, False),
        ]
    ]


def test_reads_of_compacted_and_future_revisions_are_refused() -> None:
    machine = machine_with([Put(b"a", b"1"), Put(b"a", b"2"), Put(b"a", b"3"), Compact(3)])
    assert machine.get_at(b"a", 3) == KeyValue(b"a", b"2", 2, 3, 2)
    for revision, problem in ((2, "compacted"), (-1, "compacted"), (5, "future")):
        with pytest.raises(InvalidInput, match=problem):
            machine.get_at(b"a", revision)
        with pytest.raises(InvalidInput, match=problem):
            machine.range(b"", None, revision=revision)


def test_a_range_stops_at_its_limit_and_says_so() -> None:
    machine = machine_with([Put(key, b"1") for key in (b"a", b"b", b"c")])
    assert [kv.key for kv in machine.range(b"a", b"c").key_values] == [b"a", b"b"]
    cut = machine.range(b"", None, limit_count=2)
    assert ([kv.key for kv in cut.key_values], cut.has_more, cut.revision) == ([b"a", b"b"], True, 4)
    assert not machine.range(b"", None, limit_count=3).has_more


def test_compaction_hides_at_once_and_sweeping_changes_nothing_visible() -> None:
    store = MemoryStore()
    machine = KeyValueMachine(store)
    for index in range(1, 11):
        machine.apply([commands_entry(index, [Put(b"a", b"%d" % index), Put(b"b", b""), Delete(b"b")])])
    full = machine.state_hash()
    machine.apply([commands_entry(11, [Compact(20)])])
    hidden = machine.state_hash()
    assert hidden != full
    steps = 0
    while machine.sweep(max_count=3):
        steps += 1
        assert machine.state_hash() == hidden
    assert steps >= 4
    assert machine.state_hash() == hidden
    assert machine.get_at(b"a", 20) == KeyValue(b"a", b"7", 2, 20, 7)


def test_sweeping_to_the_newest_revision_leaves_only_what_lives() -> None:
    store = MemoryStore()
    machine = KeyValueMachine(store)
    for index in range(1, 11):
        machine.apply([commands_entry(index, [Put(b"a", b"x"), Put(b"gone", b"x"), Delete(b"gone")])])
    machine.apply([commands_entry(11, [Compact(machine.revision)])])
    while machine.sweep(max_count=4):
        pass
    assert count_records(store, HISTORY) == 0
    assert count_records(store, CHANGES) == 0
    assert machine.get(b"a") is not None


def test_a_sweep_carries_on_after_a_crash() -> None:
    store = MemoryStore()
    machine = KeyValueMachine(store)
    for index in range(1, 11):
        machine.apply([commands_entry(index, [Put(b"a", b"x"), Put(b"a", b"y")])])
    machine.apply([commands_entry(11, [Compact(machine.revision)])])
    machine.flush()
    assert machine.sweep(max_count=4)
    survivor_store = store.crashed()
    survivor = KeyValueMachine(survivor_store)
    while survivor.sweep(max_count=4):
        pass
    assert count_records(survivor_store, HISTORY) == 0
    assert survivor.state_hash() == machine.state_hash()


def test_a_state_of_a_newer_format_is_refused() -> None:
    store = MemoryStore({POSITION_KEY: (2).to_bytes(8, "big") + bytes(64)})
    with pytest.raises(StorageError, match="format 2"):
        KeyValueMachine(store)
    with pytest.raises(StorageError, match="damaged"):
        KeyValueMachine(MemoryStore({POSITION_KEY: b"x"}))


def test_a_snapshot_is_the_state_at_last_applied(tmp_path: Path) -> None:
    machine = machine_with([Put(b"a", b"1")], [Put(b"a", b"2")])
    machine.snapshot(tmp_path / "snapshot")
    expected = machine.state_hash()
    machine.apply([commands_entry(3, [Put(b"a", b"3")])])
    copy = KeyValueMachine(MemoryStore.open(tmp_path / "snapshot"))
    assert (copy.last_applied, copy.state_hash()) == (2, expected)


# ---- Prepared before it is committed


def test_what_is_prepared_shows_only_when_it_is_applied() -> None:
    machine = machine_with([Put(b"k", b"1")])
    entry = commands_entry(2, [Put(b"k", b"2"), Delete(b"k"), Put(b"k", b"3")])
    machine.prepare(entry)
    assert (machine.revision, machine.last_applied) == (2, 1)
    assert machine.get(b"k") == KeyValue(b"k", b"1", 2, 2, 1)
    assert machine.apply([entry]) == [[PutResult(3, 2, 2), DeleteResult(4, True), PutResult(5, 5, 1)]]
    plain = machine_with([Put(b"k", b"1")], [Put(b"k", b"2"), Delete(b"k"), Put(b"k", b"3")])
    assert machine.state_hash() == plain.state_hash()


def test_another_entry_that_was_committed_in_its_place_is_applied_instead() -> None:
    """Another leader's entry may replace one that was proposed and not committed (Raft §5.3)."""
    for committed in (
        [Entry(2, 2, EntryKind.COMMANDS, encode_batch([Put(b"k", b"theirs")]))],
        [Entry(2, 2, EntryKind.NOOP), commands_entry(3, [Put(b"k", b"theirs")])],
    ):
        machine = machine_with([Put(b"k", b"1")])
        machine.prepare(commands_entry(2, [Put(b"k", b"ours"), Put(b"other", b"ours")]))
        machine.apply(committed)
        plain = machine_with([Put(b"k", b"1")])
        plain.apply(committed)
        assert machine.state_hash() == plain.state_hash()
        assert machine.get(b"other") is None


def test_what_was_prepared_for_a_state_that_has_moved_on_is_forgotten() -> None:
    machine = machine_with([Put(b"k", b"1")])
    stale = commands_entry(2, [Put(b"k", b"2")])
    machine.prepare(stale)
    machine.apply([stale])
    machine.prepare(stale)
    with pytest.raises(InvariantViolation, match="applied entry 2 where 3 is next"):
        machine.apply([stale])
    machine.prepare(commands_entry(7, [Put(b"k", b"far ahead")]))
    assert machine.apply([commands_entry(3, [Put(b"k", b"3")])]) == [[PutResult(4, 2, 3)]]

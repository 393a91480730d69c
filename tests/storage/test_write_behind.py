"""What is gathered in front of a store is seen like what is in it, goes on in large batches, and is lost as a whole."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from raftkv.errors import StorageError
from raftkv.statemachine import WriteBatch
from raftkv.storage import MemoryStore, WriteBehind
from raftkv.storage.write_behind import GATHER_MAX_BYTES, GATHER_MAX_COUNT, SETTLE_MIN_COUNT


class WatchedStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.write_count = 0
        self.asked: list[bytes] = []
        self.error: StorageError | None = None

    def write(self, batch: WriteBatch, /) -> None:
        if self.error is not None:
            raise self.error
        self.write_count += 1
        super().write(batch)

    def get_many(self, keys: Sequence[bytes], /) -> list[bytes | None]:
        self.asked += keys
        return super().get_many(keys)


def put(store: WriteBehind, *pairs: tuple[bytes, bytes | None]) -> None:
    batch = store.new_batch()
    for key, value in pairs:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    store.write(batch)


def test_what_was_gathered_is_read_before_what_is_in_the_store() -> None:
    inner = WatchedStore()
    store = WriteBehind(inner)
    put(store, (b"a", b"1"), (b"b", b"1"))
    store.flush()
    put(store, (b"a", b"2"), (b"b", None), (b"c", b"1"))
    assert inner.write_count == 1
    assert [store.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"2", None, b"1", None]
    assert store.get_many([b"d", b"c", b"a", b"b", b"a"]) == [None, b"1", b"2", None, b"2"]
    assert inner.asked == [b"d"]
    assert inner.get(b"a") == b"1"
    store.flush()
    assert inner.get_many([b"a", b"b", b"c"]) == [b"2", None, b"1"]


def test_what_goes_on_goes_as_one_batch_with_the_last_value_of_each_key() -> None:
    inner = WatchedStore()
    store = WriteBehind(inner)
    for number in range(100):
        put(store, (b"key", b"%d" % number), (b"%d" % number, b""))
    assert inner.write_count == 0
    store.flush()
    assert inner.write_count == 1
    assert inner.get(b"key") == b"99"
    assert len(list(inner.scan(b"", b"\xff"))) == 101


@pytest.mark.parametrize(("count", "size_bytes"), [(GATHER_MAX_COUNT, 1), (8, GATHER_MAX_BYTES // 8)])
def test_no_more_is_gathered_than_the_limits_allow(count: int, size_bytes: int) -> None:
    inner = WatchedStore()
    store = WriteBehind(inner)
    for number in range(count - 1):
        put(store, (b"%d" % number, bytes(size_bytes)))
    assert inner.write_count == 0
    put(store, (b"last", bytes(size_bytes)))
    assert inner.write_count == 1
    put(store, (b"first of the next", b""))
    assert inner.write_count == 1


def test_who_has_a_moment_lets_go_on_what_is_worth_it() -> None:
    inner = WatchedStore()
    store = WriteBehind(inner)
    for number in range(SETTLE_MIN_COUNT - 1):
        put(store, (b"%d" % number, b""))
    store.settle()
    assert inner.write_count == 0
    put(store, (b"last", b""))
    store.settle()
    assert inner.write_count == 1


def test_a_range_is_emptied_of_what_was_gathered_and_of_what_is_in_the_store() -> None:
    store = WriteBehind(WatchedStore())
    put(store, (b"a1", b""), (b"b1", b""), (b"c1", b""))
    store.flush()
    put(store, (b"a2", b""), (b"b2", b""), (b"c2", b""))
    batch = store.new_batch()
    batch.put(b"b3", b"")
    batch.put(b"c3", b"")
    batch.delete_range(b"b", b"c")
    batch.put(b"b4", b"")
    store.write(batch)
    assert [store.get(key) for key in (b"b1", b"b2", b"b3", b"b4")] == [None, None, None, b""]
    assert [key for key, _ in store.scan(b"", b"z")] == [b"a1", b"a2", b"b4", b"c1", b"c2", b"c3"]


def test_a_store_that_cannot_be_written_says_so_and_is_closed_all_the_same() -> None:
    inner = WatchedStore()
    store = WriteBehind(inner)
    put(store, (b"a", b"1"))
    inner.error = StorageError("the disk is gone")
    with pytest.raises(StorageError, match="the disk is gone"):
        store.flush()
    assert store.get(b"a") == b"1"
    with pytest.raises(StorageError, match="the disk is gone"):
        store.close()
    with pytest.raises(StorageError, match="closed"):
        store.get(b"a")
    store.close()


@pytest.mark.parametrize("seed", range(30))
def test_after_a_crash_the_store_holds_whole_batches_and_none_without_those_before(seed: int) -> None:
    order = random.Random(seed)
    inner = MemoryStore()
    store = WriteBehind(inner)
    expected: dict[bytes, bytes] = {}
    states = [dict(expected)]
    flushed = 0
    for number in range(60):
        changes: list[tuple[bytes, bytes | None]] = [
            (b"k%d" % order.randint(0, 9), order.choice([None, b"%d" % number])) for _ in range(order.randint(0, 5))
        ]
        changes.append((b"number", b"%d" % number))
        put(store, *changes)
        for key, value in changes:
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
        states.append(dict(expected))
        match order.randint(0, 9):
            case 0:
                store.flush()
                flushed = len(states) - 1
            case 1:
                assert dict(store.scan(b"", b"z")) == expected
            case _:
                assert {key: store.get(key) for key in (b"number", b"k3")} == {
                    key: expected.get(key) for key in (b"number", b"k3")
                }
    survived = dict(inner.crashed().scan(b"", b"z"))
    assert survived in states[flushed:]

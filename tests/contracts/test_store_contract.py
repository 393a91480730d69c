"""One contract, two stores: whatever `OrderedStore` promises is asked of RocksDB and of the fake alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv.errors import StorageError
from raftkv.statemachine import OrderedStore
from raftkv.storage import MemoryStore, RocksStore, WriteBehind

TRICKY_KEYS = [b"", b"\x00", b"\x00\x00", b"\x00\xff", b"a", b"a\x00", b"a\xff", b"aa", b"b", b"\xff", b"\xff\xff"]


@pytest.fixture(params=["memory", "rocks", "behind rocks"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Iterator[OrderedStore]:
    opened: OrderedStore = MemoryStore() if kind == "memory" else RocksStore(tmp_path / "state")
    if kind == "behind rocks":
        opened = WriteBehind(opened)
    yield opened
    opened.close()


def fill(store: OrderedStore, values: dict[bytes, bytes]) -> None:
    batch = store.new_batch()
    for key, value in values.items():
        batch.put(key, value)
    store.write(batch)


def test_an_empty_store_has_nothing(store: OrderedStore) -> None:
    assert store.get(b"a") is None
    assert store.get_many([b"a", b"b"]) == [None, None]
    assert store.get_many([]) == []
    assert list(store.scan(b"", b"\xff")) == []


def test_a_batch_is_invisible_until_it_is_written(store: OrderedStore) -> None:
    batch = store.new_batch()
    batch.put(b"a", b"1")
    assert store.get(b"a") is None
    store.write(batch)
    assert store.get(b"a") == b"1"


def test_later_changes_of_a_batch_win(store: OrderedStore) -> None:
    fill(store, {b"gone": b"1", b"back": b"1"})
    batch = store.new_batch()
    batch.put(b"gone", b"2")
    batch.delete(b"gone")
    batch.delete(b"back")
    batch.put(b"back", b"3")
    batch.put(b"twice", b"1")
    batch.put(b"twice", b"2")
    store.write(batch)
    assert store.get_many([b"gone", b"back", b"twice"]) == [None, b"3", b"2"]


def test_get_many_keeps_order_and_repetition(store: OrderedStore) -> None:
    fill(store, {b"a": b"1", b"b": b"", b"c": b"3"})
    assert store.get_many([b"c", b"x", b"a", b"c", b"b"]) == [b"3", None, b"1", b"3", b""]


def test_an_empty_value_is_a_value(store: OrderedStore) -> None:
    fill(store, {b"a": b""})
    assert store.get(b"a") == b""
    assert list(store.scan(b"", b"b")) == [(b"a", b"")]


def test_keys_are_ordered_as_bytes(store: OrderedStore) -> None:
    fill(store, {key: key for key in reversed(TRICKY_KEYS)})
    assert [key for key, _ in store.scan(b"", b"\xff\xff\xff")] == sorted(TRICKY_KEYS)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_holds_start_and_excludes_stop(store: OrderedStore, reverse: bool) -> None:
    fill(store, {key: key for key in TRICKY_KEYS})
    for start in TRICKY_KEYS:
        for stop in TRICKY_KEYS:
            expected = sorted((key for key in TRICKY_KEYS if start <= key < stop), reverse=reverse)
            assert [key for key, _ in store.scan(start, stop, reverse)] == expected, (start, stop)


def test_a_scan_up_to_an_absent_key_going_down(store: OrderedStore) -> None:
    fill(store, {b"a": b"1", b"c": b"2", b"e": b"3"})
    assert [key for key, _ in store.scan(b"b", b"d", True)] == [b"c"]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_sees_the_store_as_at_the_call(store: OrderedStore, reverse: bool) -> None:
    fill(store, {b"a": b"1", b"b": b"1", b"c": b"1"})
    seen = store.scan(b"a", b"z", reverse)
    batch = store.new_batch()
    batch.put(b"b", b"2")
    batch.delete(b"c")
    batch.put(b"d", b"2")
    store.write(batch)
    assert sorted(seen) == [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")]


def test_delete_range_excludes_its_end(store: OrderedStore) -> None:
    fill(store, {b"a": b"1", b"b": b"1", b"ba": b"1", b"c": b"1"})
    batch = store.new_batch()
    batch.delete_range(b"b", b"c")
    batch.delete_range(b"x", b"y")
    store.write(batch)
    assert [key for key, _ in store.scan(b"", b"z")] == [b"a", b"c"]


def test_a_checkpoint_opens_as_an_equal_store_and_stays_as_it_was(
    store: OrderedStore, kind: str, tmp_path: Path
) -> None:
    fill(store, {b"a": b"1", b"b": b"2"})
    store.checkpoint(tmp_path / "copy")
    fill(store, {b"a": b"changed", b"c": b"new"})
    store.flush()
    copy: OrderedStore = MemoryStore.open(tmp_path / "copy") if kind == "memory" else RocksStore(tmp_path / "copy")
    try:
        assert list(copy.scan(b"", b"z")) == [(b"a", b"1"), (b"b", b"2")]
    finally:
        copy.close()


def test_a_checkpoint_never_overwrites(store: OrderedStore, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(StorageError, match="copy"):
        store.checkpoint(tmp_path / "copy")


def test_a_closed_store_refuses_and_closes_again(store: OrderedStore) -> None:
    fill(store, {b"a": b"1"})
    batch = store.new_batch()
    batch.put(b"b", b"1")
    store.close()
    store.close()
    with pytest.raises(StorageError):
        store.get(b"a")
    with pytest.raises(StorageError):
        store.get_many([b"a"])
    with pytest.raises(StorageError):
        store.write(batch)
    with pytest.raises(StorageError):
        store.scan(b"", b"z")
    with pytest.raises(StorageError):
        store.flush()

"""RocksStore under a real kernel: what a killed process leaves, and what flush, checkpoint and damage do."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raftkv.errors import StorageError
from raftkv.kv import Command, Compact, Delete, KeyValueMachine, Put
from raftkv.storage import MemoryStore, RocksSettings, RocksStore
from raftkv.types import Entry
from tests.kv.model import commands_entry

SMALL = RocksSettings(write_buffer_bytes=64 << 10, block_cache_bytes=1 << 20)
"""Buffers fill, and are written out by RocksDB itself, every few hundred entries."""


def seeded_entry(index: int) -> Entry:
    """The same entry for the same index in every process."""
    source = random.Random(index)
    commands: list[Command] = []
    for _ in range(source.randrange(1, 6)):
        key = b"key%d" % source.randrange(200)
        commands.append(Delete(key) if source.random() < 0.2 else Put(key, source.randbytes(40)))
    if source.random() < 0.02:
        commands.append(Compact(index))
    return commands_entry(index, commands)


def apply_for_ever(directory: Path) -> None:
    """The child: applies and sweeps, flushes in a thread, and says what is durable. Ends by being killed."""
    machine = KeyValueMachine(RocksStore(directory, SMALL))
    first_index = machine.last_applied

    def flush() -> None:
        while True:
            index = machine.last_applied
            machine.flush()
            if index > first_index:
                sys.stdout.write(f"{index}\n")
                sys.stdout.flush()

    threading.Thread(target=flush, daemon=True).start()
    while True:
        machine.apply([seeded_entry(machine.last_applied + 1), seeded_entry(machine.last_applied + 2)])
        machine.sweep(5)


CHILD = "import pathlib, sys; from tests.storage import test_engine as t; t.apply_for_ever(pathlib.Path(sys.argv[1]))"


def run_and_kill(directory: Path, reports_count: int) -> int:
    """Run the child until that many flushes were reported, kill -9 it, and return the last reported index."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as child:
        assert child.stdout is not None
        reported = [child.stdout.readline() for _ in range(reports_count)]
        child.kill()
        reported += child.stdout.readlines()
    return int([line for line in reported if line.endswith("\n")][-1])


def test_what_kill_9_leaves_is_a_prefix_that_knows_its_end(tmp_path: Path) -> None:
    """At least all that flush reported; exactly the entries up to `last_applied`, whole; and it can go on."""
    reference = KeyValueMachine(MemoryStore())
    for round_count in (1, 3, 7):
        reported_index = run_and_kill(tmp_path / "state", round_count)
        survivor = KeyValueMachine(RocksStore(tmp_path / "state", SMALL))
        assert survivor.last_applied >= reported_index
        assert survivor.last_applied > reference.last_applied, "the child did nothing"
        while reference.last_applied < survivor.last_applied:
            reference.apply([seeded_entry(reference.last_applied + 1)])
        assert survivor.state_hash() == reference.state_hash()
        survivor.close()


def test_a_clean_close_keeps_everything(tmp_path: Path) -> None:
    machine = KeyValueMachine(RocksStore(tmp_path / "state"))
    machine.apply([seeded_entry(index) for index in range(1, 50)])
    expected = machine.state_hash()
    machine.close()
    again = KeyValueMachine(RocksStore(tmp_path / "state"))
    assert (again.last_applied, again.state_hash()) == (49, expected)
    again.close()


def test_applying_goes_on_beside_a_flush(tmp_path: Path) -> None:
    """The runtime flushes in a thread; neither that nor a checkpoint may disturb what is applied meanwhile."""
    machine = KeyValueMachine(RocksStore(tmp_path / "state", SMALL))
    reference = KeyValueMachine(MemoryStore())
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            machine.flush()

    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(flush)
        try:
            for index in range(1, 600):
                entry = seeded_entry(index)
                assert machine.apply([entry]) == reference.apply([entry])
                if index % 200 == 0:
                    machine.snapshot(tmp_path / f"at-{index}")
                    copy = KeyValueMachine(RocksStore(tmp_path / f"at-{index}"))
                    assert (copy.last_applied, copy.state_hash()) == (index, reference.state_hash())
                    copy.close()
        finally:
            stop.set()
        flushing.result()
    machine.close()


def test_no_log_of_rocksdb_is_written(tmp_path: Path) -> None:
    """Raft's log is the only one; a second one would double the bytes written."""
    store = RocksStore(tmp_path / "state")
    batch = store.new_batch()
    for number in range(1000):
        batch.put(b"%d" % number, bytes(100))
    store.write(batch)
    assert sum(path.stat().st_size for path in (tmp_path / "state").glob("*.log")) == 0
    store.close()


def test_two_cannot_open_one_state(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "state")
    with pytest.raises(StorageError, match=r"cannot open the state in .*state: .*lock"):
        RocksStore(tmp_path / "state")
    store.close()


def flip_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def closed_state(directory: Path) -> str:
    """A state of a few hundred entries; returns its hash."""
    machine = KeyValueMachine(RocksStore(directory))
    machine.apply([seeded_entry(index) for index in range(1, 200)])
    state_hash = machine.state_hash()
    machine.close()
    return state_hash


def hash_of(directory: Path) -> str:
    store = RocksStore(directory)
    try:
        return KeyValueMachine(store).state_hash()
    finally:
        store.close()


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*.sst", cut),
        ("*.sst", Path.unlink),
        ("MANIFEST-*", lambda path: flip_byte(path, 20)),
        ("CURRENT", cut),
    ],
    ids=["cut data", "lost data", "changed manifest", "cut pointer"],
)
def test_damaged_files_are_refused(tmp_path: Path, pattern: str, damage: Callable[[Path], None]) -> None:
    closed_state(tmp_path / "state")
    damage(next((tmp_path / "state").glob(pattern)))
    with pytest.raises(StorageError, match=r"the state in .*state"):
        hash_of(tmp_path / "state")


def test_a_changed_byte_is_never_read_as_data_nor_as_the_end_of_it(tmp_path: Path) -> None:
    """Wherever the byte lies, reading everything gives an error or all of it; most are data, so mostly an error."""
    expected = closed_state(tmp_path / "state")
    file = next((tmp_path / "state").glob("*.sst"))
    places = range(0, file.stat().st_size, file.stat().st_size // 30)
    refused_count = 0
    for offset in places:
        flip_byte(file, offset)
        try:
            assert hash_of(tmp_path / "state") == expected
        except StorageError:
            refused_count += 1
        flip_byte(file, offset)
    assert hash_of(tmp_path / "state") == expected
    assert refused_count > len(places) // 2


def test_get_many_reports_a_damaged_block(tmp_path: Path) -> None:
    """Read as "missing" it would make an overwrite look like the first put, on this member only."""
    store = RocksStore(tmp_path / "state")
    keys = [b"%05d" % number for number in range(2000)]
    batch = store.new_batch()
    for key in keys:
        batch.put(key, random.Random(key).randbytes(50))
    store.write(batch)
    store.close()
    flip_byte(next((tmp_path / "state").glob("*.sst")), 10_000)
    damaged = RocksStore(tmp_path / "state")
    with pytest.raises(StorageError, match="checksum"):
        damaged.get_many(keys)
    damaged.close()


def test_its_memory_is_bounded_by_its_settings(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "state", SMALL)
    value = random.Random(1).randbytes(1000)
    for number in range(100):
        batch = store.new_batch()
        for part in range(50):
            batch.put(b"%d-%d" % (number, part), value)
        store.write(batch)
    for number in range(100):
        store.get_many([b"%d-%d" % (number, part) for part in range(50)])
    assert store.property("rocksdb.cur-size-all-mem-tables") <= 4 * SMALL.write_buffer_bytes
    assert 0 < store.property("rocksdb.block-cache-usage") <= 2 * SMALL.block_cache_bytes
    store.close()


def test_a_store_that_exists_is_opened_with_the_same_options_as_a_new_one(tmp_path: Path) -> None:
    """Left to itself rocksdict takes those of the last time, without the cache's size and without filters."""
    settings = RocksSettings(block_cache_bytes=3 << 20)
    for _ in range(2):
        store = RocksStore(tmp_path / "state", settings)
        assert store.property("rocksdb.block-cache-capacity") == 3 << 20
        newest = max((tmp_path / "state").glob("OPTIONS-*"))
        assert "filter_policy=bloomfilter" in newest.read_text()
        store.close()

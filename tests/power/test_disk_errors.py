"""A sync fails, or a disk is full to the last block: the node stops with a reason, and nothing acknowledged is lost.

How a node refuses writes early, by its reserve, is in `tests/e2e/test_durability.py`; here there is no reserve, or what
fills the disk is the node's own data.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node
from tests.e2e.waiting import eventually, eventually_answers
from tests.power.disk import PowerDisk
from tests.power.faulty_sync import SyncFault
from tests.power.figures import Figures, Moment
from tests.power.load import Load
from tests.power.store import TIMEOUT_S, Store
from tests.power.world import World

THREE = ("node1", "node2", "node3")
STORAGE_ERROR = 7
SMALL = {"segment_size_bytes": 64 << 10, "flush_interval_bytes": 64 << 10, "disk_reserve_bytes": 0}


def load_of(store: Store, problems: list[str]) -> Load:
    return Load([(list(store.nodes.values()), store.ledger)], random.Random(), problems)


def assert_all_there(store: Store) -> None:
    """Every node has everything that was acknowledged, and they agree."""
    figures = Figures()
    store.start_missing()
    store.wait_all_ready()
    store.check(figures, only_changed=False)
    assert not figures.problems, "\n".join([*figures.problems, store.logs()])
    assert store.ledger.acknowledged_count > 0


def assert_stopped(node: Node, *reasons: str) -> None:
    """It ends by itself, within a reasonable time, and its last words say why."""
    assert node.wait_stopped(TIMEOUT_S) == STORAGE_ERROR, node.log()
    last_line = node.log(1)
    assert last_line.startswith("raftkv: error: "), last_line
    assert all(reason in last_line for reason in reasons), last_line


# ---- A sync that fails


@pytest.mark.parametrize(
    ("place", "in_thread", "is_leader", "reason"),
    [
        pytest.param("/wal/", False, True, "cannot write the log", id="the log, in the kernel, of a leader"),
        pytest.param("/wal/", True, False, "cannot write the log", id="the log, in a thread, of a follower"),
        pytest.param("/state/", False, False, "cannot flush the state", id="the state"),
    ],
)
def test_a_failed_sync_stops_its_node_and_the_others_go_on(
    tmp_path: Path, faulty_sync: Path, place: str, in_thread: bool, is_leader: bool, reason: str
) -> None:
    fault = SyncFault(faulty_sync, tmp_path / "fault", place, in_thread=in_thread)
    node_id = "node1" if is_leader else "node2"
    store = Store(tmp_path / "cluster", THREE, {}, {node_id: fault.variables}, **SMALL)
    node = store[node_id]
    problems: list[str] = []
    try:
        store.join_all()
        with load_of(store, problems) as load:
            load.wait_acknowledged(100)
            assert node.is_leader() == is_leader
            fault.arm()
            assert_stopped(node, reason, str(node.data_dir), "Input/output error")
            load.wait_acknowledged(100)
        assert_all_there(store)
    finally:
        problems += store.end()
    assert not problems


@pytest.mark.parametrize("in_thread", [False, True])
def test_what_a_failed_sync_left_in_memory_was_not_acknowledged(
    tmp_path: Path, faulty_sync: Path, in_thread: bool
) -> None:
    """The power fails after the sync: what was written before it is not there any more, and nobody was told it was."""
    fault = SyncFault(faulty_sync, tmp_path / "fault", "/wal/", in_thread=in_thread)
    with World(tmp_path, "alone", random.Random(), fault.variables) as world:
        nodes = [node for store in world.stores for node in store.losing]
        world.start()
        world.check()
        with world.load() as load:
            load.wait_acknowledged(100)
            fault.arm()
            eventually(lambda: not all(node.is_running() for node in nodes), "one of them ends", TIMEOUT_S)
            ended = next(node for node in nodes if not node.is_running())
            assert_stopped(ended, "cannot write the log", "Input/output error")
            world.cut_and_restore(Moment.LOAD)
        world.finish()
    assert not world.figures.problems, world.report()
    assert world.figures.checked_count >= 100


def test_a_sync_that_fails_while_a_node_starts_stops_it_and_the_next_start_is_well(
    tmp_path: Path, faulty_sync: Path
) -> None:
    fault = SyncFault(faulty_sync, tmp_path / "fault", "/wal/")
    store = Store(tmp_path / "alone", ["node1"], {}, {"node1": fault.variables}, **SMALL)
    node = store["node1"]
    problems: list[str] = []
    try:
        store.start_missing()
        store.wait_all_ready()
        with load_of(store, problems) as load:
            load.wait_acknowledged(100)
            node.kill()
        fault.arm()
        node.start()
        assert_stopped(node, "Input/output error")
        assert_all_there(store)
    finally:
        problems += store.end()
    assert not problems


# ---- A disk without space


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[PowerDisk]:
    with PowerDisk(tmp_path / "power", size_bytes=96 << 20) as disk:
        yield disk


def fill(disk: PowerDisk, left_bytes: int) -> Path:
    """A file that leaves no more than that free; remove it to make space."""
    ballast = disk.path / "ballast"
    status = os.statvfs(disk.path)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left_bytes)
    return ballast


@pytest.mark.parametrize("others", [(), THREE[1:]], ids=["alone", "in a cluster"])
def test_a_node_whose_disk_is_full_to_the_last_block_stops_and_comes_back_with_space(
    tmp_path: Path, small_disk: PowerDisk, others: tuple[str, ...]
) -> None:
    store = Store(tmp_path / "cluster", ["node1", *others], {"node1": small_disk.path / "node1"}, {}, **SMALL)
    node = store["node1"]
    problems: list[str] = []
    try:
        if others:
            store.join_all()
        else:
            store.start_missing()
            store.wait_all_ready()
        with load_of(store, problems) as load:
            load.wait_acknowledged(100)
            ballast = fill(small_disk, 1 << 20)
            assert_stopped(node, str(node.data_dir), "No space left on device")
            if others:
                load.wait_acknowledged(100)
        small_disk.cut()
        small_disk.restore()
        ballast.unlink()
        assert_all_there(store)
        eventually_answers(lambda: node.store("after", 1), 200, "writes are accepted", TIMEOUT_S)
    finally:
        problems += store.end()
    assert not problems


def test_a_node_that_fills_its_disk_refuses_writes_early_and_takes_them_again_with_space(tmp_path: Path) -> None:
    """Its own data reaches the reserve, which is large enough for what RocksDB needs meanwhile to rewrite all of it."""
    limits = {"segment_size_bytes": 1 << 20, "flush_interval_bytes": 1 << 20, "log_retention_bytes": 0}
    reserve = {"write_buffer_bytes": 1 << 20, "disk_reserve_bytes": 96 << 20}
    value = "v" * 100_000
    with PowerDisk(tmp_path / "power", size_bytes=256 << 20) as disk:
        store = Store(tmp_path / "alone", ["node1"], {"node1": disk.path / "node1"}, {}, **limits, **reserve)
        node = store["node1"]
        try:
            store.start_missing()
            store.wait_all_ready()
            ballast = fill(disk, 120 << 20)
            with node.connect() as connection:
                stored = 0
                while (
                    answer := connection.request("POST", "/store", {"key": f"k{stored}", "value": value})
                ).status == 200:
                    stored += 1
            assert (answer.status, answer.json["code"], answer.outcome) == (507, "disk_full", "rejected")
            assert stored > 20
            assert node.fetch("k0").data["value"] == value, "reads go on"
            assert node.delete("k1").status == 200, "deletes go on"
            ballast.unlink()
            eventually_answers(lambda: node.store("after", 1), 200, "writes are accepted", TIMEOUT_S)
            disk.cut()
            node.kill()
            disk.restore()
            node.start().wait_ready(TIMEOUT_S)
            assert [number for number in range(stored) if node.fetch(f"k{number}").status != 200] == [1]
            assert node.fetch("after").data["value"] == 1
            assert node.fetch(f"k{stored}").status == 404, "it was refused"
        finally:
            problems = store.end()
    assert not problems

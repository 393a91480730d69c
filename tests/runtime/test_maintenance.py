"""Work beside the hot path: what the log may lose and when, and what a disk that fills up still allows."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import DiskFull, StorageError
from raftkv.kv import Compact
from raftkv.raft import InstallSnapshot
from raftkv.runtime import Node, maintenance
from raftkv.types import Consistency, SnapshotMetadata
from tests.runtime.nodes import MIB, Cluster, delete, get, put, run, submit, until

RESERVE_BYTES = 3 * MIB
"""The least that small settings allow: a log file and two write buffers."""


async def lone(cluster: Cluster, **changes: Any) -> Node:
    node = await cluster.start("node1", **{"segment_size_bytes": 64 * 1024, **changes})
    await until(lambda: node.is_ready, "it leads itself")
    return node


async def put_many(node: Node, count: int, name: str = "key") -> None:
    for start in range(0, count, 100):
        await asyncio.gather(*(put(node, f"{name}{i}", "v" * 200) for i in range(start, start + 100)))


# ---- Cutting the log


def test_the_state_is_flushed_and_the_log_cut_when_enough_was_applied(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        await put_many(node, 1000)
        await until(lambda: node.replica.log.base.last_index > 0, "the log was cut")
        assert node.maintenance.flush_count > 0
        assert node.maintenance.last_flush_s > 0

    run(tmp_path, story)


def test_the_log_is_cut_only_up_to_what_a_finished_flush_covers(tmp_path: Path) -> None:
    """The state has no log of its own: what is not flushed is in Raft's log or nowhere."""

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, flush_interval_bytes=16 * 1024 * MIB)
        await put_many(node, 500)
        machine = node.replica.machine
        reached, may_go_on = threading.Event(), threading.Event()

        class HeldMachine:
            """The real machine, whose flush waits before it begins."""

            def __getattr__(self, name: str) -> Any:
                return getattr(machine, name)

            def flush(self) -> None:
                machine.flush()
                reached.set()
                assert may_go_on.wait(10)

        node.replica.machine = HeldMachine()  # type: ignore[assignment]
        flushing = asyncio.create_task(node.maintenance.flush())
        await asyncio.to_thread(reached.wait, 10)
        covered_index = machine.last_applied
        await put_many(node, 500, "later")
        assert node.replica.log.base.last_index == 0
        may_go_on.set()
        await flushing
        assert 0 < node.replica.log.base.last_index <= covered_index < machine.last_applied
        node.replica.machine = machine

    run(tmp_path, story)


def test_the_log_keeps_what_a_follower_needs_after_the_snapshot_that_it_is_sent(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        await put_many(node, 500)
        needed_index = node.replica.machine.last_applied // 2
        node.snapshots._needed_from[7] = needed_index
        await node.maintenance.flush()
        kept_from = node.replica.log.base.last_index
        assert kept_from < needed_index
        node.snapshots._needed_from.clear()
        await node.maintenance.flush()
        assert node.replica.log.base.last_index >= needed_index

    run(tmp_path, story)


def test_a_log_that_a_snapshot_is_about_to_replace_is_not_cut(tmp_path: Path) -> None:
    """Its base would be written with the snapshot's configuration, which is of a later index."""

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, flush_interval_bytes=16 * 1024 * MIB)
        await put_many(node, 500)
        replica = node.replica
        replica.raft.step(  # as if it had been staged: the core's log begins behind it from now on
            InstallSnapshot(
                replica.raft.current_term + 1,
                7,
                replica.own.member_id,
                SnapshotMetadata(1 << 20, 1, replica.configuration, 1 << 19),
            )
        )
        await node.maintenance.flush()
        base = replica.log.base
        assert base.last_index == 0
        assert base.configuration_index == 0
        node.failed(StorageError("for the test: there is no such snapshot"))

    run(tmp_path, story)


def test_the_log_keeps_as_much_as_the_setting_says(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, log_retention_bytes=64 * MIB)
        await put_many(node, 500)
        await node.maintenance.flush()
        assert node.replica.log.base.last_index == 0

    run(tmp_path, story)


def test_a_log_that_was_cut_and_its_state_still_make_a_whole(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        await put_many(node, 800)
        await node.maintenance.flush()
        await put_many(node, 100, "later")
        before = node.replica.machine.state_hash()
        node.failed(StorageError("for the test"))  # nothing is flushed any more
        await cluster.stop("node1")
        node = await cluster.start("node1")
        assert node.replica.log.base.last_index > 0
        await until(lambda: node.is_ready, "it leads itself")
        assert node.replica.machine.state_hash() == before

    run(tmp_path, story)


def test_a_flush_that_fails_stops_the_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        machine = node.replica.machine

        class FailingMachine:
            def __getattr__(self, name: str) -> Any:
                return getattr(machine, name)

            def flush(self) -> None:
                raise StorageError("the disk is gone")

        node.replica.machine = FailingMachine()  # type: ignore[assignment]
        await put_many(node, 500)
        with pytest.raises(StorageError, match="the disk is gone"):
            async with asyncio.timeout(10):
                await node.wait_stopped()
        assert node.replica.log.base.last_index == 0
        node.replica.machine = machine

    run(tmp_path, story)


def test_old_revisions_are_swept_once_they_are_compacted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        for i in range(20):
            await put(node, "k", str(i))
        machine = node.replica.machine

        def stored() -> int:
            return sum(1 for _ in machine._store.scan(b"", b"\xff" * 8))

        before = stored()
        await submit(node, Compact(machine.revision))
        await until(lambda: stored() <= before - 15, "swept")
        assert await get(node, "k") == "19"

    run(tmp_path, story)


# ---- A disk that fills up


class Disk:
    """How much is free, as the nodes of a test see it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes = 10 * MIB
        monkeypatch.setattr(maintenance, "free_bytes", lambda _: self.free_bytes)

    def set_free(self, free_bytes: int, *nodes: Node) -> None:
        self.free_bytes = free_bytes
        for node in nodes:
            node.maintenance.check_disk()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_below_the_reserve_writes_are_refused_and_deletes_and_reads_go_on(tmp_path: Path, disk: Disk) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, disk_reserve_bytes=RESERVE_BYTES)
        await put(node, "k", "1")
        await put(node, "other", "1")
        disk.set_free(RESERVE_BYTES - 1, node)
        with pytest.raises(DiskFull, match="disk_reserve_bytes"):
            await put(node, "k", "2")
        for consistency in (Consistency.LOCAL, Consistency.LINEARIZABLE):
            assert await get(node, "k", consistency) == "1"
        assert (await delete(node, "other")).revision == 4
        await submit(node, Compact(4))
        disk.set_free(RESERVE_BYTES, node)
        await put(node, "k", "2")
        assert await get(node, "k") == "2"

    run(tmp_path, story)


def test_room_is_noticed_by_itself(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "CHECK_INTERVAL_S", 0.01)
    monkeypatch.setattr(maintenance, "DISK_CHECK_ROUNDS", 2)

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, disk_reserve_bytes=RESERVE_BYTES)
        disk.free_bytes = 0
        await until(lambda: node.replica.is_disk_full, "noticed")
        disk.free_bytes = 10 * MIB
        await until(lambda: not node.replica.is_disk_full, "healed")
        await put(node, "k", "1")

    run(tmp_path, story)


def test_a_full_leader_refuses_what_others_forward_too(tmp_path: Path, disk: Disk) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2", disk_reserve_bytes=RESERVE_BYTES)
        await put(node2, "k", "1")
        disk.set_free(0, node1)
        with pytest.raises(DiskFull):
            await put(node2, "k", "2")
        assert (await delete(node2, "k")).deleted
        disk.set_free(10 * MIB, node1)
        await put(node2, "k", "3")

    run(tmp_path, story)


def test_a_node_that_starts_on_a_full_disk_knows_it_at_once(tmp_path: Path, disk: Disk) -> None:
    async def story(cluster: Cluster) -> None:
        disk.free_bytes = 0
        node = await lone(cluster, disk_reserve_bytes=RESERVE_BYTES)
        with pytest.raises(DiskFull):
            await put(node, "k", "1")

    run(tmp_path, story)


def test_on_a_full_disk_the_history_is_given_up_to_make_room(tmp_path: Path, disk: Disk) -> None:
    """A delete keeps the old value for the history; without this, deleting would fill the disk further."""

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, disk_reserve_bytes=RESERVE_BYTES)
        await put_many(node, 20)
        node.maintenance.compact_if_due()
        assert node.replica.proposals.pending_count == 0
        disk.set_free(0, node)
        await delete(node, "key1")
        machine, flush_count = node.replica.machine, node.maintenance.flush_count
        node.maintenance.compact_if_due()
        await until(lambda: machine.compact_revision == machine.revision, "compacted")
        await until(lambda: node.maintenance.flush_count > flush_count, "flushed, so that the files can shrink")
        await until(lambda: not any(machine._store.scan(b"H", b"I")), "swept")
        node.maintenance.compact_if_due()
        assert node.replica.proposals.pending_count == 0, "again, for nothing"

    run(tmp_path, story)


# ---- Forgetting old revisions


def test_the_leader_compacts_what_is_beyond_the_retention_and_every_member_follows(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2", history_retention_count=100)
        for number in range(250):
            await put(node1, "same", str(number))
        await until(lambda: node2.replica.machine.compact_revision > 0, "the follower compacted too")
        machine = node1.replica.machine
        assert machine.revision - machine.compact_revision >= 100
        await cluster.agree()
        assert await get(node2, "same", Consistency.LOCAL) == "249"

    run(tmp_path, story)


def test_without_a_retention_nothing_is_compacted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster, history_retention_count=0)
        await put_many(node, 300)
        node.maintenance.compact_if_due()
        assert node.replica.proposals.pending_count == 0

    run(tmp_path, story)

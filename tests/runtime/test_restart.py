"""Crashes: the data directories as they stand at some moment are opened elsewhere. Nothing acknowledged is lost,
and no reader sees time run backwards.

All nodes of a test share a loop, so a copy that is made without giving it up shows one moment of the whole cluster.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import shutil
from pathlib import Path

import pytest

from raftkv.errors import NotReady
from raftkv.kv import Put
from raftkv.runtime import Node
from raftkv.types import Consistency
from tests.runtime.nodes import Cluster, get, put, run, submit, until

THREE = ("node1", "node2", "node3")


class Writer:
    """Writes ascending numbers to its own key, one after the other, and knows what it was told."""

    def __init__(self, node: Node, key: str) -> None:
        self.node = node
        self.key = key
        self.sent = 0
        self.acknowledged = 0
        self.seen = 0
        """The highest that a local read at this node has returned."""

    async def run(self) -> None:
        while True:
            self.sent += 1
            await submit(self.node, Put(self.key.encode(), str(self.sent).encode() + b" " * 300))
            self.acknowledged = self.sent
            if self.sent % 3 == 0:
                self.seen = max(self.seen, number(self.node.local_value(self.key.encode())))


def number(value: bytes | str | None) -> int:
    return int(value) if value is not None else 0


@dataclasses.dataclass
class Moment:
    """Copies of all data directories, and what clients knew then, by key."""

    directory: Path
    acknowledged: dict[str, int]
    sent: dict[str, int]
    seen: dict[str, int]


def copy_of(path: Path, target: Path) -> None:
    """As a crash leaves it; a background thread of RocksDB may rename a file meanwhile, then once more."""
    while True:
        shutil.rmtree(target, ignore_errors=True)
        before = sorted(path.rglob("*"))
        try:
            # The state first: the log is cut only after the flush of the state that makes it superfluous.
            for part in sorted(path.rglob("state")):
                shutil.copytree(part, target / part.relative_to(path))
            shutil.copytree(path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("state", "LOCK"))
        except (shutil.Error, FileNotFoundError):
            continue
        if sorted(path.rglob("*")) == before:
            return


def take(cluster: Cluster, writers: list[Writer], target: Path) -> Moment:
    for name, node in cluster.nodes.items():
        copy_of(node.directory.path, target / name)
    return Moment(
        target,
        {writer.key: writer.acknowledged for writer in writers},
        {writer.key: writer.sent for writer in writers},
        {writer.key: writer.seen for writer in writers},
    )


async def moments_of(cluster: Cluster, count: int, seed: int) -> list[Moment]:
    """Write through all nodes at once, and take so many moments at random times in between."""
    order = random.Random(seed)
    writers = [
        Writer(node, f"{name}-{i}") for name, node in cluster.nodes.items() for i in range(6 // len(cluster.nodes) + 1)
    ]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    moments = []
    for i in range(count):
        target = sum(writer.acknowledged for writer in writers) + order.randint(1, 300)
        await until(lambda target=target: sum(w.acknowledged for w in writers) >= target, "writes")  # type: ignore[misc]
        moments.append(take(cluster, writers, cluster.directory / f"moment{i}"))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for name in list(cluster.nodes):
        await cluster.stop(name)
    return moments


async def reopen(cluster: Cluster, moment: Moment) -> None:
    for name, settings in cluster.settings.items():
        cluster.settings[name] = dataclasses.replace(settings, data_dir=moment.directory / name)
        await cluster.start(name)


async def check_nothing_is_lost(cluster: Cluster, moment: Moment) -> None:
    for key, acknowledged in moment.acknowledged.items():
        found = number(await get(cluster.leader(), key, Consistency.LINEARIZABLE))
        assert acknowledged <= found <= moment.sent[key], key
    await cluster.agree()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lone_node_loses_nothing_that_it_acknowledged(tmp_path: Path, seed: int) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1", flush_interval_bytes=64 * 1024, segment_size_bytes=64 * 1024)
        await until(lambda: node.is_ready, "it leads itself")
        for moment in await moments_of(cluster, 6, seed):
            await reopen(cluster, moment)
            await until(lambda: cluster.nodes["node1"].is_ready, "it leads itself")
            await check_nothing_is_lost(cluster, moment)
            await cluster.stop("node1")

    run(tmp_path, story)


def test_a_cluster_that_lost_power_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.form(*THREE, flush_interval_bytes=64 * 1024, segment_size_bytes=64 * 1024)
        for moment in await moments_of(cluster, 3, seed=1):
            await reopen(cluster, moment)
            await until(lambda: all(node.is_ready for node in cluster.nodes.values()), "all ready")
            await check_nothing_is_lost(cluster, moment)
            for name in THREE:
                await cluster.stop(name)

    run(tmp_path, story)


def test_local_reads_never_go_back_behind_what_was_read_before_the_crash(tmp_path: Path) -> None:
    """A restarted node has what it flushed and what its log holds, and does not know yet how much of that counts."""

    async def story(cluster: Cluster) -> None:
        await cluster.form(*THREE, flush_interval_bytes=64 * 1024 * 1024)
        for moment in await moments_of(cluster, 2, seed=3):
            assert any(moment.seen.values())
            await reopen(cluster, moment)
            answered = dict.fromkeys(THREE, 0)

            def has_read_all(answered: dict[str, int] = answered, moment: Moment = moment) -> bool:
                for name, node in cluster.nodes.items():
                    for key, seen in moment.seen.items():
                        try:
                            value = node.local_value(key.encode())
                        except NotReady:
                            continue
                        answered[name] += 1
                        assert number(value) >= seen, (name, key)
                return min(answered.values()) > 5

            await until(has_read_all, "all nodes read")
            for name in THREE:
                await cluster.stop(name)

    run(tmp_path, story)


def test_a_node_that_comes_back_alone_serves_no_unconfirmed_reads(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, node3 = await cluster.form(*THREE)
        await put(node1, "k", "1")
        await cluster.stop("node3")
        await put(node1, "k", "2")
        await cluster.stop("node2")
        await cluster.stop("node1")
        node3 = await cluster.start("node3")
        for _ in range(20):
            node3.replica.tick()
            with pytest.raises(NotReady):
                node3.local_value(b"k")
            await asyncio.sleep(0)
        await cluster.start("node1")
        await until(lambda: node3.is_ready, "the leader has answered")
        assert node3.local_value(b"k") == b"2"

    run(tmp_path, story)


def test_a_vote_is_remembered_through_a_crash(tmp_path: Path) -> None:
    """Raft §5.2: a server that forgot its vote could elect a second leader in the same term."""

    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form(*THREE)
        await node1.transfer_leadership("node2")
        await until(lambda: node2.replica.is_leader, "node2 leads")
        term = node2.replica.raft.current_term
        copies = {name: tmp_path / "copy" / name for name in THREE}
        for name, target in copies.items():
            copy_of(cluster.nodes[name].directory.path, target)
        for name in THREE:
            await cluster.stop(name)
        votes = []
        for name, target in copies.items():
            cluster.settings[name] = dataclasses.replace(cluster.settings[name], data_dir=target)
            node = await cluster.start(name)
            state = node.replica.log.hard_state
            assert state.current_term >= term
            votes += [state.voted_for] if state.current_term == term else []
            await cluster.stop(name)
        assert len([vote for vote in votes if vote]) >= 2
        assert len({vote for vote in votes if vote}) == 1

    run(tmp_path, story)


def test_replaying_what_was_not_flushed_applies_each_command_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1", flush_interval_bytes=1 << 30)
        await until(lambda: node.is_ready, "it leads itself")
        for i in range(30):
            await put(node, "k", str(i))
        before = node.replica.machine.get(b"k")
        copy_of(node.directory.path, tmp_path / "copy")
        await cluster.stop("node1")
        cluster.settings["node1"] = dataclasses.replace(cluster.settings["node1"], data_dir=tmp_path / "copy")
        node = await cluster.start("node1")
        assert node.replica.machine.last_applied < 30, "nothing was flushed, so all of it is replayed"
        await until(lambda: node.is_ready, "it leads itself")
        assert node.replica.machine.get(b"k") == before

    run(tmp_path, story)

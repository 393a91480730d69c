"""A node that was removed says so: it takes no writes, confirms no reads, and marks what it still serves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import RaftkvError, Unavailable
from raftkv.kv import Put
from raftkv.runtime import Node
from raftkv.types import Consistency, WriteMode
from tests.ports import free_port
from tests.runtime.nodes import Cluster, get, put, run, ticked, until

UNCONFIRMED_FOR_EVER = (Consistency.LINEARIZABLE, Consistency.LEASE)


def write_at_once(node: Node, mode: WriteMode = WriteMode.FORWARD) -> list[Any]:
    answers: list[Any] = []
    node.submit(Put(b"k", b"2"), answers.append, mode)
    return answers


def read_at_once(node: Node, consistency: Consistency) -> list[Any]:
    answers: list[Any] = []
    node.read(b"k", consistency, answers.append)
    return answers


def assert_told_of_the_removal(answers: list[Any]) -> None:
    (error,) = answers
    assert isinstance(error, Unavailable)
    assert "was removed from the cluster" in str(error)
    assert "ask another member" in str(error)


def knows_it(node: Node) -> bool:
    return node.replica.standing.is_removed


async def with_removed(cluster: Cluster, **changes: Any) -> tuple[Node, Node]:
    """A member, and a node that was one and has just learnt that it is no more."""
    node1, _, node3 = await cluster.form("node1", "node2", "node3", lease_reads=True, **changes)
    await put(node3, "k", "1")
    await until(lambda: node3.is_ready, "it takes part")
    assert not knows_it(node3)
    await node1.remove("node3")
    await until(lambda: knows_it(node3), "it knows")
    return node1, node3


def test_writes_and_confirmed_reads_are_refused_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        _, node3 = await with_removed(cluster)
        for is_leader_forgotten in (False, True):
            if is_leader_forgotten:
                await until(lambda: not node3.replica.leader, "its leader is silent")
            for mode in WriteMode:
                assert_told_of_the_removal(write_at_once(node3, mode))
            for consistency in UNCONFIRMED_FOR_EVER:
                assert_told_of_the_removal(read_at_once(node3, consistency))

    run(tmp_path, story)


def test_local_reads_are_served_and_marked(tmp_path: Path) -> None:
    """What it holds moves no more, however long it is asked."""

    async def story(cluster: Cluster) -> None:
        node1, node3 = await with_removed(cluster)
        await until(lambda: node3.position().is_marked_stale, "it is marked")
        await put(node1, "k", "2")
        for _ in range(20):
            assert await get(node3, "k", Consistency.LOCAL) in {"1", "2"}  # it hears a little more, in its farewell
            assert node3.local_value(b"k") in {b"1", b"2"}
            assert node3.position().is_marked_stale
            assert not node3.is_ready
            await ticked(node3, 2)  # the leader may still be heard, and would confirm what it is asked

    run(tmp_path, story)


def test_a_read_that_waits_is_refused_when_the_node_is_removed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, node3 = await cluster.form("node1", "node2", "node3")
        node3.replica.reads._request_read = lambda request_id, is_lease: None  # the question is lost
        answers = read_at_once(node3, Consistency.LINEARIZABLE)
        await node1.remove("node3")
        await until(lambda: bool(answers), "it is told")
        assert_told_of_the_removal(answers)
        assert node3.replica.reads.pending_count == 0

    run(tmp_path, story)


def test_changes_of_members_are_not_asked_of_it_for_ever(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        _, node3 = await with_removed(cluster)
        await until(lambda: not node3.replica.leader, "its leader is silent")
        with pytest.raises(Unavailable, match="was removed from the cluster"):
            await node3.remove("node2")

    run(tmp_path, story)


def test_it_still_knows_after_a_restart(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await with_removed(cluster, start_read_wait_ms=100)
        await cluster.stop("node3")
        node3 = await cluster.start("node3")
        assert_told_of_the_removal(write_at_once(node3))
        assert_told_of_the_removal(read_at_once(node3, Consistency.LINEARIZABLE))
        await until(lambda: node3.position().is_marked_stale, "the wait for a leader is over")
        assert await get(node3, "k", Consistency.LOCAL) == "1"
        assert not node3.is_ready

    run(tmp_path, story)


def test_a_leader_that_removed_itself_is_removed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        await put(node1, "k", "1")
        await node1.remove("node1")
        await until(lambda: knows_it(node1) and node1.position().is_marked_stale, "it has stepped down")
        assert_told_of_the_removal(write_at_once(node1))
        assert await get(node1, "k", Consistency.LOCAL) == "1"

    run(tmp_path, story)


def test_once_joined_again_it_is_as_before(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node3 = await with_removed(cluster)
        await until(lambda: node3.position().is_marked_stale, "it is marked")
        await put(node1, "k", "2")
        await cluster.join("node1", "node3")
        await until(lambda: node3.is_ready, "it takes part")
        assert not knows_it(node3)
        assert not node3.position().is_marked_stale
        assert await get(node3, "k", Consistency.LOCAL) == "2"
        await put(node3, "k", "3")

    run(tmp_path, story)


def test_a_node_on_its_way_into_the_cluster_was_never_removed(tmp_path: Path) -> None:
    """The log that it is sent tells of times when it was no member, and that these are committed."""

    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        await asyncio.gather(*(put(node1, f"key{i}", "v") for i in range(200)))
        node3 = await cluster.start("node3", join=(f"127.0.0.1:{free_port()}",))
        joining = asyncio.create_task(cluster.join("node1", "node3"))
        seen: set[str] = set()
        while not joining.done():
            assert not knows_it(node3)
            seen.update(str(answer) for answer in write_at_once(node3) if isinstance(answer, RaftkvError))
            await asyncio.sleep(0)
        await joining
        assert not any("removed" in text for text in seen)

    run(tmp_path, story)

"""A lone node gives up its empty cluster for another: only if nothing can be lost, and all of it or nothing."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import (
    InvariantViolation,
    MembershipRefused,
    NotReady,
    OutcomeUnknown,
    ShuttingDown,
    StorageError,
    Unavailable,
)
from raftkv.kv import Put
from raftkv.runtime import Node, wire
from raftkv.types import Configuration, Consistency, Member
from tests.runtime.faults import fail_while_closing, hold
from tests.runtime.nodes import Cluster, get, put, run, small_settings, start_write, until

OTHER_CLUSTER = 4711
OTHERS = Configuration((Member(5, "node5", "127.0.0.1:1", "127.0.0.1:2"),))


def request_for(node: Node, **changes: Any) -> wire.Absorb:
    identity = node.directory.identity
    fields = {
        "cluster_id": OTHER_CLUSTER,
        "expected_cluster_id": identity.cluster_id,
        "expected_member_id": identity.member_id,
        "configuration": OTHERS,
    }
    return wire.Absorb(**{**fields, **changes})


async def absorb(node: Node, request: wire.Absorb) -> wire.AbsorbReply:
    answer = await node.on_call(wire.CallKind.ABSORB, wire.encode(request))
    return wire.decode(answer, wire.AbsorbReply)


async def lone(cluster: Cluster) -> Node:
    node = await cluster.start("node1")
    await until(lambda: node.is_ready, "it leads itself")
    return node


def test_a_lone_empty_node_becomes_a_blank_server_of_the_other_cluster(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        own_id = node.replica.own.member_id
        reply = await absorb(node, request_for(node))
        assert reply.member_id == own_id
        for _ in range(2):
            assert node.replica.cluster_id == node.directory.identity.cluster_id == OTHER_CLUSTER
            assert node.replica.configuration == OTHERS
            assert node.replica.log.last_index == node.replica.machine.last_applied == 0
            assert not node.replica.is_leader
            assert not node.is_ready
            await cluster.stop("node1")
            node = await cluster.start("node1")

    run(tmp_path, story)


def test_being_asked_again_by_the_same_cluster_changes_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        request = request_for(node)
        first, second = await asyncio.gather(absorb(node, request), absorb(node, request))
        assert first == second
        generation = node.directory.current
        await absorb(node, request)
        assert node.directory.current == generation

    run(tmp_path, story)


def test_of_two_clusters_that_ask_at_once_only_one_gets_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        outcomes = await asyncio.gather(
            absorb(node, request_for(node)), absorb(node, request_for(node, cluster_id=5)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [wire.AbsorbReply, MembershipRefused]
        assert node.replica.cluster_id == OTHER_CLUSTER

    run(tmp_path, story)


@pytest.mark.parametrize("changed", ["expected_cluster_id", "expected_member_id"])
def test_a_node_that_is_not_the_one_that_was_asked_before_refuses(tmp_path: Path, changed: str) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        with pytest.raises(MembershipRefused, match="not the node that was asked"):
            await absorb(node, request_for(node, **{changed: 99}))
        await put(node, "k", "still its own")

    run(tmp_path, story)


@pytest.mark.parametrize("turns", [0, 2])
def test_a_write_that_is_under_way_is_not_thrown_away(tmp_path: Path, turns: int) -> None:
    """It waits for its turn, or is on its way to the disk, when the question comes."""

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        answers = start_write(node, Put(b"k", b"1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        with pytest.raises(MembershipRefused, match="data of its own"):
            await absorb(node, request_for(node))
        await until(lambda: bool(answers), "answered")
        assert await get(node, "k") == "1"

    run(tmp_path, story)


def test_an_entry_without_commands_that_waits_for_its_turn_is_no_data(tmp_path: Path) -> None:
    """As a node has one that elected itself a moment before it is joined to another."""

    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        replica = node.replica
        replica.applying.hold()
        own = replica.own
        moved = Member(own.member_id, own.node_id, own.raft_address, "127.0.0.1:1")
        replica.standing.propose_configuration([moved], [])
        await until(lambda: replica.machine.last_applied < replica.log.last_index, "an entry waits to be applied")
        await absorb(node, request_for(node))
        assert node.replica.cluster_id == OTHER_CLUSTER

    run(tmp_path, story)


def test_a_node_that_has_just_proposed_another_member_is_not_alone(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        node.replica.standing.propose_configuration(node.replica.configuration.voters, OTHERS.voters)
        with pytest.raises(MembershipRefused, match="has a cluster with node5"):
            await absorb(node, request_for(node))
        assert node.replica.is_leader

    run(tmp_path, story)


def test_while_it_changes_sides_it_takes_nothing_and_reads_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        reached, may_go_on = hold(node, "switch")
        absorbing = asyncio.create_task(absorb(node, request_for(node)))
        await asyncio.to_thread(reached.wait, 10)
        with pytest.raises(ShuttingDown):
            await put(node, "k", "1")
        with pytest.raises(ShuttingDown):
            await get(node, "k")
        with pytest.raises(NotReady):
            await get(node, "k", Consistency.LOCAL)
        with pytest.raises(NotReady):
            node.local_value(b"k")
        assert not node.is_ready
        may_go_on.set()
        await absorbing

    run(tmp_path, story)


@pytest.mark.parametrize("moment", ["new_generation", "switch", "remove_leftovers"])
def test_a_crash_in_between_leaves_the_one_cluster_or_the_other(tmp_path: Path, moment: str) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        own_cluster = node.replica.cluster_id
        reached, may_go_on = hold(node, moment)
        absorbing = asyncio.create_task(absorb(node, request_for(node)))
        await asyncio.to_thread(reached.wait, 10)
        shutil.copytree(node.directory.path, tmp_path / "image" / "node1")
        may_go_on.set()
        await absorbing
        again = await Node.start(small_settings(tmp_path / "image", "node1"))
        cluster.nodes["again"] = again
        if moment == "remove_leftovers":
            assert again.replica.cluster_id == OTHER_CLUSTER
            assert again.replica.configuration == OTHERS
        else:
            assert again.replica.cluster_id == own_cluster
            await until(lambda: again.is_ready, "it leads itself")
            await put(again, "k", "1")

    run(tmp_path, story)


def test_a_stop_waits_for_the_exchange_that_has_begun(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        reached, may_go_on = hold(node, "switch")
        absorbing = asyncio.create_task(absorb(node, request_for(node)))
        await asyncio.to_thread(reached.wait, 10)
        stopping = asyncio.create_task(cluster.stop("node1"))
        await asyncio.sleep(0)
        may_go_on.set()
        await stopping
        await absorbing
        node = await cluster.start("node1")
        assert node.replica.cluster_id == OTHER_CLUSTER

    run(tmp_path, story)


def test_an_exchange_that_fails_stops_the_node_and_a_restart_finds_one_of_both(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        own_cluster = node.replica.cluster_id

        def fail(*_: Any, **__: Any) -> Any:
            raise InvariantViolation("for the test")

        node.directory.switch = fail  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await absorb(node, request_for(node))
        with pytest.raises(InvariantViolation):
            await node.wait_stopped()
        await cluster.stop("node1")
        node = await cluster.start("node1")
        assert node.replica.cluster_id == own_cluster
        await until(lambda: node.is_ready, "it leads itself")

    run(tmp_path, story)


def test_a_node_that_fails_in_between_takes_part_in_neither_cluster(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        reached, may_go_on = hold(node, "switch")
        absorbing = asyncio.create_task(absorb(node, request_for(node)))
        await asyncio.to_thread(reached.wait, 10)
        node.failed(StorageError("for the test"))
        may_go_on.set()
        with pytest.raises(OutcomeUnknown):
            await absorbing
        assert node.replica.cluster_id == OTHER_CLUSTER
        assert node.replica.is_closed
        assert node.transport.stats.peers == {}

    run(tmp_path, story)


def test_a_node_that_fails_before_its_turn_keeps_its_files_as_they_are(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        generation = node.directory.current
        async with node.maintenance.state_lock:
            absorbing = asyncio.create_task(absorb(node, request_for(node)))
            await asyncio.sleep(0)
            node.failed(StorageError("for the test"))
        with pytest.raises(Unavailable):
            await absorbing
        assert node.directory.current == generation

    run(tmp_path, story)


def test_files_are_not_exchanged_when_the_log_cannot_be_closed_in_order(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        generation = node.directory.current
        fail_while_closing(node.replica.log.wal, cluster.files["node1"])
        with pytest.raises(Unavailable):
            await absorb(node, request_for(node))
        with pytest.raises(StorageError):
            await node.wait_stopped()
        assert node.directory.current == generation
        await cluster.stop("node1")
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")

    run(tmp_path, story)

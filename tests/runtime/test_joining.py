"""How a node finds its cluster when it starts: one test for each row of the table in `membership.joining`."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import MembershipRefused, NoLeader
from raftkv.runtime import InitialMember, Node, wire
from raftkv.runtime.limits import raft_settings
from raftkv.runtime.membership import joining
from raftkv.types import Configuration
from tests.ports import free_port
from tests.runtime.nodes import Cluster, get, put, run, ticked, until

THREE = ("node1", "node2", "node3")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "RETRY_FIRST_S", 0.02)
    monkeypatch.setattr(joining, "RETRY_MOST_S", 0.1)


def listed() -> tuple[InitialMember, ...]:
    return tuple(InitialMember(name, f"127.0.0.1:{free_port()}") for name in THREE)


def port_of(members: tuple[InitialMember, ...], node_id: str) -> int:
    address = next(member.raft_address for member in members if member.node_id == node_id)
    return int(address.rpartition(":")[2])


async def start_listed(cluster: Cluster, members: tuple[InitialMember, ...], node_id: str) -> Node:
    return await cluster.start(node_id, raft_port=port_of(members, node_id), initial_cluster=members)


def voters(node: Node) -> set[str]:
    return {member.node_id for member in node.replica.configuration.voters}


def test_a_fresh_node_on_its_own_bootstraps(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        assert voters(node) == {"node1"}
        await until(lambda: node.is_ready, "it leads itself")

    run(tmp_path, story)


def test_two_fresh_nodes_have_clusters_of_their_own(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.start("node1"), await cluster.start("node2")
        assert node1.replica.cluster_id != node2.replica.cluster_id

    run(tmp_path, story)


def test_a_fresh_node_that_is_to_join_stays_blank_until_somebody_takes_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        port = free_port()
        node2 = await cluster.start("node2", join=(f"127.0.0.1:{port}",))
        await ticked(node2, 4)
        assert voters(node2) == set()
        assert not node2.is_ready
        with pytest.raises(NoLeader):
            await put(node2, "k", "1")
        node1 = await cluster.start("node1", raft_port=port)
        await until(lambda: voters(node1) == {"node1", "node2"}, "it was taken")
        await put(node2, "k", "1")

    run(tmp_path, story)


def test_of_an_initial_cluster_only_the_first_bootstraps(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        members = listed()
        node2 = await start_listed(cluster, members, "node2")
        node3 = await start_listed(cluster, members, "node3")
        await ticked(node2, 4)
        await ticked(node3, 4)
        assert voters(node2) == voters(node3) == set()
        node1 = await start_listed(cluster, members, "node1")
        await until(lambda: voters(node1) == set(THREE), "three voters")
        assert len({node.replica.cluster_id for node in (node1, node2, node3)}) == 1

    run(tmp_path, story)


def test_a_first_node_whose_disk_was_wiped_joins_its_cluster_and_does_not_found_another(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        members = listed()
        await asyncio.gather(*(start_listed(cluster, members, name) for name in THREE))
        node2 = cluster.nodes["node2"]
        await until(lambda: voters(node2) == set(THREE) and node2.is_ready, "three voters")
        await put(node2, "k", "1")
        old_id = cluster.nodes["node1"].replica.own.member_id
        await cluster.stop("node1")
        cluster.settings["node1"].data_dir.rename(tmp_path / "lost")
        node1 = await cluster.start("node1")
        await until(lambda: node1.is_ready and voters(node1) == set(THREE), "it is back")
        assert node1.replica.cluster_id == node2.replica.cluster_id
        assert node1.replica.own.member_id != old_id
        assert await get(node1, "k") == "1"

    run(tmp_path, story)


def test_a_first_node_founds_nothing_while_it_cannot_ask_a_majority(tmp_path: Path) -> None:
    """Its disk may have been wiped, and the nodes that cannot be reached may have the cluster: there would be two."""

    async def story(cluster: Cluster) -> None:
        members = listed()
        starting = asyncio.create_task(start_listed(cluster, members, "node1"))
        with contextlib.closing(await listen_and_hang_up(port_of(members, "node2"))) as silent:
            await silent.called.wait()
            await silent.called_again.wait()
            assert not starting.done(), "neither node2 nor node3 has said anything"
        await start_listed(cluster, members, "node3")
        node1 = await starting
        await until(lambda: {"node1", "node3"} <= voters(node1), "one other node is enough")

    run(tmp_path, story)


class HangingUp:
    """Takes connections on a port and says nothing, like a node that is restarting."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.called_again = asyncio.Event()
        self.server: asyncio.Server | None = None

    async def hang_up(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (self.called_again if self.called.is_set() else self.called).set()
        writer.close()

    def close(self) -> None:
        if self.server is not None:
            self.server.close()


async def listen_and_hang_up(port: int) -> HangingUp:
    listener = HangingUp()
    listener.server = await asyncio.start_server(listener.hang_up, "127.0.0.1", port)
    return listener


def test_a_node_that_has_a_cluster_does_not_look_for_another(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        index = node1.replica.raft.configuration_index
        await cluster.stop("node2")
        changes: dict[str, Any] = {"join": (f"127.0.0.1:{free_port()}",)}
        settings = cluster.settings["node2"]
        ports = {"raft_port": settings.raft_port, "server_port": settings.server_port}
        node2 = await cluster.start("node2", **ports, **changes)
        await until(lambda: node2.is_ready, "it takes part")
        assert node1.replica.raft.configuration_index == index

    run(tmp_path, story)


def test_a_node_that_stopped_before_it_was_a_member_asks_again(tmp_path: Path) -> None:
    """1. the leader has absorbed it; 2. it stops before it is added; 3. it starts again, blank but in the cluster."""

    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        await until(lambda: node1.is_ready, "it leads itself")
        nobody = free_port()
        node2 = await cluster.start("node2", join=(f"127.0.0.1:{nobody}",))
        identity = node2.directory.identity
        await node2.become_blank(
            wire.Absorb(node1.replica.cluster_id, identity.cluster_id, identity.member_id, node1.replica.configuration)
        )
        await cluster.stop("node2")
        ports = {name: getattr(cluster.settings["node2"], name) for name in ("raft_port", "server_port")}
        node2 = await cluster.start("node2", join=(cluster.settings["node1"].raft_address,), **ports)
        assert voters(node2) == {"node1"}
        await until(lambda: node2.is_ready and voters(node2) == {"node1", "node2"}, "it joined")

    run(tmp_path, story)


def test_a_node_does_not_leave_its_cluster_for_none(tmp_path: Path) -> None:
    """Blank, without members to wait for, it would bootstrap at its next start: alone, under the other cluster's id."""

    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        await until(lambda: node1.is_ready, "it leads itself")
        identity, members = node1.directory.identity, node1.replica.configuration
        for cluster_id, configuration in ((9, Configuration()), (0, members), (-1, members)):
            with pytest.raises(MembershipRefused, match="no cluster to join"):
                await node1.become_blank(
                    wire.Absorb(cluster_id, identity.cluster_id, identity.member_id, configuration)
                )
        assert node1.directory.identity == identity
        await put(node1, "k", "1")

    run(tmp_path, story)


def test_an_absorbed_node_that_restarts_before_it_received_anything_waits_quietly(tmp_path: Path) -> None:
    """Without settings that name others there is nobody to ask: its leader repeats the join."""

    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        node2 = await cluster.start("node2")
        await until(lambda: node1.is_ready and node2.is_ready, "each leads itself")
        identity = node2.directory.identity
        await node2.become_blank(
            wire.Absorb(node1.replica.cluster_id, identity.cluster_id, identity.member_id, node1.replica.configuration)
        )
        await cluster.stop("node2")
        node2 = await cluster.start("node2")
        assert node2.replica.cluster_id == node1.replica.cluster_id
        assert not node2.replica.is_leader
        term = node1.replica.raft.current_term
        await ticked(
            node2, 2 * raft_settings(node2.settings, 1).election_timeout_ticks
        )  # when it would have campaigned
        assert node1.replica.raft.current_term == term
        assert node1.replica.is_leader
        await cluster.join("node1", "node2")
        await put(node2, "k", "1")

    run(tmp_path, story)


def test_asking_goes_on_until_the_node_is_a_voter(tmp_path: Path) -> None:
    """An incomplete join may have been lost with its leader."""

    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1", join_timeout_ms=100)
        await until(lambda: node1.is_ready, "it leads itself")
        asked = 0
        really = node1.calls._membership.join

        async def forgetful(node_id: str, raft_address: str) -> wire.ChangeReply:
            nonlocal asked
            asked += 1
            if asked < 3:
                return wire.ChangeReply(is_complete=False, progress="lost")
            return await really(node_id, raft_address)

        node1.calls._membership.join = forgetful  # type: ignore[method-assign]
        node2 = await cluster.start("node2", join=(cluster.settings["node1"].raft_address,))
        await until(lambda: node2.is_ready, "it joined")
        assert asked >= 3

    run(tmp_path, story)


def test_a_refused_join_is_tried_elsewhere_and_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        await until(lambda: node1.is_ready, "it leads itself")
        refusals = 0
        really = node1.calls._membership.join

        async def unwilling(node_id: str, raft_address: str) -> wire.ChangeReply:
            nonlocal refusals
            if refusals < 2:
                refusals += 1
                raise MembershipRefused("not today")
            return await really(node_id, raft_address)

        node1.calls._membership.join = unwilling  # type: ignore[method-assign]
        node2 = await cluster.start("node2", join=(cluster.settings["node1"].raft_address,))
        await until(lambda: node2.is_ready, "it joined")
        assert refusals == 2

    run(tmp_path, story)


def test_a_lone_node_that_moved_writes_its_new_address_down(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        await until(lambda: node1.is_ready, "it leads itself")
        await cluster.stop("node1")
        node1 = await cluster.start("node1", raft_port=free_port())
        moved = cluster.settings["node1"].raft_address
        await until(lambda: node1.replica.configuration.voters[0].raft_address == moved, "written down")
        node2 = await cluster.start("node2")
        await cluster.join("node1", "node2")
        assert await get(node2, "k") is None

    run(tmp_path, story)

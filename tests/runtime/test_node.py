"""Whole nodes in one process, over real sockets and files: life of a cluster, end to end below HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftkv.errors import DataDirectoryError, InvalidInput, MembershipRefused, NotLeader, PeerProtocolError
from raftkv.kv import Put
from raftkv.raft import RequestVote, encode_message
from raftkv.runtime import InitialMember, Node
from raftkv.runtime.wire import FrameKind
from raftkv.types import Consistency, WriteMode
from tests.ports import free_port
from tests.runtime.nodes import Cluster, delete, get, put, put_soon, run, small_settings, submit, until

THREE = ("node1", "node2", "node3")


def test_a_fresh_node_leads_itself_and_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        assert (await put(node, "k", "1")).revision == 2
        await cluster.stop("node1")
        again = await cluster.start("node1")
        assert await get(again, "k") == "1"

    run(tmp_path, story)


def test_three_nodes_join_and_replicate(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        await put(node1, "k", "1")
        assert [await get(node, "k") for node in (node1, node2, node3)] == ["1", "1", "1"]
        await delete(node1, "k")
        assert [await get(node, "k") for node in (node1, node2, node3)] == [None, None, None]
        await cluster.agree()

    run(tmp_path, story)


def test_a_write_through_a_follower_is_read_back_there_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        _, node2, _ = await cluster.form(*THREE)
        await until(lambda: node2.is_ready, "node2 caught up")
        for i in range(20):
            await put(node2, "k", str(i))
            assert await get(node2, "k", Consistency.LOCAL) == str(i)

    run(tmp_path, story)


def test_write_modes_reject_and_redirect_name_the_leader(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        for mode in (WriteMode.REJECT, WriteMode.REDIRECT):
            with pytest.raises(NotLeader) as caught:
                await submit(node2, Put(b"k", b"1"), mode)
            assert caught.value.leader_node_id == "node1"
            assert caught.value.leader_address == node1.settings.server_address
        assert await get(node1, "k") is None

    run(tmp_path, story)


def test_lease_reads_are_refused_unless_enabled(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        with pytest.raises(InvalidInput, match="lease_reads"):
            await get(node, "k", Consistency.LEASE)

    run(tmp_path, story)


def test_lease_reads_on_the_leader(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, _ = await cluster.form(*THREE, lease_reads=True)
        await put(node1, "k", "1")
        assert await get(node1, "k", Consistency.LEASE) == "1"

    run(tmp_path, story)


def test_a_removed_node_rejoins_the_first_time_without_a_change_of_leader(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        term = node1.position().current_term
        await node2.remove("node3")  # any node takes the request
        await until(lambda: not node3.replica.configuration.is_voter(node3.replica.own.member_id), "node3 knows")
        await put(node1, "k", "while away")
        await cluster.join("node2", "node3")
        assert await get(node3, "k") == "while away"
        assert node1.position().current_term == term
        assert node1.replica.is_leader
        await cluster.agree()

    run(tmp_path, story)


def test_the_leader_removes_itself_and_the_others_go_on(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        await put(node1, "k", "1")
        await node1.remove("node1")
        await until(lambda: node2.replica.is_leader or node3.replica.is_leader, "another leader")
        await put_soon(node2, "k", "2")
        assert not node1.replica.is_leader
        await cluster.join("node2", "node1")
        assert await get(node1, "k") == "2"
        await cluster.agree()

    run(tmp_path, story)


def test_a_fresh_node_gets_everything_although_the_log_was_cut(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        (node1,) = await cluster.form("node1")
        for start in range(0, 3000, 100):
            await asyncio.gather(*(put(node1, f"key{i}", "v" * 100) for i in range(start, start + 100)))
        await until(lambda: node1.replica.log.base.last_index > 0, "the log was cut")
        node2 = await cluster.start("node2")
        await cluster.join("node1", "node2")
        assert node2.snapshots.installed_count == 1
        await cluster.agree()
        await cluster.stop("node2")
        node2 = await cluster.start("node2")
        assert await get(node2, "key2999") == "v" * 100
        await cluster.agree()

    run(tmp_path, story)


def test_a_node_that_was_away_while_the_log_was_cut_catches_up(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, _ = await cluster.form(*THREE)
        await cluster.stop("node3")
        for start in range(0, 3000, 100):
            await asyncio.gather(*(put(node1, f"key{i}", "v" * 100) for i in range(start, start + 100)))
        last = node1.replica.machine.last_applied
        await until(lambda: node1.replica.log.base.last_index > last // 2, "the log was cut")
        node3 = await cluster.start("node3")
        await until(lambda: node3.is_ready, "node3 caught up")
        assert await get(node3, "key7") == "v" * 100
        await cluster.agree()

    run(tmp_path, story)


def test_joining_a_member_again_changes_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        index = node1.replica.raft.configuration_index
        await cluster.join("node1", "node2")
        await cluster.join("node2", "node1")
        assert node1.replica.raft.configuration_index == index

    run(tmp_path, story)


def test_a_wiped_member_is_replaced_not_trusted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, node3 = await cluster.form(*THREE)
        await put(node1, "k", "1")
        old_id = node3.replica.own.member_id
        settings = cluster.settings["node3"]
        await cluster.stop("node3")
        await asyncio.to_thread(settings.data_dir.rename, tmp_path / "lost")
        node3 = await cluster.start("node3")
        assert node3.replica.own.member_id != old_id
        await cluster.join("node1", "node3")
        assert old_id not in node1.replica.configuration.members()
        assert await get(node3, "k") == "1"
        await cluster.agree()

    run(tmp_path, story)


def test_an_unreachable_node_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        (node1,) = await cluster.form("node1")
        with pytest.raises(MembershipRefused, match="nothing was changed"):
            await node1.join("node2", f"127.0.0.1:{free_port()}")
        assert len(node1.replica.configuration.members()) == 1
        await put(node1, "k", "still writable")

    run(tmp_path, story)


def test_a_node_of_another_name_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        await cluster.start("node2")
        await until(lambda: node1.is_ready, "it leads itself")
        with pytest.raises(MembershipRefused, match="calls itself 'node2'"):
            await node1.join("node3", cluster.settings["node2"].raft_address)

    run(tmp_path, story)


def test_a_node_with_data_of_its_own_is_refused_and_keeps_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        other = await cluster.start("node2")
        await until(lambda: node1.is_ready and other.is_ready, "each leads itself")
        await put(other, "mine", "1")
        with pytest.raises(MembershipRefused, match="data of its own"):
            await node1.join("node2", cluster.settings["node2"].raft_address)
        assert await get(other, "mine") == "1"
        assert other.replica.is_leader
        assert len(node1.replica.configuration.members()) == 1

    run(tmp_path, story)


def test_a_member_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.form("node1", "node2")
        lone = await cluster.start("node3")
        await until(lambda: lone.is_ready, "it leads itself")
        with pytest.raises(MembershipRefused, match="one of 2 members"):
            await lone.join("node2", cluster.settings["node2"].raft_address)

    run(tmp_path, story)


def test_a_member_that_moved_is_found_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, _, _ = await cluster.form(*THREE)
        await cluster.stop("node3")
        node3 = await cluster.start("node3", raft_port=free_port())
        moved = cluster.settings["node3"].raft_address
        await until(
            lambda: any(m.raft_address == moved for m in node1.replica.configuration.voters), "the address was changed"
        )
        await put(node1, "k", "1")
        assert await get(node3, "k") == "1"

    run(tmp_path, story)


def test_an_initial_cluster_forms_by_itself_in_any_order(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        ports = {name: free_port() for name in THREE}
        listed = tuple(InitialMember(name, f"127.0.0.1:{port}") for name, port in ports.items())
        for name in ("node3", "node1", "node2"):
            await cluster.start(name, raft_port=ports[name], initial_cluster=listed)
        await until(lambda: all(node.is_ready for node in cluster.nodes.values()), "all ready")
        await until(lambda: len(cluster.leader().replica.configuration.voters) == 3, "three voters")
        await put(cluster.nodes["node3"], "k", "1")
        await cluster.agree()

    run(tmp_path, story)


def test_a_fresh_node_joins_through_the_members_it_is_given(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        nobody = f"127.0.0.1:{free_port()}"
        node3 = await cluster.start("node3", join=(nobody, cluster.settings["node2"].raft_address))
        await until(lambda: node3.is_ready, "node3 joined by itself")
        await put(node2, "k", "1")
        assert await get(node3, "k") == "1"
        assert len(node1.replica.configuration.voters) == 3

    run(tmp_path, story)


def test_stopping_the_leader_hands_leadership_over_first(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, node3 = await cluster.form(*THREE)
        await put(node1, "k", "1")
        await cluster.stop("node1")
        assert node2.replica.is_leader or node3.replica.is_leader
        await put_soon(node2, "k", "2")

    run(tmp_path, story)


def test_leadership_goes_where_it_is_sent(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        _, node2, node3 = await cluster.form(*THREE)
        await node3.transfer_leadership("node2")
        await until(lambda: node2.replica.is_leader, "node2 leads")
        with pytest.raises(MembershipRefused, match="not a voter"):
            await node2.transfer_leadership("node9")

    run(tmp_path, story)


def test_a_second_node_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.start("node1")
        with pytest.raises(DataDirectoryError):
            await Node.start(small_settings(tmp_path, "node1"))

    run(tmp_path, story)


def test_a_node_that_was_away_can_answer_a_leader_that_it_never_knew(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form(*THREE)
        await node1.remove("node3")
        await cluster.stop("node3")
        await cluster.start("node4")
        await cluster.join("node1", "node4")
        node4 = cluster.nodes["node4"]
        await node1.transfer_leadership("node4")
        await until(lambda: node2.replica.leader == node4.replica.own.member_id, "node2 knows that node4 leads")
        await cluster.stop("node1")
        await node2.remove("node1")
        node3 = await cluster.start("node3")
        await put(node4, "k", "1")
        await cluster.join("node2", "node3")
        assert await get(node3, "k") == "1"

    run(tmp_path, story)


def test_nobody_speaks_in_anothers_name(tmp_path: Path) -> None:
    """The handshake has said who is at the other end; a vote in somebody else's name would be counted as theirs."""

    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        me, other, stranger = node1.replica.own.member_id, node2.replica.own.member_id, 7
        term = node1.replica.raft.current_term
        in_its_name = encode_message(RequestVote(term + 1, other, me, 1 << 20, term, leadership_transfer=True))
        with pytest.raises(PeerProtocolError, match="in the name of"):
            node1.on_frame(stranger, FrameKind.RAFT, in_its_name)
        assert node1.replica.raft.current_term == term

    run(tmp_path, story)

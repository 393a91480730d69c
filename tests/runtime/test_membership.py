"""Join and remove as the leader decides them: what is refused changes nothing, what is repeated does no harm."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import (
    ConfigurationInProgress,
    InvalidInput,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    PeerProtocolError,
    RaftkvError,
    Rejected,
    SettingsError,
    Unavailable,
)
from raftkv.runtime import Node, Settings, wire
from raftkv.runtime.membership.changes import Membership
from raftkv.types import Configuration, Member
from tests.runtime.membership_fakes import CLUSTER_ID, LOST, FakeCore, FakeNetwork, FakeNode, member
from tests.runtime.nodes import Cluster, put, put_soon, run, small_settings, until

ONE, TWO, THREE, FOUR = (member(number) for number in (1, 2, 3, 4))


class World:
    """The leader node1 with two other voters; node4 is fresh, with an empty cluster of its own."""

    def __init__(self) -> None:
        self.core = FakeCore(ONE, TWO, THREE)
        self.network = FakeNetwork()
        self.network.nodes[FOUR.raft_address] = FakeNode(FOUR)
        self.membership = Membership(lambda: self.core, self.network.call, join_timeout_s=0.2)

    async def join(self, node_id: str = "node4", address: str = FOUR.raft_address) -> wire.ChangeReply:
        return await self.membership.join(node_id, address)


def play(story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(World())

    asyncio.run(main())


async def many_turns() -> None:
    """Nothing in this world waits for time: what is going to happen happens in these turns of the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


# ---- Joining


def test_a_fresh_node_is_absorbed_and_then_added_as_a_learner() -> None:
    async def story(world: World) -> None:
        reply = await world.join()
        assert reply.is_complete
        assert world.network.calls == [
            (FOUR.raft_address, wire.CallKind.PROBE),
            (FOUR.raft_address, wire.CallKind.ABSORB),
        ]
        assert world.network.absorbed[0].cluster_id == CLUSTER_ID
        assert world.core.proposed == [Configuration((ONE, TWO, THREE), (FOUR,))]

    play(story)


def test_a_blank_node_of_this_cluster_is_not_absorbed_again() -> None:
    """A join that was interrupted after the absorption goes on where it stood."""

    async def story(world: World) -> None:
        world.network.nodes[FOUR.raft_address] = FakeNode(FOUR, CLUSTER_ID)
        assert (await world.join()).is_complete
        assert world.network.absorbed == []
        assert world.core.configuration.is_voter(4)

    play(story)


def test_a_join_answers_when_the_node_is_a_voter_and_that_is_committed() -> None:
    async def story(world: World) -> None:
        world.core.promotes_at_once = False
        joining = asyncio.create_task(world.join())
        while not world.core.proposed:  # noqa: ASYNC110 -- the fake has no event for it
            await asyncio.sleep(0)
        world.core.is_configuration_committed = False
        world.core.promote()
        await many_turns()
        assert not joining.done()
        world.core.commit()
        assert (await joining).is_complete

    play(story)


def test_a_join_that_takes_too_long_tells_how_far_it_is() -> None:
    async def story(world: World) -> None:
        world.core.promotes_at_once = False
        reply = await world.join()
        assert not reply.is_complete
        assert reply.progress == "4 has 3 of 7 log entries"
        assert world.core.configuration.learners == (FOUR,)

    play(story)


def test_a_join_whose_leader_falls_does_not_claim_that_it_succeeded() -> None:
    async def story(world: World) -> None:
        world.core.promotes_at_once = False
        joining = asyncio.create_task(world.join())
        while not world.core.proposed:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
        world.core.is_leader = False
        world.core.notify()
        reply = await joining
        assert not reply.is_complete
        assert "join it again" in reply.progress

    play(story)


def test_joining_a_voter_again_changes_nothing() -> None:
    async def story(world: World) -> None:
        world.network.nodes[TWO.raft_address] = FakeNode(TWO, CLUSTER_ID, has_data=True, count=3)
        assert (await world.join("node2", TWO.raft_address)).is_complete
        assert world.core.proposed == []

    play(story)


def test_joining_the_leader_itself_is_already_so() -> None:
    async def story(world: World) -> None:
        assert (await world.join("node1", ONE.raft_address)).is_complete
        assert world.network.calls == []
        with pytest.raises(MembershipRefused, match="is the leader itself"):
            await world.join("node1", FOUR.raft_address)
        assert world.core.proposed == []

    play(story)


def test_a_member_at_a_new_address_gets_it_written_down() -> None:
    async def story(world: World) -> None:
        moved = member(2, "elsewhere:1111")
        world.network.nodes[moved.raft_address] = FakeNode(moved, CLUSTER_ID, has_data=True, count=3)
        assert (await world.join("node2", moved.raft_address)).is_complete
        assert world.core.configuration.voters == (ONE, moved, THREE)

    play(story)


def test_a_wiped_member_is_replaced_by_its_new_identity_in_one_change() -> None:
    """The old one may have promised votes that the new one knows nothing of."""

    async def story(world: World) -> None:
        reborn = member(2).__class__(22, "node2", TWO.raft_address, TWO.http_address)
        world.network.nodes[TWO.raft_address] = FakeNode(reborn)
        world.core.promotes_at_once = False
        await world.join("node2", TWO.raft_address)
        assert world.core.proposed == [Configuration((ONE, THREE), (reborn,))]

    play(story)


NAMESAKE = Member(22, "node2", "elsewhere:1111", "elsewhere:2221")
PROBES_BOTH = [(NAMESAKE.raft_address, wire.CallKind.PROBE), (TWO.raft_address, wire.CallKind.PROBE)]


async def join_namesake(world: World) -> wire.ChangeReply:
    world.network.nodes[NAMESAKE.raft_address] = FakeNode(NAMESAKE)
    return await world.join("node2", NAMESAKE.raft_address)


def test_a_member_that_answers_is_not_replaced_by_another_node_of_its_name() -> None:
    async def story(world: World) -> None:
        world.network.nodes[TWO.raft_address] = FakeNode(TWO, CLUSTER_ID, has_data=True, count=3)
        with pytest.raises(MembershipRefused, match=r"node2 is a member at host2:1111 and answers there"):
            await join_namesake(world)
        assert world.network.calls == PROBES_BOTH
        assert world.core.proposed == []

    play(story)


@pytest.mark.parametrize("answer", [LOST, b"\xc1", Unavailable("cannot reach it")])
def test_a_member_that_cannot_be_asked_but_was_heard_just_now_is_not_replaced(answer: bytes | Exception) -> None:
    async def story(world: World) -> None:
        world.network.nodes[TWO.raft_address] = FakeNode(TWO)
        world.network.nodes[TWO.raft_address].probe_answer = answer
        world.core.recently_active = {TWO.member_id}
        with pytest.raises(MembershipRefused, match="was heard a moment ago"):
            await join_namesake(world)
        assert world.core.proposed == []
        assert world.network.absorbed == []

    play(story)


def test_a_dead_member_is_replaced_by_another_node_of_its_name() -> None:
    async def story(world: World) -> None:
        await join_namesake(world)
        assert world.network.calls[:2] == PROBES_BOTH
        assert world.core.configuration == Configuration((ONE, THREE, NAMESAKE))

    play(story)


def test_a_member_whose_address_has_another_identity_now_is_gone_however_lately_it_was_heard() -> None:
    """Its disk was wiped a moment ago, and it is called by another of its addresses."""

    async def story(world: World) -> None:
        world.core.recently_active = {TWO.member_id}
        world.network.nodes[TWO.raft_address] = FakeNode(NAMESAKE)
        await join_namesake(world)
        assert world.core.configuration == Configuration((ONE, THREE, NAMESAKE))

    play(story)


def test_a_wiped_member_at_its_address_is_replaced_although_it_was_heard_just_now() -> None:
    async def story(world: World) -> None:
        world.core.recently_active = {TWO.member_id}
        reborn = Member(22, "node2", TWO.raft_address, TWO.http_address)
        world.network.nodes[TWO.raft_address] = FakeNode(reborn)
        assert (await world.join("node2", TWO.raft_address)).is_complete
        assert world.core.configuration == Configuration((ONE, THREE, reborn))

    play(story)


# ---- What is refused changes nothing

REFUSED: dict[str, tuple[Callable[[World], None], str]] = {
    "nobody answers": (lambda world: world.network.nodes.clear(), "does not answer as a raftkv node"),
    "the answer is lost": (lambda world: probe_gives(world, LOST), "does not answer as a raftkv node"),
    "it answers with garbage": (lambda world: probe_gives(world, b"\xc1"), "does not answer as a raftkv node"),
    "it answers with less": (lambda world: probe_gives(world, b"\x91\x01"), "does not answer as a raftkv node"),
    "it has another name": (lambda world: stands_there(world, FakeNode(TWO)), "calls itself 'node2'"),
    "it has data": (lambda world: stands_there(world, FakeNode(FOUR, has_data=True)), "holds data of its own"),
    "it has a cluster": (lambda world: stands_there(world, FakeNode(FOUR, count=3)), "one of 3 members"),
    "its id names nobody": (lambda world: it_says(world, member_id=0), "no member id"),
    "its id is negative": (lambda world: it_says(world, member_id=-4), "no member id"),
    "its id is too large": (lambda world: it_says(world, member_id=1 << 63), "no member id"),
    "its id is another's": (lambda world: it_says(world, member_id=TWO.member_id), "has the member id of node2"),
    "its id is the leader's": (lambda world: it_says(world, member_id=ONE.member_id), "has the member id of node1"),
    "its HTTP address has no port": (lambda world: it_says(world, http_address="host4"), "HTTP address"),
    "its HTTP address is no address": (lambda world: it_says(world, http_address="a b\r\n:1"), "HTTP address"),
    "its HTTP address is every address": (lambda world: it_says(world, http_address="0.0.0.0:2221"), "HTTP address"),
    "its HTTP port is none": (lambda world: it_says(world, http_address="host4:0"), "HTTP address"),
    "its HTTP address is too long": (lambda world: it_says(world, http_address="h" * 296 + ":2221"), "HTTP address"),
    "it changed since": (
        lambda world: absorb_gives(world, MembershipRefused("node4 is not the node that was asked before")),
        "not the node that was asked",
    ),
    "it vanished since": (lambda world: absorb_gives(world, Unavailable("cannot reach it")), "cannot reach"),
}


def it_says(world: World, **changes: Any) -> None:
    member_id, http_address = changes.get("member_id", 4), changes.get("http_address", FOUR.http_address)
    stands_there(world, FakeNode(Member(member_id, "node4", FOUR.raft_address, http_address)))


def probe_gives(world: World, answer: bytes | Exception) -> None:
    world.network.nodes[FOUR.raft_address].probe_answer = answer


def absorb_gives(world: World, answer: bytes | Exception) -> None:
    world.network.nodes[FOUR.raft_address].absorb_answer = answer


def stands_there(world: World, node: FakeNode) -> None:
    world.network.nodes[FOUR.raft_address] = node


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsafe_join_is_refused_and_changes_nothing(case: str) -> None:
    async def story(world: World) -> None:
        spoil, text = REFUSED[case]
        spoil(world)
        with pytest.raises(Rejected, match=text):
            await world.join()
        assert world.core.proposed == []

    play(story)


def test_an_unfit_identity_is_refused_before_it_gives_up_its_cluster() -> None:
    async def story(world: World) -> None:
        it_says(world, member_id=TWO.member_id)
        with pytest.raises(MembershipRefused, match="nothing was changed"):
            await world.join()
        assert world.network.absorbed == []

    play(story)


@pytest.mark.parametrize("changes", [{"member_id": 0}, {"member_id": TWO.member_id}, {"http_address": "host4"}])
def test_what_a_node_says_once_it_was_absorbed_is_checked_as_well(changes: dict[str, Any]) -> None:
    async def story(world: World) -> None:
        fields: dict[str, Any] = {"member_id": 4, "http_address": FOUR.http_address, **changes}
        absorb_gives(world, wire.encode(wire.AbsorbReply(**fields)))
        with pytest.raises(MembershipRefused):
            await world.join()
        assert world.core.proposed == []

    play(story)


@pytest.mark.parametrize("http_address", ["", "[::1]:2221", "h" * 295 + ":2221"])
def test_an_http_address_may_be_missing_or_long(http_address: str) -> None:
    async def story(world: World) -> None:
        it_says(world, http_address=http_address)
        world.network.nodes[FOUR.raft_address].absorb_answer = wire.encode(wire.AbsorbReply(4, http_address))
        assert (await world.join()).is_complete

    play(story)


@pytest.mark.parametrize("name", ["", "a b", "n" * 65, "node\n4"])
def test_a_name_that_no_node_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Settings(node_id=name, data_dir=tmp_path)

    async def story(world: World) -> None:
        stands_there(world, FakeNode(Member(4, name, FOUR.raft_address, FOUR.http_address)))
        with pytest.raises(MembershipRefused, match="no node id"):
            await world.join(name)
        assert world.core.proposed == []

    play(story)


def test_an_address_of_another_member_is_refused() -> None:
    async def story(world: World) -> None:
        world.network.nodes[TWO.raft_address] = FakeNode(FOUR)
        with pytest.raises(MembershipRefused, match="belongs to member node2"):
            await world.join("node4", TWO.raft_address)
        assert world.core.proposed == []
        assert world.network.absorbed == []

    play(story)


def test_the_only_voter_is_not_replaced_by_a_wiped_one() -> None:
    async def story(world: World) -> None:
        world.core.configuration = Configuration((TWO,), (ONE,))
        reborn = member(2).__class__(22, "node2", TWO.raft_address, TWO.http_address)
        world.network.nodes[TWO.raft_address] = FakeNode(reborn, CLUSTER_ID)
        with pytest.raises(MembershipRefused, match="restore a backup"):
            await world.join("node2", TWO.raft_address)
        assert world.core.proposed == []

    play(story)


@pytest.mark.parametrize("answer", [LOST, b"\xc1", b"\x92\xa0\x01"])
def test_an_absorption_with_an_unknown_end_is_told_as_such_and_the_join_can_be_repeated(
    answer: bytes | Exception,
) -> None:
    async def story(world: World) -> None:
        absorb_gives(world, answer)
        with pytest.raises(OutcomeUnknown, match="Join it again"):
            await world.join()
        assert world.core.proposed == []
        stands_there(world, FakeNode(FOUR, CLUSTER_ID))  # it had acted
        assert (await world.join()).is_complete

    play(story)


@pytest.mark.parametrize("request_name", ["join", "remove"])
def test_only_the_leader_decides(request_name: str) -> None:
    async def story(world: World) -> None:
        world.core.is_leader = False
        with pytest.raises(NotLeader):
            await (world.join() if request_name == "join" else world.membership.remove("node2"))
        assert world.network.calls == []

    play(story)


def test_leadership_lost_while_the_node_is_asked_changes_nothing() -> None:
    async def story(world: World) -> None:
        world.network.held = asyncio.Event()
        joining = asyncio.create_task(world.join())
        await asyncio.sleep(0)
        world.core.is_leader = False
        world.network.held.set()
        with pytest.raises(NotLeader):
            await joining
        assert world.core.proposed == []

    play(story)


# ---- One at a time


def test_a_change_waits_for_the_one_before_it() -> None:
    async def story(world: World) -> None:
        world.core.refusals = [ConfigurationInProgress("another change is under way")] * 2
        assert (await world.join()).is_complete

    play(story)


def test_a_change_that_never_gets_its_turn_is_refused() -> None:
    async def story(world: World) -> None:
        world.core.is_configuration_committed = False
        with pytest.raises(ConfigurationInProgress):
            await world.join()
        assert world.core.proposed == []

    play(story)


def test_requests_at_once_are_carried_out_one_after_the_other() -> None:
    async def story(world: World) -> None:
        five = member(5)
        world.network.nodes[five.raft_address] = FakeNode(five)
        replies = await asyncio.gather(
            world.join(), world.join("node5", five.raft_address), world.join(), world.membership.remove("node3")
        )
        assert all(reply.is_complete for reply in replies)
        assert world.core.configuration == Configuration((ONE, TWO, FOUR, five))
        assert len(world.network.absorbed) == 3  # the fake goes on calling itself fresh
        assert len(world.core.proposed) == 3

    play(story)


def test_a_request_under_way_can_be_seen_by_whoever_would_absorb_this_node() -> None:
    async def story(world: World) -> None:
        world.network.held = asyncio.Event()
        joining = asyncio.create_task(world.join())
        await asyncio.sleep(0)
        assert world.membership.is_changing
        world.network.held.set()
        await joining
        assert not world.membership.is_changing

    play(story)


# ---- Removing


def test_a_removed_member_is_gone_when_that_is_committed() -> None:
    async def story(world: World) -> None:
        world.core.commits_at_once = False
        removing = asyncio.create_task(world.membership.remove("node2"))
        while not world.core.proposed:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
        await many_turns()
        assert not removing.done()
        world.core.commit()
        assert (await removing).is_complete
        assert world.core.configuration == Configuration((ONE, THREE))

    play(story)


def test_who_is_no_member_is_removed_already() -> None:
    async def story(world: World) -> None:
        assert (await world.membership.remove("node9")).is_complete
        assert world.core.proposed == []

    play(story)


def test_a_learner_can_be_removed() -> None:
    async def story(world: World) -> None:
        world.core.configuration = Configuration((ONE,), (TWO,))
        assert (await world.membership.remove("node2")).is_complete
        assert world.core.configuration == Configuration((ONE,))

    play(story)


def test_the_only_voter_is_not_removed() -> None:
    async def story(world: World) -> None:
        world.core.configuration = Configuration((ONE,), (TWO,))
        with pytest.raises(MembershipRefused, match="only voter"):
            await world.membership.remove("node1")
        assert world.core.proposed == []

    play(story)


def test_a_removal_that_is_not_committed_in_time_is_unknown() -> None:
    async def story(world: World) -> None:
        world.core.commits_at_once = False
        with pytest.raises(OutcomeUnknown):
            await world.membership.remove("node2")

    play(story)


def test_a_removal_whose_leader_falls_is_unknown_at_once() -> None:
    async def story(world: World) -> None:
        world.core.commits_at_once = False
        removing = asyncio.create_task(world.membership.remove("node2"))
        while not world.core.proposed:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
        world.core.is_leader = False
        world.core.notify()
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(0.1):
                await removing

    play(story)


def test_a_leader_that_removes_itself_waits_for_the_commit_although_it_leads_no_more() -> None:
    async def story(world: World) -> None:
        world.core.commits_at_once = False
        removing = asyncio.create_task(world.membership.remove("node1"))
        while not world.core.proposed:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
        world.core.is_leader = False
        world.core.commit()
        assert (await removing).is_complete

    play(story)


def test_a_leader_that_stops_while_it_removes_itself_does_not_know_the_end() -> None:
    async def story(world: World) -> None:
        world.core.commits_at_once = False
        removing = asyncio.create_task(world.membership.remove("node1"))
        while not world.core.proposed:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0)
        world.core.is_leader, world.core.is_closed = False, True
        world.core.notify()
        with pytest.raises(OutcomeUnknown):
            async with asyncio.timeout(0.1):
                await removing

    play(story)


# ---- With real nodes


def test_a_live_node_does_not_take_the_place_of_a_live_member_of_its_name(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form("node1", "node2", "node3")
        namesake = await Node.start(small_settings(tmp_path / "other", "node2"))
        try:
            await until(lambda: namesake.is_ready, "it leads itself")
            index = node1.replica.raft.configuration_index
            with pytest.raises(MembershipRefused, match="answers there"):
                await node1.join("node2", namesake.settings.raft_address)
            assert node1.replica.raft.configuration_index == index
            assert namesake.is_ready, "it keeps its own cluster"
            await put(node2, "k", "2")
            await cluster.stop("node2")
            await until(
                lambda: not node1.replica.standing.is_recently_active(node2.replica.own.member_id), "it is missed"
            )
            assert (await node1.join("node2", namesake.settings.raft_address)).is_complete
            assert node1.replica.configuration.find("node2") == namesake.replica.own
        finally:
            await namesake.stop()

    run(tmp_path, story)


def test_a_member_that_nobody_can_reach_is_removed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form("node1", "node2", "node3")
        await cluster.stop("node3")
        await node2.remove("node3")
        assert node1.replica.configuration.find("node3") is None
        await put(node1, "k", "1")
        await node1.remove("node2")
        await put(node1, "k", "2")
        assert len(node1.replica.configuration.members()) == 1

    run(tmp_path, story)


def test_a_node_that_vanishes_while_it_is_joined_stands_in_nobodys_way(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1", join_timeout_ms=300)
        node2 = await cluster.start("node2")
        await until(lambda: node1.is_ready and node2.is_ready, "each leads itself")
        really = node2.become_blank

        async def vanish(request: wire.Absorb) -> None:
            await really(request)
            node2.replica.close_queues()  # it hears nothing and says nothing any more

        node2.become_blank = vanish  # type: ignore[method-assign]
        reply = await node1.join("node2", cluster.settings["node2"].raft_address)
        assert not reply.is_complete
        assert "log entries" in reply.progress
        await put(node1, "k", "a learner does not count")
        await node1.remove("node2")
        assert len(node1.replica.configuration.members()) == 1
        await cluster.stop("node2")
        await cluster.start("node2")
        await cluster.join("node1", "node2")
        await put(cluster.nodes["node2"], "k", "1")

    run(tmp_path, story)


def test_a_removal_that_needs_the_voice_of_the_dead_is_unknown_until_it_is_back(tmp_path: Path) -> None:
    """Of two voters both have to agree; saying that it failed would be wrong, since it may yet succeed."""

    async def story(cluster: Cluster) -> None:
        node1, _ = await cluster.form("node1", "node2")
        await cluster.stop("node2")
        node1.calls._membership._join_timeout_s = 0.1
        with pytest.raises(OutcomeUnknown, match="not confirmed in time"):
            await node1.remove("node2")
        await cluster.start("node2")
        await until(lambda: len(node1.replica.configuration.members()) == 1, "it has succeeded")
        await put_soon(node1, "k", "1")

    run(tmp_path, story)


def test_two_lone_nodes_that_are_joined_to_each_other_at_once_do_not_both_vanish(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1 = await cluster.start("node1")
        node2 = await cluster.start("node2")
        await until(lambda: node1.is_ready and node2.is_ready, "each leads itself")
        addresses = {name: settings.raft_address for name, settings in cluster.settings.items()}
        for _ in range(5):
            outcomes = await asyncio.gather(
                node1.join("node2", addresses["node2"]),
                node2.join("node1", addresses["node1"]),
                return_exceptions=True,
            )
            assert all(isinstance(o, RaftkvError | wire.ChangeReply) for o in outcomes), outcomes
            await until(lambda: node1.replica.is_leader or node2.replica.is_leader, "somebody leads")
        await until(lambda: any(node.is_ready for node in (node1, node2)), "somebody is ready")
        leader = node1 if node1.replica.is_leader else node2
        other = "node2" if leader is node1 else "node1"
        assert (await leader.join(other, addresses[other])).is_complete
        await put(node1, "k", "1")
        await cluster.agree()

    run(tmp_path, story)


def test_a_garbled_call_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.start("node1")
        await until(lambda: node.is_ready, "it leads itself")
        payloads = (b"", b"\xc1", b"\x90" * 3, b"\xa1x", b"\x91" * 2000)
        for kind, payload in itertools.product(wire.CallKind, payloads):
            with pytest.raises(PeerProtocolError):
                await node.on_call(kind, payload)
        with pytest.raises(InvalidInput, match="knows no call"):
            await node.on_call(99, b"")
        assert node.is_ready

    run(tmp_path, story)

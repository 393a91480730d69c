"""Cluster membership: Raft §6 (joint consensus), Thesis §4.1, §4.2.1, §4.2.2, §4.3, a claim a test."""

from __future__ import annotations

import pytest

from raftkv.errors import ConfigurationInProgress, MembershipRefused, NoLeader, NotLeader
from raftkv.raft.messages import AppendEntries, AppendEntriesReply, PreVote, RequestVote, RequestVoteReply
from raftkv.types import EntryKind, Member, Role
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, alone, leader_alone
from tests.raft.story import acknowledge, ids, leader_with_log
from tests.raft.words import append, configuration, configuration_entry, member, vote_request


def joint_leader(old: tuple[int, ...] = (1, 2, 3), new: tuple[int, ...] = (1, 4, 5)) -> Server:
    """A leader that has just appended C_old,new; nobody else has it yet."""
    server = leader_with_log([], term=1, voters=old)
    server.propose_configuration(new)
    assert ids(server.status.configuration) == (set(new), set(old), set())
    return server


# ---- joint consensus (§6)


def test_a_change_of_voters_first_appends_the_joint_configuration() -> None:
    """§6: the leader "stores the configuration for joint consensus … as a log entry and replicates that entry"."""
    server = joint_leader()
    entry = server.durable_entries()[-1]
    assert entry.kind is EntryKind.CONFIGURATION
    assert server.status.configuration_index == entry.index
    recipients = {request.recipient for request in server.take(AppendEntries)}
    assert recipients == {2, 3, 4, 5}, "log entries are replicated to all servers in both configurations"


def test_a_configuration_is_used_as_soon_as_it_is_in_the_log() -> None:
    """§6: "a server always uses the latest configuration in its log, regardless of whether the entry is
    committed"."""
    follower = alone(2)
    joint = configuration((1, 4, 5), outgoing=(1, 2, 3))
    follower.step(append(1, 1, 2, (0, 0), [configuration_entry(1, 1, joint)]))
    assert follower.commit_index == 0
    assert ids(follower.status.configuration) == ({1, 4, 5}, {1, 2, 3}, set())
    assert follower.configurations == [joint]


@pytest.mark.parametrize(
    ("acks", "is_committed"),
    [((2, 3), False), ((4, 5), False), ((2,), False), ((4,), False), ((2, 4), True), ((3, 5), True), ((2, 3, 4), True)],
)
def test_agreement_in_the_joint_phase_needs_both_majorities(acks: tuple[int, ...], is_committed: bool) -> None:
    """§6: "Agreement … requires separate majorities from both"; the leader is in both here."""
    server = joint_leader()
    index = server.status.last_index
    acknowledge(server, *acks, upto=index)
    assert (server.commit_index >= index) is is_committed


@pytest.mark.parametrize(
    ("votes", "is_elected"),
    [((2, 3), False), ((4, 5), False), ((2, 4), True), ((3, 4), True), ((2,), False), ((2, 3, 5), True)],
)
def test_an_election_in_the_joint_phase_needs_both_majorities(votes: tuple[int, ...], is_elected: bool) -> None:
    """§6, for elections."""
    server = alone(1, pre_vote=False)
    joint = configuration((1, 4, 5), outgoing=(1, 2, 3))
    server.step(append(1, 2, 1, (0, 0), [configuration_entry(1, 1, joint)]))
    server.tick(server.settings.election_timeout_ticks)
    server.campaign()
    assert {request.recipient for request in server.take(RequestVote)} == {2, 3, 4, 5}
    for voter in votes:
        server.step(RequestVoteReply(server.term, voter, 1, True))
    assert (server.role is Role.LEADER) is is_elected


def test_the_new_configuration_follows_once_the_joint_one_is_committed() -> None:
    """§6: once C_old,new is committed "it is now safe for the leader to create a log entry describing C_new"."""
    server = joint_leader()
    acknowledge(server, 2)
    assert ids(server.status.configuration)[1] == {1, 2, 3}, "not before"
    acknowledge(server, 4)
    assert ids(server.status.configuration) == ({1, 4, 5}, set(), set())


def test_the_new_configuration_commits_by_its_own_majority() -> None:
    """§6: "this configuration will take effect on each server as soon as it is seen"; the old have no say in it."""
    server = joint_leader()
    acknowledge(server, 2, 4)
    final_index = server.status.configuration_index
    acknowledge(server, 2, 3)
    assert server.commit_index < final_index
    acknowledge(server, 5)
    assert server.commit_index == final_index


def test_a_leader_outside_the_new_configuration_steps_down_once_it_is_committed() -> None:
    """§6, second issue: "the leader steps down … once it has committed the C_new log entry"."""
    server = joint_leader(new=(2, 3, 4))
    acknowledge(server, 2, 3, 4)
    assert server.role is Role.LEADER, "it manages a cluster that it is no part of"
    assert ids(server.status.configuration) == ({2, 3, 4}, set(), set())
    acknowledge(server, 2)
    assert server.role is Role.LEADER
    acknowledge(server, 3)
    assert server.role is not Role.LEADER


def test_a_leader_outside_the_new_configuration_does_not_count_itself() -> None:
    """§6: "it replicates log entries but does not count itself in majorities"."""
    server = joint_leader(new=(2, 3))
    acknowledge(server, 2, 3)
    final_index = server.status.configuration_index
    acknowledge(server, 2)
    assert server.commit_index < final_index
    acknowledge(server, 3)
    assert server.commit_index == final_index


def test_a_removed_leader_never_campaigns_again() -> None:
    """§6 with row 3 of the field: it is no voter of its own latest configuration."""
    server = joint_leader(new=(2, 3, 4))
    for _ in range(2):
        acknowledge(server, 2, 3, 4)
    assert server.role is Role.FOLLOWER
    server.outbox.clear()
    server.tick(20 * server.settings.election_timeout_ticks)
    server.campaign()
    assert not server.take(PreVote)
    assert not server.take(RequestVote)


@pytest.mark.parametrize("target", [(1, 2, 3, 4), (1, 2), (1, 2, 4), (4, 5, 6), (1,), (2, 3), (1, 2, 3, 4, 5, 6, 7)])
def test_any_configuration_becomes_any_other(target: tuple[int, ...]) -> None:
    """§6: one mechanism for any change; afterwards writes commit in the new configuration alone."""
    cluster = Cluster((1, 2, 3), spare=(4, 5, 6, 7))
    cluster.elect(1).propose(b"before")
    cluster.settle()
    cluster[1].propose_configuration(target)
    cluster.tick(100)
    leader = cluster.leader()
    assert leader.member_id in target
    assert ids(leader.status.configuration) == (set(target), set(), set())
    for outsider in set(cluster.servers) - set(target):
        cluster.crash(outsider)
    leader.propose(b"after")
    cluster.tick(20)
    assert all(cluster[member_id].machine.commands == [b"before", b"after"] for member_id in target)


def test_a_new_leader_finishes_the_change() -> None:
    """§6, Thesis §4.3: if the leader crashes in the joint phase, the next one completes it."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((2, 3, 4))
    cluster.deliver_only(AppendEntries)
    cluster.crash(1)
    cluster.lose_all()
    assert cluster[2].status.configuration.is_joint
    cluster.tick(150)
    leader = cluster.leader()
    assert leader.member_id in (2, 3, 4)
    assert ids(leader.status.configuration) == ({2, 3, 4}, set(), set())
    assert leader.commit_index >= leader.status.configuration_index


def test_a_change_that_reached_no_majority_is_undone() -> None:
    """§6: a server whose configuration entry is truncated uses the one before (Thesis §4.1)."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster.isolate(1)
    cluster[1].propose_configuration((1, 4))
    assert cluster[1].status.configuration.is_joint
    cluster.tick(100)
    cluster.heal()
    cluster.tick(60)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3}, set(), set())
    assert cluster[1].configurations[-1] == configuration((1, 2, 3))


def test_no_change_before_an_entry_of_the_leaders_term_is_committed() -> None:
    """Thesis §4.1 as corrected in 2015: else two leaders may change the same old configuration apart."""
    server = leader_alone()
    with pytest.raises(ConfigurationInProgress):
        server.propose_configuration((1, 2, 3, 4))
    server.accept_appends((2, 3))
    server.propose_configuration((1, 2, 3, 4))


def test_one_change_at_a_time() -> None:
    """§6: C_new is not the base of a further change before it is committed."""
    server = joint_leader()
    with pytest.raises(ConfigurationInProgress):
        server.propose_configuration((1, 2, 3))
    acknowledge(server, 2, 4)
    assert not server.status.configuration.is_joint
    with pytest.raises(ConfigurationInProgress):
        server.propose_configuration((1, 2, 3))
    acknowledge(server, 4)
    server.propose_configuration((1, 2, 3))


def test_only_the_leader_changes_members() -> None:
    """§6: changes are log entries, and only leaders make those."""
    with pytest.raises(NoLeader):
        alone().propose_configuration((1, 2))
    follower = alone()
    follower.step(append(1, 2, 1))
    with pytest.raises(NotLeader):
        follower.propose_configuration((1, 2))


def test_a_configuration_without_voters_is_refused() -> None:
    """Nobody could ever decide anything again, the way back included."""
    server = leader_with_log([], term=1)
    last_index = server.status.last_index
    for voters, learners in (((), ()), ((), (1, 2, 3))):
        with pytest.raises(MembershipRefused):
            server.propose_configuration(voters, learners)
    with pytest.raises(MembershipRefused):
        server.propose_configuration((1, 2, 2))
    with pytest.raises(MembershipRefused):
        server.propose_configuration((1, 2, 3), (3,))
    assert server.status.last_index == last_index


def test_a_server_follows_a_leader_that_is_not_in_its_configuration() -> None:
    """Thesis §4.1: "servers process incoming RPC requests without consulting their current configurations"."""
    newcomer = alone(9, ())
    newcomer.step(append(3, 1, 9, (0, 0), [configuration_entry(1, 3, configuration((1, 2, 9)))], commit=1))
    assert newcomer.take_one(AppendEntriesReply).match_index == 1
    assert newcomer.status.leader == 1
    assert newcomer.status.configuration.is_voter(9)


def test_a_server_votes_for_a_candidate_that_is_not_in_its_configuration() -> None:
    """Thesis §4.1: else a new configuration could not come into force with a leader that only its members know."""
    server = alone(1, (1, 2, 3))
    server.step(vote_request(2, 4, 1))
    assert server.take_one(RequestVoteReply).vote_granted


def test_a_new_address_is_a_change_of_configuration_without_a_joint_phase() -> None:
    """§6 moves majorities safely; here none moves: the same voters at another place."""
    server = leader_with_log([], term=1)
    moved = Member(2, "node2", "elsewhere:9", "elsewhere:10")
    server.node.propose_configuration((member(1), moved, member(3)), ())
    server.carry_out()
    assert not server.status.configuration.is_joint
    assert server.status.configuration.members()[2] == moved


def test_configurations_survive_a_crash() -> None:
    """Thesis §4.1: the configuration is part of the log, so a restarted server uses the latest in its log."""
    follower = alone(2)
    joint = configuration((1, 4, 5), outgoing=(1, 2, 3))
    follower.step(append(1, 1, 2, (0, 0), [configuration_entry(1, 1, joint)]))
    follower.crash()
    follower.restart()
    assert follower.status.configuration == joint
    assert follower.status.configuration_index == 1

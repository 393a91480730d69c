"""What has really gone wrong in other Raft systems, row by row: rows 1 to 13 of the list under "Consensus".

Each test is named by its row and cites the public report. Rows that need more than the core are told where they end:
row 11 (cluster ids on the wire) is the transport's.
"""

from __future__ import annotations

import pytest

from raftkv.errors import ConfigurationInProgress
from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    PreVote,
    PreVoteReply,
    RequestVoteReply,
)
from raftkv.types import HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.harness import alone, leader_alone
from tests.raft.story import acknowledge, ids
from tests.raft.words import append, command, configuration, configuration_entry, vote_request

# ---- 1. configuration change before an own-term entry is committed (Ongaro 2015); see test_membership_bug_2015.py


def test_row_01_an_inherited_joint_configuration_is_not_left_before_an_own_entry_is_committed() -> None:
    """The automatic second step of a change obeys the rule as well as the call does."""
    server = alone(1, pre_vote=False)
    joint = configuration((1, 2), outgoing=(1, 2, 3))
    server.step(append(1, 3, 1, (0, 0), [configuration_entry(1, 1, joint)], commit=1))
    server.tick(server.settings.election_timeout_ticks)
    server.win_election((2, 3))
    assert server.status.configuration == joint, "the joint configuration is committed, this leader's no-op is not"
    with pytest.raises(ConfigurationInProgress):
        server.propose_configuration((1, 2, 3))
    acknowledge(server, 2, 3)
    assert ids(server.status.configuration) == ({1, 2}, set(), set())


# ---- 2. a truncated configuration entry restores the old one; a recovered joint one commits before it is left


def test_row_02_truncation_restores_the_configuration_before() -> None:
    """At a follower whose leader's change did not survive; the driver is told, so that connections follow."""
    server = alone(2)
    changed = configuration((1, 2, 3, 4), outgoing=(1, 2, 3))
    server.step(append(1, 1, 2, (0, 0), [command(1, 1), configuration_entry(2, 1, changed)]))
    server.step(append(2, 3, 2, (1, 1), [command(2, 2)]))
    assert ids(server.status.configuration) == ({1, 2, 3}, set(), set())
    assert server.status.configuration_index == 0
    assert server.configurations == [changed, configuration((1, 2, 3))]


def test_row_02_truncation_of_several_changes_restores_the_right_one() -> None:
    """Three changes in the log, the newest two go."""
    server = alone(2)
    steps = [configuration((1, 2, 3), (4,)), configuration((1, 2, 3), (4, 5)), configuration((1, 2, 3), (5,))]
    server.step(append(1, 1, 2, (0, 0), [configuration_entry(i, 1, c) for i, c in enumerate(steps, start=1)]))
    server.step(append(2, 3, 2, (1, 1), [command(2, 2)]))
    assert server.status.configuration == steps[0]
    assert server.status.configuration_index == 1


def test_row_02_a_restart_between_truncation_and_rewrite_uses_the_right_configuration() -> None:
    """The configuration in force is what the durable log says, also after a crash with the truncation unsynced."""
    server = alone(2)
    changed = configuration((1, 2, 3, 4), outgoing=(1, 2, 3))
    server.step(append(1, 1, 2, (0, 0), [configuration_entry(1, 1, changed)]))
    server.is_disk_held = True
    server.step(append(2, 3, 2, (0, 0), [command(1, 2)]))
    assert not server.status.configuration.is_joint
    server.crash()
    server.is_disk_held = False
    server.restart()
    assert server.status.configuration == changed
    server.step(append(2, 3, 2, (0, 0), [command(1, 2)]))
    server.crash()
    server.restart()
    assert server.status.configuration == configuration((1, 2, 3))


def test_row_02_a_recovered_joint_configuration_is_committed_before_it_is_left() -> None:
    """camunda#60086: a restarted leader found the joint entry in its log and left it uncommitted."""
    cluster = Cluster((1, 2, 3), spare=(4, 5))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 4, 5))
    cluster.deliver_only(AppendEntries, to=2)
    cluster.lose_all()
    cluster.isolate(4, 5)
    for member_id in (1, 2, 3):
        cluster.crash(member_id)
        cluster.restart(member_id)
    cluster.tick(100)
    assert not any(ids(server.status.configuration) == ({1, 4, 5}, set(), set()) for server in cluster.alive())
    cluster.heal()
    cluster.tick(200)
    finals = {str(ids(cluster[member_id].status.configuration)) for member_id in (1, 4, 5)}
    assert len(finals) == 1


# ---- 3. a leader that removes itself; removing one of two


def test_row_03_the_leader_that_removes_itself_commits_that_and_never_campaigns_again() -> None:
    """etcd-io/raft#77, #83: it must neither step down too early nor stand for election afterwards."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((2, 3))
    cluster.tick(30)
    assert cluster[1].role is Role.FOLLOWER
    assert ids(cluster[1].status.configuration) == ({2, 3}, set(), set())
    assert cluster.leader().member_id in (2, 3)
    term = cluster.leader().term
    cluster.tick(300)
    assert cluster[1].role is Role.FOLLOWER
    assert cluster.leader().term == term


def test_row_03_removing_one_of_two_does_not_strand_the_other() -> None:
    """The other one learns of the commit before the leaver goes, or finds out by itself."""
    cluster = Cluster((1, 2))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((2,))
    cluster.tick(60)
    cluster.crash(1)
    cluster.tick(60)
    assert cluster[2].role is Role.LEADER


def test_row_03_a_leader_that_removed_itself_leads_once_more_when_only_it_has_that_entry() -> None:
    """Thesis §4.2.2, figure 4.6: leader 1 of two appends its own removal and crashes. 2 cannot win against
    1's longer log, so 1 has to be elected again, by 2's vote alone, to finish the change."""
    cluster = Cluster((1, 2))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((2,))
    cluster.deliver_only(AppendEntries)
    cluster.deliver_only(AppendEntriesReply)
    assert ids(cluster[1].status.configuration) == ({2}, set(), set())
    assert ids(cluster[2].status.configuration) == ({2}, {1, 2}, set())
    cluster.lose_all()
    cluster.crash(1)
    cluster.restart(1)
    cluster.tick(200)
    assert cluster[2].role is Role.LEADER
    assert ids(cluster[2].status.configuration) == ({2}, set(), set())
    assert cluster[1].role is Role.FOLLOWER


# ---- 4. term and vote durable, atomically, before the reply


@pytest.mark.parametrize("keep_steps", [0, 1, 2])
def test_row_04_no_crash_makes_a_server_vote_twice(keep_steps: int) -> None:
    """PySyncObj#84, hashicorp/raft#661: crash at each point between the request and the reply."""
    server = alone(voters=(1, 2, 3))
    server.is_disk_held = True
    server.step(vote_request(5, 2, 1))
    first = [reply for reply in server.outbox if isinstance(reply, RequestVoteReply) and reply.vote_granted]
    assert first == []
    server.crash(keep_steps=keep_steps)
    server.is_disk_held = False
    server.restart()
    server.step(vote_request(5, 3, 1))
    second = server.take_last(RequestVoteReply, 3)
    if server.log.hard_state.voted_for == 2:
        assert not second.vote_granted
    else:
        assert server.log.hard_state == HardState(5, 3)


def test_row_04_term_and_vote_are_written_together() -> None:
    """A crash must not find the new term with the old vote, nor the old term with the new vote."""
    server = alone(term=3, voted_for=3)
    server.handed_out.clear()
    server.step(vote_request(4, 2, 1))
    written = [effects.hard_state for effects in server.handed_out if effects.hard_state is not None]
    assert written == [HardState(4, 2)]


# ---- 5. pre-vote changes nothing and is never counted as a vote


def test_row_05_pre_vote_answers_elect_nobody() -> None:
    """canonical/raft#196, #279: pre-vote grants of an earlier round were counted as votes."""
    server = alone(voters=range(1, 6))
    server.campaign()
    server.step(PreVoteReply(0, 2, 1, 1, True))
    server.step(PreVoteReply(0, 3, 1, 1, True))
    assert server.role is Role.CANDIDATE
    for voter in (2, 3, 4, 5):
        server.step(PreVoteReply(0, voter, 1, 1, True))
    assert server.role is Role.CANDIDATE
    server.step(RequestVoteReply(1, 2, 1, True))
    server.step(RequestVoteReply(1, 3, 1, True))
    assert server.status.role is Role.LEADER


def test_row_05_a_pre_vote_writes_nothing_anywhere() -> None:
    """Neither the asker nor the asked touches its disk."""
    asker, asked = alone(1, term=2, voted_for=3), alone(2, term=2, voted_for=1)
    asker.handed_out.clear()
    asked.handed_out.clear()
    asker.campaign()
    asked.step(asker.take_last(PreVote, 2))
    assert not any(effects.hard_state for effects in asker.handed_out + asked.handed_out)
    assert asked.log.hard_state == HardState(2, 1)


# ---- 6. no commit by counting old-term entries (also figure 8 in test_paper_safety.py)


def test_row_06_a_restarted_leader_does_not_commit_its_old_entries_by_counting() -> None:
    """PySyncObj#169."""
    server = leader_alone(log=[1, 1, 1], term=1)
    for follower in (2, 3):
        server.step(AppendEntriesReply(2, follower, 1, True, 3, 3, 0, 0, 0))
    assert server.commit_index == 0
    assert server.machine.history == []

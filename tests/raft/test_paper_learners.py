"""Who comes and who goes: learners (Raft §6, first issue; Thesis §4.2.1) and removed servers (§6, third issue)."""

from __future__ import annotations

from raftkv.raft.messages import AppendEntries, AppendEntriesReply, PreVote
from raftkv.types import Role
from tests.raft.cluster import Cluster
from tests.raft.harness import alone
from tests.raft.story import acknowledge, ids, leader_with_log
from tests.raft.words import accepted, append, configuration, configuration_entry

# ---- learners (§6, first issue; Thesis §4.2.1)


def test_a_learner_receives_the_log_and_counts_for_nothing() -> None:
    """Thesis §4.2.1: a new server first gets the log without a vote, and no majority counts it."""
    server = leader_with_log([], term=1, promote_learners=False)
    server.propose_configuration((1, 2, 3), (4, 5))
    index = server.status.configuration_index
    assert not server.status.configuration.is_joint, "no majority changes"
    assert {request.recipient for request in server.take(AppendEntries)} == {2, 3, 4, 5}
    acknowledge(server, 4, 5)
    assert server.commit_index < index
    acknowledge(server, 2)
    assert server.commit_index == index
    assert server.status.progress[4].is_learner


def test_a_learner_is_asked_for_no_vote() -> None:
    """Thesis §4.2.1, for elections."""
    server = alone(1, (1, 2, 3), learners=(4, 5))
    server.campaign()
    assert {question.recipient for question in server.take(PreVote)} == {2, 3}


def test_a_caught_up_learner_becomes_a_voter_by_itself() -> None:
    """Thesis §4.2.1: the change goes on by itself once the server is caught up; one call joins a server."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    for number in range(20):
        cluster[1].propose(b"%d" % number)
    cluster.settle()
    cluster[1].propose_configuration((1, 2, 3), (4,))
    cluster.tick(100)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3, 4}, set(), set())
    assert cluster[4].machine.commands == cluster[1].machine.commands


def test_a_learner_that_lags_is_not_promoted() -> None:
    """Thesis §4.2.1: a server that is not caught up would be an availability gap as a voter."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2, 3), (4,))
    cluster.isolate(4)
    cluster.tick(200)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3}, set(), {4})


def test_a_learner_is_promoted_under_load() -> None:
    """Thesis §4.2.1, rounds: the log grows all the time, so "caught up" cannot mean "has everything"."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2, 3), (4,))
    for number in range(300):
        cluster[1].propose(b"%d" % number)
        for _ in range(6):
            if cluster.in_flight:
                cluster.deliver()
        if number % 4 == 0:
            cluster.tick(1, settle=False)
        if number % 20 == 0:
            cluster.settle()
    cluster.tick(20)
    assert 4 in ids(cluster[1].status.configuration)[0]


def test_a_learner_that_vanishes_can_be_removed_again() -> None:
    """Row 12 of the field: a join that went wrong must not block the cluster."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster.crash(4)
    cluster[1].propose_configuration((1, 2, 3), (4,))
    cluster.tick(50)
    cluster[1].propose_configuration((1, 2, 3))
    cluster.tick(50)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3}, set(), set())
    cluster[1].propose(b"x")
    cluster.tick(5)
    assert cluster[1].machine.commands == [b"x"]


def test_a_voter_may_become_a_learner() -> None:
    """§6 applied to demotion: it stays an outgoing voter, not a learner, while the configuration is joint."""
    server = leader_with_log([], term=1, promote_learners=False)
    server.propose_configuration((1, 2), (3,))
    joint = server.status.configuration
    assert ids(joint) == ({1, 2}, {1, 2, 3}, set())
    assert {m.member_id for m in joint.learners_next} == {3}
    acknowledge(server, 2, 3)
    assert ids(server.status.configuration) == ({1, 2}, set(), {3})


def test_one_becomes_two_becomes_three() -> None:
    """Thesis §4.3, the smallest clusters: a fresh one-server cluster grows by two joins."""
    cluster = Cluster((1,), spare=(2, 3))
    cluster.elect(1)
    for newcomer in (2, 3):
        voters = tuple(sorted(ids(cluster[1].status.configuration)[0]))
        cluster[1].propose_configuration(voters, (newcomer,))
        cluster.tick(100)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3}, set(), set())
    cluster[1].propose(b"x")
    cluster.tick(5)
    assert all(server.machine.commands == [b"x"] for server in cluster.alive())


def test_removing_one_of_two_leaves_one_that_works() -> None:
    """Row 3 of the field: whichever of the two goes, the other must not be stranded without a majority."""
    for leaver in (1, 2):
        cluster = Cluster((1, 2))
        cluster.elect(1)
        cluster.tick(10)
        stayer = 3 - leaver
        cluster[1].propose_configuration((stayer,))
        cluster.tick(100)
        cluster.crash(leaver)
        cluster.tick(100)
        assert cluster[stayer].role is Role.LEADER
        cluster[stayer].propose(b"x")
        cluster.tick(2)
        assert cluster[stayer].machine.commands == [b"x"]


# ---- removed servers (§6, third issue)


def test_a_removed_server_learns_that_it_is_removed() -> None:
    """Design, against the reference's defect: the leader goes on until the removed server has the entry that removes
    it."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2))
    cluster.tick(60)
    assert ids(cluster[3].status.configuration) == ({1, 2}, set(), set())
    term = cluster[3].term
    cluster.tick(300)
    assert cluster[3].role is Role.FOLLOWER
    assert cluster[3].term == term
    assert 3 not in cluster[1].status.progress, "and then it stops"


def test_a_removed_server_is_told_without_asking() -> None:
    """Design: it has the entry and its commit before its own timeout could end, so it never campaigns at all."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2))
    cluster.settle()
    assert ids(cluster[3].status.configuration) == ({1, 2}, set(), set())
    cluster.tick(cluster[1].settings.heartbeat_ticks)
    assert cluster[3].commit_index >= cluster[3].status.configuration_index


def test_a_removed_server_that_slept_learns_of_it_on_return() -> None:
    """Design: it was away when it was removed, and comes back soon after."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster.isolate(3)
    cluster[1].propose_configuration((1, 2))
    cluster.tick(40)
    cluster.heal()
    cluster.tick(100)
    assert cluster[1].role is Role.LEADER
    assert cluster[1].term == 1


def test_a_removed_server_comes_back_as_a_learner_and_then_a_voter() -> None:
    """The reference's scenario 4: removed, and joined again, first time right."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2))
    cluster.tick(100)
    cluster[1].propose(b"while away")
    cluster.tick(100)
    cluster[1].propose_configuration((1, 2), (3,))
    cluster.tick(100)
    assert ids(cluster[1].status.configuration) == ({1, 2, 3}, set(), set())
    assert cluster[3].machine.commands == [b"while away"]
    assert cluster[1].term == 1, "without a change of leader"


def test_a_majority_acknowledging_after_the_change_does_not_include_the_removed() -> None:
    """§6: after C_new, agreement of the removed servers is worth nothing."""
    server = leader_with_log([], term=1, voters=(1, 2, 3, 4, 5))
    server.propose_configuration((1, 2, 3))
    acknowledge(server, 2, 3, 4)
    acknowledge(server, 2, 3)
    index = server.propose(b"x")
    server.take(AppendEntries)
    acknowledge(server, 4, 5)
    assert server.commit_index < index
    acknowledge(server, 2)
    assert server.commit_index == index


def test_a_follower_rolls_back_to_the_configuration_before_the_truncated_one() -> None:
    """Thesis §4.1: "a server must be prepared to fall back to the previous configuration in its log"."""
    follower = alone(2)
    first = configuration((1, 2, 3), (4,))
    joint = configuration((1, 2, 3, 4), outgoing=(1, 2, 3))
    follower.step(append(1, 1, 2, (0, 0), [configuration_entry(1, 1, first), configuration_entry(2, 1, joint)]))
    assert follower.status.configuration == joint
    request = append(2, 3, 2, (1, 1), [configuration_entry(2, 2, first)])
    follower.step(append(2, 3, 2, (1, 1), []))
    assert follower.status.configuration == joint, "nothing conflicts yet"
    follower.step(request)
    assert follower.status.configuration == first
    assert follower.take(AppendEntriesReply)[-1] == accepted(request)

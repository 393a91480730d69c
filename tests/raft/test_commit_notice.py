"""When followers hear of a commit (Raft §5.3 leaves it open): with entries, by heartbeat, or when the driver asks."""

from __future__ import annotations

from tests.raft.cluster import Cluster


def test_a_quiet_leader_sends_no_message_only_for_a_commit_of_commands() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    index = leader.propose(b"x")
    cluster.settle()
    assert leader.commit_index == index
    assert [cluster[i].commit_index for i in (2, 3)] == [index - 1, index - 1]


def test_the_next_entries_carry_the_commit() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    first = leader.propose(b"x")
    cluster.settle()
    leader.propose(b"y")
    cluster.settle()
    assert [cluster[i].commit_index for i in (2, 3)] == [first, first]


def test_the_driver_can_have_it_announced() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    index = leader.propose(b"x")
    cluster.settle()
    leader.node.announce_commit()
    leader.carry_out()
    cluster.settle()
    assert [cluster[i].commit_index for i in (2, 3)] == [index, index]
    leader.node.announce_commit()
    assert not leader.node.has_ready(), "what was announced is not announced again"


def test_the_heartbeat_carries_it_at_the_latest() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    index = leader.propose(b"x")
    cluster.settle()
    cluster.tick(leader.settings.heartbeat_ticks)
    assert [cluster[i].commit_index for i in (2, 3)] == [index, index]


def test_an_announcement_waits_for_entries_that_are_on_their_way() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    leader.propose(b"x")
    cluster.settle()
    leader.propose(b"y")  # on its way, and carries the commit of x
    assert len(cluster.in_flight) == 2
    leader.node.announce_commit()
    leader.carry_out()
    assert len(cluster.in_flight) == 2


def test_a_change_of_configuration_is_announced_at_once() -> None:
    cluster = Cluster((1, 2, 3), announces_commits=False)
    leader = cluster.elect(1)
    leader.propose_configuration((1, 2))
    cluster.settle()
    assert not leader.status.configuration.is_joint
    assert cluster[2].commit_index == leader.commit_index == leader.status.configuration_index

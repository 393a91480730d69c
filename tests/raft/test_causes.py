"""Why a server has its role: what a log line tells the person who reads it at night."""

from __future__ import annotations

from raftkv.types import Role
from tests.raft.cluster import Cluster


def last_cause(cluster: Cluster, member_id: int) -> tuple[Role, str]:
    leadership = cluster[member_id].leaderships[-1]
    return leadership.role, leadership.cause


def test_an_election_names_its_causes() -> None:
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    assert last_cause(cluster, 1) == (Role.LEADER, "a majority voted for it")
    assert last_cause(cluster, 2) == (Role.FOLLOWER, "the leader of the term spoke")
    assert "no leader was heard in time" in [leadership.cause for leadership in cluster[1].leaderships]


def test_a_leader_that_hears_nobody_says_so() -> None:
    cluster = Cluster((1, 2, 3))
    leader = cluster.elect(1)
    cluster.isolate(1)
    cluster.tick(2 * leader.settings.election_timeout_ticks)
    assert (Role.FOLLOWER, "no majority answered for an election timeout") in [
        (leadership.role, leadership.cause) for leadership in leader.leaderships
    ]


def test_a_leader_whose_disk_stands_still_says_so() -> None:
    cluster = Cluster((1, 2, 3))
    leader = cluster.elect(1)
    leader.is_disk_held = True
    leader.propose(b"x")
    for _ in range(3 * leader.settings.election_timeout_ticks):
        cluster.tick()
        if leader.role is not Role.LEADER:
            break
    assert (Role.FOLLOWER, "its disk stands still") in [(told.role, told.cause) for told in leader.leaderships]


def test_a_handed_over_leadership_says_so() -> None:
    cluster = Cluster((1, 2, 3))
    leader = cluster.elect(1)
    leader.transfer_leadership(2)
    cluster.settle()
    assert "leadership was handed to it" in [leadership.cause for leadership in cluster[2].leaderships]
    assert last_cause(cluster, 1)[1] in {"a RequestVote has a higher term", "the leader of the term spoke"}

"""The bug in the first published single-server membership change (D. Ongaro, raft-dev, July 2015), replayed.

All three interleavings are one story. Four servers, leader S1 of term 1. S1 appends a change D that reaches nobody.
S2 leads term 2 and makes another change E, from the same old configuration. S1 comes back for term 3. With
single-server changes the majorities of D and E need not overlap, so S1 could win with D while E was committed.

Here two rules prevent it, each checked on its own: no change before an entry of the leader's own term is committed
(Thesis §4.1, corrected), and joint consensus (§6), by which D and E each also need a majority of the old servers.
"""

from __future__ import annotations

import dataclasses

import pytest

from raftkv.errors import ConfigurationInProgress
from raftkv.raft.messages import AppendEntries
from raftkv.types import Role
from tests.raft.cluster import Cluster
from tests.raft.story import ids


@dataclasses.dataclass(frozen=True)
class Interleaving:
    name: str
    first: tuple[int, ...]
    """D, appended by S1 in term 1, in S1's log only."""
    second: tuple[int, ...]
    """E, made by S2 in term 2."""
    side_of_first: tuple[int, ...]
    """Who S1 can reach in term 3: a majority of D."""
    side_of_second: tuple[int, ...]
    """Who has E: a majority of E, and nobody in common."""


INTERLEAVINGS = [
    Interleaving("two adds", (1, 2, 3, 4, 5), (1, 2, 3, 4, 6), (1, 4, 5), (2, 3, 6)),
    Interleaving("add and remove", (1, 2, 3, 4, 5), (2, 3, 4), (1, 4, 5), (2, 3)),
    Interleaving("two removes", (1, 3, 4), (2, 3, 4), (1, 4), (2, 3)),
]

all_three = pytest.mark.parametrize("case", INTERLEAVINGS, ids=lambda case: case.name)


def until_second_leader(case: Interleaving) -> Cluster:
    """S1 has appended D, alone; S2 leads term 2 with votes of S3 and S4 and has sent nothing yet."""
    cluster = Cluster((1, 2, 3, 4), spare=(5, 6))
    cluster.elect(1)
    cluster.tick(10)
    cluster.isolate(1)
    cluster[1].propose_configuration(case.first)
    assert cluster[1].status.configuration.is_joint
    for member_id in (2, 3, 4):
        cluster[member_id].node.set_randomized_election_timeout(1000)
        cluster[member_id].tick(20)
    cluster[2].campaign()
    while cluster[2].role is not Role.LEADER:
        cluster.deliver()
    return cluster


@all_three
def test_the_second_leader_may_not_change_anything_before_its_own_entry_is_committed(case: Interleaving) -> None:
    """The fix of 2015: the step at which the published histories go wrong is refused."""
    cluster = until_second_leader(case)
    with pytest.raises(ConfigurationInProgress):
        cluster[2].propose_configuration(case.second)
    cluster.settle()
    assert cluster[2].commit_index == cluster[2].status.last_index
    cluster[2].propose_configuration(case.second)


@all_three
def test_the_first_leader_does_not_come_back_once_the_second_has_committed(case: Interleaving) -> None:
    """S1 campaigns in term 3 and reaches exactly the majority of D with which it won in the published history."""
    cluster = until_second_leader(case)
    cluster.settle()
    cluster[2].propose_configuration(case.second)
    cluster.settle()
    assert ids(cluster[2].status.configuration) == (set(case.second), set(), set())
    assert cluster[2].commit_index == cluster[2].status.last_index
    cluster.partition(case.side_of_first, case.side_of_second)
    for member_id in case.side_of_first:
        cluster[member_id].tick(40)
    for _ in range(5):
        cluster[1].campaign()
        cluster.settle()
        assert cluster[1].role is not Role.LEADER
    cluster.heal()
    cluster.tick(150)
    for member_id in case.second:
        assert ids(cluster[member_id].status.configuration) == (set(case.second), set(), set())


@all_three
def test_the_second_change_does_not_commit_without_a_majority_of_the_old_servers(case: Interleaving) -> None:
    """Joint consensus on its own: with E only on its own majority, nothing is committed, so S1 may still lead,
    safely."""
    cluster = until_second_leader(case)
    cluster.settle()
    commit_before = cluster[2].commit_index
    cluster.partition(case.side_of_first, case.side_of_second)
    cluster[2].propose_configuration(case.second)
    cluster.settle()
    assert cluster[2].commit_index == commit_before
    cluster.heal()
    cluster.tick(150)
    assert ids(cluster.leader().status.configuration) in [
        (set(case.second), set(), set()),
        ({1, 2, 3, 4}, set(), set()),
    ]


@all_three
def test_if_the_second_leader_got_nowhere_the_first_change_may_win(case: Interleaving) -> None:
    """The other outcome: S2's no-op reached nobody, S1 leads term 3, D is committed, and E was never begun."""
    cluster = until_second_leader(case)
    cluster.lose_all()
    cluster.isolate(2)
    with pytest.raises(ConfigurationInProgress):
        cluster[2].propose_configuration(case.second)
    for member_id in (1, 3, 4, 5, 6):
        cluster[member_id].node.set_randomized_election_timeout(1000)
        cluster[member_id].tick(40)
    cluster.settle()
    for _ in range(3):
        cluster[1].campaign()
        cluster.settle()
    assert cluster[1].role is Role.LEADER
    assert cluster[1].term >= 3
    cluster.tick(5)
    cluster.heal()
    cluster.tick(150)
    assert ids(cluster.leader().status.configuration) == (set(case.first), set(), set())
    for member_id in set(case.first) - {2}:
        assert cluster[member_id].status.configuration == cluster.leader().status.configuration


@all_three
def test_nobody_is_elected_by_the_change_alone(case: Interleaving) -> None:
    """§6: while D is joint, S1 needs a majority of the old servers too; all of D's newcomers are not enough."""
    cluster = until_second_leader(case)
    cluster.lose_all()
    newcomers = tuple(set(case.first) - {1, 2, 3, 4})
    cluster.partition((1, *newcomers), (2,), (3,), (4,))
    cluster[1].tick(40)
    for _ in range(3):
        cluster[1].campaign()
        cluster.settle()
        cluster.deliver_only(AppendEntries)
    assert cluster[1].role is not Role.LEADER

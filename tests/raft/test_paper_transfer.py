"""Leadership transfer: Thesis §3.10, a claim a test."""

from __future__ import annotations

import pytest

from raftkv.errors import NoLeader, NotLeader, Unavailable
from raftkv.raft.messages import AppendEntries, PreVote, RequestVote, TimeoutNow
from raftkv.types import Role
from tests.raft.cluster import Cluster
from tests.raft.harness import alone
from tests.raft.story import leader_with_log
from tests.raft.words import accepted, append


def test_a_target_that_has_everything_is_told_at_once() -> None:
    """Thesis §3.10, step 3: "The prior leader sends a TimeoutNow request to the target server"."""
    server = leader_with_log([1], term=1)
    server.transfer_leadership(2)
    assert server.take_one(TimeoutNow) == TimeoutNow(server.term, 1, 2)
    assert server.status.transfer_target == 2


def test_a_target_that_lags_is_brought_up_to_date_first() -> None:
    """Thesis §3.10, step 2: "fully updates the target server's log to match its own"."""
    server = leader_with_log([1], term=1)
    server.propose(b"x")
    request = server.take_last(AppendEntries, 2)
    server.transfer_leadership(2)
    assert server.take(TimeoutNow) == []
    server.step(accepted(request))
    assert server.take_one(TimeoutNow).recipient == 2


def test_no_client_request_is_taken_during_a_transfer() -> None:
    """Thesis §3.10, step 1: "The prior leader stops accepting new client requests"."""
    server = leader_with_log([1], term=1)
    server.transfer_leadership(2)
    with pytest.raises(Unavailable):
        server.node.propose(b"x")
    with pytest.raises(Unavailable):
        server.propose_configuration((1, 2))
    assert not server.status.configuration.is_joint


def test_timeout_now_starts_an_election_without_delay_or_pre_vote() -> None:
    """Thesis §3.10, step 3: "the same effect as the target server's election timer firing"; no pre-vote is asked
    for."""
    target = alone(2, term=1)
    target.step(append(1, 1, 2))
    target.step(TimeoutNow(1, 1, 2))
    assert target.role is Role.CANDIDATE
    assert target.term == 2
    assert target.take(PreVote) == []
    assert all(request.leadership_transfer for request in target.take(RequestVote))


def test_timeout_now_of_an_earlier_term_is_ignored() -> None:
    """§5.1: it was sent by a leader that is none any more."""
    target = alone(2, term=5)
    target.step(append(5, 3, 2))
    target.step(TimeoutNow(4, 1, 2))
    assert target.role is Role.FOLLOWER
    assert target.term == 5


def test_timeout_now_at_a_learner_is_ignored() -> None:
    """§6: a server without a vote cannot lead."""
    target = alone(4, (1, 2, 3), learners=(4,))
    target.step(append(1, 1, 4))
    target.step(TimeoutNow(1, 1, 4))
    assert target.role is Role.FOLLOWER


def test_leadership_moves_within_one_round_of_elections() -> None:
    """Thesis §3.10: no election timeout passes."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1).propose(b"x")
    cluster.settle()
    cluster[1].transfer_leadership(3)
    cluster.settle()
    assert cluster[3].role is Role.LEADER
    assert cluster[1].role is Role.FOLLOWER
    assert {server.status.leader for server in cluster.alive()} == {3}
    cluster[3].propose(b"y")
    cluster.tick(5)
    assert all(server.machine.commands == [b"x", b"y"] for server in cluster.alive())


def test_a_transfer_that_does_not_happen_is_given_up_after_an_election_timeout() -> None:
    """Thesis §3.10: "If leadership transfer does not complete after about an election timeout, the prior leader
    aborts the transfer and resumes accepting client requests"."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster.isolate(3)
    cluster[1].transfer_leadership(3)
    cluster.tick(2 * cluster[1].settings.election_timeout_ticks)
    assert cluster[1].status.transfer_target == 0
    assert cluster[1].role is Role.LEADER
    cluster[1].propose(b"x")
    cluster.settle()
    assert cluster[1].machine.commands == [b"x"]


def test_without_a_target_the_most_up_to_date_voter_is_chosen() -> None:
    """Design: a clean shutdown hands over to whoever needs least."""
    server = leader_with_log([1], term=1, voters=(1, 2, 3, 4, 5))
    server.propose(b"x")
    requests = {request.recipient: request for request in server.take(AppendEntries)}
    server.step(accepted(requests[4]))
    server.transfer_leadership()
    assert server.take_one(TimeoutNow).recipient == 4


def test_leadership_is_not_handed_to_a_learner_or_a_stranger() -> None:
    """§6: it could not win."""
    server = leader_with_log([1], term=1, promote_learners=False)
    server.propose_configuration((1, 2, 3), (4,))
    for _ in range(3):
        server.accept_appends((2, 3, 4))
    for target in (4, 9):
        try:
            server.transfer_leadership(target)
        except Exception as refused:  # noqa: BLE001 - which refusal is the core's choice
            assert type(refused).__name__ in {"MembershipRefused", "InvalidInput", "Unavailable"}  # noqa: PT017
        assert server.take(TimeoutNow) == []
        assert server.status.transfer_target == 0


def test_handing_over_to_itself_changes_nothing() -> None:
    """A leader that is asked to hand over to itself still takes requests."""
    server = leader_with_log([1], term=1)
    server.transfer_leadership(1)
    assert server.take(TimeoutNow) == []
    server.propose(b"x")


def test_only_a_leader_hands_over() -> None:
    """Thesis §3.10."""
    with pytest.raises((NotLeader, NoLeader)):
        alone().transfer_leadership(2)


def test_a_second_transfer_to_another_target_replaces_the_first() -> None:
    """An operator may change their mind while the first target is away."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster.isolate(3)
    cluster[1].transfer_leadership(3)
    cluster.settle()
    cluster[1].transfer_leadership(2)
    cluster.settle()
    assert cluster[2].role is Role.LEADER


def test_a_transfer_ends_the_lease() -> None:
    """Thesis §6.4.1 with §3.10: voters ignore the lease when an heir asks, so it must end first (openraft#1749)."""
    server = leader_with_log([1], term=1, lease_reads=True)
    for _ in range(3):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    server.transfer_leadership(2)
    server.reads.clear()
    server.request_read(7, lease=True)
    assert server.reads == []


def test_an_aborted_transfer_does_not_bring_the_lease_back() -> None:
    """TimeoutNow may arrive arbitrarily late and its election overrides leases, so this term has none any more."""
    server = leader_with_log([1], term=1, lease_reads=True)
    server.transfer_leadership(2)
    assert server.take(TimeoutNow)
    for _ in range(20):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    assert server.status.transfer_target == 0, "aborted"
    server.request_read(7, lease=True)
    assert server.reads == []


def test_the_leader_tells_its_successor_when_it_removes_itself() -> None:
    """Thesis §4.2.2 with §3.10: the cluster need not wait an election timeout for a new leader."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((2, 3))
    for _ in range(3):
        cluster.settle()
        cluster.tick(1)
    leaders = [server.member_id for server in cluster.alive() if server.role is Role.LEADER]
    assert leaders
    assert leaders[0] in (2, 3)

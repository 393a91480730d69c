"""Leader election: Raft §5.2, §5.4.1 and the "Rules for Servers" of figure 2, a claim a test.

The paper knows no pre-vote, so the core runs without it here; `test_paper_prevote.py` has the rest, and
`test_paper_terms.py` terms and timeouts.
"""

from __future__ import annotations

import pytest

from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    PreVote,
    RequestVote,
    RequestVoteReply,
)
from raftkv.types import HardState, Role
from tests.raft.harness import alone
from tests.raft.story import candidate, paper
from tests.raft.words import append, command, vote_request

# ---- §5.2: becoming a candidate


def test_a_server_starts_as_follower() -> None:
    """§5.2: "When servers start up, they begin as followers"."""
    server = paper(term=5, voted_for=1)
    assert server.role is Role.FOLLOWER
    assert server.outbox == []


def test_a_follower_stays_follower_while_it_hears_a_leader() -> None:
    """§5.2: "A server remains in follower state as long as it receives valid RPCs from a leader or candidate"."""
    server = paper(term=1)
    for _ in range(20):
        server.tick(server.settings.election_timeout_ticks - 1)
        server.step(append(1, 2, 1))
    assert server.role is Role.FOLLOWER
    assert server.term == 1


def test_a_follower_that_hears_nothing_starts_an_election() -> None:
    """§5.2: increments its term, becomes candidate, votes for itself, asks each other server in parallel."""
    server = paper(log=[1, 2, 2], term=4)
    server.run_out_election_timeout()
    assert server.role is Role.CANDIDATE
    assert server.log.hard_state == HardState(5, 1)
    assert sorted(server.outbox, key=lambda m: m.recipient) == [
        RequestVote(5, 1, 2, 3, 2),
        RequestVote(5, 1, 3, 3, 2),
    ]


def test_a_candidate_asks_for_votes_only_once_its_own_vote_is_durable() -> None:
    """Figure 2: currentTerm and votedFor are "updated on stable storage before responding to RPCs"; its own vote
    too."""
    server = paper(term=4)
    server.is_disk_held = True
    server.campaign()
    assert server.take(RequestVote) == []
    server.sync()
    assert len(server.take(RequestVote)) == 2


def test_the_candidates_own_vote_counts_only_once_it_is_durable() -> None:
    """Figure 2, with a slow disk: a leader that forgot its own vote in a crash could elect another in that term."""
    server = alone(voters=(1,), pre_vote=False)
    server.is_disk_held = True
    server.campaign()
    assert server.role is not Role.LEADER
    server.sync()
    assert server.status.role is Role.LEADER


def test_only_voters_of_its_own_configuration_campaign() -> None:
    """§6: servers that are not in the configuration do not vote, so they need not ask for votes either."""
    for server in (alone(4, (1, 2, 3)), alone(4, (1, 2, 3), learners=(4,)), alone(4, ())):
        server.tick(10 * server.settings.election_timeout_ticks)
        server.campaign()
        assert server.role is Role.FOLLOWER
        assert server.outbox == []
        assert server.term == 0


# ---- §5.2: the three ways an election ends


@pytest.mark.parametrize(("cluster_size", "votes_needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)])
def test_a_candidate_wins_with_a_majority_of_the_full_cluster(cluster_size: int, votes_needed: int) -> None:
    """§5.2: "votes from a majority of the servers in the full cluster for the same term"; its own is one of them."""
    server = alone(voters=range(1, cluster_size + 1), pre_vote=False)
    server.campaign()
    for voter in range(2, 2 + votes_needed):
        assert server.role is Role.CANDIDATE
        server.step(RequestVoteReply(1, voter, 1, True))
    assert server.role is Role.LEADER


def test_the_same_vote_twice_counts_once() -> None:
    """§5.2, on a network that doubles messages."""
    server = alone(voters=range(1, 6), pre_vote=False)
    server.campaign()
    for _ in range(5):
        server.step(RequestVoteReply(1, 2, 1, True))
    assert server.role is Role.CANDIDATE


def test_refusals_do_not_count() -> None:
    """§5.2: a majority of grants is needed, not of replies."""
    server = candidate()
    for voter in (2, 3):
        server.step(RequestVoteReply(1, voter, 1, False))
    assert server.role is not Role.LEADER


def test_votes_of_strangers_and_learners_do_not_count() -> None:
    """§6: only members of the configuration's voters make a majority."""
    server = alone(voters=(1, 2, 3), learners=(4,), pre_vote=False)
    server.campaign()
    assert sorted(request.recipient for request in server.take(RequestVote)) == [2, 3]
    for stranger in (4, 5, 6):
        server.step(RequestVoteReply(1, stranger, 1, True))
    assert server.role is Role.CANDIDATE


def test_a_vote_for_an_earlier_candidacy_does_not_count() -> None:
    """§5.2: votes are for one term."""
    server = candidate()
    server.run_out_election_timeout()
    server.campaign()
    assert server.term == 2
    server.step(RequestVoteReply(1, 2, 1, True))
    assert server.role is Role.CANDIDATE


def test_each_server_votes_once_a_term_first_come_first_served() -> None:
    """§5.2: "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis"."""
    server = paper()
    server.step(vote_request(1, 2, 1))
    assert server.take_one(RequestVoteReply).vote_granted
    server.step(vote_request(1, 3, 1, (50, 1)))
    assert not server.take_one(RequestVoteReply).vote_granted
    assert server.log.hard_state == HardState(1, 2)


def test_a_repeated_request_gets_the_same_vote_again() -> None:
    """Figure 2, RequestVote 2: "votedFor is null or candidateId"; the first reply may have been lost (§5.5)."""
    server = paper()
    for _ in range(2):
        server.step(vote_request(1, 2, 1))
        assert server.take_one(RequestVoteReply).vote_granted


def test_a_vote_is_answered_only_once_it_is_durable() -> None:
    """Figure 2: persistent state is "updated on stable storage before responding to RPCs"."""
    server = paper()
    server.is_disk_held = True
    server.step(vote_request(1, 2, 1))
    assert server.take(RequestVoteReply) == []
    server.sync()
    assert server.take_one(RequestVoteReply).vote_granted
    assert server.log.hard_state == HardState(1, 2)


def test_a_repeated_request_does_not_get_its_answer_before_the_vote_is_durable() -> None:
    """Figure 2, when the second request finds the vote in memory but not on disk yet."""
    server = paper()
    server.is_disk_held = True
    server.step(vote_request(1, 2, 1))
    server.step(vote_request(1, 2, 1))
    assert server.take(RequestVoteReply) == []
    server.sync()
    assert [reply.vote_granted for reply in server.take(RequestVoteReply)] == [True, True]


def test_a_vote_survives_a_crash() -> None:
    """§5.5, §5.2: a restarted server must not vote again in the same term."""
    server = paper()
    server.step(vote_request(1, 2, 1))
    server.crash()
    server.restart()
    assert server.status.voted_for == 2
    server.step(vote_request(1, 3, 1, (50, 1)))
    assert not server.take_one(RequestVoteReply).vote_granted


def test_a_vote_lost_in_a_crash_was_never_answered() -> None:
    """Figure 2, the crash between the write and its sync: the server may vote for another, because nobody heard of
    it."""
    server = paper()
    server.is_disk_held = True
    server.step(vote_request(1, 2, 1))
    server.crash()
    server.is_disk_held = False
    server.restart()
    assert server.outbox == []
    server.step(vote_request(1, 3, 1))
    assert server.take_one(RequestVoteReply).vote_granted


def test_a_new_leader_tells_everybody_at_once() -> None:
    """§5.2: the winner "sends heartbeat messages to all of the other servers to establish its authority"."""
    server = alone(voters=(1, 2, 3, 4, 5), pre_vote=False)
    server.campaign()
    server.take(RequestVote)
    for voter in (2, 3):
        server.step(RequestVoteReply(1, voter, 1, True))
    assert sorted(request.recipient for request in server.take(AppendEntries)) == [2, 3, 4, 5]


def test_a_candidate_that_hears_the_winner_of_its_term_returns_to_follower() -> None:
    """§5.2 (b) and figure 2, candidates: "If AppendEntries RPC received from new leader: convert to follower"."""
    server = candidate()
    server.step(append(1, 2, 1))
    assert server.role is Role.FOLLOWER
    assert server.status.leader == 2
    assert server.log.hard_state == HardState(1, 1), "the term did not change, so the vote stays"


def test_a_candidate_rejects_a_leader_of_a_smaller_term_and_stays_candidate() -> None:
    """§5.2: "If the term in the RPC is smaller than the candidate's current term, then the candidate rejects the
    RPC"."""
    server = candidate(term=3)
    server.step(append(3, 2, 1))
    assert server.role is Role.CANDIDATE
    assert not server.take_one(AppendEntriesReply).success


def test_a_candidate_without_an_outcome_starts_a_new_election() -> None:
    """§5.2 (c): "each candidate will time out and start a new election by incrementing its term"."""
    server = candidate()
    server.take(RequestVote)
    for _ in range(2 * server.settings.election_timeout_ticks):
        server.tick()
    assert server.role is Role.CANDIDATE
    assert server.term >= 2
    assert {request.term for request in server.take(RequestVote)} == set(range(2, server.term + 1))


# ---- §5.4.1: the election restriction


@pytest.mark.parametrize(
    ("own_log", "candidate_last", "is_granted"),
    [
        ([], (0, 0), True),
        ([1], (1, 1), True),
        ([1], (2, 1), True),
        ([1, 1], (1, 1), False),
        ([1, 1], (1, 2), True),
        ([1, 1, 1, 1], (1, 3), True),
        ([2], (5, 1), False),
        ([2], (1, 2), True),
        ([1, 2], (9, 1), False),
        ([1], (0, 0), False),
    ],
)
def test_a_vote_needs_a_log_at_least_as_up_to_date(
    own_log: list[int], candidate_last: tuple[int, int], is_granted: bool
) -> None:
    """§5.4.1: the later last term is more up to date; with equal last terms, the longer log."""
    server = paper(log=own_log, term=3)
    server.step(vote_request(4, 2, 1, candidate_last))
    assert server.take_one(RequestVoteReply).vote_granted is is_granted
    assert server.term == 4, "the term is adopted even when the vote is refused"


def test_the_restriction_looks_at_entries_that_are_not_durable_yet() -> None:
    """§5.4.1 with a slow disk: the candidate is compared with the log in memory, which may only be longer."""
    server = paper(term=1)
    server.is_disk_held = True
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    server.is_disk_held = False
    server.sync()
    server.tick(server.settings.election_timeout_ticks)
    server.step(vote_request(9, 3, 1, (0, 0)))
    assert not server.take_last(RequestVoteReply, 3).vote_granted


def test_a_candidate_describes_its_log_in_the_request() -> None:
    """§5.4.1: "the RPC includes information about the candidate's log"."""
    server = paper(log=[1, 1, 3], term=5)
    server.campaign()
    assert {(r.last_log_index, r.last_log_term) for r in server.take(RequestVote)} == {(3, 3)}


def test_without_pre_vote_no_pre_vote_is_sent() -> None:
    """The knob that makes the core the paper's."""
    server = paper()
    server.run_out_election_timeout()
    assert server.take(PreVote) == []
    assert server.role is Role.CANDIDATE

"""Pre-vote, the voters' lease on their leader, and check-quorum: Thesis §9.6, §4.2.3, §6.2, a claim a test."""

from __future__ import annotations

import pytest

from raftkv.raft.messages import AppendEntries, AppendEntriesReply, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from raftkv.types import HardState, Role
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, alone, leader_alone
from tests.raft.words import accepted, append, vote_request


def pre_candidate(**more: object) -> Server:
    server = alone(**more)  # type: ignore[arg-type]
    server.campaign()
    assert server.role is Role.PRE_CANDIDATE
    return server


# ---- Thesis §9.6


def test_a_pre_candidate_changes_neither_its_term_nor_its_vote() -> None:
    """Thesis §9.6: "a candidate only increments its term if it first learns from a majority" that they would vote."""
    server = pre_candidate(log=[1, 2], term=4, voted_for=3)
    assert server.log.hard_state == HardState(4, 3)
    assert server.status.voted_for == 3
    assert sorted(server.outbox, key=lambda m: m.recipient) == [PreVote(5, 1, 2, 2, 2), PreVote(5, 1, 3, 2, 2)]


def test_a_silent_follower_asks_first() -> None:
    """Thesis §9.6: the election timeout leads to a pre-vote, not to a new term."""
    server = alone(term=4)
    server.run_out_election_timeout()
    assert server.role is Role.PRE_CANDIDATE
    assert server.term == 4


def test_a_majority_of_pre_votes_starts_the_election() -> None:
    """Thesis §9.6; the pre-candidate's own consent is one of the majority."""
    server = alone(voters=range(1, 6), term=4)
    server.campaign()
    server.take(PreVote)
    server.step(PreVoteReply(4, 2, 1, 5, True))
    assert server.role is Role.PRE_CANDIDATE
    server.step(PreVoteReply(4, 3, 1, 5, True))
    assert server.status.role is Role.CANDIDATE
    assert server.log.hard_state == HardState(5, 1)
    assert sorted(request.recipient for request in server.take(RequestVote)) == [2, 3, 4, 5]


def test_pre_votes_are_not_votes() -> None:
    """Thesis §9.6: consent to a candidacy elects nobody (canonical/raft#196)."""
    server = pre_candidate()
    for _ in range(3):
        server.step(PreVoteReply(0, 2, 1, 1, True))
        server.step(PreVoteReply(0, 3, 1, 1, True))
    assert server.role is Role.CANDIDATE


def test_granting_a_pre_vote_changes_nothing() -> None:
    """Thesis §9.6: the receiver's term, vote and timer stay as they were."""
    server = alone(log=[1], term=3)
    server.node.set_randomized_election_timeout(20)
    server.tick(19)
    server.step(PreVote(4, 2, 1, 1, 1))
    assert server.take_one(PreVoteReply) == PreVoteReply(3, 1, 2, 4, True)
    assert server.log.hard_state == HardState(3, 0)
    assert server.term == 3
    server.tick()
    assert server.role is Role.PRE_CANDIDATE, "a pre-vote is no reason to wait longer"


def test_a_server_may_consent_to_several_pre_candidates() -> None:
    """Thesis §9.6: a pre-vote is not remembered, so it cannot split anything."""
    server = alone(voters=range(1, 6), term=3)
    for asker in (2, 3, 4):
        server.step(PreVote(4, asker, 1, 0, 0))
        assert server.take_one(PreVoteReply).vote_granted


def test_consent_is_given_although_the_vote_of_the_term_is_spent() -> None:
    """Thesis §9.6: the pre-vote asks about a coming term, in which nobody has voted."""
    server = alone(term=3, voted_for=3)
    server.step(PreVote(4, 2, 1, 0, 0))
    assert server.take_one(PreVoteReply).vote_granted


@pytest.mark.parametrize(
    ("last", "is_granted"), [((3, 2), True), ((4, 2), True), ((1, 3), True), ((2, 2), False), ((9, 1), False)]
)
def test_consent_needs_a_log_at_least_as_up_to_date(last: tuple[int, int], is_granted: bool) -> None:
    """Thesis §9.6: "if the candidate's log is sufficiently up-to-date"."""
    server = alone(log=[1, 1, 2], term=3)
    server.step(PreVote(4, 2, 1, *last))
    assert server.take_one(PreVoteReply).vote_granted is is_granted


def test_no_consent_to_a_term_that_is_over() -> None:
    """§5.1 for pre-votes; the reply carries the newer term so that the asker catches up."""
    server = alone(term=7)
    server.step(PreVote(5, 2, 1, 0, 0))
    reply = server.take_one(PreVoteReply)
    assert (reply.vote_granted, reply.term) == (False, 7)


def test_a_refusal_with_a_newer_term_brings_the_pre_candidate_up_to_date() -> None:
    """§5.1: else a server that slept through terms could never ask for the right one."""
    server = pre_candidate(term=2)
    server.step(PreVoteReply(7, 2, 1, 3, False))
    assert server.role is Role.FOLLOWER
    assert server.term == 7


def test_no_consent_while_a_leader_is_heard() -> None:
    """Thesis §9.6: servers consent only if they "have not received heartbeats from a valid leader for at least a
    baseline election timeout"."""
    server = alone(term=1)
    server.step(append(1, 3, 1))
    server.take(AppendEntriesReply)
    server.tick(server.settings.election_timeout_ticks - 1)
    server.step(PreVote(2, 2, 1, 99, 1))
    assert not any(reply.vote_granted for reply in server.take(PreVoteReply))
    server.node.set_randomized_election_timeout(1000)
    server.tick(1)
    server.step(PreVote(2, 2, 1, 99, 1))
    assert server.take_one(PreVoteReply).vote_granted


def test_a_leader_does_not_consent_to_its_own_replacement() -> None:
    """Thesis §9.6: a leader is a server that hears from a leader."""
    server = leader_alone()
    server.step(PreVote(2, 2, 1, 99, 9))
    assert not any(reply.vote_granted for reply in server.take(PreVoteReply))
    assert server.role is Role.LEADER


def test_an_answer_to_an_earlier_question_does_not_count() -> None:
    """Replies name the term asked for (canonical/raft#279): a late consent must not start a different election."""
    server = pre_candidate(term=4)
    server.step(append(5, 2, 1))
    server.run_out_election_timeout()
    assert server.role is Role.PRE_CANDIDATE
    server.take(PreVote)
    server.step(PreVoteReply(5, 2, 1, 5, True))
    assert server.role is Role.PRE_CANDIDATE
    server.step(PreVoteReply(5, 2, 1, 6, True))
    assert server.status.role is Role.CANDIDATE


def test_the_same_consent_twice_counts_once() -> None:
    """On a network that doubles messages."""
    server = alone(voters=range(1, 6))
    server.campaign()
    for _ in range(5):
        server.step(PreVoteReply(0, 2, 1, 1, True))
    assert server.role is Role.PRE_CANDIDATE


def test_consents_of_strangers_and_learners_do_not_count() -> None:
    """§6: only voters make a majority, in a pre-vote as well."""
    server = alone(voters=(1, 2, 3), learners=(4,))
    server.campaign()
    assert sorted(question.recipient for question in server.take(PreVote)) == [2, 3]
    for stranger in (4, 5):
        server.step(PreVoteReply(0, stranger, 1, 1, True))
    assert server.role is Role.PRE_CANDIDATE


def test_a_pre_candidate_that_hears_a_leader_follows_it() -> None:
    """§5.2 (b), one step earlier."""
    server = pre_candidate(term=4)
    server.step(append(4, 2, 1))
    assert server.role is Role.FOLLOWER
    assert server.status.leader == 2


def test_a_pre_candidate_still_votes() -> None:
    """Thesis §9.6: it has promised nothing, so it may help another to win."""
    server = pre_candidate(term=4)
    server.step(vote_request(5, 2, 1))
    assert server.take_one(RequestVoteReply).vote_granted
    assert server.role is Role.FOLLOWER


def test_an_unanswered_pre_vote_is_asked_again_in_the_same_term() -> None:
    """Thesis §9.6: the term does not grow however long a server is cut off."""
    server = pre_candidate(term=4)
    server.take(PreVote)
    server.tick(40 * server.settings.election_timeout_ticks)
    assert {question.term for question in server.take(PreVote)} == {5}
    assert server.term == 4


def test_a_server_cut_off_for_long_does_not_disrupt_when_it_returns() -> None:
    """Thesis §9.6: the reason for pre-vote."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    term = cluster[1].term
    cluster.isolate(3)
    cluster.tick(200)
    cluster.heal()
    cluster.tick(100)
    assert cluster[1].role is Role.LEADER
    assert [server.term for server in cluster.alive()] == [term] * 3
    assert cluster[3].status.leader == 1


# ---- Thesis §4.2.3


def test_a_server_that_hears_a_leader_ignores_requests_for_votes() -> None:
    """Thesis §4.2.3: within the minimum election timeout "it does not update its term or grant its vote"."""
    server = alone(term=1)
    server.step(append(1, 3, 1))
    server.take(AppendEntriesReply)
    server.tick(server.settings.election_timeout_ticks - 1)
    server.step(vote_request(50, 2, 1, (99, 49)))
    assert server.term == 1
    assert not any(reply.vote_granted for reply in server.take(RequestVoteReply))
    assert server.status.leader == 3


def test_after_a_minimum_election_timeout_without_a_leader_it_votes_again() -> None:
    """Thesis §4.2.3: the lease ends with the minimum timeout, not the randomised one."""
    server = alone(term=1)
    server.node.set_randomized_election_timeout(1000)
    server.step(append(1, 3, 1))
    server.node.set_randomized_election_timeout(1000)
    server.tick(server.settings.election_timeout_ticks)
    server.step(vote_request(2, 2, 1))
    assert server.take_one(RequestVoteReply).vote_granted


def test_a_leader_with_a_quorum_ignores_requests_for_votes() -> None:
    """Thesis §4.2.3: a removed server's RequestVote with a new term must not depose a working leader."""
    server = leader_alone()
    server.accept_appends((2, 3))
    server.step(vote_request(50, 9, 1, (99, 49)))
    assert server.role is Role.LEADER
    assert server.term == 1


def test_leadership_transfer_overrides_the_lease() -> None:
    """Thesis §4.2.3: a transfer's RequestVote "includes a special flag" and is honoured."""
    server = alone(term=1)
    server.step(append(1, 3, 1))
    server.step(vote_request(2, 2, 1, is_transfer=True))
    assert server.take_one(RequestVoteReply).vote_granted
    assert server.log.hard_state == HardState(2, 2)


def test_removed_servers_cannot_disrupt_the_cluster() -> None:
    """§6, third issue: they "will time out and start new elections", which would depose a working leader."""
    cluster = Cluster((1, 2, 3, 4), pre_vote=False)
    cluster.elect(1)
    cluster[4].node.set_randomized_election_timeout(30)
    cluster.isolate(4)
    cluster[1].propose_configuration((1, 2, 3))
    cluster.settle()
    term = cluster[1].term
    cluster.tick(60)
    assert cluster[4].role is Role.CANDIDATE, "it never learnt of its removal"
    cluster.heal()
    for _ in range(60):
        cluster.tick(settle=False)
        cluster.deliver_only(RequestVote)
        cluster.settle()
    assert cluster[1].role is Role.LEADER
    assert [cluster[member_id].term for member_id in (1, 2, 3)] == [term] * 3


# ---- Thesis §6.2: check-quorum


def test_a_leader_that_hears_no_majority_steps_down() -> None:
    """Thesis §6.2: "a leader … steps down if an election timeout elapses without a successful round of
    heartbeats to a majority"."""
    server = leader_alone(voters=range(1, 6))
    server.tick(2 * server.settings.election_timeout_ticks)
    assert server.role is Role.FOLLOWER
    assert server.status.leader == 0
    assert server.term == 1, "stepping down is no new term"


def test_a_leader_that_hears_a_majority_stays() -> None:
    """Thesis §6.2, the other half: two of five may be down for ever."""
    server = leader_alone(voters=range(1, 6))
    for _ in range(20):
        server.accept_appends((2, 3))
        server.tick(server.settings.heartbeat_ticks)
    assert server.role is Role.LEADER


def test_hearing_learners_is_not_hearing_a_majority() -> None:
    """Thesis §6.2 with §4.2.1: learners are no voters."""
    server = leader_alone(voters=(1, 2, 3), learners=(4, 5, 6))
    for _ in range(20):
        server.accept_appends((4, 5, 6))
        server.tick(server.settings.heartbeat_ticks)
    assert server.role is not Role.LEADER


def test_a_refused_append_is_a_sign_of_life() -> None:
    """Thesis §6.2: what counts is that the follower still follows this term, not that its log matches."""
    server = leader_alone(log=[1, 1, 1], voters=(1, 2, 3))
    for _ in range(20):
        for request in server.take(AppendEntries):
            if request.recipient == 2:
                hint = min(request.prev_log_index, 1)
                server.step(AppendEntriesReply(2, 2, 1, False, 0, request.prev_log_index, hint, 1, 0))
        server.tick(server.settings.heartbeat_ticks)
    assert server.role is Role.LEADER


def test_a_pause_of_the_leader_counts_in_full() -> None:
    """Thesis §6.2 after a stall (consul#22064): the check-quorum clock moves by all of the elapsed ticks."""
    server = leader_alone()
    server.take(AppendEntries)
    server.node.tick(5 * server.settings.election_timeout_ticks)
    server.carry_out()
    server.node.tick(5 * server.settings.election_timeout_ticks)
    server.carry_out()
    assert server.role is Role.FOLLOWER


def test_the_side_of_a_partition_without_majority_loses_its_leader() -> None:
    """Thesis §6.2: so that its clients learn soon and go elsewhere."""
    cluster = Cluster(range(1, 6))
    cluster.elect(1)
    cluster.partition((1, 2), (3, 4, 5))
    cluster.tick(200)
    assert cluster[1].role is not Role.LEADER
    assert cluster.leader().member_id in (3, 4, 5)
    new_term = cluster.leader().term
    cluster.heal()
    cluster.tick(50)
    assert {server.term for server in cluster.alive()} == {new_term}


def test_with_check_quorum_off_the_leader_stays() -> None:
    """The knob that makes the core the paper's."""
    server = leader_alone(check_quorum=False)
    server.tick(20 * server.settings.election_timeout_ticks)
    assert server.role is Role.LEADER
    assert server.take(AppendEntries)


def test_the_accepting_reply_carries_the_term() -> None:
    """§5.1: "Current terms are exchanged whenever servers communicate"."""
    leader = leader_alone()
    request = leader.take(AppendEntries)[0]
    follower = alone(request.recipient)
    follower.step(request)
    reply = follower.take_one(AppendEntriesReply)
    assert reply == accepted(request)

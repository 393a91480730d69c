"""Leader election: Raft §5.1, §5.2, §5.4.1 and the "Rules for Servers" of figure 2, a claim a test.

The paper knows no pre-vote, so the core runs without it here; `test_paper_prevote.py` has the rest.
"""

from __future__ import annotations

import pytest

from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.types import HardState, Role, SnapshotMetadata
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, accepted, alone, append, command, configuration, leader_alone, vote_request


def paper(**more: object) -> Server:
    """Server 1 of 1, 2, 3, as in the paper: no pre-vote."""
    return alone(pre_vote=False, **more)  # type: ignore[arg-type]


def candidate(**more: object) -> Server:
    server = paper(**more)
    server.campaign()
    assert server.role is Role.CANDIDATE
    return server


# ---- §5.1: terms


NEWER_TERM_MESSAGES: list[Message] = [
    append(9, 2, 1),
    AppendEntriesReply(9, 2, 1, False, 0, 0, 0, 0, 0),
    vote_request(9, 2, 1),
    RequestVoteReply(9, 2, 1, False),
    InstallSnapshotReply(9, 2, 1, 0, 0),
]


@pytest.mark.parametrize("message", NEWER_TERM_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_larger_term_in_any_message_is_adopted_and_kept_on_disk(message: Message) -> None:
    """§5.1 and figure 2, all servers: "If RPC request or response contains term T > currentTerm: set currentTerm =
    T"."""
    server = paper(term=3)
    server.step(message)
    assert server.term == 9
    assert server.log.hard_state.current_term == 9


@pytest.mark.parametrize("message", NEWER_TERM_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_candidate_whose_term_is_out_of_date_reverts_to_follower(message: Message) -> None:
    """§5.1: "If a candidate or leader discovers that its term is out of date, it immediately reverts to follower"."""
    server = candidate(term=3)
    server.step(message)
    assert server.role is Role.FOLLOWER


@pytest.mark.parametrize("message", NEWER_TERM_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_leader_whose_term_is_out_of_date_reverts_to_follower(message: Message) -> None:
    """§5.1, with the leader's lease run out so that no message may be ignored (Thesis §4.2.3)."""
    server = leader_alone(check_quorum=False, pre_vote=False)
    server.step(message)
    assert server.role is Role.FOLLOWER
    assert server.term == 9


def test_a_new_term_forgets_the_vote_of_the_old_one() -> None:
    """Figure 2: votedFor is the "candidateId that received vote in current term"."""
    server = paper(term=3, voted_for=2)
    server.step(append(4, 3, 1))
    assert server.log.hard_state == HardState(4, 0)


@pytest.mark.parametrize("request_term", [1, 2])
def test_a_request_with_a_stale_term_is_rejected(request_term: int) -> None:
    """§5.1: "If a server receives a request with a stale term number, it rejects the request"; figure 2 RequestVote
    1."""
    server = paper(term=3)
    server.step(vote_request(request_term, 2, 1, (100, request_term)))
    reply = server.take_one(RequestVoteReply)
    assert (reply.term, reply.vote_granted) == (3, False)
    assert server.log.hard_state == HardState(3, 0)


def test_entries_of_a_stale_leader_are_rejected() -> None:
    """Figure 2, AppendEntries 1: "Reply false if term < currentTerm"; the reply tells the old leader the new term."""
    server = paper(term=3)
    server.step(append(2, 2, 1, (0, 0), [command(1, 2)], commit=1))
    reply = server.take_one(AppendEntriesReply)
    assert (reply.term, reply.success) == (3, False)
    assert server.log.last_index == 0
    assert server.commit_index == 0
    assert server.status.leader == 0


def test_a_snapshot_of_a_stale_leader_is_rejected() -> None:
    """Figure 13, receiver 1: "Reply immediately if term < currentTerm"."""
    server = paper(term=3)
    snapshot = SnapshotMetadata(5, 2, configuration((1, 2, 3)))
    server.stage(snapshot, [command(index, 2) for index in range(1, 6)])
    server.step(InstallSnapshot(2, 2, 1, snapshot))
    assert server.take_one(InstallSnapshotReply).term == 3
    assert server.log.base.last_index == 0


def test_a_stale_reply_changes_nothing() -> None:
    """§5.1, for replies: an answer to a question of an earlier term is not an answer to today's."""
    server = candidate(term=3)
    server.step(RequestVoteReply(3, 2, 1, True))
    server.step(RequestVoteReply(3, 3, 1, True))
    assert server.role is Role.CANDIDATE
    leader = leader_alone(pre_vote=False, term=3)
    leader.step(AppendEntriesReply(3, 2, 1, True, 1, 0, 0, 0, 0))
    assert leader.commit_index == 0
    leader.step(TimeoutNow(3, 2, 1))
    leader.step(ReadIndexReply(3, 2, 1, 77, True, 1))
    assert leader.role is Role.LEADER
    assert leader.reads == []


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


# ---- §5.2: the timeout


def timeout_of(server: Server) -> int:
    for ticks in range(1, 10 * server.settings.election_timeout_ticks):
        server.tick()
        if server.role is not Role.FOLLOWER:
            return ticks
    raise AssertionError("never timed out")


def test_election_timeouts_are_random_from_a_fixed_interval() -> None:
    """§5.2: "election timeouts are chosen randomly from a fixed interval", here [T, 2T)."""
    least = paper().settings.election_timeout_ticks
    seen = {timeout_of(paper(seed=seed)) for seed in range(400)}
    assert min(seen) >= least
    assert max(seen) < 2 * least + 1
    assert len(seen) > least // 2, "hardly random"


def test_each_election_draws_a_new_timeout() -> None:
    """§5.2: "Each candidate restarts its randomized election timeout at the start of an election"."""
    server = candidate()
    gaps, ticks, term = set(), 0, server.term
    for _ in range(40 * server.settings.election_timeout_ticks):
        server.tick()
        ticks += 1
        if server.term != term:
            gaps.add(ticks)
            ticks, term = 0, server.term
    assert len(gaps) > 3


def test_randomised_timeouts_resolve_split_votes() -> None:
    """§5.2: split votes "are resolved quickly": ten clusters of five, all started at once, each get one leader."""
    for seed in range(10):
        cluster = Cluster(range(1, 6), seed=seed, pre_vote=False)
        cluster.tick_until(lambda cluster=cluster: any(s.role is Role.LEADER for s in cluster.alive()), limit=200)  # type: ignore[misc]


def test_granting_a_vote_restarts_the_timer() -> None:
    """Figure 2, followers: convert to candidate after a timeout "without … granting vote to candidate"."""
    server = paper()
    server.node.set_randomized_election_timeout(20)
    server.tick(15)
    server.step(vote_request(1, 2, 1))
    server.node.set_randomized_election_timeout(20)
    server.tick(15)
    assert server.role is Role.FOLLOWER


def test_refusing_a_vote_does_not_restart_the_timer() -> None:
    """Figure 2, followers: only a grant counts. Else a server with a short log could keep all others from
    campaigning."""
    server = paper(log=[1, 1], term=1)
    server.node.set_randomized_election_timeout(20)
    server.tick(15)
    server.step(vote_request(2, 2, 1, (1, 1)))
    assert not server.take_one(RequestVoteReply).vote_granted
    server.tick(2 * server.settings.election_timeout_ticks - 15)
    assert server.role is Role.CANDIDATE


def test_a_stale_leader_does_not_restart_the_timer() -> None:
    """Figure 2, followers: AppendEntries "from current leader"."""
    server = paper(term=3)
    server.node.set_randomized_election_timeout(20)
    server.tick(15)
    server.step(append(2, 2, 1))
    server.tick(5)
    assert server.role is Role.CANDIDATE


def test_a_leader_sends_heartbeats_for_ever() -> None:
    """§5.2: "Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers"."""
    server = leader_alone(check_quorum=False)
    server.accept_appends((2, 3))
    server.accept_appends((2, 3))
    server.outbox.clear()
    for _ in range(10):
        server.tick(server.settings.heartbeat_ticks)
        beats = server.take(AppendEntries)
        assert sorted(beat.recipient for beat in beats) == [2, 3]
        assert all(beat.entries == () for beat in beats)
        for beat in beats:
            server.step(accepted(beat))


def test_a_pause_lets_the_election_timer_move_by_one_tick_only() -> None:
    """Differs from the paper: after a process stall the leader's heartbeats wait in the socket; they get their chance
    first."""
    server = paper()
    server.node.tick(10_000)
    server.carry_out()
    assert server.role is Role.FOLLOWER


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

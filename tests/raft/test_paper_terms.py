"""Terms and time: Raft §5.1 and the timeouts of §5.2, a claim a test, without pre-vote as in the paper."""

from __future__ import annotations

import pytest

from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    ReadIndexReply,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.types import HardState, Role, SnapshotMetadata
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, leader_alone
from tests.raft.story import candidate, paper
from tests.raft.words import accepted, append, command, configuration, vote_request

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

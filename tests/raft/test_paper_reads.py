"""Linearizable reads without log entries: Raft §8, Thesis §6.4 (ReadIndex) and §6.4.1 (leases), a claim a test."""

from __future__ import annotations

from raftkv.raft.effects import ConfirmedRead
from raftkv.raft.messages import AppendEntries, PreVoteReply, ReadIndex, ReadIndexReply, RequestVoteReply
from raftkv.types import Role
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, alone, leader_alone
from tests.raft.story import leader_with_log
from tests.raft.words import accepted, append, vote_request


def answer_round(server: Server, *followers: int) -> None:
    """These followers answer everything that was sent to them so far."""
    server.accept_appends(followers)


# ---- ReadIndex (Thesis §6.4)


def test_no_read_before_the_leader_committed_in_its_term() -> None:
    """Thesis §6.4, step 1: only then is its commit index known to be as large as any server's ever was (etcd#7331)."""
    server = leader_alone(log=[1, 1], term=1)
    server.request_read(7)
    for request in server.take(AppendEntries):
        refused = request.prev_log_index
        server.step(accepted(append(server.term, 1, request.recipient, (refused, 1), read_round=request.read_round)))
    server.tick(server.settings.heartbeat_ticks)
    assert server.reads == []
    for _ in range(3):
        server.accept_appends((2, 3))
        server.tick(server.settings.heartbeat_ticks)
    assert server.reads == [ConfirmedRead(7, 3)]


def test_a_read_waits_for_a_round_of_heartbeats() -> None:
    """Thesis §6.4, step 3: "the leader needs to make sure it hasn't been superseded by a newer leader"."""
    server = leader_with_log([], term=1)
    server.request_read(7)
    assert server.reads == []
    assert {request.recipient for request in server.outbox if isinstance(request, AppendEntries)} == {2, 3}
    answer_round(server, 2)
    assert server.reads == [ConfirmedRead(7, 1)]


def test_the_round_needs_a_majority() -> None:
    """Thesis §6.4, step 3: "a majority of the cluster"."""
    server = leader_with_log([], term=1, voters=range(1, 6))
    server.request_read(7)
    answer_round(server, 2)
    assert server.reads == []
    server.tick(server.settings.heartbeat_ticks)
    answer_round(server, 2)
    assert server.reads == [], "the same follower twice is one follower"
    server.tick(server.settings.heartbeat_ticks)
    answer_round(server, 3)
    assert server.reads == [ConfirmedRead(7, 1)]


def test_the_round_needs_both_majorities_in_a_joint_configuration() -> None:
    """§6 for reads: leadership, like elections, is confirmed by both."""
    server = leader_with_log([], term=1)
    server.propose_configuration((1, 4, 5))
    server.take(AppendEntries)
    server.request_read(7)
    requests = {request.recipient: request for request in server.take(AppendEntries)}
    for follower in (2, 3):
        server.step(accepted(append(server.term, 1, follower, (1, 1), read_round=requests[follower].read_round)))
    assert server.reads == []


def test_answers_to_earlier_messages_confirm_nothing() -> None:
    """Thesis §6.4, step 3: the round comes after the read; an answer under way since before says nothing about now."""
    server = leader_with_log([], term=1)
    server.tick(server.settings.heartbeat_ticks)
    before = server.take(AppendEntries)
    assert before
    server.request_read(7)
    for request in before:
        server.step(accepted(request))
    assert server.reads == []


def test_answers_of_strangers_and_learners_confirm_nothing() -> None:
    """§6, Thesis §4.2.1: only voters confirm leadership."""
    server = leader_with_log([], term=1, promote_learners=False)
    server.propose_configuration((1, 2, 3), (4, 5))
    for _ in range(3):
        server.accept_appends((2, 3, 4, 5))
    server.request_read(7)
    newest = max(request.read_round for request in server.take(AppendEntries))
    for outsider in (4, 5, 8, 9):
        server.step(accepted(append(server.term, 1, outsider, (2, server.term), read_round=newest)))
    assert server.reads == []


def test_the_read_index_is_the_commit_index_when_it_was_asked() -> None:
    """Thesis §6.4, step 2: nothing committed before the read may be missed; a later one does no harm."""
    server = leader_with_log([], term=1)
    index = server.propose(b"x")
    server.accept_appends((2, 3))
    assert server.commit_index == index
    server.request_read(7)
    answer_round(server, 2, 3)
    assert server.reads[0].read_index >= index


def test_reads_of_one_round_share_its_messages() -> None:
    """Thesis §6.4: the leader "can use a single round of heartbeats for any number of read-only queries"."""
    server = leader_with_log([], term=1)
    for request_id in range(100, 200):
        server.node.request_read(request_id)
    server.carry_out()
    assert len(server.outbox) <= 4
    answer_round(server, 2, 3)
    answer_round(server, 2, 3)
    assert [read.request_id for read in server.reads] == list(range(100, 200))


def test_a_read_adds_nothing_to_the_log() -> None:
    """§8: "Read-only operations can be handled without writing anything into the log"."""
    server = leader_with_log([], term=1)
    before = server.status.last_index
    server.request_read(7)
    answer_round(server, 2, 3)
    assert server.status.last_index == before


def test_a_sole_voter_confirms_its_own_reads() -> None:
    """Thesis §6.4 in the smallest cluster: it is a majority by itself."""
    server = leader_with_log([], term=1, voters=(1,))
    server.request_read(7)
    assert server.reads == [ConfirmedRead(7, 1)]


def test_a_leader_that_loses_its_role_refuses_its_reads() -> None:
    """Thesis §6.4: better no answer than one that may be stale; the asker may try again."""
    server = leader_with_log([], term=1, check_quorum=False)
    server.request_read(7)
    requests = server.take(AppendEntries)
    server.step(append(9, 2, 1))
    for request in requests:
        server.step(accepted(request))
    assert server.reads == []
    assert server.refused_reads == [7]


def test_a_follower_asks_the_leader() -> None:
    """Thesis §6.4, end: a follower asks the leader for a read index and answers from its own state."""
    server = alone(2, term=1)
    server.step(append(1, 1, 2))
    server.request_read(7)
    assert server.take_one(ReadIndex) == ReadIndex(1, 2, 1, 7)
    server.step(ReadIndexReply(1, 1, 2, 7, True, 5))
    assert server.reads == [ConfirmedRead(7, 5)]


def test_the_leader_answers_a_follower_after_the_same_round() -> None:
    """Thesis §6.4, end: the leader does steps 1 to 3 for it."""
    server = leader_with_log([], term=1)
    server.step(ReadIndex(server.term, 2, 1, 7))
    assert server.take(ReadIndexReply) == []
    answer_round(server, 3)
    assert server.take_one(ReadIndexReply) == ReadIndexReply(server.term, 1, 2, 7, True, 1)


def test_a_server_that_does_not_lead_refuses_to_confirm() -> None:
    """Thesis §6.4: only a leader can."""
    server = alone(term=1)
    server.step(ReadIndex(1, 2, 1, 7))
    reply = server.take_one(ReadIndexReply)
    assert (reply.request_id, reply.success) == (7, False)


def test_a_read_without_a_known_leader_is_refused() -> None:
    """The asker decides whether to wait."""
    server = alone()
    server.request_read(7)
    assert server.refused_reads == [7]


def test_a_refused_question_refuses_the_read() -> None:
    """The leader changed while the question was on its way."""
    server = alone(2, term=1)
    server.step(append(1, 1, 2))
    server.request_read(7)
    server.step(ReadIndexReply(1, 1, 2, 7, False, 0))
    assert server.refused_reads == [7]


def test_an_answer_counts_once_and_only_for_a_question() -> None:
    """A network that doubles messages must not answer a read twice, nor one that nobody asked."""
    server = alone(2, term=1)
    server.step(append(1, 1, 2))
    server.request_read(7)
    for _ in range(3):
        server.step(ReadIndexReply(1, 1, 2, 7, True, 5))
    server.step(ReadIndexReply(1, 1, 2, 8, True, 5))
    assert server.reads == [ConfirmedRead(7, 5)]


def test_a_read_whose_messages_were_lost_ends_in_some_way() -> None:
    """No read waits for ever: it is confirmed later or refused."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    request_id = cluster.read(2)
    cluster.lose_all()
    cluster.tick(60)
    ended = [read.request_id for read in cluster[2].reads] + cluster[2].refused_reads
    assert ended == [request_id]


def test_a_read_at_the_leader_survives_a_lost_round() -> None:
    """§5.5 for reads: the next heartbeat carries the round again."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    request_id = cluster.read(1)
    cluster.lose_all()
    cluster.tick(10)
    assert [read.request_id for read in cluster[1].reads] == [request_id]


def test_a_deposed_leader_on_the_wrong_side_confirms_no_read() -> None:
    """Thesis §6.4, the reason for the round: the reference serves such a read from a leader that slept."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    cluster.isolate(1)
    for server in (cluster[2], cluster[3]):
        server.tick(40)
    cluster.settle()
    for server in (cluster[2], cluster[3]):
        server.tick(40)
        cluster.settle()
    assert cluster[1].role is Role.LEADER, "its clock stood still"
    cluster.leader().propose(b"newer")
    cluster.settle()
    request_id = cluster.read(1)
    cluster.heal()
    cluster.settle()
    assert cluster[1].reads == []
    cluster.tick(10)
    assert cluster[1].refused_reads == [request_id]


def test_reads_on_any_server_see_every_earlier_write() -> None:
    """§8: a read "must not return stale data"; on followers too."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    for member_id in (1, 2, 3):
        index = cluster[1].propose(b"x")
        cluster.settle()
        cluster.read(member_id)
        cluster.tick(8)
        assert cluster[member_id].reads[-1].read_index >= index
        assert cluster[member_id].machine.last_applied >= index


# ---- leases (Thesis §6.4.1)


def leased_leader() -> Server:
    server = leader_with_log([], term=1, lease_reads=True)
    for _ in range(3):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    server.outbox.clear()
    return server


def test_a_lease_answers_at_once() -> None:
    """Thesis §6.4.1: while the lease lasts, reads cost no message."""
    server = leased_leader()
    server.request_read(7, lease=True)
    assert server.reads == [ConfirmedRead(7, 1)]
    assert server.outbox == []


def test_a_lease_ends_before_a_follower_can_vote() -> None:
    """Thesis §6.4.1: it lasts an election timeout less the drift bound, counted from when the round was sent."""
    server = leased_leader()
    least = server.settings.election_timeout_ticks - server.settings.lease_margin_ticks
    for tick in range(1, server.settings.election_timeout_ticks):
        server.tick()
        server.take(AppendEntries)
        server.reads.clear()
        server.request_read(100 + tick, lease=True)
        if tick >= least:
            assert server.reads == [], f"lease still used {tick} ticks after the last answer"


def test_without_the_setting_a_lease_is_an_ordinary_read() -> None:
    """Design: leases trust clocks, so they are opt-in."""
    server = leader_with_log([], term=1)
    for _ in range(3):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    server.request_read(7, lease=True)
    assert server.reads == []
    answer_round(server, 2)
    assert server.reads == [ConfirmedRead(7, 1)]


def test_without_check_quorum_there_is_no_lease() -> None:
    """Thesis §6.4.1 with §4.2.3: without it followers do not refuse votes, so their answers promise nothing."""
    server = leader_with_log([], term=1, lease_reads=True, check_quorum=False)
    for _ in range(3):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    server.request_read(7, lease=True)
    assert server.reads == []


def test_an_expired_lease_falls_back_to_a_round() -> None:
    """Thesis §6.4.1: slower, never wrong."""
    server = leased_leader()
    server.tick(server.settings.election_timeout_ticks - 1)
    server.take(AppendEntries)
    server.request_read(7, lease=True)
    assert server.reads == []
    answer_round(server, 2)
    assert [read.request_id for read in server.reads] == [7]


def test_the_lease_is_renewed_by_heartbeats_alone() -> None:
    """Thesis §6.4.1: "the leader would use the normal heartbeat mechanism to maintain a lease"."""
    server = leased_leader()
    for turn in range(20):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
        server.reads.clear()
        server.request_read(1000 + turn, lease=True)
        assert server.reads


def is_granted(server: Server) -> bool:
    return any(reply.vote_granted for reply in server.take(RequestVoteReply))


def test_a_restarted_voter_first_waits_out_what_it_may_have_promised() -> None:
    """Thesis §6.4.1: a lease counts on voters refusing for an election timeout; a restart must not shorten that."""
    server = alone(term=1, lease_reads=True)
    server.step(append(1, 2, 1))
    server.crash()
    server.restart()
    server.step(vote_request(2, 3, 1))
    assert not is_granted(server)
    server.node.set_randomized_election_timeout(1000)
    server.tick(server.settings.election_timeout_ticks)
    server.step(vote_request(3, 3, 1))
    assert is_granted(server)


def test_a_newer_term_heard_of_by_accident_does_not_end_what_was_promised() -> None:
    """Thesis §6.4.1: server 1 promised leader 2 not to vote for an election timeout. A late reply of a failed candidate
    makes it adopt a newer term; if that freed its vote, server 3 could lead while 2 still has its lease."""
    server = alone(term=1, lease_reads=True)
    server.node.set_randomized_election_timeout(1000)
    server.tick(2 * server.settings.election_timeout_ticks)
    server.step(append(1, 2, 1))
    server.step(PreVoteReply(5, 3, 1, 2, False))
    server.step(vote_request(6, 3, 1))
    assert not is_granted(server)

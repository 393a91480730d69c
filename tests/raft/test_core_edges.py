"""Corners of the core that no figure of the paper draws: each was once wrong somewhere, here or elsewhere."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.errors import InvariantViolation
from raftkv.raft import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndexReply,
    RequestVote,
    TimeoutNow,
)
from raftkv.types import Configuration, Entry, EntryKind, Role, SnapshotMetadata
from tests.raft.cluster import Cluster
from tests.raft.harness import alone, leader_alone
from tests.raft.story import leader_with_log
from tests.raft.words import accepted, append, command, configuration, entries_of_terms, vote_request

HUGE = (1 << 63) - 1


def test_a_removed_leader_may_be_the_only_one_that_can_finish_its_removal() -> None:
    """Thesis §4.2.2, figure 4.6: S1 of two removes itself and crashes when only its log says so."""
    cluster = Cluster((1, 2))
    cluster.elect(1)
    cluster[1].propose_configuration((2,))
    for _ in range(50):
        if cluster[1].status.configuration == configuration((2,)):
            break
        cluster.deliver()
    cluster.lose_all()
    cluster.crash(1)
    cluster.restart(1)
    assert cluster[1].status.configuration == configuration((2,))
    assert cluster[2].status.configuration.is_joint
    cluster.tick_until(lambda: cluster[2].role is Role.LEADER)
    cluster.tick(100)
    assert cluster[2].status.configuration == configuration((2,))
    assert cluster[2].role is Role.LEADER
    assert cluster[1].role is Role.FOLLOWER


def test_a_leader_whose_disk_stands_still_stops_leading() -> None:
    """consul#22064: it goes on hearing a majority, but nothing can be answered here."""
    server = leader_with_log([], term=1)
    server.is_disk_held = True
    server.propose(b"x")
    for _ in range(3 * server.settings.election_timeout_ticks):
        server.accept_appends((2, 3))
        server.tick()
        if server.role is not Role.LEADER:
            break
    assert server.role is Role.FOLLOWER


def test_a_candidate_with_a_stuck_disk_does_not_run_through_terms() -> None:
    server = alone(voters=(1,), pre_vote=False)
    server.is_disk_held = True
    server.tick(20 * server.settings.election_timeout_ticks)
    assert server.term == 1
    server.sync()
    assert server.role is Role.LEADER


def test_a_promise_to_a_lease_holder_outlives_its_term() -> None:
    """Thesis §6.4.1: hearing of a newer term by accident frees nobody from what a leader may count on."""
    server = alone(term=1, lease_reads=True)
    server.node.set_randomized_election_timeout(1000)
    timeout_ticks = server.settings.election_timeout_ticks
    server.tick(2 * timeout_ticks)
    server.step(append(1, 2, 1))
    server.step(PreVoteReply(5, 3, 1, 2, False))
    assert server.term == 5
    server.step(vote_request(6, 3, 1))
    assert server.term == 5, "not even looked at"
    server.tick(timeout_ticks)
    server.step(vote_request(6, 3, 1))
    assert server.term == 6


def test_a_promise_to_a_lease_holder_holds_in_a_term_that_was_heard_of_by_accident() -> None:
    """The request is of our own term by then, so its term gives it away to nobody."""
    server = alone(term=1, lease_reads=True)
    server.node.set_randomized_election_timeout(1000)
    timeout_ticks = server.settings.election_timeout_ticks
    server.tick(2 * timeout_ticks)
    server.step(append(1, 2, 1))
    server.step(PreVoteReply(5, 3, 1, 2, False))
    server.step(vote_request(5, 3, 1))
    assert server.status.voted_for == 0
    server.tick(timeout_ticks)
    server.step(vote_request(5, 3, 1))
    assert server.status.voted_for == 3


def test_a_follower_that_agrees_and_is_still_writing_is_not_sent_everything_again() -> None:
    """Its answer to a heartbeat claims only what is durable. After a snapshot that may be nothing yet."""
    server = leader_alone(1, (1, 2, 3), log=[1] * 9, term=1)
    for _ in range(3):
        server.accept_appends((3,))
    server.compact(8)
    server.step(AppendEntriesReply(server.term, 2, 1, False, 0, 9, 0, 0, 0))
    assert server.status.progress[2].state == "snapshot"
    server.snapshot_sent(2, ok=True)
    server.outbox.clear()
    server.step(AppendEntriesReply(server.term, 2, 1, True, 0, 8, 0, 0, 0))
    progress = server.status.progress[2]
    assert (progress.state, progress.match_index) == ("replicate", 0)
    requests = [request for request in server.take(AppendEntries) if request.recipient == 2]
    assert [entry.index for request in requests for entry in request.entries] == [9, 10]


def test_an_agreement_beyond_the_leaders_log_is_none_of_ours() -> None:
    server = leader_with_log([1], term=1)
    server.unreachable(2)
    server.step(AppendEntriesReply(server.term, 2, 1, True, 0, 1000, 0, 0, 0))
    server.node.check_all()
    assert server.status.progress[2].next_index == server.status.last_index + 1


def test_only_the_leader_hands_leadership_over() -> None:
    """The election that follows overrides leases, and only a leader can have given up its own (Thesis §4.2.3)."""
    server = alone(term=1)
    server.step(append(1, 2, 1))
    server.step(TimeoutNow(1, 3, 1))
    assert (server.role, server.term) == (Role.FOLLOWER, 1)
    server.step(TimeoutNow(1, 2, 1))
    assert (server.role, server.term) == (Role.CANDIDATE, 2)


def test_only_the_leader_confirms_a_read() -> None:
    """Whoever else claims an index might claim one from before the newest write (Thesis §6.4)."""
    server = alone(term=1)
    server.step(append(1, 2, 1))
    server.request_read(7)
    server.step(ReadIndexReply(1, 3, 1, 7, True, 0))
    assert server.reads == []
    server.step(ReadIndexReply(1, 2, 1, 7, True, 0))
    assert [read.request_id for read in server.reads] == [7]


def test_a_lease_counts_the_tick_that_is_almost_over() -> None:
    """The clock may be nearly one tick ahead of what `tick` was told, so the lease ends one tick early."""
    server = leader_with_log([], term=1, lease_reads=True)
    server.tick(server.settings.heartbeat_ticks)
    server.accept_appends((2, 3))
    lease_ticks = server.settings.election_timeout_ticks - server.settings.lease_margin_ticks
    server.tick(lease_ticks - 2)
    server.request_read(1, lease=True)
    server.tick()
    server.request_read(2, lease=True)
    assert [read.request_id for read in server.reads] == [1]


def test_no_lease_while_the_heir_is_brought_up_to_date() -> None:
    """Heartbeats go on and would renew the lease before TimeoutNow is sent."""
    server = leader_with_log([], term=1, lease_reads=True)
    server.propose(b"x")
    server.outbox.clear()
    server.transfer_leadership(3)
    server.tick(server.settings.heartbeat_ticks)
    for request in server.take(AppendEntries):
        server.step(accepted(msgspec.structs.replace(request, prev_log_index=1, prev_log_term=2)))
    assert not server.take(TimeoutNow)
    server.request_read(7, lease=True)
    assert server.reads == []


def test_nothing_is_acknowledged_before_a_replaced_log_is_durable() -> None:
    """Heartbeats are answered at once, but claim only what is durable: here nothing that the snapshot brought."""
    server = alone(log=[1, 1, 1], term=2, applied_index=1)
    server.is_disk_held = True
    snapshot = SnapshotMetadata(9, 2, configuration((1, 2, 3)), 0)
    server.stage(snapshot, entries_of_terms([1, 1, 1, 2, 2, 2, 2, 2, 2]))
    server.step(InstallSnapshot(2, 2, 1, snapshot))
    server.node.compacted()  # storage still has its old base
    server.step(append(2, 2, 1, prev=(9, 2)))
    assert [reply.match_index for reply in server.take(AppendEntriesReply)] == [1]
    assert not server.take(InstallSnapshotReply)
    server.sync()
    assert [reply.match_index for reply in server.take(InstallSnapshotReply)] == [9]


def test_a_late_disk_report_of_replaced_entries_makes_no_claim_for_the_new_ones() -> None:
    """Entries 1-3 of term 1 are being written (step 1), term 2 begins (step 2), other entries 1-3 follow (step 3)."""
    server = alone(term=1)
    server.is_disk_held = True
    server.step(append(1, 2, 1, entries=[command(index, 1) for index in (1, 2, 3)]))
    server.step(append(2, 3, 1))
    server.step(append(2, 3, 1, entries=[command(index, 2) for index in (1, 2, 3)]))
    server.sync(2)
    server.outbox.clear()
    server.step(append(2, 3, 1, prev=(3, 2)))
    assert [reply.match_index for reply in server.take(AppendEntriesReply)] == [0]
    server.sync()
    assert server.take_one(AppendEntriesReply, 3).match_index == 3


def test_a_read_is_confirmed_by_the_smaller_quorum_of_a_new_configuration() -> None:
    """The answers are in already when the change makes them enough: no further answer may be needed."""
    server = leader_with_log([], term=1, voters=(1, 2, 3, 4))
    server.propose_configuration((1, 2))
    before = server.take(AppendEntries)
    server.request_read(7)
    for request in before:
        if request.recipient == 2:
            server.step(accepted(request, read_round=1))
    assert not server.reads, "three of four are needed while the configuration is joint"
    for request in before:
        if request.recipient == 3:
            server.step(accepted(request))
    assert server.status.configuration == configuration((1, 2))
    assert [read.request_id for read in server.reads] == [7]


def test_a_commit_below_the_joint_configuration_does_not_leave_it() -> None:
    """Raft §6: it is left once it is committed itself, not when something before it is."""
    server = leader_with_log([], term=1, append_max_bytes=1)
    server.propose(b"x")
    server.propose_configuration((1, 2, 3, 4))
    requests = server.take(AppendEntries)
    with_x = [request for request in requests if [entry.data for entry in request.entries] == [b"x"]]
    for request in with_x:
        server.step(accepted(request))
    assert server.commit_index == server.status.configuration_index - 1
    assert server.status.configuration.is_joint
    assert server.status.last_index == server.status.configuration_index


def test_a_learner_whose_round_took_too_long_runs_another_one() -> None:
    """Thesis §4.2.1: a round of an election timeout or more says that it would hold up commitment."""
    server = leader_with_log([1] * 5, term=1)
    server.propose_configuration((1, 2, 3), (4,))
    server.accept_appends((2, 3))
    for _ in range(server.settings.election_timeout_ticks):
        server.tick()
        server.accept_appends((2, 3))
    last_index = server.status.last_index
    server.step(AppendEntriesReply(server.term, 4, 1, True, last_index, last_index, 0, 0, 0))
    assert not server.status.configuration.is_joint, "caught up, but slowly"
    server.step(AppendEntriesReply(server.term, 4, 1, True, last_index, last_index, 0, 0, 0))
    assert server.status.configuration.is_joint


def test_an_old_refusal_does_not_stop_the_pipeline() -> None:
    server = leader_with_log([1, 1, 1], term=1)
    match_index = server.status.progress[2].match_index
    assert server.status.progress[2].state == "replicate"
    server.step(AppendEntriesReply(server.term, 2, 1, False, 0, match_index, 0, 0, 0))
    assert server.status.progress[2].state == "replicate"


def test_only_the_answer_to_the_newest_probe_moves_it() -> None:
    """A pipeline that broke brings a refusal for each message in it; each would restart the probe."""
    server = leader_alone(log=[1, 1, 1, 1, 1], term=1)
    server.step(AppendEntriesReply(server.term, 2, 1, False, 0, 5, 3, 1, 0))
    assert server.status.progress[2].next_index == 4
    server.step(AppendEntriesReply(server.term, 2, 1, False, 0, 5, 1, 1, 0))
    assert server.status.progress[2].next_index == 4


def test_a_new_leader_says_farewell_for_one_that_died() -> None:
    """The leader that removed server 3 dies before telling it; the next one does, when 3 asks for votes."""
    cluster = Cluster((1, 2, 3, 4))
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].propose_configuration((1, 2, 4))
    cluster.tick(5)
    cluster.crash(1)
    cluster.tick_until(lambda: any(cluster[i].role is Role.LEADER for i in (2, 4)))
    assert 3 not in cluster.leader().status.progress
    term = cluster.leader().term
    cluster.heal()
    cluster.tick(100)
    assert cluster[3].status.configuration == configuration((1, 2, 4))
    assert cluster[3].status.commit_index >= cluster[3].status.configuration_index
    assert cluster.leader().term == term
    assert 3 not in cluster.leader().status.progress


def test_the_tail_in_memory_is_bounded_and_what_it_lost_comes_from_disk() -> None:
    cluster = Cluster(tail_max_bytes=2000, append_max_bytes=300)
    cluster.elect(1)
    cluster.isolate(3)
    for number in range(200):
        cluster[1].propose(b"%d" % number)
        cluster.settle()
    assert cluster[1].node._state.log.tail()[2] <= 2000
    cluster.heal()
    cluster.tick(20)
    assert cluster.commands()[3] == [b"%d" % number for number in range(200)]


MALFORMED: list[Message] = [
    append(2, 2, 1, prev=(-1, 0)),
    append(2, 2, 1, prev=(3, -1)),
    append(2, 2, 1, prev=(0, 1)),
    append(2, 2, 1, prev=(3, 3)),
    append(-1, 2, 1),
    append(0, 2, 1),
    append(HUGE, 2, 1),
    append(2, 0, 1),
    append(2, 1, 1),
    append(2, -7, 1),
    append(2, 2, 9),
    append(2, 2, 1, prev=(3, 1), entries=[command(5, 2)]),
    append(2, 2, 1, prev=(3, 1), entries=[command(4, 2), command(4, 2)]),
    append(2, 2, 1, prev=(3, 1), entries=[command(4, 3)]),
    append(2, 2, 1, prev=(3, 1), entries=[command(4, 2), command(5, 1)]),
    append(2, 2, 1, prev=(3, 1), entries=[Entry(4, 2, EntryKind.CONFIGURATION, b"\xff")]),
    append(2, 2, 1, prev=(3, 1), commit=-1),
    append(2, 2, 1, prev=(3, 1), read_round=-1),
    AppendEntriesReply(2, 2, 1, True, -1, 0, 0, 0, 0),
    AppendEntriesReply(2, 2, 1, False, 0, 0, -5, 0, 0),
    PreVote(0, 2, 1, 0, 0),
    PreVote(3, 2, 1, -1, 0),
    RequestVote(3, 2, 1, 9, 4),
    RequestVote(3, 2, 1, HUGE, 1),
    InstallSnapshot(2, 2, 1, SnapshotMetadata(9, 3, configuration((1, 2)), 0)),
    InstallSnapshot(2, 2, 1, SnapshotMetadata(9, 2, configuration((1, 2)), 10)),
    InstallSnapshot(2, 2, 1, SnapshotMetadata(9, 2, Configuration(), 0)),
    InstallSnapshot(2, 2, 1, SnapshotMetadata(-9, 2, configuration((1, 2)), 0)),
    InstallSnapshotReply(2, 2, 1, -1, 0),
    ReadIndexReply(2, 2, 1, 7, True, -1),
    TimeoutNow(HUGE, 2, 1),
]


@pytest.mark.parametrize("message", MALFORMED, ids=repr)
def test_nonsense_is_dropped_and_counted(message: Message) -> None:
    server = alone(log=[1, 1, 1], term=1)
    before = server.status
    server.step(message)
    assert server.status.ignored_count == 1
    assert (server.term, server.log_terms(), server.role) == (before.current_term, [1, 1, 1], Role.FOLLOWER)
    assert not server.outbox


@pytest.mark.parametrize(
    "message",
    [
        AppendEntriesReply(3, 2, 1, True, 999, 0, 0, 0, 0),
        AppendEntriesReply(3, 2, 1, True, 1, 0, 0, 0, 999),
        AppendEntriesReply(3, 9, 1, True, 1, 0, 0, 0, 0),
        AppendEntriesReply(4, 9, 1, False, 0, 0, 0, 0, 0),
        InstallSnapshotReply(3, 2, 1, 999, 0),
        append(3, 2, 1),
        TimeoutNow(3, 2, 1),
    ],
    ids=repr,
)
def test_a_leader_drops_answers_to_what_it_never_asked(message: Message) -> None:
    server = leader_with_log([1], term=2)
    assert server.term == 3
    server.step(message)
    assert server.status.ignored_count == 1
    assert server.role is Role.LEADER
    assert server.term == 3


def test_a_leader_that_denies_what_is_committed_stops_the_node() -> None:
    """This is no nonsense but two histories: going on would serve one of them as the truth."""
    server = alone(log=[1, 1, 1], term=1, applied_index=3)
    with pytest.raises(InvariantViolation, match="committed"):
        server.step(append(2, 2, 1, prev=(2, 1), entries=[command(3, 2)]))
    assert isinstance(server.handed_out, list)


def test_refusals_that_name_impossible_places_do_not_move_the_leader_out_of_its_log() -> None:
    server = leader_with_log([1, 1, 1], term=1)
    server.propose(b"x")
    request = server.take_last(AppendEntries, 2)
    server.propose(b"y")
    for hint_index in (0, 3, 10**9):
        server.step(AppendEntriesReply(2, 2, 1, False, 0, request.prev_log_index, hint_index, 1, 0))
        server.tick(server.settings.heartbeat_ticks)
    assert server.status.progress[2].next_index <= server.status.last_index + 1

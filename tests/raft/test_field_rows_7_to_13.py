"""What has really gone wrong in other Raft systems: rows 7 to 13; see `test_field_rows_1_to_6.py`."""

from __future__ import annotations

from raftkv.raft.effects import ConfirmedRead
from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    PreVote,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.types import Role, SnapshotMetadata
from tests.raft.cluster import Cluster
from tests.raft.harness import alone
from tests.raft.story import ids, leader_with_log
from tests.raft.words import accepted, append, command, configuration, configuration_entry, entries_of_terms

# ---- 7. commit never goes back; acknowledge only what was verified; never truncate a matching suffix


def test_row_07_the_commit_index_never_goes_back() -> None:
    """PySyncObj#166: whatever order messages come in."""
    server = alone(term=1)
    messages = [
        append(1, 2, 1, (0, 0), [command(i, 1) for i in range(1, n + 1)], commit=n - 1) for n in (6, 2, 4, 1, 3)
    ]
    commits = []
    for message in messages:
        server.step(message)
        commits.append(server.commit_index)
    assert commits == [5] * 5


def test_row_07_a_follower_acknowledges_only_what_this_message_verified() -> None:
    """PySyncObj#166: an unverified suffix of an old term must not be claimed, however long it is."""
    follower = alone(2, log=[1, 1, 1, 1, 1, 1], term=2)
    follower.step(append(2, 1, 2, (1, 1)))
    assert follower.take_one(AppendEntriesReply).match_index == 1
    follower.step(append(2, 1, 2, (1, 1), [command(2, 1)]))
    assert follower.take_one(AppendEntriesReply).match_index == 2


def test_row_07_a_matching_suffix_is_never_truncated() -> None:
    """hashicorp/raft#113: an old, shorter request came late and cut what had been acknowledged since."""
    follower = alone(2, term=1)
    late = append(1, 1, 2, (0, 0), [command(1, 1)])
    follower.step(append(1, 1, 2, (0, 0), [command(1, 1), command(2, 1), command(3, 1)], commit=3))
    follower.step(late)
    assert follower.log_terms() == [1, 1, 1]
    assert follower.commit_index == 3


# ---- 8. no ReadIndex before the term's first commit


def test_row_08_no_read_index_before_the_terms_first_commit() -> None:
    """etcd#7331: the new leader's commit index may be behind what the old one had acknowledged."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(10)
    index = cluster[1].propose(b"x")
    cluster.deliver_only(AppendEntries)
    cluster.deliver_only(AppendEntriesReply)
    assert cluster[1].machine.commands == [b"x"]
    cluster.lose_all()
    cluster.crash(1)
    assert cluster[2].commit_index < index
    for member_id in (2, 3):
        cluster[member_id].node.set_randomized_election_timeout(1000)
        cluster[member_id].tick(40)
    cluster[2].campaign()
    while cluster[2].role is not Role.LEADER:
        cluster.deliver()
    cluster.read(2)
    cluster.settle()
    cluster.tick(5)
    assert cluster[2].reads[0].read_index >= index


# ---- 9. ReadIndex confirmations: of the same term, by quorum, with ids that are never reused


def test_row_09_an_answer_of_an_earlier_term_does_not_confirm() -> None:
    """etcd#20418: server 1 leads twice; a reply to its first leadership must not confirm a read of the second."""
    server = leader_with_log([], term=1)
    server.request_read(1)
    old = next(request for request in server.take(AppendEntries) if request.recipient == 2)
    old_answer = accepted(old)
    server.step(append(9, 2, 1, (1, 2)))
    server.tick(server.settings.election_timeout_ticks)
    server.win_election((2, 3))
    server.accept_appends((2, 3))
    server.accept_appends((2, 3))
    assert server.commit_index == server.status.last_index
    server.reads.clear()
    server.take(AppendEntries)
    server.request_read(2)
    server.step(old_answer)
    assert server.reads == []
    server.step(AppendEntriesReply(server.term, 2, 1, True, 1, 0, 0, 0, 0))
    assert server.reads == []


def test_row_09_an_answer_to_an_earlier_round_does_not_confirm_a_later_read() -> None:
    """etcd#20418: rounds are numbered and never reused within a term."""
    server = leader_with_log([], term=1)
    server.request_read(1)
    first_round = next(request for request in server.take(AppendEntries) if request.recipient == 2)
    server.accept_appends((3,))
    server.step(accepted(first_round))
    assert [read.request_id for read in server.reads] == [1]
    server.request_read(2)
    server.step(accepted(first_round))
    assert [read.request_id for read in server.reads] == [1]


def test_row_09_a_late_answer_of_the_leader_does_not_answer_another_question() -> None:
    """At the asking follower: an answer for an id that is not waiting is dropped."""
    follower = alone(2, term=1)
    follower.step(append(1, 1, 2))
    follower.request_read(5)
    follower.step(ReadIndexReply(1, 1, 2, 4, True, 100))
    assert follower.reads == []
    follower.step(ReadIndexReply(1, 1, 2, 5, True, 3))
    assert follower.reads == [ConfirmedRead(5, 3)]


# ---- 10. lease reads survive pauses and end at leader transfer (transfer: test_paper_transfer.py)


def test_row_10_a_paused_leader_has_no_lease_when_it_wakes() -> None:
    """tikv#1593: after SIGSTOP the clock jumps; the driver gives `tick` the whole pause before any read."""
    server = leader_with_log([], term=1, lease_reads=True)
    for _ in range(4):
        server.tick(server.settings.heartbeat_ticks)
        server.accept_appends((2, 3))
    server.node.tick(1000)
    server.carry_out()
    server.request_read(7, lease=True)
    assert server.reads == []


def test_row_10_a_pause_shorter_than_the_lease_does_not_lengthen_it() -> None:
    """tikv#1593: an answer that waited in the socket during the pause renews from when its question was sent."""
    server = leader_with_log([], term=1, lease_reads=True)
    server.tick(server.settings.heartbeat_ticks)
    waiting = server.take(AppendEntries)
    server.node.tick(server.settings.election_timeout_ticks - 1)
    for request in waiting:
        server.step(accepted(request))
    server.take(AppendEntries)
    server.reads.clear()
    server.request_read(7, lease=True)
    assert server.reads == []


# ---- 12. incarnations never reused; removed servers cannot disrupt


def test_row_12_a_wiped_server_comes_back_as_another_member() -> None:
    """dragonboat#350: 3 lost its disk and is now 4; one change removes the old and adds the new, as a learner first."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1).propose(b"x")
    cluster.tick(10)
    cluster.crash(3)
    cluster[1].propose_configuration((1, 2), (4,))
    cluster.tick(150)
    assert ids(cluster[1].status.configuration) == ({1, 2, 4}, set(), set())
    assert cluster[4].machine.commands == [b"x"]
    assert cluster[1].term == 1


def test_row_12_a_removed_server_with_a_higher_term_cannot_disrupt() -> None:
    """A removed server campaigns for ever with ever higher terms (the reference does): nobody follows it."""
    server = leader_with_log([], term=1)
    for term in range(3, 60):
        server.step(RequestVote(term, 9, 1, 50, term - 1))
        server.step(RequestVoteReply(term, 9, 1, False))
        server.step(PreVote(term, 9, 1, 50, term - 1))
        server.accept_appends((2, 3))
    assert server.role is Role.LEADER
    assert server.term == 2


# ---- 13. snapshot install: gaps, membership inside, stale log dropped


def test_row_13_a_snapshot_leaves_no_gap_between_itself_and_the_log() -> None:
    """redisraft#17: entries behind a gap must not be appended after the installation."""
    server = alone(log=[1, 1, 1], term=2)
    snapshot = SnapshotMetadata(10, 2, configuration((1, 2, 3)))
    server.stage(snapshot, entries_of_terms([2] * 10))
    server.step(InstallSnapshot(2, 2, 1, snapshot))
    server.outbox.clear()
    server.step(append(2, 2, 1, (12, 2), [command(13, 2)], commit=13))
    assert not server.take_one(AppendEntriesReply).success
    assert (server.log.last_index, server.commit_index) == (10, 10)


def test_row_13_the_stale_log_is_dropped_with_its_configurations() -> None:
    """redisraft#43: an uncommitted configuration of the discarded log must not stay in force."""
    server = alone(1, term=1)
    stale = configuration((1, 9), outgoing=(1, 2, 3))
    server.step(append(1, 2, 1, (0, 0), [configuration_entry(1, 1, stale)]))
    assert server.status.configuration == stale
    snapshot = SnapshotMetadata(10, 2, configuration((1, 2, 3, 4)), 6)
    server.stage(snapshot, entries_of_terms([2] * 10))
    server.step(InstallSnapshot(2, 3, 1, snapshot))
    assert server.status.configuration == configuration((1, 2, 3, 4))
    assert server.status.configuration_index == 6
    server.crash()
    server.restart()
    assert server.status.configuration == configuration((1, 2, 3, 4))
    assert server.status.configuration_index == 6


def test_row_13_the_configuration_index_is_the_configurations_own() -> None:
    """matrixone#24966: with the snapshot's index instead, a change behind the snapshot looks older than it is."""
    cluster = Cluster((1, 2, 3), spare=(4,))
    cluster.elect(1)
    cluster.tick(10)
    cluster[1].propose_configuration((1, 2, 3), (4,))
    cluster.isolate(4)
    cluster.tick(20)
    configuration_index = cluster[1].status.configuration_index
    for number in range(20):
        cluster[1].propose(b"%d" % number)
        cluster.settle()
    cluster.tick(5)
    cluster[1].compact()
    cluster.heal()
    for _ in range(40):
        if cluster[4].log.base.last_index:
            break
        cluster.tick()
    assert cluster[4].log.base.configuration_index == configuration_index
    assert cluster[4].log.base.last_index > configuration_index

"""Log replication: Raft §5.3, §5.5 and figure 2's AppendEntries, a claim a test; figure 7: `test_paper_log_repair.py`.

Peers are played by the test where a single message matters, and are real servers where only the outcome does.
"""

from __future__ import annotations

import pytest

from raftkv.errors import NoLeader, NotLeader
from raftkv.raft.messages import AppendEntries, AppendEntriesReply
from raftkv.types import Entry, EntryKind
from tests.raft.cluster import Cluster
from tests.raft.harness import alone, leader_alone
from tests.raft.story import leader_with_log
from tests.raft.words import accepted, append, command

# ---- the leader's side


def test_a_new_leader_opens_its_term_with_a_no_op() -> None:
    """§8: "each leader commit a blank no-op entry into the log at the start of its term"."""
    server = leader_alone(log=[1, 1], term=4)
    assert server.durable_entries()[-1] == Entry(3, 5, EntryKind.NOOP, b"")
    assert server.commit_index == 0


def test_next_index_starts_just_after_the_leaders_last_entry() -> None:
    """§5.3: "it initializes all nextIndex values to the index just after the last one in its log"; matchIndex to 0."""
    server = leader_alone(log=[1, 1, 2], term=4)
    first = server.take_last(AppendEntries, 2)
    assert (first.prev_log_index, first.prev_log_term) == (3, 2)
    assert server.status.progress[2].match_index == 0


def test_a_proposal_is_appended_with_the_leaders_term_and_sent_in_parallel() -> None:
    """§5.3: "appends the command to its log as a new entry, then issues AppendEntries RPCs in parallel"."""
    server = leader_with_log([1, 1], term=1)
    assert server.node.propose(b"x") == (4, 2)
    server.carry_out()
    requests = server.take(AppendEntries)
    assert sorted(request.recipient for request in requests) == [2, 3]
    for request in requests:
        assert request.entries == (Entry(4, 2, EntryKind.COMMANDS, b"x"),)
        assert (request.prev_log_index, request.prev_log_term) == (3, 2)


@pytest.mark.parametrize(("voters", "acks_needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_an_entry_commits_once_a_majority_has_it(voters: int, acks_needed: int) -> None:
    """§5.3: "A log entry is committed once the leader … has replicated it on a majority of the servers"."""
    server = leader_with_log([], term=1, voters=range(1, voters + 1))
    index = server.propose(b"x")
    requests = {request.recipient: request for request in server.take(AppendEntries)}
    for follower in range(2, 2 + acks_needed):
        assert server.commit_index < index
        server.step(accepted(requests[follower]))
    assert server.commit_index == index
    assert server.machine.commands == [b"x"]


def test_the_leader_counts_itself_only_once_its_own_write_is_durable() -> None:
    """Thesis §10.2.1: "the leader may even commit an entry before it has been written to its own disk", not count
    itself."""
    server = leader_with_log([], term=1)
    server.is_disk_held = True
    index = server.propose(b"x")
    requests = {request.recipient: request for request in server.take(AppendEntries)}
    assert sorted(requests) == [2, 3], "replication does not wait for the leader's disk"
    server.step(accepted(requests[2]))
    assert server.commit_index == index - 1
    server.sync()
    assert server.commit_index == index


def test_a_majority_of_followers_commits_without_the_leaders_disk() -> None:
    """Thesis §10.2.1, end: the followers alone are a majority; the leader applies once it has the entry itself."""
    server = leader_with_log([], term=1)
    server.is_disk_held = True
    index = server.propose(b"x")
    for request in server.take(AppendEntries):
        server.step(accepted(request))
    assert server.commit_index == index
    assert server.machine.commands == [], "applied only what is durable here"
    server.sync()
    assert server.machine.commands == [b"x"]


def test_committing_an_entry_commits_all_before_it() -> None:
    """§5.3: "This also commits all preceding entries in the leader's log, including entries created by previous
    leaders"."""
    server = leader_alone(log=[1, 2, 2], term=3)
    assert server.commit_index == 0
    server.step(accepted(server.take_last(AppendEntries, 2)))
    assert server.commit_index == 4
    assert [entry.index for entry in server.machine.history] == [1, 2, 3, 4]


def test_followers_learn_of_the_commit_with_the_next_append_entries() -> None:
    """§5.3: the leader "includes that index in future AppendEntries RPCs (including heartbeats)"."""
    server = leader_with_log([], term=1)
    index = server.propose(b"x")
    server.accept_appends((2, 3))
    server.tick(server.settings.heartbeat_ticks)
    assert {request.leader_commit for request in server.take(AppendEntries)} == {index}


def test_a_learned_commit_reaches_idle_followers_soon() -> None:
    """§5.3: a heartbeat is enough to commit at the followers; nothing else need be proposed."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1).propose(b"x")
    cluster.settle()
    cluster.tick(cluster[1].settings.heartbeat_ticks)
    assert all(server.machine.commands == [b"x"] for server in cluster.alive())


def test_the_leader_retries_until_every_follower_has_everything() -> None:
    """§5.3, §5.5: "the leader retries AppendEntries RPCs indefinitely (even after it has responded to the client)"."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.isolate(3)
    for number in range(5):
        cluster[1].propose(b"%d" % number)
        cluster.tick(20)
    assert cluster[1].machine.commands == [b"0", b"1", b"2", b"3", b"4"]
    cluster.heal()
    cluster.tick(10)
    assert cluster[3].machine.commands == cluster[1].machine.commands


@pytest.mark.parametrize("lost", range(6))
def test_any_single_lost_message_is_made_up_for(lost: int) -> None:
    """§5.5: "If a … crashes, then future RequestVote and AppendEntries RPCs sent to it will fail. Raft handles these
    failures by retrying indefinitely", whichever message it was."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster[1].propose(b"x")
    for _ in range(lost):
        if cluster.in_flight:
            cluster.deliver()
    if cluster.in_flight:
        cluster.drop()
    cluster.tick(20)
    assert all(server.machine.commands == [b"x"] for server in cluster.alive())


def test_a_leader_never_overwrites_or_deletes_its_own_entries() -> None:
    """Figure 3, Leader Append-Only: whatever comes in, the log of a leader only grows."""
    server = leader_with_log([1, 1, 2], term=2)
    before = server.durable_entries()
    server.step(AppendEntriesReply(3, 2, 1, False, 0, 4, 1, 1, 0))
    server.step(AppendEntriesReply(3, 3, 1, False, 0, 0, 0, 0, 0))
    server.propose(b"x")
    server.accept_appends((2, 3))
    assert server.durable_entries()[: len(before)] == before


def test_two_leaders_of_one_term_would_be_our_own_bug() -> None:
    """Figure 3, Election Safety: an AppendEntries of its own term at a leader comes from a broken peer: it changes
    nothing."""
    server = leader_with_log([1], term=1)
    before = server.durable_entries()
    try:
        server.step(append(server.term, 2, 1, (0, 0), [command(1, server.term)]))
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 - which one is the core's choice; that it is loud is the point
        assert type(error).__name__ in {"InvariantViolation", "PeerProtocolError"}  # noqa: PT017
    assert server.log.entries(1, 2, 1 << 20) == before[:2]


def test_writes_go_to_the_leader() -> None:
    """§5.1: "The leader handles all client requests"; a follower says who that is."""
    cluster = Cluster((1, 2, 3))
    with pytest.raises(NoLeader):
        cluster[2].propose(b"x")
    cluster.elect(1)
    with pytest.raises(NotLeader) as refused:
        cluster[2].propose(b"x")
    assert refused.value.leader_node_id == "node1"
    assert refused.value.leader_address == "host1:2221"


# ---- the follower's side


def test_entries_are_acknowledged_only_once_durable() -> None:
    """Figure 2: the log is persistent state, "updated on stable storage before responding to RPCs"."""
    server = alone(term=1)
    server.is_disk_held = True
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    assert server.take(AppendEntriesReply) == []
    server.sync()
    assert server.take_one(AppendEntriesReply).match_index == 1


def test_a_repeated_append_is_not_acknowledged_before_the_first_is_durable() -> None:
    """Figure 2, when the second request finds the entries in memory but not on disk yet."""
    server = alone(term=1)
    server.is_disk_held = True
    for _ in range(2):
        server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    assert not any(reply.match_index for reply in server.take(AppendEntriesReply))
    server.sync()
    assert [reply.match_index for reply in server.take(AppendEntriesReply)][-1] == 1


def test_a_follower_without_the_preceding_entry_refuses() -> None:
    """Figure 2, AppendEntries 2: "Reply false if log doesn't contain an entry at prevLogIndex"."""
    server = alone(log=[1, 1], term=2)
    server.step(append(2, 2, 1, (5, 2), [command(6, 2)]))
    reply = server.take_one(AppendEntriesReply)
    assert (reply.success, reply.prev_log_index) == (False, 5)
    assert server.log_terms() == [1, 1]


def test_a_follower_with_another_preceding_entry_refuses() -> None:
    """Figure 2, AppendEntries 2: "… whose term matches prevLogTerm"."""
    server = alone(log=[1, 1, 1], term=3)
    server.step(append(3, 2, 1, (3, 2), [command(4, 3)]))
    assert not server.take_one(AppendEntriesReply).success
    assert server.log_terms() == [1, 1, 1], "the preceding entry is not its to delete yet"


def test_a_refused_heartbeat_checks_the_log_too() -> None:
    """§5.3: the consistency check is part of every AppendEntries, with entries or without."""
    server = alone(log=[1], term=2)
    server.step(append(2, 2, 1, (4, 2), commit=4))
    assert not server.take_one(AppendEntriesReply).success
    assert server.commit_index == 0


def test_a_conflicting_entry_and_all_after_it_are_deleted() -> None:
    """Figure 2, AppendEntries 3: "delete the existing entry and all that follow it"."""
    server = alone(log=[1, 2, 2, 2, 2], term=3)
    server.step(append(3, 2, 1, (2, 2), [command(3, 3)]))
    assert server.take_one(AppendEntriesReply).match_index == 3
    assert server.log_terms() == [1, 2, 3]


def test_only_what_is_missing_is_appended() -> None:
    """Figure 2, AppendEntries 4: "Append any new entries not already in the log"."""
    server = alone(log=[1, 1, 1], term=1)
    server.handed_out.clear()
    server.step(append(1, 2, 1, (1, 1), [command(index, 1) for index in range(2, 6)]))
    written = [entry.index for effects in server.handed_out for entry in effects.entries]
    assert written == [4, 5]
    assert server.log_terms() == [1] * 5


def test_an_old_append_that_matches_deletes_nothing() -> None:
    """Figure 2, AppendEntries 3 says "conflicts": a delayed shorter message must not cut the log."""
    server = alone(log=[1, 1, 1, 1], term=1)
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    assert server.log_terms() == [1, 1, 1, 1]
    server.step(append(1, 2, 1, (2, 1)))
    assert server.log_terms() == [1, 1, 1, 1]
    assert [reply.match_index for reply in server.take(AppendEntriesReply)] == [1, 2], "only what it verified"


def test_the_commit_index_is_bounded_by_what_the_message_verified() -> None:
    """Figure 2, AppendEntries 5: "commitIndex = min(leaderCommit, index of last new entry)"."""
    server = alone(log=[1, 1, 1, 1], term=2)
    server.step(append(2, 2, 1, (1, 1), [command(2, 1)], commit=9))
    assert server.commit_index == 2


def test_the_commit_index_follows_the_leaders() -> None:
    """Figure 2, AppendEntries 5, the other side of the minimum."""
    server = alone(log=[1, 1, 1, 1], term=1)
    server.step(append(1, 2, 1, (4, 1), commit=3))
    assert server.commit_index == 3
    assert [entry.index for entry in server.machine.history] == [1, 2, 3]


def test_a_lower_leader_commit_does_not_take_anything_back() -> None:
    """Figure 2, AppendEntries 5: "If leaderCommit > commitIndex"; a new leader starts with a lower one."""
    server = alone(log=[1, 1, 1], term=1)
    server.step(append(1, 2, 1, (3, 1), commit=3))
    server.step(append(2, 3, 1, (3, 1), commit=1))
    assert server.commit_index == 3


def test_entries_are_applied_in_order_and_once() -> None:
    """Figure 2, all servers: "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied]"."""
    server = alone(term=1)
    for last in (2, 2, 5, 3):
        server.step(append(1, 2, 1, (0, 0), [command(index, 1) for index in range(1, last + 1)], commit=last))
    assert [entry.index for entry in server.machine.history] == [1, 2, 3, 4, 5]


def test_repeated_requests_have_no_effect() -> None:
    """§5.5: "Raft RPCs are idempotent, so this causes no harm"."""
    server = alone(log=[1, 1], term=1)
    request = append(1, 2, 1, (2, 1), [command(3, 1), command(4, 1)], commit=3)
    server.step(request)
    server.handed_out.clear()
    server.take(AppendEntriesReply)
    for _ in range(3):
        server.step(request)
    assert not any(effects.entries or effects.committed or effects.hard_state for effects in server.handed_out)
    assert {reply.match_index for reply in server.take(AppendEntriesReply)} == {4}


def test_a_crashed_follower_keeps_what_it_acknowledged() -> None:
    """§5.5 and figure 2: the acknowledged part of the log survives; the unsynced part may go."""
    server = alone(term=1)
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    server.is_disk_held = True
    server.step(append(1, 2, 1, (1, 1), [command(2, 1)]))
    assert [reply.match_index for reply in server.take(AppendEntriesReply)] == [1]
    server.crash()
    server.is_disk_held = False
    server.restart()
    assert server.log_terms() == [1]
    server.step(append(1, 2, 1, (2, 1), [command(3, 1)]))
    assert not server.take_one(AppendEntriesReply).success

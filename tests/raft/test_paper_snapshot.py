"""Snapshots: Raft §7 and figure 13, a claim a test. Chunks travel outside the core, which decides whether they
count."""

from __future__ import annotations

import pytest

from raftkv.raft.messages import AppendEntries, AppendEntriesReply, InstallSnapshot, InstallSnapshotReply, PreVote
from raftkv.types import Entry, Role, SnapshotMetadata
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, alone
from tests.raft.story import leader_with_log
from tests.raft.words import (
    accepted,
    append,
    command,
    configuration,
    configuration_entry,
    entries_of_terms,
    vote_request,
)

VOTERS = configuration((1, 2, 3))


def history(last_index: int, term: int = 1) -> list[Entry]:
    return entries_of_terms([term] * last_index)


def install(server: Server, last_index: int, last_term: int, term: int, entries: list[Entry] | None = None) -> None:
    snapshot = SnapshotMetadata(last_index, last_term, VOTERS)
    server.stage(snapshot, entries or history(last_index, last_term))
    server.step(InstallSnapshot(term, 2, server.member_id, snapshot))


# ---- the leader's side


def compacted_leader(last_index: int = 20) -> Server:
    """A leader that cut its log up to `last_index` while server 3 was away."""
    leader = leader_with_log([], term=1)
    while leader.status.last_index < last_index:
        leader.propose(b"x")
        leader.accept_appends((2,))
    leader.outbox.clear()
    leader.compact()
    assert leader.log.base.last_index == last_index
    return leader


def test_a_leader_without_the_needed_entry_sends_a_snapshot() -> None:
    """§7: "when the leader has already discarded the next log entry that it needs to send to a follower"."""
    leader = compacted_leader()
    leader.step(AppendEntriesReply(leader.term, 3, 1, False, 0, 20, 0, 0, 0))
    leader.tick(leader.settings.heartbeat_ticks)
    assert leader.snapshots_to_send == [3]


def test_one_snapshot_at_a_time_and_no_entries_meanwhile() -> None:
    """§7: the follower could not take entries before the snapshot is in place."""
    leader = compacted_leader()
    leader.step(AppendEntriesReply(leader.term, 3, 1, False, 0, 20, 0, 0, 0))
    leader.tick(leader.settings.heartbeat_ticks)
    leader.outbox.clear()
    leader.propose(b"y")
    for _ in range(10):
        leader.accept_appends((2,))
        leader.tick()
    assert leader.snapshots_to_send == [3]
    assert not any(request.entries for request in leader.take(AppendEntries) if request.recipient == 3)


def test_replication_goes_on_from_the_snapshot() -> None:
    """§7: after the snapshot the follower gets what comes behind it."""
    leader = compacted_leader()
    leader.step(AppendEntriesReply(leader.term, 3, 1, False, 0, 20, 0, 0, 0))
    leader.tick(leader.settings.heartbeat_ticks)
    leader.outbox.clear()
    leader.snapshot_sent(3, ok=True)
    leader.step(InstallSnapshotReply(leader.term, 3, 1, 20, 0))
    assert leader.status.progress[3].match_index == 20
    leader.propose(b"y")
    request = leader.take_last(AppendEntries, 3)
    assert (request.prev_log_index, len(request.entries)) == (20, 1)


def test_a_failed_snapshot_is_sent_again() -> None:
    """§5.5 for snapshots: retried until it works."""
    leader = compacted_leader()
    leader.step(AppendEntriesReply(leader.term, 3, 1, False, 0, 20, 0, 0, 0))
    leader.tick(leader.settings.heartbeat_ticks)
    assert leader.snapshots_to_send == [3]
    leader.snapshots_to_send.clear()
    leader.snapshot_sent(3, ok=False)
    for _ in range(4 * leader.settings.heartbeat_ticks):
        leader.accept_appends((2,))
        for request in leader.take(AppendEntries):
            if request.recipient == 3 and request.prev_log_index:
                leader.step(AppendEntriesReply(leader.term, 3, 1, False, 0, request.prev_log_index, 0, 0, 0))
        leader.tick()
    assert leader.snapshots_to_send
    assert set(leader.snapshots_to_send) == {3}


def test_a_snapshot_that_arrived_but_whose_reply_was_lost_does_not_block_the_follower() -> None:
    """§5.5: `snapshot_sent(ok)` without a reply leads to a probe, not to waiting for ever."""
    cluster = straggler()
    for _ in range(300):
        if not cluster.in_flight:
            cluster.tick(settle=False)
        elif isinstance(cluster.in_flight[0].message, InstallSnapshotReply):
            cluster.drop()
            break
        else:
            cluster.deliver()
    cluster.tick(60)
    cluster[1].propose(b"later")
    cluster.tick(20)
    assert cluster[3].machine.commands == cluster[1].machine.commands


def straggler(entry_count: int = 30) -> Cluster:
    """Server 3 was away while the others wrote and cut their logs; it is connected again."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster.isolate(3)
    for number in range(entry_count):
        cluster[1].propose(b"%d" % number)
        cluster.settle()
    cluster.tick(5)
    cluster[1].compact()
    cluster[2].compact()
    cluster.heal()
    return cluster


def test_a_straggler_gets_everything_by_snapshot() -> None:
    """§7, end to end; then it takes part as any other."""
    cluster = straggler()
    cluster.tick(40)
    assert cluster[3].machine.commands == cluster[1].machine.commands
    assert cluster[3].log.base.last_index >= 30
    cluster.crash(2)
    cluster[1].propose(b"later")
    cluster.tick(10)
    assert cluster[1].machine.commands[-1] == b"later"


def test_a_new_server_is_brought_up_by_snapshot() -> None:
    """§7: "a new server joining the cluster" has none of the entries that were cut."""
    cluster = Cluster((1,), spare=(2,))
    cluster.elect(1)
    for number in range(50):
        cluster[1].propose(b"%d" % number)
    cluster[1].compact()
    cluster[1].propose_configuration((1,), (2,))
    cluster.tick(100)
    assert cluster[2].machine.commands == cluster[1].machine.commands
    assert cluster[1].status.configuration.is_voter(2)


# ---- the receiver's side (figure 13)


def test_a_snapshot_ahead_of_the_log_replaces_it() -> None:
    """Figure 13, receiver 7 and 8: "Discard the entire log"; "Reset state machine using snapshot contents"."""
    server = alone(log=[1, 1, 2], term=3)
    install(server, 10, 3, term=3)
    assert (server.log.base.last_index, server.log.base.last_term) == (10, 3)
    assert server.log.last_index == 10
    assert (server.commit_index, server.status.last_applied) == (10, 10)
    assert server.take_one(InstallSnapshotReply).match_index == 10


def test_a_conflicting_longer_log_is_discarded() -> None:
    """Figure 13, receiver 7: the uncommitted suffix of another leader goes with the log."""
    server = alone(log=[1, 1, 2, 2, 2, 2, 2, 2], term=3)
    install(server, 5, 3, term=3)
    assert server.log.last_index == 5
    assert server.status.last_term == 3
    server.step(append(3, 2, 1, (5, 3), [command(6, 3)], commit=6))
    assert [entry.index for entry in server.machine.history] == [1, 2, 3, 4, 5, 6]


def test_a_snapshot_of_a_prefix_keeps_the_entries_behind_it() -> None:
    """Figure 13, receiver 6: "If existing log entry has same index and term as snapshot's last included entry, retain
    log     entries following it and reply"."""
    server = alone(log=[1, 1, 1, 1, 1], term=1)
    install(server, 3, 1, term=1)
    assert server.log.last_index == 5
    assert server.take_one(InstallSnapshotReply).match_index >= 3
    server.step(append(1, 2, 1, (5, 1), commit=5))
    assert [entry.index for entry in server.machine.history] == [1, 2, 3, 4, 5]


def test_a_snapshot_behind_the_commit_index_changes_nothing() -> None:
    """§7 on a network that delays: an old snapshot must not take the state machine back."""
    server = alone(log=[1, 1, 1, 1, 1], term=1)
    server.step(append(1, 2, 1, (5, 1), commit=5))
    before = (server.commit_index, server.status.last_applied, server.log.base)
    install(server, 3, 1, term=1)
    assert (server.commit_index, server.status.last_applied, server.log.base) == before
    assert server.take_one(InstallSnapshotReply).match_index in (3, 5)


def test_a_snapshot_is_acknowledged_only_once_durable() -> None:
    """Figure 2 and 13: the answer claims that the state is held."""
    server = alone(term=1)
    server.is_disk_held = True
    install(server, 10, 1, term=1)
    assert server.take(InstallSnapshotReply) == []
    server.sync()
    assert server.take_one(InstallSnapshotReply).match_index == 10


def test_a_crash_in_the_middle_of_an_installation_leaves_the_old_state() -> None:
    """§7 with figure 2: before the step is durable nothing has changed; after it all has."""
    server = alone(log=[1, 1], term=1, applied_index=2)
    server.is_disk_held = True
    install(server, 10, 1, term=1)
    server.crash()
    server.is_disk_held = False
    server.restart()
    assert (server.status.last_index, server.status.last_applied) == (2, 2)
    install(server, 10, 1, term=1)
    server.crash()
    server.restart()
    assert (server.status.last_index, server.status.last_applied, server.commit_index) == (10, 10, 10)


def test_a_snapshot_restarts_the_election_timer_and_names_the_leader() -> None:
    """§7: InstallSnapshot comes from the current leader, as AppendEntries does."""
    server = alone(term=1, pre_vote=False)
    server.node.set_randomized_election_timeout(20)
    server.tick(19)
    install(server, 5, 1, term=1)
    assert server.status.leader == 2
    server.node.set_randomized_election_timeout(20)
    server.tick(19)
    assert server.role is Role.FOLLOWER


def test_a_candidate_that_receives_a_snapshot_of_its_term_follows() -> None:
    """§5.2 (b) for snapshots."""
    server = alone(term=1, pre_vote=False)
    server.campaign()
    install(server, 5, 1, term=2)
    assert server.role is Role.FOLLOWER
    assert server.status.leader == 2


def test_the_configuration_comes_with_the_snapshot() -> None:
    """§7: "the snapshot also includes the latest configuration in the log as of last included index"."""
    server = alone(1, ())
    joint = configuration((1, 4), outgoing=(2, 3))
    snapshot = SnapshotMetadata(10, 1, joint, 7)
    server.stage(snapshot, history(10))
    server.step(InstallSnapshot(1, 2, 1, snapshot))
    assert server.status.configuration == joint
    assert server.status.configuration_index == 7, "the configuration's own index, not the snapshot's"
    assert server.configurations == [joint]


def test_the_up_to_date_rule_uses_the_snapshots_last_entry() -> None:
    """§5.4.1 with §7: a log that is all snapshot still has a last index and term."""
    server = alone(term=1)
    install(server, 10, 1, term=1)
    server.tick(server.settings.election_timeout_ticks)
    server.outbox.clear()
    server.step(PreVote(2, 3, 1, 9, 1))
    server.step(vote_request(2, 3, 1, (9, 1)))
    assert not any(getattr(reply, "vote_granted", False) for reply in server.outbox)
    server.step(vote_request(3, 3, 1, (10, 1)))
    assert any(getattr(reply, "vote_granted", False) for reply in server.outbox)


def test_the_consistency_check_uses_the_snapshots_last_entry() -> None:
    """§7: the last included index and term are kept for "the AppendEntries consistency check for the first log entry"
    behind the snapshot."""
    server = alone(term=1)
    install(server, 10, 1, term=1)
    server.outbox.clear()
    request = append(1, 2, 1, (10, 1), [command(11, 1)])
    server.step(request)
    assert server.take_one(AppendEntriesReply) == accepted(request)


@pytest.mark.parametrize("prev_log_index", [0, 3, 9])
def test_an_append_that_begins_inside_the_snapshot_is_taken_from_its_end_on(prev_log_index: int) -> None:
    """§7 on a network that delays: what the snapshot covers is committed, so it matches by definition."""
    server = alone(term=1)
    install(server, 10, 1, term=1)
    server.outbox.clear()
    entries = [command(index, 1) for index in range(prev_log_index + 1, 13)]
    prev_term = 1 if prev_log_index else 0
    server.step(append(1, 2, 1, (prev_log_index, prev_term), entries, commit=12))
    reply = server.take_one(AppendEntriesReply)
    if not reply.success:
        assert reply.hint_index >= 10, "the leader must be led past the snapshot, not into it"
        server.step(append(1, 2, 1, (10, 1), [command(11, 1), command(12, 1)], commit=12))
    assert [entry.index for entry in server.machine.history] == list(range(1, 13))


def test_cutting_the_log_keeps_what_is_behind_the_cut() -> None:
    """§7: "it may delete all log entries up through the last included index", and no others."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    for number in range(10):
        cluster[1].propose(b"%d" % number)
        cluster.settle()
    cluster.tick(5)
    cluster[1].compact(5)
    assert cluster[1].status.first_index == 6
    cluster.crash(1)
    cluster.restart(1)
    assert cluster[1].status.last_index == 11
    cluster.tick(80)
    assert all(server.machine.commands == [b"%d" % number for number in range(10)] for server in cluster.alive())


def test_a_leader_that_restarts_behind_its_cut_has_its_configuration() -> None:
    """§7: the configuration entry is gone with the cut; it is kept beside the cut."""
    cluster = Cluster((1,), spare=(2, 3))
    cluster.elect(1)
    for newcomer in (2, 3):
        voters = tuple(m.member_id for m in cluster[1].status.configuration.voters)
        cluster[1].propose_configuration(voters, (newcomer,))
        cluster.tick(60)
    before = (cluster[1].status.configuration, cluster[1].status.configuration_index)
    for member_id in (1, 2, 3):
        cluster[member_id].compact()
        cluster.crash(member_id)
    cluster.lose_all()
    for member_id in (1, 2, 3):
        cluster.restart(member_id)
        assert (cluster[member_id].status.configuration, cluster[member_id].status.configuration_index) == before
    cluster.tick_until(lambda: any(server.role is Role.LEADER for server in cluster.alive()))


def test_a_configuration_behind_the_snapshot_stays_in_force_when_the_prefix_is_installed() -> None:
    """Figure 13, receiver 6 and 8: the retained entries may hold a newer configuration than the snapshot."""
    server = alone(term=1)
    newer = configuration((1, 2, 3), (4,))
    entries = [command(1, 1), command(2, 1), configuration_entry(3, 1, newer)]
    server.step(append(1, 2, 1, (0, 0), entries))
    install(server, 2, 1, term=1, entries=entries[:2])
    assert server.status.configuration == newer
    assert server.status.configuration_index == 3

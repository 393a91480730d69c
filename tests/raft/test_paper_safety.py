"""Safety: Raft §5.4 and figure 3, figure 8's scenario, §5.5's crashes, a claim a test."""

from __future__ import annotations

import pytest

from raftkv.raft.messages import AppendEntries, AppendEntriesReply, Message, RequestVote
from raftkv.types import Role
from tests.raft.checks import ClusterChecks, SafetyViolation
from tests.raft.cluster import Cluster
from tests.raft.harness import alone, leader_alone
from tests.raft.story import leader_with_log
from tests.raft.words import accepted, append, command

FIGURE_8_LOGS = {1: [1, 2], 2: [1, 2], 3: [1], 4: [1], 5: [1, 3]}
"""Figure 8 (b): S1 led term 2 and reached S2 only; S5 led term 3 and reached nobody."""


def figure_8_c() -> Cluster:
    """S1 leads term 4 and has brought the entry of term 2 to S3, a majority, but nothing of term 4 to anyone."""
    cluster = Cluster(range(1, 6), logs=FIGURE_8_LOGS, term=3, append_max_bytes=1)
    cluster.isolate(5)
    cluster[1].campaign()
    for _ in range(200):
        if cluster[3].log.last_index == 2:
            break
        waiting = [flight.message for flight in cluster.in_flight]
        if not waiting:
            cluster.tick(settle=False)
        elif carries_term_4(waiting[0]) or (waiting[0].recipient == 4 and isinstance(waiting[0], AppendEntries)):
            cluster.drop()
        else:
            cluster.deliver()
    assert cluster[1].role is Role.LEADER
    assert cluster[3].log_terms() == [1, 2]
    return cluster


def carries_term_4(message: Message) -> bool:
    return isinstance(message, AppendEntries) and any(entry.term >= 4 for entry in message.entries)


def test_figure_8_an_old_entry_on_a_majority_is_not_committed() -> None:
    """§5.4.2, figure 8 (c): "the log entry from term 2 has been replicated on a majority …, but it is not
    committed"."""
    cluster = figure_8_c()
    cluster.deliver_only(AppendEntriesReply)
    assert cluster[1].status.progress[2].match_index == 2
    assert cluster[1].status.progress[3].match_index == 2
    assert cluster[1].commit_index == 0


def test_figure_8_the_old_entry_may_still_be_overwritten() -> None:
    """§5.4.2, figure 8 (d): S5 wins with votes of S2, S3, S4 and overwrites the entry of term 2 everywhere."""
    cluster = figure_8_c()
    cluster.lose_all()
    cluster.heal()
    cluster.crash(1)
    cluster.lose_all()
    cluster.tick(30, settle=False)
    cluster.lose_all()
    for _ in range(3):
        cluster[5].campaign()
        cluster.settle()
    assert cluster[5].role is Role.LEADER
    cluster.restart(1)
    cluster.tick(60)
    assert all(server.log_terms()[:2] == [1, 3] for server in cluster.alive())


def test_figure_8_a_newer_entry_on_a_majority_protects_the_old_one() -> None:
    """§5.4.2, figure 8 (e): once an entry of term 4 is on a majority, all before it is committed and S5 cannot win."""
    cluster = figure_8_c()
    cluster.partition((1, 2, 3), (4, 5))
    cluster.tick(20)
    assert cluster[1].commit_index == 3
    assert cluster[1].log_terms() == [1, 2, 4]
    cluster.crash(1)
    cluster.heal()
    for _ in range(6):
        cluster.tick(20, settle=False)
        cluster.lose_all()
        cluster[5].campaign()
        cluster.settle()
        assert cluster[5].role is not Role.LEADER
    cluster.tick_until(lambda: any(server.role is Role.LEADER for server in cluster.alive()))
    cluster.tick(40)
    assert cluster[5].log_terms()[:3] == [1, 2, 4]


def test_only_entries_of_the_leaders_own_term_are_committed_by_counting() -> None:
    """§5.4.2: "Raft never commits log entries from previous terms by counting replicas"."""
    server = leader_alone(log=[1, 2, 2], term=4, voters=range(1, 6))
    for follower in (2, 3, 4, 5):
        server.step(AppendEntriesReply(5, follower, 1, True, 3, 3, 0, 0, 0))
    assert server.commit_index == 0
    for follower in (2, 3):
        server.step(AppendEntriesReply(5, follower, 1, True, 4, 3, 0, 0, 0))
    assert server.commit_index == 4


@pytest.mark.parametrize(
    ("match_indexes", "expected"),
    [((3, 3, 0, 0), 3), ((3, 2, 2, 0), 2), ((4, 4, 4, 4), 4), ((4, 0, 0, 0), 0), ((2, 2, 2, 2), 2), ((4, 3, 2, 1), 3)],
)
def test_the_commit_index_is_what_a_majority_matches(match_indexes: tuple[int, ...], expected: int) -> None:
    """Figure 2, leaders: "if there exists an N such that N > commitIndex, a majority of matchIndex[i] ≥ N"."""
    server = leader_alone(voters=range(1, 6))
    for _ in range(3):
        server.propose(b"x")
    assert server.status.last_index == 4
    for follower, match_index in enumerate(match_indexes, start=2):
        server.step(AppendEntriesReply(1, follower, 1, True, match_index, 0, 0, 0, 0))
    assert server.commit_index == expected


def test_a_committed_entry_is_in_the_log_of_every_later_leader() -> None:
    """Figure 3, Leader Completeness: of five servers the two without the entry cannot win."""
    cluster = Cluster(range(1, 6))
    cluster.elect(1)
    cluster.isolate(4, 5)
    cluster[1].propose(b"x")
    cluster.settle()
    assert cluster[1].machine.commands == [b"x"]
    cluster.crash(1)
    cluster.heal()
    for server in cluster.alive():
        server.node.set_randomized_election_timeout(1000)
    cluster.tick(17)
    for loser in (4, 5):
        cluster[loser].campaign()
        cluster.settle()
        assert cluster[loser].role is not Role.LEADER
    cluster[2].campaign()
    cluster.settle()
    assert cluster[2].role is Role.LEADER
    cluster.tick(10)
    assert all(server.machine.commands == [b"x"] for server in cluster.alive())


def test_uncommitted_entries_of_a_dead_leader_may_be_lost_and_nobody_applied_them() -> None:
    """§5.3, §5.4: the entry that reached only the old leader is overwritten when it returns."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster.isolate(1)
    cluster[1].propose(b"lost")
    cluster.tick(100)
    cluster.leader().propose(b"kept")
    cluster.settle()
    cluster.heal()
    cluster.tick(60)
    assert all(server.machine.commands == [b"kept"] for server in cluster.alive())


def test_the_cluster_works_while_a_majority_does() -> None:
    """§2, §5.5: two of five crash, whichever they are, and writes go on."""
    cluster = Cluster(range(1, 6))
    cluster.elect(1)
    cluster.crash(4)
    cluster.crash(5)
    cluster[1].propose(b"x")
    cluster.settle()
    assert cluster[1].machine.commands == [b"x"]


def test_without_a_majority_nothing_commits() -> None:
    """§2: safety before availability."""
    cluster = Cluster(range(1, 6))
    cluster.elect(1)
    for member_id in (3, 4, 5):
        cluster.crash(member_id)
    cluster[1].propose(b"x")
    cluster.tick(10)
    assert cluster[1].machine.commands == []


def test_all_servers_crash_and_nothing_committed_is_lost() -> None:
    """§5.5, figure 2: the persistent state of a majority is enough."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    for number in range(5):
        cluster[1].propose(b"%d" % number)
        cluster.settle()
    before = list(cluster[1].machine.commands)
    assert len(before) == 5
    for member_id in (1, 2, 3):
        cluster.crash(member_id)
    cluster.lose_all()
    for member_id in (1, 2, 3):
        cluster.restart(member_id)
    cluster.tick_until(lambda: all(server.machine.commands == before for server in cluster.alive()))


def test_a_restarted_server_resumes_at_what_its_state_machine_holds() -> None:
    """Figure 2: commitIndex and lastApplied are volatile, but a durable state machine must not be applied to twice."""
    server = alone(log=[1, 1, 1], term=1)
    server.step(append(1, 2, 1, (3, 1), commit=2))
    server.machine.flush()
    server.step(append(1, 2, 1, (3, 1), commit=3))
    server.crash()
    server.restart()
    assert (server.commit_index, server.status.last_applied) == (2, 2)
    server.step(append(1, 2, 1, (3, 1), commit=3))
    assert [entry.index for entry in server.machine.history] == [1, 2, 3]


def test_a_leader_that_crashes_before_its_sync_does_not_lose_what_it_acknowledged() -> None:
    """Thesis §10.2.1: the followers' copies alone committed the entry; the leader comes back without it and catches
    up."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster[1].is_disk_held = True
    index = cluster[1].propose(b"x")
    cluster.settle()
    assert cluster[1].commit_index == index
    cluster.crash(1)
    cluster[1].is_disk_held = False
    cluster.restart(1)
    assert cluster[1].log.last_index == index - 1
    cluster.tick_until(lambda: all(server.machine.commands == [b"x"] for server in cluster.alive()))


def test_a_slow_disk_report_for_overwritten_entries_is_not_taken_for_the_new_ones() -> None:
    """Tickets, not indexes: entries 1 to 3 of term 1 are written, replaced by others of term 2, and only then does
    the disk report the first write. The follower must not acknowledge the replacement yet (the ABA problem)."""
    server = alone(voters=(1, 2, 3), term=1)
    server.is_disk_held = True
    server.step(append(1, 2, 1, (0, 0), [command(index, 1) for index in (1, 2, 3)]))
    server.step(append(2, 3, 1, (0, 0), [command(index, 2) for index in (1, 2, 3)], commit=3))
    server.sync(1)
    assert server.log_terms() == [1, 1, 1]
    assert server.machine.history == [], "committed, but what is durable here is something else"
    assert not any(reply.term == 2 and reply.match_index for reply in server.take(AppendEntriesReply))
    server.sync()
    assert server.take_last(AppendEntriesReply, 3).match_index == 3
    assert server.log_terms() == [2, 2, 2]


def test_a_leader_does_not_count_a_slow_disk_report_of_another_term_for_its_own_entries() -> None:
    """The same for the leader's count of itself: its follower days' write is reported after it was elected."""
    server = alone(voters=(1, 2, 3), term=1)
    server.step(append(1, 2, 1, (0, 0), [command(1, 1)]))
    server.is_disk_held = True
    server.step(append(1, 2, 1, (1, 1), [command(2, 1)]))
    server.win_election_slowly((1, 2, 3))
    request = server.take_last(AppendEntries, 2)
    server.sync(max(0, len(server.unsynced) - 1))
    server.step(accepted(request))
    assert server.commit_index <= server.log.last_index
    server.sync()
    assert server.commit_index == request.prev_log_index + len(request.entries)


def test_the_log_a_voter_compares_may_be_longer_than_its_disk() -> None:
    """§5.4.1: voting by the log in memory is safe, because it only refuses more."""
    cluster = Cluster((1, 2, 3))
    cluster.elect(1)
    cluster.tick(5)
    cluster[2].is_disk_held = True
    cluster[1].propose(b"x")
    cluster.deliver_only(AppendEntries, to=2)
    cluster.lose_all()
    cluster.crash(1)
    cluster.tick(40, settle=False)
    cluster.lose_all()
    cluster[3].campaign()
    cluster.settle()
    assert cluster[3].role is not Role.LEADER
    assert not any(isinstance(flight.message, RequestVote) for flight in cluster.in_flight)


def test_match_index_says_what_the_message_verified_not_how_long_the_log_is() -> None:
    """§5.3: a follower may hold a longer, different suffix; claiming it would commit entries nobody has."""
    follower = alone(log=[1, 1, 1, 1, 1], term=2)
    follower.step(append(2, 2, 1, (2, 1)))
    assert follower.take_one(AppendEntriesReply).match_index == 2


def test_an_acknowledgement_beyond_the_leaders_log_commits_nothing() -> None:
    """Figure 3: only a broken peer says so; nothing that does not exist may be committed."""
    leader = leader_with_log([], term=1)
    before = leader.commit_index
    try:
        leader.step(AppendEntriesReply(leader.term, 2, 1, True, 99, 1, 0, 0, 0))
    except Exception as error:  # noqa: BLE001 - refusing loudly is as good
        assert type(error).__name__ == "InvariantViolation"  # noqa: PT017
    assert leader.commit_index == before


# ---- the checks themselves can fail


def test_the_cluster_checks_notice_two_leaders_of_a_term() -> None:
    """A check that cannot fail checks nothing: Election Safety."""
    checks = ClusterChecks()
    checks.after_step(leader_alone(1))
    with pytest.raises(SafetyViolation, match="two leaders"):
        checks.after_step(leader_alone(2))


def test_the_cluster_checks_notice_logs_that_do_not_match() -> None:
    """Log Matching: the same index and term with other data."""
    checks = ClusterChecks()
    for member_id, data in ((1, b"a"), (2, b"b")):
        server = alone(member_id)
        server.step(append(1, 3, member_id, (0, 0), [command(1, 1, data)]))
        if member_id == 1:
            checks.after_step(server)
        else:
            with pytest.raises(SafetyViolation, match="elsewhere"):
                checks.after_step(server)


def test_the_cluster_checks_notice_different_states() -> None:
    """State Machine Safety: another entry applied at the same index."""
    checks = ClusterChecks()
    for member_id, term in ((1, 1), (2, 2)):
        server = alone(member_id)
        server.step(append(term, 3, member_id, (0, 0), [command(1, term)], commit=1))
        if member_id == 1:
            checks.after_step(server)
        else:
            with pytest.raises(SafetyViolation, match="elsewhere it was 1"):
                checks.after_step(server)


def test_the_cluster_checks_notice_an_early_vote() -> None:
    """Figure 2: an answer that leaves before its cause is durable."""
    checks = ClusterChecks()
    server = alone()
    server.is_disk_held = True
    request = RequestVote(1, 2, 1, 0, 0)
    server.step(request)
    held = server.unsynced[0].messages_after_persist[0]
    with pytest.raises(SafetyViolation, match="durable"):
        checks.sent(server, held)

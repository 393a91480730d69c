"""Bringing logs together: Raft §5.3 (figure 7's six followers, fast backtracking), Thesis §10.2.2 pipelining."""

from __future__ import annotations

import pytest

from raftkv.errors import Overloaded
from raftkv.raft.messages import AppendEntries, AppendEntriesReply
from raftkv.types import Role
from tests.raft.cluster import Cluster
from tests.raft.harness import Server, alone, leader_alone
from tests.raft.story import leader_with_log, replicate
from tests.raft.words import accepted, append

# ---- bringing logs together


LEADER_OF_FIGURE_7 = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
FOLLOWERS_OF_FIGURE_7 = {
    "a": [1, 1, 1, 4, 4, 5, 5, 6, 6],
    "b": [1, 1, 1, 4],
    "c": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    "d": [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    "e": [1, 1, 1, 4, 4, 4, 4],
    "f": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
}


def figure_7(follower: str) -> tuple[Server, Server]:
    leader = leader_alone(log=LEADER_OF_FIGURE_7, term=7)
    return leader, alone(2, log=FOLLOWERS_OF_FIGURE_7[follower], term=7)


@pytest.mark.parametrize("follower_name", FOLLOWERS_OF_FIGURE_7)
def test_figure_7_the_leaders_log_replaces_whatever_a_follower_has(follower_name: str) -> None:
    """§5.3: "In Raft, the leader handles inconsistencies by forcing the followers' logs to duplicate its own"."""
    leader, follower = figure_7(follower_name)
    assert leader.term == 8
    replicate(leader, follower)
    assert follower.log_terms() == [*LEADER_OF_FIGURE_7, 8]
    assert follower.durable_entries() == leader.durable_entries()
    assert leader.status.progress[2].match_index == 11


@pytest.mark.parametrize("follower_name", FOLLOWERS_OF_FIGURE_7)
def test_figure_7_each_refusal_skips_a_whole_term(follower_name: str) -> None:
    """§5.3, end: "one AppendEntries RPC will be required for each term with conflicting entries, rather than one RPC
    per entry"."""
    leader, follower = figure_7(follower_name)
    refusals = replicate(leader, follower)
    last_match = next(
        (i for i, (a, b) in enumerate(zip(LEADER_OF_FIGURE_7, follower_terms(follower_name), strict=False)) if a != b),
        min(len(LEADER_OF_FIGURE_7), len(follower_terms(follower_name))),
    )
    conflicting = set(follower_terms(follower_name)[last_match:]) | set(LEADER_OF_FIGURE_7[last_match:])
    assert refusals <= max(1, len(conflicting))


def follower_terms(name: str) -> list[int]:
    return FOLLOWERS_OF_FIGURE_7[name]


def test_backtracking_over_a_long_divergence_takes_two_refusals_not_thousands() -> None:
    """§5.3, end, with sizes of a real outage: 3000 entries of one lost term against 3000 of another."""
    leader = leader_alone(log=[1] * 10 + [3] * 3000, term=3)
    follower = alone(2, log=[1] * 10 + [2] * 3000, term=3)
    assert replicate(leader, follower) <= 2
    assert follower.durable_entries() == leader.durable_entries()


def test_a_refusal_makes_the_leader_try_earlier() -> None:
    """§5.3: "After a rejection, the leader decrements nextIndex and retries the AppendEntries RPC"."""
    leader = leader_alone(log=[1, 1, 1, 2], term=3)
    request = leader.take_last(AppendEntries, 2)
    leader.step(AppendEntriesReply(leader.term, 2, 1, False, 0, request.prev_log_index, 2, 1, 0))
    retry = leader.take_last(AppendEntries, 2)
    assert (retry.prev_log_index, retry.prev_log_term) == (2, 1)


def test_an_old_refusal_does_not_push_the_leader_back() -> None:
    """§5.3 on a network that reorders: a refusal of a question that has been settled since says nothing new."""
    leader = leader_with_log([1, 1, 1], term=1)
    before = leader.status.progress[2]
    leader.step(AppendEntriesReply(leader.term, 2, 1, False, 0, 1, 0, 0, 0))
    after = leader.status.progress[2]
    assert (after.match_index, after.next_index) == (before.match_index, before.next_index)


def test_an_old_acknowledgement_does_not_take_anything_back() -> None:
    """Figure 2: matchIndex "increases monotonically"."""
    leader = leader_with_log([1, 1, 1], term=1)
    leader.step(AppendEntriesReply(leader.term, 2, 1, True, 1, 0, 0, 0, 0))
    assert leader.status.progress[2].match_index == 4


def test_the_refusal_names_the_last_place_where_the_logs_may_agree() -> None:
    """§5.3, end: the hint is the largest index at or below the question whose term is at or below the question's."""
    server = alone(log=[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3], term=7)
    server.step(append(8, 2, 1, (10, 6)))
    first = server.take_one(AppendEntriesReply)
    assert (first.hint_index, first.hint_term) == (10, 3)
    server.step(append(8, 2, 1, (9, 2)))
    second = server.take_one(AppendEntriesReply)
    assert (second.hint_index, second.hint_term) == (6, 2)


def test_logs_agree_after_leaders_of_several_terms_fought() -> None:
    """§5.3, Log Matching, with real servers: three leaders in turn, each cut off with entries nobody else has."""
    cluster = Cluster(range(1, 6))
    for leader_id in (1, 2, 3):
        cluster.heal()
        cluster.tick(60)
        for server in cluster.alive():
            if server.role is Role.LEADER:
                server.transfer_leadership(leader_id)
                cluster.settle()
        if cluster[leader_id].role is not Role.LEADER:
            cluster.elect(leader_id)
        cluster.isolate(leader_id)
        for number in range(3):
            cluster[leader_id].propose(b"%d of %d" % (number, leader_id))
        cluster.tick(80)
    cluster.heal()
    cluster.tick(100)
    logs = [server.durable_entries() for server in cluster.alive()]
    assert all(log == logs[0] for log in logs)


# ---- pipelining and its limits (Thesis §10.2.2, and the design's windows)


def test_appends_are_pipelined() -> None:
    """Thesis §10.2.2: the next entries go out before the last ones are acknowledged."""
    leader = leader_with_log([], term=1)
    for number in range(3):
        leader.propose(b"%d" % number)
    requests = [request for request in leader.take(AppendEntries) if request.recipient == 2]
    assert [[entry.data for entry in request.entries] for request in requests] == [[b"0"], [b"1"], [b"2"]]
    assert [request.prev_log_index for request in requests] == [1, 2, 3]


def test_the_window_bounds_what_is_on_its_way() -> None:
    """Design: at most `inflight_max_count` appends a follower; an acknowledgement opens the window again."""
    leader = leader_with_log([], term=1, inflight_max_count=4)
    for number in range(10):
        leader.propose(b"%d" % number)
    requests = [request for request in leader.take(AppendEntries) if request.recipient == 2 and request.entries]
    assert len(requests) == 4
    leader.step(accepted(requests[0]))
    more = [request for request in leader.take(AppendEntries) if request.recipient == 2 and request.entries]
    assert more
    assert more[0].prev_log_index == 5


def test_the_window_bounds_the_bytes_on_their_way() -> None:
    """Design: at most `inflight_max_bytes`, or a slow follower would fill the leader's memory."""
    leader = leader_with_log([], term=1, inflight_max_bytes=3000, append_max_bytes=1000)
    for _ in range(10):
        leader.propose(bytes(1000))
    requests = [request for request in leader.take(AppendEntries) if request.recipient == 2]
    assert sum(len(entry.data) for request in requests for entry in request.entries) <= 4000


def test_one_append_is_bounded_in_bytes() -> None:
    """Design: `append_max_bytes`; one entry alone may exceed it."""
    leader = leader_alone(log=[1] * 50, term=1, append_max_bytes=20)
    follower = alone(2, term=1)
    replicate(leader, follower)
    assert follower.durable_entries() == leader.durable_entries()


def test_uncommitted_bytes_are_bounded() -> None:
    """Design: a leader that cannot commit refuses proposals instead of filling its memory; commits make room again."""
    leader = leader_with_log([], term=1, uncommitted_max_bytes=3000)
    leader.propose(bytes(5000))
    last_index = leader.status.last_index
    with pytest.raises(Overloaded):
        leader.propose(b"x")
    assert leader.status.last_index == last_index, "a refused proposal is nowhere"
    leader.accept_appends((2,))
    assert leader.status.uncommitted_bytes == 0
    leader.propose(b"x")


def test_a_lost_append_in_the_middle_of_the_pipeline_is_sent_again() -> None:
    """§5.5: what follows a gap is refused, and the leader starts over from the gap."""
    cluster = Cluster((1, 2))
    cluster.elect(1)
    cluster.tick(10)
    for number in range(4):
        cluster[1].propose(b"%d" % number)
    cluster.drop(1)
    cluster.settle()
    cluster.tick(10)
    assert cluster[2].machine.commands == [b"0", b"1", b"2", b"3"]


def test_reordered_appends_end_in_the_same_log() -> None:
    """§5.5: each message is verified on its own."""
    cluster = Cluster((1, 2))
    cluster.elect(1)
    cluster.tick(10)
    for number in range(6):
        cluster[1].propose(b"%d" % number)
    while cluster.in_flight:
        cluster.deliver(len(cluster.in_flight) - 1)
    cluster.tick(10)
    assert cluster[2].machine.commands == [b"%d" % number for number in range(6)]


def test_followers_far_behind_get_old_entries_from_disk() -> None:
    """Design: the core keeps a bounded tail in memory; older entries come from the log."""
    cluster = Cluster((1, 2, 3), tail_max_bytes=2000)
    cluster.elect(1)
    cluster.isolate(3)
    for number in range(200):
        cluster[1].propose(b"%100d" % number)
        cluster.settle()
        if number % 20 == 0:
            cluster.tick(3)
    cluster.heal()
    cluster.tick(20)
    assert cluster[3].machine.commands == cluster[1].machine.commands
    assert len(cluster[3].machine.commands) == 200

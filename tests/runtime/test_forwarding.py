"""Writes given to a follower, both sides: sent once, answered once, and never called failed when nobody knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import (
    DiskFull,
    InvalidInput,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    PeerProtocolError,
    RaftkvError,
    ShuttingDown,
    Unavailable,
)
from raftkv.kv import Compact, Delete, Put, PutResult
from raftkv.runtime import Node, wire
from raftkv.runtime.clients.codec import KeyValueCodec, command_bytes
from raftkv.runtime.clients.forwarded import ForwardedWork
from raftkv.runtime.clients.forwarding import BATCH_MAX_COUNT, Forwarding
from raftkv.runtime.clients.gathering import PASSES_MAX
from raftkv.runtime.clients.proposals import Proposals
from raftkv.types import Entry, EntryKind
from tests.runtime.nodes import Cluster, get, put, run, start_write, submit, until

LEADER, OTHER = 11, 12
TIMEOUT_S = 5.0
CODEC = KeyValueCodec()


def result(revision: int) -> PutResult:
    return PutResult(revision, revision, 1)


class Follower:
    """The follower's side, what it sends, and what its clients were told."""

    def __init__(self, **limits: int) -> None:
        self.now_s = 0.0
        self.is_connected = True
        self.sent: list[tuple[int, wire.Forward]] = []
        self.wake_count = 0
        self.told: dict[str, Any] = {}
        self.queue = Forwarding(
            CODEC,
            self._send,
            self._wake,
            lambda: self.now_s,
            first_request_id=100,
            timeout_s=TIMEOUT_S,
            pending_max_bytes=limits.pop("pending_max_bytes", 1 << 20),
            **limits,
        )

    def _send(self, recipient: int, frame: bytes) -> bool:
        if self.is_connected:
            self.sent.append((recipient, wire.decode(frame, wire.Forward)))
        return self.is_connected

    def _wake(self) -> None:
        self.wake_count += 1

    def submit(self, *keys: str, size: int = 1) -> None:
        for key in keys:
            self.queue.submit(Put(key.encode(), b"1"), size, self.done(key))

    def done(self, key: str) -> Callable[[Any], None]:
        def done(outcome: Any) -> None:
            assert key not in self.told, f"{key} was answered twice"
            self.told[key] = outcome

        return done

    def reply(
        self, request_id: int, *outcomes: Any, index: int = 1, applied_index: int = 1, sender: int = LEADER
    ) -> None:
        results = CODEC.encode_results(outcomes)
        self.queue.handle_reply(sender, wire.ForwardReply(request_id, index, results), applied_index)

    def refuse(self, request_id: int, failure: wire.Failure) -> None:
        self.queue.handle_reply(LEADER, wire.ForwardReply(request_id, 0, b"", failure), 1)

    def kinds(self) -> dict[str, type]:
        return {key: type(outcome) for key, outcome in self.told.items()}

    def keys_of(self, position: int) -> list[str]:
        return [command.key.decode() for command in CODEC.decode_batch(self.sent[position][1].batch)]


# ---- The follower's side


def test_commands_that_come_together_travel_in_one_frame_and_get_their_own_results() -> None:
    follower = Follower()
    follower.submit("a", "b")
    assert follower.wake_count == 1
    follower.queue.flush(LEADER)
    assert [(recipient, request.request_id) for recipient, request in follower.sent] == [(LEADER, 100)]
    assert follower.keys_of(0) == ["a", "b"]
    follower.reply(100, result(2), result(3))
    assert follower.told == {"a": result(2), "b": result(3)}
    assert follower.queue.pending_count == 0


def test_an_answer_is_told_when_this_node_has_applied_the_write_too() -> None:
    """Else the client's next local read here would miss its own write."""
    follower = Follower()
    follower.submit("a")
    follower.queue.flush(LEADER)
    follower.reply(100, result(2), index=9, applied_index=7)
    follower.queue.applied(8)
    assert follower.told == {}
    follower.queue.applied(9)
    assert follower.told == {"a": result(2)}


def test_what_the_leader_has_answered_is_told_in_time_even_if_this_node_lags() -> None:
    follower = Follower()
    follower.submit("a")
    follower.queue.flush(LEADER)
    follower.reply(100, result(2), index=9, applied_index=7)
    follower.now_s = TIMEOUT_S
    follower.queue.expire()
    assert follower.told == {"a": result(2)}
    follower.queue.applied(9)


def test_what_never_left_is_refused() -> None:
    follower = Follower()
    follower.is_connected = False
    follower.submit("a")
    follower.queue.flush(LEADER)
    follower.submit("b")
    follower.queue.flush(0)
    assert follower.kinds() == {"a": NoLeader, "b": NoLeader}
    assert follower.sent == []


def test_a_lost_connection_leaves_the_outcome_unknown_and_nothing_is_sent_twice() -> None:
    follower = Follower(window_count=1)
    follower.submit("a")
    follower.queue.flush(LEADER)
    follower.submit("b")
    follower.queue.unreachable(OTHER)
    assert follower.told == {}
    follower.queue.unreachable(LEADER)
    assert follower.kinds() == {"a": OutcomeUnknown}
    follower.queue.flush(LEADER)
    assert [follower.keys_of(position) for position in (0, 1)] == [["a"], ["b"]]
    follower.reply(100, result(2))  # late
    follower.reply(101, result(3))
    assert follower.kinds() == {"a": OutcomeUnknown, "b": PutResult}


def test_in_time_or_refused_or_unknown() -> None:
    follower = Follower(window_count=1)
    follower.submit("sent")
    follower.queue.flush(LEADER)
    follower.submit("waiting")
    follower.queue.flush(LEADER)
    follower.now_s = TIMEOUT_S - 0.001
    follower.queue.expire()
    assert follower.told == {}
    follower.now_s = TIMEOUT_S
    follower.queue.expire()
    assert follower.kinds() == {"sent": OutcomeUnknown, "waiting": Overloaded}


def test_closing_answers_everybody_by_what_is_known() -> None:
    follower = Follower(window_count=2)
    follower.submit("answered")
    follower.queue.flush(LEADER)
    follower.submit("sent")
    follower.queue.flush(LEADER)
    follower.submit("waiting")
    follower.reply(100, result(2), index=9, applied_index=7)
    follower.queue.close()
    follower.queue.close()
    follower.submit("later")
    assert follower.kinds() == {
        "answered": PutResult,
        "sent": OutcomeUnknown,
        "waiting": ShuttingDown,
        "later": ShuttingDown,
    }
    assert follower.queue.pending_count == 0


def test_more_than_may_wait_is_refused() -> None:
    follower = Follower(pending_max_bytes=10)
    follower.submit("a", size=6)
    follower.queue.flush(LEADER)
    follower.submit("b", size=5)
    assert follower.kinds() == {"b": Overloaded}
    follower.reply(100, result(2))
    follower.submit("c", size=10)
    follower.submit("d", size=1)
    assert follower.kinds() == {"a": PutResult, "b": Overloaded, "d": Overloaded}


def test_a_frame_is_bounded_and_so_are_frames_under_way() -> None:
    follower = Follower(window_count=2, batch_max_count=2)
    follower.submit("a", "b", "c", "d", "e")
    follower.queue.flush(LEADER)
    assert [follower.keys_of(position) for position in (0, 1)] == [["a", "b"], ["c", "d"]]
    assert len(follower.sent) == 2
    wake_count = follower.wake_count
    follower.reply(100, result(2), result(3))
    assert follower.wake_count == wake_count + 1
    follower.queue.flush(LEADER)
    assert follower.keys_of(2) == ["e"]


def test_a_node_that_comes_to_lead_takes_what_it_had_not_sent() -> None:
    follower = Follower(window_count=1)
    follower.submit("sent")
    follower.queue.flush(LEADER)
    follower.submit("a", size=7)
    follower.submit("b", size=8)
    taken = follower.queue.take_back()
    assert [(command.key, size) for command, size, _ in taken] == [(b"a", 7), (b"b", 8)]
    assert follower.queue.take_back() == []
    assert follower.queue.pending_count == 1
    for _, _, done in taken:
        done(result(2))
    assert follower.kinds() == {"a": PutResult, "b": PutResult}


REFUSALS: dict[str, tuple[wire.Failure, type[RaftkvError]]] = {
    "not the leader": (wire.Failure("NotLeader", "not the leader", False), NoLeader),
    "overloaded": (wire.Failure("Overloaded", "slow down", False), Overloaded),
    "disk full": (wire.Failure("DiskFull", "no room", False), DiskFull),
    "stopping": (wire.Failure("ShuttingDown", "stopping", False), ShuttingDown),
    "too large": (wire.Failure("InvalidInput", "too large", False), InvalidInput),
    "handing over": (wire.Failure("Unavailable", "handing over", False), Unavailable),
    "of a newer version": (wire.Failure("Quota", "over the quota", False), Unavailable),
    "unknown": (wire.Failure("OutcomeUnknown", "no majority", True), OutcomeUnknown),
    "unknown, of a newer version": (wire.Failure("Fate", "lost", True), OutcomeUnknown),
    "unknown under a wrong name": (wire.Failure("NoLeader", "lost", True), OutcomeUnknown),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_arrives_as_what_it_is_for_the_batch_and_for_one_command(case: str) -> None:
    failure, kind = REFUSALS[case]
    follower = Follower()
    follower.submit("a", "b")
    follower.queue.flush(LEADER)
    follower.refuse(100, failure)
    assert follower.kinds() == {"a": kind, "b": kind}
    follower.submit("c", "d")
    follower.queue.flush(LEADER)
    follower.reply(101, result(2), failure)
    assert (follower.kinds()["c"], follower.kinds()["d"]) == (PutResult, kind)


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "not MessagePack": b"\xc1",
    "too few": CODEC.encode_results([result(2)]),
    "too many": CODEC.encode_results([result(2)] * 3),
    "other things": wire.encode([1, 2]),
    "deep": b"\x91" * 5000,
}


@pytest.mark.parametrize("case", GARBAGE)
def test_an_answer_that_does_not_fit_leaves_the_outcome_unknown_and_blames_the_peer(case: str) -> None:
    follower = Follower()
    follower.submit("a", "b")
    follower.queue.flush(LEADER)
    with pytest.raises(PeerProtocolError):
        follower.queue.handle_reply(LEADER, wire.ForwardReply(100, 1, GARBAGE[case]), 1)
    assert follower.kinds() == {"a": OutcomeUnknown, "b": OutcomeUnknown}
    assert follower.queue.pending_count == 0


def test_nobody_answers_for_the_leader() -> None:
    follower = Follower()
    follower.submit("a")
    follower.queue.flush(LEADER)
    with pytest.raises(PeerProtocolError, match="answers what was forwarded to"):
        follower.reply(100, result(2), sender=OTHER)
    assert follower.told == {}
    follower.reply(100, result(2))
    assert follower.told == {"a": result(2)}


def test_an_answer_to_nothing_is_ignored() -> None:
    follower = Follower()
    follower.reply(7, result(2), sender=OTHER)
    follower.reply(7, sender=LEADER)


# ---- The leader's side


class Leader:
    """The leader's side: its proposals, and the answers that it sends."""

    def __init__(self, pending_max_bytes: int = 1 << 20) -> None:
        self.sender_refusal: RaftkvError | None = None
        self.refusals: dict[bytes, RaftkvError] = {}
        """By key, of single commands."""
        self.replies: list[tuple[int, wire.ForwardReply]] = []
        self.entries: list[list[Any]] = []
        self.proposals = Proposals(
            self,
            CODEC.encode_batch,
            lambda: None,
            lambda: 0.0,
            timeout_s=TIMEOUT_S,
            pending_max_bytes=pending_max_bytes,
        )
        self.work = self.work_with(batch_max_bytes=1000)

    def work_with(self, *, batch_max_bytes: int) -> ForwardedWork:
        return ForwardedWork(
            CODEC,
            self._send,
            lambda _: self.sender_refusal,
            lambda command: self.refusals.get(command.key),
            command_bytes,
            batch_max_bytes=batch_max_bytes,
        )

    def propose(self, data: bytes) -> tuple[int, int]:
        self.entries.append(CODEC.decode_batch(data))
        return len(self.entries), 1

    def _send(self, recipient: int, frame: bytes) -> bool:
        self.replies.append((recipient, wire.decode(frame, wire.ForwardReply)))
        return True

    def forward(self, sender: int, request_id: int, *keys: str) -> None:
        batch = CODEC.encode_batch([Put(key.encode(), b"1") for key in keys])
        self.work.handle(sender, wire.Forward(request_id, batch), self.proposals)

    def apply(self, index: int, first_revision: int, term: int = 1) -> None:
        results = [result(first_revision + i) for i in range(len(self.entries[index - 1]))]
        self.proposals.applied(Entry(index, term, EntryKind.COMMANDS), results)

    def outcomes(self, position: int) -> list[Any]:
        return CODEC.decode_results(self.replies[position][1].results)


def test_forwarded_commands_share_an_entry_with_all_others_and_get_their_own_results() -> None:
    leader = Leader()
    own: list[Any] = []
    leader.forward(21, 1, "a", "b")
    leader.proposals.submit(Put(b"own", b"1"), 10, own.append)
    leader.forward(22, 1, "c")
    leader.proposals.flush()
    assert [[command.key for command in entry] for entry in leader.entries] == [[b"a", b"b", b"own", b"c"]]
    leader.apply(1, first_revision=2)
    assert own == [result(4)]
    assert [(to, reply.request_id, reply.index) for to, reply in leader.replies] == [(21, 1, 1), (22, 1, 1)]
    assert leader.outcomes(0) == [result(2), result(3)]
    assert leader.outcomes(1) == [result(5)]


def test_a_forwarded_batch_that_was_spread_over_entries_is_answered_once_with_the_last_index() -> None:
    leader = Leader()
    leader.proposals._batch_max_count = 2
    leader.forward(21, 1, "a", "b", "c")
    leader.proposals.flush()
    leader.apply(1, first_revision=2)
    assert leader.replies == []
    assert any(leader.proposals.flush() for _ in range(PASSES_MAX))
    leader.apply(2, first_revision=4)
    assert [(reply.request_id, reply.index) for _, reply in leader.replies] == [(1, 2)]
    assert leader.outcomes(0) == [result(2), result(3), result(4)]


def test_each_command_of_a_batch_has_its_own_ending() -> None:
    leader = Leader(pending_max_bytes=40)
    leader.forward(21, 1, "a", "b", "c")
    leader.proposals.flush()
    leader.apply(1, first_revision=2)
    first, *_, last = leader.outcomes(0)
    assert first == result(2)
    assert (last.code, last.is_unknown) == ("Overloaded", False)


def test_an_entry_that_was_discarded_is_told_as_refused_and_one_that_hangs_as_unknown() -> None:
    leader = Leader()
    leader.forward(21, 1, "a")
    leader.proposals.flush()
    leader.apply(1, first_revision=2, term=2)
    leader.forward(21, 2, "b")
    leader.proposals.flush()
    leader.proposals.close()
    assert [(each.code, each.is_unknown) for position in (0, 1) for each in leader.outcomes(position)] == [
        ("NoLeader", False),
        ("OutcomeUnknown", True),
    ]


def test_a_batch_of_a_sender_that_is_not_served_is_refused_as_a_whole_and_undecoded() -> None:
    leader = Leader()
    leader.sender_refusal = NotLeader()
    leader.work.handle(21, wire.Forward(7, b"\xc1"), leader.proposals)
    leader.proposals.flush()
    assert leader.entries == []
    (answer,) = leader.replies
    assert answer[1].failure == wire.Failure("NotLeader", "not the leader", False)


def test_a_command_that_cannot_be_taken_is_refused_and_its_neighbours_are_not() -> None:
    leader = Leader()
    leader.refusals[b"b"] = DiskFull("no room")
    leader.forward(21, 7, "a", "b", "c")
    leader.proposals.flush()
    leader.apply(1, first_revision=2)
    assert leader.outcomes(0) == [result(2), wire.Failure("DiskFull", "no room", False), result(3)]


def test_a_batch_of_nothing_but_refused_commands_is_answered_at_once() -> None:
    leader = Leader()
    leader.refusals = {b"a": DiskFull("no room"), b"b": InvalidInput("not JSON")}
    leader.forward(21, 7, "a", "b")
    assert [each.code for each in leader.outcomes(0)] == ["DiskFull", "InvalidInput"]
    assert not leader.proposals.has_waiting


def test_a_batch_above_the_limit_is_refused_undecoded() -> None:
    leader = Leader()
    leader.work.handle(21, wire.Forward(1, b"\xc1" * 1001), leader.proposals)
    assert leader.replies[0][1].failure is not None
    assert leader.replies[0][1].failure.code == "InvalidInput"


def test_a_batch_of_more_commands_than_a_follower_sends_is_refused() -> None:
    """Tiny commands take few bytes and much time: a megabyte of them held up a leader's loop for a second."""
    leader = Leader()
    leader.work = leader.work_with(batch_max_bytes=1 << 20)
    for count in (BATCH_MAX_COUNT, BATCH_MAX_COUNT + 1):
        batch = CODEC.encode_batch([Delete(b"")] * count)
        leader.work.handle(21, wire.Forward(count, batch), leader.proposals)
        assert leader.proposals.pending_count == BATCH_MAX_COUNT
    (answer,) = leader.replies
    assert answer[1].request_id == BATCH_MAX_COUNT + 1
    assert answer[1].failure is not None
    assert answer[1].failure.code == "InvalidInput"


@pytest.mark.parametrize("batch", [b"", b"\xc1", b"\x90", b"\x91\x01", wire.encode([[9, b"k"]]), b"\x91" * 999])
def test_garbage_from_a_peer_blames_the_peer_and_proposes_nothing(batch: bytes) -> None:
    leader = Leader()
    with pytest.raises(PeerProtocolError):
        leader.work.handle(21, wire.Forward(1, batch), leader.proposals)
    assert not leader.proposals.has_waiting
    assert leader.replies == []


# ---- With real nodes


def test_writes_through_every_node_all_take_effect_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        nodes = await cluster.form("node1", "node2", "node3")
        writes = [put(nodes[i % 3], f"key{i}", str(i)) for i in range(300)]
        results = await asyncio.gather(*writes)
        assert len({each.revision for each in results}) == 300
        assert {each.version for each in results} == {1}
        await cluster.agree()

    run(tmp_path, story)


def test_a_write_whose_leader_vanishes_is_unknown_and_not_repeated(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form("node1", "node2", "node3")
        node1.replica.proposals.flush = lambda: False  # type: ignore[method-assign]  # it takes the write and no more
        answers = start_write(node2, Put(b"k", b"1"))
        await until(lambda: node1.replica.proposals.pending_count == 1, "the leader has it")
        node1.transport.set_peers({})
        await node1.transport.stop()
        await until(lambda: bool(answers), "answered")
        assert [type(answer) for answer in answers] == [OutcomeUnknown]
        await until(lambda: node2.replica.leader not in {0, node1.replica.own.member_id}, "another leader")
        assert await get(node2, "k") is None

    run(tmp_path, story)


def test_a_follower_with_larger_limits_is_refused_and_stays_connected(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader = await cluster.start("node1", max_value_bytes=1000)
        await until(lambda: leader.is_ready, "it leads itself")
        follower = await cluster.start("node2", max_value_bytes=1 << 20)
        await cluster.join("node1", "node2")
        lost = follower.transport.stats.peers[leader.replica.own.member_id].lost_count
        for size in (6_000, 1 << 20):
            with pytest.raises(InvalidInput, match="leader's limits"):
                await submit(follower, Put(b"k", b"v" * size))
        await put(follower, "k", "1")
        await submit(follower, Delete(b"k"))
        assert follower.transport.stats.peers[leader.replica.own.member_id].lost_count == lost

    run(tmp_path, story)


async def forward_as(sender: Node, leader: Node, *commands: Any) -> list[Any]:
    """What becomes of commands that `sender` forwards without having checked them."""
    outcomes: list[Any] = []
    for command in commands:
        sender.replica.forwarding.submit(command, 1, outcomes.append)
    sender.replica.forwarding.flush(leader.replica.own.member_id)
    await until(lambda: len(outcomes) == len(commands), "answered")
    return outcomes


def test_a_follower_s_checks_are_not_believed(tmp_path: Path) -> None:
    """What is in the log is there for every member: a key that is no text could be named by no client again."""

    async def story(cluster: Cluster) -> None:
        leader, follower = await cluster.form("node1", "node2")
        outcomes = await forward_as(
            follower,
            leader,
            Put(b"", b"1"),
            Put(b"\xff", b"1"),
            Put(b"good", b"1"),
            Put(b"k", b"{oops}"),
            Delete(b"\xff"),
            Compact(1 << 40),
        )
        assert sorted(type(each).__name__ for each in outcomes) == ["InvalidInput"] * 5 + ["PutResult"]
        assert await get(leader, "good") == "1"
        assert leader.replica.machine.compact_revision < leader.replica.machine.revision
        await cluster.agree()

    run(tmp_path, story)


def test_writes_of_a_server_that_is_no_member_are_refused_and_it_is_told(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        leader, removed, _ = await cluster.form("node1", "node2", "node3")
        await leader.remove("node2")
        (outcome,) = await forward_as(removed, leader, Put(b"k", b"1"))
        assert isinstance(outcome, Unavailable)
        assert "no member" in str(outcome)
        assert await get(leader, "k") is None

    run(tmp_path, story)


def test_writes_that_wait_at_a_node_that_comes_to_lead_succeed(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2, _ = await cluster.form("node1", "node2", "node3")
        node2.replica.forwarding._window_count = 0  # nothing leaves
        answers = start_write(node2, Put(b"k", b"1"))
        await node1.transfer_leadership("node2")
        await until(lambda: bool(answers), "answered")
        assert [type(answer) for answer in answers] == [PutResult]

    run(tmp_path, story)


def test_what_a_former_leader_was_sent_is_undecided_at_once() -> None:
    """It may be frozen, with its connection open: the client would wait for its deadline to hear the same."""
    follower = Follower()
    follower.submit("a")
    follower.queue.flush(LEADER)
    follower.queue.leader_changed(LEADER)
    assert follower.told == {}
    follower.queue.leader_changed(OTHER)
    assert isinstance(follower.told["a"], OutcomeUnknown)

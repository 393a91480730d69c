"""A peer that asks without end costs a bounded amount of memory, and is told so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from raftkv.errors import Overloaded, PeerProtocolError
from raftkv.kv import Delete, Put, encode_batch
from raftkv.raft import ReadIndex, encode_message
from raftkv.raft.reads import PENDING_READ_MAX_COUNT
from raftkv.runtime import Node, wire
from raftkv.runtime.clients.forwarding import BATCH_MAX_COUNT
from raftkv.types import Consistency
from tests.runtime.nodes import MIB, Cluster, put, run, start_write, until

STRANGER = 99


async def lone(cluster: Cluster, **changes: Any) -> Node:
    node = await cluster.start("node1", **changes)
    await until(lambda: node.is_ready, "it leads itself")
    return node


def test_forwarded_writes_are_bounded_by_the_bytes_that_may_wait(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node, peer = await cluster.form("node1", "node2", max_pending_bytes=2 * MIB)
        sender = peer.replica.own.member_id
        replies: list[wire.ForwardReply] = []

        def send(_: int, frame: bytes) -> bool:
            replies.append(wire.decode(frame, wire.ForwardReply))
            return True

        node.replica._forwarded._send = send
        batch = encode_batch([Put(b"k", b"1" * 100_000)])
        for request_id in range(200):
            node.on_frame(sender, wire.FrameKind.FORWARD, wire.encode(wire.Forward(request_id, batch)))
        assert node.replica.proposals.pending_bytes <= 2 * MIB
        assert len(replies) > 150
        await until(lambda: len(replies) == 200, "everything was answered")
        await put(node, "k", '"it goes on"')

    run(tmp_path, story)


def test_forwarded_writes_of_a_stranger_are_refused_whatever_they_are(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        replies: list[wire.ForwardReply] = []

        def send(_: int, frame: bytes) -> bool:
            replies.append(wire.decode(frame, wire.ForwardReply))
            return True

        node.replica._forwarded._send = send
        for batch in (encode_batch([Put(b"k", b"1")]), b"\xc1", bytes(64 * MIB)):
            node.on_frame(STRANGER, wire.FrameKind.FORWARD, wire.encode(wire.Forward(1, batch)))
        assert [reply.failure.code for reply in replies if reply.failure is not None] == ["Unavailable"] * 3
        assert node.replica.proposals.pending_count == 0

    run(tmp_path, story)


def test_many_tiny_forwarded_writes_count_for_more_than_their_bytes(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node, peer = await cluster.form("node1", "node2", max_pending_bytes=2 * MIB)
        sender = peer.replica.own.member_id
        batch = encode_batch([Delete(b"k")] * BATCH_MAX_COUNT)
        for request_id in range(200):
            node.on_frame(sender, wire.FrameKind.FORWARD, wire.encode(wire.Forward(request_id, batch)))
        assert MIB / 17 < node.replica.proposals.pending_count <= 2 * MIB / 17
        await until(lambda: node.replica.proposals.pending_count == 0, "everything was answered")
        await put(node, "k", '"it goes on"')

    run(tmp_path, story)


def test_questions_for_reads_are_bounded(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2")
        own, peer = node1.replica.own.member_id, node2.replica.own.member_id
        term = node1.replica.raft.current_term
        for request_id in range(PENDING_READ_MAX_COUNT + 5_000):
            node1.on_frame(peer, wire.FrameKind.RAFT, encode_message(ReadIndex(term, peer, own, request_id)))
        leading = node1.replica.raft._state.leading
        assert leading is not None
        assert leading.pending_read_count <= PENDING_READ_MAX_COUNT
        await until(lambda: leading.pending_read_count < 100, "all of them were answered")
        await put(node2, "k", '"it goes on"')

    run(tmp_path, story)


def test_reads_of_this_nodes_own_clients_are_bounded(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        node.replica.reads._pending_max_count = 100
        answers: list[Any] = []
        for _ in range(150):
            node.read(b"k", Consistency.LINEARIZABLE, answers.append)
        assert [type(answer) for answer in answers] == [Overloaded] * 50
        await until(lambda: len(answers) == 150, "everything was answered")
        assert answers[50:] == [None] * 100

    run(tmp_path, story)


def test_writes_of_this_nodes_own_clients_are_bounded_on_leader_and_follower(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node1, node2 = await cluster.form("node1", "node2", max_pending_bytes=2 * MIB)
        for node in (node1, node2):
            answers = [start_write(node, Put(b"k", b"v" * 100_000)) for _ in range(50)]
            refused = [told for told in answers if told]
            assert {type(told[0]) for told in refused} == {Overloaded}
            assert len(refused) >= 29
            await until(lambda answers=answers: all(answers), "everything was answered")  # type: ignore[misc]
            assert all(len(told) == 1 for told in answers)

    run(tmp_path, story)


GARBAGE: list[tuple[int, bytes]] = [
    (wire.FrameKind.RAFT, b""),
    (wire.FrameKind.RAFT, b"\xc1"),
    (wire.FrameKind.RAFT, b"\x91" * 5000),
    (wire.FrameKind.FORWARD, b"\xc1"),
    (wire.FrameKind.FORWARD, wire.encode(wire.Forward(1, b"\xc1"))),
    (wire.FrameKind.FORWARD, wire.encode(wire.Forward(1, b"\x90"))),
    (wire.FrameKind.FORWARD_REPLY, b"\xc1"),
    (9, b""),
]


def test_garbage_blames_the_peer_and_costs_this_node_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node, peer = await cluster.form("node1", "node2")
        for kind, payload in GARBAGE * 20:
            with pytest.raises(PeerProtocolError):
                node.on_frame(peer.replica.own.member_id, kind, payload)
        await put(node, "k", '"it goes on"')

    run(tmp_path, story)


def test_a_message_in_anothers_name_blames_the_peer(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        own = node.replica.own.member_id
        message = encode_message(ReadIndex(node.replica.raft.current_term, 5, own, 1))
        with pytest.raises(PeerProtocolError, match="in the name of"):
            node.on_frame(STRANGER, wire.FrameKind.RAFT, message)

    run(tmp_path, story)


def test_waits_for_a_change_of_members_leave_nothing_behind(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await lone(cluster)
        standing = node.replica.standing
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await standing.configuration_event()
        await asyncio.sleep(0)
        assert len(standing._events) == 0

    run(tmp_path, story)

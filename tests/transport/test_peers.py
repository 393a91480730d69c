"""The outgoing side: dialling, coming back, bounded queues, and telling the dead from the slow."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from raftkv.transport import Transport, TransportSettings
from raftkv.transport.connection import FrameConnection, ignore_frame
from raftkv.transport.framing import FrameKind
from raftkv.transport.handshake import MAGIC, decode_hello, encode_reply
from tests.transport.raw import RawListener, RawPeer, encode_frame, raw_listener
from tests.transport.world import CLUSTER_ID, FAST, PATIENCE_S, Node, World, run, world


async def connected(made: World, listener: RawListener, settings: TransportSettings = FAST) -> tuple[Node, RawPeer]:
    """Member 1, connected to a raw member 2."""
    node = await made.start(1, settings=settings)
    node.transport.set_peers({2: listener.address})
    node.transport.send(2, 1, b"first")
    peer = await listener.accept()
    assert await peer.hear_frame() == (1, b"first")
    return node, peer


def test_the_dialer_introduces_itself_and_names_whom_it_wants() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: listener.address})
            peer = await listener.next_dial()
            kind, payload = await peer.hear_frame()
            hello = decode_hello(payload)
            assert kind == FrameKind.HELLO
            assert (hello.cluster_id, hello.sender, hello.node_id, hello.recipient) == (CLUSTER_ID, 1, "node1", 2)

    run(scenario)


def test_frames_of_one_loop_turn_leave_in_one_write() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            for number in range(100):
                node.transport.send(2, 1, bytes([number]))
            first_read = await peer.reader.read(1 << 16)
            assert first_read == b"".join(encode_frame(1, bytes([number])) for number in range(100))

    run(scenario)


async def connected_by_hand(made: World, listening: socket.socket) -> tuple[Node, socket.socket]:
    """Member 1, connected to member 2, which is a plain socket that the loop does not look at any more."""
    loop = asyncio.get_running_loop()
    listening.setblocking(False)
    node = await made.start(1)
    node.transport.set_peers({2: f"127.0.0.1:{listening.getsockname()[1]}"})
    peer, _ = await loop.sock_accept(listening)
    await loop.sock_recv(peer, 1 << 16)
    await loop.sock_sendall(peer, encode_frame(FrameKind.HELLO_REPLY, encode_reply(made.identity_of(2), None)))
    node.transport.send(2, 1, b"first")
    assert await loop.sock_recv(peer, 1 << 16) == encode_frame(1, b"first")
    return node, peer


def is_readable(peer: socket.socket, patience_s: float) -> bool:
    """Does not give the loop a turn."""
    return bool(select.select([peer], [], [], patience_s)[0])


@pytest.mark.parametrize("loop_name", ["uvloop", "asyncio"])
def test_flush_writes_before_the_loop_has_another_turn(loop_name: str) -> None:
    async def scenario() -> None:
        async with world() as made:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                node, peer = await connected_by_hand(made, listening)
                with peer:
                    node.transport.send(2, 1, b"a")
                    node.transport.send(2, 1, b"b")
                    assert not is_readable(peer, 0.05), "it left by itself, so this proves nothing about flush"
                    node.transport.flush()
                    assert is_readable(peer, PATIENCE_S)
                    assert peer.recv(1 << 16) == encode_frame(1, b"a") + encode_frame(1, b"b")
                    node.transport.flush()
                    await asyncio.sleep(0)
                    assert not is_readable(peer, 0), "it was written twice"

    run(scenario, loop_name)


def test_frames_sent_during_the_dial_follow_the_handshake() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: listener.address})
            peer = await listener.next_dial()
            await peer.hear_frame()
            assert node.transport.send(2, 1, b"early")
            assert not node.transport.stats.peers[2].is_connected
            peer.say_frame(FrameKind.HELLO_REPLY, encode_reply(listener.identity, None))
            assert await peer.hear_frame() == (1, b"early")
            assert node.transport.stats.peers[2].is_connected

    run(scenario)


def test_after_a_failed_dial_what_waited_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1, settings=TransportSettings(backoff_min_ms=60_000, backoff_max_ms=60_000))
            node.transport.set_peers({2: listener.address})
            peer = await listener.next_dial()
            await peer.hear_frame()
            assert node.transport.send(2, 1, b"x" * 87)
            await peer.close()
            await node.handler.until(lambda: node.handler.unreachable)
            # Nobody is dialling now, so nothing is kept for later.
            assert not node.transport.send(2, 1, b"x" * 87)
            stats = node.transport.stats.peers[2]
            assert (stats.frames_dropped, stats.bytes_dropped, stats.dial_failure_count) == (2, 200, 1)

    run(scenario)


def test_a_lost_connection_is_told_and_dialled_again() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            for _ in range(3):
                node.handler.unreachable.clear()
                await peer.close()
                await node.handler.until(lambda: node.handler.unreachable)
                peer = await listener.accept()
            assert node.transport.send(2, 1, b"again")
            assert await peer.hear_frame() == (1, b"again")
            stats = node.transport.stats.peers[2]
            assert (stats.connect_count, stats.lost_count, stats.dial_failure_count) == (4, 3, 0)
            assert stats.last_error == ""

    run(scenario)


def test_a_peer_that_dials_us_is_dialled_back_without_waiting() -> None:
    async def scenario() -> None:
        async with world() as made:
            never = TransportSettings(backoff_min_ms=3_600_000, backoff_max_ms=3_600_000)
            node = await made.start(1, settings=never)
            async with raw_listener(2) as gone:
                address, port = gone.address, gone.port
            node.transport.set_peers({2: address})
            await node.handler.until(lambda: node.handler.unreachable)
            back = await made.start(2, port=port)
            back.transport.set_peers({1: node.address})
            await node.handler.until(lambda: 2 in node.handler.accepted)
            await back.handler.until(lambda: 1 in back.handler.accepted)

    run(scenario)


def test_a_new_address_is_dialled_at_once_even_in_the_middle_of_a_backoff() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1, settings=TransportSettings(backoff_min_ms=60_000, backoff_max_ms=60_000))
            async with raw_listener(2) as gone:
                address = gone.address
            node.transport.set_peers({2: address})
            await node.handler.until(lambda: node.handler.unreachable)
            node.transport.set_peers({2: listener.address})
            peer = await listener.accept()
            node.transport.send(2, 1, b"moved")
            assert await peer.hear_frame() == (1, b"moved")

    run(scenario)


def test_the_same_peers_again_leave_connections_alone() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            node.transport.set_peers({2: listener.address, 1: node.address})
            node.transport.send(2, 1, b"same connection")
            assert await peer.hear_frame() == (1, b"same connection")

    run(scenario)


def test_a_removed_peer_gets_what_was_queued_and_then_the_end() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            node.transport.send(2, 1, b"you are removed")
            node.transport.set_peers({})
            assert await peer.hear_end() == encode_frame(1, b"you are removed")
            assert node.handler.unreachable == []

    run(scenario)


def test_stop_sends_what_was_queued() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            node.transport.send(2, 1, b"timeout now")
            await node.transport.stop()
            assert await peer.hear_end() == encode_frame(1, b"timeout now")

    run(scenario)


def test_a_peer_that_stops_reading_costs_a_bounded_queue_and_then_its_connection() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            limit = 4 << 20
            node, _ = await connected(
                made, listener, TransportSettings(max_queue_bytes=limit, write_stall_timeout_ms=300)
            )
            stats = node.transport.stats.peers[2]
            while not stats.frames_dropped:
                node.transport.send(2, 1, bytes(1 << 20))
                await asyncio.sleep(0)
            assert isinstance(node.transport, Transport)
            connection = node.transport._links[2]._connection
            assert connection is not None
            assert limit // 2 < connection.unsent_bytes <= limit
            await node.handler.until(lambda: node.handler.unreachable)
            assert "has stopped reading" in node.error_about(2)
            await listener.accept()

    run(scenario)


def test_a_listener_that_never_answers_is_a_failed_dial() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1, settings=TransportSettings(dial_timeout_ms=50))
            node.transport.set_peers({2: listener.address})
            await node.handler.until(lambda: node.handler.unreachable)
            assert node.error_about(2) == f"cannot reach {listener.address}: no answer in time"

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the other side speaks HTTP"),
        (encode_frame(FrameKind.HELLO_REPLY, msgspec.msgpack.encode([MAGIC, 2, "x"])), "version 2 is not spoken here"),
        (encode_frame(FrameKind.HELLO_REPLY, b"junk"), "not a raftkv handshake"),
        (encode_frame(1, b""), "not a raftkv handshake"),
        (encode_frame(1, b"") * 100, "not a raftkv handshake"),
    ],
    ids=["http", "version", "junk", "kind", "flood"],
)
def test_an_answer_that_is_none_is_a_failed_dial_with_the_reason(answer: bytes, error: str) -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: listener.address})
            peer = await listener.next_dial()
            peer.say(answer)
            await node.handler.until(lambda: node.handler.unreachable)
            assert error in node.error_about(2)

    run(scenario)


def test_a_listener_that_talks_back_on_a_peer_connection_is_cut_off() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node, peer = await connected(made, listener)
            peer.say_frame(1, b"frames go the other way")
            await peer.hear_end()
            await node.handler.until(lambda: node.handler.unreachable)
            assert "unexpected frame of kind 1" in node.error_about(2)

    run(scenario)


def test_a_peer_that_stays_down_is_logged_once_per_reason(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(1)
            async with raw_listener(2) as gone:
                address, port = gone.address, gone.port
            node.transport.set_peers({2: address})
            await node.handler.until(lambda: len(node.handler.unreachable) >= 3)
            await made.start(2, cluster_id=0xBAD, port=port)
            await node.handler.until(lambda: "0xbad" in node.error_about(2))
            seen = len(node.handler.unreachable)
            await node.handler.until(lambda: len(node.handler.unreachable) >= seen + 3)

    with caplog.at_level(logging.WARNING, logger="raftkv.transport"):
        run(scenario)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "connection refused" in texts[0]
    assert "belongs to cluster 0xbad" in texts[1]


def test_an_address_that_is_none_is_a_status_not_a_crash() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: "nonsense"})
            await node.handler.until(lambda: node.handler.unreachable)
            assert "is not host:port" in node.error_about(2)

    run(scenario)


def test_peers_set_before_start_are_dialled_after_it() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            await node.transport.stop()
            node.transport.set_peers({2: listener.address})
            assert not node.transport.send(2, 1, b"not running")
            await node.transport.start("127.0.0.1", 0)
            await listener.accept()

    run(scenario)


class SwellingTransport(asyncio.Transport):
    """Nothing leaves, and every write takes more room than it has bytes, as records of TLS do."""

    def __init__(self) -> None:
        super().__init__()
        self.buffered_bytes = 0
        self.aborted = asyncio.get_running_loop().create_future()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.buffered_bytes += sum(map(len, list_of_data)) + 22

    def abort(self) -> None:
        self.aborted.set_result(None)


def test_frames_that_are_added_to_a_full_buffer_do_not_make_it_look_as_if_it_moved() -> None:
    async def scenario() -> None:
        connection = FrameConnection(1 << 20, ignore_frame, lambda _reason: None)
        connection.write_stall_timeout_s = 0.02
        transport = SwellingTransport()
        connection.connection_made(transport)
        connection.pause_writing()
        async with asyncio.timeout(PATIENCE_S):
            while not transport.aborted.done():
                connection.send_frame(1, b"one more")
                await asyncio.sleep(0)

    run(scenario)

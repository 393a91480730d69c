"""The peer port believes nobody: whatever comes in, only that connection ends, in bounded time and memory."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.transport import TransportSettings
from raftkv.transport.framing import HEADER, FrameKind
from raftkv.transport.handshake import MAGIC, Purpose, encode_hello
from raftkv.transport.listener import bind
from tests.transport.raw import RawPeer, dialed, encode_frame
from tests.transport.world import Node, Recorder, World, run, world


async def assert_still_serves(node: Node, member_id: int = 40) -> None:
    """An honest peer can still connect and be heard."""
    async with dialed(node) as peer:
        peer.say_hello(Purpose.PEER, member_id)
        assert (await peer.hear_reply()).refusal == ""
        seen = len(node.handler.frames)
        peer.say_frame(1, b"honest")
        await node.handler.until(lambda: len(node.handler.frames) > seen)
        assert node.handler.frames[-1] == (member_id, 1, b"honest")


HELLO = encode_hello(World().identity_of(1), Purpose.PEER, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "oversize"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60), "oversize"),
        (HEADER.pack((64 << 10) + 1, 0, FrameKind.HELLO, 0), "oversize"),
        (HEADER.pack(5, 12345, FrameKind.HELLO, 0) + b"hello", "checksum"),
        (HEADER.pack(0, 0, FrameKind.HELLO, 7), "group"),
        (encode_frame(1, b"no hello before this"), "handshake"),
        (encode_frame(FrameKind.HELLO, b"junk"), "handshake"),
        (encode_frame(FrameKind.HELLO, msgspec.msgpack.encode([MAGIC, 2])), "version"),
        (encode_frame(FrameKind.HELLO, HELLO) + b"\xff" * 13, "oversize"),
        (encode_frame(FrameKind.HELLO, HELLO) + HEADER.pack(1, 0, 1, 0) + b"x", "checksum"),
    ],
    ids=["http", "tls", "huge", "crc", "group", "no-hello", "junk", "version", "junk-later", "crc-later"],
)
def test_what_is_not_ours_ends_that_connection_and_is_counted(data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                peer.say(data)
                await peer.hear_end()
            assert node.transport.stats.refused == {reason: 1}
            await assert_still_serves(node)

    run(scenario)


def test_a_refused_dialer_reads_the_reason() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                peer.say_frame(FrameKind.HELLO, msgspec.msgpack.encode([MAGIC, 2]))
                reply = await peer.hear_reply()
                assert reply.reason == "version"
                assert reply.refusal == "peer protocol version 2 is not spoken here, only 1"
                assert await peer.hear_end() == b""

    run(scenario)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.one_of(st.binary(max_size=400), st.sampled_from(["hello", "mutated", "frame"])), max_size=6), st.data()
)
def test_hostile_bytes_never_reach_the_node_unchecked(parts: list[bytes | str], data: st.DataObject) -> None:
    frame = encode_frame(1, b"a valid frame")

    def bytes_of(part: bytes | str) -> bytes:
        if isinstance(part, bytes):
            return part
        if part == "hello":
            return encode_frame(FrameKind.HELLO, HELLO)
        if part == "frame":
            return frame
        mutated = bytearray(encode_frame(FrameKind.HELLO, HELLO))
        mutated[data.draw(st.integers(0, len(mutated) - 1))] ^= data.draw(st.integers(1, 255))
        return bytes(mutated)

    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                for part in parts:
                    peer.say(bytes_of(part))
                peer.finish()
                await peer.hear_end()
            assert all(received == (1, 1, b"a valid frame") for received in node.handler.frames)
            await assert_still_serves(node)

    run(scenario)


def test_a_hello_in_single_bytes_is_as_good() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                for byte in encode_frame(FrameKind.HELLO, HELLO) + encode_frame(1, b"slow but honest"):
                    peer.say(bytes([byte]))
                    await peer.writer.drain()
                await node.handler.until(lambda: node.handler.frames)
                assert node.handler.frames == [(1, 1, b"slow but honest")]

    run(scenario)


def test_silence_is_ended_after_the_handshake_timeout() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(handshake_timeout_ms=300))
            async with dialed(node) as silent, dialed(node) as dripping, dialed(node) as honest:
                honest.say_hello(Purpose.PEER, 3)
                await honest.hear_reply()
                dripping.say(encode_frame(FrameKind.HELLO, HELLO)[:20])
                assert await silent.hear_end() == b""
                assert await dripping.hear_end() == b""
                assert node.transport.stats.refused == {"timeout": 2}
                assert node.transport.stats.handshakes_open == 0
                honest.say_frame(1, b"still here")
                await node.handler.until(lambda: node.handler.frames)

    run(scenario)


def test_a_flood_of_silent_connections_is_bounded_and_locks_nobody_out() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(max_handshakes=10))
            async with contextlib.AsyncExitStack() as stack:
                silent = [await stack.enter_async_context(dialed(node)) for _ in range(30)]
                # The oldest have made room for the newest.
                for peer in silent[:20]:
                    assert await peer.hear_end() == b""
                await assert_still_serves(node)
                assert node.transport.stats.handshakes_open <= 10
                assert node.transport.stats.refused["too_many"] >= 20
            assert node.transport.stats.inbound_open <= 10

    run(scenario)


def test_peers_are_bounded_and_the_one_too_many_reads_why() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(max_inbound_peers=2))
            async with dialed(node) as first, dialed(node) as second, dialed(node) as third:
                for member_id, peer in ((11, first), (12, second)):
                    peer.say_hello(Purpose.PEER, member_id)
                    assert (await peer.hear_reply()).refusal == ""
                third.say_hello(Purpose.PEER, 13)
                assert (await third.hear_reply()).refusal == "it has as many peers as it may"
                await first.close()
                await assert_room(node)

    run(scenario)


def test_strangers_cannot_take_the_places_of_members() -> None:
    """Without TLS whoever knows the cluster id can pose as any number of members."""

    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(max_inbound_peers=2))
            node.transport.set_peers({21: "127.0.0.1:1", 22: "127.0.0.1:1"})
            async with contextlib.AsyncExitStack() as stack:

                async def refusal_of(member_id: int) -> str:
                    peer = await stack.enter_async_context(dialed(node))
                    peer.say_hello(Purpose.PEER, member_id)
                    return (await peer.hear_reply()).refusal

                assert [await refusal_of(stranger) for stranger in (11, 12)] == ["", ""]
                assert [await refusal_of(member) for member in (21, 22)] == ["", ""]
                assert await refusal_of(13) == "it has as many peers as it may"
                node.transport.set_peers({13: "127.0.0.1:1"})
                assert await refusal_of(13) == ""

    run(scenario)


def test_members_take_no_places_of_strangers() -> None:
    """A server that was away must hear of the members that it does not know yet."""

    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(max_inbound_peers=1))
            node.transport.set_peers({21: "127.0.0.1:1", 22: "127.0.0.1:1"})
            async with dialed(node) as first, dialed(node) as second, dialed(node) as stranger:
                for member_id, peer in ((21, first), (22, second), (11, stranger)):
                    peer.say_hello(Purpose.PEER, member_id)
                    assert (await peer.hear_reply()).refusal == ""

    run(scenario)


async def assert_room(node: Node) -> None:
    """A place becomes free when the node has seen the end of another connection."""
    while True:
        async with dialed(node) as peer:
            peer.say_hello(Purpose.PEER, 14)
            if (await peer.hear_reply()).refusal == "":
                return


def test_a_peer_that_dials_again_replaces_its_old_connection() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as old, dialed(node) as new:
                for peer in (old, new):
                    peer.say_hello(Purpose.PEER, 5)
                    assert (await peer.hear_reply()).refusal == ""
                assert await old.hear_end() == b""
                new.say_frame(1, b"new")
                await node.handler.until(lambda: node.handler.frames)

    run(scenario)


def test_the_transport_s_own_frames_never_reach_the_node() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                peer.say_hello(Purpose.PEER, 5)
                await peer.hear_reply()
                peer.say_hello(Purpose.PEER, 5)
                await peer.hear_end()
            assert node.handler.frames == []
            assert node.transport.stats.refused == {"unexpected": 1}

    run(scenario)


def test_a_call_without_a_request_is_ended_and_its_place_is_free_again() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=TransportSettings(handshake_timeout_ms=300, max_calls=1))
            async with dialed(node) as idle:
                idle.say_hello(Purpose.CALL, 0)
                assert (await idle.hear_reply()).refusal == ""
                assert node.transport.stats.calls_open == 1
                assert await idle.hear_end() == b""
            assert node.transport.stats.calls_open == 0
            assert node.transport.stats.refused == {"timeout": 1}

    run(scenario)


@pytest.mark.parametrize("member_id", [0, -5, 2])
def test_a_peer_must_have_a_member_id_that_is_not_ours(member_id: int) -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                peer.say_hello(Purpose.PEER, member_id)
                assert (await peer.hear_reply()).reason == "member"

    run(scenario)


def test_a_fault_of_the_node_goes_to_the_loop_and_not_into_silence() -> None:
    """`InvariantViolation` in a handler must be seen: it is never taken for bad input."""
    seen: list[BaseException] = []

    async def main() -> None:
        async with world() as made:
            handler = Recorder()
            handler.frame_error = RuntimeError("a bug of ours")
            node = await made.start(2, handler=handler)
            told = asyncio.Event()

            def note(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
                error = context.get("exception")
                assert isinstance(error, BaseException)
                seen.append(error)
                told.set()

            asyncio.get_running_loop().set_exception_handler(note)
            async with dialed(node) as peer:
                peer.say_hello(Purpose.PEER, 5)
                await peer.hear_reply()
                peer.say_frame(1, b"x")
                await told.wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert [str(error) for error in seen] == ["a bug of ours"]


def test_a_stopped_node_accepts_nobody() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            async with dialed(node) as peer:
                peer.say_hello(Purpose.PEER, 5)
                await peer.hear_reply()
                await node.transport.stop()
                assert await peer.hear_end() == b""
            with pytest.raises(ConnectionRefusedError):
                await RawPeer(*await asyncio.open_connection("127.0.0.1", node.port)).close()
            assert node.transport.stats.inbound_open == 0

    run(scenario)


def test_a_port_in_use_is_told_and_leaves_nothing_open() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            with pytest.raises(OSError, match="in use"):
                await made.start(3, port=node.port)

    run(scenario)


def test_every_address_of_a_name_is_served_on_one_port() -> None:
    async def scenario() -> None:
        sockets = await bind("localhost", 0)
        try:
            assert len({listening.getsockname()[1] for listening in sockets}) == 1
            assert "127.0.0.1" in {listening.getsockname()[0] for listening in sockets}
        finally:
            for listening in sockets:
                listening.close()

    run(scenario)

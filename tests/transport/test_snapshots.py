"""Snapshot streams against a partner that stalls, cheats or dies. The well-behaved half is in the contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from raftkv.errors import OutcomeUnknown, PeerProtocolError, TooLarge, Unavailable
from raftkv.transport import TransportSettings
from raftkv.transport.framing import FrameKind
from raftkv.transport.handshake import Purpose
from tests.transport.raw import RawPeer, dialed, raw_listener
from tests.transport.world import Node, run, world

IMPATIENT = TransportSettings(snapshot_stall_timeout_ms=250, snapshot_accept_timeout_ms=250)


async def endless(size_bytes: int = 10) -> AsyncIterator[bytes]:
    while True:
        yield bytes(size_bytes)


async def three() -> AsyncIterator[bytes]:
    for number in range(3):
        yield bytes([number])


async def begin(peer: RawPeer, member_id: int = 1) -> None:
    peer.say_hello(Purpose.SNAPSHOT, member_id)
    assert (await peer.hear_reply()).refusal == ""


def broken_reason(node: Node) -> asyncio.Future[str]:
    """Set to what the receiving handler sees when its stream breaks."""
    reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
        try:
            async for _ in chunks:
                pass
        except (Unavailable, PeerProtocolError) as error:
            reason.set_result(str(error))
            raise

    node.handler.take = take
    return reason


def test_a_receiver_that_takes_nothing_stalls_the_sender_within_the_window() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1, settings=IMPATIENT)
            node.transport.set_peers({2: listener.address})
            await listener.accept()
            sending = asyncio.create_task(node.transport.send_snapshot(2, endless()))
            peer = await listener.accept()
            for _ in range(IMPATIENT.snapshot_window_chunks):
                assert await peer.hear_frame() == (FrameKind.CHUNK, bytes(10))
            with pytest.raises(Unavailable, match="has stalled"):
                await sending
            assert await peer.hear_end() == b""

    run(scenario)


def test_a_receiver_without_a_verdict_stalls_the_sender() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1, settings=IMPATIENT)
            node.transport.set_peers({2: listener.address})
            await listener.accept()
            sending = asyncio.create_task(node.transport.send_snapshot(2, three()))
            peer = await listener.accept()
            heard = [await peer.hear_frame() for _ in range(4)]
            assert heard[-1] == (FrameKind.LAST_CHUNK_SENT, b"")
            with pytest.raises(Unavailable, match="has stalled"):
                await sending

    run(scenario)


@pytest.mark.parametrize("kind", [1, FrameKind.HELLO, FrameKind.CHUNK])
def test_a_receiver_that_talks_nonsense_is_given_up(kind: int) -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: listener.address})
            await listener.accept()
            sending = asyncio.create_task(node.transport.send_snapshot(2, endless()))
            peer = await listener.accept()
            peer.say_frame(kind, b"")
            with pytest.raises(Unavailable, match=f"frame of kind {int(kind)}"):
                await sending

    run(scenario)


def test_a_chunk_over_the_limit_is_not_sent() -> None:
    async def scenario() -> None:
        async with world() as made:
            first, second = await made.pair(TransportSettings(max_snapshot_chunk_bytes=1_000))
            reason = broken_reason(second)
            with pytest.raises(TooLarge, match="1001 bytes"):
                await first.transport.send_snapshot(2, endless(1_001))
            assert "stream broke" in await reason

    run(scenario)


def test_a_sender_that_falls_silent_is_given_up() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2, settings=IMPATIENT)
            reason = broken_reason(node)
            async with dialed(node) as peer:
                await begin(peer)
                peer.say_frame(FrameKind.CHUNK, b"one")
                assert await peer.hear_frame() == (FrameKind.CHUNK_TAKEN, b"")
                assert await reason == "the sender of the snapshot has stalled"
                kind, _ = await peer.hear_frame()
                assert kind == FrameKind.CALL_ERROR

    run(scenario)


def test_a_sender_that_ignores_the_window_is_cut_off() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            has_begun = asyncio.Event()

            async def hold(sender: int, chunks: AsyncIterator[bytes]) -> None:
                has_begun.set()
                await asyncio.Event().wait()

            node.handler.take = hold
            async with dialed(node) as peer:
                await begin(peer)
                await has_begun.wait()
                for _ in range(10):
                    peer.say_frame(FrameKind.CHUNK, b"x")
                await peer.hear_end()
            assert node.transport.stats.refused == {"unexpected": 1}

    run(scenario)


def test_a_sender_that_breaks_off_leaves_nothing_accepted() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            reason = broken_reason(node)
            async with dialed(node) as peer:
                await begin(peer)
                peer.say_frame(FrameKind.CHUNK, b"one")
                await peer.hear_frame()
            assert "stream broke" in await reason
            # The place is free: the next stream is served from its beginning.
            node.handler.take = None
            async with dialed(node) as again:
                await begin(again)
                again.say_frame(FrameKind.CHUNK, b"whole")
                again.say_frame(FrameKind.LAST_CHUNK_SENT, b"")
                assert [await again.hear_frame() for _ in range(2)] == [
                    (FrameKind.CHUNK_TAKEN, b""),
                    (FrameKind.CALL_REPLY, b""),
                ]
            assert node.handler.chunks == [b"whole"]
            assert node.transport.stats.snapshots_refused == 1
            assert node.transport.stats.snapshots_received == 1

    run(scenario)


def test_another_kind_of_frame_within_a_stream_refuses_it() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            reason = broken_reason(node)
            async with dialed(node) as peer:
                await begin(peer)
                peer.say_frame(5, b"")
                assert await reason == "a frame of kind 5 in a snapshot stream"

    run(scenario)


def test_an_unknown_outcome_at_the_receiver_stays_unknown_at_the_sender() -> None:
    async def scenario() -> None:
        async with world() as made:
            first, second = await made.pair()

            async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
                raise OutcomeUnknown("perhaps installed")

            second.handler.take = take
            with pytest.raises(OutcomeUnknown, match="perhaps installed"):
                await first.transport.send_snapshot(2, three())

    run(scenario)


def test_a_stream_that_waits_for_its_turn_can_itself_be_replaced() -> None:
    async def scenario() -> None:
        async with world() as made:
            node = await made.start(2)
            story: list[str] = []
            may_end = asyncio.Event()

            async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
                story.append(f"begin {sender}")
                node.handler.note()
                try:
                    await anext(chunks)
                except asyncio.CancelledError:
                    # A handler may need time to clean up; the next must not start meanwhile.
                    await may_end.wait()
                    raise
                finally:
                    story.append(f"end {sender}")

            node.handler.take = take
            async with dialed(node) as first, dialed(node) as second, dialed(node) as third:
                await begin(first, 11)
                await node.handler.until(lambda: story)
                await begin(second, 12)
                await begin(third, 13)
                assert await second.hear_end() == b""
                third.say_frame(FrameKind.CHUNK, b"x")
                assert story == ["begin 11"]
                may_end.set()
                assert [(await third.hear_frame())[0] for _ in range(2)] == [
                    FrameKind.CHUNK_TAKEN,
                    FrameKind.CALL_REPLY,
                ]
            assert story == ["begin 11", "end 11", "begin 13", "end 13"]

    run(scenario)


def test_a_snapshot_that_is_slow_to_make_does_not_use_up_the_receiver_s_patience() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            node = await made.start(1)
            node.transport.set_peers({2: listener.address})
            await listener.accept()
            may_begin = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                await may_begin.wait()
                yield b"first"

            sending = asyncio.create_task(node.transport.send_snapshot(2, slow()))
            dial = asyncio.create_task(listener.accept())
            done, _ = await asyncio.wait((dial,), timeout=0.05)
            assert not done
            may_begin.set()
            peer = await dial
            assert await peer.hear_frame() == (FrameKind.CHUNK, b"first")
            assert await peer.hear_frame() == (FrameKind.LAST_CHUNK_SENT, b"")
            peer.say_frame(FrameKind.CHUNK_TAKEN, b"")
            peer.say_frame(FrameKind.CALL_REPLY, b"")
            await sending

    run(scenario)

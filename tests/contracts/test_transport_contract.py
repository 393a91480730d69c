"""What every `PeerTransport` promises: one suite for TCP on both event loops and for the memory network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

import pytest

from raftkv.errors import (
    InvalidInput,
    KeyNotFound,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    PeerProtocolError,
    Rejected,
    TooLarge,
    Unavailable,
)
from raftkv.transport import MemoryNetwork, PeerIdentity, TransportSettings
from tests.transport.world import CLUSTER_ID, FAST, Node, Recorder, World, run, world

Scenario: TypeAlias = Callable[[World], Awaitable[None]]
Play: TypeAlias = Callable[[Scenario], None]


@pytest.fixture(params=["tcp on uvloop", "tcp on asyncio", "memory"])
def play(request: pytest.FixtureRequest) -> Play:
    """Plays a scenario in a world of each kind."""

    def play_in_world(scenario: Scenario) -> None:
        async def main() -> None:
            network = MemoryNetwork(is_automatic=True) if request.param == "memory" else None
            async with world(network) as made:
                await scenario(made)

        run(main, "asyncio" if request.param == "tcp on asyncio" else "uvloop")

    return play_in_world


def test_frames_arrive_whole_in_order_and_with_their_sender(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        sent = [(1, kind % 200, bytes([kind % 256]) * kind) for kind in range(300)]
        assert all(first.transport.send(2, kind, payload) for _, kind, payload in sent)
        await second.handler.until(lambda: len(second.handler.frames) == len(sent))
        assert second.handler.frames == sent

    play(scenario)


def test_what_is_flushed_arrives_once_and_before_what_is_sent_later(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        for number in range(20):
            assert first.transport.send(2, 1, bytes([number]))
            if number % 3 == 0:
                first.transport.flush()
                first.transport.flush()
        await second.handler.until(lambda: len(second.handler.frames) >= 20)
        second.transport.send(1, 1, b"answer")
        await first.handler.until(lambda: first.handler.frames)
        assert second.handler.payloads == [bytes([number]) for number in range(20)]

    play(scenario)


def test_both_directions_and_empty_and_large_frames(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        large = bytes(range(256)) * (5 << 12)
        assert first.transport.send(2, 1, b"")
        assert first.transport.send(2, 2, large)
        assert second.transport.send(1, 3, large)
        await second.handler.until(lambda: len(second.handler.frames) == 2)
        await first.handler.until(lambda: first.handler.frames)
        assert second.handler.frames == [(1, 1, b""), (1, 2, large)]
        assert first.handler.frames == [(2, 3, large)]

    play(scenario)


def test_sending_to_a_stranger_or_to_oneself_is_refused(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, _ = await world.pair()
        assert not first.transport.send(99, 1, b"x")
        assert not first.transport.send(1, 1, b"x")
        assert set(first.transport.stats.peers) == {2}

    play(scenario)


def test_a_frame_over_the_limit_raises_and_says_both_sizes(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, _ = await world.pair(TransportSettings(max_frame_bytes=1_000))
        with pytest.raises(TooLarge, match="1001 bytes, the limit is 1000"):
            first.transport.send(2, 1, b"x" * 1_001)

    play(scenario)


def test_a_full_queue_drops_counts_and_recovers(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair(TransportSettings(max_queue_bytes=10_000))
        first.transport.send(2, 1, b"connected?")
        await second.handler.until(lambda: second.handler.frames)
        # Nothing can leave while this task holds the loop.
        taken = [first.transport.send(2, 1, b"x" * 987) for _ in range(50)]
        assert taken == [True] * 10 + [False] * 40
        stats = first.transport.stats.peers[2]
        assert (stats.frames_dropped, stats.bytes_dropped) == (40, 40_000)
        await second.handler.until(lambda: len(second.handler.frames) == 11)
        assert first.transport.send(2, 1, b"room again")
        await second.handler.until(lambda: second.handler.payloads[-1] == b"room again")

    play(scenario)


def test_traffic_is_counted_with_headers_at_both_ends(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        first.transport.send(2, 1, b"x" * 87)
        first.transport.send(2, 1, b"y" * 187)
        await second.handler.until(lambda: len(second.handler.frames) == 2)
        # Counting ends a turn after the frame was handed on; an answer comes later than that.
        second.transport.send(1, 1, b"answer")
        await first.handler.until(lambda: first.handler.frames)
        sent, received = first.transport.stats.peers[2], second.transport.stats.peers[1]
        assert (sent.frames_sent, sent.bytes_sent) == (2, 300)
        assert (received.frames_received, received.bytes_received) == (2, 300)

    play(scenario)


def test_a_stopped_peer_is_unreachable_and_reachable_again_when_it_is_back(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        first.transport.send(2, 1, b"before")
        await second.handler.until(lambda: second.handler.frames)
        await second.transport.stop()
        await first.handler.until(lambda: first.handler.unreachable, nudge=lambda: first.transport.send(2, 1, b"lost"))
        assert set(first.handler.unreachable) == {2}
        back = await world.start(2, port=second.port)
        await back.handler.until(lambda: back.handler.frames, nudge=lambda: first.transport.send(2, 1, b"after"))
        assert set(back.handler.payloads) <= {b"lost", b"after"}

    play(scenario)


def test_another_cluster_takes_nothing_and_the_status_says_why(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, foreign = await world.start(1), await world.start(2, cluster_id=0xBAD)
        first.transport.set_peers({2: foreign.address})
        first.transport.send(2, 1, b"secret")
        await first.handler.until(lambda: 2 in first.handler.unreachable)
        assert not foreign.handler.frames
        assert "node2 belongs to cluster 0xbad, not 0x7007" in first.error_about(2)
        assert not first.transport.stats.peers[2].is_connected

    play(scenario)


def test_another_member_at_the_address_takes_nothing(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, other = await world.start(1), await world.start(3)
        first.transport.set_peers({2: other.address})
        first.transport.send(2, 1, b"not for 3")
        await first.handler.until(lambda: 2 in first.handler.unreachable)
        assert not other.handler.frames
        assert "this is member 3 (node3), not 2" in first.error_about(2)

    play(scenario)


def test_a_peer_that_the_node_refuses_learns_the_reason(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.start(1), await world.start(2)
        second.handler.refusal = "member 1 was removed"
        first.transport.set_peers({2: second.address})
        first.transport.send(2, 1, b"hello?")
        await first.handler.until(lambda: 2 in first.handler.unreachable)
        assert not second.handler.frames
        assert "member 1 was removed" in first.error_about(2)

    play(scenario)


def test_a_frame_that_the_node_cannot_read_is_counted_and_hurts_nobody_else(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        third = await world.start(3)
        third.transport.set_peers({2: second.address})
        third.transport.send(2, 1, b"from 3")
        await second.handler.until(lambda: second.handler.frames)
        second.handler.frame_error = PeerProtocolError("not a Raft message")
        first.transport.send(2, 1, b"garbage")
        await second.handler.until(
            lambda: second.transport.stats.refused.get("payload"), nudge=lambda: first.transport.send(2, 1, b"garbage")
        )
        second.handler.frame_error = None
        third.transport.send(2, 1, b"still here")
        await second.handler.until(lambda: (3, 1, b"still here") in second.handler.frames)
        await second.handler.until(
            lambda: (1, 1, b"mended") in second.handler.frames, nudge=lambda: first.transport.send(2, 1, b"mended")
        )
        assert 3 not in second.handler.unreachable

    play(scenario)


def test_a_new_address_is_dialled(play: Play) -> None:
    async def scenario(world: World) -> None:
        first = await world.start(1)
        old = await world.start(2)
        first.transport.set_peers({2: old.address})
        first.transport.send(2, 1, b"old")
        await old.handler.until(lambda: old.handler.frames)
        await old.transport.stop()
        new = await world.start(2)
        first.transport.set_peers({2: new.address})
        await new.handler.until(lambda: new.handler.frames, nudge=lambda: first.transport.send(2, 1, b"new"))
        assert first.transport.stats.peers[2].address == new.address

    play(scenario)


def test_a_removed_peer_is_forgotten(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        first.transport.send(2, 1, b"x")
        await second.handler.until(lambda: second.handler.frames)
        first.transport.set_peers({})
        assert not first.transport.send(2, 1, b"y")
        assert not first.transport.stats.peers

    play(scenario)


def test_with_a_new_identity_both_sides_shake_hands_anew(play: Play) -> None:
    async def scenario(world: World) -> None:
        member, lone = await world.start(1), await world.start(8, cluster_id=0x10E)
        member.transport.set_peers({9: lone.address})
        member.transport.send(9, 1, b"too early")
        await member.handler.until(lambda: 9 in member.handler.unreachable)
        lone.transport.set_identity(PeerIdentity(CLUSTER_ID, 9, "node9"))
        lone.transport.set_peers({1: member.address})
        assert lone.transport.identity.member_id == 9
        await lone.handler.until(lambda: lone.handler.frames, nudge=lambda: member.transport.send(9, 1, b"welcome"))
        lone.transport.send(1, 2, b"thanks")
        await member.handler.until(lambda: member.handler.frames)
        assert member.handler.frames == [(9, 2, b"thanks")]

    play(scenario)


def test_nothing_is_called_back_after_stop(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        first.transport.send(2, 1, b"x")
        await second.handler.until(lambda: second.handler.frames)
        await second.transport.stop()
        await second.transport.stop()
        seen = len(second.handler.frames), len(second.handler.unreachable)
        await first.handler.until(lambda: first.handler.unreachable, nudge=lambda: first.transport.send(2, 1, b"y"))
        assert seen == (len(second.handler.frames), len(second.handler.unreachable))

    play(scenario)


# Calls


async def _echo(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + payload[::-1]


def test_a_call_needs_no_membership_and_brings_the_answer(play: Play) -> None:
    async def scenario(world: World) -> None:
        stranger, node = await world.start(1, cluster_id=0xBAD), await world.start(2)
        node.handler.answer = _echo
        assert await stranger.transport.call(node.address, 5, b"abc", 5.0) == b"\x05cba"
        large = bytes(range(256)) * 2_000
        assert await stranger.transport.call(node.address, 5, large, 5.0) == b"\x05" + large[::-1]

    play(scenario)


@pytest.mark.parametrize(
    "error",
    [
        Rejected("plainly no"),
        MembershipRefused("two members would be lost"),
        Unavailable("not now"),
        NotLeader("node7", "10.0.0.7:2221"),
        TooLarge("the value", 11, 10),
        KeyNotFound("k"),
        OutcomeUnknown("leadership was lost"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_the_same_class_text_and_facts(play: Play, error: Exception) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()

        async def refuse(kind: int, payload: bytes) -> bytes:
            raise error

        second.handler.answer = refuse
        with pytest.raises(type(error)) as caught:
            await first.transport.call(second.address, 1, b"", 5.0)
        assert type(caught.value) is type(error)
        assert str(caught.value) == str(error)
        assert vars(caught.value) == vars(error)

    play(scenario)


def test_a_call_to_nobody_is_unavailable_and_names_the_address(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, gone = await world.start(1), await world.start(2)
        await gone.transport.stop()
        with pytest.raises(Unavailable, match=f"cannot reach {gone.address}: connection refused"):
            await first.transport.call(gone.address, 1, b"", 5.0)

    play(scenario)


@pytest.mark.parametrize("address", ["", "nowhere", "host:0", "host:65536", "host:x", ":5", "::1:5"])
def test_a_call_to_something_that_is_no_address_is_invalid_input(play: Play, address: str) -> None:
    async def scenario(world: World) -> None:
        first = await world.start(1)
        with pytest.raises(InvalidInput, match="address"):
            await first.transport.call(address, 1, b"", 5.0)

    play(scenario)


def test_a_call_that_was_read_and_not_answered_in_time_has_an_unknown_outcome(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        is_asked, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def ponder(kind: int, payload: bytes) -> bytes:
            is_asked.set()
            await may_end.wait()
            ended.set()
            return b""

        second.handler.answer = ponder
        with pytest.raises(OutcomeUnknown, match=f"{second.address}: no answer in time"):
            await first.transport.call(second.address, 1, b"", 1.0)
        assert is_asked.is_set()
        # The caller's impatience does not leave the other node's work half done.
        may_end.set()
        await ended.wait()

    play(scenario)


def test_a_call_whose_server_stops_has_an_unknown_outcome(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        is_asked = asyncio.Event()

        async def hang(kind: int, payload: bytes) -> bytes:
            is_asked.set()
            await asyncio.Event().wait()
            return b""

        second.handler.answer = hang
        call = asyncio.create_task(first.transport.call(second.address, 1, b"", 5.0))
        await is_asked.wait()
        await second.transport.stop()
        with pytest.raises(OutcomeUnknown):
            await call

    play(scenario)


def test_calls_over_the_limit_are_refused_before_they_are_read(play: Play) -> None:
    async def scenario(world: World) -> None:
        first = await world.start(1)
        second = await world.start(2, settings=TransportSettings(max_calls=1, max_call_bytes=1_000))
        is_asked, may_end = asyncio.Event(), asyncio.Event()

        async def ponder(kind: int, payload: bytes) -> bytes:
            is_asked.set()
            await may_end.wait()
            return b"done"

        second.handler.answer = ponder
        call = asyncio.create_task(first.transport.call(second.address, 1, b"", 5.0))
        await is_asked.wait()
        with pytest.raises(Unavailable, match="as many calls as it may"):
            await first.transport.call(second.address, 1, b"", 5.0)
        may_end.set()
        assert await call == b"done"
        assert second.transport.stats.calls_open == 0

    play(scenario)


def test_a_call_that_is_too_large_is_not_sent(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair(TransportSettings(max_call_bytes=1_000))
        with pytest.raises(TooLarge):
            await first.transport.call(second.address, 1, b"x" * 1_001, 5.0)

    play(scenario)


# Snapshots


class Source:
    """Chunks to send, counted as they are taken; says whether it was closed."""

    def __init__(self, count: int, size_bytes: int = 1_000) -> None:
        self.count = count
        self.size_bytes = size_bytes
        self.taken_count = 0
        self.is_closed = False
        self.error: Exception | None = None
        self.pause_after = count
        self.is_paused = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            for number in range(self.count):
                if number == self.pause_after:
                    self.is_paused.set()
                    await asyncio.Event().wait()
                self.taken_count += 1
                yield number.to_bytes(4, "big") * (self.size_bytes // 4)
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


def test_a_snapshot_arrives_whole_and_is_accepted(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        source = Source(50, 100_000)
        await first.transport.send_snapshot(2, source.chunks())
        assert second.handler.chunks == [chunk async for chunk in Source(50, 100_000).chunks()]
        assert source.is_closed
        assert first.transport.stats.snapshots_sent == 1
        assert second.transport.stats.snapshots_received == 1

    play(scenario)


def test_a_snapshot_without_chunks_is_still_judged(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        await first.transport.send_snapshot(2, Source(0).chunks())
        assert second.transport.stats.snapshots_received == 1

    play(scenario)


@pytest.mark.parametrize("read_count", [0, 3, 20])
def test_a_refused_snapshot_brings_the_reason_whenever_it_is_refused(play: Play, read_count: int) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            for _ in range(read_count):
                await anext(chunks)
            raise PeerProtocolError("checksum of file 7 is wrong")

        second.handler.take = take
        source = Source(20)
        with pytest.raises(Rejected, match="checksum of file 7 is wrong"):
            await first.transport.send_snapshot(2, source.chunks())
        assert source.is_closed
        assert second.transport.stats.snapshots_refused == 1

    play(scenario)


def test_a_slow_receiver_holds_back_the_sender(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        source = Source(40, 1 << 20)
        may_take = asyncio.Semaphore(0)
        taken_counts: list[int] = []

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            async for _ in chunks:
                taken_counts.append(source.taken_count)
                second.handler.note()
                await may_take.acquire()

        second.handler.take = take
        sending = asyncio.create_task(first.transport.send_snapshot(2, source.chunks()))
        for number in range(source.count):
            await second.handler.until(_is_longer(taken_counts, number))
            # At most: one with the consumer, the window under way, one in the sender's hand.
            assert source.taken_count <= number + 1 + FAST.snapshot_window_chunks + 1
            may_take.release()
        await sending

    play(scenario)


def test_the_source_s_own_error_is_raised_and_the_receiver_sees_a_broken_stream(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            try:
                async for _ in chunks:
                    pass
            except Unavailable as error:
                failed.set_result(error)
                raise

        second.handler.take = take
        source = Source(3)
        source.error = OSError("disk on fire")
        with pytest.raises(OSError, match="disk on fire"):
            await first.transport.send_snapshot(2, source.chunks())
        assert "stream broke" in str(await failed)

    play(scenario)


def test_a_cancelled_snapshot_ends_at_both_ends(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            try:
                async for _ in chunks:
                    pass
            except Unavailable as error:
                ended.set_result(str(error))
                raise

        second.handler.take = take
        source = Source(10)
        source.pause_after = 5
        sending = asyncio.create_task(first.transport.send_snapshot(2, source.chunks()))
        await source.is_paused.wait()
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert sending.cancelled()
        assert "stream broke" in await ended
        assert source.is_closed

    play(scenario)


def test_a_newer_snapshot_replaces_one_that_hangs_and_waits_for_its_end(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        third = await world.start(3)
        third.transport.set_peers({2: second.address})
        story: list[str] = []

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            story.append(f"begin {sender}")
            try:
                async for _ in chunks:
                    pass
            finally:
                await asyncio.sleep(0)
                story.append(f"end {sender}")

        second.handler.take = take
        hanging = Source(10)
        hanging.pause_after = 5
        old = asyncio.create_task(first.transport.send_snapshot(2, hanging.chunks()))
        await hanging.is_paused.wait()
        await third.transport.send_snapshot(2, Source(10).chunks())
        assert story == ["begin 1", "end 1", "begin 3", "end 3"]
        old.cancel()
        await asyncio.wait((old,))

    play(scenario)


def test_a_snapshot_to_a_stranger_or_a_refusing_node_is_unavailable(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        for member_id, reason in ((99, "member 99 is not a peer"), (2, "we do not know you")):
            second.handler.refusal = "we do not know you"
            source = Source(1)
            with pytest.raises(Unavailable, match=reason):
                await first.transport.send_snapshot(member_id, source.chunks())

    play(scenario)


def test_a_receiver_that_goes_away_is_unavailable(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()
        has_begun = asyncio.Event()

        async def take(sender: int, chunks: AsyncIterator[bytes]) -> None:
            await anext(chunks)
            has_begun.set()
            await asyncio.Event().wait()

        second.handler.take = take
        sending = asyncio.create_task(first.transport.send_snapshot(2, Source(100).chunks()))
        await has_begun.wait()
        await second.transport.stop()
        with pytest.raises(Unavailable, match="stream broke"):
            await sending

    play(scenario)


def test_frames_flow_while_a_snapshot_is_held_back(play: Play) -> None:
    async def scenario(world: World) -> None:
        first, second = await world.pair()

        async def hold(sender: int, chunks: AsyncIterator[bytes]) -> None:
            await asyncio.Event().wait()

        second.handler.take = hold
        sending = asyncio.create_task(first.transport.send_snapshot(2, Source(100, 1 << 20).chunks()))
        await _exchange(first, second, 20)
        sending.cancel()
        await asyncio.wait((sending,))

    play(scenario)


def _is_longer(records: Sequence[object], count: int) -> Callable[[], bool]:
    return lambda: len(records) > count


async def _exchange(first: Node, second: Node, count: int) -> None:
    for number in range(count):
        first.transport.send(2, 1, b"heartbeat")
        await second.handler.until(_is_longer(second.handler.frames, number))
        second.transport.send(1, 1, b"answer")
        await first.handler.until(_is_longer(first.handler.frames, number))


def test_a_recorder_is_a_handler() -> None:
    """The fake obeys the contract that it stands for; mypy reads this, and it fails if a name is missing."""
    from raftkv.transport import TransportHandler

    handler: TransportHandler = Recorder()
    assert handler.accept_peer(PeerIdentity(1, 2, "node2")) == ""

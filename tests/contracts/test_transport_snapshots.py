"""What every `PeerTransport` promises of snapshots: one suite for TCP on both loops and the memory network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from raftkv.errors import PeerProtocolError, Rejected, Unavailable
from tests.contracts.playing import Play
from tests.transport.world import FAST, Node, World


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

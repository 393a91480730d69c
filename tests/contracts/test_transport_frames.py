"""What every `PeerTransport` promises of frames and peers: one suite for TCP on both loops and the memory network."""

from __future__ import annotations

import pytest

from raftkv.errors import PeerProtocolError, TooLarge
from raftkv.transport import PeerIdentity, TransportSettings
from tests.contracts.playing import Play
from tests.transport.world import CLUSTER_ID, Recorder, World


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


def test_a_recorder_is_a_handler() -> None:
    """The fake obeys the contract that it stands for; mypy reads this, and it fails if a name is missing."""
    from raftkv.transport import TransportHandler

    handler: TransportHandler = Recorder()
    assert handler.accept_peer(PeerIdentity(1, 2, "node2")) == ""

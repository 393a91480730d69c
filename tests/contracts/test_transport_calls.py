"""What every `PeerTransport` promises of calls: one suite for TCP on both loops and the memory network."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.errors import (
    InvalidInput,
    KeyNotFound,
    MembershipRefused,
    NotLeader,
    OutcomeUnknown,
    Rejected,
    TooLarge,
    Unavailable,
)
from raftkv.transport import TransportSettings
from tests.contracts.playing import Play
from tests.transport.world import World


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

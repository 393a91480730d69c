"""The memory network by hand: what a simulator needs beyond the shared contract."""

from __future__ import annotations

import pytest

from raftkv.errors import Unavailable
from raftkv.transport import MemoryNetwork
from tests.transport.world import Node, World, run, world


async def pair(made: World) -> tuple[MemoryNetwork, Node, Node]:
    first, second = await made.pair()
    assert made.network is not None
    return made.network, first, second


def test_nothing_moves_until_it_is_delivered() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            network, first, second = await pair(made)
            first.transport.send(2, 1, b"a")
            first.transport.send(2, 1, b"b")
            assert second.handler.frames == []
            assert network.deliver(network.in_flight[1])
            assert second.handler.payloads == [b"b"]
            network.drop(network.in_flight[0])
            assert network.deliver_all() == 0
            assert second.handler.payloads == [b"b"]

    run(scenario)


def test_a_partition_loses_frames_silently_and_breaks_calls_until_it_heals() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            network, first, second = await pair(made)
            first.transport.send(2, 1, b"under way")
            network.partition({first.address}, {second.address})
            assert first.transport.send(2, 1, b"lost")
            assert network.deliver_all() == 0
            with pytest.raises(Unavailable, match="no answer in time"):
                await first.transport.call(second.address, 1, b"", 5.0)
            assert first.handler.unreachable == []
            network.heal()
            first.transport.send(2, 1, b"healed")
            assert network.deliver_all() == 1
            assert second.handler.payloads == [b"healed"]

    run(scenario)


def test_one_direction_can_be_blocked_alone() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            network, first, second = await pair(made)
            network.block(first.address, second.address)
            first.transport.send(2, 1, b"lost")
            second.transport.send(1, 1, b"arrives")
            assert network.deliver_all() == 1
            assert first.handler.payloads == [b"arrives"]
            assert second.handler.payloads == []

    run(scenario)


def test_what_an_old_life_sent_does_not_count_as_the_new_one_s() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            network, first, second = await pair(made)
            first.transport.send(2, 1, b"from member 1")
            first.transport.set_identity(World.identity_of(9))
            assert network.deliver_all() == 1
            assert second.handler.frames == [(1, 1, b"from member 1")]

    run(scenario)


def test_nodes_that_never_fall_silent_are_an_error() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            network, first, second = await pair(made)
            first.handler.react = lambda: first.transport.send(2, 1, b"ping")
            second.handler.react = lambda: second.transport.send(1, 1, b"pong")
            first.transport.send(2, 1, b"ping")
            with pytest.raises(RuntimeError, match="still not quiet"):
                network.deliver_all(max_count=100)

    run(scenario)


def test_an_address_is_used_by_one_node_at_a_time() -> None:
    async def scenario() -> None:
        async with world(MemoryNetwork()) as made:
            _, first, _ = await pair(made)
            with pytest.raises(OSError, match="in use"):
                await made.start(3, port=first.port)

    run(scenario)

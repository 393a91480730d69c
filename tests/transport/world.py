"""What the transport's tests share: a handler that records and can be waited for, and nodes that are always stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import uvloop

from raftkv.errors import Rejected
from raftkv.transport import (
    MemoryNetwork,
    MemoryTransport,
    PeerIdentity,
    PeerTransport,
    Transport,
    TransportSettings,
)

CLUSTER_ID = 0x7007
PATIENCE_S = 10.0
"""Longer than anything here takes; a test that reaches it has failed."""

FAST = TransportSettings(backoff_min_ms=5, backoff_max_ms=50)


def run(scenario: Callable[[], Coroutine[Any, Any, None]], loop_name: str = "uvloop") -> None:
    """Run to the end; a task left behind or an error that only the loop saw fails the test."""
    factory = uvloop.new_event_loop if loop_name == "uvloop" else asyncio.new_event_loop
    loop_errors: list[dict[str, Any]] = []

    async def guarded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
        async with asyncio.timeout(PATIENCE_S):
            await scenario()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(guarded())
    assert not loop_errors


class Recorder:
    """A `TransportHandler` that takes everything and remembers it. `until` waits for what it should have seen."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.unreachable: list[int] = []
        self.accepted: list[int] = []
        self.refusal = ""
        self.frame_error: Exception | None = None
        self.react: Callable[[], object] | None = None
        self.answer: Callable[[int, bytes], Coroutine[Any, Any, bytes]] | None = None
        self.take: Callable[[int, AsyncIterator[bytes]], Coroutine[Any, Any, None]] | None = None
        self.chunks: list[bytes] = []
        self._changed = asyncio.Event()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, _, payload in self.frames]

    def on_frame(self, sender: int, kind: int, payload: bytes) -> None:
        if self.frame_error is not None:
            raise self.frame_error
        self.frames.append((sender, kind, payload))
        self.note()
        if self.react is not None:
            self.react()

    def on_unreachable(self, member_id: int) -> None:
        self.unreachable.append(member_id)
        self.note()

    def accept_peer(self, peer: PeerIdentity) -> str:
        if not self.refusal:
            self.accepted.append(peer.member_id)
        self.note()
        return self.refusal

    async def on_call(self, kind: int, payload: bytes) -> bytes:
        if self.answer is None:
            raise Rejected("no calls here")
        return await self.answer(kind, payload)

    async def on_snapshot(self, sender: int, chunks: AsyncIterator[bytes]) -> None:
        if self.take is not None:
            await self.take(sender, chunks)
            return
        async for chunk in chunks:
            self.chunks.append(chunk)
            self.note()

    def note(self) -> None:
        """Something happened: wake whoever waits in `until`."""
        self._changed.set()

    async def until(self, condition: Callable[[], object], nudge: Callable[[], object] | None = None) -> None:
        """Wait for a condition on what was recorded; `nudge` is done first and then again every 20 ms."""
        while not condition():
            self._changed.clear()
            if nudge is None:
                await self._changed.wait()
                continue
            nudge()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await self._changed.wait()


class Node:
    """A transport, its handler and its address."""

    def __init__(self, transport: PeerTransport, handler: Recorder, address: str) -> None:
        self.transport = transport
        self.handler = handler
        self.address = address

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def error_about(self, member_id: int) -> str:
        return self.transport.stats.peers[member_id].last_error


class World:
    """Nodes of one kind of transport; leaving the context stops them all."""

    def __init__(self, network: MemoryNetwork | None = None) -> None:
        self.network = network
        self.nodes: list[Node] = []

    @staticmethod
    def identity_of(member_id: int, cluster_id: int = CLUSTER_ID) -> PeerIdentity:
        return PeerIdentity(cluster_id, member_id, f"node{member_id}")

    async def start(
        self,
        member_id: int,
        *,
        cluster_id: int = CLUSTER_ID,
        settings: TransportSettings = FAST,
        port: int = 0,
        handler: Recorder | None = None,
    ) -> Node:
        handler = handler or Recorder()
        identity = self.identity_of(member_id, cluster_id)
        transport: PeerTransport
        if self.network is None:
            transport = Transport(identity, handler, settings)
        else:
            transport = MemoryTransport(identity, handler, settings, network=self.network)
        bound_port = await transport.start("127.0.0.1", port)
        node = Node(transport, handler, f"127.0.0.1:{bound_port}")
        self.nodes.append(node)
        return node

    async def pair(self, settings: TransportSettings = FAST) -> tuple[Node, Node]:
        """Members 1 and 2, each a peer of the other."""
        first, second = await self.start(1, settings=settings), await self.start(2, settings=settings)
        addresses = {1: first.address, 2: second.address}
        first.transport.set_peers(addresses)
        second.transport.set_peers(addresses)
        return first, second


@contextlib.asynccontextmanager
async def world(network: MemoryNetwork | None = None) -> AsyncIterator[World]:
    made = World(network)
    try:
        yield made
    finally:
        for node in made.nodes:
            await node.transport.stop()

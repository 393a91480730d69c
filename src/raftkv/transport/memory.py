"""A whole network in one process: the same contract as TCP, with frames delivered by hand and faults on demand.

Frames lie in `MemoryNetwork.in_flight`, oldest first, until somebody delivers, drops or reorders them; nothing
here looks at a clock or draws a random number, so the same calls give the same run. With
`is_automatic` the loop delivers each frame on its next turn. A blocked link loses frames silently, as a
partition does; a stopped node, a wrong cluster or a wrong recipient is noticed and told to `on_unreachable`.
Calls and snapshots run the real code of their modules over a pipe, which a block breaks.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping

from raftkv.errors import PeerProtocolError, TooLarge, Unavailable
from raftkv.transport.address import parse_address
from raftkv.transport.calls import CallClient
from raftkv.transport.contract import PeerIdentity, TransportHandler
from raftkv.transport.dialing import Dialed
from raftkv.transport.framing import HEADER_BYTES, ConnectionRefusal
from raftkv.transport.handshake import MAGIC, PROTOCOL_VERSION, Hello, Purpose, check_hello
from raftkv.transport.pipe import Pipe, open_pipe
from raftkv.transport.services import Services
from raftkv.transport.settings import TransportSettings
from raftkv.transport.snapshots import send_snapshot
from raftkv.transport.stats import PeerStats, TransportStats
from raftkv.types import NOBODY, MemberId


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One frame under way. `identity` is the sender's when it sent, so an old life's frames are told apart."""

    source: str
    destination: str
    identity: PeerIdentity
    recipient: MemberId
    kind: int
    payload: bytes


class MemoryNetwork:
    """Addresses are `host:port` texts, as everywhere; a node is on the network from `start` to `stop`."""

    def __init__(self, is_automatic: bool = False) -> None:
        self.is_automatic = is_automatic
        self.in_flight: list[Packet] = []
        self.nodes: dict[str, MemoryTransport] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._pipes: list[Pipe] = []
        self._next_port = 1

    # Faults

    def block(self, source: str, destination: str) -> None:
        """Lose everything from source to destination, silently, from now on; one direction only."""
        self._blocked.add((source, destination))
        for pipe in self._pipes:
            if {source, destination} == {pipe.source, pipe.destination}:
                pipe.break_off("the network is partitioned")

    def partition(self, *groups: set[str]) -> None:
        """Block both directions between any two addresses of different groups."""
        for group in groups:
            for other in groups:
                if group is not other:
                    for source in group:
                        for destination in other:
                            self.block(source, destination)

    def heal(self) -> None:
        self._blocked.clear()

    def is_blocked(self, source: str, destination: str) -> bool:
        return (source, destination) in self._blocked

    def drop(self, packet: Packet) -> None:
        self.in_flight.remove(packet)

    # Delivery

    def deliver(self, packet: Packet) -> bool:
        """Deliver one packet in flight, not necessarily the oldest; False if it was lost instead."""
        self.in_flight.remove(packet)
        sender = self.nodes.get(packet.source)
        if sender is not None:
            sender.packet_left(packet)
        if self.is_blocked(packet.source, packet.destination):
            return False
        refusal = self.refusal(packet.identity, packet.destination, packet.recipient)
        if refusal:
            if sender is not None:
                sender.link_failed(packet)
            return False
        self.nodes[packet.destination].receive(packet)
        return True

    def deliver_all(self, max_count: int = 10_000) -> int:
        """Deliver oldest first until nothing is in flight, answers included; returns how many arrived.

        Raises `RuntimeError` after `max_count`, because nodes that never fall silent would hang a test.
        """
        arrived = 0
        for _ in range(max_count):
            if not self.in_flight:
                return arrived
            arrived += self.deliver(self.in_flight[0])
        raise RuntimeError(f"{max_count} packets were delivered and the network is still not quiet")

    # For the nodes

    def add(self, node: MemoryTransport, host: str, port: int) -> str:
        while port == 0 or f"{host}:{port}" in self.nodes:
            if port:
                raise OSError(f"address {host}:{port} is in use")
            if f"{host}:{self._next_port}" not in self.nodes:
                port = self._next_port
            self._next_port += 1
        self.nodes[f"{host}:{port}"] = node
        return f"{host}:{port}"

    def remove(self, address: str) -> None:
        self.nodes.pop(address, None)
        for pipe in self._pipes:
            if address in (pipe.source, pipe.destination):
                pipe.break_off("closed by the other side")

    def post(self, packet: Packet) -> None:
        self.in_flight.append(packet)
        if self.is_automatic:
            asyncio.get_running_loop().call_soon(self._deliver_automatically, packet)

    def _deliver_automatically(self, packet: Packet) -> None:
        if any(packet is waiting for waiting in self.in_flight):
            self.deliver(packet)

    def refusal(self, identity: PeerIdentity, destination: str, recipient: MemberId) -> str:
        """Why a peer connection could not be made now; "" if it could."""
        node = self.nodes.get(destination)
        if node is None:
            return f"cannot reach {destination}: connection refused"
        try:
            node.check(_hello(identity, Purpose.PEER, recipient))
        except ConnectionRefusal as error:
            return f"{destination} refused the connection: {error}"
        return ""

    def connect(self, source: str, destination: str, hello: Hello) -> Dialed:
        """A pipe for a call or a snapshot; raises `Unavailable`."""
        parse_address(destination)
        node = self.nodes.get(destination)
        if node is None:
            raise Unavailable(f"cannot reach {destination}: connection refused")
        if self.is_blocked(source, destination) or self.is_blocked(destination, source):
            raise Unavailable(f"cannot reach {destination}: no answer in time")
        try:
            node.check(hello)
        except ConnectionRefusal as error:
            raise Unavailable(f"{destination} refused the connection: {error}") from error
        self._pipes = [pipe for pipe in self._pipes if pipe.is_open]
        pipe = open_pipe(source, destination)
        self._pipes.append(pipe)
        pipe.when_lost = node.services.serve(pipe.inbound, hello)
        return Dialed(pipe.outbound, pipe.inbox)


def _hello(identity: PeerIdentity, purpose: Purpose, recipient: MemberId) -> Hello:
    me = identity
    return Hello(MAGIC, PROTOCOL_VERSION, purpose, me.cluster_id, me.member_id, me.node_id, recipient, me.raft_address)


@dataclasses.dataclass(slots=True)
class _MemoryDialer:
    network: MemoryNetwork
    source: str = ""

    async def dial(
        self, address: str, identity: PeerIdentity, purpose: Purpose, recipient: MemberId = NOBODY
    ) -> Dialed:
        return self.network.connect(self.source, address, _hello(identity, purpose, recipient))


class MemoryTransport:
    """A `PeerTransport` on a `MemoryNetwork`."""

    def __init__(
        self,
        identity: PeerIdentity,
        handler: TransportHandler,
        settings: TransportSettings | None = None,
        *,
        network: MemoryNetwork,
    ) -> None:
        self._settings = settings = settings or TransportSettings()
        self._identity = identity
        self._handler = handler
        self._network = network
        self._stats = TransportStats()
        self._dialer = _MemoryDialer(network)
        self._calls = CallClient(self._dialer, settings.max_call_bytes)
        self._addresses: dict[MemberId, str] = {}
        self._queued_bytes: dict[MemberId, int] = {}
        self.address = ""
        self.services = Services(
            handler,
            settings,
            self._stats,
            lambda member_id: member_id in self._addresses,
            lambda _: PeerStats(),
            lambda _: None,
        )

    @property
    def stats(self) -> TransportStats:
        for member_id, stats in self._stats.peers.items():
            refusal = self._refusal(member_id)
            stats.is_connected, stats.last_error = not refusal, refusal
        return self._stats

    @property
    def identity(self) -> PeerIdentity:
        return self._identity

    async def start(self, host: str, port: int) -> int:
        self.address = self._dialer.source = self._network.add(self, host, port)
        return parse_address(self.address)[1]

    async def stop(self) -> None:
        self._network.remove(self.address)
        self.address = ""
        self._calls.abort()
        await self.services.stop()

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        self._addresses = {m: address for m, address in addresses.items() if m != self._identity.member_id}
        self._stats.peers = {
            member_id: self._stats.peers.get(member_id) or PeerStats() for member_id in self._addresses
        }
        for member_id, address in self._addresses.items():
            self._stats.peers[member_id].address = address

    def set_identity(self, identity: PeerIdentity) -> None:
        self._identity = identity
        self.set_peers(self._addresses)

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool:
        if len(payload) > self._settings.max_frame_bytes:
            raise TooLarge("a frame to a peer", len(payload), self._settings.max_frame_bytes)
        stats = self._stats.peers.get(member_id)
        if stats is None:
            return False
        frame_bytes = HEADER_BYTES + len(payload)
        queued_bytes = self._queued_bytes.get(member_id, 0) + frame_bytes
        if queued_bytes > self._settings.max_queue_bytes or not self.address:
            stats.frames_dropped += 1
            stats.bytes_dropped += frame_bytes
            return False
        self._queued_bytes[member_id] = queued_bytes
        stats.frames_sent += 1
        stats.bytes_sent += frame_bytes
        packet = Packet(self.address, self._addresses[member_id], self._identity, member_id, kind, payload)
        # Posted even if the other end is gone: that shows when it is delivered, as a lost connection does.
        self._network.post(packet)
        return True

    def flush(self) -> None:
        """Every frame has left already."""

    async def call(self, address: str, kind: int, payload: bytes, timeout: float) -> bytes:
        return await self._calls.call(self._identity, address, kind, payload, timeout)

    async def send_snapshot(self, member_id: MemberId, chunks: AsyncIterator[bytes]) -> None:
        async def dial() -> Dialed:
            address = self._addresses.get(member_id)
            if address is None:
                raise Unavailable(f"member {member_id} is not a peer")
            return await self._dialer.dial(address, self._identity, Purpose.SNAPSHOT, member_id)

        await send_snapshot(dial, chunks, self._settings, self._stats)

    # For the network

    def check(self, hello: Hello) -> None:
        """Raises `ConnectionRefusal` as the TCP listener would."""
        check_hello(hello, self._identity)
        self.services.check_admission(hello)

    def packet_left(self, packet: Packet) -> None:
        self._queued_bytes[packet.recipient] -= HEADER_BYTES + len(packet.payload)

    def link_failed(self, packet: Packet) -> None:
        if packet.identity == self._identity and packet.recipient in self._addresses:
            self._handler.on_unreachable(packet.recipient)

    def receive(self, packet: Packet) -> None:
        stats = self._stats.peers.get(packet.identity.member_id)
        if stats is not None:
            stats.frames_received += 1
            stats.bytes_received += HEADER_BYTES + len(packet.payload)
        try:
            self._handler.on_frame(packet.identity.member_id, packet.kind, packet.payload)
        except PeerProtocolError:
            self._stats.count_refused("payload")

    def _refusal(self, member_id: MemberId) -> str:
        if not self.address:
            return "not started"
        return self._network.refusal(self._identity, self._addresses[member_id], member_id)

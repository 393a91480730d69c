"""The transport over TCP: the parts put together. See `contract` for what it promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from raftkv.errors import TooLarge, Unavailable
from raftkv.transport.calls import CallClient
from raftkv.transport.contract import PeerIdentity, TransportHandler
from raftkv.transport.dialing import Dialed, TcpDialer
from raftkv.transport.handshake import Purpose
from raftkv.transport.listener import Listener
from raftkv.transport.peers import PeerLink
from raftkv.transport.services import Services
from raftkv.transport.settings import TransportSettings
from raftkv.transport.snapshots import send_snapshot
from raftkv.transport.stats import PeerStats, Traffic, TransportStats
from raftkv.transport.tasks import TaskSet
from raftkv.transport.tls import client_context, server_context
from raftkv.types import MemberId


class Transport:
    """A `PeerTransport`. Made, used and stopped on one running loop; raises `SettingsError` for unusable TLS files."""

    def __init__(
        self, identity: PeerIdentity, handler: TransportHandler, settings: TransportSettings | None = None
    ) -> None:
        self._settings = settings = settings or TransportSettings()
        self._identity = identity
        self._handler = handler
        self._max_frame_bytes = settings.max_frame_bytes
        self._stats = TransportStats()
        tls = settings.tls
        self._dialer = TcpDialer(
            settings.dial_timeout_ms / 1000,
            settings.write_stall_timeout_ms / 1000,
            client_context(tls) if tls else None,
        )
        self._services = Services(
            handler, settings, self._stats, self._is_member, self._peer_traffic, self._peer_dialed_us
        )
        self._listener = Listener(identity, settings, self._stats, server_context(tls) if tls else None, self._services)
        self._calls = CallClient(self._dialer, settings.max_call_bytes)
        self._addresses: dict[MemberId, str] = {}
        self._links: dict[MemberId, PeerLink] = {}
        self._tasks = TaskSet()
        self._is_running = False

    @property
    def stats(self) -> TransportStats:
        return self._stats

    @property
    def identity(self) -> PeerIdentity:
        return self._identity

    async def start(self, host: str, port: int) -> int:
        """Listen and dial; returns the port. Raises `OSError` if the address cannot be bound."""
        bound_port = await self._listener.start(host, port)
        self._is_running = True
        self._reconcile()
        return bound_port

    async def stop(self) -> None:
        """Idempotent. Frames that were queued get a moment to leave, so a last `TimeoutNow` is not lost."""
        self._is_running = False
        self._reconcile()
        self._calls.abort()
        await self._tasks.join()
        await self._listener.stop()

    def set_peers(self, addresses: Mapping[MemberId, str]) -> None:
        self._addresses = dict(addresses)
        self._reconcile()

    def set_identity(self, identity: PeerIdentity) -> None:
        self._identity = self._listener.identity = identity
        self._listener.drop_peers("this node has a new identity")
        for member_id in tuple(self._links):
            self._retire(member_id)
        self._reconcile()

    def send(self, member_id: MemberId, kind: int, payload: bytes) -> bool:
        if len(payload) > self._max_frame_bytes:
            raise TooLarge("a frame to a peer", len(payload), self._max_frame_bytes)
        link = self._links.get(member_id)
        return link is not None and link.send(kind, payload)

    def flush(self) -> None:
        for link in self._links.values():
            link.flush()

    async def call(self, address: str, kind: int, payload: bytes, timeout: float) -> bytes:
        return await self._calls.call(self._identity, address, kind, payload, timeout)

    async def send_snapshot(self, member_id: MemberId, chunks: AsyncIterator[bytes]) -> None:
        async def dial() -> Dialed:
            address = self._addresses.get(member_id)
            if address is None:
                raise Unavailable(f"member {member_id} is not a peer")
            return await self._dialer.dial(address, self._identity, Purpose.SNAPSHOT, member_id)

        await send_snapshot(dial, chunks, self._settings, self._stats)

    def _reconcile(self) -> None:
        """Make the links be those that the addresses ask for. An address that changed is dialled at once."""
        wanted = self._addresses if self._is_running else {}
        for member_id, link in tuple(self._links.items()):
            if wanted.get(member_id) != link.stats.address:
                self._retire(member_id)
        for member_id, address in wanted.items():
            if member_id not in self._links and member_id != self._identity.member_id:
                self._connect(member_id, address)
        self._services.refresh_traffic()

    def _connect(self, member_id: MemberId, address: str) -> None:
        stats = self._stats.peers.setdefault(member_id, PeerStats())
        stats.address = address
        self._links[member_id] = PeerLink(
            member_id,
            identity=self._identity,
            dialer=self._dialer,
            settings=self._settings,
            stats=stats,
            on_unreachable=self._handler.on_unreachable,
        )

    def _retire(self, member_id: MemberId) -> None:
        link = self._links.pop(member_id)
        link.retire()
        stats = self._stats.peers[member_id]
        stats.is_connected = False
        if member_id not in self._addresses:
            del self._stats.peers[member_id]
        self._tasks.spawn(link.wait_retired(), name=f"retire peer {member_id}")

    def _is_member(self, member_id: MemberId) -> bool:
        return member_id in self._addresses

    def _peer_traffic(self, member_id: MemberId) -> Traffic:
        """A member that dials us before our configuration names it counts for nobody."""
        return self._stats.peers.get(member_id) or Traffic()

    def _peer_dialed_us(self, member_id: MemberId) -> None:
        link = self._links.get(member_id)
        if link is not None:
            link.redial_now()

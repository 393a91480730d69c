"""The peer port: accepts anybody, believes nobody, and holds a bounded amount for each.

A new connection may send one frame of at most 64 KiB, a valid hello, within `handshake_timeout_ms`. When
`max_handshakes` connections are at that stage the oldest is dropped for the newest: an honest node is
through within a round trip, so those who linger are the ones to lose. (Refusing the newest instead would let
a few idle sockets lock every node out.) Whatever goes wrong, only that connection ends, and is counted.

Connections are accepted here rather than by the loop's server, because that one tells nobody about
connections that have not finished their TLS handshake, so those could not be bounded.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable

from raftkv.errors import PeerProtocolError
from raftkv.transport.connection import FrameConnection
from raftkv.transport.contract import PeerIdentity
from raftkv.transport.framing import MAX_HANDSHAKE_BYTES, ConnectionRefusal, FrameKind, RefusalReason
from raftkv.transport.handshake import Hello, Purpose, check_hello, decode_hello, encode_reply
from raftkv.transport.services import Services
from raftkv.transport.settings import TransportSettings
from raftkv.transport.stats import TransportStats
from raftkv.transport.tasks import TaskSet

logger = logging.getLogger(__name__)

BACKLOG = 128
ACCEPT_RETRY_S = 0.5


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of `host`, all on one port; raises `OSError` and then leaves none behind.

    An address of a family that this machine has switched off (`localhost` is often `::1` as well) is passed over
    as long as another one works.
    """
    addresses = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    unusable: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        chosen_port = bound[0].getsockname()[1] if bound else address[1]
        try:
            sock = socket.create_server((address[0], chosen_port, *address[2:]), family=family, backlog=BACKLOG)
        except OSError as error:
            unusable = error
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue
            for sock in bound:
                sock.close()
            raise
        sock.setblocking(False)
        bound.append(sock)
    if not bound:
        raise unusable or OSError(f"{host!r} has no address")
    return bound


class Inbound:
    """One accepted connection, from the accept to its end. It is counted from the first moment."""

    def __init__(self, on_hello: Callable[[Inbound, bytes], None], on_lost: Callable[[Inbound], None]) -> None:
        self.hello: Hello | None = None
        self.when_lost: Callable[[str], None] | None = None
        self.setup: asyncio.Task[None] | None = None
        self.accepted: socket.socket | None = None
        self.connection = FrameConnection(MAX_HANDSHAKE_BYTES, self._on_frame, self._on_lost)
        self._on_hello = on_hello
        self._listener_on_lost = on_lost

    def abort(self, reason: str) -> None:
        """End it at whatever stage it is; its end is reported later, as every loss is."""
        self.connection.abort(reason)
        if self.setup is not None:
            self.setup.cancel()
        if self.accepted is not None:
            # The setup has not begun and never will; from its beginning on the socket is the loop's to close.
            self.accepted.close()

    def _on_frame(self, kind: int, payload: bytes) -> None:
        if kind != FrameKind.HELLO:
            raise ConnectionRefusal(RefusalReason.HANDSHAKE, f"a frame of kind {kind} before the hello")
        self._on_hello(self, payload)

    def _on_lost(self, reason: str) -> None:
        self._listener_on_lost(self)
        if self.when_lost is not None:
            self.when_lost(reason)


class Listener:
    """Accepts, limits and shakes hands; what an accepted connection then does is the business of `Services`."""

    def __init__(
        self,
        identity: PeerIdentity,
        settings: TransportSettings,
        stats: TransportStats,
        tls: ssl.SSLContext | None,
        services: Services,
    ) -> None:
        self.identity = identity
        self._settings = settings
        self._stats = stats
        self._tls = tls
        self._services = services
        self._sockets: list[socket.socket] = []
        self._accepting = TaskSet()
        self._setups = TaskSet()
        self._open: set[Inbound] = set()
        self._handshakes: dict[Inbound, asyncio.TimerHandle] = {}

    async def start(self, host: str, port: int) -> int:
        try:
            self._sockets = await bind(host, port)
        except OSError as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            text = f"cannot listen for other nodes on {host} port {port} (settings raft_host, raft_port): {reason}"
            raise OSError(error.errno, text) from error
        for listening in self._sockets:
            self._accepting.spawn(self._accept_forever(listening), name=f"accept on {listening.getsockname()}")
        return int(self._sockets[0].getsockname()[1])

    async def stop(self) -> None:
        await self._accepting.stop()
        for listening in self._sockets:
            listening.close()
        for inbound in tuple(self._open):
            inbound.abort("this node is stopping")
        await self._setups.stop()
        await self._services.stop()

    def drop_peers(self, reason: str) -> None:
        """End accepted peer connections and snapshots; calls go on."""
        for inbound in tuple(self._open):
            if inbound.hello is not None and inbound.hello.purpose is not Purpose.CALL:
                inbound.abort(reason)

    async def _accept_forever(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                # Out of descriptors, most likely: without a pause this would spin until somebody closes one.
                logger.warning("cannot accept connections on the peer port: %s", error)
                await asyncio.sleep(ACCEPT_RETRY_S)
            else:
                self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        """Count the connection from its first moment, and bring it to where it can say hello."""
        if len(self._handshakes) >= self._settings.max_handshakes:
            self._refuse(next(iter(self._handshakes)), RefusalReason.TOO_MANY, "too many connections without a hello")
        inbound = Inbound(self._shake_hands, self._forget)
        inbound.connection.on_refused = lambda error: self._note_refused(inbound, error)
        inbound.connection.write_stall_timeout_s = self._settings.write_stall_timeout_ms / 1000
        self._open.add(inbound)
        self._handshakes[inbound] = asyncio.get_running_loop().call_later(
            self._settings.handshake_timeout_ms / 1000,
            self._refuse,
            inbound,
            RefusalReason.TIMEOUT,
            "no hello in time",
        )
        self._count()
        inbound.accepted = accepted
        inbound.setup = self._setups.spawn(self._set_up(inbound, accepted), name="set up an accepted connection")

    async def _set_up(self, inbound: Inbound, accepted: socket.socket) -> None:
        inbound.accepted = None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: inbound.connection,
                accepted,
                ssl=self._tls,
                # Longer than our own limit, which counts what it ends.
                ssl_handshake_timeout=2 * self._settings.handshake_timeout_ms / 1000 if self._tls else None,
            )
        except OSError as error:
            self._refuse(inbound, RefusalReason.TLS, f"TLS handshake failed: {error}")

    def _shake_hands(self, inbound: Inbound, payload: bytes) -> None:
        self._end_handshake(inbound)
        connection = inbound.connection
        try:
            hello = decode_hello(payload)
            check_hello(hello, self.identity)
            self._services.check_admission(hello)
        except ConnectionRefusal as refusal:
            self._note_refused(inbound, refusal)
            connection.send_frame(FrameKind.HELLO_REPLY, encode_reply(self.identity, refusal))
            connection.close(str(refusal))
            return
        inbound.hello = hello
        self._stats.inbound_accepted += 1
        connection.send_frame(FrameKind.HELLO_REPLY, encode_reply(self.identity, None))
        inbound.when_lost = self._services.serve(connection, hello)

    def _refuse(self, inbound: Inbound, reason: RefusalReason, text: str) -> None:
        """End a connection that has not shaken hands."""
        self._note_refused(inbound, ConnectionRefusal(reason, text))
        inbound.abort(text)
        # A connection that is still being set up does not report its loss, so it is forgotten here.
        self._forget(inbound)

    def _note_refused(self, inbound: Inbound, error: PeerProtocolError) -> None:
        reason = error.reason if isinstance(error, ConnectionRefusal) else RefusalReason.PAYLOAD
        self._stats.count_refused(reason.value)
        who = f"member {inbound.hello.sender}" if inbound.hello is not None else "a connection"
        # Whoever can reach the port can cause this, so it is counted and not shouted.
        logger.debug("refused %s (%s): %s", who, reason.value, error)

    def _end_handshake(self, inbound: Inbound) -> None:
        timer = self._handshakes.pop(inbound, None)
        if timer is not None:
            timer.cancel()
        self._count()

    def _forget(self, inbound: Inbound) -> None:
        self._open.discard(inbound)
        self._end_handshake(inbound)

    def _count(self) -> None:
        self._stats.inbound_open = len(self._open)
        self._stats.handshakes_open = len(self._handshakes)

"""What an accepted connection is for: a peer's frames, one call, or one snapshot. Each purpose has its bound.

A peer has one connection to us: when it dials again it has lost the old one, which our kernel may not know
for long, so the new one replaces it. Snapshots follow the same rule across senders, because the
newest sender is the one that leads now; the newer handler starts only when the older has ended.

Without TLS whoever knows the cluster id can pose as any number of members. So places are counted for strangers
alone, and a member always has its own: those are as few as the node asked for with `set_peers`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from raftkv.transport.calls import serve_call
from raftkv.transport.connection import FrameConnection, refuse_frame
from raftkv.transport.contract import TransportHandler
from raftkv.transport.framing import MAX_NODE_KIND, ConnectionRefusal, RefusalReason
from raftkv.transport.handshake import Hello, Purpose
from raftkv.transport.settings import TransportSettings
from raftkv.transport.snapshots import SnapshotReceiver
from raftkv.transport.stats import Traffic, TransportStats
from raftkv.transport.tasks import TaskSet
from raftkv.types import MemberId


class Services:
    """`is_member` knows the node's peers, `peer_traffic` their counters; `on_inbound` hears of each accepted peer."""

    def __init__(
        self,
        handler: TransportHandler,
        settings: TransportSettings,
        stats: TransportStats,
        is_member: Callable[[MemberId], bool],
        peer_traffic: Callable[[MemberId], Traffic],
        on_inbound: Callable[[MemberId], None],
    ) -> None:
        self._handler = handler
        self._settings = settings
        self._stats = stats
        self._is_member = is_member
        self._peer_traffic = peer_traffic
        self._on_inbound = on_inbound
        self._tasks = TaskSet()
        self._peers: dict[MemberId, FrameConnection] = {}
        self._waiting_calls: dict[FrameConnection, asyncio.TimerHandle] = {}
        self._running_call_count = 0
        self._snapshot_task: asyncio.Task[None] | None = None
        self._snapshot_lock = asyncio.Lock()

    def check_admission(self, hello: Hello) -> None:
        """Raises `ConnectionRefusal` if the node does not want this peer, or has no room."""
        if hello.purpose is Purpose.CALL:
            if self._call_count() >= self._settings.max_calls:
                raise ConnectionRefusal(RefusalReason.TOO_MANY, "it serves as many calls as it may")
            return
        reason = self._handler.accept_peer(hello.identity)
        if reason:
            raise ConnectionRefusal(RefusalReason.MEMBER, reason)
        if hello.purpose is Purpose.SNAPSHOT or hello.sender in self._peers or self._is_member(hello.sender):
            return
        if self._stranger_count() >= self._settings.max_inbound_peers:
            raise ConnectionRefusal(RefusalReason.TOO_MANY, "it has as many peers as it may")

    def serve(self, connection: FrameConnection, hello: Hello) -> Callable[[str], None]:
        """Begin; returns what to call, with the reason in words, when the connection is lost."""
        match hello.purpose:
            case Purpose.PEER:
                return self._serve_peer(connection, hello.sender)
            case Purpose.CALL:
                return self._await_call(connection)
            case Purpose.SNAPSHOT:
                return self._serve_snapshot(connection, hello.sender)

    def refresh_traffic(self) -> None:
        """The members that count have changed; an accepted peer may have become one of them."""
        for sender, connection in self._peers.items():
            connection.decoder.traffic = self._peer_traffic(sender)

    async def stop(self) -> None:
        for timer in self._waiting_calls.values():
            timer.cancel()
        self._waiting_calls.clear()
        await self._tasks.stop()

    def _serve_peer(self, connection: FrameConnection, sender: MemberId) -> Callable[[str], None]:
        former = self._peers.get(sender)
        self._peers[sender] = connection
        if former is not None:
            former.abort("the peer has dialled again")
        connection.decoder.max_payload_bytes = self._settings.max_frame_bytes
        connection.decoder.max_kind = MAX_NODE_KIND
        connection.decoder.traffic = self._peer_traffic(sender)
        connection.decoder.on_frame = functools.partial(self._handler.on_frame, sender)
        self._on_inbound(sender)
        return functools.partial(self._forget_peer, connection, sender)

    def _stranger_count(self) -> int:
        return sum(not self._is_member(sender) for sender in self._peers)

    def _forget_peer(self, connection: FrameConnection, sender: MemberId, _reason: str) -> None:
        if self._peers.get(sender) is connection:
            del self._peers[sender]

    def _await_call(self, connection: FrameConnection) -> Callable[[str], None]:
        connection.decoder.max_payload_bytes = self._settings.max_call_bytes
        connection.decoder.max_kind = MAX_NODE_KIND
        connection.decoder.on_frame = functools.partial(self._start_call, connection)
        # The request must follow as promptly as the hello did, since a waiting call holds a place.
        self._waiting_calls[connection] = asyncio.get_running_loop().call_later(
            self._settings.handshake_timeout_ms / 1000, self._time_out_call, connection
        )
        self._stats.calls_open = self._call_count()
        return functools.partial(self._forget_call, connection)

    def _time_out_call(self, connection: FrameConnection) -> None:
        self._stats.count_refused(RefusalReason.TIMEOUT.value)
        connection.abort("no request in time")

    def _forget_call(self, connection: FrameConnection, _reason: str) -> None:
        timer = self._waiting_calls.pop(connection, None)
        if timer is not None:
            timer.cancel()
        self._stats.calls_open = self._call_count()

    def _start_call(self, connection: FrameConnection, kind: int, payload: bytes) -> None:
        self._running_call_count += 1
        self._forget_call(connection, "")
        connection.decoder.on_frame = refuse_frame
        self._tasks.spawn(self._serve_call(connection, kind, payload), name="call")

    async def _serve_call(self, connection: FrameConnection, kind: int, payload: bytes) -> None:
        try:
            await serve_call(connection, self._handler, kind, payload, self._settings.max_call_bytes)
            self._stats.calls_served += 1
        finally:
            self._running_call_count -= 1
            self._stats.calls_open = self._call_count()

    def _call_count(self) -> int:
        return len(self._waiting_calls) + self._running_call_count

    def _serve_snapshot(self, connection: FrameConnection, sender: MemberId) -> Callable[[str], None]:
        receiver = SnapshotReceiver(connection, sender, self._settings)
        if self._snapshot_task is not None:
            self._snapshot_task.cancel()
        self._snapshot_task = self._tasks.spawn(self._receive_snapshot(receiver), name=f"snapshot from {sender}")
        return receiver.end

    async def _receive_snapshot(self, receiver: SnapshotReceiver) -> None:
        is_accepted = False
        try:
            async with self._snapshot_lock:
                is_accepted = await receiver.run(self._handler)
        except BaseException:
            receiver.connection.abort("receiving the snapshot was given up")
            raise
        finally:
            self._stats.snapshots_received += is_accepted
            self._stats.snapshots_refused += not is_accepted

"""A snapshot's chunks, on a connection of their own, at the pace of the receiver's disk.

The receiver reports every chunk that its consumer took, and the sender is never more than
`snapshot_window_chunks` ahead. So both ends hold at most that many chunks whatever the kernel buffers, the
peer link's heartbeats never queue behind a snapshot, and a receiver that was sent more knows a cheat.

    sender -> CHUNK*  LAST_CHUNK_SENT          receiver -> CHUNK_TAKEN*  (CALL_REPLY | CALL_ERROR)

Turned down: pausing by TCP alone. Socket buffers hold megabytes on each side, a stall shows late, and
"taken" cannot be told from "buffered by a kernel".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from raftkv.errors import OutcomeUnknown, PeerProtocolError, Rejected, TooLarge, Unavailable
from raftkv.transport.calls import decode_error, encode_error
from raftkv.transport.connection import FrameConnection, FrameInbox
from raftkv.transport.contract import TransportHandler
from raftkv.transport.dialing import Dialed
from raftkv.transport.framing import FrameKind
from raftkv.transport.settings import TransportSettings
from raftkv.transport.stats import TransportStats
from raftkv.types import MemberId


async def send_snapshot(
    dial: Callable[[], Awaitable[Dialed]],
    chunks: AsyncIterator[bytes],
    settings: TransportSettings,
    stats: TransportStats,
) -> None:
    """See `PeerTransport.send_snapshot`; `dial` makes the connection."""
    is_sent = False
    try:
        # Making the snapshot may take long; the receiver's patience should only be needed for sending it.
        first = await anext(chunks, None)
        await _Stream(await dial(), settings).run(first, chunks)
        is_sent = True
    finally:
        stats.snapshots_sent += is_sent
        stats.snapshots_unsent += not is_sent
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


class _Stream:
    """One stream, at its sender."""

    def __init__(self, dialed: Dialed, settings: TransportSettings) -> None:
        self._connection = dialed.connection
        self._inbox = dialed.inbox
        # Every chunk of the window confirmed at once, and the verdict.
        self._inbox.capacity = settings.snapshot_window_chunks + 1
        self._settings = settings
        self._unconfirmed_count = 0
        self._verdict: tuple[int, bytes] | None = None

    async def run(self, first: bytes | None, others: AsyncIterator[bytes]) -> None:
        """Raises `Unavailable` when the stream breaks, what the receiver raised, or what `others` raises."""
        try:
            chunk = first
            while chunk is not None and self._verdict is None:
                await self._send(chunk)
                chunk = await anext(others, None)
            self._connection.send_frame(FrameKind.LAST_CHUNK_SENT, b"")
            while self._verdict is None:
                await self._hear(self._settings.snapshot_accept_timeout_ms)
        finally:
            self._connection.close("the snapshot stream is over")
        kind, payload = self._verdict
        if kind == FrameKind.CALL_ERROR:
            raise decode_error(payload)

    async def _send(self, chunk: bytes) -> None:
        """Wait for room in the window, then send, unless the verdict has come early."""
        if len(chunk) > self._settings.max_snapshot_chunk_bytes:
            raise TooLarge("a snapshot chunk", len(chunk), self._settings.max_snapshot_chunk_bytes)
        while self._unconfirmed_count >= self._settings.snapshot_window_chunks and self._verdict is None:
            await self._hear(self._settings.snapshot_stall_timeout_ms)
        self._connection.send_frame(FrameKind.CHUNK, chunk)
        self._unconfirmed_count += 1

    async def _hear(self, timeout_ms: int) -> None:
        """One frame of the receiver: a chunk was taken, or the verdict."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                kind, payload = await self._inbox.receive()
        except TimeoutError as error:
            raise Unavailable("the receiver of the snapshot has stalled") from error
        except ConnectionError as error:
            raise Unavailable(f"the snapshot stream broke: {error}") from error
        if kind == FrameKind.CHUNK_TAKEN and self._unconfirmed_count:
            self._unconfirmed_count -= 1
        elif kind in (FrameKind.CALL_REPLY, FrameKind.CALL_ERROR):
            self._verdict = kind, payload
        else:
            raise Unavailable(f"the receiver of the snapshot answered with a frame of kind {kind}")


class SnapshotReceiver:
    """One stream, at the follower. Chunks wait in an inbox that holds the window and no more."""

    def __init__(self, connection: FrameConnection, sender: MemberId, settings: TransportSettings) -> None:
        self.sender = sender
        self.connection = connection
        self._stall_timeout_s = settings.snapshot_stall_timeout_ms / 1000
        # One more than the window: the frame that says that it was the last.
        self._inbox = FrameInbox(capacity=settings.snapshot_window_chunks + 1)
        connection.decoder.max_payload_bytes = settings.max_snapshot_chunk_bytes
        connection.decoder.on_frame = self._inbox.put

    def end(self, reason: str) -> None:
        """The connection is gone."""
        self._inbox.end(reason)

    async def run(self, handler: TransportHandler) -> bool:
        """Feed the handler and tell the sender its verdict; True if the snapshot was accepted."""
        chunks = self._chunks()
        try:
            await handler.on_snapshot(self.sender, chunks)
            verdict = FrameKind.CALL_REPLY, b""
        except (Rejected, OutcomeUnknown, PeerProtocolError) as error:
            verdict = FrameKind.CALL_ERROR, encode_error(error)
        finally:
            await chunks.aclose()
        self.connection.send_frame(*verdict)
        # Chunks may still be on their way; closing now would reset the connection and lose the verdict.
        self.connection.await_close("the snapshot stream is over")
        return verdict[0] == FrameKind.CALL_REPLY

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        while True:
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    kind, payload = await self._inbox.receive()
            except TimeoutError as error:
                raise Unavailable("the sender of the snapshot has stalled") from error
            except ConnectionError as error:
                raise Unavailable(f"the snapshot stream broke: {error}") from error
            if kind == FrameKind.LAST_CHUNK_SENT:
                return
            if kind != FrameKind.CHUNK:
                raise PeerProtocolError(f"a frame of kind {kind} in a snapshot stream")
            # Told before the consumer works on it, so that the next one is on its way meanwhile.
            self.connection.send_frame(FrameKind.CHUNK_TAKEN, b"")
            yield payload

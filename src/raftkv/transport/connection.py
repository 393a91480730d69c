"""One TCP connection that speaks frames: bytes to frames, closing exactly once, and noticing the dead.

A connection is dead when the kernel says so (reset, keepalive, unacknowledged data for too long) or when its
full write buffer does not move for `write_stall_timeout_ms`, which is how a stopped process on a living
machine shows. Raft's heartbeats make sure that something is always written to a peer that matters.

Turned down: asyncio's StreamReader. It costs a coroutine switch and two copies a frame; here a frame costs a
function call. `FrameInbox` gives the few slow conversations (handshakes, calls, snapshots) something to await.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, cast

from raftkv.errors import PeerProtocolError
from raftkv.transport.framing import ConnectionRefusal, FrameDecoder, FrameHandler, RefusalReason, encode_header

CLOSE_TIMEOUT_S = 1.0
"""How long `close` waits for the other side to take what was written."""

WRITE_HIGH_WATER_BYTES = 0
"""So the loop offers every write to the kernel at once, and we hear when the kernel does not take all of it."""

_KEEPALIVE_OPTIONS = (
    # Where a name is missing (not Linux) the system's default stays.
    ("TCP_KEEPIDLE", 5),
    ("TCP_KEEPINTVL", 2),
    ("TCP_KEEPCNT", 3),
    ("TCP_USER_TIMEOUT", 10_000),
)

LostHandler: TypeAlias = Callable[[str], None]
"""Called once, with the reason in words, when the connection is gone."""


def ignore_frame(_kind: int, _payload: bytes) -> None:
    """What comes in after a connection was closed on our side."""


def refuse_frame(kind: int, _payload: bytes) -> None:
    """For a connection on which the other side has nothing to say."""
    raise ConnectionRefusal(RefusalReason.UNEXPECTED, f"unexpected frame of kind {kind}")


class FrameConnection(asyncio.Protocol):
    """Either end of a connection. `on_refused` hears of a breach of protocol before the connection is cut."""

    def __init__(self, max_payload_bytes: int, on_frame: FrameHandler, on_lost: LostHandler) -> None:
        self.decoder = FrameDecoder(max_payload_bytes, on_frame)
        self.on_lost = on_lost
        self.on_refused: Callable[[PeerProtocolError], None] | None = None
        self.write_stall_timeout_s = 5.0
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None
        self._written_bytes = 0
        self._moved_bytes = 0
        """What the kernel had taken when the stall timer was set."""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tcp = cast(asyncio.Transport, transport)
        tcp.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        _set_socket_options(tcp)
        self._transport = tcp
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        try:
            self.decoder.feed(data)
        except PeerProtocolError as error:
            if self.on_refused is not None:
                self.on_refused(error)
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._reason or (f"connection lost: {exc}" if exc else "closed by the other side"))
        self._cancel_timer()
        self._transport = None
        self.on_lost(self._reason)
        self.decoder.on_frame = ignore_frame
        self.on_lost = _ignore_lost
        self.on_refused = None

    def pause_writing(self) -> None:
        if self.is_open:
            self._arm_stall_timer()

    def resume_writing(self) -> None:
        if self.is_open:
            self._cancel_timer()

    # Our side

    @property
    def unsent_bytes(self) -> int:
        """What was written and has not yet been given to the kernel."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def send_frame(self, kind: int, payload: bytes) -> None:
        self.write_all([encode_header(kind, payload), payload])

    def write_all(self, parts: list[bytes]) -> None:
        """Write without blocking; whoever may write much looks at `unsent_bytes` first."""
        if self._transport is not None and self.is_open:
            self._written_bytes += sum(map(len, parts))
            self._transport.writelines(parts)

    def close(self, reason: str) -> None:
        """Take nothing more, send what was written, end. A second close, or one after the loss, does nothing."""
        if self.is_open and self._transport is not None:
            self.await_close(reason)
            self._transport.close()

    def await_close(self, reason: str) -> None:
        """Take nothing more and let the other side close, for a moment, so that it can read all we wrote."""
        if self.is_open and self._transport is not None:
            self._stop(reason)
            self._cancel_timer()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self, reason: str) -> None:
        """End at once; what was written may not arrive."""
        if self._transport is not None:
            self._stop(reason)
            self._transport.abort()

    def _stop(self, reason: str) -> None:
        self._reason = self._reason or reason
        self.is_open = False
        self.decoder.on_frame = ignore_frame

    def _arm_stall_timer(self) -> None:
        self._moved_bytes = self._written_bytes - self.unsent_bytes
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(self.write_stall_timeout_s, self._check_stall)

    def _check_stall(self) -> None:
        # The buffer alone says nothing: new frames may have taken the place of those that left. Under TLS each of them
        # takes more room in it than it has bytes, so that what has moved may seem to shrink.
        if self._written_bytes - self.unsent_bytes <= self._moved_bytes:
            self.abort("the other side has stopped reading")
        else:
            self._arm_stall_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore_lost(_reason: str) -> None:
    """A connection is lost only once."""


def _set_socket_options(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    # A socket that died between accept and here refuses options; the loop is about to tell us so.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE_OPTIONS:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class FrameInbox:
    """Frames to await, at most `capacity`: whoever sends more than the conversation allows breaks the protocol."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[tuple[int, bytes]] = deque()
        self.capacity = capacity
        self._lost_reason: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, kind: int, payload: bytes) -> None:
        if len(self._frames) >= self.capacity:
            raise ConnectionRefusal(RefusalReason.UNEXPECTED, "more frames than the conversation allows")
        self._frames.append((kind, payload))
        self._wake()

    def end(self, reason: str) -> None:
        """No more frames will come; those that came can still be received."""
        self._lost_reason = reason
        self._wake()

    async def receive(self) -> tuple[int, bytes]:
        """The next frame; `ConnectionError` when the connection is gone. For one task at a time."""
        while not self._frames:
            if self._lost_reason is not None:
                raise ConnectionError(self._lost_reason)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._frames.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

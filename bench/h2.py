"""A small gRPC-over-HTTP/2 sender that can vary its bodies, which h2load cannot.

It fills etcd; nothing is measured with it.

What of HTTP/2 is here: one request at a time on a connection, headers without any compression state,
windows opened wide once for what we receive and counted for what we send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.processes import BenchError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_HUGE_WINDOW = (1 << 31) - 1 - 65_535


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block(path: str, authority: str) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(bytes((0, len(n))) + n.encode() + bytes((len(v),)) + v.encode() for n, v in fields)


class Caller(asyncio.Protocol):
    """A closed loop on one connection: the next request leaves when the answer to the last is complete.

    `next_body()` gives the body of the next request, or None to stop; `done` is then resolved.
    """

    def __init__(self, path: str, authority: str, next_body: Callable[[], bytes | None]):
        self._block = _header_block(path, authority)
        self._next_body = next_body
        self._buffer = bytearray()
        self._stream = -1
        self._send_window = 65_535
        self._waiting: bytes | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        initial_window = (4).to_bytes(2, "big") + ((1 << 31) - 1).to_bytes(4, "big")
        transport.write(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, initial_window)
            + _frame(_WINDOW_UPDATE, 0, 0, _HUGE_WINDOW.to_bytes(4, "big"))
        )
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(BenchError(f"etcd closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 9:
            length = int.from_bytes(buffer[:3], "big")
            if len(buffer) < 9 + length:
                return
            self._handle(buffer[3], buffer[4], bytes(buffer[9 : 9 + length]))
            del buffer[: 9 + length]

    def _handle(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _HEADERS and flags & _END_STREAM:
            self._send_next()
        elif kind == _WINDOW_UPDATE:  # only those of the connection matter: a stream never sends 64 KiB
            self._send_window += int.from_bytes(payload, "big")
            self._send_waiting()
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY):
            self.done.set_exception(BenchError(f"etcd refused a request: {payload!r}"))
            self._transport.close()

    def _send_next(self) -> None:
        body = self._next_body()
        if body is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._waiting = body
        self._send_waiting()

    def _send_waiting(self) -> None:
        body = self._waiting
        if body is None or len(body) > self._send_window:
            return
        self._waiting = None
        self._stream += 2
        self._send_window -= len(body)
        data = bytearray(_frame(_HEADERS, _END_HEADERS, self._stream, self._block))
        for at in range(0, len(body), 16_384):
            last = at + 16_384 >= len(body)
            data += _frame(_DATA, _END_STREAM if last else 0, self._stream, body[at : at + 16_384])
        self._transport.write(data)


async def call_all(
    host: str, port: int, path: str, next_body: Callable[[], bytes | None], connection_count: int
) -> None:
    """Send what `next_body` gives over several connections; returns when all is answered."""
    loop = asyncio.get_running_loop()
    callers: list[Caller] = []
    for _ in range(connection_count):
        _, caller = await loop.create_connection(lambda: Caller(path, f"{host}:{port}", next_body), host, port)
        callers.append(caller)
    await asyncio.gather(*(caller.done for caller in callers))

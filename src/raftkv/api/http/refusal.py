"""Connections over `max_connections`: told so, at the least cost, and never many at once."""

from __future__ import annotations

import asyncio

from raftkv.api.http.limits import LINGER_S, REFUSALS_AT_ONCE
from raftkv.api.http.metrics import HttpMetrics
from raftkv.api.http.responses import STATUS_LINES, error_answer
from raftkv.api.request_errors import TooManyConnections


class Refusals:
    """Those that wait for their 503 to be read."""

    def __init__(self, metrics: HttpMetrics) -> None:
        answer = error_answer(TooManyConnections("too many connections are open (setting max_connections)"))
        lines = [b"%b: %b\r\n" % pair for pair in answer.headers]
        self.answer = b"%b%bconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
            STATUS_LINES[answer.status],
            b"".join(lines),
            len(answer.body),
            answer.body,
        )
        self._metrics = metrics
        self._open: set[Refusal] = set()

    def make(self) -> Refusal:
        self._metrics.refused_connections += 1
        return Refusal(self)

    def close(self) -> None:
        for refusal in list(self._open):
            refusal.drop()

    def opened(self, refusal: Refusal) -> None:
        if len(self._open) >= REFUSALS_AT_ONCE:
            refusal.drop()
        else:
            self._open.add(refusal)

    def closed(self, refusal: Refusal) -> None:
        self._open.discard(refusal)


class Refusal(asyncio.Protocol):
    """Says 503, throws away what comes in, and ends with the client or after `LINGER_S`."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.write(self._refusals.answer)
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self.drop)
        self._refusals.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._refusals.closed(self)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

"""What a client may cost: sizes, counts and times, and the sweep that enforces the times.

No request starts a timer. A sweep looks at every connection a few times within the shortest timeout, notes what
it waits for, and ends it when it has waited too long for the same thing; so a timeout fires up to two sweeps
late. Turned down: `loop.call_later` for each request, as uvicorn does for keep-alive. It costs 1 to 2 µs a
request, which is a tenth of the whole budget, to find what a sweep finds for nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from raftkv.api.port import HttpSettings

logger = logging.getLogger("raftkv.http")

LINGER_S = 2.0
"""How long input is still thrown away after an answer that ends the connection. Closing at once would make the
kernel send a reset, and the client would lose the answer that says what was wrong."""

LINGER_MAX_BYTES = 32 << 20
REFUSALS_AT_ONCE = 64
"""Connections over `max_connections` that may wait for their 503 to be read; further ones are dropped at once."""

OTHER_BODY_MAX_BYTES = 64 * 1024
JSON_ESCAPE_FACTOR = 6
"""A byte of a key may be sent as `\\u00xx` in JSON; in a URL it takes three characters."""

_SLACK_BYTES = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Derived from the settings once."""

    header_bytes: int
    url_bytes: int
    body_bytes: int
    connections: int
    idle_s: float
    request_s: float
    """For the header, for the body, and for the client to take an answer: each has this long."""

    @classmethod
    def of(cls, settings: HttpSettings) -> Limits:
        body = settings.max_value_bytes + JSON_ESCAPE_FACTOR * settings.max_key_bytes + _SLACK_BYTES
        return cls(
            header_bytes=settings.max_header_bytes,
            url_bytes=3 * settings.max_key_bytes + _SLACK_BYTES,
            body_bytes=max(body, OTHER_BODY_MAX_BYTES),
            connections=settings.max_connections,
            idle_s=settings.idle_timeout_ms / 1000,
            request_s=settings.body_timeout_ms / 1000,
        )

    @property
    def sweep_interval_s(self) -> float:
        return min(1.0, max(0.02, min(self.idle_s, self.request_s) / 4))


class Waiting(enum.Enum):
    """What a connection waits for."""

    REQUEST = "request"
    METHOD = "method"
    """The connection's first bytes came, and no path: perhaps half a method name."""
    HEADER = "header"
    BODY = "body"
    ANSWER = "answer"
    READER = "reader"
    END = "end"


class Swept(Protocol):
    """A connection as the sweep sees it."""

    def waiting_for(self) -> tuple[Waiting, int]:
        """What for, and a number that changes when it got on: the requests begun, or the bytes not yet taken."""
        ...

    def timed_out(self, waiting: Waiting) -> None: ...


class Sweep:
    """Ends connections that wait too long. `now` is the loop's clock, in seconds."""

    def __init__(self, limits: Limits, connections: Callable[[], Iterable[Swept]]) -> None:
        self._connections = connections
        self._noted: dict[Swept, tuple[tuple[Waiting, int], float]] = {}
        self._limit_s: dict[Waiting, float] = {
            Waiting.REQUEST: limits.idle_s,
            Waiting.METHOD: limits.request_s,
            Waiting.HEADER: limits.request_s,
            Waiting.BODY: limits.request_s,
            Waiting.READER: limits.request_s,
            Waiting.ANSWER: float("inf"),  # the node ends every request itself (request_timeout_ms)
            Waiting.END: min(LINGER_S, limits.request_s),
        }

    def look(self, now: float) -> None:
        noted = self._noted
        self._noted = {}
        for connection in list(self._connections()):
            state = connection.waiting_for()
            before, since = noted.get(connection, (None, now))
            if before != state:
                since = now
            if now - since > self._limit_s[state[0]]:
                connection.timed_out(state[0])
            else:
                self._noted[connection] = (state, since)


async def run_periodically(interval_s: float, action: Callable[[], None]) -> None:
    """Until cancelled. A failing action is logged and tried again: without sweeps no limit on time would hold."""
    while True:
        await asyncio.sleep(interval_s)
        try:
            action()
        except Exception:
            logger.exception("the sweep over HTTP connections failed; it goes on")

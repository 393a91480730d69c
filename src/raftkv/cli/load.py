"""A closed-loop load generator: each connection sends a request, waits for its answer, and sends the next.

It speaks HTTP itself on plain asyncio protocols, because a general client would spend several times longer on a
request than the server does and so measure itself. Even so it shares the machine with the nodes when both run on
one, and says so. Latency counts from handing the request to the kernel until its answer is parsed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import time
from bisect import bisect_left
from collections import Counter
from typing import cast

import httptools

LATENCY_STEP = 1.05
_LATENCY_FIRST_SECONDS = 1e-5
REOPEN_PAUSE_SECONDS = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. `write_percent` of the requests are puts, the rest are gets."""

    servers: list[tuple[str, int]]
    connection_count: int
    key_count: int
    value_bytes: int
    write_percent: float
    consistency: str = ""


class Latencies:
    """A histogram with buckets 5 % wide: any number of requests in a little memory."""

    def __init__(self) -> None:
        self._bounds = [_LATENCY_FIRST_SECONDS * LATENCY_STEP**step for step in range(320)]
        self._counts = [0] * (len(self._bounds) + 1)
        self.count = 0
        self.longest_seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.count += 1
        self.longest_seconds = max(self.longest_seconds, seconds)

    def quantile(self, fraction: float) -> float:
        """The upper end of the bucket that the quantile lies in, never above the longest; 0.0 when empty."""
        rank, seen = fraction * self.count, 0
        for bound, count in zip([*self._bounds, self.longest_seconds], self._counts, strict=True):
            seen += count
            if count and seen >= rank:
                return min(bound, self.longest_seconds)
        return self.longest_seconds


class Tally:
    """What came of the requests of one kind. `failures` counts by HTTP status or by what happened instead."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.failures: Counter[str] = Counter()


class LoadRun:
    """Runs a load; `tallies` maps `put` and `get` to what was counted since the last `reset`."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._random = random.Random()
        self._value = "x" * max(load.value_bytes - 2, 0)
        self._is_running = True
        self._lost: asyncio.Queue[_Connection] = asyncio.Queue()
        self.tallies: dict[str, Tally] = {}
        self.started_seconds = 0.0
        self.reset()

    def reset(self) -> None:
        """Begin to count anew, once warm."""
        self.tallies = {"put": Tally(), "get": Tally()}
        self.started_seconds = time.perf_counter()

    @property
    def is_writing(self) -> bool:
        return self._load.write_percent > 0

    @property
    def completed(self) -> int:
        return sum(tally.latencies.count for tally in self.tallies.values())

    async def run(self, until: asyncio.Event) -> None:
        """Keep every connection busy until the event is set. Raises OSError when no connection can be made at all."""
        connections = [_Connection(self, server) for server in self._servers_in_turn()]
        failures = [error for connection in connections if (error := await connection.open()) is not None]
        if len(failures) == len(connections):
            raise failures[0]
        self.reset()
        for connection in connections:
            connection.send_next()
        keeper = asyncio.ensure_future(self._reopen_lost())
        try:
            await until.wait()
        finally:
            self._is_running = False
            keeper.cancel()
            for connection in connections:
                connection.close()

    def _servers_in_turn(self) -> list[tuple[str, int]]:
        servers = self._load.servers
        return [servers[number % len(servers)] for number in range(self._load.connection_count)]

    async def _reopen_lost(self) -> None:
        """A server that goes away costs its connections a pause, not the run."""
        while True:
            connection = await self._lost.get()
            if await connection.open() is None:
                connection.send_next()
            else:
                await asyncio.sleep(REOPEN_PAUSE_SECONDS)

    def next_request(self) -> tuple[str, bytes]:
        """A kind, `put` or `get`, and the bytes of a request for a random key."""
        key = f"bench-{self._random.randrange(self._load.key_count):08d}"
        if self._random.random() * 100 < self._load.write_percent:
            body = f'{{"key":"{key}","value":"{self._value}"}}'
            head = (
                f"POST /store HTTP/1.1\r\nHost: raftkv\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            return "put", f"{head}\r\n\r\n{body}".encode()
        query = f"?consistency={self._load.consistency}" if self._load.consistency else ""
        return "get", f"GET /store/{key}{query} HTTP/1.1\r\nHost: raftkv\r\n\r\n".encode()

    def answered(self, kind: str, status: int, seconds: float) -> None:
        tally = self.tallies[kind]
        # A get of a key that was not written yet is served as well as any other.
        if status < 300 or (kind == "get" and status == 404):
            tally.latencies.add(seconds)
        else:
            tally.failures[f"HTTP {status}"] += 1

    def lost(self, connection: _Connection, kind: str, reason: str) -> None:
        if self._is_running:
            self.tallies[kind].failures[reason] += 1
            self._lost.put_nowait(connection)


class _Connection(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, run: LoadRun, server: tuple[str, int]) -> None:
        self.server = server
        self._run = run
        self._kind = "put" if run.is_writing else "get"
        self._sent_seconds = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)

    async def open(self) -> OSError | None:
        """Connect; an error is also counted, and the connection queued to be opened again."""
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self.server)
        except OSError as error:
            self._run.lost(self, self._kind, "cannot connect")
            return error
        return None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)

    def send_next(self) -> None:
        if self._transport is not None:
            self._kind, request = self._run.next_request()
            self._sent_seconds = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of each answer."""
        self._run.answered(self._kind, self._parser.get_status_code(), time.perf_counter() - self._sent_seconds)
        self.send_next()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._run.lost(self, self._kind, "connection lost")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

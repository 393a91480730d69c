"""The network between the nodes of a soak run: a TCP proxy in front of every node's Raft port.

A node advertises its proxy's address, so all that the others send it comes through here. Who dials is read from the
hello that begins every connection; from then on each direction of the connection is traffic of one road.

Bytes on a held road wait and are delivered when it opens, as TCP delivers what was lost on its way; so does the news
that a connection has ended, which is why a node behind a silent partition is not told that its peer has died. The
order of bytes is kept, and nothing is altered. Two things are milder than in `namespaces`: what is held up one way does
not hold up the other, though the acknowledgements of TCP are packets too; and a road that opens is open at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

from raftkv.errors import PeerProtocolError
from raftkv.transport.framing import HEADER, HEADER_BYTES, MAX_HANDSHAKE_BYTES
from raftkv.transport.handshake import decode_hello
from tests.ports import free_port
from tests.soak.roads import OPEN, Condition, Place, Road

T = TypeVar("T")
PIECE_BYTES = 16 << 10
PIECES_ON_THE_WAY = 256
CHANGE_TIMEOUT_S = 20.0


class ProxyNetwork:
    """A `Network`. Pieces of what was sent are counted as held and delayed, connections as refused and cut."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.failures: list[BaseException] = []
        self.can_delay = True
        self._conditions: dict[Road, Condition] = {}
        self._changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def place(self, node_id: str, http_port: int, raft_port: int) -> Place:
        """The node listens on loopback, and advertises the proxy."""
        proxy_port = self._in_loop(lambda: self._listen(node_id, raft_port))
        address = f"127.0.0.1:{proxy_port}"
        return Place(f"127.0.0.1:{http_port}", address, {"advertise_raft_address": address})

    def inside(self, _node_id: str) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def impose(self, conditions: Mapping[Road, Condition]) -> None:
        self._in_loop(lambda: self._impose(conditions))

    def heal(self) -> None:
        self.impose({})

    def cut(self, roads: Iterable[Road], *, is_torn: bool) -> None:
        """In the middle of the next piece, when it is to be torn."""
        self._in_loop(lambda: self._cut(set(roads), is_torn=is_torn))

    def close(self) -> None:
        self._in_loop(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CHANGE_TIMEOUT_S)
        self._loop.close()

    def _in_loop(self, change: Callable[[], Awaitable[T]]) -> T:
        async def carried_out() -> T:
            return await change()

        return asyncio.run_coroutine_threadsafe(carried_out(), self._loop).result(CHANGE_TIMEOUT_S)

    # From here on everything runs in the loop.

    def condition(self, road: Road) -> Condition:
        return self._conditions.get(road, OPEN)

    async def wait_not_held(self, road: Road) -> None:
        self.counts["held"] += self.condition(road).is_held
        while self.condition(road).is_held:
            await self._changed.wait()

    async def _listen(self, node_id: str, raft_port: int) -> int:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(node_id, raft_port, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._served)

        server = await asyncio.start_server(accepted, "127.0.0.1", free_port())
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.failures.append(error)

    async def _impose(self, conditions: Mapping[Road, Condition]) -> None:
        self._conditions = dict(conditions)
        self._changed.set()
        self._changed = asyncio.Event()
        for connection in tuple(self._connections):
            if self.condition(connection.road).is_refused:
                self.counts["refused"] += 1
                connection.abort()

    async def _cut(self, roads: set[Road], *, is_torn: bool) -> None:
        for connection in tuple(self._connections):
            if connection.road in roads:
                self.counts["cut"] += 1
                connection.is_to_be_torn = True
                if not is_torn:
                    connection.abort()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    async def _serve(
        self, target: str, raft_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with _closing(writer), contextlib.suppress(OSError, EOFError, PeerProtocolError):
            hello, source = await _read_hello(reader)
            road = (source, target)
            await self.wait_not_held(road)
            if self.condition(road).is_refused:
                self.counts["refused"] += 1
                return
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", raft_port)
            with _closing(onward_writer):
                onward_writer.write(hello)
                connection = _Connection(self, road, (writer, onward_writer))
                self._connections.add(connection)
                try:
                    await connection.carry(reader, onward_reader)
                finally:
                    self._connections.discard(connection)


class _Connection:
    """One connection, dialled along `road`; it carries traffic of that road and of the one back."""

    def __init__(
        self, network: ProxyNetwork, road: Road, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        self.road = road
        self.is_to_be_torn = False
        self._network = network
        self._writers = writers

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, onward_reader: asyncio.StreamReader) -> None:
        """Until either side has ended it and the other one could be told."""
        writer, onward_writer = self._writers
        there = asyncio.create_task(self._pump(self.road, reader, onward_writer))
        back = asyncio.create_task(self._pump(self.road[::-1], onward_reader, writer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            for outcome in await asyncio.gather(there, back, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                    raise outcome

    async def _pump(self, road: Road, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pieces are read ahead of their delivery, so that a delay is one of time and not of throughput."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_ON_THE_WAY)
        reading = asyncio.create_task(self._read(road, reader, pieces))
        try:
            while (piece := await pieces.get())[1]:
                await self._deliver(road, *piece, writer)
            await self._wait_open(road, piece[0])
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, road: Road, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        """Each piece with the time before which it does not arrive; an empty one is the end of the connection."""
        loop, due_s = asyncio.get_running_loop(), 0.0
        while True:
            data = b""
            with contextlib.suppress(OSError):
                data = await reader.read(PIECE_BYTES)
            low_s, high_s = self._network.condition(road).delay_s
            self._network.counts["delayed"] += bool(high_s)
            due_s = max(due_s, loop.time() + random.uniform(low_s, high_s))
            await pieces.put((due_s, data))
            if not data:
                return

    async def _deliver(self, road: Road, due_s: float, data: bytes, writer: asyncio.StreamWriter) -> None:
        await self._wait_open(road, due_s)
        if self.is_to_be_torn:
            writer.write(data[: len(data) // 2])
            await writer.drain()
            raise ConnectionResetError("cut in the middle")
        writer.write(data)
        await writer.drain()

    async def _wait_open(self, road: Road, due_s: float) -> None:
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        await self._network.wait_not_held(road)


@contextlib.contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Closed with what was written delivered; a cancellation does not wait for that."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    finally:
        writer.close()


async def _read_hello(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """The first frame as it came, and who sends it. The node behind judges it; nothing is checked here but its form."""
    header = await reader.readexactly(HEADER_BYTES)
    length = int(HEADER.unpack(header)[0])
    if length > MAX_HANDSHAKE_BYTES:
        raise PeerProtocolError("no hello")
    payload = await reader.readexactly(length)
    return header + payload, decode_hello(payload).node_id

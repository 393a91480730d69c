"""Both ends of the HTTP interface in one loop: a server over a fake node, and a client that sends bytes as given."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from raftkv.api.http import HttpServer
from tests.api.fake_node import FakeNode, FakeSettings

DEADLINE_S = 10.0
LANES = ["fast", "slow"]


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, method: str = "GET") -> Reply:
        """The next answer. Raises IncompleteReadError when the server closed before one."""
        async with asyncio.timeout(DEADLINE_S):
            interim: list[int] = []
            while True:
                lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                status = int(lines[0].split(" ")[1])
                if status != 100:
                    break
                interim.append(status)
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
            assert len(headers) == len([line for line in lines[1:] if line]), f"a header came twice: {lines}"
            body = b""
            if method != "HEAD":
                body = await self.reader.readexactly(int(headers["content-length"]))
            return Reply(status, headers, body, interim)

    async def closed(self) -> bytes:
        """What still comes until the server closes."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(-1)

    def close(self) -> None:
        self.writer.transport.abort()


class World:
    """A running server and its node."""

    def __init__(self, server: HttpServer, node: FakeNode, address: tuple[str, int]) -> None:
        self.server = server
        self.node = node
        self.address = address
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection(*self.address))
        self._clients.append(client)
        return client

    async def raw(self, data: bytes, method: str = "GET") -> Reply:
        """One answer to these bytes, on a connection of their own."""
        client = await self.connect()
        await client.send(data)
        reply = await client.reply(method)
        client.close()
        return reply

    async def ask(self, method: str, target: str, body: bytes | None = None, /, **headers: str) -> Reply:
        return await self.raw(request(method, target, body, **headers), method)

    async def until(self, condition: Callable[[], object]) -> None:
        """Give the loop turns until it holds."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - what is awaited is in the server's own state
                await asyncio.sleep(0)

    async def held(self, count: int) -> None:
        """Until so many requests wait in the node."""
        await self.until(lambda: len(self.node.held) >= count)

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()


def request(method: str, target: str, body: bytes | None = None, /, **headers: str) -> bytes:
    """`content_type="text/plain"` is the header `content-type`; a body has type JSON unless said otherwise."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    if body is not None:
        headers.setdefault("content_type", "application/json")
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def store(key: str, value: bytes, /, **headers: str) -> bytes:
    return request("POST", "/store", b'{"key":%b,"value":%b}' % (json.dumps(key).encode(), value), **headers)


def play(
    scenario: Callable[[World], Awaitable[None]], lane: str = "fast", node: FakeNode | None = None, /, **settings: Any
) -> None:
    """Run `scenario` against a fresh server on a lane, and stop it."""

    async def run() -> None:
        own = node or FakeNode()
        server = HttpServer(own, FakeSettings(**settings), fast_lane=lane == "fast")
        world = World(server, own, await server.start())
        try:
            await scenario(world)
        finally:
            world.close_clients()
            own.release()
            await server.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())

"""The other end of a TCP connection in a test's own hands: says what it likes, reads when it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from raftkv.transport import PeerIdentity
from raftkv.transport.framing import HEADER, HEADER_BYTES, FrameKind, encode_header
from raftkv.transport.handshake import HelloReply, Purpose, decode_reply, encode_hello, encode_reply
from tests.transport.world import CLUSTER_ID, Node


def encode_frame(kind: int, payload: bytes) -> bytes:
    """A frame as one piece; the transport writes header and payload one after the other."""
    return encode_header(kind, payload) + payload


class RawPeer:
    """One connection, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    def say_frame(self, kind: int, payload: bytes) -> None:
        self.say(encode_frame(kind, payload))

    def say_hello(self, purpose: Purpose, member_id: int = 1, cluster_id: int = CLUSTER_ID, recipient: int = 0) -> None:
        identity = PeerIdentity(cluster_id, member_id, f"node{member_id}")
        self.say_frame(FrameKind.HELLO, encode_hello(identity, purpose, recipient))

    async def hear_frame(self) -> tuple[int, bytes]:
        length, _, kind, _ = HEADER.unpack(await self.reader.readexactly(HEADER_BYTES))
        return kind, await self.reader.readexactly(length)

    async def hear_reply(self) -> HelloReply:
        kind, payload = await self.hear_frame()
        assert kind == FrameKind.HELLO_REPLY
        return decode_reply(payload)

    async def hear_end(self) -> bytes:
        """Everything until the other side ends the connection, in whatever way."""
        heard = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(1 << 16):
                heard += data
        return bytes(heard)

    def finish(self) -> None:
        """Say that nothing more will be said; the other side may have hung up already."""
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def dialed(node: Node) -> AsyncIterator[RawPeer]:
    """A raw connection to a node's peer port."""
    peer = RawPeer(*await asyncio.open_connection("127.0.0.1", node.port))
    try:
        yield peer
    finally:
        await peer.close()


class RawListener:
    """A peer port that does nothing but queue up who dials."""

    def __init__(self, member_id: int) -> None:
        self.identity = PeerIdentity(CLUSTER_ID, member_id, f"node{member_id}")
        self.address = ""
        self.port = 0
        self._arrivals: asyncio.Queue[RawPeer] = asyncio.Queue()
        self._all: list[RawPeer] = []

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = RawPeer(reader, writer)
        self._all.append(peer)
        self._arrivals.put_nowait(peer)

    async def next_dial(self) -> RawPeer:
        return await self._arrivals.get()

    async def accept(self) -> RawPeer:
        """Shake hands as an honest node would."""
        peer = await self.next_dial()
        await peer.hear_frame()
        peer.say_frame(FrameKind.HELLO_REPLY, encode_reply(self.identity, None))
        return peer

    async def close_all(self) -> None:
        for peer in self._all:
            await peer.close()


@contextlib.asynccontextmanager
async def raw_listener(member_id: int, port: int = 0) -> AsyncIterator[RawListener]:
    listener = RawListener(member_id)
    server = await asyncio.start_server(listener.arrived, "127.0.0.1", port)
    listener.port = server.sockets[0].getsockname()[1]
    listener.address = f"127.0.0.1:{listener.port}"
    try:
        yield listener
    finally:
        server.close()
        await listener.close_all()
        await server.wait_closed()

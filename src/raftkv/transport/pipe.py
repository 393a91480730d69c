"""Two frame connections joined back to back in one process, for the memory network's calls and snapshots."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from raftkv.transport.connection import FrameConnection, FrameInbox
from raftkv.transport.framing import MAX_HANDSHAKE_BYTES


class _PipeEnd(asyncio.Transport):
    """What is written here is read there on the loop's next turn."""

    def __init__(self, mine: FrameConnection) -> None:
        super().__init__()
        self.mine = mine
        self.other: _PipeEnd | None = None
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._is_closing and self.other is not None:
            asyncio.get_running_loop().call_soon(self.other.receive, bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def receive(self, data: bytes) -> None:
        if not self._is_closing:
            self.mine.data_received(data)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self.mine.connection_lost, None)
            if self.other is not None:
                asyncio.get_running_loop().call_soon(self.other.close)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""


@dataclasses.dataclass(slots=True)
class Pipe:
    """`inbound` is the listener's end, `outbound` and `inbox` are the dialer's."""

    source: str
    destination: str
    inbound: FrameConnection
    outbound: FrameConnection
    inbox: FrameInbox
    when_lost: Callable[[str], None] | None = None

    @property
    def is_open(self) -> bool:
        return self.inbound.is_open or self.outbound.is_open

    def break_off(self, reason: str) -> None:
        self.inbound.abort(reason)
        self.outbound.abort(reason)

    def tell_lost(self, reason: str) -> None:
        if self.when_lost is not None:
            self.when_lost(reason)


def open_pipe(source: str, destination: str) -> Pipe:
    inbox = FrameInbox(capacity=2)
    outbound = FrameConnection(MAX_HANDSHAKE_BYTES, inbox.put, inbox.end)
    inbound = FrameConnection(MAX_HANDSHAKE_BYTES, inbox.put, inbox.end)
    pipe = Pipe(source, destination, inbound, outbound, inbox)
    inbound.on_lost = pipe.tell_lost
    ends = _PipeEnd(outbound), _PipeEnd(inbound)
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end in ends:
        end.mine.connection_made(end)
    return pipe
